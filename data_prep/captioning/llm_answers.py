"""What a language model is asked for a caption, and whether its answer will do.

Objects are named CAR1, BICYCLE2, as in the ImageNet3D paper, and their boxes told in fractions of the picture. In an
answer that will do, words and marks take the place of the names.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from data_prep.captioning.caption_align import LIKE_A_MARK, MARK
from data_prep.captioning.caption_names import Name, spelled_out
from data_prep.captioning.caption_templates import caption_objects
from data_prep.captioning.caption_words import object_names
from llava_pose.scene import POSE_MARK, PosedObject
from llava_pose.sides import mirrored_text

TRIES = 3
"""Answers that are asked for, each after the first with what was wrong with the one before."""

CUT_OFF = "…"
"""The end of an answer that the endpoint cut off."""

PROMPT = """\
You write one caption for a picture. You see the picture, and are told names for objects in it, each with its box: left,
top, right and bottom edge as fractions of the picture's width and height.

- Mention every named object exactly once by its name, and write the name exactly as it is given, in place of a noun and
  its article: "CAR1 is parked next to BICYCLE2 by a brick wall."
- Say what the objects look like and do, and how they lie to each other.
- Use no names of this kind but those given. Write no digits outside the names, and nothing about boxes, coordinates,
  fractions, angles or degrees.
- Write "left" and "right" only for sides, as in "to the left of" or "on the right".
- Write plain sentences, {words} words at most: no list, no markup, no quotation marks around the whole.
"""

_LEAKED = re.compile(
    r"°|%|\b(degrees?|azimuth|theta|bounding|bbox|coordinates?|pixels?|normali[sz]ed|fractions?)\b", re.IGNORECASE
)
_NAME_LIKE = re.compile(r"\b[A-Z][A-Z_-]*_?\d+\b")
_MARKUP = re.compile(r"[*#`|<>\[\]{}\\]|https?:|(?:^|\s)[-•] ")


class Complaint(Exception):
    """An answer will not do. The message tells the model what is wrong."""


@dataclass(frozen=True)
class Question:
    """What is asked about one row. ``key`` names its content: image, objects and all words sent to which model."""

    key: str
    image_id: str
    objects: tuple[PosedObject, ...]
    prompt: str
    told: str


def question(image_id: str, width: int, height: int, objects: Sequence[PosedObject], model: str) -> Question:
    """The question about a row's objects (those a caption speaks of), without its image."""
    shown = caption_objects(objects)
    prompt = PROMPT.format(words=_max_words(shown))
    boxes = [
        f"{name}: {', '.join(f'{value:.3f}' for value in _fractions(item, width, height))}"
        for name, item in zip(object_names(shown), shown, strict=True)
    ]
    told = "\n".join(["Named objects:", *boxes])
    ids = [item.object_id for item in shown]
    content = json.dumps([model, image_id, ids, prompt, told], ensure_ascii=False)
    return Question(hashlib.sha256(content.encode()).hexdigest(), image_id, tuple(shown), prompt, told)


def _fractions(item: PosedObject, width: int, height: int) -> list[float]:
    x1, y1, x2, y2 = item.bbox
    return [min(max(value, 0.0), 1.0) for value in (x1 / width, y1 / height, x2 / width, y2 / height)]


def _max_words(objects: Sequence[PosedObject]) -> int:
    return 40 + 10 * len(objects)


def messages(asked: Question, image_url: str, answers: Sequence[str]) -> list[dict[str, Any]]:
    """The conversation up to the next answer: the question, then each answer so far with what was wrong with it."""
    parts = [{"type": "text", "text": asked.told}, {"type": "image_url", "image_url": {"url": image_url}}]
    talk: list[dict[str, Any]] = [{"role": "system", "content": asked.prompt}, {"role": "user", "content": parts}]
    for answer in answers:
        wrong = complaint(asked, answer)
        talk.append({"role": "assistant", "content": answer or "(nothing)"})
        talk.append({"role": "user", "content": f"{wrong} Write the whole caption again."})
    return talk


