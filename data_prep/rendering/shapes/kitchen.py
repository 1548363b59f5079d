"""Appliances and cupboards with doors, drawers and controls towards -y; a plain or finned back at +y.

A handle or panel at one side stands at either with equal chance: the mirror image of an instance is another instance.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from data_prep.rendering.shapes.materials import (
    BLACK,
    BRASS,
    CHROME,
    GLASS,
    WHITE,
    darker,
    metal,
    paint,
    plastic,
    wood,
)
from data_prep.rendering.shapes.mesh import Builder, Material, Shape

_DISPLAYS = ((0.1, 0.75, 0.95), (0.2, 0.9, 0.3), (0.95, 0.4, 0.1))


def _enamel(rng: np.random.Generator) -> Material:
    """What kitchen appliances are clad with."""
    pick = rng.random()
    return WHITE if pick < 0.3 else metal(rng) if pick < 0.55 else BLACK if pick < 0.65 else paint(rng)


def _trim(rng: np.random.Generator, body: Material) -> Material:
    """Handles and knobs."""
    pick = rng.random()
    return CHROME if pick < 0.4 else BLACK if pick < 0.6 else BRASS if pick < 0.7 else darker(body, 0.6)


def _bar(b: Builder, center: tuple[float, float, float], length: float, upright: bool,
         material: Material, reach: float = 0.05) -> None:  # fmt: skip
    """A bar handle held off the surface at ``center`` by two posts."""
    x, y, z = center
    dx, dz = (0.0, length / 2) if upright else (length / 2, 0.0)
    thick = reach * 0.25
    b.tube([(x - dx, y - reach, z - dz), (x + dx, y - reach, z + dz)], thick, material, 6)
    for sign in (-0.85, 0.85):
        place = (x + sign * dx, z + sign * dz)
        b.tube([(place[0], y, place[1]), (place[0], y - reach, place[1])], thick * 0.8, material, 5)


def _display(rng: np.random.Generator) -> Material:
    """A lit clock."""
    return Material(_DISPLAYS[int(rng.integers(len(_DISPLAYS)))], specular=0.5, gloss=60.0)


def refrigerator(rng: np.random.Generator) -> Shape:
    """One door, freezer above or below, side by side, or French doors; condenser and compressor behind."""
    b, body = Builder(), _enamel(rng)
    door, trim = body if rng.random() < 0.7 else _enamel(rng), _trim(rng, body)
    style = str(rng.choice(["one", "small", "top", "bottom", "side", "french"]))
    wide = style in ("side", "french")
    half = rng.uniform(0.38, 0.47) if wide else rng.uniform(0.25, 0.36)
    deep, tall = rng.uniform(0.26, 0.36), rng.uniform(0.8, 1.0) if style == "small" else rng.uniform(1.45, 1.95)
    foot, gap, thick = rng.uniform(0.03, 0.09), rng.uniform(0.008, 0.018), rng.uniform(0.04, 0.08)
    b.box((0, 0, (tall + foot) / 2), (2 * half, 2 * deep, tall - foot), darker(body, rng.uniform(0.6, 1.0)))
    b.box((0, -deep * 0.1, foot / 2), (1.9 * half, 1.7 * deep, foot), BLACK)
    hinge = float(rng.choice([-1.0, 1.0]))
    cut = {"top": rng.uniform(0.66, 0.76), "bottom": rng.uniform(0.28, 0.4), "french": rng.uniform(0.3, 0.42)}.get(
        style
    )
    levels = [foot, tall] if cut is None else [foot, foot + cut * (tall - foot), tall]
    long = rng.uniform(0.3, 0.85)
    for k, (low, high) in enumerate(pairwise(levels)):
        split = style == "side" or (style == "french" and k == 1)
        drawer = style in ("bottom", "french") and k == 0
        middle, height = (low + high) / 2, high - low
        for side in (-1.0, 1.0) if split else (hinge,):
            x, width = (side * half / 2, half) if split else (0.0, 2 * half)
            b.slab((x, -deep - thick / 2 - 0.005, middle), (width - gap, thick, height - gap), door, 12)
            y = -deep - thick
            if drawer:
                _bar(b, (0, y, high - 0.07), half * 1.4, False, trim)
            else:
                edge = side * 0.06 if split else side * (half - 0.06)
                _bar(b, (edge, y, middle - height * 0.1), height * long, True, trim)
    y = -deep - thick - 0.003
    if wide and rng.random() < 0.6:
        b.box((hinge * half * 0.5, y, tall * 0.64), (half * 0.5, 0.012, tall * 0.17), BLACK)
        b.box((hinge * half * 0.5, y - 0.006, tall * 0.7), (half * 0.35, 0.01, tall * 0.03), _display(rng))
    elif rng.random() < 0.4:
        b.box((0, y, tall * rng.uniform(0.86, 0.94)), (half * 0.4, 0.01, 0.03), CHROME)
    for k in range(int(rng.integers(5, 9))):
        b.box((0, deep + 0.015, tall * (0.36 + 0.07 * k)), (half * 1.6, 0.01, 0.012), BLACK)
    b.box((0, deep + 0.008, tall * 0.58), (half * 0.1, 0.01, tall * 0.56), BLACK)
    b.box((0, deep, foot + 0.12), (half * 1.5, 0.03, 0.2), BLACK)
    return b.build()


def microwave(rng: np.random.Generator) -> Shape:
    """A window in the door beside (or above) a panel with clock and keys; vents behind."""
    b, body = Builder(), _enamel(rng)
    face = BLACK if rng.random() < 0.5 else _enamel(rng)
    half, deep, tall = rng.uniform(0.21, 0.3), rng.uniform(0.15, 0.24), rng.uniform(0.12, 0.17)
    b.hull([-deep, deep], half, 0.015, 0.015 + 2 * tall, body, rng.uniform(10, 30), 24, smooth=False)
    front, low = -deep - 0.008, 0.015
    b.box((0, front, low + tall), (1.97 * half, 0.03, 1.94 * tall), face)
    y, side, below = front - 0.016, float(rng.choice([-1.0, 1.0])), rng.random() < 0.2
    share = rng.uniform(0.2, 0.3)
    panel, clock, trim = darker(face, rng.uniform(0.5, 1.3)), _display(rng), _trim(rng, body)
    if below:
        window = (0.0, low + tall * (1 + share), half * 1.6, tall * (1.8 - 2 * share))
        plate = (0.0, low + tall * share, half * 1.9, tall * share * 1.6)
        b.box((0, y - 0.004, plate[1]), (half * 0.4, 0.012, plate[3] * 0.5), clock)
        for x in (-0.75, -0.5, 0.5, 0.75):
            b.disc((half * x, y - 0.006, plate[1]), plate[3] * 0.28, 0.02, trim, "y", 10)
        _bar(b, (0, y, low + tall * 1.9), half * 1.5, False, trim, 0.03)
    else:
        width = 2 * half * share
        window = (-side * width / 2, low + tall, (2 * half - width) * rng.uniform(0.7, 0.85), tall * 1.4)
        plate = (side * (half - width / 2), low + tall, width * 0.95, tall * 1.9)
        b.box((plate[0], y - 0.006, low + tall * 1.7), (width * 0.75, 0.012, tall * 0.22), clock)
        if rng.random() < 0.3:
            for z in (0.55, 1.15):
                b.disc((plate[0], y - 0.012, low + tall * z), width * 0.25, 0.03, trim, "y", 14)
        else:
            for row in range(4):
                for column in (-1, 0, 1):
                    center = (plate[0] + column * width * 0.26, y - 0.006, low + tall * (0.4 + 0.28 * row))
                    b.box(center, (width * 0.19, 0.014, tall * 0.16), trim)
        if rng.random() < 0.7:
            _bar(b, (side * (half - width * 1.12), y, low + tall), tall * 1.4, True, trim, 0.03)
    b.box((window[0], y, window[1]), (window[2], 0.012, window[3]), GLASS)
    b.box((plate[0], y, plate[1]), (plate[2], 0.01, plate[3]), panel)
    for k in range(6):
        b.box(
            (0, deep + 0.002, low + tall * (0.5 + 0.2 * k)), (half * rng.uniform(0.8, 1.4), 0.006, tall * 0.07), BLACK
        )
    with b.mirrored():
        for place in (-deep * 0.8, deep * 0.8):
            b.disc((half * 0.85, place, 0.01), 0.015, 0.02, BLACK, "z", 8)
    return b.build()


def stove(rng: np.random.Generator) -> Shape:
    """A cooker: oven door with window and handle, knobs above it, burners on top, often a board behind."""
    b, body = Builder(), _enamel(rng)
    trim = _trim(rng, body)
    half, deep, tall = rng.uniform(0.25, 0.46), rng.uniform(0.26, 0.34), rng.uniform(0.82, 0.95)
    b.box((0, 0, tall / 2 + 0.02), (2 * half, 2 * deep, tall - 0.04), body)
    b.slab((0, 0, tall), (2 * half + 0.02, 2 * deep + 0.03, 0.035), BLACK if rng.random() < 0.6 else metal(rng), 14)
    drawer, panel = tall * rng.uniform(0.12, 0.26), tall * rng.uniform(0.82, 0.88)
    door = darker(body, rng.uniform(0.7, 1.0)) if rng.random() < 0.6 else BLACK
    middle, height = (drawer + panel) / 2, panel - drawer - 0.03
    y = -deep - 0.02
    doors = (-1.0, 1.0) if half > 0.4 and rng.random() < 0.6 else (0.0,)
    span, window = 2 * half / len(doors), height * rng.uniform(0.4, 0.6)
    for side in doors:
        x = side * half / 2
        b.slab((x, y, middle), (span * 0.96, 0.05, height), door, 14)
        b.box((x, y - 0.026, middle - height * 0.05), (span * 0.66, 0.01, window), GLASS)
        _bar(b, (x, y - 0.02, middle + height * 0.4), span * 0.75, False, trim)
    b.box((0, y, drawer / 2 + 0.03), (half * 1.92, 0.04, drawer * 0.8), body)
    b.box(
        (0, y + 0.005, (panel + tall) / 2), (half * 1.98, 0.05, tall - panel - 0.02), darker(body, rng.uniform(0.4, 1))
    )
    count = int(rng.integers(4, 7))
    for k in range(count):
        x = half * 1.6 * ((k + 0.5) / count - 0.5)
        b.disc((x, y - 0.04, (panel + tall) / 2), 0.024, 0.05, trim, "y", 12)
    gas = rng.random() < 0.5
    with b.mirrored():
        for place in (-deep * 0.5, deep * 0.42):
            radius = half * rng.uniform(0.24, 0.34)
            if gas:
                b.disc((half * 0.5, place, tall + 0.025), radius * 0.5, 0.02, BLACK, "z", 12)
                for dx, dy in ((2.0, 0.12), (0.12, 2.0)):
                    b.box((half * 0.5, place, tall + 0.045), (radius * dx, radius * dy, 0.02), BLACK)
            else:
                b.disc((half * 0.5, place, tall + 0.02), radius, 0.012, darker(metal(rng), 0.5), "z", 18)
        b.box((half * 0.9, 0, 0.02), (0.05, deep * 1.7, 0.04), BLACK)
    if rng.random() < 0.6:
        high = rng.uniform(0.08, 0.26)
        b.box((0, deep - 0.03, tall + high / 2), (2 * half, 0.07, high), body)
        b.box((0, deep - 0.068, tall + high * 0.6), (half * 0.5, 0.01, high * 0.35), _display(rng))
    b.box((0, deep, tall * 0.2), (half * 1.8, 0.012, tall * 0.34), darker(body, 0.5))
    b.tube([(0, deep + 0.02, 0.1), (0, deep + 0.02, tall * 0.75)], 0.018, BLACK, 6)
    return b.build()


def cabinet(rng: np.random.Generator) -> Shape:
    """A cupboard, sideboard, wardrobe or chest: doors and drawers with knobs or bars in front, a plain panel behind."""
    b = Builder()
    case = wood(rng) if rng.random() < 0.65 else paint(rng) if rng.random() < 0.5 else metal(rng)
    front = case if rng.random() < 0.5 else wood(rng) if rng.random() < 0.4 else plastic(rng)
    trim = _trim(rng, case)
    style = str(rng.choice(["cupboard", "sideboard", "wardrobe", "chest", "bedside"]))
    half, tall = {
        "cupboard": (rng.uniform(0.3, 0.5), rng.uniform(0.7, 1.1)),
        "sideboard": (rng.uniform(0.6, 0.95), rng.uniform(0.5, 0.8)),
        "wardrobe": (rng.uniform(0.4, 0.7), rng.uniform(1.6, 2.1)),
        "chest": (rng.uniform(0.3, 0.6), rng.uniform(0.7, 1.2)),
        "bedside": (rng.uniform(0.2, 0.28), rng.uniform(0.4, 0.6)),
    }[style]
    deep, leg = rng.uniform(0.18, 0.3), rng.uniform(0.0, 0.2 if style != "wardrobe" else 0.08)
    b.box((0, 0, (tall + leg) / 2), (2 * half, 2 * deep, tall - leg), case)
    b.box((0, -0.01, tall), (2 * half + rng.uniform(0, 0.06), 2 * deep + rng.uniform(0.02, 0.06), 0.03), case)
    b.box((0, deep + 0.003, (tall + leg) / 2), (half * 1.85, 0.01, (tall - leg) * 0.92), darker(case, 0.55))
    with b.mirrored():
        for y in (-deep * 0.88, deep * 0.88):
            b.box((half * 0.92, y, (leg + 0.02) / 2), (0.05, 0.05, leg + 0.02), darker(case, 0.7))
    low, high = leg + 0.02, tall - 0.02
    if style == "wardrobe":
        cells = [(x, w, low, high, True) for x, w in _columns(half, int(rng.choice([2, 4])))]
    elif style == "chest":
        cells = _drawers(0.0, 2 * half, low, high, int(rng.integers(3, 6)))
    elif style == "bedside":
        cells = _drawers(0.0, 2 * half, low, high, int(rng.integers(1, 4)))
    elif style == "cupboard":
        cut = high - (high - low) * float(rng.choice([0.0, rng.uniform(0.15, 0.28)]))
        cells = [(x, w, low, cut, True) for x, w in _columns(half, 2)]
        cells += _drawers(0.0, 2 * half, cut, high, 1) if cut < high else []
    else:
        cells = []
        for k, (x, w) in enumerate(_columns(half, 3)):
            cells += _drawers(x, w, low, high, 3) if k == 1 else [(x, w, low, high, True)]
    bars, glass = rng.random() < 0.5, style in ("cupboard", "wardrobe") and rng.random() < 0.25
    _fronts(b, rng, cells, deep, front, trim, bars, glass)
    return b.build()


_Cell = tuple[float, float, float, float, bool]  # centre and width along x, bottom, top, whether it is a door


def _columns(half: float, count: int) -> list[tuple[float, float]]:
    """Centre and width of equal columns over the whole width."""
    return [(2 * half * ((k + 0.5) / count - 0.5), 2 * half / count) for k in range(count)]


def _drawers(x: float, width: float, low: float, high: float, count: int) -> list[_Cell]:
    step = (high - low) / count
    return [(x, width, low + k * step, low + (k + 1) * step, False) for k in range(count)]


def _fronts(b: Builder, rng: np.random.Generator, cells: list[_Cell], deep: float, front: Material, trim: Material,
            bars: bool, glass: bool) -> None:  # fmt: skip
    """Doors and drawers with a gap around each, a panel on doors, and a handle where a hand looks for it."""
    panel = darker(front, rng.uniform(0.75, 1.2)) if rng.random() < 0.6 else None
    for x, width, low, high, is_door in cells:
        y, middle, height = -deep - 0.015, (low + high) / 2, high - low
        b.box((x, y, middle), (width - 0.02, 0.03, height - 0.02), front)
        if is_door and (glass or panel):
            b.box((x, y - 0.014, middle), (width * 0.68, 0.014, height * 0.78), GLASS if glass else panel or front)
        y -= 0.018
        if not is_door:
            if bars:
                _bar(b, (x, y, middle), width * 0.35, False, trim, 0.03)
            else:
                for place in (-0.25, 0.25) if width > 0.5 else (0.0,):
                    b.disc((x + width * place, y, middle), 0.018, 0.04, trim, "y", 10)
            continue
        # Doors open from the middle of the piece.
        edge = x - np.sign(x) * (width / 2 - 0.05)
        if bars:
            _bar(b, (float(edge), y, middle), min(height * 0.4, 0.5), True, trim, 0.03)
        else:
            b.disc((float(edge), y, middle), 0.018, 0.04, trim, "y", 10)
