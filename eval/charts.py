"""The page's graphs as inline SVG, in the page's own colours, drawn to be read at the width of a phone."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from html import escape

import numpy as np

from eval.findings import wilson
from llava_pose.calibration import expected_calibration_error, reliability
from llava_pose.words import SIDES

WIDTH, HEIGHT = 360.0, 236.0
"""Of every graph, in units that are about a pixel on a phone; text is 11 of them high."""

LEFT, RIGHT, TOP, BOTTOM = 36.0, 17.0, 20.0, 36.0
THRESHOLDS = ((10.0, "π/18"), (30.0, "π/6"))
ERROR_STEP, TURN_STEP = 5, 10
"""Widths of the histograms' bars in degrees."""

SHADE = 0.6
"""How opaque a full cell is: numbers stay readable on it, in the light and in the dark."""

INITIALS = tuple("".join(word[0].upper() for word in side.split("-")) for side in SIDES)


@dataclass(frozen=True)
class Axes:
    """Where values lie in a graph: the ranges that its two axes show."""

    x: tuple[float, float]
    y: tuple[float, float]

    def at(self, x: float, y: float) -> tuple[float, float]:
        """A point in the graph's own units."""
        across = (x - self.x[0]) / (self.x[1] - self.x[0])
        up = (y - self.y[0]) / (self.y[1] - self.y[0])
        return LEFT + across * (WIDTH - LEFT - RIGHT), HEIGHT - BOTTOM - up * (HEIGHT - TOP - BOTTOM)

    def frame(
        self, x_ticks: Iterable[float], y_ticks: Iterable[float], x_name: str, y_name: str, unit: str = "°"
    ) -> str:
        """Grid lines, numbers along both axes, and their names."""
        parts = []
        for value in y_ticks:
            _, y = self.at(self.x[0], value)
            parts.append(f'<line class="grid" x1="{LEFT:g}" x2="{WIDTH - RIGHT:g}" y1="{y:.1f}" y2="{y:.1f}"/>')
            parts.append(_text(LEFT - 5, y + 4, _short(value), "end"))
        for value in x_ticks:
            x, _ = self.at(value, self.y[0])
            parts.append(_text(x, HEIGHT - BOTTOM + 14, f"{value:g}{unit}", "middle"))
        parts.append(_text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 6, x_name, "middle"))
        return "".join(parts) + _text(2, 11, y_name, "start")

    def line(self, points: Sequence[tuple[float, float]], kind: str) -> str:
        """A line through points, dashed, thick or coloured by its kind."""
        path = " ".join("{:.1f},{:.1f}".format(*self.at(x, y)) for x, y in points)
        return f'<polyline class="{kind}" points="{path}"/>'

    def bar(self, left: float, right: float, low: float, high: float, kind: str, told: str) -> str:
        """An upright bar, with what it says to a pointer that rests on it."""
        (x1, y1), (x2, y2) = self.at(left, low), self.at(right, high)
        shape = f'x="{x1 + 0.6:.1f}" y="{y2:.1f}" width="{x2 - x1 - 1.2:.1f}" height="{y1 - y2:.1f}"'
        return f'<rect class="{kind}" {shape}><title>{escape(told)}</title></rect>'

    def dot(self, x: float, y: float, kind: str, told: str) -> str:
        """A round mark of a kind, with what it says to a pointer."""
        px, py = self.at(x, y)
        return f'<circle class="{kind}" cx="{px:.1f}" cy="{py:.1f}" r="3.5"><title>{escape(told)}</title></circle>'


def _text(x: float, y: float, words: str, anchor: str, kind: str = "") -> str:
    named = f' class="{kind}"' if kind else ""
    return f'<text{named} x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(words)}</text>'


def _short(value: float) -> str:
    return f"{value / 1000:g}k" if value >= 10_000 else f"{value:g}"


def _svg(body: str, description: str, height: float = HEIGHT) -> str:
    label = escape(description, quote=True)
    return f'<svg viewBox="0 0 {WIDTH:g} {height:g}" role="img" aria-label="{label}">{body}</svg>'


def _legend(entries: Sequence[tuple[str, str]]) -> str:
    """Coloured marks with their names, at the upper right."""
    x, parts = WIDTH - RIGHT, []
    for kind, words in reversed(entries):
        x -= 5.6 * len(words)
        parts.append(_text(x, 11, words, "start"))
        parts.append(f'<rect class="{kind}" x="{x - 13:.1f}" y="2" width="9" height="9"/>')
        x -= 24
    return "".join(parts)


