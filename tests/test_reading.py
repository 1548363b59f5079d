"""Poses read from the head's logits: what is said of them, calibrated or not, and what else they could be."""

import json
import math

import numpy as np
import pytest
import torch

from llava_pose.bins import PoseBins
from llava_pose.calibration import Calibration, Line, Powers
from llava_pose.geometry import pose_error, rotation_matrix
from llava_pose.joint import decide
from llava_pose.reading import read_poses

PI = math.pi
BINS = PoseBins()
CALIBRATION = Calibration(40, Line(0.5, 0.1), Powers(1.5, 0.1, 0.2), Line(1.0, 0.0), 1.0, 100, "data", "val")


def logits_of(pose, *more, deviation=1.0):
    """Logits of a pose's soft targets, and of (share, pose) mixed in, (1, 3, 40)."""
    targets = BINS.soft_targets(pose, deviation)
    for share, other in more:
        targets = (1 - share) * targets + share * BINS.soft_targets(other, deviation)
    return torch.from_numpy(np.log(targets + 1e-12))[None]


def test_readings_are_the_decisions_of_their_distributions():
    logits = torch.randn(20, 3, 40, generator=torch.Generator().manual_seed(0)) * 5
    probabilities = BINS.probabilities(logits.numpy())
    for goal in ("mean", "mass", "error"):
        decided = decide(probabilities, goal=goal)
        for row, reading in enumerate(read_poses(logits, goal=goal)):
            assert pose_error(reading.pose, decided[row]) < 1e-3
            np.testing.assert_allclose(reading.distributions, probabilities[row])
            np.testing.assert_allclose(reading.spread, BINS.decode(logits.numpy()).spread[row])
            assert 0 <= reading.confidence <= 1 and 0 <= reading.expected_error <= PI and not reading.calibrated


def test_a_pose_is_read_as_the_bins_do_and_the_papers_reading_stays_at_hand():
    logits = torch.randn(6, 3, 40, generator=torch.Generator().manual_seed(0)) * 5
    for row, reading in enumerate(read_poses(logits)):
        assert pose_error(reading.pose, BINS.decode(logits[row].numpy()).pose) < 1e-6
        np.testing.assert_allclose(reading.argmax, BINS.argmax(logits[row].numpy()), atol=1e-9)


def test_confidence_is_the_probability_to_err_by_less_than_a_sixth_of_pi():
    [reading] = read_poses(logits_of([1.0, 0.2, 6.0], (0.4, [1.0 + PI, 0.2, 6.0]), deviation=0.3))
    assert reading.confidence == pytest.approx(0.6, abs=0.01)
    centers = BINS.centers
    grid = np.stack(np.meshgrid(centers, centers, centers, indexing="ij"), -1).reshape(-1, 3)
    traces = np.einsum("nij,ij->n", rotation_matrix(grid), rotation_matrix(reading.pose))
    angles = np.arccos(np.clip((traces - 1) / 2, -1, 1))
    mass = np.einsum("i,j,k->ijk", *reading.distributions).ravel()
    assert reading.confidence == pytest.approx(mass[angles < PI / 6].sum(), abs=1e-5)
    assert reading.expected_error == pytest.approx(mass @ angles, abs=1e-4)


def test_a_sure_model_is_sure_and_a_uniform_one_is_not():
    sure = torch.full((1, 3, 40), -100.0)
    sure[..., 7] = 0
    assert read_poses(sure)[0].confidence == pytest.approx(1)
    assert read_poses(sure)[0].expected_error == pytest.approx(0, abs=1e-3)
    [nothing] = read_poses(torch.zeros(1, 3, 40))
    assert nothing.confidence < 0.05 and math.degrees(nothing.expected_error) > 90


def test_confidence_counts_the_same_poses_where_the_elevation_lies_beyond_a_pole():
    # The elevation's best bin lies behind the pole: the pose takes its other name, and is as sure as before.
    logits = torch.full((1, 3, 40), -100.0)
    logits[0, [0, 1, 2], [7, 15, 3]] = 0
    [reading] = read_poses(logits)
    assert reading.confidence == pytest.approx(1)
    assert abs(reading.pose[1]) <= PI / 2


def test_an_object_alike_from_behind_has_the_other_way_round_as_its_alternative():
    front, back = [0.4, 0.15, 0.05], [0.4 + PI, 0.15, 0.05]
    [reading] = read_poses(logits_of(front, (0.3, back), deviation=0.5))
    assert pose_error(reading.pose, front) < 0.05
    assert reading.alternative is not None
    assert pose_error(reading.alternative.pose, back) < 0.05
    assert reading.alternative.probability == pytest.approx(0.3, abs=0.01)
    assert reading.alternative.turn == pytest.approx(pose_error(front, back), abs=0.05)


