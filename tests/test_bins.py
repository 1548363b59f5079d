"""Bins of the three angles: borders, the way there and back, and reading below the bin width."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from llava_pose.bins import PoseBins
from llava_pose.geometry import angle_difference, canonical_pose, mirror_pose, pose_error

PI = math.pi
WIDTH = 2 * PI / 40
BINS = PoseBins()
JUST_BELOW_ZERO = -1e-12


def encoded(azimuth=0.3, elevation=0.3, theta=0.3):
    return BINS.encode([azimuth, elevation, theta]).tolist()


def sphere(count, seed=0):
    """Viewpoints uniform on the sphere, any turn in the picture's plane."""
    rng = np.random.default_rng(seed)
    return np.stack(
        [rng.uniform(0, 2 * PI, count), np.arcsin(rng.uniform(-1, 1, count)), rng.uniform(0, 2 * PI, count)], -1
    )


def degrees_apart(a, b):
    return np.degrees(np.abs(angle_difference(np.asarray(a), np.asarray(b))))


def peaked(pose, *more, deviation=1.0):
    """Logits of the soft targets of a pose, and of (share, pose) mixed in."""
    targets = BINS.soft_targets(pose, deviation)
    for share, other in more:
        targets = (1 - share) * targets + share * BINS.soft_targets(other, deviation)
    return np.log(targets + 1e-12)


@pytest.mark.parametrize(
    "angle, index",
    [
        (0.0, 0),
        (JUST_BELOW_ZERO, 39),
        (-1e-20, 0),
        (2 * PI, 0),
        (np.nextafter(2 * PI, 0), 39),
        (0.999 * WIDTH, 0),
        (1.001 * WIDTH, 1),
        (PI, 20),
        (PI / 2, 10),
        (7 * WIDTH + 4 * PI + 1e-9, 7),
        (-0.5 * WIDTH, 39),
    ],
)
def test_azimuth_and_theta_fall_into_the_bin_that_holds_them(angle, index):
    assert encoded(azimuth=angle)[0] == index
    assert encoded(theta=angle)[2] == index


@pytest.mark.parametrize("elevation, index", [(0.0, 0), (JUST_BELOW_ZERO, 39), (-0.5 * WIDTH, 39), (1.5 * WIDTH, 1)])
def test_elevation_falls_into_the_bin_that_holds_it(elevation, index):
    assert encoded(elevation=elevation) == [1, index, 1]


def test_the_poles_are_the_outermost_elevation_bins():
    assert encoded(elevation=PI / 2)[1] == 10
    assert encoded(elevation=PI / 2 - 1e-9)[1] == 9
    assert encoded(elevation=-PI / 2)[1] == 30


def test_elevation_beyond_a_pole_is_brought_back_first():
    assert encoded(elevation=PI - 0.3) == encoded(azimuth=0.3 + PI, elevation=0.3, theta=0.3 + PI) == [21, 1, 21]


def test_indices_follow_the_published_formula():
    pose = canonical_pose(sphere(2000))
    expected = np.floor(np.mod(pose, 2 * PI) / (2 * PI) * 40).astype(int) % 40
    np.testing.assert_array_equal(BINS.encode(pose), expected)


@pytest.mark.parametrize("num_bins", [4, 36, 40, 360])
def test_every_centre_lies_in_its_own_bin(num_bins):
    bins = PoseBins(num_bins)
    centers = bins.centers
    np.testing.assert_allclose(centers, [(i + 0.5) * 2 * PI / num_bins for i in range(num_bins)])
    pose = np.stack([centers, np.full_like(centers, 0.1), centers], -1)
    index = bins.encode(pose)
    np.testing.assert_array_equal(index[:, 0], np.arange(num_bins))
    np.testing.assert_array_equal(index[:, 2], np.arange(num_bins))


def test_argmax_of_the_encoded_bins_is_within_half_a_bin():
    pose = sphere(2000)
    logits = np.eye(40)[BINS.encode(pose)]
    assert np.abs(angle_difference(BINS.argmax(logits), pose)).max() <= WIDTH / 2 + 1e-9


