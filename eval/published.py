"""The evaluation files of ImageNet3D's authors: written from our predictions, and scored as ours are.

    python eval/published.py --run runs/mine/eval --out evaluate.json
    python eval/published.py --file evaluate.json [--out metrics.json]

Such a file holds four parallel lists: ``sample_names``, ``{image name}_{object's index, two digits}``; ``categories``,
the true ones; ``pose_errors`` in radians; ``classifications``, 1 where the class is right and 0 where it is not. A file
of pose estimation alone lacks the last, and is scored without classes.
"""

from __future__ import annotations

import argparse
import json
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from eval.results import PREDICTIONS, without_classes
from llava_pose import taxonomy
from llava_pose.arguments import CommandParser
from llava_pose.errors import UserError, run_cli
from llava_pose.evaluation import read_lines, score
from llava_pose.files import write_atomic

LISTS = ("sample_names", "categories", "pose_errors", "classifications")
_SAMPLE = re.compile(r"(.+)_(\d\d+)")
_ROUNDING = 1e-6
"""How far above π an error may lie that was computed from a matrix logarithm."""


def main() -> None:
    """Convert one way or the other."""
    parser = CommandParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--run", type=Path, metavar="DIR", help="results of eval/benchmark.py to write as such a file")
    source.add_argument("--file", type=Path, metavar="FILE", help="such a file, to be scored")
    parser.add_argument("--out", type=Path, metavar="FILE", help="where to write (with --run: needed)")
    arguments = parser.parse_args()
    if arguments.run is not None:
        if arguments.out is None:
            raise UserError("--out: name the file to write")
        lists = to_lists(read_lines(arguments.run / PREDICTIONS))
        write_atomic(arguments.out, json.dumps(lists) + "\n")
        print(f"{arguments.out}: {len(lists['sample_names'])} objects")
        return
    lines, classified = read_published(arguments.file)
    metrics = score(lines)
    if not classified:
        without_classes(metrics)
    if arguments.out is not None:
        write_atomic(arguments.out, json.dumps(metrics, indent=1, ensure_ascii=False) + "\n")
    for table in ("joint", "pose_only"):
        print(f"{table}:")
        for name, value in metrics[table]["average"].items():
            print(f"  {name:<26}{'–' if value is None else format(value, '.1f'):>8}")


def to_lists(lines: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """The four lists of prediction lines; an object without a pose has the error π, an image without an object is left
    out."""
    objects = [line for line in lines if line["object_id"] is not None]
    return {
        "sample_names": [f"{_name(line)}_{line['object_id']:02d}" for line in objects],
        "categories": [line["category"] for line in objects],
        "pose_errors": [math.pi if line["pose_error"] is None else line["pose_error"] for line in objects],
        "classifications": [int(line["correct"]) for line in objects],
    }


def read_published(path: str | Path) -> tuple[list[dict[str, Any]], bool]:
    """Such a file as prediction lines (``image_id``, ``object_id``, ``category``, ``pose_error`` and ``correct``), and
    whether it says if classes are right; where it does not, all lines are ``correct``.

    Raises:
        UserError: it cannot be read, lists are missing or not of one length, or an entry cannot be right; the message
            names list, place and value.
    """
    try:
        found = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read: {error}") from error
    classified = isinstance(found, dict) and "classifications" in found
    names = LISTS if classified else LISTS[:-1]
    for name in names:
        if not isinstance(found, dict) or not isinstance(found.get(name), list):
            raise UserError(f"{path}: {name}: no list of that name")
        if len(found[name]) != len(found["sample_names"]):
            raise UserError(f"{path}: {name}: {len(found[name])} for {len(found['sample_names'])} sample_names")
    if not found["sample_names"]:
        raise UserError(f"{path}: sample_names: an empty list")
    right = found["classifications"] if classified else [1] * len(found["sample_names"])
    columns = zip(found["sample_names"], found["categories"], found["pose_errors"], right, strict=True)
    return [_line(path, number, *values) for number, values in enumerate(columns)], classified


def _line(path: str | Path, number: int, sample: Any, category: Any, error: Any, right: Any) -> dict[str, Any]:
    match = _SAMPLE.fullmatch(sample) if isinstance(sample, str) else None
    if match is None:
        raise UserError(f"{path}: sample_names[{number}]: {sample!r} does not end in an object's index (_00)")
    if type(error) not in (int, float) or error < 0 or error > math.pi + _ROUNDING:
        raise UserError(f"{path}: pose_errors[{number}]: {error!r} is not in [0, π]")
    if right not in (0, 1):
        raise UserError(f"{path}: classifications[{number}]: {right!r} is neither 0 nor 1")
    try:
        name = taxonomy.resolve(str(category))
    except UserError as problem:
        raise UserError(f"{path}: categories[{number}]: {problem}") from problem
    return {
        "image_id": f"{category}/{match[1]}",
        "object_id": int(match[2]),
        "category": name,
        "pose_error": min(float(error), math.pi) if math.isfinite(error) else None,
        "correct": bool(right),
    }


def _name(line: Mapping[str, Any]) -> str:
    return str(line["image_id"]).split("/", 1)[-1]


if __name__ == "__main__":
    run_cli(main)
