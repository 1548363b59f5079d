"""From records to prediction lines and from lines to the benchmark's tables."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeVar

import numpy as np
from PIL import Image

from . import taxonomy
from .errors import UserError
from .geometry import pose_error
from .images import crop_box
from .joint import Goal
from .metrics import joint_metrics, pose_only_metrics
from .scene import PosedImage, PosedObject

if TYPE_CHECKING:  # torch, which scoring does not need
    from .engine import Engine
    from .image_inputs import ImageInputs
    from .reading import PoseReading
    from .trie import NameTrie

Item = TypeVar("Item")
Protocol = Literal["joint", "pose"]

COUNT_BANDS = ((0, "0"), (10, "1-10"), (100, "11-100"), (1000, "101-1000"), (math.inf, "above 1000"))
"""The bands of a category's number of training objects, each with the largest number in it."""


class Place(NamedTuple):
    """Where an object is in a split: its row, and which of its objects it is, None for a row that holds none."""

    row: int
    which: int | None


@dataclass(frozen=True)
class Subject:
    """One object to be evaluated, with the picture that shows it, or what is wrong with it in its place.

    ``target`` is None for a row without an object; ``crop``: how the picture was cut, None where that is not known.
    """

    row: int
    image_id: str
    target: PosedObject | None
    crop: str | None
    image: Image.Image | None
    error: str = ""


@dataclass(frozen=True)
class Asking:
    """How a model is asked about objects.

    protocol: "joint", the class is chosen among the names and the pose read at it (and, besides, at the true class), or
    "pose", the pose is read at the true class and nothing is named; distribution: whether every name's probability is
    wanted, or the best name alone, as exact and in less time; flip: whether poses are read in the mirror image as well;
    goal: what a pose is chosen for (see ``joint.Goal``).
    """

    protocol: Protocol = "joint"
    distribution: bool = True
    flip: bool = False
    goal: Goal = "mean"


def places_of(rows: Iterable[Sequence[Mapping[str, Any]]]) -> list[Place]:
    """The places of all objects of a split, given every row's objects, in order: what each process works from."""
    return [Place(row, which) for row, items in enumerate(rows) for which in range(len(items)) or [None]]


def read_subjects(data: Any, places: Iterable[Place], crop: str | None, by_box: bool) -> list[Subject]:
    """The objects at these places of a split, whose images are still bytes, with their pictures.

    ``by_box``: each object is cut out by its own box, as people do it; otherwise a row's picture shows one object, as
    the data was cut. A picture that cannot be had is an error of its subject, and no other's.
    """
    subjects: list[Subject] = []
    row, picture, problem = {}, None, ""
    number = -1
    for place in places:
        if place.row != number:
            # Objects of one row come one after the other: their image is decoded once.
            row, number = data[place.row], place.row
            record, problem = read_record(row)
            picture = None if record is None else record.image
        target = None if place.which is None else _posed(row["objects"][place.which])
        subject = Subject(number, row["image_id"], target, crop, picture, problem)
        subjects.append(_cut(subject, len(row["objects"]), by_box))
    return subjects


def read_record(row: Mapping[str, Any]) -> tuple[PosedImage | None, str]:
    """The record behind a row whose image is still bytes, with its picture; or None and what is wrong with it."""
    try:
        record = PosedImage.from_row(dict(row))
    except UserError as error:
        return None, str(error)
    except Exception as error:  # a damaged file makes Pillow raise almost any
        return None, f"{row['image_id']}: image: cannot be decoded: {error}"
    return (record, "") if record.image is not None else (None, f"{row['image_id']}: image: there is none in the row")


def _posed(item: Mapping[str, Any]) -> PosedObject:
    return PosedObject(**{**item, "bbox": tuple(item["bbox"])})


def _cut(subject: Subject, objects: int, by_box: bool) -> Subject:
    problem, picture = subject.error, subject.image
    if not problem and objects != 1 and (not by_box or subject.target is None):
        problem = f"{subject.image_id}: objects: {objects} in a row, expected 1"
    if not problem and by_box and subject.target is not None and picture is not None:
        try:
            picture = crop_box(picture, subject.target.bbox)
        except UserError as error:
            problem = f"{subject.image_id}: object {subject.target.object_id}: {error}"
    return dataclasses.replace(subject, image=None if problem else picture, error=problem)


