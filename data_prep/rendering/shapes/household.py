"""Appliances and cabinets: screen, keyboard, door or open shelves towards -y."""

from __future__ import annotations

import numpy as np

from data_prep.rendering.shapes.materials import (
    BLACK,
    BRASS,
    CHROME,
    GLASS,
    WHITE,
    cloth,
    darker,
    grey,
    metal,
    plastic,
    tone,
    wood,
)
from data_prep.rendering.shapes.mesh import Builder, Material, Shape


def _picture(b: Builder, rng: np.random.Generator, half: float, low: float, high: float, y: float) -> None:
    """What a screen shows: dark, or a coloured desktop with a few windows. Symmetric, as a mirror image must stay
    true."""
    if rng.random() < 0.35:
        b.box((0, y, (low + high) / 2), (2 * half, 0.004, high - low), GLASS)
        return
    glow = Material(tone(rng, (0.2, 0.8), (0.35, 0.9)), specular=0.5, gloss=80.0, reflect=0.1)
    b.box((0, y, (low + high) / 2), (2 * half, 0.004, high - low), glow)
    for _ in range(int(rng.integers(0, 3))):
        wide, tall = half * rng.uniform(0.5, 1.6), (high - low) * rng.uniform(0.1, 0.5)
        center = rng.uniform(low + tall / 2, high - tall / 2)
        pane = Material(tone(rng, (0.0, 0.5), (0.3, 1.0)), specular=0.5, gloss=80.0, reflect=0.1)
        b.box((0, y - 0.003, center), (wide, 0.004, tall), pane)


def tvmonitor(rng: np.random.Generator) -> Shape:
    """A flat screen on a stand, or an old tube set; the screen is the front."""
    b, case = Builder(), BLACK if rng.random() < 0.5 else plastic(rng)
    half, tall = rng.uniform(0.3, 0.5), rng.uniform(0.3, 0.48)
    rim, low = rng.uniform(0.012, 0.04), rng.uniform(0.08, 0.16)
    if rng.random() < 0.3:
        deep = rng.uniform(0.3, 0.45)
        low = 0.02
        b.box((0, 0, low + tall / 2), (2 * half, 0.14, tall), case)
        b.hull(
            [0.06, 0.06 + deep * 0.6, 0.06 + deep],
            half * np.array([0.92, 0.75, 0.45]),
            low + 0.02,
            low + tall * np.array([0.95, 0.85, 0.6]),
            darker(case, 0.8),
            6.0,
            12,
        )
        _picture(b, rng, half * 0.78, low + tall * 0.17, low + tall * 0.93, -0.072)
        for x in (-0.3, 0.0, 0.3):
            b.disc((half * x, -0.075, low + tall * 0.08), 0.014, 0.02, CHROME, "y", 8)
        return b.build()
    b.box((0, 0, low + tall / 2), (2 * half, 0.035, tall), case)
    _picture(b, rng, half - rim, low + rim * rng.uniform(1, 2.5), low + tall - rim, -0.019)
    b.box((0, 0.035, low + tall * 0.5), (half * 1.1, 0.06, tall * 0.6), darker(case, 0.7), (0.85, 1))
    for k in range(4):
        b.box((0, 0.067, low + tall * (0.35 + 0.1 * k)), (half * 0.7, 0.006, tall * 0.03), BLACK)
    if rng.random() < 0.75:
        b.tube([(0, 0.04, 0.01), (0, 0.04, low + tall * 0.3)], rng.uniform(0.02, 0.04), case, 8)
        b.slab(
            (0, 0.02, 0.012), (half * rng.uniform(0.5, 1.0), rng.uniform(0.16, 0.24), 0.024), case, rng.uniform(2, 8)
        )
    else:
        with b.mirrored():
            b.tube([(half * 0.7, 0, low), (half * 0.72, -0.1, 0)], 0.01, case, 5)
            b.tube([(half * 0.7, 0, low), (half * 0.72, 0.1, 0)], 0.01, case, 5)
    return b.build()


