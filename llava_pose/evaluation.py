"""From records to prediction lines and from lines to the benchmark's tables."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from . import taxonomy
from .errors import UserError
from .geometry import pose_error
from .metrics import joint_metrics, pose_only_metrics
from .scene import PosedImage

if TYPE_CHECKING:
    from .engine import Engine, Naming  # torch with it, which scoring does not need

Item = TypeVar("Item")


def predict_records(
    engine: Engine, records: Iterable[PosedImage], categories: Sequence[str], batch_size: int
) -> Iterator[dict[str, Any]]:
    """Prediction lines of records that hold one object each, in order.

    The class is the best of ``categories``, the pose is read at its ``<pose>``. Raises UserError for a record that
    does not hold exactly one object, whose crop could not show which is meant.
    """
    trie = engine.name_trie(categories)
    for batch in batched(records, batch_size):
        for record in batch:
            if len(record.objects) != 1:
                raise UserError(
                    f"{record.image_id}: objects: {len(record.objects)} in a row; evaluation takes object or box crops"
                )
        namings = engine.name([record.image for record in batch if record.image is not None], trie)
        for record, naming in zip(batch, namings, strict=True):
            yield prediction_line(record, naming, categories)


def prediction_line(record: PosedImage, naming: Naming, categories: Sequence[str]) -> dict[str, Any]:
    """One object's line of ``predictions.jsonl``: angles and the geodesic ``pose_error`` in radians.

    ``argmax_pose_error`` is the error of the paper's reading at the bin centres.
    """
    target = record.objects[0]
    predicted = categories[naming.index]
    azimuth, elevation, theta = (float(angle) for angle in naming.reading.pose)
    return {
        "image_id": record.image_id,
        "object_id": target.object_id,
        "category": target.category,
        "predicted_category": predicted,
        "class_probability": float(naming.probabilities[naming.index]),
        "azimuth": azimuth,
        "elevation": elevation,
        "theta": theta,
        "confidence": naming.reading.confidence,
        "target": {"azimuth": target.azimuth, "elevation": target.elevation, "theta": target.theta},
        "pose_error": float(pose_error(naming.reading.pose, target.pose)),
        "argmax_pose_error": float(pose_error(naming.reading.argmax, target.pose)),
        "correct": predicted == target.category,
    }


def score(lines: Sequence[dict[str, Any]], error: str = "pose_error") -> dict[str, Any]:
    """The tables ``joint`` and ``pose_only`` of prediction lines, from the field ``error`` of each.

    ``open_vocabulary``: the joint table of the categories that task trains on (``known``) and of all others
    (``novel``), as far as there are any: how a model that was trained on the known ones alone does on the novel ones.
    """
    errors = np.array([line[error] for line in lines], dtype=np.float64)
    correct = np.array([line["correct"] for line in lines], dtype=bool)
    categories = [line["category"] for line in lines]
    known = taxonomy.known()
    sort = {category: "known" if category in known else "novel" for category in categories}
    return {
        "joint": joint_metrics(errors, correct, categories),
        "pose_only": pose_only_metrics(errors, correct, categories),
        "open_vocabulary": joint_metrics(errors, correct, categories, sort)["meta_classes"],
    }


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