@pytest.mark.parametrize("other", [[0.4 + PI / 2, 0.15, 0.05], [0.4, 0.15, PI], [0.4, -1.1, 0.05]])
def test_alternatives_are_found_on_every_angle(other):
    [reading] = read_poses(logits_of([0.4, 0.15, 0.05], (0.35, other), deviation=0.5))
    assert reading.alternative is not None and pose_error(reading.alternative.pose, other) < 0.1


@pytest.mark.parametrize("share", [0.0, 0.05])
def test_what_is_hardly_possible_is_no_alternative(share):
    [reading] = read_poses(logits_of([0.4, 0.15, 0.05], (share, [0.4 + PI, 0.15, 0.05])))
    assert reading.alternative is None


def test_one_broad_mode_has_no_alternative():
    # Six bins of deviation: far from sure, but all around one pose.
    [reading] = read_poses(logits_of([0.4, 0.1, 0.0], deviation=6.0))
    assert reading.confidence < 0.5 and reading.alternative is None


def test_a_second_mode_close_by_is_no_alternative():
    [reading] = read_poses(logits_of([0.4, 0.1, 0.0], (0.4, [0.4 + PI / 5, 0.1, 0.0]), deviation=0.5))
    assert reading.alternative is None


def test_calibration_changes_what_is_said_of_a_pose_and_not_the_pose():
    logits = logits_of([0.4, 0.15, 0.05], (0.3, [0.4 + PI, 0.15, 0.05]), deviation=0.5)
    [own], [fitted] = read_poses(logits), read_poses(logits, CALIBRATION)
    np.testing.assert_array_equal(own.pose, fitted.pose)
    assert fitted.calibrated and not own.calibrated
    assert fitted.confidence == pytest.approx(float(CALIBRATION.hit(own.confidence)))
    assert fitted.expected_error == pytest.approx(float(CALIBRATION.error(own.expected_error, own.confidence)))
    # The alternative keeps its share of what the confidence leaves.
    share = own.alternative.probability / (1 - own.confidence)
    assert fitted.alternative.probability == pytest.approx(share * (1 - fitted.confidence))


def test_a_calibration_for_other_bins_is_refused():
    with pytest.raises(ValueError, match="for 40 bins, the model has 36"):
        read_poses(torch.zeros(1, 3, 36), CALIBRATION)


def test_many_logits_are_read_as_each_alone():
    logits = torch.randn(23, 3, 40, generator=torch.Generator().manual_seed(1)) * 3
    for together, row in zip(read_poses(logits), logits, strict=True):
        [alone] = read_poses(row[None])
        np.testing.assert_allclose(together.pose, alone.pose, atol=1e-5)
        assert together.confidence == pytest.approx(alone.confidence, abs=1e-5)


def test_no_logits_give_no_readings():
    assert read_poses(torch.zeros(0, 3, 40)) == []


def test_logits_that_are_not_finite_are_read_without_confidence_and_disturb_no_other():
    logits = torch.cat([logits_of([0.4, 0.15, 0.05]), torch.full((1, 3, 40), float("nan")), logits_of([2, 0, 0])])
    first, bad, last = read_poses(logits, CALIBRATION)
    assert not np.isfinite(bad.pose).any() and not np.isfinite(bad.argmax).any()
    assert bad.confidence == 0 and bad.alternative is None
    assert pose_error(first.pose, [0.4, 0.15, 0.05]) < 0.02 and pose_error(last.pose, [2, 0, 0]) < 0.02


def test_a_reading_becomes_json():
    logits = logits_of([0.4, 0.15, 0.05], (0.3, [0.4 + PI, 0.15, 0.05]), deviation=0.5)
    values = json.loads(json.dumps(read_poses(logits)[0].to_dict(), allow_nan=False))
    assert values["azimuth"] == pytest.approx(0.4, abs=0.02) and values["calibrated"] is False
    assert values["alternative"]["azimuth"] == pytest.approx(0.4 + PI, abs=0.02)
    assert set(values["alternative"]) == {"azimuth", "elevation", "theta", "probability", "turn"}
    unreadable = read_poses(torch.full((1, 3, 40), float("nan")))[0].to_dict()
    assert json.loads(json.dumps(unreadable, allow_nan=False))["azimuth"] is None