def complaint(asked: Question, answer: str) -> str | None:
    """What is wrong with an answer; None where it will do."""
    try:
        read_caption(asked, answer)
    except Complaint as error:
        return str(error)
    return None


def read_caption(asked: Question, answer: str) -> tuple[str, tuple[int, ...]]:
    """The caption in an answer, words and marks in place of the names, and the ``object_id`` of each mark.

    Raises:
        Complaint: the answer breaks one of the prompt's rules.
    """
    names = object_names(asked.objects)
    text = _plain(answer, names)
    _check_names(text, names)
    _check_words(re.sub(_any_of(names), "", text, flags=re.IGNORECASE), _max_words(asked.objects))
    by_name = dict(zip(names, asked.objects, strict=True))
    text = re.sub(_any_of(names), rf"\g<0> {POSE_MARK}", text, flags=re.IGNORECASE)
    found = [
        Name(match.start(), match.end(), by_name[match[0].upper()])
        for match in re.finditer(_any_of(names), text, re.IGNORECASE)
    ]
    caption = spelled_out(text, found)
    if not caption.endswith((".", "!")):
        caption += "."
    if mirrored_text(caption) is None:
        raise Complaint('Write "left" and "right" only for sides, as in "to the left of" or "on the right".')
    return caption, tuple(name.item.object_id for name in found)


def _any_of(names: Sequence[str]) -> str:
    return rf"(?<![\w-])(?:{'|'.join(map(re.escape, names))})(?![\w-])"


def _plain(answer: str, names: Sequence[str]) -> str:
    """The answer on one line, without quotation marks around it and without marks after names: we set those."""
    text = " ".join(answer.split())
    quoted = re.fullmatch(r'(?:Caption: ?)?["“](.*)["”]|Caption: ?(.*)', text)
    text = (quoted[1] or quoted[2] or "") if quoted else text
    text = re.sub(rf"({_any_of(names)})(?:,? with)? ?(?:{MARK.pattern})", r"\1", text, flags=re.IGNORECASE)
    if MARK.search(text) or LIKE_A_MARK.search(text):
        raise Complaint("Write no marks such as <pose>.")
    return text.strip()


def _check_names(text: str, names: Sequence[str]) -> None:
    if not text:
        raise Complaint("The answer is empty.")
    found = [match.upper() for match in re.findall(_any_of(names), text, flags=re.IGNORECASE)]
    if text.endswith((CUT_OFF, "...")):
        raise Complaint("The answer is cut off: write less.")
    missing = [name for name in names if name not in found]
    if missing:
        raise Complaint(f"Mention {', '.join(missing)}, by name.")
    twice = [name for name in names if found.count(name) > 1]
    if twice:
        raise Complaint(f"Mention {', '.join(twice)} once only.")
    strange = [word for word in _NAME_LIKE.findall(text) if word.upper() not in names]
    if strange:
        raise Complaint(f"{', '.join(strange)}: no object has this name.")
    bare = {re.sub(r"\d+$", "", name) for name in names}
    bare = {word for word in re.findall(r"\b[A-Z][A-Z_]+\b", text) if word in bare}
    if bare:
        raise Complaint(f"{', '.join(sorted(bare))}: write names with their numbers, and each once only.")
    owner = re.search(rf"{_any_of(names)}['’]s\b", text, flags=re.IGNORECASE)
    if owner:
        raise Complaint(f"{owner[0]}: write no possessive after a name.")


def _check_words(rest: str, most: int) -> None:
    """The rules for the words between the names."""
    if re.search(r"\d", rest):
        raise Complaint("Write no digits outside the names.")
    leaked = _LEAKED.search(rest)
    if leaked:
        raise Complaint(f"{leaked[0]}: write nothing about boxes, coordinates, fractions, angles or degrees.")
    if _MARKUP.search(rest):
        raise Complaint("Write plain sentences: no list and no markup.")
    words = len(re.findall(r"\w+", rest))
    if words > most:
        raise Complaint(f"Write {most} words at most.")
    if words < 2:
        raise Complaint("Write a whole sentence.")
