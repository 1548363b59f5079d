"""A pose in words and in degrees, for people.

Frames are always named: "left" and "right" of the picture, or the object's "own" left and right.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import product
from typing import Any

from .geometry import angle_difference, canonical_pose

FACINGS = (
    "towards the camera",
    "towards the camera and to the left of the picture",
    "to the left of the picture",
    "away from the camera and to the left of the picture",
    "away from the camera",
    "away from the camera and to the right of the picture",
    "to the right of the picture",
    "towards the camera and to the right of the picture",
)
"""By azimuth in steps of 45°, from 0. At azimuth 90° the camera stands on the object's own left (+x), sees +y to its
right, and so sees the object's front (−y) point to the left of the picture."""

SIDES = ("front", "front-left", "left", "back-left", "back", "back-right", "right", "front-right")
"""The object's own side that is seen, by azimuth in steps of 45°, from 0."""

NO_POSE = "no readable pose"

HEIGHTS = (
    "from almost straight below",
    "from below",
    "from slightly below",
    "at its own height",
    "from slightly above",
    "from above",
    "from almost straight above",
)
"""The camera's height beside the object, by elevation; the borders are ``HEIGHT_BORDERS_DEGREES``, up and down."""
HEIGHT_BORDERS_DEGREES = (5, 20, 60)

ROLLS = ("upright", "tilted clockwise", "tilted counterclockwise", "upside down")
"""How the object is turned in the plane of the picture, by theta; the borders are ``ROLL_BORDERS_DEGREES``, both ways
round."""
ROLL_BORDERS_DEGREES = (15, 135)

SHOWN_FROM_DEGREES = 10
"""A side counts as seen when the line of sight meets it at more than this angle."""

_SHOWN = ("its front", "its back", "its own left side", "its own right side", "its top", "its bottom")

TURN_STEP_DEGREES = 15
"""Turns are told in steps of this many degrees: as fine as words about a picture are worth."""


def join_words(parts: Sequence[str]) -> str:
    """The parts as one list in a sentence: ``a``, ``a and b``, ``a, b and c``."""
    return " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)


SHOWN_SIDES = tuple(
    join_words([side for side in (depth, flank, height) if side])
    for depth, flank, height in product(("", *_SHOWN[:2]), ("", *_SHOWN[2:4]), ("", *_SHOWN[4:]))
    if depth or flank or height
)
"""Everything ``shown_sides`` can say."""


Angles = tuple[float, float, float]
"""Azimuth, elevation and theta of a canonical pose."""


def canonical_angles(pose: Any) -> Angles:
    """The canonical angles of a pose (3,) as plain numbers, elevation in [−π/2, π/2]."""
    azimuth, elevation, theta = canonical_pose(pose).tolist()
    return azimuth, elevation, theta


def facing(pose: Any) -> str:
    """Which way the object's front points, as seen in the picture (8-way, by azimuth, for cameras not far from level).

    In a picture that is upside down (theta beyond a quarter turn) left and right change places.
    """
    return facing_of(canonical_angles(pose))


def facing_of(angles: Angles) -> str:
    """``facing`` of canonical angles."""
    azimuth, _, theta = angles
    return FACINGS[octant(azimuth if math.cos(theta) >= 0 else -azimuth)]


def side_of(angles: Angles) -> str:
    """The object's own side that is seen, one of ``SIDES``, of canonical angles."""
    return SIDES[octant(angles[0])]


def height_of(angles: Angles) -> str:
    """The camera's height, one of ``HEIGHTS``, of canonical angles. "Above" is where the object's own up points."""
    degrees = math.degrees(angles[1])
    steps = sum(abs(degrees) >= border for border in HEIGHT_BORDERS_DEGREES)
    return HEIGHTS[len(HEIGHT_BORDERS_DEGREES) + (steps if degrees > 0 else -steps)]


