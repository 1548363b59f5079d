"""Furniture to sit or lie on: one sits facing -y, the back rest (or headboard, or cistern) stands at +y."""

from __future__ import annotations

import math

import numpy as np

from data_prep.rendering.shapes.materials import BLACK, CHROME, ceramic, cloth, darker, leather, metal, plastic, wood
from data_prep.rendering.shapes.mesh import Builder, Material, Shape


def _any_of(rng: np.random.Generator, *makers: object) -> Material:
    return makers[int(rng.integers(len(makers)))](rng)  # type: ignore[operator]


def chair(rng: np.random.Generator) -> Shape:
    """A dining chair on four legs or an office chair on castors, with or without arms."""
    b, frame = Builder(), _any_of(rng, wood, metal, plastic)
    seat = _any_of(rng, cloth, leather, wood, plastic)
    half, deep, level = rng.uniform(0.21, 0.27), rng.uniform(0.2, 0.26), rng.uniform(0.42, 0.5)
    top = level + rng.uniform(0.4, 0.62)
    thick, lean = rng.uniform(0.03, 0.09), rng.uniform(0.02, 0.14)
    b.slab((0, 0, level), (2 * half, 2 * deep, thick), seat, power=rng.uniform(4, 10))
    office = rng.random() < 0.3
    if office:
        b.tube([(0, 0, level), (0, 0, 0.1)], 0.03, CHROME, 8)
        for k in range(5):
            angle = math.pi / 2 + k * 2 * math.pi / 5
            foot = (0.28 * math.cos(angle), 0.28 * math.sin(angle), 0.06)
            b.tube([(0, 0, 0.1), foot], 0.022, BLACK, 6)
            b.disc((foot[0], foot[1], 0.03), 0.03, 0.04, BLACK, "x", 8)
    else:
        radius, splay = rng.uniform(0.014, 0.026), rng.uniform(0.0, 0.06)
        with b.mirrored():
            for y in (-deep * 0.88, deep * 0.88):
                b.tube([(half * 0.88, y, level), (half * 0.88 + splay, y * (1 + splay), 0)], radius, frame, 6)
    _chair_back(b, rng, (half, deep, level, top, lean), frame, seat)
    if rng.random() < (0.6 if office else 0.35):
        arm = level + rng.uniform(0.18, 0.26)
        with b.mirrored():
            b.box((half, 0.02, arm), (0.05, deep * 1.5, 0.03), frame)
            b.tube([(half, -deep * 0.6, level), (half, -deep * 0.6, arm)], 0.016, frame, 6)
            b.tube([(half, deep * 0.7, level), (half, deep * 0.7, arm)], 0.016, frame, 6)
    return b.build()


def _chair_back(
    b: Builder,
    rng: np.random.Generator,
    size: tuple[float, float, float, float, float],
    frame: Material,
    seat: Material,
) -> None:
    """A padded, slatted or ladder back leaning away from the sitter."""
    half, deep, level, top, lean = size
    style = rng.choice(["pad", "slats", "ladder"])
    with b.turned("x", -lean, (0, deep, level)):
        if style == "pad":
            low = level + rng.uniform(0.02, 0.2)
            b.box(
                (0, deep, (low + top) / 2), (2 * half * rng.uniform(0.85, 1), rng.uniform(0.03, 0.07), top - low), seat
            )
            with b.mirrored():
                b.box((half * 0.5, deep + 0.02, (level + low) / 2), (0.05, 0.02, low - level + 0.12), frame)
            return
        with b.mirrored():
            b.tube([(half * 0.92, deep, level), (half * 0.92, deep, top)], 0.02, frame, 6)
        b.box((0, deep, top - 0.02), (2 * half, 0.035, rng.uniform(0.05, 0.1)), frame)
        count = int(rng.integers(2, 5))
        for k in range(count):
            if style == "slats":
                x = half * 1.5 * ((k + 0.5) / count - 0.5)
                b.box((x, deep, (level + top) / 2), (0.03, 0.02, top - level), frame)
            else:
                b.box((0, deep, level + (top - level) * (k + 1) / (count + 1)), (2 * half * 0.92, 0.02, 0.045), frame)


