"""The three distributions of a pose as one distribution over rotations, and what is best said of it.

The head gives azimuth, elevation and theta a distribution each, so a cell of the grid has the product of its three
bins' probabilities, and stands for the rotation at its centre. Decisions are made among rotations and not among cells:
(a, e, t) and (a + π, π − e, t + π) are one rotation, and close to a pole cells far apart in azimuth lie together.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any, Literal

import numpy as np

from .bins import WINDOW_BINS, PoseBins
from .geometry import pose_of_quaternion, quaternion

Goal = Literal["mean", "mass", "error"]
"""What a pose is chosen for. "mean": each angle by itself, its mean around its mode (``PoseBins.decode``); "mass": the
most probable to err by less than π/6; "error": the least expected geodesic error. The last two are Bayes decisions
under the joint distribution. Measured (eval/readings.py), neither is better than the mean: on a model in doubt "mass"
gives up accuracy at π/18 for a lower median, and "error" more of it for a lower mean; on a good one they tie."""

HIT = math.pi / 6
"""How close a pose must come to count as right: the wider of the benchmark's two thresholds."""

HEAVIEST_CELLS: dict[str, int] = {"mass": 512, "error": 8192}
"""Cells that a rotation is looked for by. What little mass is in the rest hardly moves the most probable hit, but the
error counts what is far the most. What is found is measured on all cells."""

STEPS = 6
"""Steps uphill from each start: by then a rotation moves by far less than a degree."""

CELLS_AT_ONCE = 2**19
"""Cells held at a time, over all objects: few enough to stay in a processor's cache."""


