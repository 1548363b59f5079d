"""Compare ways to read a pose from the same three distributions, on one half of the objects and again on the other.

    python eval/readings.py --model runs/mine/final --data data/imagenet3d

A row a reading: accuracies and median of the geodesic error, whatever the class, and by how much each differs from the
local mean's on the same objects, with a 95 % interval (paired bootstrap over pictures). What wins on the half to
choose by should win on the half to confirm by.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from eval.intervals import accuracy, bootstrap, median_degrees, percentiles
from eval.outputs import add_arguments, in_first_half, name_objects, open_data, open_engine
from llava_pose import checkpoint
from llava_pose.arguments import CommandParser
from llava_pose.bins import PoseBins
from llava_pose.engine import Engine
from llava_pose.errors import run_cli
from llava_pose.files import write_atomic
from llava_pose.geometry import pose_error
from llava_pose.joint import decide

BASELINE = "local mean"


class Outputs(NamedTuple):
    """What N objects' poses are read from: distributions (N, K, 3, n) at their best K names, of the name probabilities
    ``weights`` (N, K), and ``mirrored`` (N, 3, n), those of the mirror image at the best name, mapped back; and the
    truth (N, 3)."""

    distributions: np.ndarray
    weights: np.ndarray
    mirrored: np.ndarray
    truth: np.ndarray


def main(argv: Sequence[str] | None = None) -> None:
    """Run the model once, read its poses in every way, and print the tables."""
    parser = CommandParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=checkpoint.EMBEDDED, help="folder or hub name (default: the embedded model)")
    parser.add_argument("--out", metavar="FILE", type=Path, help="write the tables as JSON too")
    add_arguments(parser)
    arguments = parser.parse_args(argv)
    data, categories = open_data(arguments)
    outputs = collect(open_engine(arguments), data, categories, arguments.batch_size)
    pictures, first = np.array(data["image_id"]), in_first_half(data["image_id"])
    errors = {name: pose_error(poses, outputs.truth) for name, poses in readings(outputs).items()}
    result = {}
    for part, rows in (("choose", first), ("confirm", ~first), ("all", np.ones(len(first), dtype=bool))):
        table = compare({name: values[rows] for name, values in errors.items()}, pictures[rows])
        result[part] = {"objects": int(rows.sum()), "readings": table}
        print(f"\n{part}: {rows.sum()} objects")
        print("\n".join(format_rows(table)))
    if arguments.out:
        write_atomic(arguments.out, json.dumps(result, indent=1, ensure_ascii=False) + "\n")


def collect(engine: Engine, data: Any, categories: Sequence[str], batch_size: int) -> Outputs:
    """What the poses of every object are read from."""
    bins, parts = PoseBins(engine.model.config.pose_bins), []
    trie = engine.name_trie(categories)
    for records, namings, pixels in name_objects(engine, data, categories, batch_size):
        assert pixels.mirrored is not None
        mirrored = engine.name(pixels.mirrored, trie, given=[naming.index for naming in namings])
        for record, naming, back in zip(records, namings, mirrored, strict=True):
            assert back.given is not None
            parts.append(
                (
                    bins.probabilities(naming.pose_logits),
                    naming.probabilities[list(naming.names)],
                    bins.mirror(back.given.distributions),
                    record.objects[0].pose,
                )
            )
    return Outputs(*(np.array(column) for column in zip(*parts, strict=True)))


def readings(outputs: Outputs) -> dict[str, np.ndarray]:
    """The poses (N, 3) by every way of reading."""
    plain, mirrored = outputs.distributions[:, 0], outputs.mirrored
    bins = PoseBins(plain.shape[-1])
    arithmetic = (plain + mirrored) / 2
    # The geometric mean of two distributions is the softmax of their mean logits.
    geometric = bins.probabilities((np.log(plain + 1e-300) + np.log(mirrored + 1e-300)) / 2)
    return {
        BASELINE: decide(plain),
        "argmax": bins.argmax(np.log(plain + 1e-300)),
        "mass within π/6": decide(plain, goal="mass"),
        "least error": decide(plain, goal="error"),
        "mean, top names": decide(outputs.distributions, outputs.weights),
        "mass, top names": decide(outputs.distributions, outputs.weights, "mass"),
        "mean, flip": decide(geometric),
        "mean, flip, arithmetic": decide(arithmetic),
        "mass, flip": decide(geometric, goal="mass"),
    }


def compare(errors: dict[str, np.ndarray], pictures: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Each reading's figures for errors (N,) in radians, and their differences from the baseline's with intervals.

    All are drawn by the same seed, and so from the same resamples of the pictures (N,).
    """
    figures = {
        name: {
            "acc_pi_6": accuracy(values < math.pi / 6),
            "acc_pi_18": accuracy(values < math.pi / 18),
            "median_error_deg": median_degrees(values),
        }
        for name, values in errors.items()
    }
    drawn = {name: bootstrap(mine, pictures) for name, mine in figures.items()}
    once = np.ones((1, len(pictures)))
    return {
        name: {
            figure: {
                "value": float(measure(once)[0]),
                "difference": float((measure(once) - figures[BASELINE][figure](once))[0]),
                "interval": percentiles(drawn[name][figure] - drawn[BASELINE][figure]),
            }
            for figure, measure in mine.items()
        }
        for name, mine in figures.items()
    }


def format_rows(table: dict[str, dict[str, Any]]) -> list[str]:
    """The table as lines."""
    lines = [f"{'':24}{'acc@π/6':>26}{'acc@π/18':>26}{'median':>26}"]
    for name, row in table.items():
        cells = []
        for cell in row.values():
            low, high = cell["interval"]
            cells.append(f"{cell['value']:7.2f} {cell['difference']:+6.2f} [{low:+5.2f},{high:+5.2f}]".rjust(26))
        lines.append(f"{name:24}{''.join(cells)}")
    return lines


if __name__ == "__main__":
    run_cli(main)
