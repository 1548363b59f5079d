"""A pose as JSON, one form for the API, the page and exported conversations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from llava_pose import taxonomy
from llava_pose.configuration import POSE_TOKEN
from llava_pose.engine import Naming
from llava_pose.generation import Answer
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


def answer_poses(answer: Answer, first: int = 0, box: Box | None = None) -> list[dict[str, Any]]:
    """The poses of an answer's marks from the ``first`` on, each named by the words before its mark; box: what was
    asked about."""
    pieces = answer.text.split(POSE_TOKEN)[:-1]
    told = list(zip(pieces, answer.readings, strict=False))[first:]
    return [pose_json(reading, _category(piece), box=box) for piece, reading in told]


def _category(text: str) -> str:
    name = name_at_end(text)
    return name if name == "object" else taxonomy.resolve(name)


def name_at_end(text: str) -> str:
    """The longest spoken category name that ends a text; "object" where there is none.

    >>> name_at_end("A photo of a dining table")
    'dining table'
    """
    words = f" {text.strip()}".casefold()
    names = [taxonomy.spoken_name(category) for category in taxonomy.categories()]
    return max((name for name in names if words.endswith(f" {name.casefold()}")), key=len, default="object")
