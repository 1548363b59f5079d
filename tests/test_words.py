"""Words about a pose against where the rotation really sends the object's front."""

import math
import re

import numpy as np
import pytest

from llava_pose.geometry import camera_center, mirror_pose, rotation_matrix
from llava_pose.words import FACINGS, facing, pose_text, pose_words, seen_from, turn_to_face, turn_words

PI = math.pi
FRONT = np.array([0.0, -1.0, 0.0])
OCTANTS = np.radians(np.arange(0, 360, 45))
# All around, but not on the borders between two words.
AZIMUTHS = [azimuth for azimuth in np.radians(np.arange(1.2, 361.0, 3.0)) if abs(azimuth / (PI / 4) % 1 - 0.5) > 0.02]


def swap_sides(text):
    return re.sub("left|right", lambda match: {"left": "right", "right": "left"}[match[0]], text)


def front_in_the_picture(pose):
    """How far the front points to the picture's right, and how far towards the camera."""
    right, _, backwards = (rotation_matrix(pose) @ FRONT).tolist()
    return right, backwards


def words_of(right, towards):
    """The facing words of a direction: a part is mentioned when it makes up more than sin 22.5° of the direction."""
    length, least = math.hypot(right, towards), math.sin(PI / 8)
    depth = "towards the camera" if towards > least * length else "away from the camera"
    side = f"to the {'right' if right > 0 else 'left'} of the picture"
    parts = [depth] * (abs(towards) > least * length) + [side] * (abs(right) > least * length)
    return " and ".join(parts)


@pytest.mark.parametrize("theta", [0.0, 0.1, -0.1])
def test_facing_is_where_the_projected_front_points(theta):
    told = set()
    for azimuth in AZIMUTHS:
        pose = [azimuth, 0.0, theta]
        right, towards = front_in_the_picture([azimuth, 0.0, 0.0])
        assert facing(pose) == words_of(right, towards), math.degrees(azimuth)
        told.add(facing(pose))
    assert told == set(FACINGS)


@pytest.mark.parametrize("elevation", [-0.5, -0.2, 0.2, 0.5])
@pytest.mark.parametrize("theta", [-0.3, 0.0, 0.3, PI - 0.3, PI, PI + 0.3])
def test_left_and_right_of_the_picture_hold_for_tilted_cameras_and_pictures_upside_down(elevation, theta):
    for azimuth in OCTANTS:
        words = facing([azimuth, elevation, theta])
        right, towards = front_in_the_picture([azimuth, elevation, theta])
        assert ("right of" in words, "left of" in words) == (
            (right > 0, right < 0) if words.count("of the picture") else (False, False)
        ), (azimuth, words)
        assert ("towards" not in words or towards > 0) and ("away" not in words or towards < 0)


def test_the_side_seen_is_the_one_towards_the_camera():
    for azimuth in AZIMUTHS:
        to_left, to_back, _ = camera_center([azimuth, 0.3, 0.0], 1.0).tolist()
        length, least = math.hypot(to_left, to_back), math.sin(PI / 8)
        depth = "front" if to_back < 0 else "back"
        side = "left" if to_left > 0 else "right"
        parts = [depth] * (abs(to_back) > least * length) + [side] * (abs(to_left) > least * length)
        assert seen_from([azimuth, 0.3, 0.0]).startswith(f"seen from its {'-'.join(parts)}, "), azimuth


def test_after_its_turn_the_object_faces_the_camera():
    for azimuth in AZIMUTHS:
        pose = np.array([azimuth, 0.0, 0.0])
        turn = turn_to_face(pose)
        cosine, sine = math.cos(turn), math.sin(turn)
        # Counter-clockwise seen from above, which is to its own left: from the front (-y) towards +x.
        turned = np.array([[cosine, -sine, 0], [sine, cosine, 0], [0, 0, 1]]) @ FRONT
        np.testing.assert_allclose(turned, camera_center(pose, 1.0), atol=1e-12)
        words = turn_words(pose)
        if "own" in words:
            assert ("left" in words) == (turned[0] > 0)
            told = float(re.search(r"(\d+) degrees", words)[1])
            assert abs(told - abs(math.degrees(turn))) <= 7.5


@pytest.mark.parametrize(
    "degrees, words",
    [
        (0, "already faces the camera"),
        (7, "already faces the camera"),
        (-7, "already faces the camera"),
        (90, "must turn about 90 degrees to its own left"),
        (270, "must turn about 90 degrees to its own right"),
        (180, "must turn about 180 degrees"),
        (176, "must turn about 180 degrees"),
        (-176, "must turn about 180 degrees"),
        (20, "must turn about 15 degrees to its own left"),
    ],
)
def test_turns_in_words(degrees, words):
    assert turn_words([math.radians(degrees), 0.2, 0.1]) == words


@pytest.mark.parametrize(
    "degrees, height",
    [
        (0, "at its own height"),
        (-4, "at its own height"),
        (10, "from slightly above"),
        (-10, "from slightly below"),
        (40, "from above"),
        (-40, "from below"),
        (80, "from almost straight above"),
        (-80, "from almost straight below"),
    ],
)
def test_heights_in_words(degrees, height):
    assert seen_from([0.0, math.radians(degrees), 0.0]) == f"seen from its front, {height}"


@pytest.mark.parametrize("words", [facing, seen_from, turn_words])
def test_mirrored_poses_swap_left_and_right(words):
    for azimuth in [*AZIMUTHS, *OCTANTS]:
        pose = [azimuth, 0.2, 0.1]
        assert words(mirror_pose(pose)) == swap_sides(words(pose))


@pytest.mark.parametrize("words", [facing, seen_from, turn_words, pose_words])
def test_both_names_of_a_rotation_give_the_same_words(words):
    for azimuth in AZIMUTHS:
        assert words([azimuth, 0.2, 0.1]) == words([azimuth + PI, PI - 0.2, 0.1 + PI])


@pytest.mark.parametrize(
    "degrees, numbers",
    [
        ((312.4, 11, 2), "azimuth 312°, elevation 11°, theta 2°"),
        ((359.7, -0.3, 359.8), "azimuth 0°, elevation 0°, theta 0°"),
        ((-30, -20, -15), "azimuth 330°, elevation -20°, theta -15°"),
    ],
)
def test_pose_words_give_whole_degrees_first(degrees, numbers):
    assert pose_words(np.radians(degrees)).split(" · ")[0] == numbers


@pytest.mark.parametrize("pose", [(math.nan, 0, 0), (0, math.inf, 0)])
def test_a_pose_that_is_not_finite_is_told_as_such(pose):
    assert pose_text(pose) == pose_words(pose) == "no readable pose"
