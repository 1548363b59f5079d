"""Small things.

Teapot: spout towards -y, handle +y. Cup: handle -y. Hammer: head up, striking face -y, claw +y. Guitar: neck up,
strings -y. Camera: lens -y.
"""

from __future__ import annotations

import math

import numpy as np

from data_prep.rendering.shapes.materials import (
    BLACK,
    BRASS,
    CHROME,
    GLASS,
    RUBBER,
    WHITE,
    ceramic,
    darker,
    leather,
    metal,
    paint,
    plastic,
    shade,
    tone,
    wood,
)
from data_prep.rendering.shapes.mesh import Builder, Material, Shape


def cup(rng: np.random.Generator) -> Shape:
    """A mug or tea cup with its handle towards -y, sometimes on a saucer, sometimes full."""
    b, glaze = Builder(), ceramic(rng)
    tall, top = rng.uniform(0.7, 1.15), rng.uniform(0.36, 0.48)
    base = top * rng.uniform(0.55, 1.0)
    belly = base + (top - base) * rng.uniform(0.5, 1.1)
    wall = 0.035
    outside = [[base * 0.92, 0.0], [base, 0.04], [belly, tall * 0.45], [top, tall]]
    b.revolve(outside, glaze, points=24, caps=False)
    b.disc((0, 0, 0.01), base * 0.92, 0.02, glaze, "z", 24)
    inner = glaze if rng.random() < 0.5 else WHITE
    inside = [[top, tall], [top - wall, tall - 0.01], [belly - wall, tall * 0.45], [base - wall, 0.06]]
    b.revolve(inside, inner, points=24, caps=False)
    b.disc((0, 0, 0.06), base - wall, 0.01, inner, "z", 24)
    if rng.random() < 0.6:
        fill = tall * rng.uniform(0.55, 0.85)
        drink = Material(shade((0.45, 0.25, 0.12), rng.uniform(0.3, 1.6)), specular=0.6, gloss=90.0, reflect=0.2)
        b.disc(
            (0, 0, fill),
            float(np.interp(fill, [0, tall * 0.45, tall], [base, belly, top])) - wall,
            0.01,
            drink,
            "z",
            24,
        )
    if rng.random() < 0.55:
        low, high = sorted(rng.uniform(0.1, 0.9, 2))
        level = np.array([low, (low + high) / 2, high]) * tall
        radius = np.interp(level, [0.04, tall * 0.45, tall], [base, belly, top]) + 0.006
        b.revolve(np.stack([radius, level], 1), plastic(rng), points=24, caps=False)
    span, thick = tall * rng.uniform(0.45, 0.65), rng.uniform(0.035, 0.06)
    middle, out = tall * rng.uniform(0.48, 0.6), rng.uniform(0.22, 0.36)
    angle = np.linspace(-0.5, 0.5, 9) * math.pi * rng.uniform(1.0, 1.15)
    root = float(np.interp(middle, [0, tall * 0.45, tall], [base, belly, top])) - 0.03
    path = np.stack([np.zeros(9), -root - out * np.cos(angle), middle + span / 2 * np.sin(angle)], axis=1)
    b.tube(path, thick, glaze, 8)
    if rng.random() < 0.3:
        plate = top * rng.uniform(1.6, 1.9)
        b.revolve([[plate * 0.5, -0.05], [plate, 0.03], [plate * 0.96, 0.045], [plate * 0.5, -0.01]], glaze, points=24)
    return b.build()


