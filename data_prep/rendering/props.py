"""Things that are nobody's object: clutter behind the objects, and what hides parts of them in front.

A prop is a small picture with its own coverage: posts, fences, boxes, balls, panels, foliage, soft blobs.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from data_prep.rendering.backgrounds import any_color, noise_tile
from data_prep.rendering.shapes.mesh import Floats

_SHIFT = 4  # cv2's fixed-point bits: corners at sixteenths of a pixel


class Prop(NamedTuple):
    """``color`` (3, h, w) display RGB, ``coverage`` (h, w) 0..1, at ``left``, ``top`` of the picture, inside it."""

    left: int
    top: int
    color: Floats
    coverage: Floats

    @property
    def window(self) -> tuple[slice, slice]:
        """Rows and columns of the picture under the arrays."""
        height, width = self.coverage.shape
        return slice(self.top, self.top + height), slice(self.left, self.left + width)


def lay_over(canvas: Floats, prop: Prop) -> None:
    """Put the prop over the canvas (3, height, width)."""
    under = canvas[(slice(None), *prop.window)]
    under += (prop.color - under) * prop.coverage


def behind_prop(rng: np.random.Generator, width: int, height: int) -> Prop | None:
    """Clutter of any size and place, sometimes out of focus."""
    side = max(width, height)
    size = side * rng.uniform(0.08, 0.5, 2)
    center = np.array([rng.uniform(0, width), height * rng.normal(0.45, 0.18)])
    blur = side * rng.uniform(0.005, 0.03) if rng.random() < 0.4 else 0.0
    return _prop(rng, center, size, blur, width, height)


def front_prop(rng: np.random.Generator, width: int, height: int, box: Floats) -> Prop | None:
    """Something between the camera and the object whose ``box`` (x1, y1, x2, y2) it overlaps, often out of focus."""
    span = box[2:] - box[:2]
    side = float(span.max())
    center = (box[:2] + box[2:]) / 2 + span * rng.uniform(-0.5, 0.5, 2)
    blur = side * rng.uniform(0.01, 0.06) if rng.random() < 0.35 else 0.0
    if rng.random() < 0.4:  # what reaches through the picture: a post, a branch, a fence
        center[1] = height / 2
        size = np.array([side * rng.uniform(0.04, 0.22), height * rng.uniform(1.0, 1.6)])
    else:
        size = side * rng.uniform(0.15, 0.6, 2)
    return _prop(rng, center, size, blur, width, height)


def _prop(rng: np.random.Generator, center: Floats, size: Floats, blur: float, width: int, height: int) -> Prop | None:
    """A random thing of about ``size`` around ``center``; None where it lies outside the picture."""
    reach = size / 2 * 1.25 + 2 * blur + 1
    left, top = np.maximum(np.floor(center - reach), 0).astype(int).tolist()
    right, bottom = np.minimum(np.ceil(center + reach), [width, height]).astype(int).tolist()
    if right - left < 2 or bottom - top < 2:
        return None
    middle, half = center - (left, top), size / 2
    coverage = np.zeros((bottom - top, right - left), dtype=np.uint8)
    light = np.full_like(coverage, 128)  # how bright each part of it is, 128 the colour itself
    _DRAW[int(rng.integers(len(_DRAW)))](rng, coverage, light, middle, half)
    if blur:
        coverage = cv2.GaussianBlur(coverage, (0, 0), blur)
    first, second = any_color(rng, 0.8, 0.05, 0.95), any_color(rng, 0.8, 0.05, 0.95)
    share = np.float32(rng.choice([0.1, 0.3, 0.8])) * _texture(rng, coverage.shape)
    color = first[:, None, None] + (second - first)[:, None, None] * share
    color *= light * np.float32(1 / 128)
    return Prop(left, top, np.minimum(color, 1), coverage * np.float32(1 / 255))


def _texture(rng: np.random.Generator, shape: tuple[int, ...]) -> Floats:
    """A window (h, w) of the noise tile, finer or coarser along each axis."""
    tile = noise_tile()
    rows, columns = (
        (rng.integers(len(tile)) + np.arange(count) * rng.uniform(0.4, 2.5)).astype(np.int32) % len(tile)
        for count in shape
    )
    return tile[rows[:, None], columns]


def _fill(picture: NDArray[np.uint8], corners: Floats, value: float) -> None:
    """A polygon of corners (n, 2), column and row, with smooth edges."""
    points = np.round(np.asarray(corners) * 2**_SHIFT).astype(np.int32)
    cv2.fillPoly(picture, [points], int(value), cv2.LINE_AA, _SHIFT)


def _both(coverage: NDArray[np.uint8], light: NDArray[np.uint8], corners: Floats, value: float) -> None:
    _fill(coverage, corners, 255)
    _fill(light, corners, value)


def _oval(center: Floats, half: Floats, angle: float = 0.0) -> Floats:
    turn = np.linspace(0, 2 * math.pi, 20, endpoint=False)
    across, up = half[0] * np.cos(turn), half[1] * np.sin(turn)
    cosine, sine = math.cos(angle), math.sin(angle)
    return center + np.stack([across * cosine - up * sine, across * sine + up * cosine], axis=1)


def _panel(
    rng: np.random.Generator, coverage: NDArray[np.uint8], light: NDArray[np.uint8], center: Floats, half: Floats
) -> None:
    """A board or post, upright or a little askew."""
    angle = rng.normal(0, 0.08)
    corners = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * half
    turn = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
    _both(coverage, light, center + corners @ turn, rng.uniform(70, 180))


def _cuboid(
    rng: np.random.Generator, coverage: NDArray[np.uint8], light: NDArray[np.uint8], center: Floats, half: Floats
) -> None:
    """A box seen over its near edge: two sides and the top."""
    edge, lean, top = rng.uniform(-0.7, 0.7), rng.uniform(0.05, 0.3), rng.uniform(0.15, 0.6)
    x, y = half
    low, high = np.array([edge * x, y]), np.array([edge * x, -y * (1 - top)])
    sides = [(-x, rng.uniform(60, 200)), (x, rng.uniform(60, 200))]
    far = []
    for end, value in sides:
        rise = y * lean * abs(end - low[0]) / x
        corner = np.array([[end, low[1] - rise], [end, high[1] - rise]])
        _both(coverage, light, center + np.array([low, corner[0], corner[1], high]), value)
        far.append(corner[1])
    back = far[0] + far[1] - high
    _both(coverage, light, center + np.array([high, far[0], back, far[1]]), rng.uniform(90, 230))


def _ball(
    rng: np.random.Generator, coverage: NDArray[np.uint8], light: NDArray[np.uint8], center: Floats, half: Floats
) -> None:
    """Something round, lit from above."""
    _both(coverage, light, _oval(center, half), 80)
    for k in range(1, 4):
        _fill(light, _oval(center - half * 0.1 * k, half * (1 - 0.22 * k)), 80 + 35 * k)


def _bars(
    rng: np.random.Generator, coverage: NDArray[np.uint8], light: NDArray[np.uint8], center: Floats, half: Floats
) -> None:
    """A fence or the rungs of something: parallel bars and two that join them."""
    count, thick = int(rng.integers(2, 7)), rng.uniform(0.08, 0.35)
    pitch = 2 * half[0] / count
    for k in range(count):
        middle = center + np.array([-half[0] + (k + 0.5) * pitch, 0])
        corners = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * [pitch * thick / 2 + 0.5, half[1]]
        _both(coverage, light, middle + corners, rng.uniform(80, 170))
    for place in (-0.6, 0.6):
        corners = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * [half[0], pitch * thick / 2]
        _both(coverage, light, center + np.array([0, place * half[1]]) + corners, rng.uniform(80, 170))


def _foliage(
    rng: np.random.Generator, coverage: NDArray[np.uint8], light: NDArray[np.uint8], center: Floats, half: Floats
) -> None:
    """Leaves of one size, each at an angle of its own."""
    leaf = float(half.min()) * np.array([rng.uniform(0.2, 0.6), rng.uniform(0.06, 0.25)]) + 1
    for _ in range(int(rng.integers(6, 22))):
        place = center + half * np.clip(rng.normal(0, 0.45, 2), -1, 1)
        _both(coverage, light, _oval(place, leaf, rng.uniform(0, math.pi)), rng.uniform(60, 190))


_DRAW = (_panel, _cuboid, _ball, _bars, _foliage)
