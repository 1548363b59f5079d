"""Decisions under the joint distribution of the three angles against exhaustive search and definitions by hand."""

import math

import numpy as np
import pytest

from llava_pose.bins import PoseBins
from llava_pose.geometry import geodesic_error, mirror_pose, pose_error, quaternion, rotation_matrix
from llava_pose.joint import JointPoses, decide

PI = math.pi
GOALS = ("mean", "mass", "error")
DECISIONS = ("mass", "error")


def sphere(count, seed=0):
    rng = np.random.default_rng(seed)
    return np.stack(
        [rng.uniform(0, 2 * PI, count), np.arcsin(rng.uniform(-1, 1, count)), rng.uniform(0, 2 * PI, count)], -1
    )


def several_modes(count, num_bins=40, seed=0):
    """Distributions like those of a model in doubt: up to three modes an angle, of various widths."""
    rng, bins = np.random.default_rng(seed), PoseBins(num_bins)
    shares = rng.dirichlet([1.5, 0.6, 0.3], (count, 3))
    deviations = rng.uniform(0.5, 3.0, (count, 3)) * num_bins / 40
    found = np.zeros((count, 3, num_bins))
    for row in range(count):
        for mode in range(3):
            target = bins.soft_targets(sphere(1, seed + 31 * row + mode)[0], deviations[row, mode])
            found[row] += shares[row, :, mode, None] * target
    return found


def cells(num_bins):
    centers = PoseBins(num_bins).centers
    return np.stack(np.meshgrid(centers, centers, centers, indexing="ij"), -1).reshape(-1, 3)


def cell_mass(distribution):
    azimuth, elevation, theta = distribution
    return np.einsum("i,j,k->ijk", azimuth, elevation, theta).ravel()


def worth(angles, goal):
    if goal == "error":
        return -angles
    return 0.5 ** (np.sin(angles / 2) / math.sin(PI / 12)) ** 2


def values(poses, distribution, goal):
    """What each of poses (C, 3) is worth under a distribution (3, n), over all of its cells."""
    rotations = rotation_matrix(cells(distribution.shape[-1])).reshape(-1, 9)
    traces = rotation_matrix(poses).reshape(-1, 9) @ rotations.T
    return worth(np.arccos(np.clip((traces - 1) / 2, -1, 1)), goal) @ cell_mass(distribution)


@pytest.mark.parametrize("goal", DECISIONS)
def test_no_cell_of_the_grid_is_a_better_decision(goal):
    # 12 bins: 1728 cells, and every one of them is tried.
    distributions = several_modes(12, num_bins=12, seed=3)
    for distribution, pose in zip(distributions, decide(distributions, goal=goal), strict=True):
        mine, *rivals = values([pose, *cells(12)], distribution, goal)
        assert mine > max(rivals) - 0.01 * abs(mine)


@pytest.mark.parametrize("goal", DECISIONS)
def test_no_rotation_around_the_best_cells_is_a_better_decision(goal):
    # At 40 bins: the heaviest cells, what lies around the decision, the local mean, and random rotations.
    rng = np.random.default_rng(0)
    for distribution in several_modes(5, seed=8):
        [pose] = decide(distribution[None], goal=goal)
        heavy = cells(40)[np.argsort(-cell_mass(distribution))[:15]]
        around = pose + rng.normal(0, math.radians(4), (15, 3))
        local = PoseBins().decode(np.log(distribution)).pose
        mine, *rivals = values([pose, local, *heavy, *around, *sphere(10)], distribution, goal)
        assert mine > max(rivals) - 0.01 * abs(mine)


@pytest.mark.parametrize("goal", GOALS)
def test_decisions_give_back_poses_everywhere_on_the_sphere(goal):
    pose = sphere(300)
    decided = decide(PoseBins().soft_targets(pose), goal=goal)
    assert np.degrees(pose_error(decided, pose)).max() < 1.5


@pytest.mark.parametrize("goal", GOALS)
@pytest.mark.parametrize("azimuth", [0.0, 1e-9, -1e-9, 1.0, PI])
@pytest.mark.parametrize("elevation", [0.0, PI / 2, -PI / 2, PI / 2 - 0.05, PI / 2 + 0.05])
def test_decisions_give_back_poses_at_the_poles_and_where_angles_begin(azimuth, elevation, goal):
    pose = np.array([azimuth, elevation, 0.0])
    [decided] = decide(PoseBins().soft_targets(pose)[None], goal=goal)
    assert math.degrees(pose_error(decided, pose)) < 1.5
    assert abs(decided[1]) <= PI / 2 and 0 <= decided[0] < 2 * PI and 0 <= decided[2] < 2 * PI


def test_the_mean_is_that_of_each_angle_by_itself():
    distributions = several_modes(30, seed=9)
    expected = PoseBins().decode(np.log(distributions)).pose
    assert pose_error(decide(distributions), expected).max() < 1e-6


