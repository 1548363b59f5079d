"""How far chance alone may have moved a score: bootstrap confidence intervals.

Pictures are drawn anew with replacement, each with all of its objects, since those are not independent; what is
measured on the same objects in two runs is drawn together. A resample is kept as how often each object is in it, which
makes an accuracy a product of matrices, and a median a look-up in the errors sorted once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

RESAMPLES = 1000
LEVEL = 0.95
SEED = 0
AT_ONCE = 50
"""Resamples held at a time: 50 of 40,000 objects take 16 MB."""

Counts = np.ndarray
"""How often each of N objects is in each of R resamples: (R, N) whole float64, as a matrix product takes them
fastest; ones (1, N) stand for the objects as they are."""
Figure = Callable[[Counts], np.ndarray]
"""A score of each resample, (R,), of its counts."""


def accuracy(hits: np.ndarray) -> Figure:
    """The share in percent of objects that are hits (N,)."""
    weights = np.asarray(hits, dtype=np.float64)
    return lambda counts: 100.0 * (counts @ weights) / counts.sum(1)


def mean_degrees(errors: np.ndarray) -> Figure:
    """The mean in degrees of errors (N,) in radians."""
    values = np.degrees(np.asarray(errors, dtype=np.float64))
    return lambda counts: (counts @ values) / counts.sum(1)


def median_degrees(errors: np.ndarray) -> Figure:
    """The median in degrees of errors (N,) in radians: the middle one, or the mean of the two in the middle."""
    values = np.degrees(np.asarray(errors, dtype=np.float64))
    order = np.argsort(values, kind="stable")
    ordered = values[order]

    def figure(counts: Counts) -> np.ndarray:
        reached = np.cumsum(counts[:, order], axis=1)
        total = reached[:, -1:]
        # The k-th smallest is the first at which k objects are reached.
        lower = (reached < (total + 1) // 2).sum(1)
        upper = (reached < total // 2 + 1).sum(1)
        return (ordered[lower] + ordered[upper]) / 2

    return figure


def figures_of(errors: np.ndarray, correct: np.ndarray) -> dict[str, Figure]:
    """The figures of a table of the joint metric: errors (N,) in radians, with π added where the class is wrong, and
    whether it is right (N,)."""
    return {
        "acc_pi_6": accuracy(errors < math.pi / 6),
        "acc_pi_18": accuracy(errors < math.pi / 18),
        "median_error_deg": median_degrees(errors),
        "mean_error_deg": mean_degrees(errors),
        "classification_accuracy": accuracy(correct),
    }


def bootstrap(
    figures: dict[str, Figure], pictures: Sequence[Any], resamples: int = RESAMPLES, seed: int = SEED
) -> dict[str, np.ndarray]:
    """Each figure of every resample, (R,); pictures (N,): which picture each object is in."""
    parts: dict[str, list[np.ndarray]] = {name: [] for name in figures}
    for counts in _resamples(pictures, resamples, seed):
        for name, figure in figures.items():
            parts[name].append(figure(counts))
    return {name: np.concatenate(values) for name, values in parts.items()}


def intervals(
    figures: dict[str, Figure], pictures: Sequence[Any], resamples: int = RESAMPLES, seed: int = SEED
) -> dict[str, list[float]]:
    """The interval of each figure that holds ``LEVEL`` of the resamples (the percentile method)."""
    return {name: percentiles(values) for name, values in bootstrap(figures, pictures, resamples, seed).items()}


def percentiles(values: np.ndarray) -> list[float]:
    """The two ends between which ``LEVEL`` of the values (R,) lie."""
    edge = 50.0 * (1.0 - LEVEL)
    low, high = np.percentile(values, [edge, 100.0 - edge])
    return [float(low), float(high)]


def _resamples(pictures: Sequence[Any], resamples: int, seed: int) -> Iterator[Counts]:
    _, picture = np.unique(np.asarray(pictures), return_inverse=True)
    number = int(picture.max()) + 1
    rng = np.random.default_rng(seed)
    for start in range(0, resamples, AT_ONCE):
        rows = min(AT_ONCE, resamples - start)
        drawn = rng.integers(number, size=(rows, number)) + number * np.arange(rows)[:, None]
        counts = np.bincount(drawn.ravel(), minlength=rows * number).reshape(rows, number)
        yield counts.astype(np.float64)[:, picture]
