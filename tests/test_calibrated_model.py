"""A model folder's calibration: loaded with the model, refused when it cannot be right, left behind by new weights."""

import shutil

import huggingface_hub
import pytest
from huggingface_hub.errors import EntryNotFoundError

from llava_pose import LlavaPose, calibration, checkpoint
from llava_pose.calibration import Calibration, Line, Powers
from llava_pose.errors import UserError
from llava_pose.folders import optional_file
from llava_pose.info import report
from tests.test_adapters import trained_adapter

FITTED = Calibration(40, Line(1.5, -0.25), Powers(0.75, 0.25, 0.5), Line(1.0, 0.0), 1.25, 640, "data", "val")


@pytest.fixture
def calibrated(tiny_model_dir, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(tiny_model_dir, folder)
    (folder / "calibration.json").write_text(calibration.to_text(FITTED), encoding="utf-8")
    return folder


def test_a_calibration_is_loaded_with_its_model(calibrated, tiny_model_dir):
    assert checkpoint.load(calibrated)[0].calibration == FITTED
    assert LlavaPose.from_pretrained(calibrated).engine.model.calibration == FITTED
    assert checkpoint.load(tiny_model_dir)[0].calibration is None


def test_info_says_whether_a_model_is_calibrated_and_on_what(calibrated, tiny_model_dir):
    assert "model: how sure it says it is was fitted to 640 objects of data (val)" in list(report(str(calibrated)))
    assert [line for line in report(str(tiny_model_dir)) if line.startswith("model: not calibrated")]


def test_the_embedded_model_is_calibrated():
    found = checkpoint.load(checkpoint.EMBEDDED)[0].calibration
    assert found is not None and found.objects > 900
    # By itself it is too sure, most of all where it doubts; its order stays.
    assert found.hit(0.5) < 0.5 < found.hit(0.9) < found.hit(0.99) < 1


def test_new_weights_leave_a_calibration_behind(calibrated, tmp_path):
    model, processor = checkpoint.load(calibrated)
    checkpoint.save(model, processor, tmp_path / "again")
    assert checkpoint.load(tmp_path / "again")[0].calibration is None
    checkpoint.save(model, processor, calibrated)
    assert not (calibrated / "calibration.json").exists()


@pytest.mark.parametrize("old, new", [("40", "36"), ("1.25", "-1"), ("{", "")])
def test_a_calibration_that_cannot_be_right_is_refused(calibrated, old, new):
    path = calibrated / "calibration.json"
    path.write_text(path.read_text(encoding="utf-8").replace(old, new, 1), encoding="utf-8")
    with pytest.raises(UserError, match=r"calibration\.json"):
        checkpoint.load(calibrated)


def test_an_adapter_has_its_own_calibration_and_never_its_bases(calibrated, tmp_path):
    trained_adapter(calibrated, tmp_path / "adapter")
    assert checkpoint.load(tmp_path / "adapter")[0].calibration is None
    shutil.copy(calibrated / "calibration.json", tmp_path / "adapter")
    assert checkpoint.load(tmp_path / "adapter")[0].calibration == FITTED


def test_a_model_on_a_hub_may_carry_a_calibration_or_not(calibrated, monkeypatch):
    def download(name, file):
        if name == "another/model":
            raise EntryNotFoundError(file)
        return str(calibrated / file)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    assert optional_file("some/model", "calibration.json") == calibrated / "calibration.json"
    assert optional_file("another/model", "calibration.json") is None