def roll_of(angles: Angles) -> str:
    """How the object is turned in the plane of the picture, one of ``ROLLS``, of canonical angles."""
    degrees = math.degrees(math.remainder(angles[2], 2 * math.pi))
    upright, upside_down = ROLL_BORDERS_DEGREES
    if abs(degrees) < upright:
        return ROLLS[0]
    if abs(degrees) >= upside_down:
        return ROLLS[3]
    return ROLLS[2 if degrees > 0 else 1]


def shown_sides(angles: Angles) -> str:
    """All of the object's own sides that the camera sees, for an object about as boxy as a car, of canonical angles.

    A side is seen when the direction to the camera rises more than ``SHOWN_FROM_DEGREES`` above its plane.
    """
    azimuth, elevation, _ = angles
    front, left = math.cos(elevation) * math.cos(azimuth), math.cos(elevation) * math.sin(azimuth)
    top, least = math.sin(elevation), math.sin(math.radians(SHOWN_FROM_DEGREES))
    towards_camera = (front, -front, left, -left, top, -top)
    return join_words([side for side, part in zip(_SHOWN, towards_camera, strict=True) if part > least])


def seen_from(pose: Any) -> str:
    """The pose in words: the object's own side that is seen, and the camera's height.

    >>> seen_from((0.8, 0.2, 0.0))
    'seen from its front-left, from slightly above'
    """
    return seen_from_of(canonical_angles(pose))


def seen_from_of(angles: Angles) -> str:
    """``seen_from`` of canonical angles."""
    return f"seen from its {side_of(angles)}, {height_of(angles)}"


def turn_to_face(pose: Any) -> float:
    """The turn about its own vertical, in radians in [−π, π), after which the object faces the camera.

    Positive is to the object's own left (counter-clockwise seen from above): at azimuth 90° the camera stands on its
    own left, and a quarter turn to the left faces it.
    """
    return float(angle_difference(canonical_pose(pose)[..., 0], 0.0))


def stepped(degrees: float) -> int:
    """An angle without its sign as it is told: the nearest multiple of ``TURN_STEP_DEGREES``."""
    return round(abs(degrees) / TURN_STEP_DEGREES) * TURN_STEP_DEGREES


def turn_words(pose: Any) -> str:
    """The turn of ``turn_to_face`` in words, in steps of ``TURN_STEP_DEGREES``."""
    return turn_words_of(turn_to_face(pose))


def turn_words_of(turn: float) -> str:
    """A turn in radians, positive to the object's own left, in words."""
    steps = stepped(math.degrees(turn))
    if steps == 0:
        return "already faces the camera"
    if steps == 180:
        return "must turn about 180 degrees"
    return f"must turn about {steps} degrees to its own {'left' if turn > 0 else 'right'}"


def pose_text(pose: Any) -> str:
    """A pose (3,) in radians as whole degrees: azimuth in 0..359, elevation and theta with a sign.

    ``NO_POSE`` where it is not finite, as a model's reading may be.
    """
    if not readable(pose):
        return NO_POSE
    azimuth, elevation, theta = (math.degrees(float(angle)) for angle in canonical_pose(pose))
    theta = math.degrees(float(angle_difference(math.radians(theta), 0.0)))
    return f"azimuth {round(azimuth) % 360}°, elevation {round(elevation)}°, theta {round(theta)}°"


def pose_words(pose: Any) -> str:
    """A pose for people: ``pose_text``, then words ("azimuth 312°, elevation 11°, theta 2° · seen from …")."""
    return f"{pose_text(pose)} · {seen_from(pose)}" if readable(pose) else NO_POSE


def readable(pose: Any) -> bool:
    """Whether every angle of a pose (3,) is a finite number."""
    return all(math.isfinite(float(angle)) for angle in pose)


def octant(azimuth: float) -> int:
    """The nearest multiple of 45°, as an index into ``FACINGS`` and ``SIDES``, of an angle in radians."""
    return round(azimuth / (math.pi / 4)) % 8