def laptop(rng: np.random.Generator) -> Shape:
    """An open notebook computer: keyboard in front, screen behind it facing -y."""
    b, case = Builder(), metal(rng) if rng.random() < 0.5 else plastic(rng)
    keys = BLACK if rng.random() < 0.7 else WHITE
    half, deep, thick = rng.uniform(0.15, 0.19), rng.uniform(0.105, 0.13), rng.uniform(0.012, 0.024)
    b.box((0, 0, thick / 2), (2 * half, 2 * deep, thick), case)
    b.box((0, deep * 0.3, thick), (half * 1.8, deep * 1.0, 0.003), darker(case, 0.6))
    rows = int(rng.integers(4, 6))
    step = deep * 0.95 / rows
    for k in range(rows):
        y = deep * 0.3 + ((k + 0.5) / rows - 0.5) * deep * 0.95
        for x in (-0.72, -0.36, 0.0, 0.36, 0.72):
            b.box((half * x, y, thick + 0.002), (half * 0.32, step * 0.75, 0.004), keys)
    b.box((0, -deep * 0.6, thick), (half * 0.6, deep * 0.5, 0.003), darker(case, 0.8))
    tall, rim = 2 * deep * rng.uniform(0.9, 1.0), rng.uniform(0.006, 0.014)
    with b.turned("x", -rng.uniform(0.05, 0.65), (0, deep, thick)):
        b.box((0, deep + 0.003, thick + tall / 2), (2 * half, 0.008, tall), case)
        b.box((0, deep - 0.0015, thick + tall / 2), (2 * half, 0.002, tall), BLACK if rng.random() < 0.7 else case)
        _picture(b, rng, half - rim, thick + 2 * rim, thick + tall - rim, deep - 0.004)
        b.disc(
            (0, deep + 0.008, thick + tall * 0.55),
            0.02,
            0.003,
            darker(case, 0.4) if rng.random() < 0.5 else WHITE,
            "y",
            12,
        )
    b.tube([(-half * 0.8, deep, thick), (half * 0.8, deep, thick)], 0.008, BLACK, 6)
    return b.build()


def washing_machine(rng: np.random.Generator) -> Shape:
    """A front loader: round door and control panel in front."""
    b, case = Builder(), WHITE if rng.random() < 0.6 else metal(rng) if rng.random() < 0.5 else plastic(rng)
    half, deep, tall = rng.uniform(0.28, 0.32), rng.uniform(0.24, 0.31), rng.uniform(0.8, 0.9)
    b.box((0, 0, tall / 2 + 0.02), (2 * half, 2 * deep, tall - 0.04), case)
    b.slab((0, 0, tall), (2 * half + 0.01, 2 * deep + 0.01, 0.03), darker(case, 0.9), 12)
    middle, radius = tall * rng.uniform(0.4, 0.48), half * rng.uniform(0.52, 0.68)
    rim = CHROME if rng.random() < 0.5 else BLACK if rng.random() < 0.4 else darker(case, 0.75)
    b.ring((0, -deep - 0.005, middle), radius, radius * 0.16, rim, "y", 24)
    b.ellipsoid((0, -deep + 0.01, middle), (radius * 0.92, 0.06, radius * 0.92), GLASS, 9, 18)
    panel = tall * 0.88
    b.box((0, -deep, panel), (half * 1.96, 0.02, tall * 0.15), darker(case, rng.uniform(0.3, 0.95)))
    knobs = rng.choice([1, 2])
    for x in [0.0] if knobs == 1 else [-0.25, 0.25]:
        b.disc((half * x, -deep - 0.02, panel), 0.036, 0.04, CHROME, "y", 14)
    with b.mirrored():
        b.box(
            (half * 0.66, -deep - 0.008, panel), (half * 0.5, 0.012, tall * 0.08), BLACK if rng.random() < 0.5 else case
        )
        for y in (-deep * 0.85, deep * 0.85):
            b.disc((half * 0.85, y, 0.012), 0.03, 0.024, BLACK, "z", 8)
    b.box((0, -deep - 0.002, tall * 0.07), (half * 1.8, 0.01, tall * 0.08), darker(case, 0.85))
    b.box((0, deep, tall * 0.5), (half * 1.5, 0.012, tall * 0.6), darker(case, 0.6))
    with b.mirrored():
        b.disc((half * 0.5, deep + 0.01, tall * 0.85), 0.02, 0.05, BLACK, "y", 8)
    return b.build()


