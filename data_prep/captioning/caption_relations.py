"""How two objects lie to each other, as far as their boxes and distances tell: words that make a true "A is … B"."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from llava_pose.scene import PosedObject

FARTHER = 1.3
"""Of two objects of one category, one this many times as far is called farther. (A distance is in units of the object's
own size, so objects of two categories are not compared.)"""
LARGER = 2.0
"""A box of this many times the other's area is called larger."""


@dataclass(frozen=True)
class Relation:
    """Words between two mentions. ``place``: they say where, and may open a sentence ("Next to B is A.")."""

    words: str
    place: bool


def relations(a: PosedObject, b: PosedObject) -> list[Relation]:
    """What is true of ``a`` as seen from ``b``: each kind of relation in all its wordings.

    Left, right, higher, lower and larger are meant in the picture. A flip of the picture keeps every relation but left
    and right, which change places.
    """
    close = _gap(a, b) < 0.25 * (_area(a) ** 0.5 + _area(b) ** 0.5) / 2
    places: list[str] = []
    if _sideways(a, b) and (lies_left(a, b) or lies_left(b, a)):
        side = "to the left of" if lies_left(a, b) else "to the right of"
        places += [side, f"just {side}" if close else side]
    if close:
        places += ["close to", "near"] if _gap(a, b) < 0 else ["next to", "beside", "close to", "near"]
    comparisons: list[str] = []
    if _lies_higher(a, b) and not _sideways(a, b):
        comparisons += ["higher in the frame than", "farther up in the frame than"]
    if _lies_higher(b, a) and not _sideways(a, b):
        comparisons += ["lower in the frame than", "farther down in the frame than"]
    if _area(a) > LARGER * _area(b) > 0:
        comparisons += ["larger in the frame than"]
    if _area(b) > LARGER * _area(a) > 0:
        comparisons += ["smaller in the frame than"]
    if a.category == b.category and a.viewport == b.viewport and min(a.distance, b.distance) > 0:
        if a.distance > FARTHER * b.distance:
            comparisons += ["farther from the camera than", "farther away than"]
        if b.distance > FARTHER * a.distance:
            comparisons += ["nearer to the camera than", "closer to the camera than"]
    return [Relation(words, True) for words in places] + [Relation(words, False) for words in comparisons]


def from_left_to_right(objects: Sequence[PosedObject]) -> list[PosedObject] | None:
    """The objects in this order, or None where two of them share too many columns to say."""
    row = sorted(objects, key=lambda item: (_centre(item)[0], item.object_id))
    return row if all(lies_left(a, b) for a, b in pairwise(row)) else None


def from_top_to_bottom(objects: Sequence[PosedObject]) -> list[PosedObject] | None:
    """The objects in this order, or None where two of them share too many rows to say."""
    column = sorted(objects, key=lambda item: (_centre(item)[1], item.object_id))
    return column if all(_lies_higher(a, b) for a, b in pairwise(column)) else None


def lies_left(a: PosedObject, b: PosedObject) -> bool:
    """Whether each box ends before the other's centre: then nobody would put it otherwise."""
    return a.bbox[2] < _centre(b)[0] and _centre(a)[0] < b.bbox[0]


def _lies_higher(a: PosedObject, b: PosedObject) -> bool:
    return a.bbox[3] < _centre(b)[1] and _centre(a)[1] < b.bbox[1]


def _sideways(a: PosedObject, b: PosedObject) -> bool:
    (ax, ay), (bx, by) = _centre(a), _centre(b)
    return abs(ax - bx) > abs(ay - by)


def _gap(a: PosedObject, b: PosedObject) -> float:
    """Pixels between the boxes along the axis that parts them; negative where they overlap."""
    gap_x = max(a.bbox[0], b.bbox[0]) - min(a.bbox[2], b.bbox[2])
    gap_y = max(a.bbox[1], b.bbox[1]) - min(a.bbox[3], b.bbox[3])
    return max(gap_x, gap_y)


def _centre(item: PosedObject) -> tuple[float, float]:
    x1, y1, x2, y2 = item.bbox
    return (x1 + x2) / 2, (y1 + y2) / 2


def _area(item: PosedObject) -> float:
    x1, y1, x2, y2 = item.bbox
    return max(x2 - x1, 0.0) * max(y2 - y1, 0.0)