def test_argmax_reads_the_centre_of_the_papers_hard_bin():
    pose = sphere(500)
    logits = np.random.default_rng(0).normal(size=(500, 3, 40)) + 30 * np.eye(40)[BINS.encode(pose)]
    expected = (np.floor(np.mod(pose, 2 * PI) / WIDTH) + 0.5) * WIDTH
    assert np.abs(angle_difference(BINS.argmax(logits), expected)).max() < 1e-9


@given(st.lists(st.floats(-10, 10), min_size=3, max_size=3), st.sampled_from([0.3, 1.0, 2.0]))
def test_soft_targets_are_distributions_that_peak_around_the_angle(pose, deviation):
    targets = BINS.soft_targets(pose, deviation)
    assert targets.shape == (3, 40)
    np.testing.assert_allclose(targets.sum(-1), 1, atol=1e-12)
    assert targets.min() >= 0
    nearest = np.abs(angle_difference(BINS.centers, canonical_pose(pose)[:, None])).min(-1)
    best = BINS.centers[targets.argmax(-1)]
    np.testing.assert_allclose(np.abs(angle_difference(best, canonical_pose(pose))), nearest, atol=1e-9)


def test_soft_targets_by_hand():
    # One bin of deviation, the angle on a centre: a normal density at whole numbers.
    weights = np.exp(-0.5 * np.array([0.0, 1.0, 2.0]) ** 2)
    target = BINS.soft_targets([3.5 * WIDTH, 0.1, 0.1])[0]
    np.testing.assert_allclose(target[3:6] / target[3], weights, rtol=1e-9)
    np.testing.assert_allclose(target[3:0:-1] / target[3], weights, rtol=1e-9)


def test_a_narrow_soft_target_is_the_hard_bin():
    pose = sphere(200)
    np.testing.assert_array_equal(BINS.soft_targets(pose, 0.05).argmax(-1), BINS.encode(pose))


@pytest.mark.parametrize("deviation", [0.0, -1.0])
def test_a_deviation_that_is_not_positive_is_refused(deviation):
    with pytest.raises(ValueError, match="deviation must be positive"):
        BINS.soft_targets([0, 0, 0], deviation)


def test_decode_gives_back_random_poses_to_half_a_degree():
    pose = sphere(5000)
    assert degrees_apart(BINS.decode(peaked(pose)).pose, canonical_pose(pose)).max() < 0.5


@settings(max_examples=200)
@given(st.integers(0, 39), st.floats(-1e-6, 1e-6))
def test_decode_gives_back_poses_on_a_bin_border(index, off):
    pose = np.array([index * WIDTH + off, off, index * WIDTH - off])
    assert degrees_apart(BINS.decode(peaked(pose)).pose, canonical_pose(pose)).max() < 0.5


@pytest.mark.parametrize("deviation", [0.5, 0.75, 1.0, 1.25])
def test_decode_of_zero_is_zero_whatever_the_width_of_the_peak(deviation):
    decoded = BINS.decode(peaked([0.0, 0.0, 0.0], deviation=deviation)).pose
    assert degrees_apart(decoded, [0, 0, 0]).max() < 0.5


@settings(max_examples=50)
@given(st.floats(0.0, 0.45), st.floats(0, 6.28), st.floats(-1.2, 1.2))
def test_a_second_mode_behind_the_object_does_not_draw_the_reading(share, azimuth, elevation):
    logits = peaked([azimuth, elevation, 0.0], (share, [azimuth + PI, elevation, 0.0]))
    assert degrees_apart(BINS.decode(logits).pose, canonical_pose([azimuth, elevation, 0.0])).max() < 0.5


def test_a_broad_floor_of_probability_does_not_draw_the_reading():
    pose = sphere(500, seed=1)
    noisy = np.log(0.7 * BINS.soft_targets(pose) + 0.3 / 40)
    assert degrees_apart(BINS.decode(noisy).pose, canonical_pose(pose)).max() < 1.5