def sofa(rng: np.random.Generator) -> Shape:
    """An upholstered sofa for one and a half to four, arms at both ends."""
    b, fabric, foot = Builder(), _any_of(rng, cloth, cloth, leather), _any_of(rng, wood, metal)
    half, deep = rng.uniform(0.7, 1.25), rng.uniform(0.4, 0.5)
    level, back, arm = rng.uniform(0.38, 0.46), rng.uniform(0.72, 0.95), rng.uniform(0.52, 0.68)
    wide, thick = rng.uniform(0.1, 0.24), rng.uniform(0.16, 0.26)
    cushion = fabric if rng.random() < 0.5 else cloth(rng)
    lift = rng.uniform(0.05, 0.16)
    b.box((0, 0, (lift + level) / 2 - 0.04), (2 * half, 2 * deep, level - lift - 0.08), darker(fabric, 0.85))
    b.slab((0, deep - thick / 2, (lift + back) / 2), (2 * half, thick, back - lift), fabric, power=12)
    count = max(1, round(half * rng.uniform(1.6, 2.6)))
    inner = half - wide
    for k in range(count):
        x = inner * 2 * ((k + 0.5) / count - 0.5)
        b.slab((x, -thick * 0.45, level), (2 * inner / count - 0.015, 2 * deep - thick, 0.17), cushion, power=9)
        with b.turned("x", -0.15, (0, deep - thick, level)):
            b.slab(
                (x, deep - thick - 0.04, (level + back) / 2 + 0.05),
                (2 * inner / count - 0.02, 0.14, back - level - 0.02),
                cushion,
            )
    with b.mirrored():
        if rng.random() < 0.5:
            b.slab((half - wide / 2, 0, (lift + arm) / 2), (wide, 2 * deep, arm - lift), fabric, power=9)
        else:
            b.box((half - wide / 2, 0, (lift + arm) / 2), (wide, 2 * deep, arm - lift), fabric)
            b.revolve([[wide * 0.6, -deep], [wide * 0.6, deep]], fabric, (half - wide / 2, 0, arm), "y", 12)
        for y in (-deep * 0.85, deep * 0.85):
            b.box((half * 0.9, y, lift / 2), (0.06, 0.06, lift), foot)
        if rng.random() < 0.4:
            with b.turned("x", -0.3, (0, 0, level)):
                b.slab((inner * 0.8, 0.08, level + 0.26), (0.36, 0.12, 0.34), cloth(rng))
    return b.build()


def bed(rng: np.random.Generator) -> Shape:
    """A single or double bed: headboard and pillows at +y, blanket towards the foot at -y."""
    b, frame, blanket = Builder(), _any_of(rng, wood, wood, cloth, metal), cloth(rng)
    half, deep, level = rng.uniform(0.45, 0.95), rng.uniform(0.98, 1.1), rng.uniform(0.35, 0.5)
    sheet = Material((0.9, 0.9, 0.88), (0.8, 0.8, 0.8), 0.05, 8.0, 0.0, 0.4, (3.0, 3.0, 3.0))
    head, foot = level + rng.uniform(0.35, 0.75), rng.choice([0.0, level + rng.uniform(0.05, 0.25)])
    b.box((0, 0, level - 0.2), (2 * half, 2 * deep, rng.uniform(0.1, 0.2)), frame)
    b.slab((0, 0, level), (1.94 * half, 1.95 * deep, 0.24), sheet, power=14)
    fold = deep * rng.uniform(0.15, 0.45)
    b.slab((0, (fold - deep) / 2 - 0.015, level + 0.02), (2 * half + 0.04, deep + fold + 0.02, 0.26), blanket, power=14)
    b.box((0, fold - 0.08, level + 0.155), (2 * half, 0.2, 0.03), darker(sheet, 0.95))
    pillow = sheet if rng.random() < 0.5 else cloth(rng)
    count = 2 if half > 0.6 else 1
    with b.turned("x", -rng.uniform(0.15, 0.6), (0, deep * 0.75, level + 0.16)):
        for k in range(count):
            x = half * 1.8 * ((k + 0.5) / count - 0.5)
            b.slab((x, deep * 0.75, level + 0.19), (half * 1.6 / count, 0.4, 0.14), pillow, power=4)
    b.box((0, deep + 0.03, head / 2), (2 * half + 0.06, 0.07, head), frame)
    if rng.random() < 0.5:
        b.box((0, deep - 0.015, (level + head) / 2 + 0.05), (1.7 * half, 0.05, head - level - 0.15), cloth(rng))
    if foot:
        b.box((0, -deep - 0.03, foot / 2), (2 * half + 0.06, 0.05, foot), frame)
    with b.mirrored():
        for y in (-deep * 0.95, deep * 0.95):
            b.box((half * 0.93, y, (level - 0.2) / 2), (0.08, 0.08, level - 0.2), frame)
    return b.build()


