"""From a record to questions and answers with ``<pose>``.

Text about a pose is computed from the pose when it is needed, after any flip, so words and numbers can't disagree.
What else is asked than a name or a caption, and when it is true, is in ``questions`` and ``facts``.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from . import taxonomy
from .census import Census, draw
from .configuration import POSE_TOKEN
from .facts import Fact
from .processing import assistant_message, user_message
from .questions import KINDS, Kind
from .scene import PosedImage, PosedObject
from .words import join_words

NAMING_QUESTION = "What is this object, and how is it posed?"
"""The question evaluation asks: its answer is a category's spoken name and ``<pose>``, nothing before them."""

CAPTION_QUESTIONS = (
    "Describe the picture.",
    "What do you see, and how is it posed?",
    "Which objects are in the picture?",
)


@dataclass(frozen=True)
class Conversation:
    """Messages in transformers' form, and ``poses`` (P, 3) in radians, the true pose of each ``<pose>`` in them."""

    messages: list[dict[str, Any]]
    poses: np.ndarray


Turn = tuple[str, str, Sequence[PosedObject]]
"""A question, its answer, and the object of each ``<pose>`` in the answer."""


def naming_answer(category: str) -> str:
    """The answer to ``NAMING_QUESTION``, whose beginning evaluation scores for every candidate name."""
    return f"{taxonomy.spoken_name(category)} {POSE_TOKEN}."


def naming_messages() -> list[dict[str, Any]]:
    """The conversation evaluation opens with, up to where the model answers."""
    return [user_message(NAMING_QUESTION, images=1)]


def training_conversation(
    record: PosedImage,
    rng: np.random.Generator,
    with_question: bool | None = None,
    census: Census = Census(),  # noqa: B008  frozen
) -> Conversation:
    """A random conversation of one or two turns about a record, with ``<pose>`` where an object is spoken of.

    ``with_question``: whether it has two (drawn when left out). One object is named, several are told in a caption (the
    record's; where a flip emptied it or there is none, a plain one); a question of one of ``questions.KINDS`` goes
    before or after. ``census``: what the data set holds, which keeps the questions' answers balanced. Raises ValueError
    when the record has no object.
    """
    if not record.objects:
        raise ValueError(f"{record.image_id}: no object to talk about")
    only = record.objects[0] if len(record.objects) == 1 else None
    if only is not None and (not record.caption_objects or rng.random() < 0.8):
        turns: list[Turn] = [(NAMING_QUESTION, naming_answer(only.category), [only])]
    else:
        turns = [_caption_turn(record, rng)]
    if rng.random() < 0.6 if with_question is None else with_question:
        drawn = draw(record, rng, census)
        if drawn is not None:
            turns.insert(0 if rng.random() < 0.25 else 1, _question_turn(*drawn, rng))
    return _conversation(turns)


def _conversation(turns: Sequence[Turn]) -> Conversation:
    messages: list[dict[str, Any]] = []
    for index, (question, answer, _) in enumerate(turns):
        messages += [user_message(question, images=int(index == 0)), assistant_message(answer)]
    poses = [item.pose for _, _, objects in turns for item in objects]
    return Conversation(messages, np.asarray(poses, dtype=np.float64).reshape(-1, 3))


def _caption_turn(record: PosedImage, rng: np.random.Generator) -> Turn:
    question = _choice(CAPTION_QUESTIONS, rng)
    if not record.caption_objects:
        return question, _plain_caption(record.objects), list(record.objects)
    by_id = {item.object_id: item for item in record.objects}
    return question, record.caption, [by_id[index] for index in record.caption_objects]


def _question_turn(kind: Kind, fact: Fact, rng: np.random.Generator) -> Turn:
    question, answer = kind.words(fact, int(rng.integers(len(kind.questions))))
    return question, answer, fact.objects


def _plain_caption(objects: Sequence[PosedObject]) -> str:
    text = join_words([f"{taxonomy.with_article(item.category)} {POSE_TOKEN}" for item in objects])
    return f"{text[0].upper()}{text[1:]}."


def example_texts() -> Iterator[str]:
    """Every category and every phrasing, over poses all around: what a small tokenizer is trained on."""
    for index, category in enumerate(taxonomy.categories()):
        yield f"USER: \n{NAMING_QUESTION} ASSISTANT: {naming_answer(category)}"
        yield f"USER: \n{CAPTION_QUESTIONS[index % 3]} ASSISTANT: A photo of {taxonomy.with_article(category)}."
        for number, record in enumerate(_example_records(category, index)):
            for kind in KINDS:
                found = list(kind.facts(record, taxonomy.categories()))
                for fact in found[index % len(found) :][:1] if found else []:
                    question, answer = kind.words(fact, (index + number) % len(kind.questions))
                    yield f"USER: {question} ASSISTANT: {answer}"


def _example_records(category: str, index: int) -> Iterator[PosedImage]:
    """Three pictures of one such object and one of two, whose poses step through all directions with the index."""

    def posed(object_id: int, step: int, x: float, distance: float, sign: int = 1, theta: float = 0.0) -> PosedObject:
        angles = (sign * math.radians(15 * step), math.radians((0, 12, 35, -12, 75, -35, -75)[step % 7]), theta)
        box = (x - 40.0, 0.0, x + 40.0, 90.0)
        return PosedObject(object_id, category, box, *angles, distance, x, 50.0, 2000.0, -1, "status_good", "")

    for number, roll in enumerate((0.0, 0.7 * (-1) ** index, math.pi * (index % 2))):
        yield PosedImage(None, category, 100, 100, (posed(0, 5 * index + 11 * number, 50.0, 4.0, theta=roll),), "", ())
    # Mirrored azimuths: now and then they face each other, or the same way.
    two = (posed(0, 5 * index, 50.0, 4.0), posed(1, 5 * index, 150.0, 4.0 + 4.0 * (index % 2), sign=-1))
    yield PosedImage(None, category, 200, 100, two, "", ())


def _choice(options: Sequence[str], rng: np.random.Generator) -> str:
    return options[int(rng.integers(len(options)))]