def test_a_peak_split_over_a_border_beats_a_slightly_higher_single_bin():
    probabilities = np.full((3, 40), 1e-6)
    probabilities[:, [39, 0]] = 0.3
    probabilities[:, 20] = 0.4
    np.testing.assert_allclose(degrees_apart(BINS.decode(np.log(probabilities)).pose, 0.0), 0, atol=0.01)
    # The elevation of bin 20 lies beyond a pole, so its argmax gives azimuth and theta their other names.
    np.testing.assert_allclose(BINS.argmax(np.log(probabilities)), [0.5 * WIDTH, -0.5 * WIDTH, 0.5 * WIDTH])


def test_decoded_poses_are_canonical():
    logits = np.random.default_rng(0).normal(size=(500, 3, 40)) * 3
    for pose in (BINS.decode(logits).pose, BINS.argmax(logits)):
        np.testing.assert_allclose(canonical_pose(pose), pose, atol=1e-12)


def test_perfect_argmax_bins_leave_the_known_median_errors():
    pose = sphere(40_000)
    hard = np.eye(40)[BINS.encode(pose)]
    errors = np.degrees(pose_error(BINS.argmax(hard), pose))
    assert np.median(errors) == pytest.approx(4.3, abs=0.2)
    # Half a bin on each axis: at a pole azimuth and theta turn about one axis, and elevation about another.
    assert 9.2 < errors.max() < math.degrees(math.hypot(WIDTH, WIDTH / 2))
    upright = pose * [1, 1, 0]
    hard = np.eye(40)[BINS.encode(upright)]
    assert np.median(np.degrees(pose_error(BINS.argmax(hard), upright))) == pytest.approx(5.7, abs=0.2)


def test_argmax_one_bin_wrong_sends_about_half_of_the_samples_past_ten_degrees():
    pose = sphere(20_000)
    pose[:, 1] = np.random.default_rng(0).uniform(0, 0.6, len(pose))
    for axis in range(3):
        index = BINS.encode(pose)
        index[:, axis] = (index[:, axis] + 1) % 40
        errors = np.degrees(pose_error(BINS.argmax(np.eye(40)[index]), pose))
        assert 0.40 < np.mean(errors > 10) < 0.55


def test_decode_reads_below_what_perfect_argmax_bins_can():
    pose = sphere(5000)
    errors = np.degrees(pose_error(BINS.decode(peaked(pose)).pose, pose))
    assert errors.max() < 0.5


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("kind", [np.asarray, torch.as_tensor])
def test_logits_that_are_not_finite_read_as_a_pose_that_is_not_finite(bad, kind):
    logits = np.zeros((2, 3, 40))
    logits[0, 1, 7] = bad
    for pose in (BINS.decode(kind(logits)).pose, BINS.argmax(kind(logits))):
        finite = np.isfinite(np.asarray(pose))
        assert finite[1].all() and not finite[0, 1]
    # What counts in the metric.
    assert not np.isfinite(np.asarray(pose_error(BINS.decode(kind(logits)).pose[0], [0.0, 0.0, 0.0])))


def test_very_large_logits_do_not_overflow():
    logits = np.zeros((3, 40))
    logits[:, 3] = 1e30
    np.testing.assert_allclose(BINS.argmax(logits), 3.5 * WIDTH)
    np.testing.assert_allclose(BINS.decode(logits).pose, 3.5 * WIDTH)


def test_spread_is_the_width_of_a_lone_peak():
    spread = BINS.decode(peaked([1.0, 0.2, 6.0])).spread
    np.testing.assert_allclose(spread, WIDTH, rtol=0.05)
    narrow = np.full((3, 40), -60.0)
    narrow[:, 5] = 0
    assert BINS.decode(narrow).spread.max() < 1e-3


def test_spread_is_large_for_two_modes_and_for_no_idea():
    behind = BINS.decode(peaked([1.0, 0.2, 0.0], (0.45, [1.0 + PI, 0.2, 0.0]))).spread
    assert behind[0] > 2.0 and behind[1] < 0.2
    assert BINS.decode(np.zeros((3, 40))).spread.min() > PI


