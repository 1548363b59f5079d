"""Cars, buses and trains: bonnet, windscreen and pale headlights towards -y, red tail lights towards +y."""

from __future__ import annotations

import numpy as np

from data_prep.rendering.shapes.materials import (
    BLACK,
    CHROME,
    GLASS,
    HEADLIGHT,
    RUBBER,
    TAIL_LIGHT,
    WHITE,
    darker,
    metal,
    paint,
    plastic,
)
from data_prep.rendering.shapes.mesh import Builder, Material, Shape


def wheel(b: Builder, x: float, y: float, radius: float, width: float, rim: Material) -> None:
    """A road wheel standing on z = 0, its axle along x."""
    tread = width * 0.5
    profile = [[radius * 0.9, -tread], [radius, -tread * 0.7], [radius, tread * 0.7], [radius * 0.9, tread]]
    b.revolve(profile, RUBBER, (x, y, radius), "x", 16)
    b.disc((x, y, radius), radius * 0.62, width * 1.06, rim, "x", 14)
    b.disc((x, y, radius), radius * 0.18, width * 1.16, darker(rim), "x", 8)


def _cabin(b: Builder, y: tuple[float, ...], z: tuple[float, float], half: tuple[float, float], body: Material) -> None:
    """Glass house on four corners. ``y``: front and rear at the sill, front and rear at the roof; ``z`` sill, roof."""
    rings = np.array(
        [
            [[-w, front, h], [w, front, h], [w, rear, h], [-w, rear, h]]
            for front, rear, h, w in ((y[0], y[1], z[0], half[0]), (y[2], y[3], z[1], half[1]))
        ]
    )
    b.loft(rings, GLASS, smooth=False)
    roof = [(y[2] + y[3]) / 2, y[3] - y[2]]
    b.slab((0, roof[0], z[1] + 0.02), (2 * half[1] + 0.06, roof[1] + 0.1, 0.09), body, power=7)
    with b.mirrored():
        for sill, top in ((y[0], y[2]), (y[1], y[3])):
            b.tube([(half[0], sill, z[0]), (half[1], top, z[1])], 0.05, body, 6)
        middle = (y[0] + y[1] + y[2] + y[3]) / 4
        b.tube([(half[0] + 0.01, middle, z[0]), (half[1] + 0.01, middle, z[1])], 0.045, body, 6)


def car(rng: np.random.Generator) -> Shape:
    """A saloon, hatchback, van-like or pickup car."""
    b, body, rim = Builder(), paint(rng), metal(rng)
    style = rng.choice(["saloon", "hatchback", "offroad", "pickup"], p=[0.35, 0.3, 0.2, 0.15])
    tall = style in ("offroad", "pickup")
    half, length = rng.uniform(0.82, 0.95), rng.uniform(3.7, 4.9)
    radius = rng.uniform(0.36, 0.44) if tall else rng.uniform(0.29, 0.35)
    low, belt = radius * 0.65, rng.uniform(0.95, 1.12) if tall else rng.uniform(0.78, 0.92)
    roof = belt + rng.uniform(0.5, 0.68)
    bonnet = belt - rng.uniform(0.06, 0.2)
    front, rear = -length / 2, length / 2
    screen = front + length * rng.uniform(0.24, 0.3)
    deck = {"saloon": belt - 0.03, "pickup": belt - 0.05}.get(str(style), belt)
    y = np.array([front, front + 0.12, front + 0.45, screen, rear - 0.7, rear - 0.1, rear])
    high = np.array([bonnet - 0.22, bonnet - 0.06, bonnet, belt, belt, deck, deck - 0.12])
    width = half * np.array([0.82, 0.94, 1.0, 1.0, 1.0, 0.97, 0.86])
    bottom = low + np.array([0.12, 0.02, 0.0, 0.0, 0.0, 0.03, 0.14])
    b.hull(y, width, bottom, high, body, power=6.0)
    tail = {"saloon": rear - length * 0.17, "pickup": screen + length * 0.36}.get(str(style), rear - 0.12)
    rake = rng.uniform(0.3, 0.6)
    back_rake = {"saloon": 0.5, "hatchback": 0.35, "offroad": 0.1, "pickup": 0.08}[str(style)]
    _cabin(b, (screen, tail, screen + rake, tail - back_rake), (belt - 0.04, roof), (half * 0.93, half * 0.76), body)
    if style == "pickup":
        b.box((0, (tail + rear) / 2 + 0.02, belt), (half * 1.6, rear - tail - 0.25, 0.02), BLACK)
    _car_details(b, rng, half, front, rear, bonnet, deck, low)
    axle = length * rng.uniform(0.29, 0.32)
    with b.mirrored():
        for place in (-axle - 0.02, axle):
            b.disc((half * 0.93, place, radius), radius * 1.14, half * 0.17, BLACK, "x", 16)
            wheel(b, half * 0.93, place, radius, half * 0.24, rim)
        b.box((half + 0.06, screen + 0.25, belt + 0.06), (0.14, 0.1, 0.12), body)
        b.box((half * 1.0, 0.1, belt - 0.16), (0.02, 0.2, 0.03), CHROME)
    return b.build()


