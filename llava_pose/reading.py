"""Poses out of the pose head's logits, each with how sure it is, how wrong it may be, and what else it could be."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from .bins import PoseBins
from .calibration import Calibration
from .geometry import pose_of_quaternion
from .joint import HIT, Goal, JointPoses, chunks

APART = math.pi / 3
"""An alternative lies at least this far away, so that no rotation is a hit for both."""

WORTH_TELLING = 0.1
"""The least probability at which an alternative is reported."""


@dataclass(frozen=True)
class Alternative:
    """Another pose (3,) in radians that an object may have, such as the other way round where it looks alike from
    behind: its probability (to lie within π/6 of it), and the angle between the two poses in radians."""

    pose: np.ndarray
    probability: float
    turn: float

    def to_dict(self) -> dict[str, float]:
        """The alternative as JSON-ready values."""
        return {**_angles(self.pose), "probability": self.probability, "turn": self.turn}


@dataclass(frozen=True)
class PoseReading:
    """A pose (3,) in radians read from three distributions (3, num_bins), and what there is to say of it.

    spread: the circular spread (3,) of each angle in radians; confidence: the probability that the pose errs by less
    than π/6; expected_error: the geodesic error to expect, in radians; alternative: the next best pose, where there is
    one worth telling; calibrated: whether confidence, expected error and the alternative's probability were fitted to
    validation data, or are the model's own word.
    """

    pose: np.ndarray
    spread: np.ndarray
    confidence: float
    distributions: np.ndarray
    expected_error: float = math.nan
    alternative: Alternative | None = None
    calibrated: bool = False

    @property
    def argmax(self) -> np.ndarray:
        """The pose (3,) at the centres of the best bins, as the paper reads it."""
        # A softmax of log-probabilities gives them back.
        return PoseBins(self.distributions.shape[-1]).argmax(np.log(self.distributions + 1e-300))

    def to_dict(self) -> dict[str, Any]:
        """The reading as JSON-ready values, without the distributions. Angles that are not finite are None."""
        return {
            **_angles(self.pose),
            "spread": [_finite(angle) for angle in self.spread],
            "confidence": self.confidence,
            "expected_error": _finite(self.expected_error),
            "alternative": None if self.alternative is None else self.alternative.to_dict(),
            "calibrated": self.calibrated,
        }


def read_poses(logits: torch.Tensor, calibration: Calibration | None = None, goal: Goal = "mean") -> list[PoseReading]:
    """Readings of pose logits (P, 3, num_bins), each what is best for ``goal`` (see ``joint.Goal``).

    Logits that are not finite give a pose that is not finite, of confidence 0. Raises ValueError where the calibration
    was made for another number of bins.
    """
    bins = PoseBins(logits.shape[-1])
    if calibration is not None and calibration.num_bins != bins.num_bins:
        raise ValueError(f"the calibration is for {calibration.num_bins} bins, the model has {bins.num_bins}")
    distributions = bins.probabilities(logits.detach().double().cpu().numpy())
    finite = np.isfinite(distributions).all((-1, -2))
    readings = [_unreadable(distribution) for distribution in distributions]
    for rows in chunks(np.flatnonzero(finite), bins.num_bins):
        for row, reading in zip(rows, _read(distributions[rows], calibration, goal), strict=True):
            readings[row] = reading
    return readings


def _read(distributions: np.ndarray, calibration: Calibration | None, goal: Goal) -> list[PoseReading]:
    joint = JointPoses(distributions)
    best = joint.best(goal)
    other, turns = _first_apart(joint.modes(), best)
    mass, other_mass, risk = joint.within(best, HIT), joint.within(other, HIT), joint.expected_error(best)
    confidence, expected = mass, risk
    if calibration is not None:
        confidence, expected = calibration.hit(mass), calibration.error(risk, mass)
    # What the pose's own confidence leaves is shared out as the model would.
    left = 1.0 - confidence
    shares = np.minimum(other_mass * left / np.maximum(1.0 - mass, 1e-9), left)
    told = np.isfinite(turns) & (shares >= WORTH_TELLING)
    poses, others = pose_of_quaternion(best), pose_of_quaternion(other)
    spreads = PoseBins(distributions.shape[-1]).spread(distributions)
    return [
        PoseReading(
            pose=poses[row],
            spread=spreads[row],
            confidence=float(confidence[row]),
            distributions=distributions[row],
            expected_error=float(expected[row]),
            alternative=Alternative(others[row], float(shares[row]), float(turns[row])) if told[row] else None,
            calibrated=calibration is not None,
        )
        for row in range(len(distributions))
    ]


def _first_apart(modes: np.ndarray, rotations: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of modes (B, C, 4), best first, the first that lies ``APART`` from each of rotations (B, 4), and the angle (B,)
    between the two, NaN where there is none."""
    angles = 2.0 * np.arccos(np.minimum(np.abs(np.einsum("bcq,bq->bc", modes, rotations)), 1.0))
    apart = angles >= APART
    first, rows = apart.argmax(-1), np.arange(len(modes))
    return modes[rows, first], np.where(apart[rows, first], angles[rows, first], np.nan)


def _unreadable(distributions: np.ndarray) -> PoseReading:
    return PoseReading(np.full(3, np.nan), np.full(3, np.nan), 0.0, distributions)


def _angles(pose: np.ndarray) -> dict[str, Any]:
    return {name: _finite(angle) for name, angle in zip(("azimuth", "elevation", "theta"), pose, strict=True)}


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
