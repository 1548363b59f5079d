"""Probabilities that mean what they say: fitted to how often a model was right on validation data.

Four quantities, each with one to three numbers, since a few hundred objects determine no more: the probability that a
pose errs by less than π/6 and the probability that its class is right as well (a logistic function of the log-odds,
after Platt), the error to expect (a product of powers of what the model's own distributions say), and the temperature
of the softmax over names. A pose itself is never changed. The fit is kept as ``calibration.json`` in the
model's folder; a model without one is uncalibrated.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from .errors import UserError

FILE_NAME = "calibration.json"
FORMAT = "llava-pose calibration, version 1"
LEAST_OBJECTS = 50
"""Fewer objects than these say nothing reliable."""

_LOWEST = 1e-4
_LEAST_DOUBT = 1e-3
_TEMPERATURES = (0.05, 20.0)


class Line(NamedTuple):
    """A probability's log-odds as a line in those that the model gives. A slope of 1 and an intercept of 0 change
    nothing; the slope is never negative, so that order is kept."""

    slope: float
    intercept: float


class Powers(NamedTuple):
    """An error's logarithm: ``risk`` times that of the error the model expects, ``doubt`` times that of the probability
    it leaves to a miss, and ``intercept``. (1, 0, 0) changes nothing.

    Both are needed: targets spread over neighbouring bins put a floor under the expected error, not under the doubt.
    """

    risk: float
    doubt: float
    intercept: float


@dataclass(frozen=True)
class Calibration:
    """What was fitted, for poses of ``num_bins`` bins, to ``objects`` objects of the split ``split`` of ``data``."""

    num_bins: int
    pose: Line
    pose_error: Powers
    pose_and_class: Line
    class_temperature: float
    objects: int
    data: str
    split: str

    def hit(self, mass: Any) -> np.ndarray:
        """The probability (…) that poses err by less than π/6, from the model's own (…)."""
        return _sigmoid(self.pose.slope * _logit(mass) + self.pose.intercept)

    def error(self, risk: Any, mass: Any) -> np.ndarray:
        """The geodesic error (…) in radians to expect, at most π, from the model's own expectation (…) and its
        probability (…) to err by less than π/6."""
        log = _error_design(risk, mass) @ np.array(self.pose_error)
        return np.exp(np.minimum(log, math.log(math.pi)))

    def hit_and_class(self, hit: Any, class_probability: Any) -> np.ndarray:
        """The probability (…) that class and pose are both right, from the calibrated probabilities (…) of each."""
        odds = _logit(np.asarray(hit, dtype=np.float64) * class_probability)
        return _sigmoid(self.pose_and_class.slope * odds + self.pose_and_class.intercept)


@dataclass(frozen=True)
class Outcomes:
    """What a model said of N objects and what was true.

    mass (N,): the probability to err by less than π/6 by its own word; risk (N,): the error it expects, in radians;
    errors (N,): the geodesic error in radians, not finite counting as π; name_scores (N, C): of the candidate names;
    names (N,): the index of the true one.
    """

    mass: np.ndarray
    risk: np.ndarray
    errors: np.ndarray
    name_scores: np.ndarray
    names: np.ndarray

    def __len__(self) -> int:
        return len(self.errors)

    def __getitem__(self, rows: Any) -> Outcomes:
        return Outcomes(*(getattr(self, field.name)[rows] for field in fields(self)))

    @property
    def hits(self) -> np.ndarray:
        """Whether each error (N,) is below π/6."""
        return np.nan_to_num(self.errors, nan=math.pi) < math.pi / 6

    @property
    def named(self) -> np.ndarray:
        """Whether each object's (N,) best name is the true one."""
        return self.name_scores.argmax(-1) == self.names

    def class_probability(self, temperature: float = 1.0) -> np.ndarray:
        """The probability (N,) of each object's best name."""
        scores = self.name_scores / temperature
        return np.exp(scores.max(-1) - np.logaddexp.reduce(scores, axis=-1))


