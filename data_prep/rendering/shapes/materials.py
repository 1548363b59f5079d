"""Random materials (paints, woods, cloths, metals), and the fixed ones that tell a front from a back."""

from __future__ import annotations

import colorsys

import numpy as np

from data_prep.rendering.shapes.mesh import Color, Material

GLASS = Material((0.10, 0.13, 0.17), specular=0.9, gloss=90.0, reflect=0.45)
RUBBER = Material((0.07, 0.07, 0.08), specular=0.06, gloss=10.0)
CHROME = Material((0.55, 0.56, 0.58), specular=0.9, gloss=60.0, reflect=0.5)
BLACK = Material((0.05, 0.05, 0.06), specular=0.2, gloss=25.0)
WHITE = Material((0.93, 0.93, 0.91), specular=0.3, gloss=40.0, reflect=0.05)
HEADLIGHT = Material((0.98, 0.97, 0.86), specular=0.9, gloss=80.0, reflect=0.1)
TAIL_LIGHT = Material((0.80, 0.03, 0.03), specular=0.5, gloss=50.0)
BRASS = Material((0.76, 0.58, 0.22), specular=0.8, gloss=45.0, reflect=0.35)


def shade(color: Color, factor: float) -> Color:
    """A darker (factor < 1) or lighter colour."""
    red, green, blue = (min(1.0, max(0.0, channel * factor)) for channel in color)
    return red, green, blue


def tone(rng: np.random.Generator, saturation: tuple[float, float], value: tuple[float, float]) -> Color:
    """A random hue with saturation and value in the given ranges."""
    return colorsys.hsv_to_rgb(rng.random(), rng.uniform(*saturation), rng.uniform(*value))


def grey(rng: np.random.Generator, low: float, high: float) -> Color:
    """A nearly neutral colour with brightness in the range."""
    level, tint = rng.uniform(low, high), rng.uniform(-0.02, 0.02)
    return shade((level + tint, level, level - tint), 1.0)


def paint(rng: np.random.Generator) -> Material:
    """Glossy coachwork: white, silver, black or a saturated colour."""
    pick = rng.random()
    if pick < 0.2:
        color = grey(rng, 0.85, 0.97)
    elif pick < 0.4:
        color = grey(rng, 0.35, 0.65)
    elif pick < 0.5:
        color = grey(rng, 0.06, 0.14)
    else:
        color = tone(rng, (0.55, 0.95), (0.35, 0.9))
    return Material(color, specular=0.6, gloss=60.0, reflect=rng.uniform(0.08, 0.25))


def wood(rng: np.random.Generator) -> Material:
    """Timber with grain along one axis, from pale birch to dark walnut."""
    color = colorsys.hsv_to_rgb(rng.uniform(0.05, 0.11), rng.uniform(0.4, 0.7), rng.uniform(0.25, 0.85))
    scale = [rng.uniform(3.0, 5.0)] * 3
    scale[rng.integers(3)] = 0.4
    return Material(
        color,
        shade(color, rng.uniform(0.45, 0.75)),
        specular=rng.uniform(0.1, 0.4),
        gloss=35.0,
        reflect=rng.uniform(0.0, 0.06),
        grain=rng.uniform(0.5, 1.0),
        scale=(scale[0], scale[1], scale[2]),
    )


def cloth(rng: np.random.Generator) -> Material:
    """Upholstery: matt, slightly mottled."""
    color = tone(rng, (0.1, 0.75), (0.25, 0.9))
    size = rng.uniform(2.0, 6.0)
    return Material(
        color,
        shade(color, rng.uniform(0.6, 0.9)),
        specular=0.04,
        gloss=8.0,
        grain=rng.uniform(0.2, 1.0),
        scale=(size, size, size),
    )


def leather(rng: np.random.Generator) -> Material:
    """Dark, softly shining upholstery."""
    color = colorsys.hsv_to_rgb(rng.uniform(0.0, 0.1), rng.uniform(0.2, 0.8), rng.uniform(0.1, 0.5))
    return Material(color, shade(color, 0.7), specular=0.4, gloss=20.0, grain=0.5, scale=(3.0, 3.0, 3.0))


def plastic(rng: np.random.Generator) -> Material:
    """Any colour, half gloss."""
    color = grey(rng, 0.1, 0.95) if rng.random() < 0.5 else tone(rng, (0.4, 0.95), (0.4, 0.95))
    return Material(
        color, specular=rng.uniform(0.2, 0.5), gloss=rng.uniform(20.0, 50.0), reflect=rng.uniform(0.0, 0.08)
    )


def metal(rng: np.random.Generator) -> Material:
    """Brushed steel, aluminium or dark iron."""
    color = grey(rng, 0.2, 0.75)
    return Material(
        color,
        shade(color, 0.8),
        specular=0.8,
        gloss=rng.uniform(25.0, 60.0),
        reflect=rng.uniform(0.1, 0.4),
        grain=0.4,
        scale=(0.5, 0.5, 5.0),
    )


def ceramic(rng: np.random.Generator) -> Material:
    """Glazed: mostly white and pastel, sometimes deep colours."""
    color = tone(rng, (0.0, 0.15), (0.85, 0.97)) if rng.random() < 0.4 else tone(rng, (0.3, 0.9), (0.4, 0.95))
    return Material(color, specular=0.7, gloss=70.0, reflect=rng.uniform(0.05, 0.15))


def darker(material: Material, factor: float = 0.5) -> Material:
    """The same stuff in a darker colour."""
    return material._replace(color=shade(material.color, factor), second=shade(material.second, factor))
