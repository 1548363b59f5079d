"""Kinds of 3D questions: which facts they ask for, and how question and answer are worded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from . import facts, taxonomy
from .facts import Fact, Facts, of_one
from .scene import PosedImage
from .words import FACINGS, HEIGHTS, ROLLS, SHOWN_SIDES, SIDES


@dataclass(frozen=True)
class Kind:
    """A kind of question.

    facts: what of it can be asked about a record. questions, answers: templates; ``answers`` holds one for all labels,
    or one for each of ``choices``. choices: the labels of closed answers, none where a number or names are asked for.
    share: how often it is asked in training, relative to the others. sided: the answer speaks of left and right, so
    that a mirror image has another.
    """

    name: str
    facts: Facts
    questions: tuple[str, ...]
    answers: tuple[str, ...]
    choices: tuple[str, ...] = ()
    sided: bool = False
    share: float = 1.0

    def words(self, fact: Fact, phrasing: int) -> tuple[str, str]:
        """The question in one of its phrasings, and the answer with a ``<pose>`` for each of the fact's objects."""
        sorts = [taxonomy.spoken_name(item.category) for item in fact.objects]
        names = [f"{place} {sort}" for place, sort in zip(fact.places, sorts, strict=True)] if fact.places else sorts
        slots = dict(zip(("name", "other"), names, strict=False))
        slots.update(zip(("picture", "own", "true"), fact.arrow, strict=False))
        slots.update(label=fact.label, said=fact.said, things=fact.things, sort="".join(sorts[:1]))
        answer = self.answers[self.choices.index(fact.label) if len(self.answers) > 1 else 0].format(**slots)
        return self.questions[phrasing].format(**slots), f"{answer[0].upper()}{answer[1:]}"