def predict_subjects(
    engine: Engine,
    trie: NameTrie,
    categories: Sequence[str],
    subjects: Sequence[Subject],
    pixels: ImageInputs | None,
    asking: Asking,
) -> list[dict[str, Any]]:
    """A prediction line for each subject, in order; ``pixels``: those of the subjects that have a picture, with their
    mirror images if they are to be looked at too."""
    shown = [subject for subject in subjects if not subject.error]
    answers: Iterator[dict[str, Any]] = iter(())
    if pixels is not None and shown:
        targets = [subject.target for subject in shown if subject.target is not None]
        given = [categories.index(target.category) for target in targets]
        if asking.protocol == "pose":
            readings = engine.read_names(pixels, trie, given, flip=asking.flip, goal=asking.goal)
            named: list[_Named] = [_Named(target.category) for target in targets]
            at_true: Sequence[PoseReading | None] = readings
        else:
            namings = engine.name(
                pixels, trie, distribution=asking.distribution, given=given, flip=asking.flip, goal=asking.goal
            )
            readings = [naming.reading for naming in namings]
            named = [
                _Named(categories[n.index], float(n.probabilities[n.index]), n.joint_confidence, n.unexplored)
                for n in namings
            ]
            at_true = [naming.given for naming in namings]
        answers = map(_answer, targets, named, readings, at_true)
    return [prediction_line(subject, None if subject.error else next(answers)) for subject in subjects]


class _Named(NamedTuple):
    category: str
    probability: float | None = None
    joint_confidence: float | None = None
    unexplored: float | None = None


def _answer(
    target: PosedObject,
    named: _Named,
    reading: PoseReading,
    at_true: PoseReading | None,
) -> dict[str, Any]:
    said = reading.to_dict()
    return {
        "predicted_category": named.category,
        "class_probability": named.probability,
        "joint_confidence": named.joint_confidence,
        "unexplored": named.unexplored,
        **{name: said[name] for name in ("azimuth", "elevation", "theta", "confidence", "expected_error")},
        "alternative": said["alternative"],
        "pose_error": _error(reading.pose, target),
        "argmax_pose_error": _error(reading.argmax, target),
        "given_class_pose_error": None if at_true is None else _error(at_true.pose, target),
        "correct": named.category == target.category,
    }


def _error(pose: np.ndarray, target: PosedObject) -> float | None:
    error = float(pose_error(pose, target.pose))
    return error if math.isfinite(error) else None


NO_ANSWER: dict[str, Any] = {
    **dict.fromkeys(("predicted_category", "class_probability", "joint_confidence", "unexplored")),
    **dict.fromkeys(("azimuth", "elevation", "theta")),
    **dict.fromkeys(("confidence", "expected_error", "alternative", "pose_error", "argmax_pose_error")),
    "given_class_pose_error": None,
    "correct": False,
}
"""What a line says of an object whose picture could not be had: a miss."""


def prediction_line(subject: Subject, answer: Mapping[str, Any] | None) -> dict[str, Any]:
    """One object's line of ``predictions.jsonl``, with angles and errors in radians.

    ``row``: its row in the split; ``crop``: how its picture was cut; ``class_probability``: over the names, where only
    the best was searched for a lower bound, by no more than ``unexplored``; ``joint_confidence``: the probability that
    the name is right and the pose errs by less than π/6 (these three are null where nothing is named); ``confidence``,
    ``expected_error`` and ``alternative``: see ``reading.PoseReading``; ``pose_error``: the geodesic error, null for a
    pose that is not finite; ``argmax_pose_error``: that of the paper's reading at the bin centres;
    ``given_class_pose_error``: that of the pose read at the true class. A subject without a picture has ``error``
    besides.
    """
    target = subject.target
    category = _folder_category(subject.image_id) if target is None else target.category
    angles = ("azimuth", "elevation", "theta")
    return {
        "image_id": subject.image_id,
        "object_id": None if target is None else target.object_id,
        "category": category,
        "meta_class": None if category is None else taxonomy.meta_class(category),
        **(NO_ANSWER if answer is None else answer),
        "target": None if target is None else {name: getattr(target, name) for name in angles},
        "row": subject.row,
        "crop": subject.crop,
        **({"error": subject.error} if subject.error else {}),
    }


