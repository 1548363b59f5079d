"""Cameras, first hits and shading: one object of a picture as a layer of colour, coverage and silhouette.

Every object has a camera of its own, as in ImageNet3D: the object's origin lies at the principal point and the optical
axis runs through it. Pixel (column, row) covers [column, column + 1) x [row, row + 1); its centre is at + 0.5.

Many vectors are kept as (3, N), one row a component: NumPy is quick along the last axis, and embree takes the transpose
as it is.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import cv2
import numpy as np
from embreex import rtcore, rtcore_scene
from embreex.mesh_construction import TriangleMesh
from numpy.typing import NDArray

from data_prep.rendering.patterns import SIDE, pattern_cubes
from data_prep.rendering.shapes.mesh import Floats, Point, Shape, Skin
from llava_pose.geometry import camera_center, rotation_matrix

# What is sampled of an edge pixel beside its centre: no two of the four share a row or column.
_SUBPIXELS = np.array([[-0.375, 0.125], [0.25, -0.375], [0.125, 0.375]], dtype=np.float32)
_EDGE_CONTRAST = 0.2  # display value between neighbours above which a pixel is sampled more than once
_DEVICE = rtcore.EmbreeDevice()


@dataclass(frozen=True)
class Lights:
    """Light directions are unit vectors in the world turned so that the camera stands at azimuth 0; linear RGB."""

    sun_direction: Floats  # (3,)
    sun_color: Floats  # (3,)
    fill_direction: Floats  # (3,)
    fill_color: Floats  # (3,)
    sky: Floats  # (3,) light from above
    ground: Floats  # (3,) light from below


@dataclass(frozen=True)
class View:
    """One object's pose (3,), distance (object diagonals), viewport (focal length, pixels), principal point (2,)."""

    pose: Floats
    distance: float
    viewport: float
    principal: Floats

    @cached_property
    def rotation(self) -> Floats:
        """Object to camera (3, 3)."""
        return rotation_matrix(self.pose)

    @cached_property
    def origin(self) -> Floats:
        """The camera's place (3,) in the object's frame."""
        return camera_center(self.pose, self.distance).astype(np.float32)

    def grid_rays(self, x: Floats, y: Floats) -> Floats:
        """Directions (3, len(y) * len(x)), in the object's frame, of the rays through a grid of pixels, row by row."""
        right, up, back = self.rotation.astype(np.float32)[..., None]
        across = ((x - self.principal[0]) / self.viewport).astype(np.float32)
        upward = ((self.principal[1] - y) / self.viewport).astype(np.float32)
        return ((right * across)[:, None, :] + (up * upward - back)[:, :, None]).reshape(3, -1)

    def rays(self, x: Floats, y: Floats) -> Floats:
        """Directions (3, N) of the rays through single pixels."""
        right, up, back = self.rotation.astype(np.float32)[..., None]
        across = (x - np.float32(self.principal[0])) / np.float32(self.viewport)
        upward = (np.float32(self.principal[1]) - y) / np.float32(self.viewport)
        return right * across + up * upward - back

    def pixel_box(self, points: Floats) -> Floats:
        """Box (x1, y1, x2, y2) of the projected ``points`` (3, N)."""
        return turned_box(turn(self.rotation, points), self.distance, self.viewport) + np.tile(self.principal, 2)


def turn(rotation: Floats, points: Floats) -> Floats:
    """``rotation`` (3, 3) times ``points`` (3, N), without the BLAS, whose threads cost more than they save."""
    x, y, z = points
    return np.stack([row[0] * x + row[1] * y + row[2] * z for row in rotation])


def turned_box(turned: Floats, distance: float, viewport: float) -> Floats:
    """Box (x1, y1, x2, y2), from the principal point, of points (3, N) along the camera's axes around the object."""
    scale = viewport / (distance - turned[2])
    u, v = turned[0] * scale, turned[1] * scale
    return np.array([u.min(), -v.max(), u.max(), -v.min()])


