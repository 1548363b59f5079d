"""Aeroplanes and boats: nose and bow towards -y."""

from __future__ import annotations

import math

import numpy as np

from data_prep.rendering.shapes.materials import (
    BLACK,
    CHROME,
    GLASS,
    RUBBER,
    WHITE,
    cloth,
    darker,
    grey,
    metal,
    paint,
    wood,
)
from data_prep.rendering.shapes.mesh import Builder, Floats, Material, Shape


def _wing(b: Builder, root: Floats, tip: Floats, chord: tuple[float, float], thick: float, material: Material) -> None:
    """A tapered wing from ``root`` to ``tip`` (mid-chord points), its chord along y."""
    section = np.array([[-0.5, 0.0], [-0.2, 0.5], [0.5, 0.0], [-0.2, -0.4]])
    direction = tip - root
    up = np.array([0.0, 0.0, 1.0]) if abs(direction[0]) > abs(direction[2]) else np.array([1.0, 0.0, 0.0])
    rings = np.stack(
        [
            end + size * section[:, :1] * (0.0, 1.0, 0.0) + thick * size / chord[0] * section[:, 1:] * up
            for end, size in ((root, chord[0]), (tip, chord[1]))
        ]
    )
    b.loft(rings, material, smooth=False)


def aeroplane(rng: np.random.Generator) -> Shape:
    """A jet airliner, or a light aircraft with a propeller."""
    b = Builder()
    if rng.random() < 0.65:
        _airliner(b, rng)
    else:
        _light_aircraft(b, rng)
    return b.build()


def _airliner(b: Builder, rng: np.random.Generator) -> None:
    body = paint(rng) if rng.random() < 0.5 else WHITE
    accent, wing = paint(rng), Material(grey(rng, 0.5, 0.8), specular=0.5, gloss=40.0, reflect=0.1)
    length, radius = rng.uniform(9.0, 12.0), rng.uniform(0.55, 0.75)
    front, rear = -length / 2, length / 2
    y = front + length * np.array([0.0, 0.015, 0.05, 0.11, 0.6, 0.8, 0.93, 1.0])
    size = radius * np.array([0.12, 0.42, 0.75, 1.0, 1.0, 0.75, 0.38, 0.12])
    center = radius * np.array([-0.2, -0.17, -0.08, 0.0, 0.0, 0.2, 0.5, 0.62])
    b.hull(y, size, center - size, center + size, body, 2.0, 14)
    span, sweep = length * rng.uniform(0.36, 0.5), length * rng.uniform(0.12, 0.22)
    place, lift = front + length * rng.uniform(0.42, 0.48), rng.uniform(0.2, 0.7)
    root, tail = np.array([0.0, place, -radius * 0.5]), rear - length * 0.07
    height = rng.uniform(1.6, 2.3)
    high_tail = rng.random() < 0.3
    _wing(
        b, np.array([0, tail - 0.4, radius * 0.4]), np.array([0, tail + 0.5, radius + height]), (2.0, 0.9), 0.2, accent
    )
    with b.mirrored():
        tip = root + np.array([span, sweep, lift])
        _wing(b, root, tip, (length * 0.2, length * 0.06), 0.28, wing)
        _wing(b, tip, tip + np.array([0.08, 0.2, 0.45]), (length * 0.06, length * 0.03), 0.1, accent)
        level = radius + height - 0.15 if high_tail else radius * 0.55
        _wing(
            b,
            np.array([0, tail + (0.45 if high_tail else 0), level]),
            np.array([span * 0.36, tail + 0.9, level + 0.1]),
            (1.3, 0.6),
            0.14,
            wing,
        )
        engine = np.array([span * 0.33, place + sweep * 0.33 - length * 0.09, -radius * 0.9])
        if high_tail:
            engine = np.array([radius * 1.25, rear - length * 0.24, radius * 0.35])
        size_e = rng.uniform(0.26, 0.36)
        profile = [[size_e * 0.9, -0.6], [size_e, -0.4], [size_e, 0.2], [size_e * 0.6, 0.75]]
        b.revolve(profile, accent if rng.random() < 0.5 else wing, engine.tolist(), "y", 12)
        b.disc((engine[0], engine[1] - 0.6, engine[2]), size_e * 0.78, 0.06, BLACK, "y", 12)
        b.box((radius * 0.98, front + length * 0.36, radius * 0.25), (0.06, length * 0.46, 0.1), BLACK)
        b.box(
            (radius * 0.45, front + length * 0.052, radius * 0.42), (radius * 0.62, 0.3, 0.22), GLASS, (0.8, 0.6), 0.12
        )
    if rng.random() < 0.5:
        _landing_gear(b, radius, front + length * 0.12, place + length * 0.06)


