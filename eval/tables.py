"""Tables of an evaluation's figures: which stand beside which, and how they are printed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.resources import files
from typing import Any

PUBLISHED = json.loads((files("llava_pose") / "assets/published_results.json").read_text(encoding="utf-8"))
COLUMNS = (
    ("acc_pi_6", "acc@π/6 %"),
    ("acc_pi_18", "acc@π/18 %"),
    ("median_error_deg", "median °"),
    ("mean_error_deg", "mean °"),
    ("classification_accuracy", "class %"),
    ("count", "objects"),
)
Row = tuple[str, Mapping[str, Any]]
"""A table's row: its name and its figures, by the names of ``COLUMNS``; a figure may be missing."""


def published_on(metrics: Mapping[str, Any]) -> str:
    """What data the published figures are on, which a result over fewer categories cannot share."""
    same = len(metrics["joint"]["categories"]) >= PUBLISHED["categories"]
    return f"published ({'ImageNet3D' if same else 'other data set: ImageNet3D'})"


def comparison(metrics: Mapping[str, Any]) -> list[Row]:
    """The averages over all objects: this model, its readings, and chance."""
    rows = [("this model", metrics["joint"]["average"])]
    if "argmax" in metrics:
        rows.append(("this model, bin centres (argmax)", metrics["argmax"]))
    rows.append(("this model, pose only", metrics["pose_only"]["average"]))
    if "given_class" in metrics:
        rows.append(("this model, pose at the true class", metrics["given_class"]))
    return [*rows, *((f"chance: {name}", table) for name, table in metrics.get("chance", {}).items())]


def published(metrics: Mapping[str, Any], method: str = "LLaVA-pose") -> Row:
    """The published averages of a method, by its name and the data they are on."""
    return f"{method}, {published_on(metrics)}", PUBLISHED["joint"][method]["average"]


def figure(table: Mapping[str, Any], column: str) -> str:
    """A figure as it is shown: counts whole, the rest with one digit, a dash where there is none."""
    value = table.get(column)
    if value is None:
        return "–"
    return f"{value:d}" if column == "count" else f"{value:.1f}"


def vocabulary(metrics: Mapping[str, Any]) -> list[Row]:
    """Known categories beside novel ones; nothing where there are only known or only novel ones."""
    tables = metrics.get("open_vocabulary", {})
    return [(f"{name} categories", table) for name, table in tables.items()] if len(tables) > 1 else []
