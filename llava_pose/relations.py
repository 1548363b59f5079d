"""Two objects of one picture, brought into one camera's frame.

An annotation holds each object's rotation as if the camera looked straight at it: its CAD model is drawn on the optical
axis and the drawing moved to (px, py). So azimuth, elevation and theta are relative to the object's own line of sight
(allocentric), which is all that its look can tell, and every question about one object is meant that way. Between two
objects it is not enough: parallel cars along a street have azimuths that differ by the angle between their lines of
sight. Here a rotation is turned by the smallest rotation from the optical axis to the object's line of sight, through
((px − cx) / f, −(py − cy) / f, −1), with f the viewport and (cx, cy) the picture's middle: the result is in the frame
of the one camera that took the picture (egocentric), and two of them can be compared.

Two things an annotation leaves open:

* The focal length. ImageNet3D's viewport is nominal, 2000 pixels for every photo, while pictures are taken with a
  quarter of that too. It enters the lines of sight, and the distances, which grow with it when an object's size in the
  picture is given. So every relation is computed for each of ``FOCAL_SHARES`` of the viewport, and only what holds for
  both is to be told.
* The size. A distance is in units of the object's own CAD model, so where two objects stand relative to each other
  is known only within one category.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from .geometry import rotation_matrix
from .scene import PosedImage, PosedObject

FOCAL_SHARES = (1.0, 0.25)
_FRONT = np.array([0.0, -1.0, 0.0])
_AHEAD = np.array([0.0, 0.0, -1.0])


@dataclass(frozen=True)
class Placed:
    """An object in the camera's frame (x right, y up, looking along −z): the direction (3,) its front points to, and
    its position (3,) in object units."""

    front: np.ndarray
    position: np.ndarray


def placed(item: PosedObject, record: PosedImage, focal_share: float) -> Placed:
    """An object of a whole picture, for a focal length of this share of its viewport."""
    focal = item.viewport * focal_share
    sight = np.array([(item.px - record.width / 2) / focal, (record.height / 2 - item.py) / focal, -1.0])
    sight /= math.sqrt(sight @ sight)
    front = rotation_matrix(item.pose) @ _FRONT
    # The smallest rotation from a unit vector a to b takes v to v − (a + b)·v / (1 + a·b) (a + b) + 2 (a·v) b.
    both = _AHEAD + sight
    front = front - (both @ front) / (1.0 + _AHEAD @ sight) * both + 2 * (_AHEAD @ front) * sight
    return Placed(front, sight * (item.distance * focal_share))


def angle(a: np.ndarray, b: np.ndarray) -> float:
    """The angle between two vectors (3,) in radians, in [0, π], precise at both ends (Kahan's formula)."""
    a, b = a / math.sqrt(a @ a), b / math.sqrt(b @ b)
    return 2 * math.atan2(math.sqrt((a - b) @ (a - b)), math.sqrt((a + b) @ (a + b)))


def angles_between(first: PosedObject, second: PosedObject, record: PosedImage) -> list[float]:
    """The angle in space between the directions two objects face, for each of ``FOCAL_SHARES``, in radians."""
    return [angle(placed(first, record, share).front, placed(second, record, share).front) for share in FOCAL_SHARES]


def angles_off(first: PosedObject, second: PosedObject, record: PosedImage) -> list[float]:
    """How far the fronts of two objects of one category miss each other, for each of ``FOCAL_SHARES``, in radians.

    Of the two angles between an object's front and the line from it to the other object, the larger.
    """
    angles = []
    for share in FOCAL_SHARES:
        one, other = placed(first, record, share), placed(second, record, share)
        line = other.position - one.position
        angles.append(max(angle(one.front, line), angle(other.front, -line)))
    return angles
