"""The conventions of a pose against quaternions, scipy's matrix logarithm and a pinhole camera written by hand."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import logm
from scipy.spatial.transform import Rotation

from llava_pose.geometry import (
    angle_difference,
    camera_center,
    canonical_pose,
    geodesic_error,
    mirror_pose,
    pose_error,
    pose_of_quaternion,
    project,
    quaternion,
    rotation_matrix,
    wrap_angle,
)

PI = math.pi
MIRROR = np.diag([-1.0, 1.0, 1.0])

angles = st.floats(-20, 20)
poses = st.tuples(angles, angles, angles).map(np.array)


def random_poses(count, seed=0):
    return np.random.default_rng(seed).uniform(-7, 7, (count, 3))


def quaternion_rotation(pose):
    """Rz(theta) Rx(elevation - pi/2) Rz(-azimuth), composed as quaternions."""
    azimuth, elevation, theta = np.moveaxis(np.asarray(pose), -1, 0)
    turn = Rotation.from_rotvec(np.multiply.outer(theta, [0, 0, 1]))
    tilt = Rotation.from_rotvec(np.multiply.outer(elevation - PI / 2, [1, 0, 0]))
    heading = Rotation.from_rotvec(np.multiply.outer(-azimuth, [0, 0, 1]))
    return turn * tilt * heading


def test_rotation_equals_the_composition_of_quaternions():
    pose = random_poses(500)
    np.testing.assert_allclose(rotation_matrix(pose), quaternion_rotation(pose).as_matrix(), atol=1e-14)


def test_rotation_of_the_front_view_by_hand():
    # From the front at the object's height: its left (+x) is to the right, its top up, its front (-y) towards us.
    expected = [[1, 0, 0], [0, 0, 1], [0, -1, 0]]
    np.testing.assert_allclose(rotation_matrix([0, 0, 0]), expected, atol=1e-15)


@given(poses)
def test_rotations_are_orthonormal_with_determinant_one(pose):
    rotation = rotation_matrix(pose)
    np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-14)
    assert np.linalg.det(rotation) == pytest.approx(1, abs=1e-14)


@given(poses)
def test_the_two_names_of_a_rotation_give_one_matrix(pose):
    azimuth, elevation, theta = pose
    other = [azimuth + PI, PI - elevation, theta + PI]
    np.testing.assert_allclose(rotation_matrix(other), rotation_matrix(pose), atol=1e-13)


@given(poses)
def test_mirrored_pose_rotates_as_the_mirror_conjugates(pose):
    np.testing.assert_allclose(rotation_matrix(mirror_pose(pose)), MIRROR @ rotation_matrix(pose) @ MIRROR, atol=1e-13)


@given(poses)
def test_mirroring_twice_gives_the_pose_back(pose):
    assert pose_error(mirror_pose(mirror_pose(pose)), pose) < 1e-13


def test_mirror_keeps_zero_angles_at_zero():
    assert mirror_pose([0.0, 0.3, 0.0]).tolist() == [0.0, 0.3, 0.0]


def test_error_equals_scipys_logarithm_away_from_pi():
    a, b = random_poses(40, 1), random_poses(40, 2)
    errors = pose_error(a, b)
    compared = 0
    for first, second, error in zip(a, b, errors, strict=True):
        if error > PI - 0.01:
            continue
        relative = quaternion_rotation(first).as_matrix().T @ quaternion_rotation(second).as_matrix()
        assert error == pytest.approx(np.linalg.norm(logm(relative).real) / math.sqrt(2), abs=1e-7)
        compared += 1
    assert compared > 35


def test_error_equals_the_quaternion_angle_everywhere():
    a, b = random_poses(5000, 3), random_poses(5000, 4)
    expected = (quaternion_rotation(a).inv() * quaternion_rotation(b)).magnitude()
    assert expected.max() > 3.1
    np.testing.assert_allclose(pose_error(a, b), expected, atol=1e-13)


@pytest.mark.parametrize("index, elevation", [(0, 0.0), (0, 1.1), (2, 0.7), (2, -1.2)])
def test_half_a_turn_is_exactly_pi(index, elevation):
    pose = random_poses(200, 5)
    pose[:, 1] = elevation
    flipped = pose.copy()
    flipped[:, index] += PI
    errors = pose_error(pose, flipped)
    np.testing.assert_allclose(errors, PI, atol=1e-14)
    assert errors.max() <= PI


def test_azimuth_flip_is_pi_at_every_elevation():
    # The half turn is about the object's vertical axis, wherever the camera stands.
    pose = random_poses(500, 6)
    np.testing.assert_allclose(pose_error(pose, pose + np.array([PI, 0, 0])), PI, atol=1e-14)


def test_equal_poses_have_error_zero():
    pose = random_poses(500, 7)
    assert pose_error(pose, pose).max() < 1e-15


@pytest.mark.parametrize("tiny", [1e-3, 1e-6, 1e-9, 1e-12])
@pytest.mark.parametrize("index", [0, 1, 2])
def test_tiny_errors_keep_their_digits(tiny, index):
    pose = np.array([0.5, 0.25, 0.125])
    turned = pose.copy()
    turned[index] += tiny
    # The sum rounds, and so do sines: 2e-16 absolute is all that float64 gives.
    assert pose_error(pose, turned) == pytest.approx(tiny, abs=3e-16)


@pytest.mark.parametrize("tiny", [1e-3, 1e-6, 1e-9])
def test_errors_a_hair_below_pi_keep_their_digits(tiny):
    assert PI - pose_error([0.5, 0.25, 0.125], [0.5 + PI - tiny, 0.25, 0.125]) == pytest.approx(tiny, abs=1e-15)


@given(poses, poses, poses)
def test_error_is_a_distance(a, b, c):
    assert pose_error(a, b) == pytest.approx(float(pose_error(b, a)), abs=1e-13)
    assert 0 <= pose_error(a, b) <= PI
    assert pose_error(a, c) <= pose_error(a, b) + pose_error(b, c) + 1e-12


@given(poses)
@settings(max_examples=300)
def test_canonical_pose_is_the_same_rotation_in_range_and_settled(pose):
    result = canonical_pose(pose)
    azimuth, elevation, theta = result
    assert 0 <= azimuth < 2 * PI
    assert -PI / 2 <= elevation <= PI / 2
    assert 0 <= theta < 2 * PI
    assert pose_error(result, pose) < 1e-13
    np.testing.assert_array_equal(canonical_pose(result), result)


@pytest.mark.parametrize("elevation", [PI / 2, -PI / 2, 0.0, 1e-12, -1e-12, 1.0, np.nextafter(PI / 2, 0)])
def test_canonical_pose_leaves_a_pose_in_range_alone(elevation):
    np.testing.assert_allclose(canonical_pose([1.0, elevation, 2.0]), [1.0, elevation, 2.0], rtol=0, atol=1e-15)


@pytest.mark.parametrize("pole", [PI / 2, -PI / 2, 3 * PI / 2, -5 * PI / 2])
@pytest.mark.parametrize("step", [-2, -1, 0, 1, 2])
def test_canonical_pose_stays_in_range_a_rounding_from_the_poles(pole, step):
    pose = np.array([1.0, pole + step * np.spacing(pole), 2.0])
    result = canonical_pose(pose)
    assert abs(result[1]) <= PI / 2
    assert pose_error(result, pose) < 1e-14
    np.testing.assert_array_equal(canonical_pose(result), result)


def test_canonical_pose_over_the_pole():
    np.testing.assert_allclose(canonical_pose([1.0, 2.0, 0.5]), [1.0 + PI, PI - 2.0, 0.5 + PI], atol=1e-15)
    np.testing.assert_allclose(canonical_pose([4.0, -2.0, 5.0]), [4.0 - PI, 2.0 - PI, 5.0 - PI], atol=1e-15)


def test_wrapped_angles_lie_below_a_whole_turn_even_just_below_zero():
    values = np.array([0.0, -0.0, -1e-20, -1e-16, 2 * PI, np.nextafter(2 * PI, 0), -2 * PI, 7.0, -7.0])
    wrapped = wrap_angle(values)
    assert wrapped.min() >= 0 and wrapped.max() < 2 * PI
    np.testing.assert_allclose(np.exp(1j * wrapped), np.exp(1j * values), atol=1e-15)


@given(angles, angles)
def test_angle_difference_is_the_short_way_round(a, b):
    difference = angle_difference(a, b)
    assert -PI <= difference < PI
    assert abs(np.exp(1j * (b + difference)) - np.exp(1j * a)) < 1e-13


def test_quaternions_are_the_rotations_of_the_poses():
    pose = random_poses(2000)
    np.testing.assert_allclose(Rotation.from_quat(quaternion(pose)[:, [1, 2, 3, 0]]).as_matrix(), rotation_matrix(pose))


@given(poses)
def test_a_quaternion_of_any_sign_and_length_gives_its_pose_back(pose):
    for factor in (1.0, -1.0, 0.3):
        assert pose_error(pose_of_quaternion(factor * quaternion(pose)), pose) < 1e-6


@pytest.mark.parametrize("elevation", [PI / 2, -PI / 2])
def test_a_quaternion_at_a_pole_keeps_the_turn_about_the_line_of_sight(elevation):
    pose = np.array([1.0, elevation, 0.4])
    found = pose_of_quaternion(quaternion(pose))
    assert found[1] == pytest.approx(elevation)
    assert pose_error(found, pose) < 1e-6


def test_camera_stands_where_the_angles_say():
    centers = camera_center([[0, 0, 0], [PI / 2, 0, 9.0], [PI, 0, 0], [0, PI / 2, 0]], [2.0, 3.0, 4.0, 5.0])
    expected = [[0, -2, 0], [3, 0, 0], [0, 4, 0], [0, 0, 5]]
    np.testing.assert_allclose(centers, expected, atol=1e-14)


def pinhole(point, pose, distance, viewport, principal):
    """Look from the camera's place at the origin, up as the world's z, then turn the picture by theta."""
    azimuth, elevation, theta = pose
    eye = distance * np.array(
        [math.cos(elevation) * math.sin(azimuth), -math.cos(elevation) * math.cos(azimuth), math.sin(elevation)]
    )
    forward = -eye / np.linalg.norm(eye)
    right = np.cross(forward, [0.0, 0.0, 1.0])
    right /= np.linalg.norm(right)
    up = np.cross(right, forward)
    ray = point - eye
    x, y = viewport * (right @ ray) / (forward @ ray), viewport * (up @ ray) / (forward @ ray)
    turned = complex(x, y) * complex(math.cos(theta), math.sin(theta))
    return principal[0] + turned.real, principal[1] - turned.imag


def test_projection_equals_a_pinhole_camera_written_by_hand():
    rng = np.random.default_rng(8)
    points = rng.uniform(-0.5, 0.5, (6, 3))
    for _ in range(50):
        pose = np.array([rng.uniform(0, 6.28), rng.uniform(-1.4, 1.4), rng.uniform(0, 6.28)])
        distance, viewport = rng.uniform(2, 9), rng.uniform(300, 3000)
        principal = rng.uniform(0, 500, 2)
        expected = [pinhole(point, pose, distance, viewport, principal) for point in points]
        np.testing.assert_allclose(project(points, pose, distance, viewport, principal), expected, atol=1e-9)


def test_projection_of_a_front_view_by_hand():
    # A point half a unit to the object's left and a quarter up, 4 away, at 2000 pixels: right by 250, up by 125.
    assert project([[0.5, 0.0, 0.25]], [0, 0, 0], 4.0, 2000.0, [320, 240])[0] == pytest.approx([570, 115])


def test_a_point_in_the_cameras_own_plane_is_at_infinity():
    pixels = project([[1.0, -4.0, 0.0], [0.0, 0.0, 0.0]], [0, 0, 0], 4.0, 1000.0, [5.0, 6.0])
    # The rotation's cosine of a right angle rounds to 6e-17, so "infinity" may be a number no image reaches.
    assert not abs(pixels[0, 0]) < 1e12
    np.testing.assert_allclose(pixels[1], [5.0, 6.0])


def test_batches_broadcast():
    pose = random_poses(24, 9).reshape(2, 3, 4, 3)
    assert rotation_matrix(pose).shape == (2, 3, 4, 3, 3)
    assert canonical_pose(pose).shape == mirror_pose(pose).shape == (2, 3, 4, 3)
    assert pose_error(pose, pose[0, 0, 0]).shape == (2, 3, 4)
    assert pose_error(pose[:, :1], pose[:1]).shape == (2, 3, 4)
    assert camera_center(pose, np.ones((2, 3, 4))).shape == (2, 3, 4, 3)
    points = np.random.default_rng(0).uniform(-1, 1, (5, 3))
    pixels = project(points, pose, np.full((2, 3, 4), 5.0), 1000.0, [10.0, 20.0])
    assert pixels.shape == (2, 3, 4, 5, 2)
    np.testing.assert_allclose(pixels[1, 2, 3], project(points, pose[1, 2, 3], 5.0, 1000.0, [10.0, 20.0]))


@pytest.mark.parametrize("shape", [(), (2,), (3, 4)])
def test_a_pose_of_another_length_is_refused(shape):
    for function in (rotation_matrix, mirror_pose, canonical_pose):
        with pytest.raises(ValueError, match="pose must have shape"):
            function(np.zeros(shape))


def test_torch_gives_tensors_equal_to_numpys_arrays():
    a, b = random_poses(50, 10), random_poses(50, 11)
    points, distance = np.random.default_rng(0).uniform(-1, 1, (50, 4, 3)), np.linspace(2, 9, 50)
    viewport, principal = np.linspace(500, 900, 50), np.random.default_rng(1).uniform(0, 99, (50, 2))
    for function, values in [
        (rotation_matrix, (a,)),
        (quaternion, (a,)),
        (pose_of_quaternion, (quaternion(a),)),
        (mirror_pose, (a,)),
        (canonical_pose, (a,)),
        (wrap_angle, (a,)),
        (angle_difference, (a, b)),
        (pose_error, (a, b)),
        (geodesic_error, (rotation_matrix(a), rotation_matrix(b))),
        (camera_center, (a, distance)),
        (project, (points, a, distance, viewport, principal)),
    ]:
        tensor = function(*(torch.from_numpy(value) for value in values))
        assert isinstance(tensor, torch.Tensor) and tensor.dtype == torch.float64
        np.testing.assert_allclose(tensor.numpy(), function(*values), atol=1e-12, err_msg=function.__name__)


def test_float32_tensors_are_computed_in_float64():
    pose = torch.tensor([0.1, 0.2, 0.3], dtype=torch.float32)
    result = rotation_matrix(pose)
    assert result.dtype == torch.float64
    np.testing.assert_allclose(result.numpy(), rotation_matrix(pose.numpy().astype(np.float64)), atol=1e-15)
    assert pose_error(pose, pose).item() < 1e-15


def test_a_tensor_beside_an_array_or_a_list_gives_a_tensor():
    pose = torch.tensor([0.5, 0.25, 0.125])
    for other in ([0.5, 0.25, 0.125], np.array([0.5, 0.25, 0.125])):
        assert pose_error(pose, other).item() < 1e-15
        assert pose_error(other, pose).item() < 1e-15
    assert project([[0.1, 0.2, 0.3]], pose, 4.0, 900, [5, 6]).shape == (1, 2)


def test_whole_numbers_and_lists_are_taken():
    assert pose_error([0, 0, 0], [1, 0, 0]) == pytest.approx(1.0)
    assert pose_error(np.zeros(3, dtype=np.int64), torch.tensor([0, 0, 2])) == pytest.approx(2.0)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("kind", [np.asarray, torch.as_tensor])
def test_what_is_not_finite_gives_an_error_that_is_not_finite(bad, kind):
    pose = np.array([[0.1, 0.2, 0.3], [0.1, bad, 0.3], [bad, 0.2, 0.3], [0.1, 0.2, bad]])
    errors = np.asarray(pose_error(kind(pose), kind(pose[:1])))
    assert np.isfinite(errors).tolist() == [True, False, False, False]
    assert not np.isfinite(np.asarray(canonical_pose(kind(pose)))[1:]).all(-1).any()


def test_gradients_flow_through_the_error():
    pose = torch.tensor([0.5, 0.25, 0.125], dtype=torch.float64, requires_grad=True)
    pose_error(pose, [1.0, 0.1, 0.0]).backward()
    assert torch.isfinite(pose.grad).all() and pose.grad.abs().max() > 0.1
