"""Working vehicles: tractor and forklift, driving and lifting towards -y."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np

from data_prep.rendering.shapes.materials import (
    BLACK,
    CHROME,
    GLASS,
    HEADLIGHT,
    RUBBER,
    TAIL_LIGHT,
    darker,
    metal,
    paint,
    wood,
)
from data_prep.rendering.shapes.mesh import Builder, Material, Shape
from data_prep.rendering.shapes.road import wheel


def _seat(b: Builder, y: float, z: float, cover: Material) -> None:
    """A driver's seat that faces -y."""
    b.slab((0, y, z), (0.5, 0.46, 0.12), cover)
    with b.turned("x", -0.15, (0, y + 0.2, z)):
        b.slab((0, y + 0.24, z + 0.32), (0.46, 0.1, 0.55), cover)


def _steering(b: Builder, y: float, z: float) -> None:
    """A steering wheel on its column, tilted towards the driver behind it."""
    b.tube([(0, y - 0.25, z - 0.45), (0, y, z)], 0.025, BLACK, 6)
    with b.turned("x", 0.5, (0, y, z)):
        b.ring((0, y, z), 0.2, 0.018, BLACK, "z", 14, 5)


def _lugged(b: Builder, x: float, y: float, radius: float, width: float, rim: Material) -> None:
    """A tractor's wheel: a tyre with bars across its tread."""
    wheel(b, x, y, radius, width, rim)
    for k in range(14):
        angle = k * 2 * math.pi / 14
        with b.turned("x", angle, (x, y, radius)):
            b.box((x, y, 2 * radius), (width * 1.04, radius * 0.1, radius * 0.1), RUBBER)


def tractor(rng: np.random.Generator) -> Shape:
    """A farm tractor: bonnet, grille and small wheels in front, big wheels and hitch behind; cab, hoop or open."""
    b, body, rim = Builder(), paint(rng), paint(rng) if rng.random() < 0.7 else metal(rng)
    big, small = rng.uniform(0.68, 0.95), rng.uniform(0.36, 0.56)
    half, nose = rng.uniform(0.27, 0.4), rng.uniform(1.5, 2.3)
    top = big + rng.uniform(0.35, 0.65)
    low = small * rng.uniform(0.9, 1.1)
    slope = rng.uniform(0.0, 0.3)
    y = np.array([-nose, -nose + 0.08, -nose * 0.5, 0.0])
    b.hull(y, half * np.array([0.85, 0.95, 1, 1.05]), low, top - slope * np.array([1, 0.9, 0.5, 0]), body,
           rng.uniform(4, 12))  # fmt: skip
    b.box((0, -nose * 0.4, low - 0.05), (half * 1.1, nose * 1.1, 0.25), BLACK)
    b.box((0, 0.35, big * 0.9), (half * 1.3, 1.0, 0.4), BLACK)
    front, high = -nose - 0.01, top - slope
    b.box((0, front, (low + high) / 2), (half * 1.1, 0.05, (high - low) * 0.7), BLACK)
    for k in range(4):
        b.box((0, front - 0.02, low + (high - low) * (0.25 + 0.14 * k)), (half * 1.0, 0.03, 0.03), CHROME)
    if rng.random() < 0.4:
        b.box((0, front - 0.15, low), (half * 1.4, 0.3, 0.3), darker(body, 0.5))
    track = half + rng.uniform(0.3, 0.45)
    with b.mirrored():
        b.disc((half * 0.62, front - 0.015, high - (high - low) * 0.2), 0.085, 0.06, HEADLIGHT, "y", 12)
        _lugged(b, track, 0.45, big, rng.uniform(0.34, 0.5), rim)
        wheel(b, track * rng.uniform(0.85, 1.0), -nose * 0.72, small, rng.uniform(0.2, 0.32), rim)
        b.tube([(0, -nose * 0.72, small), (track, -nose * 0.72, small)], 0.07, BLACK, 6)
        b.tube([(0, 0.45, big), (track, 0.45, big)], 0.12, BLACK, 6)
        arc = np.linspace(-1.0, 1.2, 6)
        for one, two in pairwise(arc):
            edge = [(0.45 + (big + 0.06) * math.sin(a), big + (big + 0.06) * math.cos(a)) for a in (one, two)]
            b.quad([(x, *edge[k]) for k, x in ((0, half), (0, track + 0.2), (1, track + 0.2), (1, half))], body)
        b.box((track - 0.05, 0.5 + big, big + 0.12), (0.2, 0.06, 0.15), TAIL_LIGHT)
        b.tube([(0.25, 0.8, big * 0.6), (0.3, 1.35, big * 0.5)], 0.04, BLACK, 5)
    b.box((0, 1.0, big * 0.7), (0.5, 0.3, 0.3), BLACK)
    pipe = rng.uniform(0.4, 0.9)
    b.tube([(0, -nose * 0.6, top - slope), (0, -nose * 0.6, top + pipe)], rng.uniform(0.03, 0.05), BLACK, 8)
    _tractor_cab(b, rng, half, top, big, body)
    _seat(b, 0.5, big + 0.3, BLACK)
    _steering(b, 0.12, top + 0.2)
    return b.build()


