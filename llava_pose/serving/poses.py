"""A pose as JSON, one form for the API, the page and exported conversations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from llava_pose.engine import Naming
from llava_pose.geometry import rotation_matrix
from llava_pose.images import Box
from llava_pose.reading import Alternative, PoseReading
from llava_pose.words import NO_POSE, canonical_angles, height_of, pose_text, readable, seen_from, side_of

DIGITS = 6
"""Decimal places of the distributions' probabilities."""


def pose_json(
    reading: PoseReading, category: str, class_probability: float | None = None, box: Box | None = None
) -> dict[str, Any]:
    """A pose with all there is to say of it, as JSON-ready values; angles in radians, None where none could be read.

    category: what the object is; class_probability: how probable that is, None where it was not asked; box: where it
    is, in pixels of the upright picture, None for the whole of it. ``rotation`` (3, 3), by rows, turns the object's
    frame into the camera's (see ``geometry``), the alternative's as well; ``distributions`` are the angles'
    probabilities over equal bins from 0.
    """
    found = readable(reading.pose)
    rotation = rotation_matrix(reading.pose).tolist() if found else None
    axes = zip(("azimuth", "elevation", "theta"), np.nan_to_num(reading.distributions), strict=True)
    return {
        "category": category,
        "class_probability": class_probability,
        **reading.to_dict(),
        "alternative": None if reading.alternative is None else _alternative_json(reading.alternative),
        "box": None if box is None else list(box),
        "words": seen_from(reading.pose) if found else NO_POSE,
        "text": pose_text(reading.pose),
        "chip": chip(reading),
        "rotation": rotation,
        "distributions": {axis: [round(float(share), DIGITS) for share in shares] for axis, shares in axes},
    }


def _alternative_json(other: Alternative) -> dict[str, Any]:
    return {**other.to_dict(), "text": pose_text(other.pose), "rotation": rotation_matrix(other.pose).tolist()}


def naming_json(naming: Naming, names: Sequence[str], box: Box | None) -> dict[str, Any]:
    """The best of names for what is at a box, as ``pose_json`` with ``joint_confidence`` besides."""
    probability = float(naming.probabilities[naming.index])
    pose = pose_json(naming.reading, names[naming.index], probability, box)
    return {**pose, "joint_confidence": naming.joint_confidence}


def chip(reading: PoseReading) -> str:
    """A pose in one short line: degrees, the side and height it is seen from, and how sure the model is.

    "azimuth 312°, elevation 11°, theta 2° · front-right, slightly above · 83% sure"
    """
    if not readable(reading.pose):
        return NO_POSE
    angles = canonical_angles(reading.pose)
    height = height_of(angles).removeprefix("from ")
    return f"{pose_text(reading.pose)} · {side_of(angles)}, {height} · {reading.confidence:.0%} sure"