def test_cells_that_are_one_rotation_add_up():
    # (a, e, t) and (a + π, π − e, t + π): bins i and i + 20 of azimuth and theta, j and 19 − j of the elevation.
    distribution = np.zeros((1, 3, 40))
    distribution[0, 0, [5, 25]] = 0.45, 0.55
    distribution[0, 1, [3, 16]] = 0.7, 0.3
    distribution[0, 2, [2, 22]] = 0.4, 0.6
    centers = PoseBins().centers
    pose = np.array([[centers[25], centers[3], centers[22]]])
    mass = JointPoses(distribution).within(quaternion(pose), math.radians(1))
    assert mass == pytest.approx([0.55 * 0.7 * 0.6 + 0.45 * 0.3 * 0.4])
    # The heaviest cell has mass 0.4 · ½ · ½ and no other name, the heaviest rotations 0.3 · ½ · ½ under each of two.
    split = np.zeros((1, 3, 40))
    split[0, 0, [5, 25, 12]] = 0.3, 0.3, 0.4
    split[0, 1, [3, 16]] = 0.5, 0.5
    split[0, 2, [2, 22]] = 0.5, 0.5
    [decided] = decide(split, goal="mass")
    assert pose_error(decide(split)[0], decided) > 1, "each angle by itself misses it"
    assert split[0, 0].argmax() == 12
    assert pose_error(decided, [centers[12], centers[3], centers[2]]) > 1
    assert JointPoses(split).within(quaternion(decided[None]), 0.1) == pytest.approx([0.15])


@pytest.mark.parametrize("num_bins", [36, 40])
def test_probabilities_and_expected_errors_are_sums_over_all_cells(num_bins):
    distributions, poses = several_modes(4, num_bins, seed=5), sphere(4, seed=6)
    joint = JointPoses(distributions)
    rotations = rotation_matrix(cells(num_bins))
    for radius in (PI / 6, PI / 18):
        found = joint.within(quaternion(poses), radius)
        for row, distribution in enumerate(distributions):
            angles = geodesic_error(rotation_matrix(poses[row]), rotations)
            assert found[row] == pytest.approx(cell_mass(distribution)[angles < radius].sum(), abs=1e-5)
            expected = cell_mass(distribution) @ angles
            assert joint.expected_error(quaternion(poses))[row] == pytest.approx(expected, abs=1e-4)


def test_the_mirrored_distributions_give_the_mirrored_decision():
    distributions = several_modes(20, seed=11)
    for goal in GOALS:
        mirrored = decide(PoseBins().mirror(distributions), goal=goal)
        assert np.degrees(pose_error(mirrored, mirror_pose(decide(distributions, goal=goal)))).max() < 0.2


def test_hypotheses_are_weighed():
    first, second = several_modes(5, seed=1), several_modes(5, seed=2)
    both = np.stack([first, second], 1)
    for goal in GOALS:
        np.testing.assert_allclose(decide(both, [[2.0, 0.0]] * 5, goal), decide(first, goal=goal), atol=1e-4)
        np.testing.assert_allclose(decide(both, [[0.0, 0.1]] * 5, goal), decide(second, goal=goal), atol=1e-4)
    joint = JointPoses(both, np.array([[3.0, 1.0]] * 5))
    rotations = quaternion(sphere(5))
    expected = 0.75 * JointPoses(first).within(rotations, 0.6) + 0.25 * JointPoses(second).within(rotations, 0.6)
    np.testing.assert_allclose(joint.within(rotations, 0.6), expected, atol=1e-6)


def test_two_hypotheses_keep_their_angles_together():
    # Either seen from the front and upright or from behind and upside down, never one of each: the product of mixed
    # angles would make four rotations of it.
    bins = PoseBins()
    either = np.stack([bins.soft_targets([0.3, 0.2, 0.0], 0.3), bins.soft_targets([2.3, 0.2, PI], 0.3)])[None]
    joint = JointPoses(either, np.array([[0.5, 0.5]]))
    never = quaternion(np.array([[0.3, 0.2, PI]]))
    assert joint.within(never, PI / 6) < 1e-3
    assert JointPoses(either.mean(1)).within(never, PI / 6) > 0.2


def test_distributions_that_are_not_finite_give_no_pose_and_disturb_no_other():
    for goal in GOALS:
        distributions = several_modes(3, seed=4)
        expected = decide(distributions, goal=goal)
        distributions[1, 2, 7] = np.nan
        found = decide(distributions, goal=goal)
        assert np.isnan(found[1]).all()
        np.testing.assert_allclose(found[[0, 2]], expected[[0, 2]], atol=1e-5)


def test_no_distributions_give_no_poses():
    assert decide(np.zeros((0, 3, 40))).shape == (0, 3)
