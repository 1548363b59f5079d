"""Parametric objects: ``build(category, rng)`` draws one instance in canonical pose (z up, front towards -y)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from data_prep.shapes import craft, road, seats
from data_prep.shapes.mesh import Shape

_MAKERS: dict[str, Callable[[np.random.Generator], Shape]] = {
    "aeroplane": craft.aeroplane,
    "bed": seats.bed,
    "bench": seats.bench,
    "boat": craft.boat,
    "bus": road.bus,
    "car": road.car,
    "chair": seats.chair,
    "sofa": seats.sofa,
    "toilet": seats.toilet,
    "train": road.train,
}

CATEGORIES: tuple[str, ...] = tuple(_MAKERS)


def build(category: str, rng: np.random.Generator) -> Shape:
    """One random instance of ``category`` (one of ``CATEGORIES``; KeyError otherwise)."""
    return _MAKERS[category](rng)
