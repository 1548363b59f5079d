"""From a record to questions and answers with ``<pose>``.

Text about a pose is computed from the pose when it is needed, after any flip, so words and numbers can't disagree.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from . import taxonomy
from .configuration import POSE_TOKEN
from .processing import assistant_message, user_message
from .scene import PosedImage, PosedObject
from .words import facing, seen_from, turn_words

NAMING_QUESTION = "What is this object, and how is it posed?"
"""The question evaluation asks: its answer is a category's spoken name and ``<pose>``, nothing before them."""

CAPTION_QUESTIONS = (
    "Describe the picture.",
    "What do you see, and how is it posed?",
    "Which objects are in the picture?",
)
DIRECTION_QUESTIONS = (
    "Which way is the {name} facing?",
    "Which way does the {name} face?",
    "In which direction does the {name} point?",
)
SIDE_QUESTIONS = (
    "Which side of the {name} do we see?",
    "From which side is the {name} seen?",
    "Where does the camera stand, seen from the {name}?",
)
TURN_QUESTIONS = (
    "How far must the {name} turn to face me?",
    "How far does the {name} have to turn to face the camera?",
    "How much must the {name} rotate to look at me?",
)


@dataclass(frozen=True)
class Conversation:
    """Messages in transformers' form, and ``poses`` (P, 3) in radians, the true pose of each ``<pose>`` in them."""

    messages: list[dict[str, Any]]
    poses: np.ndarray


Turn = tuple[str, str, list[PosedObject]]
"""A question, its answer, and the object of each ``<pose>`` in the answer."""


def naming_answer(category: str) -> str:
    """The answer to ``NAMING_QUESTION``, whose beginning evaluation scores for every candidate name."""
    return f"{taxonomy.spoken_name(category)} {POSE_TOKEN}."


def naming_messages() -> list[dict[str, Any]]:
    """The conversation evaluation opens with, up to where the model answers."""
    return [user_message(NAMING_QUESTION, images=1)]


def training_conversation(
    record: PosedImage, rng: np.random.Generator, with_question: bool | None = None
) -> Conversation:
    """A random conversation of one or two turns about a record, every answer holding ``<pose>``.

    ``with_question``: whether it has two (drawn when left out). One object is named, several are told in a caption (the
    record's; where a flip emptied it or there is none, a plain one); a question about facing, side or turn of an object
    that is alone in its category goes before or after. Raises ValueError when the record has no object.
    """
    if not record.objects:
        raise ValueError(f"{record.image_id}: no object to talk about")
    only = record.objects[0] if len(record.objects) == 1 else None
    if only is not None and (not record.caption_objects or rng.random() < 0.8):
        turns = [(NAMING_QUESTION, naming_answer(only.category), [only])]
    else:
        turns = [_caption_turn(record, rng)]
    categories = [item.category for item in record.objects]
    alone = [item for item in record.objects if categories.count(item.category) == 1]
    if alone and (rng.random() < 0.6 if with_question is None else with_question):
        question = _question_turn(alone[rng.integers(len(alone))], rng)
        turns.insert(0 if rng.random() < 0.25 else 1, question)
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


def _plain_caption(objects: Sequence[PosedObject]) -> str:
    mentions = [f"{taxonomy.with_article(item.category)} {POSE_TOKEN}" for item in objects]
    text = " and ".join([", ".join(mentions[:-1]), mentions[-1]] if len(mentions) > 1 else mentions)
    return f"{text[0].upper()}{text[1:]}."


def _question_turn(item: PosedObject, rng: np.random.Generator) -> Turn:
    question, answer = _QUESTIONS[rng.integers(len(_QUESTIONS))]
    name = taxonomy.spoken_name(item.category)
    return _choice(question, rng).format(name=name), answer(name, item.pose), [item]


def _direction_answer(name: str, pose: Any) -> str:
    return f"The {name} {POSE_TOKEN} faces {facing(pose)}."


def _side_answer(name: str, pose: Any) -> str:
    return f"The {name} {POSE_TOKEN} is {seen_from(pose)}."


def _turn_answer(name: str, pose: Any) -> str:
    return f"The {name} {POSE_TOKEN} {turn_words(pose)}."


_QUESTIONS = (
    (DIRECTION_QUESTIONS, _direction_answer),
    (SIDE_QUESTIONS, _side_answer),
    (TURN_QUESTIONS, _turn_answer),
)


def example_texts() -> Iterator[str]:
    """Every phrasing with every category, over poses all around: what a small tokenizer is trained on."""
    heights = (-1.2, -0.6, -0.2, 0.0, 0.2, 0.6, 1.2)
    poses = [(azimuth, elevation, 0.0) for azimuth in np.arange(0.0, 6.3, 0.25) for elevation in heights]
    for index, category in enumerate(taxonomy.categories()):
        name = taxonomy.spoken_name(category)
        yield f"USER: \n{NAMING_QUESTION} ASSISTANT: {naming_answer(category)}"
        yield f"USER: \n{CAPTION_QUESTIONS[index % 3]} ASSISTANT: A photo of {taxonomy.with_article(category)}."
        for offset, (questions, answer) in enumerate(_QUESTIONS):
            for number, question in enumerate(questions):
                pose = poses[(index * 11 + offset * 31 + number * 13) % len(poses)]
                yield f"USER: {question.format(name=name)} ASSISTANT: {answer(name, pose)}"


def _choice(options: Sequence[str], rng: np.random.Generator) -> str:
    return options[int(rng.integers(len(options)))]
