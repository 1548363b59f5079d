"""Cameras, first hits and shading: one object of a picture as a layer of colour, coverage and silhouette.

Every object has a camera of its own, as in ImageNet3D: the object's origin lies at the principal point and the optical
axis runs through it. Pixel (column, row) covers [column, column + 1) x [row, row + 1); its centre is at + 0.5.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from embreex import rtcore, rtcore_scene
from embreex.mesh_construction import TriangleMesh
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from data_prep.shapes.mesh import Floats, Shape
from llava_pose.geometry import camera_center, project, rotation_matrix

# Four samples of a pixel on a rotated grid: no two share a row or column.
_SUBPIXELS = np.array([[-0.375, -0.125], [0.125, -0.375], [0.375, 0.125], [-0.125, 0.375]])
_EDGE_CONTRAST = 0.2  # display value between neighbours above which a pixel is sampled four times
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

    def rays(self, pixels: Floats) -> tuple[Floats, Floats]:
        """Origin (3,) and directions (N, 3), in the object's frame, of the rays through ``pixels`` (N, 2)."""
        right, up, back = rotation_matrix(self.pose).astype(np.float32)
        x = ((pixels[:, :1] - self.principal[0]) / self.viewport).astype(np.float32)
        y = ((self.principal[1] - pixels[:, 1:]) / self.viewport).astype(np.float32)
        return camera_center(self.pose, self.distance).astype(np.float32), x * right + (y * up - back)

    def pixel_box(self, points: Floats) -> Floats:
        """Box (x1, y1, x2, y2) of the projected ``points`` (N, 3)."""
        pixels = project(points, self.pose, self.distance, self.viewport, self.principal)
        return np.concatenate([pixels.min(axis=0), pixels.max(axis=0)])


@dataclass(frozen=True)
class Layer:
    """An object seen through its view. ``left``, ``top``: image position of the arrays below, clipped to the image."""

    left: int
    top: int
    color: Floats  # (h, w, 3) display RGB, premultiplied by coverage
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
    """A shape with its ray-tracing structure."""

    def __init__(self, shape: Shape) -> None:
        self.shape = shape
        self._scene = rtcore_scene.EmbreeScene(_DEVICE)
        self._geometry = TriangleMesh(self._scene, shape.vertices[shape.faces].astype(np.float32))

    def first_hits(self, origin: Floats, directions: Floats) -> dict[str, NDArray[Any]]:
        """embree's answer for rays (N, 3) from one point: ``primID`` (-1: none), ``u``, ``v``, ``tfar``, ``Ng``."""
        origins = np.broadcast_to(origin, directions.shape).copy()
        return self._scene.run(origins, directions, query="INTERSECT", output=True)

    def occluded(self, origins: Floats, direction: Floats) -> NDArray[np.bool_]:
        """Whether anything lies from each of ``origins`` (N, 3) in ``direction`` (3,)."""
        directions = np.broadcast_to(direction, origins.shape).copy()
        return self._scene.run(origins, directions, query="OCCLUDED") >= 0


def render_layer(
    traced: TracedShape, view: View, lights: Lights, noise: Floats, width: int, height: int, cast_shadow: bool
) -> Layer | None:
    """Trace and shade an object; None when no pixel centre of the image lies on it. ``noise`` is a periodic cube."""
    box = view.pixel_box(traced.shape.vertices)
    left, top = (math.floor(edge) for edge in box[:2])
    right, bottom = (math.ceil(edge) for edge in box[2:])
    grid = _pixel_grid(left, top, right, bottom)
    origin, directions = view.rays(grid)
    hits = traced.first_hits(origin, directions)
    full = (hits["primID"] >= 0).reshape(bottom - top, right - left)
    x1, y1, x2, y2 = max(left, 0), max(top, 0), min(right, width), min(bottom, height)
    if x1 >= x2 or y1 >= y2 or not full[y1 - top : y2 - top, x1 - left : x2 - left].any():
        return None
    inside = np.zeros(full.shape, dtype=bool)
    inside[y1 - top : y2 - top, x1 - left : x2 - left] = True
    keep = np.flatnonzero(inside)
    shader = _Shader(traced, view, lights, noise)
    hit = full.ravel()[keep]
    on = keep[hit]
    flat = np.zeros((len(keep), 3), dtype=np.float32)
    flat[hit] = shader.shade(origin, directions[on], {name: value[on] for name, value in hits.items()})
    color: Floats = flat.reshape(y2 - y1, x2 - x1, 3)
    mask = hit.reshape(y2 - y1, x2 - x1)
    coverage = mask.astype(np.float32)
    edge = _edges(color, mask)
    samples = (grid[keep][edge.ravel()][:, None, :] + _SUBPIXELS).reshape(-1, 2)
    if len(samples):
        fine_color, fine_hit = shader.sample(samples)
        color[edge] = fine_color.reshape(-1, 4, 3).mean(axis=1)
        coverage[edge] = fine_hit.reshape(-1, 4).mean(axis=1)
    shadow = _ground_shadow(traced, view, shader.sun, box, width, height) if cast_shadow else None
    return Layer(x1, y1, color, coverage, mask, int(full.sum()), shadow)