def teapot(rng: np.random.Generator) -> Shape:
    """A round, squat or tall pot: spout towards -y, handle towards +y, a knob on the lid."""
    b, glaze = Builder(), ceramic(rng) if rng.random() < 0.7 else metal(rng)
    belly, tall = rng.uniform(0.5, 0.62), rng.uniform(0.7, 1.1)
    base, neck = belly * rng.uniform(0.55, 0.85), belly * rng.uniform(0.35, 0.6)
    bulge = rng.uniform(0.35, 0.55)
    angle = np.linspace(0, 1, 8)
    radius = np.interp(angle, [0, bulge, 1], [base, belly, neck])
    radius = np.maximum(radius, belly * np.sqrt(np.clip(1 - ((angle - bulge) / 0.62) ** 2, 0, 1)))
    radius[-1], radius[0] = neck, base
    b.revolve(np.stack([radius, tall * angle], 1), glaze, points=22)
    lid = glaze if rng.random() < 0.6 else darker(glaze, rng.uniform(0.4, 0.8))
    rise = rng.uniform(0.06, 0.16)
    b.revolve([[neck * 1.02, tall], [neck * 0.9, tall + rise * 0.6], [neck * 0.3, tall + rise]], lid, points=18)
    b.ellipsoid((0, 0, tall + rise + 0.05), (0.07, 0.07, 0.07), BRASS if rng.random() < 0.3 else lid, 6, 10)
    low, reach = tall * rng.uniform(0.25, 0.4), rng.uniform(0.3, 0.5)
    rise = tall * rng.uniform(0.85, 1.08)
    start = -float(np.interp(low / tall, angle, radius)) + 0.06
    along, up = start - reach * np.array([0.0, 0.55, 0.8, 1.0]), [low, low + 0.05, (low + rise) / 2, rise]
    b.tube(np.stack([np.zeros(4), along, up], axis=1), [0.14, 0.1, 0.07, 0.055], glaze, 10)
    b.disc((0, start - reach, rise + 0.005), 0.035, 0.02, BLACK, "z", 8)
    span, out = tall * rng.uniform(0.55, 0.75), rng.uniform(0.28, 0.4)
    turn = np.linspace(-0.5, 0.5, 10) * math.pi * 1.05
    root = float(np.interp(0.5, angle, radius)) - 0.06
    path = np.stack([np.zeros(10), root + out * np.cos(turn), tall * 0.55 + span / 2 * np.sin(turn)], axis=1)
    b.tube(path, rng.uniform(0.035, 0.055), glaze if rng.random() < 0.6 else BLACK, 8)
    if rng.random() < 0.5:
        level = np.linspace(bulge - 0.12, bulge + 0.12, 3)
        ring = np.interp(level, angle, radius) + 0.008
        b.revolve(np.stack([ring, level * tall], 1), plastic(rng), points=22, caps=False)
    return b.build()


def hammer(rng: np.random.Generator) -> Shape:
    """A claw hammer or a mallet-like one with a wedge, head up."""
    b, steel = Builder(), metal(rng)
    length, head = rng.uniform(0.9, 1.2), rng.uniform(0.2, 0.28)
    thick = rng.uniform(0.045, 0.06)
    grip = wood(rng) if rng.random() < 0.5 else plastic(rng)
    heights = np.array([0.0, 0.04, 0.16, 0.36, 0.42, length])
    radius = np.array([0.85, 1.05, 0.85, 1.0, 0.75, 0.6]) * thick * 0.95
    rings = np.stack([radius, heights], axis=1)
    split = 4
    b.revolve(rings[: split + 1], RUBBER if rng.random() < 0.4 else grip, points=12, stretch=(0.75, 1.2))
    b.revolve(rings[split:], grip if rng.random() < 0.6 else steel, points=12, stretch=(0.75, 1.2))
    b.box((0, 0, length), (thick * 1.7, thick * 2.6, thick * 2.4), steel)
    b.disc((0, 0, length + thick * 1.3), thick * 0.6, 0.02, darker(grip, 0.7), "z", 10)
    face = rng.uniform(0.055, 0.085)
    profile = [
        [face, -head],
        [face * 1.04, -head + 0.03],
        [face, -head * 0.62],
        [thick * 0.7, -head * 0.52],
        [thick * 0.8, 0],
    ]
    b.revolve(profile, steel, (0, 0, length), "y", 14)
    b.disc((0, -head - 0.004, length), face * 0.9, 0.01, CHROME, "y", 14)
    if rng.random() < 0.7:
        reach, drop = rng.uniform(0.24, 0.34), rng.uniform(0.06, 0.16)
        t = np.linspace(0, 1, 6)
        with b.mirrored():
            path = np.stack([thick * (0.35 + 0.5 * t), reach * t, length + 0.02 - drop * t**2], axis=1)
            b.tube(path, thick * (0.55 - 0.4 * t), steel, 6)
    else:
        b.box((0, head * 0.5, length), (thick * 1.5, head, thick * 2.0), steel)
        with b.turned("x", -math.pi / 2, (0, head, length)):
            b.box((0, head, length + head * 0.25), (thick * 1.5, thick * 2.0, head * 0.5), steel, (1.0, 0.1))
    return b.build()


