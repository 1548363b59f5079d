"""What no model at all scores: the chance level beside which a result means something."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from llava_pose.bins import PoseBins
from llava_pose.evaluation import score
from llava_pose.geometry import pose_error


def constant_lines(lines: Sequence[dict[str, Any]], train: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The lines a constant predictor gives: the training split's most frequent category and pose bins, always.

    ``train`` holds the training objects (``category, azimuth, elevation, theta``).
    """
    category = Counter(item["category"] for item in train).most_common(1)[0][0]
    bins = PoseBins()
    poses = np.array([[item["azimuth"], item["elevation"], item["theta"]] for item in train])
    cells = Counter(map(tuple, bins.encode(poses).tolist()))
    pose = bins.centers[list(cells.most_common(1)[0][0])]
    return [_line(line, category, pose) for line in lines]


def random_lines(lines: Sequence[dict[str, Any]], categories: Sequence[str], seed: int = 0) -> list[dict[str, Any]]:
    """The lines a random predictor gives: a uniform category and a uniform rotation."""
    rng = np.random.default_rng(seed)
    predicted = []
    for line in lines:
        # The camera direction is uniform on the sphere when the sine of the elevation is uniform.
        azimuth, theta = rng.uniform(0, 2 * math.pi, 2)
        elevation = math.asin(rng.uniform(-1, 1))
        category = categories[int(rng.integers(len(categories)))]
        predicted.append(_line(line, category, np.array([azimuth, elevation, theta])))
    return predicted


def chance_levels(
    lines: Sequence[dict[str, Any]], train: Sequence[dict[str, Any]], categories: Sequence[str]
) -> dict[str, dict[str, Any]]:
    """The joint averages of both predictors on the objects of ``lines``."""
    predictors = {"constant": constant_lines(lines, train), "random": random_lines(lines, categories)}
    return {name: score(predicted)["joint"]["average"] for name, predicted in predictors.items()}


def _line(line: dict[str, Any], category: str, pose: np.ndarray) -> dict[str, Any]:
    target = line["target"]
    truth = [target["azimuth"], target["elevation"], target["theta"]]
    return {
        "category": line["category"],
        "correct": category == line["category"],
        "pose_error": float(pose_error(pose, truth)),
    }