def _tractor_cab(b: Builder, rng: np.random.Generator, half: float, top: float, big: float, body: Material) -> None:
    """A glazed cab, a roll-over hoop behind the seat, or nothing."""
    pick = rng.random()
    wide, roof = half + rng.uniform(0.1, 0.25), top + rng.uniform(0.75, 1.05)
    b.box((0, 0.42, big + 0.05), (2 * half, 0.95, 0.1), BLACK)
    if pick < 0.55:
        lean = rng.uniform(0.0, 0.25)
        corners = [[-wide, 0.0, top - 0.25], [wide, 0.0, top - 0.25], [wide, 0.98, top - 0.2], [-wide, 0.98, top - 0.2]]
        upper = [[x * 0.92, (y + lean) * 0.9, roof] for x, y, _ in corners]
        b.loft(np.array([corners, upper]), GLASS, smooth=False)
        with b.mirrored():
            for k in (1, 2):
                b.tube([corners[k], upper[k]], 0.045, body, 6)
        b.slab((0, 0.45, roof + 0.05), (2 * wide, 1.25, 0.14), body, 8)
        with b.mirrored():
            b.disc((wide * 0.7, -0.17, roof + 0.05), 0.06, 0.05, HEADLIGHT, "y", 10)
    elif pick < 0.85:
        path = [(-wide, 0.85, big), (-wide, 0.85, roof - 0.1), (wide, 0.85, roof - 0.1), (wide, 0.85, big)]
        b.tube(path[:2], 0.05, BLACK, 6)
        b.tube(path[1:3], 0.05, BLACK, 6)
        b.tube(path[2:], 0.05, BLACK, 6)


def forklift(rng: np.random.Generator) -> Shape:
    """A fork-lift truck: mast and two forks in front, driver under a guard, counterweight at the rear."""
    b, body = Builder(), paint(rng)
    rim = darker(body, 0.9) if rng.random() < 0.5 else metal(rng)
    half, length = rng.uniform(0.48, 0.62), rng.uniform(1.7, 2.3)
    front, rear = -length / 2, length / 2
    big, small = rng.uniform(0.3, 0.38), rng.uniform(0.22, 0.29)
    deck, hood = rng.uniform(0.5, 0.62), rng.uniform(0.95, 1.15)
    weight = darker(body, rng.uniform(0.3, 1.0))
    b.box((0, -0.1, deck * 0.65), (half * 1.7, length * 0.8, deck * 0.6), body)
    y = np.array([0.0, 0.08, rear - 0.3, rear - 0.06, rear])
    b.hull(y, half * np.array([0.8, 0.9, 1, 0.92, 0.75]), 0.18, hood * np.array([0.98, 1, 1, 0.96, 0.88]), weight, 6.0)
    b.box((0, front + 0.3, (deck + hood) / 2), (half * 1.5, 0.18, hood - deck + 0.1), body, (0.9, 0.8))
    _seat(b, 0.18, hood + 0.06, BLACK)
    _steering(b, front * 0.35, hood + 0.3)
    with b.mirrored():
        wheel(b, half * 0.95, front + 0.32, big, 0.24, rim)
        wheel(b, half * 0.88, rear - 0.4, small, 0.2, rim)
        b.box((half * 0.62, rear - 0.02, hood * 0.7), (0.16, 0.07, 0.1), TAIL_LIGHT)
    b.box((0, rear, 0.4), (0.2, 0.06, 0.16), BLACK)
    _guard(b, rng, half, (front + 0.3, rear - 0.25), (deck, hood), BLACK if rng.random() < 0.6 else body)
    _mast(b, rng, half, front)
    return b.build()