def error_histogram(errors: np.ndarray, correct: np.ndarray) -> str:
    """Pose errors (N,) in radians over 0° to 180°, those of a wrongly named class (``correct`` (N,) false) on top."""
    last = 180 // ERROR_STEP - 1
    index = np.minimum(np.degrees(errors) // ERROR_STEP, last).astype(int)
    right = np.bincount(index[correct], minlength=last + 1)
    wrong = np.bincount(index[~correct], minlength=last + 1)
    top, ticks = _ticks(max(int((right + wrong).max()), 1))
    axes = Axes((0, 180), (0, top))
    bars = []
    for number in range(last + 1):
        low, edges = right[number], (number * ERROR_STEP, (number + 1) * ERROR_STEP)
        place = f"{edges[0]}° to {edges[1]}°"
        if low:
            bars.append(axes.bar(*edges, 0, low, "right", f"{place}: {low} with the right class"))
        if wrong[number]:
            told = f"{place}: {wrong[number]} with a wrong class"
            bars.append(axes.bar(*edges, low, low + wrong[number], "missed", told))
    frame = axes.frame(range(0, 181, 30), ticks, "pose error", "objects")
    legend = _legend([("right", "class right"), ("missed", "class wrong")])
    median = float(np.degrees(np.median(errors))) if len(errors) else 0.0
    description = f"Histogram of the pose errors of {len(errors)} objects; half of them err by less than {median:.1f}°."
    return _svg(frame + "".join(bars) + _thresholds(axes, TOP + 9) + legend, description)


def cumulative(curves: Sequence[tuple[str, str, Callable[[np.ndarray], np.ndarray]]]) -> str:
    """The share of objects within every threshold from 0° to 180°.

    curves: for each its name, its kind of line, and the share in percent (T,) below thresholds (T,) in radians.
    """
    axes = Axes((0, 180), (0, 100))
    degrees = np.concatenate([np.arange(0, 30, 0.5), np.arange(30, 181, 1.0)])
    lines, told = [], []
    for name, kind, share in curves:
        lines.append(axes.line(list(zip(degrees, share(np.radians(degrees)), strict=True)), f"curve {kind}"))
        at = share(np.radians([degrees for degrees, _ in THRESHOLDS]))
        words = " and ".join(f"{value:.1f} % within {label}" for value, (_, label) in zip(at, THRESHOLDS, strict=True))
        told.append(f"{name}: {words}")
    frame = axes.frame(range(0, 181, 30), range(0, 101, 25), "threshold", "% of objects within")
    legend = _legend([(kind, name) for name, kind, _ in curves])
    return _svg(
        frame + _thresholds(axes, HEIGHT - BOTTOM - 5) + "".join(lines) + legend,
        f"Accuracy at every threshold. {'; '.join(told)}.",
    )


def _thresholds(axes: Axes, height: float) -> str:
    """The metric's two thresholds, with their names at a height."""
    parts = []
    for degrees, name in THRESHOLDS:
        x, bottom = axes.at(degrees, axes.y[0])
        parts.append(f'<line class="mark" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP:g}" y2="{bottom:.1f}"/>')
        parts.append(_text(x + 3, height, name, "start"))
    return "".join(parts)


def sides(counts: np.ndarray) -> str:
    """Which side is taken for which: (8, 8) counts, true sides by rows, each shaded by its share of the row."""
    left, top, wide, high = 76.0, 34.0, 34.0, 23.0
    shares = 100.0 * counts / np.maximum(counts.sum(1, keepdims=True), 1)
    parts = [_text(left + 4 * wide, 11, "taken for its …", "middle")]
    for number, side in enumerate(SIDES):
        parts.append(_text(left + (number + 0.5) * wide, top - 6, INITIALS[number], "middle"))
        parts.append(_text(left - 6, top + (number + 0.5) * high + 4, side, "end"))
    for row, column in np.ndindex(8, 8):
        x, y, share = left + column * wide, top + row * high, float(shares[row, column])
        told = f"{SIDES[row]} taken for {SIDES[column]}: {counts[row, column]} ({share:.1f} %)"
        title, shade = f"<title>{escape(told)}</title>", f'fill-opacity="{SHADE * share / 100:.3f}"'
        shape = f'x="{x + 0.5:.1f}" y="{y + 0.5:.1f}" width="{wide - 1:g}" height="{high - 1:g}"'
        parts.append(f'<rect class="cell" {shape}/>')
        kind = "right" if row == column else "missed"
        parts.append(f'<rect class="{kind}" {shape} {shade}>{title}</rect>')
        if counts[row, column]:
            words = f"{share:.0f}" if share >= 0.5 else "·"
            parts.append(_text(x + wide / 2, y + high / 2 + 4, words, "middle", "ink"))
    seen = counts.sum(1) > 0
    straight = 100.0 * np.trace(counts) / max(int(counts.sum()), 1)
    turned = 100.0 * sum(counts[row, (row + 4) % 8] for row in range(8)) / max(int(counts.sum()), 1)
    description = (
        f"Table of the side of {int(seen.sum())} of 8 that is seen against the side it is taken for, by azimuth: "
        f"{straight:.1f} % are right, {turned:.1f} % are taken for the opposite side."
    )
    return _svg("".join(parts), description, top + 8 * high + 8)


def turns(errors: np.ndarray) -> str:
    """Azimuth errors (N,) in radians from −180° to 180°, counted on a logarithmic scale: what is rare shows too."""
    bars_each_way = 180 // TURN_STEP
    # The middle bar is around 0°, and half a turn either way is the same: half a bar at each end.
    index = np.round(np.degrees(errors) / TURN_STEP).astype(int)
    counts = {place: int((index == place).sum()) for place in range(-bars_each_way, bars_each_way + 1)}
    counts[bars_each_way] = counts[-bars_each_way] = counts[bars_each_way] + counts[-bars_each_way]
    decades = max(1, math.ceil(math.log10(max(1, *counts.values()))))
    axes = Axes((-180, 180), (-0.15, decades))
    bars = []
    for place, count in counts.items():
        if count:
            middle = place * TURN_STEP
            edges = max(middle - TURN_STEP / 2, -180), min(middle + TURN_STEP / 2, 180)
            kind = "right" if abs(middle) < 90 else "missed"
            bars.append(axes.bar(*edges, -0.15, math.log10(count), kind, f"around {middle}°: {count}"))
    frame = axes.frame(range(-180, 181, 90), (), "predicted less true azimuth", "objects")
    numbers = "".join(
        _text(LEFT - 5, axes.at(0, power)[1] + 4, _short(10**power), "end") for power in range(decades + 1)
    )
    description = (
        f"Histogram of the azimuth errors of {len(errors)} objects from −180° to 180°, on a logarithmic scale."
    )
    return _svg(frame + numbers + "".join(bars), description)


def reliability_diagram(series: Sequence[tuple[str, str, np.ndarray, np.ndarray]]) -> str:
    """Confidence against the share of hits, in bins of as many objects each, with the share's 95 % interval.

    series: for each what is hit, the kind of its dots, the confidences (M,) and the hits (M,).
    """
    axes, parts, told = Axes((0, 100), (0, 100)), [], []
    for name, kind, confidence, hits in series:
        for row in reliability(confidence, hits):
            x, y, count = 100 * row["predicted"], 100 * row["observed"], int(row["count"])
            low, high = wilson(row["observed"], count)
            parts.append(axes.line([(x, 100 * low), (x, 100 * high)], "whisker"))
            parts.append(axes.dot(x, y, kind, f"{name}: {x:.0f} % sure, {y:.0f} % of {count} right"))
        gap = 100 * expected_calibration_error(confidence, hits)
        told.append(f"{name}: {gap:.1f} percentage points apart on average over {len(confidence)} objects")
    frame = axes.frame(range(0, 101, 25), range(0, 101, 25), "confidence", "% right", "%")
    legend = _legend([(kind, name) for name, kind, _, _ in series])
    description = f"Reliability diagram, confidence and the share that is right. {'; '.join(told)}."
    return _svg(frame + axes.line([(0, 0), (100, 100)], "mark") + "".join(parts) + legend, description)


def expected_against_real(expected: np.ndarray, real: np.ndarray) -> str:
    """The error that predictions expect (M,) against the mean real one (M,), both in radians, in bins of as many
    objects each."""
    rows = [
        (math.degrees(row["predicted"]), math.degrees(row["observed"]), row["count"])
        for row in reliability(expected, real)
    ]
    top, ticks = _ticks(max([5.0, *(max(x, y) for x, y, _ in rows)]))
    axes = Axes((0, top), (0, top))
    dots = [axes.dot(x, y, "right", f"expected {x:.1f}°, real {y:.1f}° ({count:g} objects)") for x, y, count in rows]
    line = axes.line([(x, y) for x, y, _ in rows], "curve right") if rows else ""
    frame = axes.frame(ticks, ticks, "expected error", "mean real error, °")
    description = (
        f"Expected against real error of {len(expected)} predictions: {np.degrees(expected).mean():.1f}° expected on "
        f"average, {np.degrees(real).mean():.1f}° in truth."
    )
    return _svg(frame + axes.line([(0, 0), (top, top)], "mark") + line + "".join(dots), description)


def _ticks(highest: float) -> tuple[float, list[float]]:
    """A round number not below the highest value, and some four round steps up to it."""
    unit = 10.0 ** math.floor(math.log10(highest / 4))
    step = next(unit * times for times in (1, 2, 2.5, 5, 10) if unit * times * 5 >= highest)
    step = max(step, 1.0) if highest == int(highest) else step
    count = math.ceil(highest / step - 1e-9)
    return step * count, [step * number for number in range(count + 1)]
