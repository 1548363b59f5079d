"""Looks of a parametric shape that have nothing to do with what it is: other colours, patterns, dirt, or bare clay.

A model that has seen one form in many dresses has to look at the form.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from data_prep.rendering.shapes.materials import GLASS, HEADLIGHT, TAIL_LIGHT, grey, shade, tone
from data_prep.rendering.shapes.mesh import Floats, Material, Pattern, Shape

_SIGNALS = np.array([material.row() for material in (GLASS, HEADLIGHT, TAIL_LIGHT)], dtype=np.float32)


def dressed(shape: Shape, rng: np.random.Generator) -> Shape:
    """The shape in other materials. One in eight is of one plain colour all over, like models without any materials;
    elsewhere glass and lamps stay what they are."""
    rows = shape.materials
    if rng.random() < 0.125:
        clay = grey(rng, 0.3, 0.95) if rng.random() < 0.6 else tone(rng, (0.1, 0.9), (0.3, 0.95))
        matt = Material(clay, specular=rng.uniform(0.0, 0.4), gloss=rng.uniform(10.0, 60.0))
        return dataclasses.replace(shape, materials=np.tile(np.array(matt.row(), dtype=np.float32), (len(rows), 1)))
    recolour, patterned, dirty = rng.random() < 0.3, rng.random() < 0.4, rng.random() < 0.25
    mud = Material(tone(rng, (0.1, 0.5), (0.1, 0.5))).color
    found = []
    for row in rows:
        material = _material(row)
        if not (row == _SIGNALS).all(axis=1).any():
            material = _aged(material, rng)
            if recolour:
                color = tone(rng, (0.0, 0.95), (0.08, 0.97))
                material = material._replace(color=color, second=shade(color, rng.uniform(0.5, 1.3)))
            if patterned and rng.random() < 0.6:
                material = _patterned(material, rng)
            elif dirty:
                size = rng.uniform(0.7, 3.0)
                kind = Pattern.BLOTCHES if rng.random() < 0.6 else Pattern.NOISE
                material = material._replace(
                    second=mud, grain=rng.uniform(0.15, 0.7), scale=(size, size, size), pattern=kind
                )
        found.append(material.row())
    return dataclasses.replace(shape, materials=np.array(found, dtype=np.float32))


def _material(row: Floats) -> Material:
    """A row of the table as the material it was made from."""
    r, g, b, r2, g2, b2, specular, gloss, reflect, grain, x, y, z, pattern = row.tolist()
    return Material((r, g, b), (r2, g2, b2), specular, gloss, reflect, grain, (x, y, z), int(pattern))


def _aged(material: Material, rng: np.random.Generator) -> Material:
    """A little lighter or darker, duller or shinier."""
    factor = rng.uniform(0.7, 1.3)
    return material._replace(
        color=shade(material.color, factor),
        second=shade(material.second, factor),
        specular=material.specular * rng.uniform(0.2, 1.5),
        gloss=material.gloss * rng.uniform(0.4, 1.6),
        reflect=min(0.6, material.reflect * rng.uniform(0.0, 1.6)),
    )


def _patterned(material: Material, rng: np.random.Generator) -> Material:
    """Two colours in a pattern; two-tone paint meets at half height."""
    kind = Pattern(int(rng.integers(len(Pattern))))
    size = 1.0 if kind is Pattern.HALVES else rng.uniform(0.6, 3.5)
    second = tone(rng, (0.0, 0.9), (0.05, 0.98)) if rng.random() < 0.6 else shade(material.color, rng.uniform(0.3, 1.8))
    return material._replace(second=second, grain=rng.uniform(0.4, 1.0), scale=(size, size, size), pattern=kind)