def _guard(
    b: Builder,
    rng: np.random.Generator,
    half: float,
    y: tuple[float, float],
    z: tuple[float, float],
    frame: Material,
) -> None:
    """Four posts and a slatted roof; lamps at its front."""
    roof, front = rng.uniform(1.95, 2.2), y[0] + rng.uniform(0.0, 0.25)
    back = y[1] - rng.uniform(0.1, 0.4)
    wide = half * 0.88
    with b.mirrored():
        b.tube([(wide, y[0], z[0]), (wide, front, roof)], 0.035, frame, 6)
        b.tube([(wide, y[1], z[1] - 0.05), (wide, back, roof)], 0.035, frame, 6)
        b.box((wide, (front + back) / 2, roof), (0.07, back - front + 0.07, 0.07), frame)
        b.disc((wide * 0.8, front - 0.05, roof - 0.07), 0.06, 0.06, HEADLIGHT, "y", 10)
    count = int(rng.integers(4, 8))
    for k in range(count + 1):
        b.box((0, front + (back - front) * k / count, roof), (2 * wide, 0.05, 0.04), frame)


def _mast(b: Builder, rng: np.random.Generator, half: float, front: float) -> None:
    """Two uprights, crossbars, chain and ram, the carriage with its grille, the forks, and sometimes a load."""
    steel = darker(metal(rng), 0.6) if rng.random() < 0.5 else BLACK
    high, wide, y = rng.uniform(1.9, 2.5), half * rng.uniform(0.5, 0.66), front - 0.02
    lift = rng.uniform(0.06, 0.25) if rng.random() < 0.6 else rng.uniform(0.25, 1.2)
    reach = rng.uniform(0.8, 1.25)
    with b.turned("x", rng.uniform(-0.02, 0.06), (0, y, 0)):
        with b.mirrored():
            b.box((wide, y, high / 2), (0.08, 0.14, high - 0.1), steel)
            b.box((wide * 0.5, y - 0.16, lift), (0.11, 0.05, 0.1), steel)
            b.box((wide * 0.5, y - 0.16, lift + 0.22), (0.11, 0.05, 0.45), steel)
            b.box((wide * 0.5, y - 0.16 - reach / 2, lift), (0.12, reach, 0.045), steel, (1, 1))
            b.box((half * 0.85, y - 0.11, lift + 0.65), (0.04, 0.04, 0.85), steel)
        for z in (0.3, high * 0.55, high - 0.08):
            b.box((0, y, z), (2 * wide, 0.06, 0.1), steel)
        b.tube([(0, y, 0.2), (0, y, high * 0.85)], 0.05, CHROME, 8)
        for z in (0.12, 0.42, 1.07):
            b.box((0, y - 0.11, lift + z), (half * 1.74, 0.05, 0.07), steel)
        for x in (-0.45, -0.15, 0.15, 0.45):
            b.box((half * x, y - 0.11, lift + 0.74), (0.025, 0.025, 0.62), steel)
        if rng.random() < 0.2:
            size = (half * rng.uniform(1.5, 1.9), reach * rng.uniform(0.8, 1.0), rng.uniform(0.25, 0.8))
            place = y - 0.2 - size[1] / 2
            b.box((0, place, lift + 0.08), (size[0], size[1], 0.1), wood(rng))
            b.box((0, place, lift + 0.13 + size[2] / 2), size, wood(rng) if rng.random() < 0.4 else paint(rng))
