"""One rendered picture: its objects posed, placed, lit and composited, and the annotations that describe them."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from data_prep.rendering.backgrounds import background
from data_prep.rendering.camera import develop
from data_prep.rendering.props import behind_prop, front_prop, lay_over
from data_prep.rendering.raytrace import Layer, Lights, TracedShape, View, render_layer, turn, turned_box
from data_prep.rendering.shapes.mesh import Floats
from llava_pose.geometry import rotation_matrix

VIEWPORT = 2000.0  # focal length in pixels, ImageNet3D's value
# Share of an object's whole silhouette that must be visible for each status; below the last it is bad.
STATUS_FROM = (("status_good", 0.85), ("status_partially", 0.5), ("status_barely", 0.2))
DENSE_OVERLAP = 0.2  # share of its box that another object's box covers
# Mean and spread of elevation (radians): street and room from eye height, small things from above, craft in the air.
_ELEVATION = {
    "aeroplane": (0.08, 0.22),
    **dict.fromkeys(("camera", "cup", "hammer", "laptop", "teapot"), (0.35, 0.25)),
    **dict.fromkeys(("bed", "bench", "chair", "piano", "sofa", "toilet"), (0.24, 0.19)),
}
_ELEVATION_ELSEWHERE = (0.16, 0.16)
_ELEVATION_RANGE = (math.radians(-20), math.radians(80))
_ANY_ELEVATION = 0.15  # share of pictures from anywhere in that range
_OCCLUDED = 0.35  # share of pictures with something in front
_ASPECTS = ((1.0, 1.0), (1.07, 0.93), (1.15, 0.86), (0.93, 1.07), (0.86, 1.15))
_SIZES = {1: (0.55, 0.98), 2: (0.42, 0.68), 3: (0.34, 0.5)}  # share of the picture an object spans, by object count


@dataclass(frozen=True)
class Member:
    """An object to be drawn: its category, its number in the CAD folder, and its traced shape."""

    category: str
    cad_index: int
    traced: TracedShape


@dataclass(frozen=True)
class Picture:
    """The finished image, its annotation dicts (primary object first if visible), and each one's whole silhouette
    (height, width) and visible part (height, width)."""

    image: Image.Image
    annotations: list[dict[str, object]]
    silhouettes: list[NDArray[np.bool_]]
    visible: list[NDArray[np.bool_]]


def draw_picture(
    rng: np.random.Generator, primary: Member, draw_other: Callable[[np.random.Generator], Member], size: int
) -> Picture:
    """Compose one picture around ``primary``; ``draw_other`` supplies the further objects; area about size x size."""
    width, height = (round(size * factor) for factor in _ASPECTS[rng.integers(len(_ASPECTS))])
    count = int(rng.choice([1, 2, 3], p=[0.55, 0.32, 0.13]))
    members = [primary] + [draw_other(rng) for _ in range(count - 1)]
    elevation, theta = _elevation(rng, primary.category), _theta(rng)
    views = _place(rng, members, elevation, theta, width, height)
    lights = _lights(rng)
    canvas, floor = background(rng, width, height, elevation, theta)
    _furnish(rng, canvas)
    canvas *= np.float32(0.75 + 0.25 * min(1.0, float(lights.sky.mean()) * 2))
    layers = [
        render_layer(member.traced, view, lights, width, height, floor)
        for member, view in zip(members, views, strict=True)
    ]
    owner = np.full((height, width), -1)
    for k in sorted(range(len(members)), key=lambda k: -views[k].distance):
        layer = layers[k]
        if layer is not None:
            _composite(canvas, layer)
            owner[layer.window][layer.mask] = k
    if rng.random() < _OCCLUDED:
        _hide(rng, canvas, [layer for layer in layers if layer is not None], owner)
    return _describe(develop(rng, canvas), members, views, layers, owner)


def _azimuth(rng: np.random.Generator) -> float:
    """Half anywhere, half around the front and the two front corners, as people take pictures."""
    if rng.random() < 0.5:
        return float(rng.uniform(0, 2 * math.pi))
    return float(rng.choice([-0.6, 0.0, 0.6]) + rng.normal(0, 0.4)) % (2 * math.pi)


def _elevation(rng: np.random.Generator, category: str) -> float:
    mean, spread = _ELEVATION.get(category, _ELEVATION_ELSEWHERE)
    angle = rng.uniform(*_ELEVATION_RANGE) if rng.random() < _ANY_ELEVATION else rng.normal(mean, spread)
    return float(np.clip(angle, *_ELEVATION_RANGE))


def _theta(rng: np.random.Generator) -> float:
    """A hand-held camera: nearly level, rarely tilted."""
    spread = math.radians(rng.choice([1.0, 4.0, 14.0], p=[0.4, 0.5, 0.1]))
    return float(rng.normal(0, spread))


def _place(
    rng: np.random.Generator, members: Sequence[Member], elevation: float, theta: float, width: int, height: int
) -> list[View]:
    """Poses, distances and principal points. All objects share the camera's elevation and roll up to a little."""
    count = len(members)
    order = rng.permutation(count)
    overlap_cap = rng.choice([0.0, 0.1, 0.25, 0.4])
    views: list[View] = []
    boxes: list[Floats] = []
    for k, member in enumerate(members):
        tilt = np.zeros(2) if k == 0 else rng.normal(0, math.radians(3), 2)
        pose = np.array([_azimuth(rng), np.clip(elevation + tilt[0], *_ELEVATION_RANGE), theta + tilt[1]])
        turned = turn(rotation_matrix(pose), member.traced.extent)
        extent = turned_box(turned, 8.0, VIEWPORT)
        span = max((extent[2] - extent[0]) / width, (extent[3] - extent[1]) / height)
        distance = float(8.0 * span / rng.uniform(*_SIZES[count]))
        extent = turned_box(turned, distance, VIEWPORT)
        corner = _corner(rng, extent, (order[k] + 0.5) / count, width, height)
        for _ in range(12):
            if all(_overlap(extent + np.tile(corner, 2), box) <= overlap_cap for box in boxes):
                break
            corner = _corner(rng, extent, float(rng.random()), width, height)
        views.append(View(pose, distance, VIEWPORT, corner))
        boxes.append(extent + np.tile(corner, 2))
    return views