def _pixel_grid(left: int, top: int, right: int, bottom: int) -> Floats:
    """Pixel centres (N, 2), row by row."""
    x, y = np.meshgrid(np.arange(left, right) + 0.5, np.arange(top, bottom) + 0.5)
    return np.stack([x.ravel(), y.ravel()], axis=1)


def _edges(color: Floats, mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Pixels (h, w) that differ from a neighbour in coverage or clearly in brightness."""
    level = color[..., 1] * 0.6 + color[..., 0] * 0.25 + color[..., 2] * 0.15 + mask
    edge = np.zeros(mask.shape, dtype=bool)
    across = np.abs(level[:, 1:] - level[:, :-1]) > _EDGE_CONTRAST
    down = np.abs(level[1:] - level[:-1]) > _EDGE_CONTRAST
    edge[:, 1:] |= across
    edge[:, :-1] |= across
    edge[1:] |= down
    edge[:-1] |= down
    return edge


def _dot(a: Floats, b: Floats) -> Floats:
    """Scalar products (N,) of (N, 3) with (N, 3) or (3,), without the BLAS, whose threads cost more than they save."""
    return a[:, 0] * b[..., 0] + a[:, 1] * b[..., 1] + a[:, 2] * b[..., 2]


class _Shader:
    """Direct light with shadows, hemisphere light, Blinn-Phong highlights and a simple reflected sky."""

    def __init__(self, traced: TracedShape, view: View, lights: Lights, noise: Floats) -> None:
        self._traced, self._view, self._lights, self._noise = traced, view, lights, noise
        cosine, sine = math.cos(view.pose[0]), math.sin(view.pose[0])
        turn = np.array([[cosine, -sine, 0.0], [sine, cosine, 0.0], [0.0, 0.0, 1.0]], dtype=np.float32)
        self.sun = turn @ lights.sun_direction
        self._fill = turn @ lights.fill_direction
        self._floor = np.float32(traced.shape.vertices[:, 2].min())

    def sample(self, pixels: Floats) -> tuple[Floats, NDArray[np.bool_]]:
        """Colour (N, 3), zero where missed, and hit (N,) at ``pixels`` (N, 2)."""
        origin, directions = self._view.rays(pixels)
        hits = self._traced.first_hits(origin, directions)
        hit = hits["primID"] >= 0
        color = np.zeros((len(pixels), 3), dtype=np.float32)
        color[hit] = self.shade(origin, directions[hit], {name: value[hit] for name, value in hits.items()})
        return color, hit

    def shade(self, origin: Floats, directions: Floats, hits: dict[str, NDArray[Any]]) -> Floats:
        """Display RGB (N, 3) of rays that hit."""
        shape, lights = self._traced.shape, self._lights
        face = hits["primID"]
        position = origin + directions * hits["tfar"][:, None]
        normal = self._normals(directions, hits)
        material = shape.materials[shape.face_material[face]]
        albedo = self._albedo(position, material, shape)
        to_sun = np.maximum(_dot(normal, self.sun), 0)
        lit = np.flatnonzero(to_sun > 0)
        start = position[lit] + normal[lit] * np.float32(2e-3)
        to_sun[lit[self._traced.occluded(start, self.sun)]] = 0
        to_fill = np.maximum(_dot(normal, self._fill), 0)
        near_floor = 0.6 + 0.4 * np.minimum((position[:, 2] - self._floor) * 6, 1)
        above = ((0.5 + 0.5 * normal[:, 2]) * near_floor)[:, None]
        below = ((0.5 - 0.5 * normal[:, 2]) * near_floor)[:, None]
        light = above * lights.sky + below * lights.ground
        light += to_sun[:, None] * lights.sun_color + to_fill[:, None] * lights.fill_color
        cosine = -_dot(normal, directions)
        half = self.sun - directions
        half /= np.sqrt(_dot(half, half))[:, None]
        toward = np.maximum(_dot(normal, half), 1e-4)
        highlight = material[:, 6] * np.exp(material[:, 7] * np.log(toward)) * (to_sun > 0)
        mirror_up = directions[:, 2] + 2 * cosine * normal[:, 2]
        sky_share = np.clip(mirror_up * 3 + 0.4, 0, 1)[:, None]
        around = lights.ground * 0.6 * (1 - sky_share) + lights.sky * 1.6 * sky_share
        fresnel = material[:, 8] * (0.45 + 0.55 * (1 - np.minimum(np.abs(cosine), 1)) ** 2)
        linear = albedo * light + highlight[:, None] * lights.sun_color + fresnel[:, None] * around
        return np.sqrt(np.clip(linear, 0, 1))

    def _normals(self, directions: Floats, hits: dict[str, NDArray[Any]]) -> Floats:
        """Interpolated normals (N, 3) on the side of the surface that the ray came from."""
        corners = self._traced.shape.corner_normals[hits["primID"]]
        u, v = hits["u"][:, None], hits["v"][:, None]
        normal = corners[:, 0] * (1 - u - v) + corners[:, 1] * u + corners[:, 2] * v
        geometric = hits["Ng"]
        sign = _dot(geometric, directions) * _dot(geometric, normal)
        length = np.sqrt(_dot(normal, normal))
        return normal * (np.where(sign > 0, -1, 1) / np.maximum(length, 1e-6))[:, None].astype(np.float32)

    def _albedo(self, position: Floats, material: Floats, shape: Shape) -> Floats:
        """Linear base colour (N, 3) with the material's texture."""
        color = material[:, :3].copy()
        grained = np.flatnonzero(material[:, 9] > 0)
        if len(grained):
            some = material[grained]
            size = len(self._noise)
            cell = (position[grained] * some[:, 10:13] * size).astype(np.int32) & (size - 1)
            share = (some[:, 9] * self._noise[cell[:, 0], cell[:, 1], cell[:, 2]])[:, None]
            color[grained] += (some[:, 3:6] - color[grained]) * share
        return color * color


def _ground_shadow(traced: TracedShape, view: View, sun: Floats, box: Floats, width: int, height: int) -> Floats | None:
    """Shadow (height, width), 0 none .. 1 full, on the plane the object stands on; None where that plane is not seen.

    Sampled at every third pixel and interpolated: shadows on a real floor have soft borders.
    """
    if math.sin(view.pose[1]) < 0.04 or sun[2] < 0.1:
        return None
    step = 3
    x, y = np.meshgrid(np.arange(0, width, step) + step / 2, np.arange(0, height, step) + step / 2)
    origin, directions = view.rays(np.stack([x.ravel(), y.ravel()], axis=1))
    floor = np.float32(traced.shape.vertices[:, 2].min()) - np.float32(1e-3)
    falling = directions[:, 2] < -1e-4
    travel = np.where(falling, (floor - origin[2]) / np.minimum(directions[:, 2], -1e-4), 0)
    point = origin + directions * travel[:, None].astype(np.float32)
    reach = np.hypot(point[:, 0], point[:, 1])
    near = np.flatnonzero(falling & (reach < 1.8))
    shadow = np.zeros(len(directions), dtype=np.float32)
    dark = traced.occluded(point[near], sun)
    shadow[near] = dark * np.minimum((1.8 - reach[near]) * 2, 1)
    half = np.abs(traced.shape.vertices[:, :2]).max(axis=0) + 0.02
    contact = np.exp(-((point[near, 0] / half[0]) ** 4) - (point[near, 1] / half[1]) ** 4)
    shadow[near] = np.maximum(shadow[near], 0.6 * contact)
    return _enlarge(shadow.reshape(x.shape), width, height)


def _enlarge(values: Floats, width: int, height: int) -> Floats:
    """Smoothly resize (h, w) to (height, width)."""
    picture = Image.fromarray((values * 255).astype(np.uint8)).filter(ImageFilter.GaussianBlur(1.0))
    return np.asarray(picture.resize((width, height), Image.Resampling.BICUBIC), dtype=np.float32) / 255
