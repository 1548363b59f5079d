"""What a camera does to a scene: exposure, colour cast, vignetting, defocus, motion blur, noise, few pixels."""

from __future__ import annotations

import math

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from data_prep.rendering.backgrounds import sensor_noise
from data_prep.rendering.shapes.mesh import Floats

_USUAL_SIDE = 224  # of a picture: lengths of blur below are for it


def develop(rng: np.random.Generator, canvas: Floats) -> Image.Image:
    """The canvas (3, height, width), display RGB in 0..1, as an 8-bit photo of it."""
    height, width = canvas.shape[1:]
    extreme = rng.random() < 0.15
    gain = np.float32(rng.choice([rng.uniform(0.4, 0.75), rng.uniform(1.3, 1.9)]) if extreme else rng.uniform(0.8, 1.2))
    cast = 1 + rng.normal(0, 0.12 if rng.random() < 0.2 else 0.03, 3).astype(np.float32)
    contrast = np.float32(rng.uniform(0.7, 1.25))
    top, left = rng.integers(512 - np.array([height, width]) % 512).tolist()
    noise = sensor_noise(512 * (1 + max(height, width) // 512))
    strength = rng.uniform(0.025, 0.07) if rng.random() < 0.12 else rng.uniform(0.002, 0.025)
    developed = noise[:, top : top + height, left : left + width] * np.float32(255 * strength)
    if rng.random() < 0.25:
        canvas = canvas * _vignette(rng, width, height)
    developed += canvas * (gain * cast * contrast * 255)[:, None, None]
    developed += (1 - contrast) * np.float32(127.5)
    pixels = np.clip(developed, 0, 255).astype(np.uint8).transpose(1, 2, 0)
    pixels = _blurred(rng, np.ascontiguousarray(pixels))
    if rng.random() < 0.04:
        pixels = cv2.cvtColor(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    return Image.fromarray(pixels)


def _vignette(rng: np.random.Generator, width: int, height: int) -> Floats:
    """Light (height, width) that falls off towards the corners."""
    x, y = (np.linspace(-1, 1, count, dtype=np.float32) ** 2 for count in (width, height))
    strength = np.float32(rng.uniform(0.1, 0.4))
    return (1 - strength * x)[None, :] - (strength * y)[:, None]


def _blurred(rng: np.random.Generator, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Half of all pictures are sharp; the others softened, out of focus, moved, or enlarged from few pixels."""
    height, width = pixels.shape[:2]
    scale = max(height, width) / _USUAL_SIDE
    kind = rng.choice(["sharp", "soft", "defocus", "motion", "small"], p=[0.5, 0.28, 0.08, 0.07, 0.07])
    if kind == "soft":
        return np.asarray(cv2.GaussianBlur(pixels, (0, 0), rng.uniform(0.3, 0.8)), dtype=np.uint8)
    if kind == "defocus":
        return np.asarray(cv2.GaussianBlur(pixels, (0, 0), scale * rng.uniform(0.8, 1.8)), dtype=np.uint8)
    if kind == "motion":
        return np.asarray(cv2.filter2D(pixels, -1, _streak(rng, scale * rng.uniform(3, 8))), dtype=np.uint8)
    if kind == "small":
        share = rng.uniform(0.4, 0.75)
        small = cv2.resize(pixels, (round(width * share), round(height * share)), interpolation=cv2.INTER_AREA)
        return np.asarray(cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR), dtype=np.uint8)
    return pixels


def _streak(rng: np.random.Generator, length: float) -> Floats:
    """The path (k, k) of a point while the shutter is open: a straight line of that many pixels."""
    side = 2 * math.ceil(length / 2) + 1
    angle = rng.uniform(0, math.pi)
    end = np.array([math.cos(angle), math.sin(angle)]) * length / 2
    path = np.zeros((side, side), dtype=np.uint8)
    first, last = ((side // 2 + sign * end) * 16 for sign in (-1, 1))
    cv2.line(path, first.round().astype(int).tolist(), last.round().astype(int).tolist(), 255, 1, cv2.LINE_AA, 4)
    return (path / path.sum(dtype=np.float64)).astype(np.float32)