def _car_details(
    b: Builder, rng: np.random.Generator, half: float, front: float, rear: float, bonnet: float, deck: float, low: float
) -> None:
    """Lamps, grille, bumpers and number plates."""
    grille = BLACK if rng.random() < 0.6 else CHROME
    lamp = rng.uniform(0.1, 0.16)
    b.box((0, front + 0.02, bonnet - 0.27), (half * rng.uniform(0.6, 1.0), 0.06, rng.uniform(0.12, 0.2)), grille)
    b.box((0, front + 0.03, low + 0.2), (half * 1.5, 0.1, 0.12), BLACK)
    b.box((0, front - 0.02, low + 0.2), (0.42, 0.04, 0.11), WHITE)
    b.box((0, rear - 0.02, low + 0.22), (half * 1.5, 0.1, 0.14), BLACK)
    b.box((0, rear + 0.01, (deck + low) / 2 + 0.05), (0.42, 0.04, 0.11), WHITE)
    with b.mirrored():
        b.ellipsoid((half * 0.68, front + 0.07, bonnet - 0.22), (lamp * 1.3, 0.09, lamp * 0.8), HEADLIGHT, 6, 10)
        b.box((half * 0.72, rear - 0.01, deck - 0.24), (half * 0.36, 0.09, rng.uniform(0.12, 0.26)), TAIL_LIGHT)


def bus(rng: np.random.Generator) -> Shape:
    """A coach or city bus: full-width windscreen and destination board in front, small window at the back."""
    b, body, second = Builder(), paint(rng), paint(rng)
    half, length, height = rng.uniform(1.2, 1.3), rng.uniform(7.0, 11.5), rng.uniform(2.8, 3.3)
    low, radius, edge = 0.35, rng.uniform(0.42, 0.5), rng.uniform(8.0, 14.0)
    front, rear, belt = -length / 2, length / 2, rng.uniform(1.2, 1.5)
    nose = rng.uniform(0.02, 0.25)
    y = np.array([front, front + 0.12, front + 0.5, rear - 0.15, rear])
    b.hull(
        y, half * np.array([0.94, 0.98, 1, 1, 0.96]), low, height - np.array([nose, nose / 3, 0, 0, 0.08]), body, edge
    )
    top = height - rng.uniform(0.45, 0.6)
    stripe = rng.uniform(0.15, 0.5)
    count = int(rng.integers(4, 8))
    step = (length - 1.3) / count
    with b.mirrored():
        b.box((half, 0, low + 0.25 + stripe / 2), (0.04, length * 0.93, stripe), second)
        for k in range(count):
            center = front + 0.9 + (k + 0.5) * step
            b.box((half, center, (belt + top) / 2), (0.05, step * 0.9, top - belt), GLASS)
        b.box((half * 0.97, front + 0.45, (belt + top) / 2), (0.09, 0.62, top - belt), GLASS)
        for place in (front + length * 0.2, rear - length * 0.22):
            b.disc((half * 0.96, place, radius), radius * 1.15, 0.14, BLACK, "x", 16)
            wheel(b, half * 0.93, place, radius, 0.3, metal(rng))
        b.ellipsoid((half * 0.72, front - 0.01, low + 0.45), (0.2, 0.08, 0.14), HEADLIGHT, 6, 10)
        b.box((half * 0.8, rear, low + 0.6), (0.2, 0.08, 0.5), TAIL_LIGHT)
        b.box((half + 0.18, front + 0.02, top - 0.2), (0.16, 0.1, 0.45), BLACK)
        b.tube([(half * 0.9, front + 0.05, top + 0.2), (half + 0.18, front + 0.02, top)], 0.03, BLACK, 4)
    tilt = nose * 0.12
    b.box((0, front, (belt - 0.15 + top) / 2), (half * 1.8, 0.1, top - belt + 0.15), GLASS, (0.97, 1), tilt)
    b.box((0, front + 0.02, (top + height - nose) / 2), (half * 1.3, 0.12, 0.22), BLACK)
    b.box(
        (0, front - 0.045, (top + height - nose) / 2),
        (half * 0.8, 0.02, 0.12),
        HEADLIGHT._replace(color=(0.95, 0.65, 0.1)),
    )
    b.box((0, front, low + 0.1), (half * 1.8, 0.14, 0.22), BLACK)
    b.box((0, rear, (belt + 0.25 + top) / 2), (half * 1.2, 0.06, top - belt - 0.3), GLASS)
    b.box((0, rear, low + 0.5), (half * 1.0, 0.06, 0.6), darker(body, 0.55))
    if rng.random() < 0.6:
        b.slab((0, rng.uniform(-0.2, 0.25) * length, height), (half * 1.2, rng.uniform(1.0, 2.4), 0.3), WHITE)
    return b.build()