def fit(outcomes: Outcomes, num_bins: int, data: str, split: str) -> Calibration:
    """The calibration of a model from what it said of validation objects, which it was not trained on.

    Raises UserError when there are fewer than ``LEAST_OBJECTS``.
    """
    if len(outcomes) < LEAST_OBJECTS:
        raise UserError(f"{data}: {len(outcomes)} objects to fit to; calibration needs at least {LEAST_OBJECTS}")
    temperature = fit_temperature(outcomes.name_scores, outcomes.names)
    pose = fit_probability(outcomes.mass, outcomes.hits)
    own = Calibration(
        num_bins=num_bins,
        pose=pose,
        pose_error=fit_error(outcomes.risk, outcomes.mass, outcomes.errors),
        pose_and_class=Line(1.0, 0.0),
        class_temperature=temperature,
        objects=len(outcomes),
        data=data,
        split=split,
    )
    both = own.hit(outcomes.mass) * outcomes.class_probability(temperature)
    joint = fit_probability(both, outcomes.hits & outcomes.named)
    return replace(own, pose_and_class=joint)


def fit_probability(probability: np.ndarray, happened: np.ndarray) -> Line:
    """The line under which what happened (N,) is most likely, by logistic regression on the log-odds of what the model
    said (N,)."""
    odds, happened = _logit(probability), np.asarray(happened, dtype=np.float64)

    def derivatives(line: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        value = _sigmoid(line)
        return value - happened, value * (1.0 - value)

    slope, intercept = _regress(np.stack([odds, np.ones_like(odds)], -1), derivatives)
    if slope < 0:
        # What goes the wrong way is worth no more than nothing: the same for every object.
        slope, intercept = 0.0, _regress(np.stack([0.0 * odds, np.ones_like(odds)], -1), derivatives)[1]
    return Line(float(slope), float(intercept))


def fit_error(risk: np.ndarray, mass: np.ndarray, errors: np.ndarray) -> Powers:
    """The powers under which errors (N,) in radians are most likely, each taken as exponentially distributed around
    what is predicted from ``risk`` and ``mass`` (N,), see ``Outcomes``: the mean comes out right, and large errors,
    whose spread is as large, do not rule it."""
    observed = np.clip(np.nan_to_num(np.asarray(errors, dtype=np.float64), nan=math.pi), 0.0, math.pi)

    def derivatives(line: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        ratio = observed / np.exp(np.clip(line, -20.0, 20.0))
        return 1.0 - ratio, ratio

    return Powers(*map(float, _regress(_error_design(risk, mass), derivatives)))


def fit_temperature(scores: np.ndarray, names: np.ndarray) -> float:
    """The temperature under which the true names (N,) are most probable by a softmax over scores (N, C).

    The log-likelihood is concave in 1 / temperature: a bisection finds where it stops rising.
    """
    low, high = (1.0 / temperature for temperature in reversed(_TEMPERATURES))
    true = scores[np.arange(len(names)), names]
    for _ in range(60):
        middle = math.sqrt(low * high)
        weights = np.exp(middle * (scores - scores.max(-1, keepdims=True)))
        expected = (weights * scores).sum(-1) / weights.sum(-1)
        low, high = (middle, high) if (true - expected).mean() > 0 else (low, middle)
    return 1.0 / low


def reliability(predicted: np.ndarray, observed: np.ndarray, bins: int = 15) -> list[dict[str, float]]:
    """The reliability diagram of predictions (N,) of what was observed (N,): ``predicted`` and ``observed`` means and
    the ``count`` in bins of equal mass, that is of as many objects each, by rising prediction."""
    predicted, observed = np.asarray(predicted, dtype=np.float64), np.asarray(observed, dtype=np.float64)
    parts = np.array_split(np.argsort(predicted, kind="stable"), bins)
    return [
        {"predicted": float(predicted[rows].mean()), "observed": float(observed[rows].mean()), "count": len(rows)}
        for rows in parts
        if len(rows)
    ]


def expected_calibration_error(predicted: np.ndarray, observed: np.ndarray, bins: int = 15) -> float:
    """The mean gap between prediction and observation over the bins of ``reliability`` (ECE with equal-mass bins)."""
    table = reliability(predicted, observed, bins)
    return sum(row["count"] * abs(row["predicted"] - row["observed"]) for row in table) / max(len(predicted), 1)


def to_text(calibration: Calibration) -> str:
    """The contents of ``calibration.json``."""
    values = {
        name: value._asdict() if isinstance(value, (Line, Powers)) else value
        for name, value in vars(calibration).items()
    }
    return json.dumps({"format": FORMAT, **values}, indent=1) + "\n"


def read(path: str | Path) -> Calibration:
    """The calibration in a file. Raises UserError naming the file, the field and the value."""
    try:
        found = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read: {error}") from error
    names = ["format", *(field.name for field in fields(Calibration))]
    if not isinstance(found, dict) or sorted(found) != sorted(names):
        keys = sorted(found) if isinstance(found, dict) else type(found).__name__
        raise UserError(f"{path}: holds {keys}, expected {sorted(names)}")
    if found.pop("format") != FORMAT:
        raise UserError(f"{path}: format: not {FORMAT!r}")
    for name in ("pose", "pose_and_class"):
        found[name] = Line(**_read_numbers(path, name, found[name], Line._fields))
        _check(path, f"{name}.slope", found[name].slope, found[name].slope >= 0)
    found["pose_error"] = Powers(**_read_numbers(path, "pose_error", found["pose_error"], Powers._fields))
    _check(path, "class_temperature", found["class_temperature"], _is_number(found["class_temperature"], above=0.0))
    for name, least in (("num_bins", 4), ("objects", 1)):
        _check(path, name, found[name], type(found[name]) is int and found[name] >= least)
    for name in ("data", "split"):
        _check(path, name, found[name], isinstance(found[name], str))
    return Calibration(**found)


def _read_numbers(path: str | Path, name: str, value: Any, keys: Sequence[str]) -> dict[str, float]:
    _check(path, name, value, isinstance(value, dict) and sorted(value) == sorted(keys))
    for key in keys:
        _check(path, f"{name}.{key}", value[key], _is_number(value[key]))
    return {key: float(value[key]) for key in keys}


def _is_number(value: Any, above: float = -math.inf) -> bool:
    return type(value) in (int, float) and math.isfinite(value) and value > above


def _check(path: str | Path, name: str, value: Any, right: bool) -> None:
    if not right:
        raise UserError(f"{path}: {name}: {value!r} cannot be right")


def _regress(design: np.ndarray, derivatives: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    """The weights (D,) of the columns of ``design`` (N, D) that minimise a convex loss of their sum (N,), given its
    first and second derivatives.

    One pseudo-observation's worth of pull towards (1, 0, …), which changes nothing, keeps them finite where all were
    right.
    """
    neutral = np.eye(design.shape[1])[0]
    weights = neutral
    for _ in range(100):
        first, second = derivatives(design @ weights)
        gradient = design.T @ first + (weights - neutral)
        hessian = (design * second[:, None]).T @ design + np.eye(len(neutral))
        step = np.linalg.solve(hessian, gradient)
        weights = weights - step / max(1.0, float(np.abs(step).max()))
        if np.abs(step).max() < 1e-9:
            break
    return weights


def _error_design(risk: Any, mass: Any) -> np.ndarray:
    """The columns (…, 3) that ``Powers`` weighs."""
    expected = np.log(np.maximum(np.asarray(risk, dtype=np.float64), _LOWEST))
    doubt = np.log(np.maximum(1.0 - np.asarray(mass, dtype=np.float64), 0.0) + _LEAST_DOUBT)
    return np.stack(np.broadcast_arrays(expected, doubt, 1.0), -1)


def _logit(probability: Any) -> np.ndarray:
    clipped = np.clip(np.asarray(probability, dtype=np.float64), _LOWEST, 1.0 - _LOWEST)
    return np.log(clipped / (1.0 - clipped))


def _sigmoid(value: Any) -> np.ndarray:
    return 1.0 / (1.0 + np.exp(-np.clip(value, -50.0, 50.0)))
