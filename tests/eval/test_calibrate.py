"""Calibrating a model and comparing readings, by the commands: what is left, what is refused before any work."""

import json
import math
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from eval import calibrate
from eval import readings as readings_script
from eval.calibrate import gap_by_chance, judgement, log_loss
from eval.outputs import in_first_half
from eval.readings import BASELINE, Outputs, compare, readings
from llava_pose import calibration
from llava_pose.bins import PoseBins
from llava_pose.calibration import Outcomes
from llava_pose.errors import UserError
from llava_pose.geometry import mirror_pose, pose_error
from tests.eval.test_benchmark import write_crops
from tests.short_runs import write_split


@pytest.fixture(scope="module")
def crops(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("crops")
    write_crops(folder, "val", 130)
    write_crops(folder, "few", 60)
    write_split(folder, "scenes", 9, seed=1)
    return folder


def test_calibrating_leaves_its_file_in_the_models_folder(tmp_path, tiny_model_dir, crops, capsys):
    model = tmp_path / "a model"
    shutil.copytree(tiny_model_dir, model)
    before = {path.name: path.read_bytes() for path in model.iterdir()}
    calibrate.main(["--model", str(model), "--data", str(crops)])
    printed = capsys.readouterr().out
    fitted = calibration.read(model / "calibration.json")
    assert (fitted.data, fitted.split, fitted.num_bins) == (str(crops), "val", 40)
    assert f"fitted to {fitted.objects} objects, judged on the {130 - fitted.objects} others" in printed
    assert {path.name: path.read_bytes() for path in model.iterdir() if path.name in before} == before
    assert {path.name for path in model.iterdir()} == {*before, "calibration.json"}
    # Again, on the model that now is calibrated: what it says by itself is fitted to, so the same comes out.
    calibrate.main(["--model", str(model), "--data", str(crops)])
    assert capsys.readouterr().out == printed
    assert calibration.read(model / "calibration.json") == fitted


@pytest.mark.parametrize(
    "options, message",
    [
        (["--split", "few"], "few: 60 objects; some 100 are needed at least"),
        (["--split", "scenes"], "objects: 2 in a row; make the data with --crop object or box"),
        (["--split", "test"], "no split 'test'"),
        (["--objects", "0"], "must be a whole number above 0, got '0'"),
        (["--model", "owner/name"], "--model owner/name: no folder here that calibration.json could be written to"),
    ],
)
def test_what_cannot_be_calibrated_is_refused_and_nothing_written(tmp_path, tiny_model_dir, crops, options, message):
    model = tmp_path / "model"
    shutil.copytree(tiny_model_dir, model)
    with pytest.raises(UserError, match=re.escape(message)):
        calibrate.main(["--model", str(model), "--data", str(crops), *options])
    assert not (model / "calibration.json").exists()


def test_readings_are_compared_by_command(tmp_path, tiny_model_dir, crops, capsys):
    out = tmp_path / "out.json"
    readings_script.main(["--model", str(tiny_model_dir), "--data", str(crops), "--out", str(out)])
    printed = capsys.readouterr().out
    found = json.loads(out.read_text())
    assert found["choose"]["objects"] + found["confirm"]["objects"] == found["all"]["objects"] == 130
    table = found["all"]["readings"]
    assert {"local mean", "argmax", "mass within π/6", "mean, flip"} <= set(table)
    for name, row in table.items():
        assert set(row) == {"acc_pi_6", "acc_pi_18", "median_error_deg"}
        assert f"\n{name} " in printed


def test_halves_keep_a_pictures_objects_together_and_are_about_as_large():
    pictures = [f"car/n{number // 3:05d}" for number in range(6000)]
    first = in_first_half(pictures)
    assert (first == in_first_half(pictures)).all()
    assert (first.reshape(-1, 3) == first[::3, None]).all()
    assert 0.45 < first.mean() < 0.55


def test_every_reading_reads_sure_distributions_right():
    rng = np.random.default_rng(0)
    truth = np.stack([rng.uniform(0, 6, 30), rng.uniform(-1, 1, 30), rng.uniform(0, 6, 30)], -1)
    bins = PoseBins()
    mirrored = bins.mirror(bins.soft_targets(mirror_pose(truth)))
    outputs = Outputs(bins.soft_targets(truth)[:, None], np.ones((30, 1)), mirrored, truth)
    for name, poses in readings(outputs).items():
        assert np.degrees(pose_error(poses, truth)).max() < (10 if name == "argmax" else 2), name


def test_a_better_reading_shows_by_how_much_and_how_surely():
    rng = np.random.default_rng(0)
    errors = rng.uniform(0, math.pi / 3, 400)
    pictures = [str(number // 2) for number in range(400)]
    table = compare({BASELINE: errors, "better": errors * 0.8, "same": errors.copy()}, pictures)
    hits = table["better"]["acc_pi_6"]
    assert hits["value"] == pytest.approx((errors * 0.8 < math.pi / 6).mean() * 100)
    assert hits["difference"] == pytest.approx(hits["value"] - (errors < math.pi / 6).mean() * 100)
    assert 0 < hits["interval"][0] < hits["difference"] < hits["interval"][1]
    median = table["better"]["median_error_deg"]
    assert median["difference"] == pytest.approx(-0.2 * np.degrees(np.median(errors)))
    assert table["same"]["acc_pi_18"] == {
        "value": pytest.approx((errors < math.pi / 18).mean() * 100),
        "difference": 0.0,
        "interval": [0.0, 0.0],
    }


def test_the_judgement_is_of_objects_that_were_not_fitted_to():
    rng = np.random.default_rng(0)
    mass = rng.uniform(0.05, 0.95, 3000)
    hits = rng.random(3000) < mass**2
    errors = np.where(hits, 0.2, 2.0)
    outcomes = Outcomes(mass, mass, errors, rng.normal(0, 1, (3000, 4)), rng.integers(0, 4, 3000))
    fitted = calibration.fit(outcomes[:1500], 40, "data", "val")
    lines = judgement(fitted, outcomes[1500:])
    [row] = [line.split() for line in lines if line.startswith("pose within 30° ")]
    before, after, chance, loss_before, loss_after = map(float, row[3:])
    assert before == pytest.approx(calibration.expected_calibration_error(mass[1500:], hits[1500:]), abs=6e-4)
    assert after < before and chance < before and loss_after < loss_before


def test_probabilities_that_are_right_still_show_a_gap_by_chance():
    exact = np.full(1500, 0.5)
    # 15 bins of 100: the mean absolute deviation of a share of 100 draws is 0.5 · √(2/π) / 10.
    assert gap_by_chance(exact) == pytest.approx(0.05 * math.sqrt(2 / math.pi), rel=0.1)
    assert gap_by_chance(np.ones(100)) == 0


def test_log_loss_by_hand():
    assert log_loss(np.array([0.5, 0.25]), np.array([True, False])) == pytest.approx((math.log(2) - math.log(0.75)) / 2)
    assert math.isfinite(log_loss(np.array([0.0]), np.array([True])))
