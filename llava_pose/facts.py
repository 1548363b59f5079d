"""What is true of a record beyond doubt, and can be asked: facts computed from its annotation.

Facts near a border between two answers are left out: the deciding angle keeps ``MARGIN`` from the border (a number of
degrees is judged with a tolerance instead). Objects that the data set's authors skip (``status_bad`` or no status) are
never spoken of, and "the car" is one only where no other car is in the record; of two cars side by side each is known
by its place.

Facts about one object are relative to its own line of sight, those about two are for the one camera that sees both:
``relations`` says what of that is well-defined. The record of a flipped image yields the mirrored facts, and
``Fact.mirrored`` is the same fact about it.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from . import taxonomy
from .annotations import STATUSES
from .relations import angles_between, angles_off
from .scene import PosedImage, PosedObject
from .sides import swapped_sides
from .words import (
    FACINGS,
    Angles,
    canonical_angles,
    facing_of,
    height_of,
    join_words,
    octant,
    roll_of,
    seen_from_of,
    shown_sides,
    side_of,
    stepped,
    turn_to_face,
    turn_words_of,
)

MARGIN = math.pi / 60
"""How far, in radians, the angle that decides an answer keeps from the border to another answer."""
TOLERANCE_DEGREES = 30.0
"""A number of degrees this close to the true one is right: π/6, the wider threshold of the pose metric."""
SAME_DIRECTION = math.pi / 6
"""Two objects face the same direction when their directions differ by less."""
FACE_TO_FACE = math.pi / 4
"""Two objects face each other when each faces the other within this angle."""
NEARER_RATIO = 1.3
"""Of two objects one is nearer when the other's distance is so many times as large."""
STEEP = math.pi / 3
"""From above this elevation no side of an object is plainly the one that is seen."""


@dataclass(frozen=True)
class Fact:
    """Something true of a record that can be asked.

    label: the answer in short. objects: that of each ``<pose>`` in the answer; places: "left" or "right" where two of a
    category are told apart by it, none otherwise. said: the words of the answer where they are not the label. arrow: a
    side of the picture, an own side of the object that is asked about, and the one that is true. things: what is asked
    for, in the picture or not. degrees: the answer to a question for a number, positive to the object's own left.
    """

    label: str
    objects: tuple[PosedObject, ...] = ()
    places: tuple[str, ...] = ()
    said: str = ""
    arrow: tuple[str, ...] = ()
    things: str = ""
    degrees: float | None = None

    def mirrored(self, width: float, sided: bool) -> Fact:
        """The same fact about the flipped image of this width. ``sided``: the answer speaks of left and right."""
        turned = replace(
            self,
            objects=tuple(item.mirrored(width) for item in self.objects),
            places=tuple(map(swapped_sides, self.places)),
            arrow=tuple(map(swapped_sides, self.arrow)),
        )
        if not sided:
            return turned
        return replace(
            turned,
            label=swapped_sides(self.label),
            said=swapped_sides(self.said),
            degrees=None if self.degrees is None else -self.degrees,
        )


Facts = Callable[[PosedImage, Sequence[str]], Iterable[Fact]]
"""A record's facts of one kind. The names are the categories that may be said to be absent."""


# Which objects can be spoken of ---------------------------------------------------------------------------------------


def usable(item: PosedObject) -> bool:
    """Whether the data set's authors use this object: it has a status, and that is not ``status_bad``."""
    return item.status in STATUSES and item.status != "status_bad"


def alone(record: PosedImage) -> list[PosedObject]:
    """The usable objects whose category no other object of the record has, usable or not."""
    counts = Counter(item.category for item in record.objects)
    return [item for item in record.objects if usable(item) and counts[item.category] == 1]


Pair = tuple[tuple[PosedObject, PosedObject], tuple[str, ...]]
"""Two objects, and the place of each where two of a category are told apart by it."""


def twins(record: PosedImage) -> Iterator[Pair]:
    """The only two objects of a category, both usable, whose boxes lie beside each other; and each one's place."""
    counts = Counter(item.category for item in record.objects)
    for category in (category for category, count in counts.items() if count == 2):
        first, second = (item for item in record.objects if item.category == category)
        if not (usable(first) and usable(second)):
            continue
        if first.bbox[2] <= second.bbox[0]:
            yield (first, second), ("left", "right")
        elif second.bbox[2] <= first.bbox[0]:
            yield (first, second), ("right", "left")


def pairs(record: PosedImage) -> Iterator[Pair]:
    """All pairs of objects that can be told apart: each alone in its category, or ``twins``."""
    single = alone(record)
    for index, first in enumerate(single):
        for second in single[index + 1 :]:
            yield (first, second), ()
    yield from twins(record)


