"""Captions by templates: many phrasings, each object mentioned once with its mark, spatial relations from the boxes.

Every caption stays true when the picture is flipped: its relations hold either way, but for left and right, which
``PosedImage.mirrored`` lets change places.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from data_prep.captioning.caption_relations import Relation, from_left_to_right, from_top_to_bottom, relations
from data_prep.captioning.caption_words import NUMBERS, mentions, noun
from llava_pose.scene import POSE_MARK, PosedObject
from llava_pose.taxonomy import plural

MAX_MENTIONS = 6
"""A caption speaks of this many objects at most, those with the largest boxes."""

_MEDIA = ("photo", "picture", "image", "photograph", "snapshot", "shot")
_LINKS = ("of", "of", "showing", "that shows", "with", "featuring", "depicting")
_SHOWS = ("shows", "depicts", "features", "contains", "captures")
_SEES = ("we see", "we can see", "you see", "you can see", "one can see")
_BE_SEEN = (("is", "are"), ("is shown", "are shown"), ("is seen", "are seen"), ("can be seen", "can be seen"))
_APPEAR = (*_BE_SEEN[1:], ("is visible", "are visible"), ("appears", "appear"))
_BOTH = ("and", "with", "together with", "along with")


class _Voice:
    """The draws behind one caption, which calls its picture by one word throughout."""

    def __init__(self, seed: str) -> None:
        self._rng = random.Random(seed)
        self.choice, self.shuffle = self._rng.choice, self._rng.shuffle
        self.medium = self.choice(_MEDIA)

    def this(self) -> str:
        """this photo; the photo"""
        return f"{self.choice(('this', 'the'))} {self.medium}"


@dataclass(frozen=True)
class _Phrase:
    """A part of a sentence that can be its subject or its object, and the number of its verb."""

    text: str
    plural: bool


_Telling = tuple[str, list[PosedObject]]
"""Sentences, and their objects in order of mention."""


def template_caption(objects: Sequence[PosedObject], seed: str) -> tuple[str, tuple[int, ...]]:
    """A caption of the objects, and the ``object_id`` of each of its ``<pose>`` marks in order; empty without objects.

    ``seed`` picks the phrasing and the order of mention. At most ``MAX_MENTIONS`` objects are spoken of.
    """
    voice = _Voice(seed)
    shown = caption_objects(objects)
    if not shown:
        return "", ()
    voice.shuffle(shown)
    # Where more objects are there than are told of, a number would be wrong.
    ways = _WAYS if len(shown) == len(objects) else [tell for tell in _WAYS if tell is not _counted]
    tellings = [telling for tell in ways if (telling := tell(shown, voice)) is not None]
    text, told = voice.choice(tellings)
    return text, tuple(item.object_id for item in told)


def caption_objects(objects: Sequence[PosedObject]) -> list[PosedObject]:
    """The objects that a caption speaks of: those with the largest boxes, in their order."""
    by_size = sorted(objects, key=lambda item: (-_area(item.bbox), item.object_id))
    largest = {item.object_id for item in by_size[:MAX_MENTIONS]}
    return [item for item in objects if item.object_id in largest]


def _area(bbox: Sequence[float]) -> float:
    return (bbox[2] - bbox[0]) * (bbox[3] - bbox[1])


# Ways to tell of objects, each None where the objects do not allow it -------------------------------------------------


def _listed(objects: list[PosedObject], voice: _Voice) -> _Telling | None:
    """A photo of A, B and C."""
    return _sentence(_framed(_together(mentions(objects), voice), voice)), objects


def _in_order(objects: list[PosedObject], voice: _Voice) -> _Telling | None:
    """From left to right: A, B and C."""
    row, column = from_left_to_right(objects), from_top_to_bottom(objects)
    ways = []
    if row and len(row) > 1:
        ways += [("from left to right", row), ("from right to left", row[::-1])]
    if column and len(column) > 1:
        ways += [("from top to bottom", column), ("from the top down", column)]
    if not ways:
        return None
    order, told = voice.choice(ways)
    things = _series(mentions(told))
    forms = (
        f"{order}: {things}",
        f"{order}, {voice.this()} {voice.choice(_SHOWS)} {things}",
        f"{order}, {voice.choice(_SEES)} {things}",
        f"{order}, there are {things}",
        f"{things}, {order}",
        f"{voice.this()} {voice.choice(_SHOWS)}, {order}, {things}",
        f"in {voice.this()} there are, {order}, {things}",
    )
    return _sentence(voice.choice(forms)), told


def _related(objects: list[PosedObject], voice: _Voice) -> _Telling | None:
    """A is next to B. There are also C and D."""
    if len(objects) < 2 or not relations(objects[0], objects[1]):
        return None
    relation = voice.choice(relations(objects[0], objects[1]))
    form = voice.choice((_modified, _stated, _stated, _opened) if relation.place else (_modified, _stated))
    told = [objects[1], objects[0], *objects[2:]] if form is _opened else objects
    texts = mentions(told)
    text = _sentence(form(texts[0], relation, texts[1], voice))
    return (f"{text} {_rest(texts[2:], voice)}" if texts[2:] else text), told


def _chained(objects: list[PosedObject], voice: _Voice) -> _Telling | None:
    """A is next to B, which is to the left of C."""
    if len(objects) < 3:
        return None
    first, second = relations(objects[0], objects[1]), relations(objects[1], objects[2])
    if not (first and second):
        return None
    texts = mentions(objects)
    relation = voice.choice(first)
    if voice.choice((True, False)):
        start = _framed_last(_Phrase(f"{texts[0]} {relation.words} {texts[1]}", False), voice)
    else:
        start = _stated(texts[0], relation, texts[1], voice)
    text = _sentence(f"{start}, which is {voice.choice(second).words} {texts[2]}")
    return (f"{text} {_rest(texts[3:], voice)}" if texts[3:] else text), objects


def _counted(objects: list[PosedObject], voice: _Voice) -> _Telling | None:
    """Two cars: one car is next to the other car."""
    if len(objects) < 2 or len({item.category for item in objects}) > 1:
        return None
    group = _Phrase(f"{NUMBERS[len(objects)]} {plural(objects[0].category)}", True)
    if len(objects) > 2:
        return _sentence(f"{_framed_last(group, voice)}: {_series(mentions(objects))}"), objects
    one, other = (f"{which} {noun(objects[0].category)} {POSE_MARK}" for which in ("one", "the other"))
    related = relations(*objects)
    if not related:
        return _sentence(f"{_framed_last(group, voice)}: {one} and {other}"), objects
    relation = voice.choice(related)
    if voice.choice((True, False)):
        return _sentence(f"{_framed_last(group, voice)}: {one} {relation.words} {other}"), objects
    return f"{_sentence(_framed(group, voice))} {_sentence(_stated(one, relation, other, voice))}", objects


_WAYS: tuple[Callable[[list[PosedObject], _Voice], _Telling | None], ...] = (
    _listed,
    _in_order,
    _related,
    _related,
    _chained,
    _counted,
)


# Parts of sentences ---------------------------------------------------------------------------------------------------


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."


def _series(texts: Sequence[str]) -> str:
    """A; A and B; A, B and C."""
    return " and ".join([", ".join(texts[:-1]), texts[-1]] if len(texts) > 1 else texts)


def _together(texts: list[str], voice: _Voice) -> _Phrase:
    """Any number of mentions as one phrase. What is joined by "with" is one thing to its verb, by "and" several."""
    if len(texts) == 2:
        word = voice.choice(_BOTH)
        return _Phrase(f"{texts[0]} {word} {texts[1]}", word == "and")
    return _Phrase(_series(texts), len(texts) > 1)


def _framed(phrase: _Phrase, voice: _Voice) -> str:
    """A sentence about the phrase, without its full stop."""
    number = int(phrase.plural)
    forms = (
        f"{phrase.text} {voice.choice(_APPEAR)[number]} {voice.choice(('here', f'in {voice.this()}'))}",
        f"there {('is', 'are')[number]} {phrase.text} in {voice.this()}",
        f"{voice.choice(_SEES)} {phrase.text} {voice.choice(('here', f'in {voice.this()}'))}",
        *[_framed_last(phrase, voice)] * 3,
    )
    return voice.choice(forms)


def _framed_last(phrase: _Phrase, voice: _Voice) -> str:
    """A sentence that ends with the phrase, without its full stop."""
    be = ("is", "are")[int(phrase.plural)]
    a_photo = f"{'an' if voice.medium == 'image' else 'a'} {voice.medium}"
    forms = (
        *[f"{a_photo} {voice.choice(_LINKS)} {phrase.text}"] * 2,
        f"{voice.this()} {voice.choice(_SHOWS)} {phrase.text}",
        f"in {voice.this()} there {be} {phrase.text}",
        f"in {voice.this()}, {voice.choice(_SEES)} {phrase.text}",
        f"{voice.choice(('here', 'shown here', 'pictured here', 'seen here'))} {be} {phrase.text}",
        phrase.text,
    )
    return voice.choice(forms)


def _modified(a: str, relation: Relation, b: str, voice: _Voice) -> str:
    """A photo of A next to B."""
    phrase = _Phrase(f"{a} {relation.words} {b}", False)
    return _framed(phrase, voice) if relation.place else _framed_last(phrase, voice)


def _stated(a: str, relation: Relation, b: str, voice: _Voice) -> str:
    """A is next to B."""
    verb = voice.choice(_BE_SEEN)[0] if relation.place else voice.choice(("is", "appears", "looks"))
    return f"{a} {verb} {relation.words} {b}"


def _opened(b: str, relation: Relation, a: str, voice: _Voice) -> str:
    """Next to B is A."""
    return f"{relation.words} {b} {voice.choice(('is', 'there is', 'we see', 'you can see'))} {a}"


def _rest(texts: list[str], voice: _Voice) -> str:
    """A sentence that adds further objects."""
    things, number = _series(texts), int(len(texts) > 1)
    forms = (
        f"there {('is', 'are')[number]} also {things}",
        f"{voice.choice(_SEES)} {things} as well",
        f"{things} {voice.choice(_APPEAR)[number]} too",
        f"{voice.this()} also {voice.choice(_SHOWS)} {things}",
    )
    return _sentence(voice.choice(forms))