def _landing_gear(b: Builder, radius: float, nose: float, main: float) -> None:
    down = -radius - 0.55
    b.tube([(0, nose, -radius * 0.8), (0, nose, down)], 0.06, CHROME, 6)
    b.disc((0, nose, down), 0.2, 0.2, RUBBER, "x", 10)
    with b.mirrored():
        b.tube([(0.5, main, -radius * 0.5), (0.8, main, down)], 0.07, CHROME, 6)
        b.disc((0.8, main, down), 0.26, 0.3, RUBBER, "x", 10)


def _light_aircraft(b: Builder, rng: np.random.Generator) -> None:
    body, accent = paint(rng), paint(rng)
    length, radius = rng.uniform(6.5, 8.0), rng.uniform(0.5, 0.62)
    front, rear = -length / 2, length / 2
    y = front + length * np.array([0.0, 0.03, 0.16, 0.22, 0.4, 0.55, 1.0])
    top = radius * np.array([0.4, 0.62, 0.75, 0.8, 0.85, 0.75, 0.3])
    b.hull(
        y,
        radius * np.array([0.4, 0.65, 0.85, 0.95, 0.95, 0.7, 0.12]),
        -top * np.array([1, 1, 1, 1, 1, 0.7, -0.1]),
        top,
        body,
        3.5,
        14,
    )
    cabin = front + length * 0.32
    b.box((0, cabin, radius * 1.15), (radius * 1.7, length * 0.22, radius * 0.8), GLASS, (0.75, 0.6), 0.1)
    b.slab((0, cabin + 0.1, radius * 1.55), (radius * 1.35, length * 0.16, 0.1), body)
    high, biplane = rng.random() < 0.5, rng.random() < 0.25
    span, chord = length * rng.uniform(0.5, 0.65), rng.uniform(1.0, 1.4)
    levels = ([-radius * 0.5] if not high or biplane else []) + ([radius * 1.62] if high or biplane else [])
    with b.mirrored():
        for level in levels:
            lift = rng.uniform(0.0, 0.35)
            _wing(
                b,
                np.array([0, cabin, level]),
                np.array([span, cabin + 0.1, level + lift]),
                (chord, chord * 0.75),
                0.2,
                accent,
            )
        _wing(b, np.array([0, rear - 0.5, 0.2]), np.array([length * 0.19, rear - 0.35, 0.22]), (1.0, 0.6), 0.1, accent)
        b.tube([(0.3, cabin, -radius * 0.6), (0.95, cabin - 0.1, -radius - 0.55)], 0.06, CHROME, 6)
        b.disc((0.95, cabin - 0.1, -radius - 0.6), 0.26, 0.16, RUBBER, "x", 10)
    _wing(b, np.array([0, rear - 0.6, 0.1]), np.array([0, rear - 0.25, rng.uniform(1.1, 1.5)]), (1.2, 0.7), 0.1, accent)
    b.revolve([[0.02, -0.45], [radius * 0.28, -0.15], [radius * 0.3, 0]], CHROME, (0, front, 0), "y", 10)
    turn = rng.uniform(0, math.pi)
    with b.turned("y", turn, (0, front, 0)):
        b.box((0, front - 0.18, 0), (0.16, 0.05, length * 0.3), BLACK)


def boat(rng: np.random.Generator) -> Shape:
    """A motor boat, fishing boat or sailing boat; the pointed bow is the front."""
    b, hull, deck = Builder(), paint(rng), wood(rng)
    length, half, depth = rng.uniform(5.5, 9.0), rng.uniform(1.0, 1.4), rng.uniform(0.8, 1.2)
    front, rear = -length / 2, length / 2
    t = np.array([0.0, 0.06, 0.18, 0.35, 0.6, 0.85, 1.0])
    width = half * np.array([0.03, 0.3, 0.66, 0.93, 1.0, 0.95, 0.85])
    sheer = depth * (1 + rng.uniform(0.15, 0.5) * (1 - t) ** 2)
    outline = np.array([[-1.0, 1.0], [-0.86, 0.45], [-0.45, 0.05], [0, 0], [0.45, 0.05], [0.86, 0.45], [1.0, 1.0]])
    rings = np.empty((len(t), len(outline), 3))
    rings[:, :, 0] = width[:, None] * outline[:, 0]
    keel = depth * 0.55 * (1 - t) ** 4
    rings[:, :, 2] = keel[:, None] + (sheer - keel)[:, None] * outline[:, 1]
    # A raked stem: the bow leans forward with height.
    rings[:, :, 1] = (front + length * t)[:, None] - (0.35 * (1 - t) ** 3)[:, None] * outline[:, 1]
    b.loft(rings, hull)
    _deck(b, rings, deck)
    stripe = paint(rng)
    with b.mirrored():
        b.tube(rings[:, -1] + (0.0, 0.0, 0.02), 0.06, stripe, 5)
    level = float(np.interp(0.5, t, sheer))
    style = rng.choice(["motor", "fishing", "sail"])
    if style == "sail":
        _sail(b, rng, front, rear, level, half)
    else:
        _wheelhouse(b, rng, style == "fishing", (front, rear, level, half))
    if style == "motor":
        b.box((0, rear + 0.2, level + 0.1), (0.45, 0.4, 0.6), BLACK, (0.8, 0.8))
        b.box((0, rear + 0.25, level - 0.6), (0.14, 0.2, 1.0), BLACK)
    return b.build()