def bookshelf(rng: np.random.Generator) -> Shape:
    """Shelves with books, open in front, a panel behind. Books differ from left to right: the one uneven shape."""
    b, case = Builder(), wood(rng) if rng.random() < 0.75 else plastic(rng)
    half, deep, tall = rng.uniform(0.3, 0.5), rng.uniform(0.13, 0.18), rng.uniform(0.9, 1.9)
    board, shelves = 0.025, int(rng.integers(3, 6))
    b.box((0, deep, tall / 2), (2 * half, 0.015, tall), darker(case, 0.8))
    with b.mirrored():
        b.box((half, 0, tall / 2), (board, 2 * deep, tall), case)
    step = (tall - 0.08) / shelves
    for k in range(shelves + 1):
        b.box((0, 0, 0.06 + k * step), (2 * half, 2 * deep, board), case)
    b.box((0, -deep * 0.9, 0.03), (2 * half, 0.02, 0.06), case)
    spines = [Material(tone(rng, (0.2, 0.9), (0.2, 0.9)), specular=0.2) for _ in range(6)]
    for k in range(shelves):
        x, end = -half + board, half - board - rng.uniform(0, half)
        while x < end:
            wide = rng.uniform(0.035, 0.09)
            height, depth = step * rng.uniform(0.55, 0.85), deep * rng.uniform(1.1, 1.6)
            center = (x + wide / 2, deep - depth / 2 - 0.01, 0.06 + k * step + board / 2 + height / 2)
            b.box(center, (wide * 0.94, depth, height), spines[int(rng.integers(len(spines)))])
            x += wide
    return b.build()


def piano(rng: np.random.Generator) -> Shape:
    """An upright piano: keyboard, music desk and pedals in front, plain back."""
    b = Builder()
    case = Material(grey(rng, 0.03, 0.08), specular=0.7, gloss=70.0, reflect=0.2)
    pick = rng.random()
    if pick < 0.5:
        case = wood(rng)
    elif pick < 0.6:
        case = WHITE
    half, tall = rng.uniform(0.7, 0.78), rng.uniform(1.05, 1.35)
    deep, reach = rng.uniform(0.15, 0.2), rng.uniform(0.24, 0.32)
    level = rng.uniform(0.62, 0.68)
    b.box((0, 0, tall / 2), (2 * half, 2 * deep, tall), case)
    b.box((0, -0.02, tall), (2 * half + 0.06, 2 * deep + 0.08, 0.035), case)
    b.box((0, -deep - reach / 2, level - 0.05), (2 * half, reach, 0.09), case)
    ivory = Material((0.95, 0.94, 0.88), specular=0.6, gloss=50.0)
    b.box((0, -deep - reach * 0.55, level + 0.015), (half * 1.8, reach * 0.7, 0.04), ivory)
    for k in range(15):
        x = half * 1.7 * ((k + 0.5) / 15 - 0.5)
        b.box((x, -deep - reach * 0.42, level + 0.045), (half * 0.055, reach * 0.42, 0.03), BLACK)
    b.box((0, -deep - 0.03, level + 0.1), (half * 1.85, 0.05, 0.16), darker(case, 0.8))
    desk = rng.uniform(0.4, 0.9)
    with b.turned("x", -0.2, (0, -deep, level + 0.22)):
        b.box((0, -deep - 0.03, level + 0.34), (half * desk, 0.02, 0.24), darker(case, 1.25))
        if rng.random() < 0.6:
            b.box((0, -deep - 0.05, level + 0.36), (half * desk * 0.6, 0.012, 0.22), Material((0.95, 0.95, 0.9)))
    with b.mirrored():
        b.box((half * 0.94, -deep - reach / 2, level + 0.04), (half * 0.1, reach, 0.16), case)
        if rng.random() < 0.7:
            b.box((half * 0.9, -deep - reach * 0.8, level / 2), (0.07, 0.07, level), case)
        b.box((half * 0.9, -deep - reach * 0.5, 0.04), (0.09, reach, 0.08), case)
    for x in (-0.07, 0.0, 0.07):
        b.box((x, -deep - 0.06, 0.06), (0.03, 0.14, 0.018), BRASS)
    b.box((0, -deep - 0.005, level * 0.5), (half * 1.5, 0.02, level * 0.65), darker(case, 1.15))
    for x in (-0.6, -0.2, 0.2, 0.6):
        b.box(
            (half * x, deep + 0.01, tall * 0.5),
            (0.06, 0.03, tall * 0.9),
            wood(rng) if pick < 0.5 else darker(case, 0.6),
        )
    if rng.random() < 0.4:
        seat = rng.uniform(0.45, 0.55)
        y = -deep - reach - rng.uniform(0.2, 0.35)
        b.slab((0, y, seat), (rng.uniform(0.5, 0.8), 0.3, 0.07), cloth(rng))
        with b.mirrored():
            for shift in (-0.11, 0.11):
                b.box((0.2, y + shift, seat / 2), (0.04, 0.04, seat), case)
    return b.build()
