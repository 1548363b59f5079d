"""The sections of the page about an evaluation, each from what the metrics and the prediction lines hold.

A section is a heading, an explanation (or none), and a body of HTML; one whose figures may not be there comes as a list
that is empty then.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

from eval import charts, findings, page
from eval.findings import Line
from eval.tables import COLUMNS, PUBLISHED, Row, comparison, figure, published_on, vocabulary
from llava_pose.calibration import expected_calibration_error
from llava_pose.reading import HIT
from llava_pose.scene import PosedImage
from llava_pose.taxonomy import spoken_name

Section = tuple[str, str, str]

HEADS = [head for _, head in COLUMNS]
QUESTION_COLUMNS = (
    ("accuracy", "right %"),
    ("chance_majority", "always the same %"),
    ("chance_uniform", "at random %"),
    ("flip_consistency", "consistent in the mirror %"),
    ("median_error_deg", "median °"),
    ("count", "questions"),
)
SAMPLES = 6


def scores(metrics: Line) -> Section:
    """The averages beside those of chance and of publications, with the confidence intervals of this model's."""
    intervals = metrics.get("confidence_intervals", {})
    (name, average), *more = comparison(metrics)
    first = page.Row(page.Cell(name), [cell(average, column, intervals.get(column)) for column, _ in COLUMNS])
    others = [_other(method, tables["average"], metrics) for method, tables in PUBLISHED["joint"].items()]
    level = metrics["settings"].get("bootstrap", {}).get("level")
    words = "" if level is None else f"Below a score: its {100 * level:g} % confidence interval (bootstrap). "
    source = page.note(f"{words}{PUBLISHED['source'].partition(';')[0]}.")
    return "Scores", "", page.table(HEADS, [first, *map(_row, more), *others]) + source


def meta_classes(metrics: Line) -> Section:
    """The meta-classes, each beside its published row."""
    published = PUBLISHED["joint"]["LLaVA-pose"]["meta_classes"]
    rows = []
    for name, table in metrics["joint"]["meta_classes"].items():
        rows.append(_row((name, table), bars=True))
        if name in published:
            rows.append(_other("LLaVA-pose", published[name], metrics, bars=True))
    return "By meta-class", "", page.table(HEADS, rows)


def open_vocabulary(metrics: Line) -> list[Section]:
    """Known categories beside novel ones."""
    rows = [_row(row, bars=True) for row in vocabulary(metrics)]
    return [("Open vocabulary", "", page.table(HEADS, rows))] if rows else []


def training_objects(metrics: Line) -> list[Section]:
    """Categories by how many objects they have to train on."""
    bands = metrics.get("by_training_objects", {})
    words = "Categories by how many of their objects are in the training split."
    rows = [_row(row, bars=True) for row in bands.items()]
    return [("By training objects", words, page.table(HEADS, rows))] if len(bands) > 1 else []


def questions(metrics: Line) -> list[Section]:
    """The kinds of 3D questions."""
    if "questions" not in metrics:
        return []
    tables = [*metrics["questions"]["kinds"].items(), ("all", metrics["questions"]["overall"])]
    rows = [
        page.Row(page.Cell(name), [page.Cell(figure(table, column)) for column, _ in QUESTION_COLUMNS])
        for name, table in tables
    ]
    return [("3D questions", "", page.table([head for _, head in QUESTION_COLUMNS], rows))]


def categories(metrics: Line) -> Section:
    """Every category, and those of pose errors alone at a click."""
    joint, pose_only = (
        page.table(
            HEADS, [_row((spoken_name(category), table), bars=True) for category, table in sorted(tables.items())]
        )
        for tables in (metrics[name]["categories"] for name in ("joint", "pose_only"))
    )
    return "By category", "", joint + page.folded("The same of poses only, whatever the class", pose_only)


def graphs(lines: Sequence[Line]) -> list[Section]:
    """All graphs; none where there is no line."""
    if not lines:
        return []
    parts = [*_error_graphs(lines), *_azimuth_graphs(findings.readable(lines)), *_certainty_graphs(lines)]
    return [("Graphs", "", page.charts(parts))]


def _error_graphs(lines: Sequence[Line]) -> list[str]:
    errors, joint = findings.pose_errors(lines), findings.joint_errors(lines)
    curves = [
        ("pose only", "other", partial(findings.within, errors)),
        ("class and pose", "right", partial(findings.within, joint)),
    ]
    lost = " An object without a pose counts as 180°."
    return [
        page.chart(
            "Pose errors",
            charts.error_histogram(errors, joint <= errors),
            f"The angle of the turn from the true to the predicted pose, whatever the class.{lost}",
        ),
        page.chart(
            "Accuracy at every threshold",
            charts.cumulative(curves),
            "The share of objects that err by less than so much: whatever the class, and with the right one.",
        ),
    ]


