"""Bicycles, motorbikes and wheelchairs: they ride towards -y."""

from __future__ import annotations

import numpy as np

from data_prep.rendering.shapes.materials import (
    BLACK,
    CHROME,
    HEADLIGHT,
    RUBBER,
    TAIL_LIGHT,
    cloth,
    darker,
    leather,
    metal,
    paint,
)
from data_prep.rendering.shapes.mesh import Builder, Floats, Material, Shape


def _shifted(point: Floats, x: float, y: float, z: float) -> Floats:
    """A point (3,) moved by (x, y, z)."""
    return point + np.array([x, y, z])


def _spoked_wheel(b: Builder, x: float, y: float, radius: float, tyre: float, rim: Material, spokes: int) -> None:
    """Tyre, rim, hub and straight spokes; stands on z = 0."""
    center = (x, y, radius)
    b.ring(center, radius - tyre, tyre, RUBBER, "x", 22)
    b.ring(center, radius - 2.4 * tyre, tyre * 0.6, rim, "x", 22, 4)
    b.disc(center, radius * 0.1, tyre * 3, rim, "x", 8)
    for angle in np.arange(spokes) * np.pi / spokes:
        reach = np.array([0.0, np.cos(angle), np.sin(angle)]) * (radius - 2 * tyre)
        b.tube([center - reach, center + reach], tyre * 0.12, rim, 4)


def bicycle(rng: np.random.Generator) -> Shape:
    """A city, racing or mountain bicycle: handlebar in front, saddle behind."""
    b, frame, rim = Builder(), paint(rng), metal(rng)
    radius, base = rng.uniform(0.3, 0.36), rng.uniform(0.5, 0.56)
    tyre, pipe = rng.uniform(0.016, 0.03), rng.uniform(0.018, 0.026)
    front, rear = np.array([0, -base, radius]), np.array([0, base, radius])
    crank = np.array([0, 0.04, radius * 0.85])
    saddle = np.array([0, rng.uniform(0.16, 0.24), rng.uniform(0.8, 0.95)])
    head = np.array([0, -base + rng.uniform(0.12, 0.2), rng.uniform(0.8, 0.95)])
    low_head = head + (front - head) * 0.22
    seat_joint = crank + (saddle - crank) * rng.uniform(0.6, 0.85)
    step_through = rng.random() < 0.25
    for start, end, size in (
        (crank, saddle, 1.0),
        (crank, low_head, 1.2),
        (
            crank + (saddle - crank) * 0.35 if step_through else seat_joint,
            head + (low_head - head) * 0.6,
            1.1,
        ),
        (head, low_head, 1.3),
    ):
        b.tube([start, end], pipe * size, frame, 8)
    side = np.array([tyre * 2.6, 0, 0])
    with b.mirrored():
        b.tube([seat_joint, rear + side], pipe * 0.6, frame, 6)
        b.tube([crank + side * 0.5, rear + side], pipe * 0.6, frame, 6)
        b.tube([low_head, low_head + side + (front - low_head) * 0.2, front + side], pipe * 0.7, frame, 6)
        b.box(_shifted(crank, 0.11, 0, -0.17), (0.09, 0.08, 0.025), BLACK)
        b.tube([_shifted(crank, 0.05, 0, 0), _shifted(crank, 0.06, 0, -0.17)], 0.012, CHROME, 5)
    for end in (front, rear):
        _spoked_wheel(b, 0, end[1], radius, tyre, rim, int(rng.integers(5, 9)))
    b.disc(crank, 0.08, 0.02, CHROME, "x", 14)
    b.hull(
        saddle[1] + np.array([-0.14, -0.05, 0.06, 0.12]),
        [0.02, 0.035, 0.075, 0.07],
        saddle[2],
        saddle[2] + np.array([0.035, 0.045, 0.06, 0.06]),
        BLACK if rng.random() < 0.6 else leather(rng),
        3.0,
        12,
    )
    _handlebar(b, rng, head)
    if rng.random() < 0.4:
        with b.mirrored():
            b.tube([_shifted(rear, 0.05, 0, 0.05), _shifted(rear, 0.07, -0.05, radius + 0.06)], 0.008, CHROME, 4)
        b.box((0, base - 0.02, 2 * radius + 0.06), (0.16, 0.34, 0.015), darker(rim))
    if rng.random() < 0.5:
        b.disc(_shifted(head, 0, -0.09, -0.06), 0.04, 0.07, HEADLIGHT, "y", 10)
        b.box(_shifted(saddle, 0, 0.05, -0.1), (0.05, 0.03, 0.05), TAIL_LIGHT)
    return b.build()


