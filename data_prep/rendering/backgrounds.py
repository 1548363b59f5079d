"""What stands behind the objects: skies, rooms, clutter, studio sweeps, and textured ground in perspective.

Pictures are (3, height, width) while they are made: what varies over a picture then multiplies all three as it is.
"""

from __future__ import annotations

import colorsys
import math
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw

from data_prep.rendering.shapes.mesh import Floats

_TILE = 256


@lru_cache(maxsize=1)
def noise_cube(size: int = 64) -> Floats:
    """Periodic smooth noise (size, size, size) in 0..1, the same in every process; size is a power of two."""
    rng = np.random.default_rng(20240531)
    cube: Floats = np.zeros((size, size, size))
    for cells, weight in ((8, 1.0), (16, 0.8), (32, 0.5), (size, 0.25)):
        grid: Floats = rng.random((cells, cells, cells))
        for axis in range(3):
            grid = _stretch_periodic(grid, size, axis)
        cube += weight * grid
    return _to_unit(cube)


@lru_cache(maxsize=1)
def noise_tile() -> Floats:
    """Periodic noise (256, 256) in 0..1 with equal power in every octave, like most surfaces in photos."""
    rng = np.random.default_rng(20240601)
    tile: Floats = np.zeros((_TILE, _TILE))
    for cells in (4, 8, 16, 32, 64, 128, 256):
        grid: Floats = rng.random((cells, cells))
        for axis in range(2):
            grid = _stretch_periodic(grid, _TILE, axis)
        tile += grid * (1.0 if cells < 128 else 0.6)
    return _to_unit(tile)


