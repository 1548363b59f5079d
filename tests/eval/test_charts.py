"""The graphs: every object is in them once, at the place its value says."""

import math
import re
import xml.etree.ElementTree as ET

import numpy as np
import pytest

from eval import charts
from eval.charts import Axes

SVG = "{http://www.w3.org/2000/svg}"


def parsed(graph):
    """The graph's elements; it is well formed, told in words, and no text lies beyond its edges."""
    root = ET.fromstring(graph.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1))
    assert root.get("role") == "img" and len(root.get("aria-label")) > 40
    width, height = map(float, root.get("viewBox").split()[2:])
    for text in root.iter(f"{SVG}text"):
        x, y, length = float(text.get("x")), float(text.get("y")), 6.2 * len(text.text)
        left = x - {"start": 0, "middle": 0.5, "end": 1}[text.get("text-anchor")] * length
        assert left > -3 and left + length < width + 4 and 8 <= y <= height, text.text
    return root


def titles(root):
    return [title.text for title in root.iter(f"{SVG}title")]


def numbers(root):
    return [int(re.search(r": (\d+)", title)[1]) for title in titles(root)]


def test_values_lie_between_the_axes():
    axes = Axes((0, 180), (0, 100))
    assert axes.at(0, 0) == (charts.LEFT, charts.HEIGHT - charts.BOTTOM)
    assert axes.at(180, 100) == (charts.WIDTH - charts.RIGHT, charts.TOP)
    assert axes.at(90, 50) == tuple((a + b) / 2 for a, b in zip(axes.at(0, 0), axes.at(180, 100), strict=True))


def test_the_error_histogram_counts_every_object_once():
    errors = np.radians([0, 4.9, 5.1, 90, 179, 180, 180])
    correct = np.array([True, True, False, True, True, True, False])
    root = parsed(charts.error_histogram(errors, correct))
    assert sum(numbers(root)) == 7
    assert titles(root) == [
        "0° to 5°: 2 with the right class",
        "5° to 10°: 1 with a wrong class",
        "90° to 95°: 1 with the right class",
        "175° to 180°: 2 with the right class",
        "175° to 180°: 1 with a wrong class",
    ]
    assert "half of them err by less than 90.0°" in root.get("aria-label")


def test_the_cumulative_curve_goes_through_the_accuracies():
    errors = np.radians(np.arange(0.25, 180, 0.5))
    share = lambda at: 100 * np.mean(errors[:, None] < at, axis=0)  # noqa: E731
    root = parsed(charts.cumulative([("pose only", "other", share)]))
    (line,) = (each for each in root.iter(f"{SVG}polyline") if "curve" in each.get("class"))
    points = np.array([point.split(",") for point in line.get("points").split()], dtype=float)
    axes = Axes((0, 180), (0, 100))
    for degrees in (10, 30, 90, 180):
        x, y = axes.at(degrees, 100 * degrees / 180)
        assert np.abs(points - (x, y)).sum(-1).min() < 0.2
    assert "pose only: 5.6 % within π/18 and 16.7 % within π/6" in root.get("aria-label")


def test_the_sides_are_shaded_by_their_share_of_the_true_side():
    counts = np.zeros((8, 8), int)
    counts[0, 0], counts[0, 4], counts[2, 2] = 30, 10, 5
    root = parsed(charts.sides(counts))
    told = dict(title.split(": ") for title in titles(root))
    assert told["front taken for front"] == "30 (75.0 %)" and told["front taken for back"] == "10 (25.0 %)"
    assert told["left taken for left"] == "5 (100.0 %)" and len(told) == 64
    assert "77.8 % are right, 22.2 % are taken for the opposite side" in root.get("aria-label")
    shown = [text.text for text in root.iter(f"{SVG}text") if text.get("class") == "ink"]
    assert shown == ["75", "25", "100"]


def test_half_a_turn_either_way_is_at_both_ends_of_the_azimuth_errors():
    root = parsed(charts.turns(np.radians([0, 3, -4, 50, 178, -178])))
    told = dict(title.split(": ") for title in titles(root))
    assert told == {"around -180°": "2", "around 0°": "3", "around 50°": "1", "around 180°": "2"}


@pytest.mark.parametrize("count", [1, 10, 1000, 40_000])
def test_a_tall_bar_stays_inside_its_graph(count):
    root = parsed(charts.turns(np.zeros(count)))
    parsed(charts.error_histogram(np.zeros(count), np.ones(count, bool)))
    (bar,) = root.iter(f"{SVG}rect")
    assert float(bar.get("y")) >= charts.TOP - 0.1 and float(bar.get("height")) > 5


def test_the_reliability_diagram_has_a_dot_for_each_bin_at_confidence_and_share():
    confidence = np.repeat([0.2, 0.9], 150)
    hits = np.concatenate([np.arange(150) % 5 == 0, np.arange(150) % 2 == 0])
    series = [("class and pose", "other", confidence[:150], hits[:150]), ("pose", "right", confidence, hits)]
    root = parsed(charts.reliability_diagram(series))
    places = {"other": [], "right": []}
    for dot in root.iter(f"{SVG}circle"):
        places[dot.get("class")].append((float(dot.get("cx")), float(dot.get("cy"))))
    axes = Axes((0, 100), (0, 100))
    assert len(places["right"]) == len(places["other"]) == 15
    assert places["other"][3] == places["right"][0] == pytest.approx(axes.at(20, 20), abs=0.06)
    assert places["right"][-1] == pytest.approx(axes.at(90, 50), abs=0.06)
    label = root.get("aria-label")
    assert "class and pose: 0.0 percentage points apart on average over 150 objects" in label
    assert "pose: 20.0 percentage points apart on average over 300 objects" in label


@pytest.mark.parametrize("largest", [0.001, 0.5, math.pi])
def test_expected_and_real_error_share_their_scale(largest):
    expected = np.linspace(0.0, largest, 45)
    root = parsed(charts.expected_against_real(expected, expected))
    slope = (charts.HEIGHT - charts.TOP - charts.BOTTOM) / (charts.WIDTH - charts.LEFT - charts.RIGHT)
    for dot in root.iter(f"{SVG}circle"):
        up = charts.HEIGHT - charts.BOTTOM - float(dot.get("cy"))
        assert up == pytest.approx(slope * (float(dot.get("cx")) - charts.LEFT), abs=0.15)


def test_few_objects_make_graphs_too():
    one = np.array([0.5])
    for graph in (
        charts.error_histogram(one, np.array([True])),
        charts.turns(np.zeros(0)),
        charts.sides(np.zeros((8, 8), int)),
        charts.reliability_diagram([("pose", "right", one, np.array([True]))]),
        charts.expected_against_real(one, one),
    ):
        parsed(graph)


@pytest.mark.parametrize("highest", [1, 3, 7, 42, 199, 200, 201, 12345, 0.4, 5.0])
def test_scales_end_at_a_round_number_just_above_the_highest_value(highest):
    top, ticks = charts._ticks(highest)
    assert ticks[0] == 0 and ticks[-1] == top and highest <= top <= 2 * highest + 1
    assert 2 <= len(ticks) <= 7
    assert np.allclose(np.diff(ticks), ticks[1])
