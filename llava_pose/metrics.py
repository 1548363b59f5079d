"""The shared geodesic metric on joint classification and pose (ImageNet3D).

A sample whose class is wrong has π added to its pose error; a pose that is not finite counts as error π. Accuracies
use a strict ``<``; the median and the mean are taken over all samples of a table and, with the added π, can exceed
180°.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from . import taxonomy
from .geometry import project

Table = dict[str, float | int | None]


def joint_metrics(
    pose_errors: Any,
    correct: Any,
    categories: Sequence[str],
    meta_classes: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Joint classification and pose over N samples.

    pose_errors (N,) in radians in [0, π] (not finite counts as π); correct (N,) bool, whether the class was right;
    categories: N names of the true class. ``meta_classes`` maps a category to its meta-class (the taxonomy's
    otherwise).

    Returns ``{"average": table, "meta_classes": {name: table}, "categories": {name: table}}``, each table with
    ``acc_pi_6, acc_pi_18, classification_accuracy`` in percent, ``median_error_deg, mean_error_deg`` and ``count``.

    Raises ValueError when there are no samples, the lengths differ, or an error lies outside [0, π].
    """
    errors, right = _checked(pose_errors, correct, categories)
    joint = errors + np.where(right, 0.0, math.pi)
    return _tables(joint, right, categories, meta_classes)


def pose_only_metrics(
    pose_errors: Any,
    correct: Any,
    categories: Sequence[str],
    meta_classes: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """The same tables as ``joint_metrics`` without the added π: pose errors alone, whatever the class."""
    errors, right = _checked(pose_errors, correct, categories)
    return _tables(errors, right, categories, meta_classes)


def average_distance(
    points: Any, predicted: Any, target: Any, distance: Any, viewport: Any, principal: Any, box: Any
) -> np.ndarray:
    """How far apart two poses project a CAD model: mean pixel distance over the diagonal of the object's box, (…).

    The second metric of StanfordCars3D and CompCars3D, where below 0.1 is correct. points (N, 3) in the object's frame;
    poses (…, 3) in radians; distance (…), viewport (…) and principal (…, 2) of the true camera, which both share; box
    (…, 4) as x1, y1, x2, y2. A pose that is not finite gives nan, which is not below 0.1.
    """
    first, second = (project(points, pose, distance, viewport, principal) for pose in (predicted, target))
    x1, y1, x2, y2 = np.moveaxis(np.asarray(box, dtype=np.float64), -1, 0)
    return np.linalg.norm(first - second, axis=-1).mean(-1) / np.hypot(x2 - x1, y2 - y1)


def _checked(pose_errors: Any, correct: Any, categories: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    errors = np.asarray(pose_errors, dtype=np.float64)
    right = np.asarray(correct, dtype=bool)
    if not (errors.ndim == right.ndim == 1 and len(errors) == len(right) == len(categories)):
        raise ValueError(
            f"pose_errors, correct and categories must be of one length, got {errors.shape}, {right.shape} "
            f"and {len(categories)}"
        )
    if len(errors) == 0:
        raise ValueError("no samples to score")
    errors = np.where(np.isfinite(errors), errors, math.pi)
    if errors.min() < 0 or errors.max() > math.pi + 1e-9:
        raise ValueError(f"pose errors must lie in [0, π], got {errors.min()} to {errors.max()}")
    return errors, right


def _tables(
    errors: np.ndarray, right: np.ndarray, categories: Sequence[str], meta_classes: Mapping[str, str] | None
) -> dict[str, Any]:
    names = np.asarray(categories)
    groups = [meta_classes[name] if meta_classes else taxonomy.meta_class(name) for name in categories]
    return {
        "average": _table(errors, right),
        "meta_classes": _by_group(errors, right, np.asarray(groups)),
        "categories": _by_group(errors, right, names),
    }


def _by_group(errors: np.ndarray, right: np.ndarray, groups: np.ndarray) -> dict[str, Table]:
    return {str(name): _table(errors[groups == name], right[groups == name]) for name in np.unique(groups)}


def _table(errors: np.ndarray, right: np.ndarray) -> Table:
    return {
        "acc_pi_6": float(np.mean(errors < math.pi / 6) * 100),
        "acc_pi_18": float(np.mean(errors < math.pi / 18) * 100),
        "median_error_deg": math.degrees(float(np.median(errors))),
        "mean_error_deg": math.degrees(float(np.mean(errors))),
        "classification_accuracy": float(np.mean(right) * 100),
        "count": len(errors),
    }