def guitar(rng: np.random.Generator) -> Shape:
    """An acoustic or electric guitar standing upright, strings towards -y."""
    b = Builder()
    acoustic = rng.random() < 0.6
    side = wood(rng)
    front = wood(rng) if acoustic or rng.random() < 0.3 else paint(rng)
    low, waist, high = rng.uniform(0.19, 0.22), rng.uniform(0.1, 0.13), rng.uniform(0.14, 0.17)
    tall, thick = rng.uniform(0.44, 0.52), rng.uniform(0.09, 0.12) if acoustic else rng.uniform(0.04, 0.05)
    t = np.linspace(0.04, 0.96, 12)
    width = np.interp(t, [0.0, 0.12, 0.3, 0.6, 0.85, 1.0], [0.06, low * 0.82, low, waist, high, 0.07])
    outline = np.concatenate([np.stack([width, tall * t], 1), np.stack([-width, tall * t], 1)[::-1]])
    rings = np.stack([np.insert(outline, 1, y, axis=1) for y in (thick / 2, -thick / 2)])
    b.loft(rings, side, smooth=False)
    plate = np.insert(outline, 1, -thick / 2 - 0.002, axis=1)
    center = np.array([[0.0, -thick / 2 - 0.002, tall * 0.5]])
    fan = np.stack([np.arange(24), (np.arange(24) + 1) % 24, np.full(24, 24)], axis=1).astype(np.int32)
    b.add(np.concatenate([plate, center]), fan, front)
    y = -thick / 2
    top = tall + rng.uniform(0.36, 0.42)
    neck = darker(wood(rng), 0.6)
    b.box((0, y - 0.005, (tall * 0.72 + top) / 2), (0.052, 0.022, top - tall * 0.72), neck)
    b.box((0, y + 0.012, (tall + top) / 2), (0.048, 0.03, top - tall), side)
    for k in range(7):
        b.box((0, y - 0.018, tall * 0.75 + (top - tall * 0.75) * k / 7), (0.05, 0.003, 0.006), CHROME)
    b.box((0, y + 0.012, top + 0.07), (rng.uniform(0.065, 0.085), 0.022, 0.15), darker(side, 0.8), (1.15, 1.0), 0.02)
    with b.mirrored():
        for k in range(3):
            b.disc((0.055, y + 0.012, top + 0.025 + 0.045 * k), 0.011, 0.035, CHROME, "x", 8)
        for x in (0.006, 0.013, 0.02):
            b.box((x, y - 0.021, (tall * 0.24 + top) / 2), (0.0025, 0.002, top - tall * 0.24), CHROME)
    if acoustic:
        b.disc((0, y - 0.004, tall * 0.62), 0.055, 0.006, BLACK, "y", 18)
        b.ring((0, y - 0.004, tall * 0.62), 0.058, 0.005, darker(front, 0.5), "y", 20, 4)
    else:
        guard = Material(tone(rng, (0.0, 0.3), (0.05, 0.95)), specular=0.4)
        b.slab((0, y - 0.003, tall * 0.5), (waist * 1.3, 0.008, tall * 0.42), guard, 4)
        for place in (0.36, 0.5, 0.64):
            b.box((0, y - 0.01, tall * place), (0.085, 0.014, 0.024), BLACK)
        with b.mirrored():
            b.ellipsoid((high * 0.75, 0, tall * 0.98), (0.035, thick / 2, 0.07), front, 6, 8)
            b.disc((low * 0.55, y - 0.01, tall * 0.22), 0.013, 0.02, WHITE, "y", 8)
    b.box((0, y - 0.012, tall * 0.24), (0.11, 0.02, 0.024), BLACK if acoustic else CHROME)
    return b.build()