def _folder_category(image_id: str) -> str | None:
    """What a row without an object should have shown: its image lies in the folder of its category."""
    folder = image_id.split("/")[0]
    return folder if folder in taxonomy.categories() else None


def predict_records(
    engine: Engine, records: Iterable[PosedImage], categories: Sequence[str], batch_size: int
) -> Iterator[dict[str, Any]]:
    """Prediction lines of records that hold one object each, in order, whose ``row`` is their number.

    The class is the best of ``categories``, the pose is read at its ``<pose>``. Raises UserError for a record that
    does not hold exactly one object, whose crop could not show which is meant.
    """
    trie = engine.name_trie(categories)
    for batch in batched(enumerate(records), batch_size):
        subjects = [Subject(row, each.image_id, _only(each), None, each.image) for row, each in batch]
        pixels = engine.pixels([each.image for each in subjects if each.image is not None])
        yield from predict_subjects(engine, trie, categories, subjects, pixels, Asking())


def _only(record: PosedImage) -> PosedObject:
    if len(record.objects) != 1:
        raise UserError(
            f"{record.image_id}: objects: {len(record.objects)} in a row; evaluation takes object or box crops"
        )
    return record.objects[0]


def score(lines: Sequence[Mapping[str, Any]], error: str = "pose_error") -> dict[str, Any]:
    """The tables ``joint`` and ``pose_only`` of prediction lines, from the field ``error`` of each.

    A line without a pose counts as an error of π, and a further π in the joint tables; one without a category (an image
    that shows no object of a known category) is in no table.

    ``open_vocabulary``: the joint table of the categories that task trains on (``known``) and of all others
    (``novel``), as far as there are any: how a model that was trained on the known ones alone does on the novel ones;
    ``open_vocabulary_pose_only``: the same of pose errors alone, as that task is published.
    """
    known = taxonomy.known()
    errors, correct, categories = columns(lines, error)
    sort = {category: "known" if category in known else "novel" for category in categories}
    return {
        "joint": joint_metrics(errors, correct, categories),
        "pose_only": pose_only_metrics(errors, correct, categories),
        "open_vocabulary": joint_metrics(errors, correct, categories, sort)["meta_classes"],
        "open_vocabulary_pose_only": pose_only_metrics(errors, correct, categories, sort)["meta_classes"],
    }


def score_by_count(lines: Sequence[Mapping[str, Any]], counts: Mapping[str, int]) -> dict[str, Any]:
    """The joint tables of the categories of each of ``COUNT_BANDS``, by how many training objects each has."""
    errors, correct, categories = columns(lines, "pose_error")
    band = {name: next(text for most, text in COUNT_BANDS if counts.get(name, 0) <= most) for name in categories}
    tables = joint_metrics(errors, correct, categories, band)["meta_classes"]
    return {text: tables[text] for _, text in COUNT_BANDS if text in tables}


def columns(lines: Iterable[Mapping[str, Any]], error: str) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Errors (N,) in radians, NaN where there is none, whether the class is right (N,), and the categories."""
    counted = [line for line in lines if line["category"] is not None]
    errors = np.array([line[error] for line in counted], dtype=np.float64)
    return errors, np.array([line["correct"] for line in counted], dtype=bool), [line["category"] for line in counted]


def read_lines(path: str | Path) -> list[dict[str, Any]]:
    """The objects of a JSON-lines file. Raises UserError naming the file and the line."""
    lines = []
    for number, text in enumerate(Path(path).read_text(encoding="utf-8").splitlines(), start=1):
        try:
            lines.append(json.loads(text))
        except json.JSONDecodeError as problem:
            raise UserError(f"{path}:{number}: not a JSON line: {problem}") from problem
    return lines


def batched(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """Lists of up to ``size`` items in order."""
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch
