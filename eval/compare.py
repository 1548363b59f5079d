"""Compare two runs on the same objects: is the difference more than chance?

    python eval/compare.py runs/one/eval runs/two/eval [--out comparison.json]
    python eval/compare.py runs/demo/before runs/demo --apart forklift      # what was learnt beside what was forgotten

A run is a folder that eval/benchmark.py left, or a file of the form that ImageNet3D's authors publish (see
eval/published.py). Prints each figure of both, the second less the first, an interval that holds 95% of the paired
bootstrap's differences, and a p-value: of McNemar's exact test for accuracies, of Wilcoxon's signed-rank test of the
objects' errors for median and mean. Both tests take objects as independent; the interval draws whole pictures. With
--apart, prints one small table instead: some categories beside all others; intervals and p-values are in --out.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy import stats

from eval.intervals import Figure, accuracy, bootstrap, figures_of, mean_degrees, median_degrees, percentiles
from eval.published import read_published
from eval.results import METRICS, PREDICTIONS, joint_errors
from llava_pose.arguments import CommandParser
from llava_pose.errors import UserError, run_cli
from llava_pose.evaluation import read_lines
from llava_pose.files import write_atomic

Line = dict[str, Any]
UNTOLD = ("fingerprint", "versions", "bootstrap", "categories")
"""Settings that differ in ways of no interest, or that say too much."""
PARTS_COLUMNS = (
    ("joint", "acc_pi_6", "acc@π/6 %"),
    ("joint", "acc_pi_18", "acc@π/18 %"),
    ("joint", "median_error_deg", "median °"),
    ("joint", "classification_accuracy", "class %"),
    ("pose_only", "acc_pi_6", "pose @π/6 %"),
    ("pose_only", "acc_pi_18", "pose @π/18 %"),
)
"""Table, figure and heading of the columns of the table with --apart; pose: whatever the object was called."""


class Run(NamedTuple):
    """A run's lines by object, what it says of itself, and whether it names classes."""

    name: str
    lines: dict[tuple[str, int | None], Line]
    settings: dict[str, Any]
    classified: bool


def main() -> None:
    """Compare, print and write."""
    parser = CommandParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run_a", metavar="RUN_A", type=Path)
    parser.add_argument("run_b", metavar="RUN_B", type=Path)
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the comparison as JSON too")
    parser.add_argument("--apart", nargs="+", default=(), metavar="CATEGORY", help="tell these apart from the others")
    arguments = parser.parse_args()
    result = compare(read_run(arguments.run_a), read_run(arguments.run_b), arguments.apart)
    if arguments.out is not None:
        write_atomic(arguments.out, json.dumps(result, indent=1, ensure_ascii=False) + "\n")
    print("\n".join(format_comparison(result)))


def read_run(path: Path) -> Run:
    """A run's results. Raises UserError where they cannot be read, or an object is in them twice."""
    settings: dict[str, Any] = {}
    if path.is_dir():
        for name in (PREDICTIONS, METRICS):
            if not (path / name).is_file():
                raise UserError(f"{path}: {name} is missing: no finished run of eval/benchmark.py")
        lines = read_lines(path / PREDICTIONS)
        settings = json.loads((path / METRICS).read_text(encoding="utf-8"))["settings"]
        classified = settings.get("protocol") != "pose"
    else:
        lines, classified = read_published(path)
    by_object: dict[tuple[str, int | None], Line] = {}
    for line in lines:
        place = (line["image_id"], line["object_id"])
        if place in by_object:
            raise UserError(f"{path}: {place[0]}, object {place[1]} is there twice")
        by_object[place] = line
    return Run(str(path), by_object, settings, classified)


def compare(first: Run, second: Run, apart: Sequence[str] = ()) -> dict[str, Any]:
    """The figures of both runs and their differences, second less first; under "apart" those of the categories in
    ``apart``, if there are any, and of all others.

    Raises UserError where the runs are not about the same objects or do not answer the same question, or hold no object
    of a category in ``apart``.
    """
    places = _shared(first, second)
    if first.classified != second.classified:
        raise UserError(f"{first.name}, {second.name}: one names classes and the other does not: nothing to compare")
    result: dict[str, Any] = {
        "runs": [first.name, second.name],
        "settings_that_differ": _differing(first.settings, second.settings),
        **_compare_objects(first, second, places),
    }
    if apart:
        of = {place: first.lines[place]["category"] for place in places}
        for name in apart:
            if name not in of.values():
                raise UserError(f"--apart {name}: {first.name} holds no object of it")
        parts = {
            " ".join(apart): [place for place in places if of[place] in apart],
            "all others": [place for place in places if of[place] not in apart],
        }
        result["apart"] = {name: _compare_objects(first, second, part) for name, part in parts.items() if part}
    return result


def _compare_objects(first: Run, second: Run, places: Sequence[tuple[str, int | None]]) -> dict[str, Any]:
    """How many objects these are, and their tables."""
    result: dict[str, Any] = {"objects": len(places)}
    pictures = [image_id for image_id, _ in places]
    columns = [_columns([run.lines[place] for place in places]) for run in (first, second)]
    tables = {"pose_only": ("pose", False), "joint": ("joint", True)}
    for table, (kind, with_classes) in tables.items():
        if with_classes and not first.classified:
            continue
        errors = [column[kind] for column in columns]
        correct = [column["correct"] for column in columns]
        result[table] = _compare_table(errors, correct if with_classes else None, pictures)
    return result


def _shared(first: Run, second: Run) -> list[tuple[str, int | None]]:
    """All objects of a category, which both runs must have with the same true pose."""
    for one, other in ((first, second), (second, first)):
        missing = [place for place in one.lines if place not in other.lines]
        if missing:
            raise UserError(
                f"{other.name}: {len(missing)} of the {len(one.lines)} objects of {one.name} are missing, such as "
                f"{missing[0][0]}, object {missing[0][1]}"
            )
    for place, line in first.lines.items():
        for field in ("category", "target"):
            values = [line.get(field), second.lines[place].get(field)]
            if None not in values and values[0] != values[1]:
                told = f"{place[0]}, object {place[1]}: {field}: {values[0]} and {values[1]}"
                raise UserError(f"{first.name}, {second.name}: {told}: the runs are on other data")
    return [place for place, line in first.lines.items() if line["category"] is not None]


def _columns(lines: Sequence[Line]) -> dict[str, np.ndarray]:
    joint, correct = joint_errors(lines)
    return {"joint": joint, "pose": joint - np.where(correct, 0.0, math.pi), "correct": correct}


def _compare_table(
    errors: Sequence[np.ndarray], correct: Sequence[np.ndarray] | None, pictures: Sequence[str]
) -> dict[str, Any]:
    if correct is None:
        both = [_pose_figures(values) for values in errors]
    else:
        both = [figures_of(values, right) for values, right in zip(errors, correct, strict=True)]
    once = np.ones((1, len(pictures)))
    drawn = bootstrap({f"{side} {name}": f for side in (0, 1) for name, f in both[side].items()}, pictures)
    tests = {
        "acc_pi_6": mcnemar(*(values < math.pi / 6 for values in errors)),
        "acc_pi_18": mcnemar(*(values < math.pi / 18 for values in errors)),
        **dict.fromkeys(("median_error_deg", "mean_error_deg"), wilcoxon(*errors)),
        **({} if correct is None else {"classification_accuracy": mcnemar(*correct)}),
    }
    table = {}
    for name in both[0]:
        values = [float(figures[name](once)[0]) for figures in both]
        table[name] = {
            "values": values,
            "difference": values[1] - values[0],
            "interval": percentiles(drawn[f"1 {name}"] - drawn[f"0 {name}"]),
            "p": tests[name],
        }
    return table


def _pose_figures(errors: np.ndarray) -> dict[str, Figure]:
    return {
        "acc_pi_6": accuracy(errors < math.pi / 6),
        "acc_pi_18": accuracy(errors < math.pi / 18),
        "median_error_deg": median_degrees(errors),
        "mean_error_deg": mean_degrees(errors),
    }


def mcnemar(first: np.ndarray, second: np.ndarray) -> float:
    """The two-sided p-value of McNemar's exact test that two runs are right (N,) equally often: of the objects that one
    alone gets right, either is as likely to be the one."""
    only_first, only_second = int((first & ~second).sum()), int((second & ~first).sum())
    if only_first + only_second == 0:
        return 1.0
    return float(stats.binomtest(only_first, only_first + only_second).pvalue)


def wilcoxon(first: np.ndarray, second: np.ndarray) -> float:
    """The two-sided p-value of Wilcoxon's signed-rank test that errors (N,) differ neither way; objects with equal
    errors are left out."""
    difference = second - first
    if not difference.any():
        return 1.0
    return float(stats.wilcoxon(difference[difference != 0]).pvalue)


def _differing(first: dict[str, Any], second: dict[str, Any]) -> dict[str, list[Any]]:
    names = [name for name in {**first, **second} if name not in UNTOLD]
    both = {name: [first.get(name), second.get(name)] for name in names}
    return {name: values for name, values in both.items() if values[0] != values[1]}


def format_comparison(result: dict[str, Any]) -> list[str]:
    """The lines of the tables."""
    first, second = result["runs"]
    lines = [f"A: {first}", f"B: {second}", f"{result['objects']} objects"]
    lines += [f"{name}: {values[0]} / {values[1]}" for name, values in result["settings_that_differ"].items()]
    if "apart" in result:
        return [*lines, "", *_format_parts(result["apart"])]
    for table in ("joint", "pose_only"):
        if table in result:
            lines += ["", f"{table:<26}{'A':>8}{'B':>8}{'B − A':>9}{'95% interval':>19}{'p':>9}"]
            for name, row in result[table].items():
                values = "".join(f"{value:8.2f}" for value in row["values"])
                low, high = row["interval"]
                p = f"{row['p']:9.3g}"
                lines.append(f"{name:<26}{values}{row['difference']:+9.2f}{f'{low:+.2f} … {high:+.2f}':>19}{p}")
    return lines


def _format_parts(parts: dict[str, Any]) -> list[str]:
    """A line for each part: what a figure is in A, and what it is in B."""
    columns = [column for column in PARTS_COLUMNS if all(column[0] in part for part in parts.values())]
    lines = [f"{'A → B':<20}" + "".join(f"{title:>16}" for _, _, title in columns) + f"{'objects':>10}"]
    for label, part in parts.items():
        pairs = [part[table][name]["values"] for table, name, _ in columns]
        told = "".join(f"{f'{first:.1f} → {second:.1f}':>16}" for first, second in pairs)
        lines.append(f"{label:<20}{told}{part['objects']:>10}")
    return lines


if __name__ == "__main__":
    run_cli(main)