@dataclass(frozen=True)
class Layer:
    """An object seen through its view. ``left``, ``top``: image position of the arrays below, clipped to the image."""

    left: int
    top: int
    color: Floats  # (3, h, w) display RGB, premultiplied by coverage
    coverage: Floats  # (h, w) 0..1
    mask: NDArray[np.bool_]  # (h, w) silhouette, pixel centres
    silhouette_pixels: int  # of the whole silhouette, outside the image too
    shadow: Floats | None  # (height, width) of the image: how much light the object takes from the ground

    @property
    def window(self) -> tuple[slice, slice]:
        """Rows and columns of the image under the arrays."""
        height, width = self.mask.shape
        return slice(self.top, self.top + height), slice(self.left, self.left + width)


class TracedShape:
    """A shape with its ray-tracing structure and what is asked of it for every picture."""

    def __init__(self, shape: Shape) -> None:
        self.shape = shape
        self.extent = np.ascontiguousarray(shape.vertices.T)
        self.floor = np.float32(shape.vertices[:, 2].min())
        self.half = (np.abs(shape.vertices[:, :2]).max(axis=0) + 0.02).astype(np.float32)
        self._scene = rtcore_scene.EmbreeScene(_DEVICE)
        self._geometry = TriangleMesh(self._scene, shape.vertices.astype(np.float32), shape.faces)
        self._normals = np.ascontiguousarray(shape.corner_normals.reshape(-1, 9).T)
        self._materials = np.ascontiguousarray(shape.materials.T)
        self.grained = bool((shape.materials[:, 9] > 0).any())
        self.mirrors = bool((shape.materials[:, 8] > 0).any())

    def first_hits(self, origin: Floats, directions: Floats) -> dict[str, NDArray[Any]]:
        """embree's answer for rays (3, N) from one point: ``primID`` (-1: none), ``u``, ``v``, ``tfar``, ``Ng``."""
        origins = np.lib.stride_tricks.as_strided(origin, (directions.shape[1], 3), (0, origin.strides[0]))
        return self._scene.run(origins, directions.T, query="INTERSECT", output=True)

    def occluded(self, origins: Floats, direction: Floats) -> NDArray[np.bool_]:
        """Whether anything lies from each of ``origins`` (3, N) in ``direction`` (3,)."""
        return self._scene.run(origins.T, direction[None], query="OCCLUDED") >= 0

    def normals(self, face: NDArray[np.int32], u: Floats, v: Floats) -> Floats:
        """Interpolated normals (3, N), not of unit length, at barycentric ``u``, ``v`` of faces (N,)."""
        first, second, third = self._normals.take(face, axis=1).reshape(3, 3, -1)
        return first * (1 - u - v) + second * u + third * v

    def material(self, face: NDArray[np.int32]) -> Floats:
        """The material table's 14 numbers (14, N) of faces (N,)."""
        return self._materials.take(self.shape.face_material.take(face), axis=1)


def render_layer(
    traced: TracedShape, view: View, lights: Lights, width: int, height: int, cast_shadow: bool
) -> Layer | None:
    """Trace and shade an object; None when no pixel centre of the image lies on it."""
    box = view.pixel_box(traced.extent)
    left, top = (math.floor(edge) for edge in box[:2])
    right, bottom = (math.ceil(edge) for edge in box[2:])
    directions = view.grid_rays(np.arange(left, right) + 0.5, np.arange(top, bottom) + 0.5)
    hits = traced.first_hits(view.origin, directions)
    full = (hits["primID"] >= 0).reshape(bottom - top, right - left)
    x1, y1, x2, y2 = max(left, 0), max(top, 0), min(right, width), min(bottom, height)
    inside = slice(y1 - top, y2 - top), slice(x1 - left, x2 - left)
    if x1 >= x2 or y1 >= y2 or not full[inside].any():
        return None
    shader = _Shader(traced, view, lights)
    mask = full[inside]
    seen = np.zeros_like(full)
    seen[inside] = mask
    color = np.zeros((3, *mask.shape), dtype=np.float32)
    color[:, mask] = shader.shade(directions, hits, np.flatnonzero(seen))
    coverage = mask.astype(np.float32)
    rows, columns = np.nonzero(_edges(color, mask))
    if len(rows):
        x = (columns + (x1 + 0.5)).astype(np.float32) + _SUBPIXELS[:, :1]
        y = (rows + (y1 + 0.5)).astype(np.float32) + _SUBPIXELS[:, 1:]
        fine_color, fine_hit = shader.sample(x.ravel(), y.ravel())
        color[:, rows, columns] = 0.25 * (color[:, rows, columns] + fine_color.reshape(3, 3, -1).sum(axis=1))
        coverage[rows, columns] = 0.25 * (coverage[rows, columns] + fine_hit.reshape(3, -1).sum(axis=0))
    shadow = _ground_shadow(traced, view, shader.sun, width, height) if cast_shadow else None
    return Layer(x1, y1, color, coverage, mask, int(full.sum()), shadow)


