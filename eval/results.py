"""What a run leaves behind: prediction lines, tables and the page about them."""

from __future__ import annotations

import json
import platform
from collections import Counter
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from eval import findings, intervals
from eval.baselines import chance_levels
from eval.report import format_table, write_report
from llava_pose import __version__
from llava_pose.calibration import expected_calibration_error, reliability
from llava_pose.errors import UserError
from llava_pose.evaluation import columns, score, score_by_count
from llava_pose.files import write_atomic
from llava_pose.joint import HIT
from llava_pose.question_scores import score as score_questions

PREDICTIONS, ANSWERS, METRICS, REPORT = "predictions.jsonl", "answers.jsonl", "metrics.json", "report.html"
LIBRARIES = ("torch", "transformers", "tokenizers", "numpy", "pillow", "accelerate")
CALIBRATION_BINS = 15

Line = dict[str, Any]


def make_metrics(
    lines: Sequence[Line],
    settings: Mapping[str, Any],
    train: Sequence[Line],
    protocol: str,
    questions: Sequence[Line] = (),
    answers: Sequence[Line] = (),
) -> dict[str, Any]:
    """The contents of ``metrics.json``; ``train``: the objects of the training split, for the chance levels and the
    tables by how many training objects a category has; ``questions``: 3D questions, if any were asked.

    Raises UserError where no line is of an object.
    """
    whole = [line for line in lines if line["target"] is not None]
    if not whole:
        raise UserError(f"no object to score in {len(lines)} rows")
    counts = Counter(item["category"] for item in train)
    metrics = {
        **score(lines),
        "by_training_objects": score_by_count(lines, counts),
        "argmax": score(lines, "argmax_pose_error")["joint"]["average"],
        "given_class": score(lines, "given_class_pose_error")["pose_only"]["average"],
        "chance": chance_levels(whole, train, settings["categories"]),
        "confidence_intervals": confidence_intervals(lines),
        "calibration": calibration_table(lines),
        "failed": sum("error" in line for line in [*lines, *answers]),
    }
    if questions:
        metrics["questions"] = score_questions(questions, {answer["question_id"]: answer for answer in answers})
    if protocol == "pose":
        without_classes(metrics)
    return {**metrics, "settings": {**settings, "bootstrap": bootstrap_settings(), "versions": versions()}}


def confidence_intervals(lines: Sequence[Line]) -> dict[str, list[float]]:
    """The intervals of the joint average's figures."""
    counted = [line for line in lines if line["category"] is not None]
    figures = intervals.figures_of(*joint_errors(counted))
    return intervals.intervals(figures, [line["image_id"] for line in counted])


def joint_errors(lines: Sequence[Line]) -> tuple[np.ndarray, np.ndarray]:
    """Errors (N,) in radians as the joint metric counts them, π for none and π more for a wrong class, and whether the
    class is right (N,)."""
    return findings.joint_errors(lines), columns(lines, "pose_error")[1]


def bootstrap_settings() -> dict[str, Any]:
    """What the intervals are."""
    return {"level": intervals.LEVEL, "resamples": intervals.RESAMPLES, "seed": intervals.SEED, "drawn": "pictures"}


def calibration_table(lines: Sequence[Line]) -> dict[str, Any]:
    """How far confidence and truth lie apart: the probability said and the share of poses that err by less than π/6, in
    bins of as many objects each; ``ece`` in percent."""
    told = [line for line in lines if line["confidence"] is not None]
    said = np.array([line["confidence"] for line in told], dtype=np.float64)
    hits = np.nan_to_num(columns(told, "pose_error")[0], nan=np.pi) < HIT
    gap = 100.0 * expected_calibration_error(said, hits, CALIBRATION_BINS)
    return {"ece": gap, "bins": reliability(said, hits, CALIBRATION_BINS)}


def without_classes(tables: Any) -> None:
    """Take the classification accuracy out of every table: nothing was classified."""
    if isinstance(tables, dict):
        if "classification_accuracy" in tables:
            tables["classification_accuracy"] = None
        for value in tables.values():
            without_classes(value)


def versions() -> dict[str, str]:
    """What computed the results."""
    return {"llava-pose": __version__, "python": platform.python_version(), **{n: version(n) for n in LIBRARIES}}


def write_results(
    out: Path, lines: Sequence[Line], answers: Sequence[Line], metrics: Mapping[str, Any], data: Any
) -> None:
    """Write the files, each complete before it has its name, metrics.json last as the sign that all is done, and print
    the tables; no file of answers where nothing was asked."""
    for name, some in ((PREDICTIONS, lines), (ANSWERS, answers)):
        if some:
            write_atomic(out / name, "".join(json.dumps(line) + "\n" for line in some))
    write_report(out / REPORT, dict(metrics), lines, data)
    write_atomic(out / METRICS, json.dumps(metrics, indent=1, ensure_ascii=False) + "\n")
    print(format_table(dict(metrics)))
