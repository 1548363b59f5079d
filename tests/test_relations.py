"""Two objects in one camera's frame, against a scene built in a world and photographed by a pinhole camera."""

import math

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from llava_pose.geometry import rotation_matrix
from llava_pose.relations import angle, angles_between, angles_off, placed
from tests.random_records import SIZE, posed, record_of

FOCAL = 500.0
FRONT = np.array([0.0, -1.0, 0.0])


def photographed(spots, yaws, height=1.5, back=8.0, pitch=0.1, focal=FOCAL):
    """Annotations of objects at (x, y) spots on the ground, turned by their yaws, and what is true of them.

    The camera stands at (0, −back, height) and looks along +y, pitched down. An annotation holds what the object looks
    like: its rotation seen from a camera turned to look straight at it, by the smallest turn. Returns the record, and
    the fronts and positions in the camera's frame.
    """
    # World to camera: camera x is world x, camera −z is world +y pitched down.
    to_camera = Rotation.from_euler("x", pitch).as_matrix() @ np.array([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]])
    eye = np.array([0.0, -back, height])
    items, fronts, positions = [], [], []
    for number, (spot, yaw) in enumerate(zip(spots, yaws, strict=True)):
        rotation = to_camera @ Rotation.from_euler("z", yaw).as_matrix()
        position = to_camera @ (np.array([*spot, 0.0]) - eye)
        distance = np.linalg.norm(position)
        sight, ahead = position / distance, np.array([0.0, 0.0, -1.0])
        axis = np.cross(sight, ahead)
        sine = np.linalg.norm(axis)
        turn = Rotation.from_rotvec(axis / sine * math.atan2(sine, sight @ ahead)) if sine else Rotation.identity()
        look = turn.as_matrix() @ rotation
        theta, tilt, minus_azimuth = Rotation.from_matrix(look).as_euler("ZXZ")
        pose = (-minus_azimuth, tilt + math.pi / 2, theta)
        np.testing.assert_allclose(rotation_matrix(pose), look, atol=1e-12)
        pixel = (
            SIZE[0] / 2 - focal * position[0] / position[2],
            SIZE[1] / 2 + focal * position[1] / position[2],
        )
        items.append(posed(number, "car", pose, pixel, float(distance), viewport=focal))
        fronts.append(rotation @ FRONT)
        positions.append(position)
    return record_of(*items), fronts, positions


@pytest.mark.parametrize("seed", range(20))
def test_an_object_off_the_centre_is_placed_as_it_stands_in_the_world(seed):
    rng = np.random.default_rng(seed)
    record, fronts, positions = photographed(
        rng.uniform(-3, 3, (3, 2)), rng.uniform(-3, 3, 3), pitch=rng.normal(0, 0.2)
    )
    for item, front, position in zip(record.objects, fronts, positions, strict=True):
        found = placed(item, record, 1.0)
        np.testing.assert_allclose(found.front, front, atol=1e-9)
        np.testing.assert_allclose(found.position, position, atol=1e-9)


def test_parallel_cars_have_other_azimuths_and_yet_one_direction():
    record, _, _ = photographed([(-2.5, 0.0), (2.5, 0.0)], [0.4, 0.4])
    left, right = record.objects
    assert abs(left.azimuth - right.azimuth) > math.radians(25)
    assert angles_between(left, right, record)[0] < 1e-6


def test_equal_azimuths_away_from_each_other_are_not_one_direction():
    record = record_of(posed(0, pose=(1.0, 0.0, 0.0), center=(50, 150), viewport=500.0), posed(1, pose=(1.0, 0.0, 0.0)))
    between = angles_between(*record.objects, record)[0]
    assert between == pytest.approx(math.atan2(150, 500), abs=1e-9)


@pytest.mark.parametrize("seed", range(10))
def test_the_angle_between_two_is_that_of_their_yaws(seed):
    yaws = np.random.default_rng(seed).uniform(-math.pi, math.pi, 2)
    record, _, _ = photographed([(-1.0, 1.0), (1.5, 2.0)], yaws)
    assert angles_between(*record.objects, record)[0] == pytest.approx(abs(math.remainder(yaws[0] - yaws[1], math.tau)))


def test_how_far_two_fronts_miss_each_other_is_measured_on_the_line_between_them():
    spots = [(-1.0, 0.0), (1.0, 0.0)]
    # At yaw 0 an object faces −y; at +90° it faces +x.
    facing, _, _ = photographed(spots, [math.pi / 2, -math.pi / 2])
    assert angles_off(*facing.objects, facing)[0] < 1e-6
    one_turned, _, _ = photographed(spots, [math.pi / 2, -math.pi / 2 + 0.6])
    assert angles_off(*one_turned.objects, one_turned)[0] == pytest.approx(0.6)
    back_to_back, _, _ = photographed(spots, [-math.pi / 2, math.pi / 2])
    assert angles_off(*back_to_back.objects, back_to_back)[0] == pytest.approx(math.pi)


def test_at_another_focal_length_the_same_picture_has_other_sights_and_distances():
    """A photo taken with a quarter of the annotated focal length: the second reading is the true one."""
    record, fronts, _ = photographed([(-2.0, 0.0), (2.0, 1.0)], [0.3, 1.2])
    annotated = record_of(
        *(
            posed(item.object_id, "car", tuple(item.pose), (item.px, item.py), item.distance * 4, viewport=FOCAL * 4)
            for item in record.objects
        )
    )
    for item, front in zip(annotated.objects, fronts, strict=True):
        np.testing.assert_allclose(placed(item, annotated, 0.25).front, front, atol=1e-9)
    assert angles_between(*annotated.objects, annotated)[1] == pytest.approx(0.9)
    assert angles_off(*annotated.objects, annotated)[1] == pytest.approx(angles_off(*record.objects, record)[0])


def test_the_angle_of_two_vectors_is_precise_at_both_ends():
    a = np.array([1.0, 0.0, 0.0])
    assert angle(a, 3 * a) == 0 and angle(a, -a) == math.pi
    assert angle(a, np.array([1.0, 1e-9, 0.0])) == pytest.approx(1e-9, rel=1e-6)
    assert angle(2 * a, np.array([0.0, 0.0, 5.0])) == pytest.approx(math.pi / 2)