def _corner(rng: np.random.Generator, extent: Floats, column: float, width: int, height: int) -> Floats:
    """Principal point (2,) that puts an object's box near the given column (0..1) of the picture.

    One in seven is pushed over the border by up to a third of its box.
    """
    size = extent[2:] - extent[:2]
    picture = np.array([width, height])
    center = picture * [column + rng.normal(0, 0.06), 0.52 + rng.normal(0, 0.1)]
    low, high = np.minimum(size / 2, picture / 2), np.maximum(picture - size / 2, picture / 2)
    center = np.clip(center, low, high)
    if rng.random() < 0.15:
        axis, side = int(rng.random() < 0.3), rng.choice([-1.0, 1.0])
        edge = 0.0 if side < 0 else picture[axis]
        center[axis] = edge - side * size[axis] * rng.uniform(0.17, 0.5)
    return center - (extent[:2] + extent[2:]) / 2


def _overlap(box: Floats, other: Floats) -> float:
    """Intersection over the smaller of two boxes."""
    shared = np.minimum(box[2:], other[2:]) - np.maximum(box[:2], other[:2])
    if (shared <= 0).any():
        return 0.0
    return float(shared.prod() / min((box[2:] - box[:2]).prod(), (other[2:] - other[:2]).prod()))


def _lights(rng: np.random.Generator) -> Lights:
    """A sun or lamp mostly from the camera's side, a weaker fill light, and the sky; warm or cool."""
    warm = float(np.clip(rng.normal(0, 0.2 if rng.random() < 0.15 else 0.07), -0.5, 0.5))
    tint = np.array([1 + warm, 1.0, 1 - warm])
    sun = rng.uniform(0.2, 1.25)
    sky = rng.uniform(0.25, 0.7)
    return Lights(
        sun_direction=_direction(rng.normal(0, 1.5), rng.uniform(0.4, 1.4)),
        sun_color=(sun * tint).astype(np.float32),
        fill_direction=_direction(rng.normal(0, 0.8), rng.uniform(-0.1, 0.7)),
        fill_color=np.full(3, rng.uniform(0.05, 0.4), dtype=np.float32),
        sky=(sky * (2 - tint)).astype(np.float32),
        ground=(sky * rng.uniform(0.25, 0.6) * tint).astype(np.float32),
    )


def _direction(azimuth: float, elevation: float) -> Floats:
    flat = math.cos(elevation)
    return np.array([flat * math.sin(azimuth), -flat * math.cos(azimuth), math.sin(elevation)], dtype=np.float32)


