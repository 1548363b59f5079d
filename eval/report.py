"""Tables and a page about an evaluation.

    python eval/report.py --out DIR --data DIR [--split val]

Writes DIR/report.html anew from the metrics.json and predictions.jsonl that eval/benchmark.py left in DIR, with
pictures from the data. The page is one file without scripts or outside resources.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from eval import page
from llava_pose.arguments import CommandParser
from llava_pose.errors import UserError, run_cli
from llava_pose.evaluation import read_lines
from llava_pose.scene import PosedImage, load_split

PUBLISHED = json.loads((files("llava_pose") / "assets/published_results.json").read_text(encoding="utf-8"))
COLUMNS = (
    ("acc_pi_6", "acc@π/6 %"),
    ("acc_pi_18", "acc@π/18 %"),
    ("median_error_deg", "median °"),
    ("mean_error_deg", "mean °"),
    ("classification_accuracy", "class %"),
    ("count", "objects"),
)
SAMPLES = 6
Row = tuple[str, dict[str, Any]]
"""A table's row: its name and its figures, by the names of ``COLUMNS``; a figure may be missing."""


def published_name(method: str, metrics: dict[str, Any]) -> str:
    """The method with the data its figures are from, which a result over fewer categories cannot share."""
    same = len(metrics["joint"]["categories"]) >= PUBLISHED["categories"]
    return f"{method}, published ({'ImageNet3D' if same else 'other data set: ImageNet3D'})"


def comparison(metrics: dict[str, Any]) -> list[Row]:
    """The averages over all objects: this model, its readings, chance, and the published LLaVA-pose."""
    rows = [("this model", metrics["joint"]["average"])]
    if "argmax" in metrics:
        rows.append(("this model, bin centres (argmax)", metrics["argmax"]))
    rows.append(("this model, pose only", metrics["pose_only"]["average"]))
    rows += [(f"chance: {name}", table) for name, table in metrics.get("chance", {}).items()]
    rows.append((published_name("LLaVA-pose", metrics), PUBLISHED["joint"]["LLaVA-pose"]["average"]))
    return rows


def figure(table: dict[str, Any], column: str) -> str:
    """A figure as it is shown: counts whole, the rest with one digit, a dash where there is none."""
    value = table.get(column)
    if value is None:
        return "–"
    return f"{value:d}" if column == "count" else f"{value:.1f}"


def format_table(metrics: dict[str, Any]) -> str:
    """The terminal's tables: joint classification and pose beside chance and publication, then by meta-class."""
    groups = list(metrics["joint"]["meta_classes"].items())
    return "\n".join(
        [
            *_text_table("joint classification and pose", comparison(metrics)),
            "",
            *_text_table("this model by meta-class", groups),
            *(["", *_text_table("this model, open vocabulary", vocabulary(metrics))] if vocabulary(metrics) else []),
        ]
    )


def vocabulary(metrics: dict[str, Any]) -> list[Row]:
    """Known categories beside novel ones; nothing where there are only known or only novel ones."""
    tables = metrics.get("open_vocabulary", {})
    return [(f"{name} categories", table) for name, table in tables.items()] if len(tables) > 1 else []


def _text_table(title: str, rows: Sequence[Row]) -> list[str]:
    width = max(len(title), *(len(name) for name, _ in rows))
    lines = [f"{title:<{width}}" + "".join(f"{head:>12}" for _, head in COLUMNS)]
    for name, table in rows:
        lines.append(f"{name:<{width}}" + "".join(f"{figure(table, column):>12}" for column, _ in COLUMNS))
    return lines


def write_report(path: Path, metrics: dict[str, Any], lines: Sequence[dict[str, Any]], data: Any) -> None:
    """Write the page, whole or not at all.

    ``metrics`` as in metrics.json, ``lines`` as in predictions.jsonl (angles in radians), ``data`` the split
    they are about (``scene.load_split``), for the pictures.
    """
    write_text(path, render(metrics, lines, record_finder(data)))


def write_text(path: Path, text: str) -> None:
    """Write a file so that it appears whole or not at all."""
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(text, encoding="utf-8")
    os.replace(partial, path)