@lru_cache(maxsize=2)
def sensor_noise(side: int) -> Floats:
    """Gaussian noise (3, side, side) of unit variance, repeated every 512: pictures take shifted windows of it."""
    noise = np.random.default_rng(20240602).standard_normal((3, 512, 512), dtype=np.float32)
    return np.tile(noise, (1, side // 512, side // 512))


def _stretch_periodic(values: Floats, size: int, axis: int) -> Floats:
    """Linear interpolation of a periodic array to ``size`` samples along ``axis``."""
    count = values.shape[axis]
    place = np.arange(size) * count / size
    low = place.astype(int)
    share = (place - low).reshape([-1 if k == axis else 1 for k in range(values.ndim)])
    return values.take(low, axis) * (1 - share) + values.take((low + 1) % count, axis) * share


def _to_unit(values: Floats) -> Floats:
    low, high = np.quantile(values, [0.01, 0.99])
    return np.clip((values - low) / (high - low), 0, 1).astype(np.float32)


def background(
    rng: np.random.Generator, width: int, height: int, elevation: float, theta: float
) -> tuple[Floats, bool]:
    """A backdrop (3, height, width), display RGB in 0..1, and whether it has a floor to throw shadows on.

    The floor is drawn for a camera at the scene's elevation and roll but with a wide field of view, so that the horizon
    shows as it does in photos.
    """
    if elevation < 0.03 and rng.random() < 0.6:
        return _air(rng, width, height), False
    kind = rng.choice(["floor", "studio", "blur"], p=[0.6, 0.2, 0.2])
    if kind == "studio":
        return _studio(rng, width, height), True
    if kind == "blur":
        return _cloudy(rng, width, height, int(rng.integers(3, 12)), 0.7), True
    return _floor(rng, width, height, elevation, theta), True


def any_color(rng: np.random.Generator, saturation: float, low: float, high: float) -> Floats:
    """Display RGB (3,) of any hue, saturation up to the given one and value in low..high."""
    color = colorsys.hsv_to_rgb(rng.random(), rng.uniform(0, saturation), rng.uniform(low, high))
    return np.array(color, dtype=np.float32)


def _upscale(grid: Floats, width: int, height: int) -> Floats:
    """Colour grid (h, w, 3) resized to (3, height, width) with soft borders."""
    picture = Image.fromarray((np.clip(grid, 0, 1) * 255).astype(np.uint8))
    return _planes(picture.resize((width, height), Image.Resampling.BICUBIC))


def _planes(picture: Image.Image) -> Floats:
    """An 8-bit picture as (3, height, width) in 0..1."""
    return np.ascontiguousarray(np.asarray(picture).transpose(2, 0, 1)) * np.float32(1 / 255)


def _mix(first: Floats, second: Floats, share: Floats) -> Floats:
    """From colour ``first`` (3,) to ``second`` (3,) by ``share`` (h, w): (3, h, w)."""
    return first[:, None, None] + (second - first)[:, None, None] * share


def _cloudy(rng: np.random.Generator, width: int, height: int, cells: int, contrast: float) -> Floats:
    """Out-of-focus surroundings: soft blobs at two scales around a mean colour."""
    base = any_color(rng, 0.5, 0.2, 0.85)
    hues = rng.random((cells, cells, 3), dtype=np.float32) - 0.5
    hues = rng.uniform(0.05, 0.4) * hues + 0.5 * (rng.random((cells, cells, 1), dtype=np.float32) - 0.5)
    coarse = _upscale(base + contrast * hues, width, height)
    fine = rng.random((cells * 5, cells * 5, 1), dtype=np.float32).repeat(3, axis=2)
    return coarse + np.float32(rng.uniform(0.05, 0.3)) * (_upscale(fine, width, height) - 0.5)


def _studio(rng: np.random.Generator, width: int, height: int) -> Floats:
    """A seamless backdrop: smooth gradient, slightly darker corners."""
    top, bottom = any_color(rng, 0.35, 0.3, 0.98), any_color(rng, 0.35, 0.3, 0.98)
    if rng.random() < 0.5:
        bottom = top * np.float32(rng.uniform(0.75, 1.1))
    rows = np.linspace(0, 1, 8, dtype=np.float32)[:, None, None]
    columns = np.linspace(-1, 1, 8, dtype=np.float32)[None, :, None]
    grid = top + (bottom - top) * rows
    grid = grid * (1 - rng.uniform(0, 0.35) * (columns**2 + (2 * rows - 1) ** 2) / 2)
    return _upscale(grid.astype(np.float32), width, height)


def _air(rng: np.random.Generator, width: int, height: int) -> Floats:
    """Sky with clouds."""
    rows = np.linspace(0, 1, height, dtype=np.float32)[:, None]
    zenith = np.array(
        colorsys.hsv_to_rgb(rng.uniform(0.53, 0.63), rng.uniform(0.1, 0.7), rng.uniform(0.5, 0.95)),
        np.float32,
    )
    sky = _mix(zenith, np.ones(3, dtype=np.float32), rows * np.float32(rng.uniform(0.2, 0.8)))
    top, left = rng.integers(_TILE, size=2)
    stretch = rng.uniform(0.3, 1.0)
    row = (top + np.arange(height) * stretch * 1.6).astype(int) % _TILE
    column = (left + np.arange(width) * stretch).astype(int) % _TILE
    cloud = np.clip((noise_tile()[np.ix_(row, column)] - rng.uniform(0.3, 0.7)) * 2, 0, 1)
    return sky + (np.float32(rng.uniform(0.8, 1.0)) - sky) * cloud


def _behind(rng: np.random.Generator, width: int, height: int) -> Floats:
    """Above the horizon: open sky, a wall, or a blurred view with clutter."""
    pick = rng.random()
    if pick < 0.3:
        return _air(rng, width, height)
    if pick < 0.55:
        return _studio(rng, width, height)
    scale = int(rng.integers(3, 8))
    backdrop = _cloudy(rng, width // scale + 2, height // scale + 2, 4, 0.6)
    small = Image.fromarray((np.clip(backdrop, 0, 1) * 255).astype(np.uint8).transpose(1, 2, 0))
    draw = ImageDraw.Draw(small)
    for _ in range(int(rng.integers(4, 16))):
        x, y = rng.uniform(0, small.width), rng.uniform(0, small.height)
        w, h = rng.uniform(0.04, 0.3) * small.width, rng.uniform(0.05, 0.6) * small.height
        fill = tuple(int(255 * channel) for channel in any_color(rng, 0.6, 0.1, 0.95))
        if rng.random() < 0.7:
            draw.rectangle([x - w / 2, y - h / 2, x + w / 2, y + h / 2], fill=fill)
        else:
            draw.ellipse([x - w / 2, y - w / 2, x + w / 2, y + w / 2], fill=fill)
    return _planes(small.resize((width, height), Image.Resampling.BICUBIC))


def _floor(rng: np.random.Generator, width: int, height: int, elevation: float, theta: float) -> Floats:
    """Textured ground up to the horizon, something behind it."""
    behind = _behind(rng, width, height)
    focal = rng.uniform(0.8, 1.6) * width
    x = ((np.arange(width, dtype=np.float32) + 0.5 - width / 2) / focal)[None, :]
    y = ((height / 2 - np.arange(height, dtype=np.float32) - 0.5) / focal)[:, None]
    x, y = x * math.cos(theta) + y * math.sin(theta), y * math.cos(theta) - x * math.sin(theta)
    down = math.sin(elevation) - y * math.cos(elevation)
    ground = np.clip(down * focal * 0.7, 0, 1)  # soft over a pixel or two at the horizon
    depth = 1 / np.maximum(down, 0.01)
    side, ahead = x * depth, (math.cos(elevation) + y * math.sin(elevation)) * depth
    turn = rng.uniform(0, math.pi)
    side, ahead = (
        side * math.cos(turn) + ahead * math.sin(turn),
        ahead * math.cos(turn) - side * math.sin(turn),
    )
    clear = np.clip(4 * down, 0, 1)  # far texture fades into its mean
    return behind + (_surface(rng, side, ahead, clear) - behind) * ground


def _surface(rng: np.random.Generator, side: Floats, ahead: Floats, clear: Floats) -> Floats:
    """Ground colours (3, h, w) at floor coordinates: earth and carpet, planks, tiles or slabs."""
    first = any_color(rng, 0.3, 0.25, 0.9)
    second = first * np.float32(rng.uniform(0.55, 0.9))
    fine = rng.uniform(20, 70)
    across, along = rng.integers(_TILE, size=2).tolist()
    stretch = float(rng.choice([1.0, 1.0, 6.0]))
    row = (side * (fine * stretch) + across).astype(np.int32) & (_TILE - 1)
    column = (ahead * fine + along).astype(np.int32) & (_TILE - 1)
    share = noise_tile().take(row * _TILE + column)
    pattern = rng.choice(["plain", "plain", "planks", "tiles", "slabs"])
    scale = rng.uniform(0.8, 4.0)
    if pattern == "planks":
        plank = np.floor(side * scale * 2).astype(np.int32)
        share = 0.5 * share + 0.5 * noise_tile()[(plank * 37) & (_TILE - 1), (plank * 11) & (_TILE - 1)]
    elif pattern == "tiles":
        odd = (np.floor(side * scale) + np.floor(ahead * scale)) % 2
        share = 0.3 * share + 0.7 * odd.astype(np.float32)
    elif pattern == "slabs":
        gap = np.minimum(side * scale % 1, ahead * scale % 1) < 0.06
        share = np.maximum(0.6 * share, gap)
    return _mix(first, second, 0.5 + (share - 0.5) * clear)