def train(rng: np.random.Generator) -> Shape:
    """A power car or locomotive: raked or flat driver's front, coupling and red lamps at the square rear."""
    b, body, second = Builder(), paint(rng), paint(rng)
    fast = rng.random() < 0.55
    half, length, height = rng.uniform(1.35, 1.5), rng.uniform(8.5, 13.0), rng.uniform(3.3, 3.8)
    low, front, rear = 0.75, -length / 2, length / 2
    nose = rng.uniform(1.6, 3.2) if fast else rng.uniform(0.1, 0.4)
    t = np.array([0.0, 0.12, 0.3, 0.6, 1.0])
    drop = (1 - t) ** (1.6 if fast else 2.0) * (height * (0.62 if fast else 0.12))
    narrow = 1 - (1 - t) ** 2.5 * (0.45 if fast else 0.06)
    y = np.concatenate([front + nose * t, [rear - 0.1, rear]])
    high = height - np.concatenate([drop, [0, 0.05]])
    width = half * np.concatenate([narrow, [1, 0.97]])
    b.hull(y, width, low, high, body, rng.uniform(5.0, 9.0))
    belt, top = low + (height - low) * 0.5, low + (height - low) * 0.8
    _train_front(b, rng, fast, (half, front, nose, low, height), second)
    count = int(rng.integers(3, 8))
    start = front + nose + 0.7
    step = (rear - 0.6 - start) / count
    with b.mirrored():
        b.box(
            (half, (front + nose + rear) / 2, belt - 0.35),
            (0.05, rear - front - nose - 0.1, rng.uniform(0.2, 0.6)),
            second,
        )
        for k in range(count):
            b.box((half, start + (k + 0.5) * step, (belt + top) / 2), (0.05, step * 0.7, top - belt), GLASS)
        for place in (front + length * 0.22, rear - length * 0.2):
            for shift in (-0.65, 0.65):
                wheel(b, half * 0.72, place + shift, 0.42, 0.2, metal(rng))
            b.box((half * 0.8, place, 0.6), (0.12, 2.2, 0.3), BLACK)
        b.box((half * 0.7, rear, low + 0.5), (0.3, 0.1, 0.24), TAIL_LIGHT)
        b.disc((half * 0.6, rear + 0.14, low + 0.08), 0.2, 0.28, BLACK, "y", 10)
    b.box((0, 0.1 * length, low - 0.05), (half * 1.5, length * 0.7, 0.3), BLACK)
    b.box((0, rear + 0.02, (low + height) / 2), (half * 0.6, 0.06, height - low - 0.5), BLACK)
    if rng.random() < 0.7:
        b.slab((0, rear - length * 0.3, height + 0.05), (half * 1.1, length * 0.25, 0.3), plastic(rng))
    return b.build()


def _train_front(
    b: Builder, rng: np.random.Generator, fast: bool, size: tuple[float, float, float, float, float], second: Material
) -> None:
    """Windscreen, coloured apron, lamps and coupling of the driver's end."""
    half, front, nose, low, height = size
    span = height - low
    if fast:
        # Windscreen laid on the slope between 40 % and 75 % of the nose.
        place = np.array([0.34, 0.74])
        level = height - (1 - place) ** 1.6 * height * 0.62 + 0.02
        along = front + nose * place
        for wide, lift, material in ((0.62, 0.0, BLACK), (0.54, 0.03, GLASS)):
            b.quad(
                [
                    (-half * wide, along[0], level[0] + lift),
                    (half * wide, along[0], level[0] + lift),
                    (half * wide * 0.9, along[1], level[1] + lift),
                    (-half * wide * 0.9, along[1], level[1] + lift),
                ],
                material,
            )
        lamp = (half * 0.42, front + nose * 0.07, low + span * 0.22)
    else:
        b.box((0, front + 0.03, low + span * 0.68), (half * 1.5, 0.12, span * 0.28), GLASS, (0.96, 1), nose * 0.2)
        b.box((0, front + 0.02, low + span * 0.3), (half * 1.7, 0.1, span * rng.uniform(0.12, 0.3)), second)
        b.box((0, front - 0.02, low + span * 0.68), (0.1, 0.08, span * 0.28), BLACK)
        lamp = (half * 0.6, front - 0.04, low + span * 0.28)
    b.box((0, front + 0.1, low - 0.15), (half * 1.3, 0.5, 0.5), BLACK)
    b.disc((0, front - 0.12, low), 0.14, 0.4, BLACK, "y", 10)
    with b.mirrored():
        b.disc(lamp, 0.22, 0.16, HEADLIGHT, "y", 12)