def _handlebar(b: Builder, rng: np.random.Generator, head: Floats) -> None:
    """Straight, swept-back or dropped."""
    style, half = rng.choice(["straight", "swept", "dropped"]), rng.uniform(0.2, 0.32)
    top = _shifted(head, 0, -0.03, rng.uniform(0.06, 0.14))
    b.tube([head, top], 0.018, CHROME, 6)
    bends = {
        "straight": [(0, 0, 0), (half, 0.03, 0.02)],
        "swept": [(0, 0, 0), (half * 0.6, -0.02, 0.05), (half, 0.16, 0.03)],
        "dropped": [(0, 0, 0), (half * 0.75, 0, 0), (half * 0.8, -0.11, -0.02), (half * 0.8, -0.08, -0.13)],
    }[str(style)]
    path = [tuple(top + bend) for bend in bends]
    with b.mirrored():
        b.tube(path, 0.014, CHROME, 6)
        b.tube([path[-1] + (np.array(path[-2]) - path[-1]) * 0.4, path[-1]], 0.022, BLACK, 6)


def motorbike(rng: np.random.Generator) -> Shape:
    """A roadster, sports bike or scooter-like machine: headlamp and fork in front, red light at the tail."""
    b, body, rim = Builder(), paint(rng), metal(rng)
    radius, base, tyre = rng.uniform(0.28, 0.33), rng.uniform(0.66, 0.78), rng.uniform(0.055, 0.075)
    head = np.array([0, -base + rng.uniform(0.26, 0.36), rng.uniform(0.86, 1.0)])
    front, rear = np.array([0, -base, radius]), np.array([0, base, radius])
    for end, wide in ((front, 0.9), (rear, 1.2)):
        b.ring(end, radius - tyre, tyre * wide, RUBBER, "x", 20, 8)
        b.disc(end, radius - 1.7 * tyre, 0.03, rim, "x", 16)
        b.disc(end, radius * 0.35, 0.07, darker(rim), "x", 12)
    seat = rng.uniform(0.72, 0.8)
    b.hull(
        head[1] + np.array([0.02, 0.12, 0.32, 0.48]),
        np.array([0.09, 0.15, 0.16, 0.09]) * rng.uniform(0.85, 1.1),
        seat - 0.02,
        seat + np.array([0.1, 0.22, 0.2, 0.06]),
        body,
        3.0,
    )
    b.hull(
        head[1] + np.array([0.44, 0.6, 0.85, 1.1]),
        [0.09, 0.13, 0.12, 0.07],
        seat - 0.05,
        seat + np.array([0.04, 0.03, 0.06, 0.1]),
        BLACK if rng.random() < 0.6 else leather(rng),
        3.0,
    )
    b.hull([0.2, 0.45, base + 0.12], [0.12, 0.11, 0.05], [0.5, 0.58, 0.72], [seat, seat + 0.02, 0.82], body, 4.0)
    b.box((0, 0.0, radius + 0.08), (0.28, 0.42, 0.3), metal(rng))
    for lift in (0.2, 0.28, 0.36):
        b.box((0, -0.12, radius + lift), (0.24, 0.18, 0.04), CHROME)
    b.tube([tuple(head), (0, 0.05, radius + 0.25), (0, base * 0.45, seat - 0.1)], 0.035, BLACK, 8)
    b.box((0, base + 0.17, 0.78), (0.14, 0.05, 0.07), TAIL_LIGHT)
    b.box((0, base + 0.2, 0.66), (0.16, 0.02, 0.12), CHROME)
    b.box((0, -base, 2 * radius + 0.01), (0.13, 0.36, 0.025), body)
    b.ellipsoid(_shifted(head, 0, -0.15, -0.06), (0.1, 0.07, 0.1), HEADLIGHT, 7, 12)
    faired = rng.random() < 0.45
    if faired:
        b.hull(
            head[1] + np.array([-0.18, -0.1, 0.1, 0.3]),
            [0.06, 0.15, 0.19, 0.17],
            [0.72, 0.6, 0.45, 0.4],
            [0.85, 0.98, 1.05, 0.9],
            body,
            3.5,
        )
        b.disc(_shifted(head, 0, -0.19, -0.1), 0.08, 0.06, HEADLIGHT, "y", 12)
    grip = _shifted(head, rng.uniform(0.28, 0.38), rng.uniform(0.04, 0.16), rng.uniform(0.06, 0.2))
    with b.mirrored():
        b.tube([_shifted(head, 0.08, -0.02, 0), _shifted(front, 0.09, 0, 0)], 0.026, CHROME, 8)
        b.tube([head, _shifted(grip, -0.15, -0.04, 0), grip], 0.016, CHROME, 6)
        b.tube([_shifted(grip, -0.12, -0.03, 0), grip], 0.024, BLACK, 6)
        b.tube([_shifted(grip, -0.1, -0.04, 0), _shifted(grip, -0.06, -0.06, 0.14)], 0.008, BLACK, 4)
        b.box(_shifted(grip, -0.06, -0.06, 0.15), (0.1, 0.02, 0.07), BLACK)
        b.tube([(0.1, base, radius), (0.1, 0.2, radius + 0.05)], 0.03, BLACK, 6)
        b.tube(
            [(0.14, -0.15, radius - 0.02), (0.15, 0.2, 0.2), (0.16, base + 0.1, 0.3)], [0.03, 0.035, 0.055], CHROME, 8
        )
    return b.build()