def _composite(canvas: Floats, layer: Layer) -> None:
    """Put the layer over the canvas (3, height, width), its shadow below it."""
    if layer.shadow is not None:
        canvas *= 1 - 0.55 * layer.shadow
    under = canvas[(slice(None), *layer.window)]
    under *= 1 - layer.coverage
    under += layer.color


def _furnish(rng: np.random.Generator, canvas: Floats) -> None:
    """Clutter behind the objects, and the whole of it out of focus now and then."""
    height, width = canvas.shape[1:]
    if rng.random() < 0.45:
        for _ in range(int(rng.integers(1, 5))):
            prop = behind_prop(rng, width, height)
            if prop is not None:
                lay_over(canvas, prop)
    if rng.random() < 0.2:
        blur = max(width, height) * rng.uniform(0.004, 0.02)
        for plane in canvas:
            plane[:] = cv2.GaussianBlur(plane, (0, 0), blur)


def _hide(rng: np.random.Generator, canvas: Floats, layers: Sequence[Layer], owner: NDArray[np.int64]) -> None:
    """Put one or two things in front of an object each, and take from ``owner`` (height, width) what they cover.

    None that would leave less than two fifths of what an object shows: its pose could not be told any more.
    """
    height, width = owner.shape
    for _ in range(int(rng.integers(1, 3))):
        if not layers:
            return
        target = layers[int(rng.integers(len(layers)))]
        prop = front_prop(rng, width, height, _mask_box(target))
        if prop is None:
            continue
        shown = owner[prop.window]
        lost = shown[(prop.coverage > 0.5) & (shown >= 0)]
        hidden, before = np.bincount(lost, minlength=8), np.bincount(owner[owner >= 0], minlength=8)
        if (hidden > 0.6 * before).any():
            continue
        lay_over(canvas, prop)
        shown[prop.coverage > 0.5] = -1


def _describe(
    image: Image.Image,
    members: Sequence[Member],
    views: Sequence[View],
    layers: Sequence[Layer | None],
    owner: NDArray[np.int64],
) -> Picture:
    """Measured visibility, boxes and the dicts of ImageNet3D for every object that has pixels in the picture."""
    boxes = [None if layer is None else _mask_box(layer) for layer in layers]
    picture = Picture(image, [], [], [])
    for k, (member, view, layer, box) in enumerate(zip(members, views, layers, boxes, strict=True)):
        if layer is None or box is None:
            continue
        visible = owner == k
        silhouette = np.zeros_like(visible)
        silhouette[layer.window] = layer.mask
        share = float(visible.sum() / layer.silhouette_pixels)
        status = next((name for name, least in STATUS_FROM if share >= least), "status_bad")
        others = [other for j, other in enumerate(boxes) if j != k and other is not None]
        dense = any(_covered(box, other) >= DENSE_OVERLAP for other in others)
        picture.annotations.append(_annotation(member, view, box, status, dense, image.size))
        picture.silhouettes.append(silhouette)
        picture.visible.append(visible)
    return picture


def _mask_box(layer: Layer) -> Floats:
    """Box (x1, y1, x2, y2) of the silhouette inside the picture, pixel borders."""
    columns = np.flatnonzero(layer.mask.any(axis=0)) + layer.left
    rows = np.flatnonzero(layer.mask.any(axis=1)) + layer.top
    return np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1], dtype=np.float64)


def _covered(box: Floats, other: Floats) -> float:
    """Share of ``box`` under ``other``."""
    shared = np.clip(np.minimum(box[2:], other[2:]) - np.maximum(box[:2], other[:2]), 0, None)
    return float(shared.prod() / (box[2:] - box[:2]).prod())


def _annotation(
    member: Member, view: View, box: Floats, status: str, dense: bool, size: tuple[int, int]
) -> dict[str, object]:
    """One object in ImageNet3D's fields: plain Python values, angles in radians in 0..2 pi."""
    # The class is interned because pickle writes a repeated string object once: equal data must give equal bytes.
    azimuth, elevation, theta = (float(angle) % (2 * math.pi) for angle in view.pose)
    px, py = (float(value) for value in view.principal)
    return {
        "azimuth": azimuth,
        "elevation": elevation,
        "theta": theta,
        "distance": view.distance,
        "viewport": view.viewport,
        "focal": 1.0,
        "px": px,
        "py": py,
        "principal": [px, py],
        "cad_index": member.cad_index,
        "height": size[1],
        "width": size[0],
        "bbox": box.tolist(),
        "class": sys.intern(member.category),
        "object_status": status,
        "dense": "dense_yes" if dense else "dense_no",
    }