def _azimuth_graphs(lines: Sequence[Line]) -> list[str]:
    every, missed = findings.half_turns(lines)
    told, right = findings.alternatives(lines)
    turned = (
        f"Half a turn off (give or take 20°), so that the opposite side is taken for the one seen: {every.part} of "
        f"{every.whole} objects ({every.percent:.1f} %), {missed.part} of the {missed.whole} that err by 30° or more."
    )
    also = (
        f"The model tells of another possible pose for {told.percent:.1f} % of the objects; it is the right one for "
        f"{right.part} of the {right.whole} that err by 30° or more."
    )
    return [
        page.chart("Which side is seen", charts.sides(findings.side_confusion(lines)), turned),
        page.chart(
            "Azimuth errors",
            charts.turns(findings.azimuth_errors(lines)),
            also if told.part else "On a logarithmic scale, so that the few that are far off show too.",
        ),
    ]


def _certainty_graphs(lines: Sequence[Line]) -> list[str]:
    parts, series, gaps = [], [], []
    for name, kind, joint in (("class and pose", "other", True), ("pose", "right", False)):
        confidence, hits = findings.confidences(lines, joint)
        if len(confidence):
            series.append((name, kind, confidence, hits))
            gaps.append(f"{100 * expected_calibration_error(confidence, hits):.1f} for {name}")
    if series:
        words = (
            "A dot is a fifteenth of the objects, by rising confidence, with its 95 % interval. Dots of a calibrated "
            f"model lie on the dashed line; how many points these are off on average (ECE): {', '.join(gaps)}."
        )
        parts.append(page.chart("Confidence and truth", charts.reliability_diagram(series), words))
    expected, real = findings.expected_errors(lines)
    if len(expected):
        words = "A dot is a fifteenth of the objects, by the error that the model itself expects."
        parts.append(page.chart("Expected and real error", charts.expected_against_real(expected, real), words))
    return parts


def pictures(lines: Sequence[Line], find: Callable[[Line], PosedImage | None]) -> list[Section]:
    """Confusions of classes, and galleries of predictions; ``find`` gives the record of a line."""
    ranked = sorted(lines, key=joint_error)
    middle = max(0, len(ranked) // 2 - SAMPLES // 2)
    misses = (line for line in lines if joint_error(line) >= HIT and _confidence(line) is not None)
    axes = "Each object's own front (red), left (green) and up (blue) axes, as predicted and in truth."
    galleries = (
        ("Typical predictions", f"From the middle of all. {axes}", ranked[middle : middle + SAMPLES]),
        ("Worst predictions", f"By error, wrong classes first. {axes}", ranked[-SAMPLES:][::-1]),
        ("Surest misses", f"A wrong class or 30° off, in spite of high confidence. {axes}", _surest(misses)),
    )
    return [
        ("Most frequent confusions", "", page.confusions(lines)),
        *(
            (title, words, page.gallery([(line, find(line)) for line in some]))
            for title, words, some in galleries
            if some
        ),
    ]


def _surest(lines: Iterable[Line]) -> list[Line]:
    return sorted(lines, key=_confidence, reverse=True)[:SAMPLES]


def _confidence(line: Line) -> Any:
    """How sure a line is of class and pose, or of the pose alone where it does not tell more; None where of neither."""
    joint = line.get("joint_confidence")
    return line.get("confidence") if joint is None else joint


def failed_images(lines: Sequence[Line]) -> list[Section]:
    """What could not be looked at, and why."""
    words = "They count as misses: an error of 180°, and a wrong class."
    return [("Failed images", words, page.failures(lines))] if lines else []


def joint_error(line: Line) -> float:
    """The error that ranks a prediction, in radians: π where it is not finite, and π more for a wrong class."""
    error = line["pose_error"]
    finite = error if error is not None and math.isfinite(error) else math.pi
    return finite + (0.0 if line["correct"] else math.pi)


def cell(table: Line, column: str, interval: Sequence[float] | None = None, bar: bool = False) -> page.Cell:
    """A figure of a table, with its confidence interval or a bar behind it."""
    value = table.get(column)
    below = "" if interval is None or value is None else f"{interval[0]:.1f} – {interval[1]:.1f}"
    return page.Cell(figure(table, column), below, value if bar and column.startswith("acc_") else None)


def _row(row: Row, bars: bool = False) -> page.Row:
    name, table = row
    return page.Row(page.Cell(name), [cell(table, column, bar=bars) for column, _ in COLUMNS])


def _other(method: str, table: Line, metrics: Line, bars: bool = False) -> page.Row:
    return page.Row(page.Cell(method, published_on(metrics)), _row((method, table), bars).cells, other=True)