def _edges(color: Floats, mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Pixels (h, w) that differ from a neighbour in coverage or clearly in brightness."""
    level = _dot(color, (0.25, 0.6, 0.15)) + mask
    edge = np.zeros(mask.shape, dtype=bool)
    across = np.abs(level[:, 1:] - level[:, :-1]) > _EDGE_CONTRAST
    down = np.abs(level[1:] - level[:-1]) > _EDGE_CONTRAST
    edge[:, 1:] |= across
    edge[:, :-1] |= across
    edge[1:] |= down
    edge[:-1] |= down
    return edge


def _dot(a: Floats, b: Floats | Point) -> Floats:
    """Scalar products (…) of (3, …) with (3, …) or (3,)."""
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


class _Shader:
    """Direct light with shadows, hemisphere light, Blinn-Phong highlights and a simple reflected sky."""

    def __init__(self, traced: TracedShape, view: View, lights: Lights) -> None:
        self._traced, self._view, self._lights = traced, view, lights
        cosine, sine = math.cos(view.pose[0]), math.sin(view.pose[0])
        turn = np.array([[cosine, -sine, 0.0], [sine, cosine, 0.0], [0.0, 0.0, 1.0]], dtype=np.float32)
        self.sun = turn @ lights.sun_direction
        self._fill = turn @ lights.fill_direction

    def sample(self, x: Floats, y: Floats) -> tuple[Floats, NDArray[np.bool_]]:
        """Colour (3, N), zero where missed, and hit (N,) at single pixels."""
        directions = self._view.rays(x, y)
        hits = self._traced.first_hits(self._view.origin, directions)
        hit = hits["primID"] >= 0
        color = np.zeros((3, len(x)), dtype=np.float32)
        color[:, hit] = self.shade(directions, hits, np.flatnonzero(hit))
        return color, hit

    def shade(self, directions: Floats, hits: dict[str, NDArray[Any]], on: NDArray[np.int64]) -> Floats:
        """Display RGB (3, len(on)) of those of the rays (3, N) that ``on`` numbers, all of which hit."""
        traced, lights, sun = self._traced, self._lights, self.sun
        face, toward = hits["primID"].take(on), directions.take(on, axis=1)
        position = self._view.origin[:, None] + toward * hits["tfar"].take(on)
        u, v = hits["u"].take(on), hits["v"].take(on)
        normal = traced.normals(face, u, v)
        # The side of the surface that the ray came from, whatever way the file winds its faces.
        geometric = hits["Ng"].T.take(on, axis=1)
        sign = -np.copysign(np.float32(1), _dot(geometric, toward) * _dot(geometric, normal))
        normal *= sign / np.maximum(np.sqrt(_dot(normal, normal)), np.float32(1e-6))
        material = traced.material(face)
        sun_cosine, cosine = _dot(normal, sun), -_dot(normal, toward)
        sunlit = sun_cosine > 0
        lit = np.flatnonzero(sunlit)
        sunlit[lit] = ~traced.occluded(position.take(lit, axis=1) + normal.take(lit, axis=1) * np.float32(2e-3), sun)
        near_floor = 0.3 + 0.2 * np.minimum((position[2] - traced.floor) * 6, 1)
        above = normal[2] * near_floor
        below = near_floor - above
        above += near_floor
        direct = sun_cosine * sunlit
        fill = np.maximum(_dot(normal, self._fill), 0)
        # Blinn-Phong: the half vector is along sun - toward, its length follows from the three products.
        half = np.sqrt(1 - 2 * _dot(toward, sun) + _dot(toward, toward))
        shine = np.maximum((sun_cosine + cosine) / half, np.float32(1e-4))
        highlight = material[6] * np.exp(material[7] * np.log(shine)) * sunlit
        color = self._albedo(position, material)
        if traced.shape.skin is not None:
            _cover(color, traced.shape.skin, face, u, v)
        for k in range(3):
            light = above * lights.sky[k] + below * lights.ground[k]
            light += direct * lights.sun_color[k] + fill * lights.fill_color[k]
            color[k] = color[k] * light + highlight * lights.sun_color[k]
        if traced.mirrors:
            sky_share = np.clip((toward[2] + 2 * cosine * normal[2]) * 3 + 0.4, 0, 1)
            fresnel = material[8] * (0.45 + 0.55 * (1 - np.minimum(np.abs(cosine), 1)) ** 2)
            low, high = lights.ground * 0.6, lights.sky * 1.6
            color += fresnel * (low[:, None] + (high - low)[:, None] * sky_share)
        return np.sqrt(np.clip(color, 0, 1))

    def _albedo(self, position: Floats, material: Floats) -> Floats:
        """Linear base colour (3, N) with the material's texture."""
        color = material[:3]
        if self._traced.grained:
            grained = np.flatnonzero(material[9] > 0)
            some = material.take(grained, axis=1)
            x, y, z = np.floor(position.take(grained, axis=1) * some[10:13] * SIDE).astype(np.int32) & (SIDE - 1)
            share = some[9] * pattern_cubes().take(((some[13].astype(np.int32) * SIDE + x) * SIDE + y) * SIDE + z)
            color[:, grained] += (some[3:6] - some[:3]) * share
        return color * color


def _cover(color: Floats, skin: Skin, face: NDArray[np.int32], u: Floats, v: Floats) -> None:
    """Put the textures' colours over linear ``color`` (3, N) at barycentric ``u``, ``v`` of faces (N,)."""
    texture = skin.face_texture.take(face)
    some = np.flatnonzero(texture >= 0)
    u, v = u.take(some), v.take(some)
    first, second, third = skin.corner_uv.take(face.take(some), axis=0).transpose(1, 2, 0)
    across, upward = first * (1 - u - v) + second * u + third * v
    start, height, width = skin.textures.take(texture.take(some), axis=0).T
    column = np.minimum(((across - np.floor(across)) * width).astype(np.int32), width - 1)
    row = np.minimum(((1 - (upward - np.floor(upward))) * height).astype(np.int32), height - 1)
    texel = skin.texels.take(start + row * width + column, axis=0).T * np.float32(1 / 255)
    color[:, some] = texel * texel


def _ground_shadow(traced: TracedShape, view: View, sun: Floats, width: int, height: int) -> Floats | None:
    """Shadow (height, width), 0 none .. 1 full, on the plane the object stands on; None where that plane is not seen.

    Sampled at every third pixel and interpolated: shadows on a real floor have soft borders.
    """
    if math.sin(view.pose[1]) < 0.04 or sun[2] < 0.1:
        return None
    step = 3
    x, y = (np.arange(0, side, step) + step / 2 for side in (width, height))
    directions = view.grid_rays(x, y)
    floor = traced.floor - np.float32(1e-3)
    falling = directions[2] < -1e-4
    travel = (floor - view.origin[2]) / np.minimum(directions[2], np.float32(-1e-4))
    point = view.origin[:, None] + directions * travel
    reach = np.sqrt(point[0] * point[0] + point[1] * point[1])
    near = np.flatnonzero(falling & (reach < 1.8))
    place = point.take(near, axis=1)
    dark = traced.occluded(place, sun) * np.minimum((1.8 - reach.take(near)) * 2, 1)
    square = place[:2] / traced.half[:, None]
    square *= square
    contact = np.exp(-square[0] * square[0] - square[1] * square[1])
    shadow = np.zeros(len(x) * len(y), dtype=np.float32)
    shadow[near] = np.maximum(dark, np.float32(0.6) * contact)
    return _enlarge(shadow.reshape(len(y), len(x)), width, height)


def _enlarge(values: Floats, width: int, height: int) -> Floats:
    """Smoothly resize (h, w) to (height, width)."""
    blurred = cv2.GaussianBlur(values, (0, 0), 1.0)
    return np.asarray(cv2.resize(blurred, (width, height), interpolation=cv2.INTER_LINEAR), dtype=np.float32)
