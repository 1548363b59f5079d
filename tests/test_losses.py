"""The pose losses: the paper's cross-entropy, soft targets, and the expected error against a sum over every cell."""

import math

import numpy as np
import pytest
import torch

from llava_pose.bins import PoseBins
from llava_pose.geometry import geodesic_error, pose_error, rotation_matrix
from llava_pose.losses import expected_geodesic, pose_losses

RNG = np.random.default_rng(0)
POSES = torch.tensor(RNG.uniform([0, -1.5, 0], [6.2, 1.5, 6.2], (6, 3)))


def logits_of(bins=40, scale=2.0, count=6):
    generator = torch.Generator().manual_seed(bins)
    return torch.randn(count, 3, bins, generator=generator) * scale


def by_all_cells(probabilities, pose):
    """The expected 1 − cos of the geodesic error: every cell's probability times that of its own rotation."""
    centers = PoseBins(probabilities.shape[-1]).centers
    grid = np.stack(np.meshgrid(centers, centers, centers, indexing="ij"), -1)
    mass = np.einsum("a,e,t->aet", *probabilities.double().numpy())
    errors = geodesic_error(rotation_matrix(grid), rotation_matrix(np.asarray(pose)))
    return float((mass * (1 - np.cos(errors))).sum())


def test_hard_targets_are_the_papers_cross_entropy():
    logits = logits_of()
    index = PoseBins().encode(POSES)
    for axis in range(3):
        expected = torch.nn.functional.cross_entropy(logits[:, axis], index[:, axis], reduction="sum")
        torch.testing.assert_close(pose_losses(logits, POSES, 0.0, 40)[axis], expected)


def test_soft_targets_are_least_for_the_target_itself_and_then_their_entropy():
    targets = PoseBins().soft_targets(POSES, 1.5)
    least = pose_losses(targets.log(), POSES, 1.5, 40)[:3]
    entropy = -(targets * targets.clamp(min=1e-300).log()).sum((0, -1))
    torch.testing.assert_close(least.double(), entropy, rtol=1e-5, atol=0)
    for other in (0.5 * targets.log(), 2 * targets.log(), torch.zeros(6, 3, 40)):
        assert (pose_losses(other, POSES, 1.5, 40)[:3] > least).all()


@pytest.mark.parametrize("bins", [4, 9, 24])
def test_the_expected_geodesic_term_is_the_sum_over_every_cell(bins):
    probabilities = torch.softmax(logits_of(bins), -1)
    found = expected_geodesic(probabilities, POSES)
    for index, pose in enumerate(POSES):
        assert float(found[index]) == pytest.approx(by_all_cells(probabilities[index], pose), abs=1e-6)


def test_the_expected_geodesic_term_of_one_bin_is_one_minus_the_cosine_of_its_error():
    bins = PoseBins(40)
    chosen = torch.tensor(RNG.integers(0, 40, (6, 3)))
    certain = torch.nn.functional.one_hot(chosen, 40)
    error = pose_error(torch.tensor(bins.centers)[chosen], POSES)
    torch.testing.assert_close(expected_geodesic(certain, POSES), 1 - torch.cos(error))


def test_the_two_names_of_a_rotation_have_the_same_expected_geodesic_term():
    probabilities = torch.softmax(logits_of(), -1)
    other = POSES * torch.tensor([1.0, -1.0, 1.0]) + math.pi
    torch.testing.assert_close(expected_geodesic(probabilities, POSES), expected_geodesic(probabilities, other))


def test_no_opinion_is_worth_one_and_a_half_and_descent_brings_the_term_down():
    """A mean rotation of zero leaves (3 − 0) / 2; from a random start the gradient alone comes within two bins."""
    uniform = torch.full((6, 3, 40), 1 / 40)
    torch.testing.assert_close(expected_geodesic(uniform, POSES), torch.full((6,), 1.5, dtype=torch.float64))
    logits = logits_of(scale=0.5).requires_grad_()
    optimizer = torch.optim.Adam([logits], lr=0.2)
    for _ in range(150):
        optimizer.zero_grad()
        pose_losses(logits, POSES, 1.0, 40)[3].backward()
        optimizer.step()
    error = pose_error(PoseBins().decode(logits.detach()).pose, POSES)
    assert error.max() < math.radians(18)


def test_a_pose_that_is_not_finite_adds_nothing_and_its_gradient_is_zero():
    logits = logits_of().requires_grad_()
    poses = POSES.clone()
    poses[1, 0], poses[4, 2] = math.nan, math.inf
    known = [0, 2, 3, 5]
    for deviation in (0.0, 1.0):
        found = pose_losses(logits, poses, deviation, 40)
        torch.testing.assert_close(found, pose_losses(logits[known], POSES[known], deviation, 40))
        (gradient,) = torch.autograd.grad(found.sum(), logits)
        assert torch.isfinite(gradient).all()
        assert (gradient[[1, 4]] == 0).all() and (gradient[known] != 0).any((1, 2)).all()