def wheelchair(rng: np.random.Generator) -> Shape:
    """A hand-pushed wheelchair: foot rests and castors in front, push handles behind."""
    b, frame, seat = Builder(), paint(rng) if rng.random() < 0.5 else CHROME, BLACK
    if rng.random() < 0.6:
        seat = leather(rng) if rng.random() < 0.4 else cloth(rng)
    half, radius = rng.uniform(0.21, 0.26), rng.uniform(0.28, 0.33)
    level, deep, top = rng.uniform(0.46, 0.52), rng.uniform(0.2, 0.24), rng.uniform(0.86, 1.0)
    axle, pipe = deep * 0.7, rng.uniform(0.012, 0.018)
    b.slab((0, 0, level), (2 * half, 2 * deep, 0.06), seat)
    with b.turned("x", -rng.uniform(0.05, 0.2), (0, deep, level)):
        b.box((0, deep, (level + top) / 2), (2 * half, 0.03, top - level), seat)
        with b.mirrored():
            b.tube([(half, deep, level), (half, deep, top), (half, deep + 0.14, top + 0.02)], pipe, frame, 6)
            b.tube([(half, deep + 0.05, top + 0.005), (half, deep + 0.15, top + 0.02)], pipe * 1.6, BLACK, 6)
    castor = rng.uniform(0.07, 0.1)
    foot = rng.uniform(0.1, 0.16)
    with b.mirrored():
        _spoked_wheel(b, half + 0.06, axle, radius, 0.02, CHROME, 6)
        b.ring((half + 0.095, axle, radius), radius * 0.85, 0.009, CHROME, "x", 18, 4)
        b.tube([(half, deep, level), (half, -deep, level), (half, -deep - 0.08, foot)], pipe, frame, 6)
        b.tube([(half, deep * 0.8, level), (half, axle, radius)], pipe, frame, 6)
        b.tube([(half, -deep * 0.7, level), (half, -deep * 0.8, castor)], pipe, frame, 6)
        b.ring((half, -deep * 0.8, castor), castor * 0.75, castor * 0.25, RUBBER, "x", 12)
        b.disc((half, -deep * 0.8, castor), castor * 0.6, 0.02, BLACK, "x", 10)
        b.box((half * 0.55, -deep - 0.14, foot), (half * 0.8, 0.16, 0.02), BLACK)
        arm = level + rng.uniform(0.18, 0.23)
        b.tube([(half, deep * 0.9, arm), (half, -deep * 0.6, arm), (half, -deep * 0.7, level)], pipe, frame, 6)
        b.box((half, 0.02, arm + 0.02), (0.05, deep * 1.4, 0.035), BLACK)
        if rng.random() < 0.5:
            b.box((half + 0.01, 0, (arm + level) / 2), (0.012, deep * 1.3, arm - level - 0.03), darker(seat, 1.2))
    return b.build()