def test_mass_is_what_lies_around_the_reading():
    sure = BINS.decode(peaked([1.0, 0.2, 6.0])).mass
    assert sure.min() > 0.99
    behind = BINS.decode(peaked([1.0, 0.2, 0.0], (0.45, [1.0 + PI, 0.2, 0.0]))).mass
    assert behind[0] == pytest.approx(0.55, abs=0.01) and behind[1] > 0.99
    np.testing.assert_allclose(BINS.decode(np.zeros((3, 40))).mass, 7 / 40)


def test_torch_and_numpy_agree():
    pose = sphere(300)
    logits = np.random.default_rng(0).normal(size=(300, 3, 40)) * 4
    tensor, other = torch.from_numpy(pose), torch.from_numpy(logits)
    np.testing.assert_array_equal(BINS.encode(tensor).numpy(), BINS.encode(pose))
    assert BINS.encode(tensor).dtype == torch.int64
    for result, expected in [
        (BINS.soft_targets(tensor), BINS.soft_targets(pose)),
        (BINS.decode(other).pose, BINS.decode(logits).pose),
        (BINS.decode(other).spread, BINS.decode(logits).spread),
        (BINS.decode(other).mass, BINS.decode(logits).mass),
        (BINS.argmax(other), BINS.argmax(logits)),
        (BINS.probabilities(other), BINS.probabilities(logits)),
    ]:
        assert isinstance(result, torch.Tensor)
        np.testing.assert_allclose(result.numpy(), expected, atol=1e-9)


def test_float32_and_bfloat16_logits_are_taken():
    logits = torch.from_numpy(peaked(sphere(50))).float()
    exact = BINS.decode(logits.double()).pose
    assert degrees_apart(BINS.decode(logits).pose, exact).max() < 1e-3
    assert BINS.decode(logits.bfloat16()).pose.dtype == torch.float64


def test_batch_shapes_are_kept():
    decoded = BINS.decode(np.zeros((2, 5, 3, 40)))
    assert decoded.pose.shape == decoded.spread.shape == decoded.mass.shape == (2, 5, 3)
    assert BINS.soft_targets(np.zeros((2, 5, 3))).shape == (2, 5, 3, 40)
    assert BINS.encode(np.zeros((2, 5, 3))).shape == (2, 5, 3)
    assert BINS.decode(torch.zeros(0, 3, 40)).pose.shape == (0, 3)


@pytest.mark.parametrize("shape", [(40,), (3, 39), (40, 3), (2, 2, 40)])
def test_logits_of_another_shape_are_refused(shape):
    with pytest.raises(ValueError, match=r"logits must have shape \(..., 3, 40\)"):
        BINS.decode(np.zeros(shape))


def test_too_few_bins_are_refused():
    with pytest.raises(ValueError, match="num_bins must be at least 4, got 3"):
        PoseBins(3)


def test_mirrored_distributions_are_those_of_the_mirrored_pose():
    pose = sphere(200)
    targets = BINS.soft_targets(pose)
    np.testing.assert_allclose(BINS.mirror(targets), BINS.soft_targets(mirror_pose(pose)), atol=1e-12)
    np.testing.assert_array_equal(BINS.mirror(BINS.mirror(targets)), targets)


def test_mirroring_takes_bin_i_of_azimuth_and_theta_to_the_same_bin_from_the_other_end():
    logits = np.arange(120.0).reshape(3, 40)
    mirrored = BINS.mirror(logits)
    for angle in (0, 2):
        assert [int(np.flatnonzero(logits[angle] == value)[0]) for value in mirrored[angle]] == list(range(39, -1, -1))
    np.testing.assert_array_equal(mirrored[1], logits[1])
    # The centre of bin 39 − i is 2π less that of bin i, so that no interpolation is needed.
    np.testing.assert_allclose(BINS.centers[::-1], 2 * PI - BINS.centers)


def test_mirroring_tensors_gives_tensors():
    values = torch.randn(4, 3, 40, generator=torch.Generator().manual_seed(2))
    assert isinstance(BINS.mirror(values), torch.Tensor)
    np.testing.assert_array_equal(BINS.mirror(values).numpy(), BINS.mirror(values.numpy()))
