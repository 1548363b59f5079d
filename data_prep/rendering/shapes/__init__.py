"""Parametric objects: ``build(category, rng)`` draws one instance in canonical pose (z up, front towards -y)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from data_prep.rendering.shapes import craft, cycles, handheld, household, kitchen, machines, road, seats
from data_prep.rendering.shapes.mesh import Shape, stretched

_STRETCH = 0.15  # at most, along each axis: breadth that no maker has to think of

_MAKERS: dict[str, Callable[[np.random.Generator], Shape]] = {
    "aeroplane": craft.aeroplane,
    "bed": seats.bed,
    "bench": seats.bench,
    "bicycle": cycles.bicycle,
    "boat": craft.boat,
    "bookshelf": household.bookshelf,
    "bus": road.bus,
    "cabinet": kitchen.cabinet,
    "camera": handheld.camera,
    "car": road.car,
    "chair": seats.chair,
    "cup": handheld.cup,
    "forklift": machines.forklift,
    "guitar": handheld.guitar,
    "hammer": handheld.hammer,
    "laptop": household.laptop,
    "microwave": kitchen.microwave,
    "motorbike": cycles.motorbike,
    "piano": household.piano,
    "refrigerator": kitchen.refrigerator,
    "sofa": seats.sofa,
    "stove": kitchen.stove,
    "teapot": handheld.teapot,
    "toilet": seats.toilet,
    "tractor": machines.tractor,
    "train": road.train,
    "tvmonitor": household.tvmonitor,
    "washing_machine": household.washing_machine,
    "wheelchair": cycles.wheelchair,
}

CATEGORIES: tuple[str, ...] = tuple(_MAKERS)


def build(category: str, rng: np.random.Generator) -> Shape:
    """One random instance of ``category`` (one of ``CATEGORIES``; KeyError otherwise)."""
    shape = _MAKERS[category](rng)
    return stretched(shape, rng.uniform(1 - _STRETCH, 1 + _STRETCH, 3))