YES_NO = ("yes", "no")
KINDS = (
    Kind(
        "facing",
        of_one(facts.facing_facts),
        (
            "Which way is the {name} facing?",
            "Which way does the {name} face?",
            "In which direction does the {name} point?",
        ),
        ("The {name} <pose> faces {label}.",),
        FACINGS,
        sided=True,
        share=4.0,
    ),
    Kind(
        "side",
        of_one(facts.side_facts),
        (
            "Which side of the {name} do we see?",
            "From which side is the {name} seen?",
            "Where does the camera stand, seen from the {name}?",
        ),
        ("The {name} <pose> is {said}.",),
        SIDES,
        sided=True,
        share=4.0,
    ),
    Kind(
        "turn",
        of_one(facts.turn_facts),
        (
            "How far must the {name} turn to face me?",
            "How far does the {name} have to turn to face the camera?",
            "How much must the {name} rotate to look at me?",
        ),
        ("The {name} <pose> {said}.",),
        sided=True,
        share=4.0,
    ),
    Kind(
        "sides_shown",
        of_one(facts.shown_facts),
        (
            "Which of its own sides does the {name} show?",
            "Which sides of the {name} are turned to the camera?",
            "Name every side of the {name} that we can see.",
        ),
        ("The {name} <pose> shows {label}.",),
        SHOWN_SIDES,
        sided=True,
    ),
    Kind(
        "height",
        of_one(facts.height_facts),
        (
            "From what height is the {name} seen?",
            "How high does the camera stand beside the {name}?",
            "Do we look at the {name} from above, from below or at its own height?",
        ),
        ("The {name} <pose> is seen {label}.",),
        HEIGHTS,
    ),
    Kind(
        "roll",
        of_one(facts.roll_facts),
        (
            "Is the {name} upright, tilted or upside down in the picture?",
            "How is the {name} turned in the plane of the picture?",
            "Which way is the {name} tilted in the picture, if it is?",
        ),
        ("In the picture, the {name} <pose> is {label}.",),
        ROLLS,
        sided=True,
    ),
    Kind(
        "front_in_picture",
        of_one(facts.front_in_picture_facts),
        (
            "In the picture, does the front of the {name} point to the left or to the right?",
            "In the picture, is the front of the {name} on the left or the right?",
            "To which side of the picture does the {name} turn its front?",
        ),
        ("In the picture, the front of the {name} <pose> points {label}.",),
        ("to the left", "to the right"),
        sided=True,
    ),
    Kind(
        "camera_side",
        of_one(facts.camera_side_facts),
        (
            "Is the camera on the own left or the own right side of the {name}?",
            "On which of its own sides, left or right, does the {name} have the camera?",
            "Seen from the {name} itself, is the camera to its own left or its own right?",
        ),
        ("The {name} <pose> has the camera {label}.",),
        ("on its own left side", "on its own right side"),
        sided=True,
    ),
    Kind(
        "arrow",
        of_one(facts.arrow_facts),
        (
            "An arrow points to the picture's {picture}: is that the own {own} of the {name}?",
            "Is the picture's {picture} the own {own} of the {name}?",
            "Does the own {own} side of the {name} lie to the picture's {picture}?",
        ),
        (
            "Yes, the picture's {picture} is the own {true} of the {name} <pose>.",
            "No, the picture's {picture} is the own {true} of the {name} <pose>.",
        ),
        YES_NO,
    ),
    Kind(
        "same_direction",
        facts.same_direction_facts,
        (
            "Do the {name} and the {other} face the same direction?",
            "Are the {name} and the {other} facing the same way?",
            "Do the {name} and the {other} point in one direction?",
        ),
        (
            "Yes, the {name} <pose> and the {other} <pose> face the same direction.",
            "No, the {name} <pose> and the {other} <pose> face different directions.",
        ),
        YES_NO,
    ),
    Kind(
        "face_to_face",
        facts.face_to_face_facts,
        (
            "Do the {name} and the {other} face each other?",
            "Are the {name} and the {other} turned towards each other?",
            "Do the {name} and the {other} stand face to face?",
        ),
        (
            "Yes, the {name} <pose> and the {other} <pose> face each other.",
            "No, the {name} <pose> and the {other} <pose> do not face each other.",
        ),
        YES_NO,
    ),
    Kind(
        "angle_between",
        facts.angle_between_facts,
        (
            "What is the angle between the directions that the {name} and the {other} face?",
            "By how many degrees do the directions of the {name} and the {other} differ?",
            "How many degrees apart do the {name} and the {other} face?",
        ),
        ("The {name} <pose> and the {other} <pose> face {said} apart.",),
    ),
    Kind(
        "nearer",
        facts.nearer_facts,
        (
            "Which {sort} is nearer to the camera, the left one or the right one?",
            "Is the left {sort} nearer to us, or the right one?",
            "Which of the two stands closer, the left {sort} or the right {sort}?",
        ),
        ("The {name} <pose> is nearer to the camera.",),
        ("left", "right"),
        sided=True,
    ),
    Kind(
        "presence",
        facts.presence_facts,
        ("Is there {things} in the picture?", "Do you see {things}?", "Does the picture show {things}?"),
        ("Yes, there is {things} <pose>.", "No, there is not {things}."),
        YES_NO,
        share=2.0,
    ),
    Kind(
        "names",
        facts.names_facts,
        (
            "Name what is in the picture, without any pose.",
            "What does the picture show? Leave the poses out.",
            "Say in words alone what you see.",
        ),
        ("{said}.",),
    ),
)

KIND = {kind.name: kind for kind in KINDS}
"""The kinds by name."""
Case = tuple[str, str, str]
"""A kind's name, a label, and the thing a question about presence asks for."""


def offered_facts(record: PosedImage, categories: Sequence[str]) -> dict[Case, list[Fact]]:
    """All that can be asked about a record; of ``categories`` those may be asked for that are absent."""
    found: dict[Case, list[Fact]] = {}
    for kind in KINDS:
        for fact in kind.facts(record, categories):
            found.setdefault((kind.name, fact.label, fact.things), []).append(fact)
    return found