def record_finder(data: Any) -> Callable[[dict[str, Any]], PosedImage | None]:
    """A function that finds a prediction line's record in a split, or None where it has none."""
    rows = enumerate(data.select_columns(["image_id", "objects"]))
    places = {(row["image_id"], item["object_id"]): index for index, row in rows for item in row["objects"]}

    def find(line: dict[str, Any]) -> PosedImage | None:
        index = places.get((line["image_id"], line["object_id"]))
        return None if index is None else PosedImage.from_row(data[index])

    return find


def render(
    metrics: dict[str, Any],
    lines: Sequence[dict[str, Any]],
    find: Callable[[dict[str, Any]], PosedImage | None],
) -> str:
    """The page's HTML; ``find`` gives the record of a line, for its picture."""
    joint, pose_only = metrics["joint"], metrics["pose_only"]
    published = [(published_name(name, metrics), tables["average"]) for name, tables in PUBLISHED["joint"].items()]
    by_group = [
        row
        for name, table in joint["meta_classes"].items()
        for row in ((name, table), *_published_group(name, metrics))
    ]
    ranked = sorted(lines, key=joint_error)
    middle = max(0, len(ranked) // 2 - SAMPLES // 2)
    shown = (
        ("Best", ranked[:SAMPLES]),
        ("In the middle", ranked[middle : middle + SAMPLES]),
        ("Worst", ranked[-SAMPLES:][::-1]),
    )
    return page.document(
        "LLaVA-pose evaluation",
        page.tiles([(head, figure(joint["average"], column)) for column, head in COLUMNS]),
        page.section(
            "Joint classification and pose", _table([*comparison(metrics)[:-1], *published]), PUBLISHED["source"]
        ),
        page.section("Pose errors", page.histogram(lines), "Geodesic angle between predicted and true rotation."),
        page.section("By meta-class, joint", _table(by_group)),
        *([page.section("Open vocabulary, joint", _table(vocabulary(metrics)))] if vocabulary(metrics) else []),
        page.section("By category, joint", _table(sorted(joint["categories"].items()))),
        page.section("By category, pose only", _table(sorted(pose_only["categories"].items()))),
        page.section("Most frequent confusions", page.confusions(lines)),
        *(page.section(title, page.gallery([(line, find(line)) for line in some])) for title, some in shown),
        page.section("Settings", page.settings(metrics["settings"])),
    )


def _published_group(name: str, metrics: dict[str, Any]) -> list[Row]:
    table = PUBLISHED["joint"]["LLaVA-pose"]["meta_classes"].get(name)
    return [] if table is None else [(f"↳ {published_name('LLaVA-pose', metrics)}", table)]


def _table(rows: Sequence[Row]) -> str:
    heads = [head for _, head in COLUMNS]
    return page.table(heads, [(name, [figure(table, column) for column, _ in COLUMNS]) for name, table in rows])


def joint_error(line: dict[str, Any]) -> float:
    """The error that ranks a prediction, in radians: π where it is not finite, and π more for a wrong class."""
    error = line["pose_error"]
    finite = error if error is not None and math.isfinite(error) else math.pi
    return finite + (0.0 if line["correct"] else math.pi)


def main() -> None:
    """Write the page of an evaluation that is already there."""
    parser = CommandParser(description="Write report.html anew from an evaluation's results.")
    parser.add_argument("--out", type=Path, required=True, help="folder with metrics.json and predictions.jsonl")
    parser.add_argument("--data", type=Path, required=True, help="data folder of the evaluation")
    parser.add_argument("--split", default="val")
    options = parser.parse_args()
    for name in ("metrics.json", "predictions.jsonl"):
        if not (options.out / name).is_file():
            raise UserError(f"{options.out}: {name} is missing")
    try:
        metrics = json.loads((options.out / "metrics.json").read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{options.out / 'metrics.json'}: not JSON: {error}") from error
    lines = read_lines(options.out / "predictions.jsonl")
    write_report(options.out / "report.html", metrics, lines, load_split(options.data, options.split))
    print(options.out / "report.html")


if __name__ == "__main__":
    run_cli(main)
