"""Fit how sure a model says it is to what it got right, and keep the fit in the model's folder.

    python eval/calibrate.py --model runs/mine/final --data data/imagenet3d

Half of the pictures are fitted to; the other half show what that is worth, in a table of gaps between what is said and
what is so (expected calibration error, 15 bins of equal mass) and of log losses, before and after; "by chance" is the
gap that probabilities would show if they were exactly right. Leaves calibration.json in the folder, which predict, chat
and benchmark then use. Training into the folder removes it. It holds for pictures like those it was fitted to.
"""

from __future__ import annotations

import argparse
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from eval.outputs import add_arguments, in_first_half, name_objects, open_data, open_engine
from llava_pose import calibration
from llava_pose.arguments import CommandParser
from llava_pose.calibration import Calibration, Outcomes
from llava_pose.engine import Engine
from llava_pose.errors import UserError, run_cli
from llava_pose.files import write_atomic
from llava_pose.folders import model_source
from llava_pose.geometry import pose_error


def main(argv: Sequence[str] | None = None) -> None:
    """Fit, print what it is worth, and write the file."""
    arguments = parse_arguments(argv)
    folder = Path(model_source(arguments.model))
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        raise UserError(f"--model {arguments.model}: no folder here that {calibration.FILE_NAME} could be written to")
    data, categories = open_data(arguments)
    first = in_first_half(data["image_id"])
    if min(first.sum(), (~first).sum()) < calibration.LEAST_OBJECTS:
        needed = 2 * calibration.LEAST_OBJECTS
        raise UserError(f"{arguments.data}: {arguments.split}: {len(data)} objects; some {needed} are needed at least")
    engine = open_engine(arguments)
    outcomes = collect(engine, data, categories, arguments.batch_size)
    fitted = calibration.fit(outcomes[first], engine.model.config.pose_bins, arguments.data, arguments.split)
    print(f"fitted to {first.sum()} objects, judged on the {(~first).sum()} others")
    print("\n".join(judgement(fitted, outcomes[~first])))
    write_atomic(folder / calibration.FILE_NAME, calibration.to_text(fitted))
    print(f"wrote {folder / calibration.FILE_NAME}")


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = CommandParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, metavar="DIR", help="a model's folder")
    add_arguments(parser)
    return parser.parse_args(argv)


def collect(engine: Engine, data: Any, categories: Sequence[str], batch_size: int) -> Outcomes:
    """What the model says of every object and what is true."""
    rows = []
    for records, namings, _ in name_objects(engine, data, categories, batch_size):
        for record, naming in zip(records, namings, strict=True):
            [target] = record.objects
            reading = naming.reading
            error = float(pose_error(reading.pose, target.pose))
            name = categories.index(target.category)
            rows.append((reading.confidence, reading.expected_error, error, naming.log_probabilities, name))
    return Outcomes(*(np.array(column) for column in zip(*rows, strict=True)))


def judgement(fitted: Calibration, held_out: Outcomes) -> list[str]:
    """The lines of two tables: the gaps and losses before and after, and the reliability of a hit after."""
    hit, named = fitted.hit(held_out.mass), held_out.class_probability(fitted.class_temperature)
    both = held_out.hits & held_out.named
    probabilities = {
        "pose within 30°": (held_out.mass, hit, held_out.hits),
        "class": (held_out.class_probability(), named, held_out.named),
        "both": (held_out.mass * held_out.class_probability(), fitted.hit_and_class(hit, named), both),
    }
    gap = calibration.expected_calibration_error
    lines = ["", f"{'':18}{'gap before':>12}{'after':>9}{'by chance':>11}{'log loss before':>18}{'after':>9}"]
    for what, (before, after, observed) in probabilities.items():
        gaps = f"{gap(before, observed):12.3f}{gap(after, observed):9.3f}{gap_by_chance(after):11.3f}"
        lines.append(f"{what:18}{gaps}{log_loss(before, observed):18.3f}{log_loss(after, observed):9.3f}")
    errors = np.nan_to_num(held_out.errors, nan=math.pi)
    said = [math.degrees(gap(values, errors)) for values in (held_out.risk, fitted.error(held_out.risk, held_out.mass))]
    lines += [f"{'expected error':18}{said[0]:11.1f}°{said[1]:8.1f}°", "", "pose within 30°: said, so, objects"]
    for row in calibration.reliability(hit, held_out.hits):
        lines.append(f"{row['predicted']:10.3f}{row['observed']:8.3f}{row['count']:7d}")
    return lines


def gap_by_chance(probability: np.ndarray, draws: int = 100) -> float:
    """The gap to expect of probabilities (N,) that are exactly right, since only so many objects are looked at."""
    rng = np.random.default_rng(0)
    gaps = [
        calibration.expected_calibration_error(probability, rng.random(len(probability)) < probability)
        for _ in range(draws)
    ]
    return float(np.mean(gaps))


def log_loss(probability: np.ndarray, happened: np.ndarray) -> float:
    """The mean −log of the probability of what happened."""
    told = np.where(happened, probability, 1.0 - probability)
    return float(-np.log(np.maximum(told, 1e-6)).mean())


if __name__ == "__main__":
    run_cli(main)
