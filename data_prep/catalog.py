"""Which objects a rendered data set holds: shapes by category and CAD number, no shape in both train and val."""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data_prep.meshfiles import load_shape
from data_prep.shapes import build
from data_prep.shapes.mesh import Shape

SPLITS = ("train", "val")
MAX_SHAPES = 200  # parametric shapes a category and split; more images than that use a shape again


def stream(seed: int, *keys: str | int) -> np.random.Generator:
    """A random generator of its own for every (seed, keys): the same in every process and order of work."""
    numbers = [key if isinstance(key, int) else zlib.crc32(key.encode()) for key in keys]
    return np.random.default_rng([seed, *numbers])


@dataclass(frozen=True)
class Catalog:
    """``counts``: images by category and split. ``files``: the user's meshes by category, None for parametric shapes.

    CAD numbers of train start at 0, those of val follow.
    """

    seed: int
    counts: dict[str, dict[str, int]]
    files: dict[str, tuple[Path, ...]] | None

    def cad_indices(self, category: str, split: str) -> range:
        """The CAD numbers that pictures of ``split`` may use."""
        train, val = (self._pool_size(category, name) for name in SPLITS)
        return range(train) if split == "train" else range(train, train + val)

    def _pool_size(self, category: str, split: str) -> int:
        if self.files is None:
            return min(self.counts[category][split], MAX_SHAPES)
        held_out = held_out_files(len(self.files[category]), self.counts[category])
        return held_out if split == "val" else len(self.files[category]) - held_out

    def shape(self, category: str, cad_index: int) -> Shape:
        """The shape behind a CAD number. Parametric ones draw from a seed of their split."""
        if self.files is not None:
            return load_shape(self.files[category][cad_index])
        split = "train" if cad_index in self.cad_indices(category, "train") else "val"
        place = cad_index - self.cad_indices(category, split).start
        return build(category, stream(self.seed, "shape", category, split, place))


def held_out_files(files: int, counts: dict[str, int]) -> int:
    """How many of a category's meshes only val uses: val's share of the images, at least one if there is a second."""
    if not counts["val"] or files < 2:
        return 0
    share = counts["val"] / (counts["train"] + counts["val"])
    return min(files - 1, max(1, round(files * share)))


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
