"""Tables and a page about an evaluation.

    python eval/report.py --out DIR --data DIR [--split val]

Writes DIR/report.html anew from the metrics.json and predictions.jsonl that eval/benchmark.py left in DIR, with
pictures from the data. The page is one file without scripts or outside resources.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from eval import page, sections
from eval.findings import Line
from eval.tables import COLUMNS, Row, comparison, figure, published, vocabulary
from llava_pose.arguments import CommandParser
from llava_pose.errors import UserError, run_cli
from llava_pose.evaluation import read_lines
from llava_pose.files import write_atomic
from llava_pose.scene import PosedImage, load_split

FIELDS = {
    *("image_id", "object_id", "category", "predicted_category", "class_probability", "azimuth", "elevation", "theta"),
    *("target", "pose_error", "correct"),
}


def format_table(metrics: Line) -> str:
    """The terminal's tables: joint classification and pose beside chance and publication, then by meta-class."""
    groups = list(metrics["joint"]["meta_classes"].items())
    return "\n".join(
        [
            *_text_table("joint classification and pose", [*comparison(metrics), published(metrics)]),
            "",
            *_text_table("this model by meta-class", groups),
            *(["", *_text_table("this model, open vocabulary", vocabulary(metrics))] if vocabulary(metrics) else []),
        ]
    )


def _text_table(title: str, rows: Sequence[Row]) -> list[str]:
    width = max(len(title), *(len(name) for name, _ in rows))
    lines = [f"{title:<{width}}" + "".join(f"{head:>12}" for _, head in COLUMNS)]
    for name, table in rows:
        lines.append(f"{name:<{width}}" + "".join(f"{figure(table, column):>12}" for column, _ in COLUMNS))
    return lines


def write_report(path: Path, metrics: Line, lines: Sequence[Line], data: Any) -> None:
    """Write the page, whole or not at all.

    ``metrics`` as in metrics.json, ``lines`` as in predictions.jsonl (angles in radians), ``data`` the split
    they are about (``scene.load_split``), for the pictures.
    """
    write_atomic(path, render(metrics, lines, record_finder(data)))


def record_finder(data: Any) -> Callable[[Line], PosedImage | None]:
    """A function that finds a prediction line's record in a split, or None where it has none."""
    rows = enumerate(zip(data["image_id"][:], data["objects"][:], strict=True))
    places = {(image_id, item["object_id"]): index for index, (image_id, items) in rows for item in items}

    def find(line: Line) -> PosedImage | None:
        index = places.get((line["image_id"], line["object_id"]))
        return None if index is None else PosedImage.from_row(data[index])

    return find


def render(
    metrics: Line,
    lines: Sequence[Line],
    find: Callable[[Line], PosedImage | None],
) -> str:
    """The page's HTML; ``find`` gives the record of a line, for its picture.

    What metrics and lines do not hold, as those of an earlier version do not, is left out of the page.
    """
    failed = [line for line in lines if "error" in line]
    told = [line for line in lines if line["category"] is not None]
    parts = [
        sections.scores(metrics),
        *sections.graphs(told),
        sections.meta_classes(metrics),
        *sections.open_vocabulary(metrics),
        *sections.training_objects(metrics),
        *sections.questions(metrics),
        sections.categories(metrics),
        *sections.pictures([line for line in told if "error" not in line], find),
        *sections.failed_images(failed),
        ("Settings", "", page.settings(metrics["settings"])),
    ]
    average, intervals = metrics["joint"]["average"], metrics.get("confidence_intervals", {})
    tiles = [(head, sections.cell(average, column, intervals.get(column))) for column, head in COLUMNS]
    return page.document("LLaVA-pose evaluation", subtitle(metrics, len(failed)), page.tiles(tiles), parts)


def subtitle(metrics: Line, failed: int) -> str:
    """What was evaluated, in a line."""
    settings = metrics["settings"]
    words = [str(settings[name]) for name in ("model", "data", "split") if name in settings]
    if settings.get("crop"):
        words.append(f"crops: {settings['crop']}")
    words.append(f"{metrics['joint']['average']['count']} objects")
    if failed:
        words.append(f"{failed} failed and count as misses")
    return " · ".join(words)


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
    metrics = read_metrics(options.out / "metrics.json")
    lines = read_predictions(options.out / "predictions.jsonl")
    find = record_finder(load_split(options.data, options.split))
    for line in lines[:1]:
        if line["target"] is not None and find(line) is None:
            raise UserError(f"{options.data}: has no {line['image_id']}: the predictions are of other data")
    write_atomic(options.out / "report.html", render(metrics, lines, find))
    print(options.out / "report.html")


def read_metrics(path: Path) -> Line:
    """What metrics.json holds. Raises UserError where it is not that of an evaluation."""
    try:
        metrics = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path}: not JSON: {error}") from error
    for name in ("joint", "pose_only", "settings"):
        if not isinstance(metrics, dict) or name not in metrics:
            raise UserError(f"{path}: {name} is missing: not the metrics of an evaluation")
    return metrics


def read_predictions(path: Path) -> Sequence[Line]:
    """What predictions.jsonl holds. Raises UserError for a line that lacks what every version tells."""
    lines = read_lines(path)
    for number, line in enumerate(lines, start=1):
        missing = sorted(FIELDS - line.keys()) if isinstance(line, dict) else ["image_id"]
        if missing:
            raise UserError(f"{path}:{number}: {missing[0]} is missing: not a prediction line")
    return lines


if __name__ == "__main__":
    run_cli(main)
