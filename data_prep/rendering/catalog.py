"""Which objects a rendered data set holds: shapes by category and CAD number, no shape in both train and val."""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data_prep.rendering.meshfiles import kept_shape
from data_prep.rendering.shapes import build
from data_prep.rendering.shapes.dress import dressed
from data_prep.rendering.shapes.mesh import Shape

SPLITS = ("train", "val")
MAX_SHAPES = 500  # parametric shapes a category and split; more images than that use a shape again


def stream(seed: int, *keys: str | int) -> np.random.Generator:
    """A random generator of its own for every (seed, keys): the same in every process and order of work."""
    numbers = [key if isinstance(key, int) else zlib.crc32(key.encode()) for key in keys]
    return np.random.default_rng([seed, *numbers])


@dataclass(frozen=True)
class Kept:
    """The user's models: the folder where their shapes are kept, and under what names, by category."""

    store: Path
    names: dict[str, tuple[str, ...]]


@dataclass(frozen=True)
class Catalog:
    """``counts``: images by category and split. ``models``: the user's own, None for parametric shapes.

    CAD numbers of train start at 0, those of val follow.
    """

    seed: int
    counts: dict[str, dict[str, int]]
    models: Kept | None

    def cad_indices(self, category: str, split: str) -> range:
        """The CAD numbers that pictures of ``split`` may use."""
        train, val = (self._pool_size(category, name) for name in SPLITS)
        return range(train) if split == "train" else range(train, train + val)

    def _pool_size(self, category: str, split: str) -> int:
        if self.models is None:
            return min(self.counts[category][split], MAX_SHAPES)
        models = len(self.models.names[category])
        held_out = held_out_models(models, self.counts[category])
        return held_out if split == "val" else models - held_out

    def shape(self, category: str, cad_index: int) -> Shape:
        """The shape behind a CAD number. Parametric ones draw from a seed of their split."""
        if self.models is not None:
            return kept_shape(self.models.store, self.models.names[category][cad_index])
        split = "train" if cad_index in self.cad_indices(category, "train") else "val"
        place = cad_index - self.cad_indices(category, split).start
        rng = stream(self.seed, "shape", category, split, place)
        return dressed(build(category, rng), rng)


def held_out_models(models: int, counts: dict[str, int]) -> int:
    """How many of a category's models only val uses: val's share of the images, at least one if there is a second."""
    if not counts["val"] or models < 2:
        return 0
    share = counts["val"] / (counts["train"] + counts["val"])
    return min(models - 1, max(1, round(models * share)))


def image_counts(images: int, categories: Iterable[str], val_fraction: float) -> dict[str, dict[str, int]]:
    """Images by category and split: categories within one of each other, both splits in each where two images allow."""
    names = list(categories)
    counts = {}
    for k, category in enumerate(names):
        total = images // len(names) + (k < images % len(names))
        val = round(total * val_fraction)
        if val_fraction > 0 and total >= 2:
            val = min(max(val, 1), total - 1)
        counts[category] = {"train": total - val, "val": val}
    return counts
