"""Scores of answers to the questions that ``data_prep/questions.py`` writes: pure functions of lines and texts.

An answer in free words is read for the words that decide it. It is right when it says what the true answer says and
nothing else: an answer that names two of the possible ones is wrong. A number of degrees is right within the question's
tolerance, on the right side where the question has sides. Flip consistency asks whether the answers about an image and
about its mirror image are each other's mirror image, right or wrong.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from statistics import fmean, median
from typing import Any

from .errors import UserError
from .evaluation import read_lines
from .questions import KIND
from .scene import POSE_MARK
from .words import TURN_STEP_DEGREES

Line = dict[str, Any]
Told = frozenset[str] | float
"""What an answer says: the words that decide it, or degrees (positive to the object's own left)."""

# In this order: where one is the end of another, the longer one is looked for first.
_DECISIVE = {
    "counterclockwise": r"(?:counter|anti)[- ]?clockwise",
    "clockwise": "clockwise",
    "upside down": "upside[- ]down",
    "upright": "upright",
    "straight above": "(?:straight|directly) above",
    "slightly above": "slightly above",
    "above": "above",
    "straight below": "(?:straight|directly) below",
    "slightly below": "slightly below",
    "below": "below",
    "own height": "(?:own|same|eye)[- ](?:height|level)",
    "towards": "towards?",
    "away": "away",
    "front": "front",
    "back": "back|rear",
    "left": "left",
    "right": "right",
    "top": "top",
    "bottom": "bottom|underside",
    "yes": "yes",
    "no": "no",
}
_MIRRORED = {"left": "right", "right": "left", "clockwise": "counterclockwise", "counterclockwise": "clockwise"}
_DEGREES = re.compile(r"(\d+(?:\.\d+)?)[ -]?(?:°|deg)")
_NO_TURN = re.compile(r"\balready\b|\bnot (?:need|have) to turn\b|\bno turn\b")


def normalised(text: str) -> str:
    """The text in lower case, without marks, with plain dashes, quotes and single spaces."""
    text = unicodedata.normalize("NFKC", text.replace(POSE_MARK, " ")).casefold()
    text = re.sub("[\u2010-\u2015\u2212]", "-", text).replace("\u2019", "'")
    return " ".join(text.split())


def told(line: Line, text: str) -> Told | None:
    """What an answer to a question says; None where it says nothing, or says it unclearly."""
    text = normalised(text)
    if "degrees" in line:
        return _degrees_told(text, line["sided"])
    words, pattern = _decisive(tuple(line["choices"]), line["kind"] == "names")
    return frozenset(words[int(match.lastgroup[1:])] for match in pattern.finditer(text) if match.lastgroup) or None


@lru_cache(maxsize=64)
def _decisive(choices: tuple[str, ...], names: bool) -> tuple[list[str], re.Pattern[str]]:
    """The words that decide between the choices (the choices themselves where they are names), and a pattern that finds
    them, the n-th as its group ``wn``."""
    if names:
        wanted = {name: re.escape(normalised(name)) for name in sorted(choices, key=len, reverse=True)}
    else:
        texts = [normalised(choice) for choice in choices]
        wanted = {
            word: pattern
            for word, pattern in _DECISIVE.items()
            if any(re.search(rf"\b(?:{pattern})\b", text) for text in texts)
        }
    groups = "|".join(rf"\b(?P<w{number}>{pattern})\b" for number, pattern in enumerate(wanted.values()))
    return list(wanted), re.compile(groups)


def _degrees_told(text: str, sided: bool) -> float | None:
    numbers = {float(number) for number in _DEGREES.findall(text)}
    if not numbers and _NO_TURN.search(text):
        return 0.0
    if len(numbers) != 1:
        return None
    degrees = math.remainder(numbers.pop(), 360.0)
    if not sided or degrees in (0.0, 180.0, -180.0):
        return abs(degrees)
    sides = set(re.findall(r"\b(?:left|right)\b", text))
    if len(sides) != 1:
        return None
    return degrees if sides == {"left"} else -degrees


def truth(line: Line) -> Told:
    """What the true answer says."""
    if "degrees" in line:
        return float(line["degrees"])
    said = told(line, line["answer"])
    assert said is not None  # as read_questions has made sure
    return said


def apart(line: Line, one: float, other: float) -> float:
    """How far two numbers of degrees are from each other, around the circle where the question has sides."""
    return abs(math.remainder(one - other, 360.0)) if line["sided"] else abs(one - other)


def agrees(line: Line, one: Told | None, other: Told | None) -> bool:
    """Whether two answers say the same; nothing agrees with an answer that says nothing."""
    if isinstance(one, float) and isinstance(other, float):
        return apart(line, one, other) <= line["tolerance"]
    return one is not None and one == other


def mirror(line: Line, said: Told | None) -> Told | None:
    """What an answer says, seen in a mirror."""
    if said is None or not line["sided"]:
        return said
    return -said if isinstance(said, float) else frozenset(_MIRRORED.get(word, word) for word in said)


# Scores over many answers ---------------------------------------------------------------------------------------------


def score(lines: Sequence[Line], answers: Mapping[str, Line]) -> dict[str, Any]:
    """The table ``overall`` and one for each of the ``kinds``, from answers by ``question_id``.

    An answer has ``answer`` and, where the mirrored image was asked about too, ``mirrored_answer``; a question without
    one counts as wrong. Figures are percentages but for ``count``, ``unclear`` (answers that say nothing) and
    ``median_error_deg``. ``flip_consistency``: of the questions with both answers. ``marks``: answers with as many
    ``<pose>`` as the true one. ``chance_majority`` and ``chance_uniform``: for always giving the best single answer,
    and for any at random. ``overall`` is over all questions, its ``kind_average`` the mean accuracy of the kinds.
    """
    judged = [_judged(line, answers.get(line["question_id"], {})) for line in lines]
    by_kind: dict[str, list[int]] = {}
    for number, line in enumerate(lines):
        by_kind.setdefault(line["kind"], []).append(number)
    kinds = {
        kind: {**_table([judged[n] for n in by_kind[kind]]), **_chance([lines[n] for n in by_kind[kind]])}
        for kind in (*(name for name in KIND if name in by_kind), *(name for name in by_kind if name not in KIND))
    }
    overall = _table(judged)
    overall.pop("median_error_deg")
    overall["kind_average"] = fmean(table["accuracy"] for table in kinds.values())
    for name in ("chance_majority", "chance_uniform"):
        overall[name] = sum(table[name] * table["count"] for table in kinds.values()) / len(lines)
    return {"overall": overall, "kinds": kinds}


def _judged(line: Line, answer: Line) -> Line:
    text = answer.get("answer", "")
    said, true = told(line, text), truth(line)
    judged = {
        "correct": agrees(line, said, true),
        "unclear": said is None,
        "marks": text.count(POSE_MARK) == line["answer"].count(POSE_MARK),
        "error": apart(line, said, true) if isinstance(said, float) and isinstance(true, float) else None,
        "consistent": None,
    }
    if "mirrored_answer" in answer:
        mirrored = told(line, answer["mirrored_answer"])
        judged["consistent"] = agrees(line, mirror(line, said), mirrored)
    return judged


def _table(judged: Sequence[Line]) -> dict[str, Any]:
    def percent(values: Iterable[bool]) -> float | None:
        kept = list(values)
        return 100 * fmean(kept) if kept else None

    errors = [one["error"] for one in judged if one["error"] is not None]
    return {
        "count": len(judged),
        "accuracy": percent(one["correct"] for one in judged),
        "unclear": sum(one["unclear"] for one in judged),
        "flip_consistency": percent(one["consistent"] for one in judged if one["consistent"] is not None),
        "marks": percent(one["marks"] for one in judged),
        "median_error_deg": median(errors) if errors else None,
    }


def _chance(lines: Sequence[Line]) -> dict[str, float]:
    """The chance levels of one kind's questions, in percent."""
    first = lines[0]
    if "degrees" in first:
        lowest = -180 + TURN_STEP_DEGREES if first["sided"] else 0
        guesses = [float(degrees) for degrees in range(lowest, 181, TURN_STEP_DEGREES)]
        hits = [fmean(agrees(line, guess, truth(line)) for line in lines) for guess in guesses]
        return {"chance_majority": 100 * max(hits), "chance_uniform": 100 * fmean(hits)}
    most = max(Counter(truth(line) for line in lines).values())
    return {"chance_majority": 100 * most / len(lines), "chance_uniform": 100 / len(first["choices"])}


# Files ----------------------------------------------------------------------------------------------------------------

_TEXTS = ("question_id", "image_id", "split", "kind", "question", "answer", "mirrored_question", "mirrored_answer")


def read_questions(path: str | Path) -> list[Line]:
    """The lines of a set of questions.

    Raises:
        UserError: the file cannot be read or holds no question, or a line lacks a field, has one of another type, says
            nothing in its own answer or repeats an id; the message names file, line, field and value.
    """
    lines = _read(path)
    seen: dict[str, int] = {}
    for number, line in enumerate(lines, start=1):
        for name in _TEXTS:
            _check(path, number, line, name, isinstance(line.get(name), str))
        _check(path, number, line, "row", type(line.get("row")) is int and line["row"] >= 0)
        _check(path, number, line, "sided", type(line.get("sided")) is bool)
        for name in ("degrees", "tolerance") if "degrees" in line else ():
            value = line.get(name)
            _check(path, number, line, name, isinstance(value, int | float) and math.isfinite(value))
        if "degrees" not in line:
            choices = line.get("choices")
            are_texts = isinstance(choices, list) and bool(choices) and all(isinstance(one, str) for one in choices)
            _check(path, number, line, "choices", are_texts)
            _check(path, number, line, "answer", told(line, line["answer"]) is not None)
        _check_new(path, number, line, seen)
    return lines


def read_answers(path: str | Path) -> dict[str, Line]:
    """The lines of a file of answers by ``question_id``; each has ``answer``, and may have ``mirrored_answer``.

    Raises:
        UserError: the file cannot be read, or a line lacks a field or repeats an id; the message names file, line,
            field and value.
    """
    answers = _read(path)
    seen: dict[str, int] = {}
    for number, line in enumerate(answers, start=1):
        for name in ("question_id", "answer"):
            _check(path, number, line, name, isinstance(line.get(name), str))
        _check(path, number, line, "mirrored_answer", isinstance(line.get("mirrored_answer", ""), str))
        _check_new(path, number, line, seen)
    return {line["question_id"]: line for line in answers}


def _read(path: str | Path) -> list[Line]:
    try:
        lines = read_lines(path)
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read: {error}") from error
    for number, line in enumerate(lines, start=1):
        if not isinstance(line, dict):
            raise UserError(f"{path}:{number}: expected an object, found {line!r:.60}")
    if not lines:
        raise UserError(f"{path}: holds no lines")
    return lines


def _check(path: str | Path, number: int, line: Line, name: str, holds: bool) -> None:
    if not holds:
        found = f"found {line[name]!r:.80}" if name in line else "the field is missing"
        raise UserError(f"{path}:{number}: {name}: not as in a file of data_prep/questions.py: {found}")


def _check_new(path: str | Path, number: int, line: Line, seen: dict[str, int]) -> None:
    name = line["question_id"]
    if name in seen:
        raise UserError(f"{path}:{number}: question_id: {name!r} repeats line {seen[name]}")
    seen[name] = number