def bench(rng: np.random.Generator) -> Shape:
    """A slatted park bench with a back rest."""
    b, slat, frame = Builder(), _any_of(rng, wood, wood, plastic), _any_of(rng, metal, wood)
    half, deep, level = rng.uniform(0.65, 1.1), rng.uniform(0.18, 0.26), rng.uniform(0.4, 0.48)
    top, lean = level + rng.uniform(0.35, 0.5), rng.uniform(0.08, 0.3)
    count, rows = int(rng.integers(3, 6)), int(rng.integers(2, 5))
    width = 2 * deep / count
    for k in range(count):
        b.box((0, -deep + (k + 0.5) * width, level), (2 * half, width * 0.8, 0.03), slat)
    with b.turned("x", -lean, (0, deep, level)):
        step = (top - level - 0.08) / rows
        for k in range(rows):
            b.box((0, deep, level + 0.08 + (k + 0.5) * step), (2 * half, 0.03, step * 0.75), slat)
        with b.mirrored():
            b.box((half * 0.85, deep + 0.03, (level + top) / 2), (0.05, 0.04, top - level), frame)
    with b.mirrored():
        for y in (-deep * 0.85, deep * 0.85):
            b.tube([(half * 0.85, y * 0.9, level), (half * 0.85, y * 1.15, 0)], rng.uniform(0.018, 0.03), frame, 6)
        b.box((half * 0.85, 0, level - 0.035), (0.05, 2 * deep, 0.04), frame)
        if rng.random() < 0.6:
            arm = level + 0.22
            b.box((half * 0.93, 0, arm), (0.06, deep * 1.9, 0.03), frame)
            b.tube([(half * 0.93, -deep * 0.85, level), (half * 0.93, -deep * 0.85, arm)], 0.02, frame, 6)
    return b.build()


def toilet(rng: np.random.Generator) -> Shape:
    """A lavatory: bowl in front, cistern behind, lid up or down."""
    b, china, lid = Builder(), ceramic(rng), _any_of(rng, ceramic, plastic)
    half, stretch = rng.uniform(0.17, 0.2), rng.uniform(1.15, 1.4)
    level, tank = rng.uniform(0.37, 0.43), rng.uniform(0.32, 0.42)
    foot = rng.uniform(0.55, 0.75)
    profile = [
        [half * foot, 0],
        [half * foot * 0.9, 0.08],
        [half * 0.7, level * 0.55],
        [half, level - 0.05],
        [half, level],
    ]
    b.revolve(profile, china, (0, -0.04, 0), "z", 18, (1.0, stretch))
    b.disc(
        (0, -0.04 - half * 0.05, level + 0.005), half * 0.62, 0.012, Material((0.25, 0.33, 0.38), reflect=0.3), "z", 16
    )
    seat = darker(lid, rng.uniform(0.75, 1.0))
    unit = np.linspace(0, 2 * math.pi, 17)[:-1]
    path = np.stack(
        [half * 0.84 * np.sin(unit), -0.04 + half * 0.84 * stretch * np.cos(unit), np.full(16, level + 0.015)], 1
    )
    b.tube(path, half * 0.17, seat, 6, closed=True)
    back = -0.04 + half * stretch
    b.box((0, back - 0.02, level / 2), (half * 1.2, 0.2, level), china)
    wide, deep = rng.uniform(0.19, 0.25), rng.uniform(0.16, 0.22)
    b.slab((0, back + deep / 2 - 0.02, level + tank / 2), (2 * wide, deep, tank), china, power=9)
    b.slab((0, back + deep / 2 - 0.02, level + tank + 0.015), (2 * wide + 0.03, deep + 0.03, 0.04), china, power=9)
    b.disc((0, back + deep / 2 - 0.02, level + tank + 0.04), 0.025, 0.02, CHROME, "z", 10)
    up = rng.random() < 0.65
    with b.turned("x", -rng.uniform(0.05, 0.2) - math.pi / 2 if up else 0.0, (0, back - 0.06, level + 0.03)):
        b.revolve(
            [[half * 0.97, 0.0], [half * 0.9, 0.025]], lid, (0, -0.04, level + 0.03), "z", 18, (1.0, stretch * 0.96)
        )
    return b.build()
