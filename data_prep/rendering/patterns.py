"""Solid patterns, periodic cubes in 0..1, by which materials blend their two colours: grain, bands, checks, dirt."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from data_prep.rendering.backgrounds import noise_cube
from data_prep.rendering.shapes.mesh import Floats, Pattern

SIDE = 64  # cells a period


@lru_cache(maxsize=1)
def pattern_cubes() -> Floats:
    """All patterns (len(Pattern) * SIDE ** 3,), x slowest and z fastest, in the order of ``Pattern``."""
    noise = noise_cube(SIDE)
    rng = np.random.default_rng(20240603)
    place = np.arange(SIDE)
    x, y, z = np.meshgrid(place, place, place, indexing="ij")
    # Bands of uneven width: wide ones at the ends of the period, a few narrow ones between.
    band = np.repeat([0, 1, 0, 1, 0, 1, 0], [20, 4, 4, 14, 8, 3, 11]).astype(np.float32)
    checks = (x // 8 + y // 8 + z // 8) % 2
    dots = sum((axis % 16 - 7.5) ** 2 for axis in (x, y, z)) < 30
    cubes = {
        Pattern.NOISE: noise,
        Pattern.BANDS_X: band[np.abs(x - SIDE // 2)],
        Pattern.BANDS_Y: band[y],
        Pattern.BANDS_Z: band[z],
        Pattern.PINSTRIPES: (x % 8 < 2) | (y % 8 < 2),
        Pattern.CHECKS: checks,
        Pattern.DOTS: dots,
        Pattern.BLOTCHES: np.clip((noise - 0.5) * 6 + 0.5, 0, 1),
        Pattern.SPECKLES: rng.random((SIDE,) * 3) ** 4,
        Pattern.HALVES: z < SIDE // 2,
    }
    return np.concatenate([cubes[pattern].ravel().astype(np.float32) for pattern in Pattern])