def _deck(b: Builder, rings: Floats, deck: Material) -> None:
    """Planks between the two gunwales, a little below them."""
    left, right = rings[:, 0] - (0, 0, 0.06), rings[:, -1] - (0, 0, 0.06)
    for k in range(len(rings) - 1):
        b.quad([left[k], right[k], right[k + 1], left[k + 1]], deck)


def _wheelhouse(b: Builder, rng: np.random.Generator, tall: bool, size: tuple[float, float, float, float]) -> None:
    """A cabin with its windscreen to the bow and an open back; a fishing boat has it further aft, with a mast."""
    front, rear, level, half = size
    length = rear - front
    center = front + length * (rng.uniform(0.55, 0.68) if tall else rng.uniform(0.38, 0.48))
    wide, deep = half * rng.uniform(1.0, 1.35), length * rng.uniform(0.18, 0.3)
    height = rng.uniform(1.1, 1.6) if tall else rng.uniform(0.45, 0.7)
    wall = WHITE if rng.random() < 0.6 else paint(rng)
    b.box((0, center, level + height * 0.25), (wide, deep, height * 0.5), wall)
    b.box(
        (0, center + 0.05, level + height * 0.75),
        (wide * 0.97, deep * 0.97, height * 0.5),
        GLASS,
        (0.9, 0.8),
        deep * 0.1,
    )
    b.slab((0, center + deep * 0.1, level + height * 1.02), (wide * 1.0, deep * 0.95, 0.1), wall)
    b.box((0, center + deep * 0.5, level + height * 0.45), (wide * 0.9, 0.08, height * 0.9), darker(wall, 0.7))
    if tall:
        b.tube(
            [(0, center + deep * 0.4, level), (0, center + deep * 0.4, level + height + rng.uniform(0.8, 1.8))],
            0.06,
            wood(rng),
            6,
        )
    else:
        with b.mirrored():
            b.box((half * 0.4, rear - length * 0.16, level + 0.15), (half * 0.6, length * 0.12, 0.3), cloth(rng))
    rail = np.array([[0.5, 0.14], [0.3, 0.07], [0.0, 0.02]])
    points = [(half * x, front + length * y, level + 0.55) for x, y in rail]
    with b.mirrored():
        b.tube(points, 0.035, CHROME, 5)
        b.tube([points[0], (points[0][0], points[0][1], level)], 0.03, CHROME, 5)


def _sail(b: Builder, rng: np.random.Generator, front: float, rear: float, level: float, half: float) -> None:
    """Mast, main sail aft of it, jib before it, and a low cabin."""
    length = rear - front
    mast = front + length * rng.uniform(0.38, 0.45)
    top = level + length * rng.uniform(0.8, 1.1)
    sail = WHITE._replace(specular=0.05, reflect=0.0) if rng.random() < 0.6 else cloth(rng)
    boom = level + rng.uniform(0.5, 0.8)
    b.tube([(0, mast, level - 0.1), (0, mast, top)], 0.07, metal(rng), 6)
    b.tube([(0, mast, boom), (0, rear - length * 0.1, boom)], 0.05, metal(rng), 6)
    b.quad(
        [
            (0, mast + 0.1, top * 0.97),
            (0, mast + 0.1, boom),
            (0, rear - length * 0.12, boom),
            (0, mast + 0.2, top * 0.97),
        ],
        sail,
    )
    b.quad(
        [(0, mast - 0.1, top * 0.85), (0, mast - 0.3, boom), (0, front, level + 0.15), (0, mast - 0.15, top * 0.85)],
        sail,
    )
    b.box((0, mast + 0.4, level + 0.15), (half * 1.1, length * 0.3, 0.35), GLASS, (0.85, 0.85))
    b.slab((0, mast + 0.4, level + 0.36), (half * 1.05, length * 0.28, 0.1), WHITE)