# What is true of one object -------------------------------------------------------------------------------------------


def of_one(rule: Callable[[PosedObject, Angles], Iterable[Fact]]) -> Facts:
    """The facts that a rule finds about each object that is alone in its category."""

    def facts(record: PosedImage, categories: Sequence[str]) -> Iterator[Fact]:
        for item in alone(record):
            yield from rule(item, angles_of(item))

    return facts


@lru_cache(maxsize=64)
def angles_of(item: PosedObject) -> Angles:
    """The canonical angles of an object, which many kinds of question ask for in turn."""
    return canonical_angles(item.pose)


def steady(label_of: Callable[[Angles], str | None], angles: Angles) -> str | None:
    """The label, where none of the angles changes it by moving ``MARGIN`` either way."""
    azimuth, elevation, theta = angles
    up, down = min(elevation + MARGIN, math.pi / 2), max(elevation - MARGIN, -math.pi / 2)
    label = label_of(angles)
    moved = (
        *((azimuth + MARGIN, elevation, theta), (azimuth - MARGIN, elevation, theta)),
        *((azimuth, up, theta), (azimuth, down, theta)),
        *((azimuth, elevation, theta + MARGIN), (azimuth, elevation, theta - MARGIN)),
    )
    return label if all(label_of(other) == label for other in moved) else None


def clear_facing(angles: Angles) -> str | None:
    """Which way the front points, where the direction on the ground and that in the camera's frame agree.

    The azimuth tells the direction on the ground the object stands on; the rotation tells the front's own in the
    camera's frame, whose left and right are the picture's. They part in steep views and in tilted pictures.
    """
    azimuth, elevation, theta = angles
    right, up = -math.sin(azimuth), -math.sin(elevation) * math.cos(azimuth)
    towards = math.cos(elevation) * math.cos(azimuth)
    right = right * math.cos(theta) - up * math.sin(theta)
    words = facing_of(angles)
    return words if words == FACINGS[octant(math.atan2(-right, towards))] else None


def own_left_in_picture(angles: Angles) -> str | None:
    """The side of the picture to which the object's own left points, within 45° in the camera's frame."""
    azimuth, elevation, theta = angles
    right = math.cos(azimuth) * math.cos(theta) + math.sin(elevation) * math.sin(azimuth) * math.sin(theta)
    return None if abs(right) < math.sqrt(0.5) else "right" if right > 0 else "left"


def level(angles: Angles) -> bool:
    """Whether the camera stands low enough for one side of the object to be the one that is seen."""
    return abs(angles[1]) < STEEP - MARGIN


def facing_facts(item: PosedObject, angles: Angles) -> Iterator[Fact]:
    """Which way the front points, one of ``FACINGS``."""
    label = steady(clear_facing, angles)
    if label is not None:
        yield Fact(label, (item,))


def front_in_picture_facts(item: PosedObject, angles: Angles) -> Iterator[Fact]:
    """To which side of the picture the front points, where it does."""
    label = steady(clear_facing, angles)
    for side in ("left", "right"):
        if label is not None and side in label:
            yield Fact(f"to the {side}", (item,))


def side_facts(item: PosedObject, angles: Angles) -> Iterator[Fact]:
    """The own side that is seen, one of ``SIDES``, said with the camera's height."""
    label = steady(side_of, angles)
    if label is not None and level(angles) and steady(height_of, angles) is not None:
        yield Fact(label, (item,), said=seen_from_of(angles))


def camera_side_facts(item: PosedObject, angles: Angles) -> Iterator[Fact]:
    """On which own side the camera stands, where that is left or right."""
    label = steady(side_of, angles)
    for side in ("left", "right"):
        if label is not None and side in label and level(angles):
            yield Fact(f"on its own {side} side", (item,))


def shown_facts(item: PosedObject, angles: Angles) -> Iterator[Fact]:
    """All own sides that are seen, one of ``SHOWN_SIDES``."""
    label = steady(shown_sides, angles)
    if label is not None:
        yield Fact(label, (item,))


def height_facts(item: PosedObject, angles: Angles) -> Iterator[Fact]:
    """The camera's height, one of ``HEIGHTS``."""
    label = steady(height_of, angles)
    if label is not None:
        yield Fact(label, (item,))


def roll_facts(item: PosedObject, angles: Angles) -> Iterator[Fact]:
    """How the object is turned in the plane of the picture, one of ``ROLLS``."""
    label = steady(roll_of, angles)
    # Seen from straight above, nothing of the object is upright in the picture.
    if label is not None and level(angles):
        yield Fact(label, (item,))


