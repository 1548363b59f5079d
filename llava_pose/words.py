"""A pose in words and in degrees, for people.

Frames are always named: "left" and "right" of the picture, or the object's "own" left and right.
"""

from __future__ import annotations

import math
from typing import Any

from .geometry import angle_difference, canonical_pose, mirror_pose

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

TURN_STEP_DEGREES = 15
"""Turns are told in steps of this many degrees: as fine as words about a picture are worth."""


def facing(pose: Any) -> str:
    """Which way the object's front points, as seen in the picture (8-way, by azimuth, for cameras not far from level).

    In a picture that is upside down (theta beyond a quarter turn) left and right change places.
    """
    upright = math.cos(float(canonical_pose(pose)[..., 2])) >= 0
    return FACINGS[_octant(pose if upright else mirror_pose(pose))]


def seen_from(pose: Any) -> str:
    """The pose in words: the object's own side that is seen, and the camera's height.

    >>> seen_from((0.8, 0.2, 0.0))
    'seen from its front-left, from slightly above'
    """
    degrees = math.degrees(float(canonical_pose(pose)[..., 1]))
    if abs(degrees) < 5:
        height = "at its own height"
    elif abs(degrees) < 20:
        height = "from slightly above" if degrees > 0 else "from slightly below"
    elif abs(degrees) < 60:
        height = "from above" if degrees > 0 else "from below"
    else:
        height = "from almost straight above" if degrees > 0 else "from almost straight below"
    return f"seen from its {SIDES[_octant(pose)]}, {height}"


def turn_to_face(pose: Any) -> float:
    """The turn about its own vertical, in radians in [−π, π), after which the object faces the camera.

    Positive is to the object's own left (counter-clockwise seen from above): at azimuth 90° the camera stands on its
    own left, and a quarter turn to the left faces it.
    """
    return float(angle_difference(canonical_pose(pose)[..., 0], 0.0))


def turn_words(pose: Any) -> str:
    """The turn of ``turn_to_face`` in words, in steps of ``TURN_STEP_DEGREES``."""
    turn = math.degrees(turn_to_face(pose))
    steps = round(abs(turn) / TURN_STEP_DEGREES) * TURN_STEP_DEGREES
    if steps == 0:
        return "already faces the camera"
    if steps == 180:
        return "must turn about 180 degrees"
    return f"must turn about {steps} degrees to its own {'left' if turn > 0 else 'right'}"


def pose_text(pose: Any) -> str:
    """A pose (3,) in radians as whole degrees: azimuth in 0..359, elevation and theta with a sign."""
    azimuth, elevation, theta = (math.degrees(float(angle)) for angle in canonical_pose(pose))
    theta = math.degrees(float(angle_difference(math.radians(theta), 0.0)))
    return f"azimuth {round(azimuth) % 360}°, elevation {round(elevation)}°, theta {round(theta)}°"


def pose_words(pose: Any) -> str:
    """A pose for people: ``pose_text``, then words ("azimuth 312°, elevation 11°, theta 2° · seen from …")."""
    return f"{pose_text(pose)} · {seen_from(pose)}"


def _octant(pose: Any) -> int:
    return round(float(canonical_pose(pose)[..., 0]) / (math.pi / 4)) % 8