class JointPoses:
    """The joint distributions of B poses.

    distributions: (B, 3, n) probabilities of the three angles' bins, or (B, K, 3, n) with ``weights`` (B, K): the
    poses that K hypotheses of an object give, such as its most probable categories. All finite.
    """

    def __init__(self, distributions: np.ndarray, weights: np.ndarray | None = None):
        several = distributions[:, None] if weights is None else distributions
        shares = np.ones(several.shape[:2]) if weights is None else weights / weights.sum(-1, keepdims=True)
        self.num_bins = several.shape[-1]
        self.marginals = (shares[:, :, None, None] * several).sum(1)
        light = several.astype(np.float32)
        pairs = light[:, :, 1, :, None] * light[:, :, 2, None, :]
        azimuths = light[:, :, 0, :] * shares[:, :, None].astype(np.float32)
        # (B, n³), a cell's index being (azimuth · n + elevation) · n + theta.
        self.mass = np.einsum("bka,bkm->bam", azimuths, pairs.reshape(*pairs.shape[:2], -1)).reshape(len(several), -1)

    def best(self, goal: Goal) -> np.ndarray:
        """The best rotations (B, 4) to give, as quaternions."""
        if goal == "mean":
            return quaternion(PoseBins(self.num_bins).decode(np.log(self.marginals + 1e-300)).pose)
        return self.modes(goal)[:, 0]

    def modes(self, goal: Literal["mass", "error"] = "mass") -> np.ndarray:
        """Rotations (B, 8, 4) that none close by is better than, as quaternions, best first."""
        count = min(HEAVIEST_CELLS[goal], self.mass.shape[1])
        heaviest = np.argpartition(self.mass, -count, axis=-1)[:, -count:]
        mass = np.take_along_axis(self.mass, heaviest, -1)[:, None]
        rotations = cell_rotations(self.num_bins).T[heaviest]
        found = self._starts().astype(np.float32)
        for _ in range(STEPS):
            cosine = found @ rotations.swapaxes(1, 2)
            _, slope = _gain(cosine**2, goal)
            # Uphill by the mean of the rotations around, each with its mass and what coming closer to it brings; as
            # the gain is convex in the squared cosine, no step goes down.
            found = (mass * slope * cosine) @ rotations
            found /= np.linalg.norm(found, axis=-1, keepdims=True)
        gain, _ = _gain((found @ rotations.swapaxes(1, 2)) ** 2, goal)
        order = np.argsort(-(mass * gain).sum(-1), axis=-1, kind="stable")
        return np.take_along_axis(found, order[..., None], 1).astype(np.float64)

    def within(self, rotations: np.ndarray, radius: float) -> np.ndarray:
        """The probability (B,) to lie less than ``radius`` from rotations (B, 4)."""
        near = self._cosines(rotations) > math.cos(radius / 2)
        mass = np.einsum("bm,bm->b", self.mass, near.astype(np.float32)).astype(np.float64)
        return np.minimum(mass, 1.0)  # rounding

    def expected_error(self, rotations: np.ndarray) -> np.ndarray:
        """The expected geodesic error (B,) in radians of rotations (B, 4)."""
        angles = np.arccos(np.minimum(self._cosines(rotations), 1.0))
        return 2.0 * np.einsum("bm,bm->b", self.mass, angles).astype(np.float64)

    def _cosines(self, rotations: np.ndarray) -> np.ndarray:
        """The cosine (B, n³) of half the angle between each rotation and every cell."""
        return np.abs(rotations.astype(np.float32) @ cell_rotations(self.num_bins))

    def _starts(self) -> np.ndarray:
        """Where to look: all combinations of the two best modes of each angle, (B, 8, 4)."""
        bins = PoseBins(self.num_bins)
        offset = (np.arange(self.num_bins) + self.num_bins // 2) % self.num_bins - self.num_bins // 2
        near = np.abs(offset) <= WINDOW_BINS
        left = bins.peaks(self.marginals)
        modes = []
        for _ in range(2):
            best = left.argmax(-1)
            around = (best[..., None] + offset) % self.num_bins
            mass = np.where(near, np.take_along_axis(self.marginals, around, -1), 0.0) + 1e-300
            modes.append(bins.centers[best] + (mass * offset).sum(-1) / mass.sum(-1) * bins.width)
            np.put_along_axis(left, around[..., near], -1.0, -1)
        azimuth, elevation, theta = np.moveaxis(np.stack(modes, -1), 1, 0)
        grid = np.broadcast_arrays(azimuth[:, :, None, None], elevation[:, None, :, None], theta[:, None, None, :])
        return quaternion(np.stack(grid, -1).reshape(len(left), -1, 3))


def decide(distributions: Any, weights: Any = None, goal: Goal = "mean") -> np.ndarray:
    """The best poses (B, 3) to give for distributions (B, 3, n), or (B, K, 3, n) with weights (B, K).

    Below the width of a bin, whatever the goal. Some tenths of a millisecond an object at 40 bins, and some
    milliseconds for "error". Distributions that are not finite give poses that are not finite.
    """
    distributions = np.asarray(distributions, dtype=np.float64)
    weights = None if weights is None else np.asarray(weights, dtype=np.float64)
    poses = np.full((len(distributions), 3), np.nan)
    good = np.isfinite(distributions).all(axis=tuple(range(1, distributions.ndim)))
    for rows in chunks(np.flatnonzero(good), distributions.shape[-1]):
        joint = JointPoses(distributions[rows], None if weights is None else weights[rows])
        poses[rows] = pose_of_quaternion(joint.best(goal))
    return poses


def chunks(rows: np.ndarray, num_bins: int) -> list[np.ndarray]:
    """Row numbers in parts whose joint distributions are held at a time."""
    size = max(CELLS_AT_ONCE // num_bins**3, 1)
    return [rows[start : start + size] for start in range(0, len(rows), size)]


@lru_cache(maxsize=2)
def cell_rotations(num_bins: int) -> np.ndarray:
    """The rotations of all cells, as quaternions: (4, n³) float32."""
    centers = PoseBins(num_bins).centers
    grid = np.stack(np.meshgrid(centers, centers, centers, indexing="ij"), -1)
    return np.ascontiguousarray(quaternion(grid.reshape(-1, 3)).T.astype(np.float32))


def _gain(squared: np.ndarray, goal: Literal["mass", "error"]) -> tuple[np.ndarray, np.ndarray]:
    """What being near a rotation is worth, and its slope, as functions of cos² of half the angle between the two."""
    if goal == "error":
        sine = np.sqrt(np.maximum(1.0 - squared, math.radians(0.5) ** 2))
        return -2.0 * np.arccos(np.sqrt(np.minimum(squared, 1.0))), 1.0 / np.maximum(sine * np.sqrt(squared), 1e-6)
    # A hit with a soft edge, since a cell is a third as wide: 2 to the −(chord / chord at π/6)², half at π/6.
    steepness = math.log(2.0) / math.sin(HIT / 2) ** 2
    gain = np.exp(steepness * (squared - 1.0))
    return gain, steepness * gain
