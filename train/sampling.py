"""Which row is sample number n of a run, and which samples share a step: pure functions of the seed and n.

A resumed run therefore needs no saved data order, and splitting a step over processes, accumulation steps or workers
changes nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import numpy as np

Balance = Literal["none", "class", "pose", "class_and_pose"]

WINDOW = 16
"""Steps whose samples are sorted by length together. Twice as many would save little more padding."""
MOST_OFTEN = 10.0
"""How many times as often as without balancing a row is drawn at most: the only picture of a rare category would
otherwise be learnt by heart."""
SIDES = 8
"""Azimuths are balanced by eighths of the circle around the sides that have names: front, front-left, left …"""


@dataclass(frozen=True, eq=False)
class Share:
    """One data set's part in a mixture.

    rows: how many it has. weight: how many times each is seen in an epoch. probabilities: (rows,) how likely each is to
    be drawn; None: each is seen exactly as often as any other.
    """

    rows: int
    weight: float = 1.0
    probabilities: np.ndarray | None = None


@dataclass(frozen=True, eq=False)
class Mixture:
    """An endless sequence of rows of several data sets.

    An epoch is Σ weight × rows samples long, rounded up. In every epoch a data set has weight × rows of them (rounded
    so that nothing is lost over epochs), at random places: that is its share of all samples. It goes through all of its
    rows before it begins anew: with weight 1 every row is seen once an epoch, with 0.5 once in two, with 3 three times.
    Balanced, a row that is drawn with probability p is seen p × rows times, rounded up or down, whenever as many
    samples as the data set has rows were drawn.
    """

    shares: tuple[Share, ...]
    seed: int

    def __post_init__(self) -> None:
        for share in self.shares:
            if share.weight * share.rows < 1:
                raise ValueError(f"weight {share.weight} of {share.rows} rows is less than one row an epoch")

    def __len__(self) -> int:
        """Samples of an epoch."""
        return math.ceil(sum(share.weight * share.rows for share in self.shares) - 1e-6)

    def place(self, number: int) -> tuple[int, int]:
        """The data set and the row of sample ``number``."""
        epoch, position = divmod(number, len(self))
        which, rows = _epoch(self, epoch)
        return int(which[position]), int(rows[position])

    def begun(self, epoch: int) -> list[int]:
        """How many samples of each data set come before an epoch."""
        ends = np.cumsum([share.weight * share.rows for share in self.shares])
        # Rounding the ends, and not each part, keeps the sum.
        rounded = np.floor(epoch * ends * (len(self) / ends[-1]) + 0.5).astype(np.int64)
        return np.diff(rounded, prepend=0).tolist()


@lru_cache(maxsize=2)
def _epoch(mixture: Mixture, epoch: int) -> tuple[np.ndarray, np.ndarray]:
    """The data set and the row of each sample of an epoch."""
    begun, ended = mixture.begun(epoch), mixture.begun(epoch + 1)
    counts = [last - first for first, last in zip(begun, ended, strict=True)]
    places = np.random.default_rng([mixture.seed, 0, epoch]).permutation(np.repeat(np.arange(len(counts)), counts))
    rows = np.empty(len(places), dtype=np.int64)
    for which, share in enumerate(mixture.shares):
        rounds = range(begun[which] // share.rows, -(-ended[which] // share.rows))
        drawn = [_round(share, [mixture.seed, 1, which, number]) for number in rounds]
        first = begun[which] - rounds.start * share.rows
        rows[places == which] = np.concatenate([np.empty(0, np.int64), *drawn])[first : first + counts[which]]
    return places, rows


def _round(share: Share, seed: list[int]) -> np.ndarray:
    """As many draws as a data set has rows: (rows,)."""
    rng = np.random.default_rng(seed)
    order = rng.permutation(share.rows)
    if share.probabilities is None:
        return order
    # Evenly spaced points under one offset (systematic resampling): no row is off by a whole draw, and with equals side
    # by side, no category either.
    order = order[np.argsort(share.probabilities[order], kind="stable")]
    ends = np.cumsum(share.probabilities[order])
    points = (rng.random() + np.arange(share.rows)) / share.rows
    drawn = order[np.searchsorted(ends / ends[-1], points, side="right").clip(max=share.rows - 1)]
    return rng.permutation(drawn)


def row_probabilities(objects: Any, balance: Balance) -> np.ndarray | None:
    """How likely each row is to be drawn, (rows,), given its objects (a pyarrow list array of ``scene.features``).

    A row is drawn for one of its objects: first a category ("class"), an eighth of azimuth ("pose") or a pair of both
    is drawn, all alike, then one of its objects. So each is equally often what a row is drawn for, except that no row
    is drawn more than ``MOST_OFTEN`` times as often as without balancing; the others share what that leaves. Elevation
    and theta are left as they are: what is rare there is odd, such as pictures upside down. None for "none".
    """
    if balance == "none":
        return None
    import pyarrow.compute

    every = pyarrow.compute.list_flatten(objects)
    rows = np.asarray(pyarrow.compute.list_parent_indices(objects))
    cells = np.zeros(len(rows), dtype=np.int64)
    if balance in ("class", "class_and_pose"):
        cells = np.unique(every.field("category").to_numpy(zero_copy_only=False), return_inverse=True)[1]
    if balance in ("pose", "class_and_pose"):
        azimuth = every.field("azimuth").to_numpy(zero_copy_only=False)
        side = np.round(np.nan_to_num(azimuth) / (2 * np.pi / SIDES)).astype(np.int64) % SIDES
        cells = cells * (SIDES + 1) + np.where(np.isfinite(azimuth), side, SIDES)
    _, cells, counts = np.unique(cells, return_inverse=True, return_counts=True)
    each = 1.0 / (len(counts) * counts[cells])
    return _limited(np.bincount(rows, each, minlength=len(objects)), MOST_OFTEN / len(objects))


def _limited(probabilities: np.ndarray, most: float) -> np.ndarray:
    """The probabilities with none above ``most``: what is cut off goes to the others in proportion."""
    limited = np.zeros(len(probabilities), dtype=bool)
    while (probabilities[~limited] > most * (1 + 1e-9)).any():
        limited |= probabilities > most
        left = probabilities[~limited].sum()
        probabilities = np.where(limited, most, probabilities * ((1 - most * limited.sum()) / left if left else 0.0))
    return probabilities / probabilities.sum()


@dataclass(frozen=True, eq=False)
class Windows:
    """An order in which steps have samples of like length, and so little padding.

    The draws of ``WINDOW`` steps, of ``batch_size`` samples each, are sorted by ``length`` (about how many tokens a
    draw has), cut into batches, and the batches are shuffled: still each draw once, less than ``WINDOW`` steps from its
    place.
    """

    batch_size: int
    seed: int
    length: Callable[[int], float]

    def draw(self, number: int) -> int:
        """The draw that is sample ``number``."""
        window, place = divmod(number, WINDOW * self.batch_size)
        return _window(self, window)[place]


@lru_cache(maxsize=2)
def _window(windows: Windows, window: int) -> list[int]:
    size = windows.batch_size
    ordered = sorted(range(window * WINDOW * size, (window + 1) * WINDOW * size), key=windows.length)
    order = np.random.default_rng([windows.seed, 3, window]).permutation(WINDOW)
    return [draw for place in order.tolist() for draw in ordered[place * size : (place + 1) * size]]


@dataclass(frozen=True)
class MicroBatches:
    """The sample numbers of each micro batch of one process, from a step on: a ``batch_sampler``.

    Step s takes samples s·batch_size to (s+1)·batch_size − 1; process r of R and accumulation step a take their
    consecutive share.
    """

    first_step: int
    last_step: int
    batch_size: int
    micro_batch_size: int
    process: int
    processes: int

    def __len__(self) -> int:
        return (self.last_step - self.first_step) * self.accumulation

    @property
    def accumulation(self) -> int:
        """Micro batches of a process in a step."""
        return self.batch_size // (self.micro_batch_size * self.processes)

    def __iter__(self) -> Iterator[list[int]]:
        share = self.batch_size // self.processes
        for step in range(self.first_step, self.last_step):
            first = step * self.batch_size + self.process * share
            for offset in range(0, share, self.micro_batch_size):
                yield list(range(first + offset, first + offset + self.micro_batch_size))
