"""Averages of models."""

import sys

import pytest
import torch
from safetensors.torch import load_file, save_file

from llava_pose import calibration, checkpoint
from llava_pose.errors import UserError
from train import average


@pytest.fixture
def folders(tiny_pair, tmp_path):
    """Three models whose weights differ by known amounts; the last has a calibration."""
    model, processor = tiny_pair
    paths = []
    for number, offset in enumerate((0.0, 0.5, 2.5)):
        paths.append(tmp_path / f"model{number}")
        checkpoint.save(model, processor, paths[-1])
        weights = load_file(paths[-1] / "model.safetensors")
        shifted = {name: value + offset for name, value in weights.items()}
        save_file(shifted, paths[-1] / "model.safetensors", metadata={"format": "pt"})
    (paths[-1] / calibration.FILE_NAME).write_text("{}")
    return paths


def call(*words):
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(sys, "argv", ["average.py", *map(str, words)])
        average.main()


def test_every_weight_is_the_mean_and_the_folder_opens_without_the_others_calibration(folders, tmp_path):
    call(*folders, "--out", tmp_path / "mean")
    first, mean = (load_file(folder / "model.safetensors") for folder in (folders[0], tmp_path / "mean"))
    assert first.keys() == mean.keys()
    for name, value in first.items():
        torch.testing.assert_close(mean[name], value + 1.0)
    assert not (tmp_path / "mean" / calibration.FILE_NAME).exists()
    model, _ = checkpoint.load(tmp_path / "mean")
    torch.testing.assert_close(model.pose_head.linear_1.weight.cpu(), first["pose_head.linear_1.weight"] + 1.0)


def test_what_has_no_average_is_refused_and_nothing_is_written(folders, tmp_path):
    one, other, _ = folders
    weights = load_file(other / "model.safetensors")
    cases = {
        "only one of them has this weight": {name: weights[name] for name in list(weights)[1:]},
        "pose_head.linear_1.bias: shape": {**weights, "pose_head.linear_1.bias": torch.zeros(3)},
    }
    for message, held in cases.items():
        save_file(held, other / "model.safetensors", metadata={"format": "pt"})
        with pytest.raises(UserError, match=message):
            call(one, other, "--out", tmp_path / "mean")
    (other / "model.safetensors").unlink()
    with pytest.raises(UserError, match=r"model1: model.safetensors cannot be read"):
        call(one, other, "--out", tmp_path / "mean")
    (other / "adapter_config.json").write_text("{}")
    with pytest.raises(UserError, match="llava-pose merge"):
        call(one, other, "--out", tmp_path / "mean")
    with pytest.raises(UserError, match="one model alone"):
        call(one, "--out", tmp_path / "mean")
    with pytest.raises(UserError, match="is there already"):
        call(one, one, "--out", other)
    assert not (tmp_path / "mean").exists()