def camera(rng: np.random.Generator) -> Shape:
    """A photo camera: lens, flash and lettering plate towards -y, screen and eyepiece behind; grip at either side."""
    b, case = Builder(), BLACK if rng.random() < 0.5 else metal(rng) if rng.random() < 0.4 else plastic(rng)
    skin, silver = leather(rng) if rng.random() < 0.5 else darker(case, 0.7), metal(rng)
    style = str(rng.choice(["reflex", "rangefinder", "compact"], p=[0.5, 0.3, 0.2]))
    half, tall = rng.uniform(0.6, 0.75), rng.uniform(0.36, 0.5)
    deep = rng.uniform(0.11, 0.18) if style == "compact" else rng.uniform(0.17, 0.26)
    side = float(rng.choice([-1.0, 1.0]))
    b.hull([-deep, deep], half, 0.0, 2 * tall, case, rng.uniform(5, 12), 20, smooth=False)
    b.hull([-deep - 0.012, -deep + 0.01], half * 0.985, tall * 0.3, tall * 1.55, skin, 8.0, 20, smooth=False)
    b.hull([deep - 0.01, deep + 0.012], half * 0.985, tall * 0.3, tall * 1.55, skin, 8.0, 20, smooth=False)
    if style == "reflex":
        high = rng.uniform(0.16, 0.3)
        b.box((0, -0.02, 2 * tall + high / 2 - 0.02), (0.55, deep * 2.2, high), case, (0.55, 0.7))
        b.box((0, deep + 0.06, 2 * tall + high * 0.3), (0.3, 0.14, high * 0.7), BLACK)
        b.box((0, -deep - 0.02, 2 * tall + high * 0.35), (0.34, 0.02, high * 0.3), WHITE)
    else:
        b.box((side * half * 0.6, -deep - 0.01, tall * 1.75), (half * 0.32, 0.03, tall * 0.2), GLASS)
        b.box((0.0, -deep - 0.01, tall * 1.75), (half * 0.3, 0.03, tall * 0.2), WHITE)
        b.box((side * half * 0.6, deep + 0.015, tall * 1.75), (half * 0.2, 0.05, tall * 0.2), BLACK)
    grip = rng.uniform(0.05, 0.2) if style == "reflex" else rng.uniform(0.0, 0.06)
    b.slab((-side * half * 0.82, -deep - grip / 2, tall * 0.95), (half * 0.36, grip + 0.04, tall * 1.8), skin)
    b.disc((-side * half * 0.75, -deep * 0.4, 2 * tall + 0.03), 0.07, 0.07, silver, "z", 12)
    b.disc((side * half * 0.7, 0, 2 * tall + 0.04), rng.uniform(0.09, 0.14), 0.09, darker(case, 0.8), "z", 14)
    wide, long = (
        tall * rng.uniform(0.6, 0.86),
        rng.uniform(0.08, 0.25) if style == "compact" else rng.uniform(0.2, 0.95),
    )
    middle, barrel = (0.0, 0.0, tall * 0.95), BLACK if rng.random() < 0.7 else silver
    radii = wide * np.array([1.05, 1.05, 0.92, 0.92, 1.0, 1.0, 0.84, 0.5, 0.001])
    reach = np.array([0.0, 0.05, 0.06, 0.5 * long, 0.52 * long, long, long, 0.8 * long, 0.78 * long])
    profile = np.stack([radii, deep + reach], axis=1)
    with b.turned("z", np.pi):
        b.revolve(profile[:-2], barrel, middle, "y", 20, smooth=False, caps=False)
        b.revolve(profile[-3:], GLASS, middle, "y", 20, caps=False)
        b.ring((0, deep + long, middle[2]), wide * 0.92, 0.02, silver, "y", 20, 5)
        b.ring(
            (0, deep + long * 0.3, middle[2]), wide * 0.94, 0.02, silver if rng.random() < 0.5 else BLACK, "y", 20, 5
        )
    screen = Material(tone(rng, (0.1, 0.7), (0.2, 0.9)), specular=0.5, gloss=80.0, reflect=0.1)
    b.box((side * half * 0.15, deep + 0.02, tall * 0.9), (half * 1.1, 0.03, tall * 1.1), BLACK)
    b.box((side * half * 0.15, deep + 0.034, tall * 0.9), (half * 1.0, 0.01, tall * 0.98), screen)
    b.disc((-side * half * 0.72, deep + 0.02, tall * 0.8), 0.11, 0.04, darker(case, 0.6), "y", 14)
    for z in (0.4, 1.3):
        b.disc((-side * half * 0.72, deep + 0.02, tall * z), 0.045, 0.04, silver, "y", 8)
    return b.build()