def turn_facts(item: PosedObject, angles: Angles) -> Iterator[Fact]:
    """The turn to face the camera, in degrees; the label is the own side that is seen."""
    if level(angles):
        turn = turn_to_face(angles)
        yield Fact(side_of(angles), (item,), said=turn_words_of(turn), degrees=math.degrees(turn))


def arrow_facts(item: PosedObject, angles: Angles) -> Iterator[Fact]:
    """Whether a side of the picture is an own side of the object ("yes" or "no")."""
    left_at = steady(own_left_in_picture, angles)
    if left_at is None:
        return
    # Begun with the side to which the front leans: in the mirrored record, the mirrored facts are in the same order.
    for picture in ("left", "right") if math.sin(angles[0]) > 0 else ("right", "left"):
        true = "left" if picture == left_at else "right"
        other = "right" if true == "left" else "left"
        yield Fact("yes", (item,), arrow=(picture, true, true))
        yield Fact("no", (item,), arrow=(picture, other, true))


# What is true of two objects ------------------------------------------------------------------------------------------


def _below(angles: list[float], border: float) -> str | None:
    """Whether all the angles are below the border ("yes") or all above ("no"); None where that is not clear."""
    if all(abs(angle - border) > MARGIN for angle in angles) and len({angle < border for angle in angles}) == 1:
        return "yes" if angles[0] < border else "no"
    return None


def placed_twins(record: PosedImage) -> Iterator[Pair]:
    """``twins`` whose distances are known."""
    return (pair for pair in twins(record) if min(item.distance for item in pair[0]) > 0)


def same_direction_facts(record: PosedImage, categories: Sequence[str]) -> Iterator[Fact]:
    """Whether two objects face the same direction ("yes" or "no")."""
    for objects, places in pairs(record):
        label = _below(angles_between(*objects, record), SAME_DIRECTION)
        if label is not None:
            yield Fact(label, objects, places)


def face_to_face_facts(record: PosedImage, categories: Sequence[str]) -> Iterator[Fact]:
    """Whether two objects of one category face each other ("yes" or "no")."""
    for objects, places in placed_twins(record):
        label = _below(angles_off(*objects, record), FACE_TO_FACE)
        if label is not None:
            yield Fact(label, objects, places)


def angle_between_facts(record: PosedImage, categories: Sequence[str]) -> Iterator[Fact]:
    """The angle between the directions two objects face, in degrees; the label is the band of 45° it lies in."""
    for objects, places in pairs(record):
        angles = [math.degrees(angle) for angle in angles_between(*objects, record)]
        if max(angles) - min(angles) <= TOLERANCE_DEGREES / 2:
            band = min(int(angles[0] // 45), 3)
            said = f"about {stepped(angles[0])} degrees"
            yield Fact(f"{band * 45} to {band * 45 + 45}", objects, places, said, degrees=angles[0])


def nearer_facts(record: PosedImage, categories: Sequence[str]) -> Iterator[Fact]:
    """Which of two objects of one category is nearer, by its place ("left" or "right")."""
    for objects, places in placed_twins(record):
        (nearer, place), (farther, _) = sorted(zip(objects, places, strict=True), key=lambda pair: pair[0].distance)
        if farther.distance > NEARER_RATIO * nearer.distance:
            yield Fact(place, (nearer,), (place,))


# What is there --------------------------------------------------------------------------------------------------------


def presence_facts(record: PosedImage, categories: Sequence[str]) -> Iterator[Fact]:
    """What is in the picture and what is not ("yes" or "no").

    What is absent is of another meta-class than everything in the record: an annotator may have left out a second
    vehicle, or called a minibus a bus, but would hardly have missed the only vehicle beside a sofa. What a crop shows
    at its edges is not in its record: in training that makes a "no" wrong now and then, a held-out set leaves it out.
    """
    for item in alone(record):
        yield Fact("yes", (item,), things=taxonomy.with_article(item.category))
    there = {taxonomy.meta_class(item.category) for item in record.objects}
    for name in categories:
        if taxonomy.meta_class(name) not in there:
            yield Fact("no", things=taxonomy.with_article(name))


def names_facts(record: PosedImage, categories: Sequence[str]) -> Iterator[Fact]:
    """What is in the picture, as a list, where each thing has its own name."""
    if len(alone(record)) == len(record.objects) <= 6:
        said = join_words([taxonomy.with_article(item.category) for item in record.objects])
        yield Fact("named", said=said)
