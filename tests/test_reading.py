"""Poses read from the head's logits."""

import numpy as np
import pytest
import torch

from llava_pose.bins import PoseBins
from llava_pose.reading import read_poses


def test_readings_are_the_bins_own():
    logits = torch.randn(6, 3, 40, generator=torch.Generator().manual_seed(0)) * 5
    bins = PoseBins()
    decoded = bins.decode(logits.numpy())
    for row, reading in enumerate(read_poses(logits)):
        np.testing.assert_allclose(reading.pose, decoded.pose[row])
        np.testing.assert_allclose(reading.spread, decoded.spread[row])
        np.testing.assert_allclose(reading.argmax, bins.argmax(logits[row].numpy()), atol=1e-9)
        np.testing.assert_allclose(reading.distributions.sum(-1), 1)
        assert 0 <= reading.confidence <= 1


def test_confidence_is_the_mass_near_the_reading():
    sure = torch.full((1, 3, 40), -100.0)
    sure[..., 7] = 0
    split = torch.log(torch.full((1, 3, 40), 1e-9))
    split[0, 0, [5, 25]] = torch.log(torch.tensor([0.6, 0.4]))
    split[0, 1:, 5] = 0
    assert read_poses(sure)[0].confidence == pytest.approx(1)
    assert read_poses(split)[0].confidence == pytest.approx(0.6, abs=1e-6)
    assert read_poses(torch.zeros(1, 3, 40))[0].confidence == pytest.approx((7 / 40) ** 3)


def test_confidence_counts_the_same_poses_where_the_elevation_lies_beyond_a_pole():
    # The elevation's best bin lies behind the pole: the pose takes its other name, and is as sure as before.
    logits = torch.full((1, 3, 40), -100.0)
    logits[0, [0, 1, 2], [7, 15, 3]] = 0
    assert read_poses(logits)[0].confidence == pytest.approx(1)


def test_no_logits_give_no_readings():
    assert read_poses(torch.zeros(0, 3, 40)) == []


def test_logits_that_are_not_finite_are_read_without_confidence():
    (reading,) = read_poses(torch.full((1, 3, 40), float("nan")))
    assert not np.isfinite(reading.pose).any()
    assert not reading.confidence > 0
