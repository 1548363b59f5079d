"""Triangle meshes put together from parts: primitives, materials, normalisation and OFF files.

Object frame everywhere: z up, the front faces -y; +x is the object's own left, on the right for who faces it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from enum import IntEnum
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.floating[Any]]
Ints = NDArray[np.int32]
Color = tuple[float, float, float]
Point = Sequence[float] | Floats  # three numbers

VERTEX_DECIMALS = 5  # the renderer traces exactly what the OFF file says


class Pattern(IntEnum):
    """By what a material blends its two colours; bands run across the axis they are named after."""

    NOISE = 0
    BANDS_X = 1
    BANDS_Y = 2
    BANDS_Z = 3
    PINSTRIPES = 4
    CHECKS = 5
    DOTS = 6
    BLOTCHES = 7
    SPECKLES = 8
    HALVES = 9


class Material(NamedTuple):
    """How a part takes light. Colours are display RGB in 0..1, ``grain`` blends ``color`` and ``second``."""

    color: Color
    second: Color = (0.0, 0.0, 0.0)
    specular: float = 0.15  # strength of the highlight
    gloss: float = 30.0  # Blinn-Phong exponent
    reflect: float = 0.0  # how much of the surroundings it mirrors
    grain: float = 0.0  # 0 plain .. 1 fully textured
    scale: tuple[float, float, float] = (1.0, 1.0, 1.0)  # texture periods an object diagonal, by axis
    pattern: int = Pattern.NOISE

    def row(self) -> list[float]:
        """The 14 numbers of the material table."""
        return [
            *self.color,
            *self.second,
            self.specular,
            self.gloss,
            self.reflect,
            self.grain,
            *self.scale,
            self.pattern,
        ]


@dataclass(frozen=True)
class Skin:
    """Pictures on faces. ``corner_uv`` (F, 3, 2), v upwards; ``face_texture`` (F,) rows of ``textures``, -1 for none.

    ``texels`` (T, 3), 8-bit display RGB: all pictures end to end, each row by row from the top; ``textures`` (K, 3):
    where each starts, its height and its width.
    """

    corner_uv: Floats
    face_texture: Ints
    texels: NDArray[np.uint8]
    textures: Ints


@dataclass(frozen=True)
class Shape:
    """A mesh in canonical pose, box centred on the origin, box diagonal 1: it lies in a sphere of radius 1/2.

    ``vertices`` (V, 3); ``faces`` (F, 3); ``corner_normals`` (F, 3, 3), unit; ``face_material`` (F,) rows of
    ``materials`` (M, 14), whose columns are those of ``Material.row``. Where a face has a texture in ``skin``, that
    stands for its material's colour.
    """

    vertices: Floats
    faces: Ints
    corner_normals: Floats
    face_material: Ints
    materials: Floats
    skin: Skin | None = None


def normalised(vertices: Floats) -> Floats:
    """Vertices (V, 3) with their box centred on the origin and its diagonal 1, as ImageNet3D's are.

    Raises ValueError where they have no extent.
    """
    low, high = vertices.min(axis=0), vertices.max(axis=0)
    with np.errstate(over="ignore", invalid="ignore"):
        diagonal = float(np.linalg.norm(high - low))
    if not math.isfinite(diagonal) or diagonal <= 0:
        raise ValueError(f"the mesh has no extent (from {low.tolist()} to {high.tolist()})")
    # + 0.0 turns -0.0 into 0.0: one form has one text.
    return np.round((vertices - (low + high) / 2) / diagonal, VERTEX_DECIMALS) + 0.0


def make_shape(
    vertices: Floats, faces: Ints, smooth: NDArray[np.bool_], face_material: Ints, materials: Sequence[Material]
) -> Shape:
    """Normalise and complete a mesh. ``smooth`` (F,) marks faces that share normals at common vertices.

    Raises ValueError on a mesh without extent.
    """
    vertices = normalised(vertices)
    corners = vertices[faces]
    edges = corners[:, 1:] - corners[:, :1]
    area_normals = np.cross(edges[:, 0], edges[:, 1])
    face_normals = unit_vectors(area_normals)
    index = faces[smooth].ravel()
    weights = np.repeat(area_normals[smooth], 3, axis=0)
    summed: Floats = np.stack([np.bincount(index, weights[:, k], len(vertices)) for k in range(3)], axis=1)
    shared = unit_vectors(summed)[faces]
    normals = np.where(smooth[:, None, None], shared, face_normals[:, None, :])
    table = np.array([material.row() for material in materials], dtype=np.float32)
    return Shape(vertices, faces, normals.astype(np.float32), face_material, table)


def stretched(shape: Shape, factors: Floats) -> Shape:
    """The shape drawn out along x, y and z by ``factors`` (3,), and normalised again."""
    normals = unit_vectors(shape.corner_normals / factors).astype(np.float32)
    return replace(shape, vertices=normalised(shape.vertices * factors), corner_normals=normals)


def off_text(shape: Shape) -> str:
    """The mesh as an OFF file."""
    vertices, faces = shape.vertices, shape.faces
    names = [str(index) for index in range(len(vertices))]
    rows = ("%s %s %s\n" * len(vertices)) % tuple(vertices.ravel().tolist())
    cells = ("3 %s %s %s\n" * len(faces)) % tuple([names[index] for index in faces.ravel().tolist()])
    return f"OFF\n{len(vertices)} {len(faces)} 0\n{rows}{cells}"


def unit_vectors(vectors: Floats) -> Floats:
    """Vectors (…, 3) at length 1."""
    length = np.sqrt(np.einsum("...i,...i->...", vectors, vectors))[..., None]
    return vectors / np.maximum(length, 1e-12)


@cache
def _grid_faces(rings: int, points: int) -> Ints:
    """Faces (F, 3) of closed rings joined one to the next: vertex ``ring * points + point``."""
    ring, point = np.meshgrid(np.arange(rings - 1), np.arange(points), indexing="ij")
    here = (ring * points + point).ravel()
    beside = (ring * points + (point + 1) % points).ravel()
    lower = np.stack([here, beside, here + points], axis=1)
    upper = np.stack([beside, beside + points, here + points], axis=1)
    return np.concatenate([lower, upper]).astype(np.int32)


@cache
def _fan_faces(points: int) -> Ints:
    """Faces that close a ring of ``points`` vertices around the centre vertex ``points``."""
    here = np.arange(points)
    return np.stack([(here + 1) % points, here, np.full(points, points)], axis=1).astype(np.int32)


@cache
def circle(points: int, start: float = 0.0) -> Floats:
    """Unit circle (points, 2), counter-clockwise from angle ``start``."""
    angle = start + np.arange(points) * (2 * math.pi / points)
    return np.stack([np.cos(angle), np.sin(angle)], axis=1)


@cache
def rounded_square(points: int, power: float) -> Floats:
    """Superellipse (points, 2) with half sides 1: power 2 is a circle, 8 nearly a square. Symmetric in both axes."""
    unit = circle(points, math.pi / points)
    return np.sign(unit) * np.abs(unit) ** (2 / power)


_BOX = np.array([[x, y, z] for x in (-0.5, 0.5) for y in (-0.5, 0.5) for z in (-0.5, 0.5)])
_BOX_FACES = np.array(
    [
        [0, 1, 3],
        [0, 3, 2],
        [4, 6, 7],
        [4, 7, 5],
        [0, 4, 5],
        [0, 5, 1],
        [2, 3, 7],
        [2, 7, 6],
        [0, 2, 6],
        [0, 6, 4],
        [1, 5, 7],
        [1, 7, 3],
    ],
    dtype=np.int32,
)
_QUAD_FACES = np.array([[0, 1, 2], [0, 2, 3]], dtype=np.int32)


class Builder:
    """Collects parts. Lengths are in any unit (``build`` normalises); every part takes a ``Material``."""

    def __init__(self) -> None:
        self._parts: list[tuple[Floats, Ints, bool, int]] = []
        self._materials: dict[Material, int] = {}

    def add(self, vertices: Floats, faces: Ints, material: Material, smooth: bool = False) -> None:
        """Add a part: ``vertices`` (V, 3), ``faces`` (F, 3)."""
        index = self._materials.setdefault(material, len(self._materials))
        self._parts.append((vertices, faces, smooth, index))

    @contextmanager
    def mirrored(self) -> Iterator[None]:
        """Also add the mirror image (x to -x) of all that is added inside."""
        start = len(self._parts)
        yield
        flip = np.array([-1.0, 1.0, 1.0])
        self._parts += [(v * flip, f[:, ::-1], smooth, index) for v, f, smooth, index in self._parts[start:]]

    @contextmanager
    def turned(self, axis: str, angle: float, about: Point = (0.0, 0.0, 0.0)) -> Iterator[None]:
        """Rotate all that is added inside by ``angle`` radians around ``axis`` through the point ``about``."""
        start = len(self._parts)
        yield
        first, second = {"x": (1, 2), "y": (2, 0), "z": (0, 1)}[axis]
        matrix = np.eye(3)
        matrix[first, first] = matrix[second, second] = math.cos(angle)
        matrix[second, first], matrix[first, second] = math.sin(angle), -math.sin(angle)
        center = np.asarray(about, dtype=np.float64)
        self._parts[start:] = [((part[0] - center) @ matrix.T + center, *part[1:]) for part in self._parts[start:]]

    def box(
        self,
        center: Point,
        size: Sequence[float],
        material: Material,
        top: tuple[float, float] = (1.0, 1.0),
        shift: float = 0.0,
    ) -> None:
        """A box; ``top`` scales its upper face in x and y, ``shift`` moves that face along y."""
        vertices = _BOX * np.asarray(size)
        if top != (1.0, 1.0) or shift:
            vertices[1::2, :2] = vertices[1::2, :2] * top + (0.0, shift)
        self.add(vertices + np.asarray(center), _BOX_FACES, material)

    def quad(self, corners: ArrayLike, material: Material) -> None:
        """A flat four-cornered patch, corners (4, 3) in order around it."""
        self.add(np.asarray(corners, dtype=np.float64), _QUAD_FACES, material)

    def loft(self, rings: Floats, material: Material, smooth: bool = True, caps: bool = True) -> None:
        """A skin over closed ``rings`` (m, n, 3), with flat ends when ``caps``."""
        count, points = rings.shape[:2]
        self.add(rings.reshape(-1, 3), _grid_faces(count, points), material, smooth)
        if caps:
            for ring in (rings[0], rings[-1, ::-1]):
                center = ring.mean(axis=0, keepdims=True)
                self.add(np.concatenate([ring, center]), _fan_faces(points), material)

    def hull(
        self,
        y: ArrayLike,
        half_width: ArrayLike,
        low: ArrayLike,
        high: ArrayLike,
        material: Material,
        power: float = 4.0,
        points: int = 16,
        smooth: bool = True,
    ) -> None:
        """A body along y: at each ``y`` a rounded rectangle of that half width between heights low and high."""
        outline = rounded_square(points, power)
        y, half_width, low, high = np.broadcast_arrays(*(np.asarray(a, np.float64) for a in (y, half_width, low, high)))
        rings = np.empty((len(y), points, 3))
        rings[:, :, 0] = half_width[:, None] * outline[:, 0]
        rings[:, :, 1] = y[:, None]
        rings[:, :, 2] = ((low + high) / 2)[:, None] + ((high - low) / 2)[:, None] * outline[:, 1]
        self.loft(rings, material, smooth)

    def slab(
        self, center: Point, size: Sequence[float], material: Material, power: float = 5.0, points: int = 16
    ) -> None:
        """A cushion: a box with rounded vertical edges and slightly rounded top and bottom."""
        outline = rounded_square(points, power)
        half = np.asarray(size) / 2
        edge = min(half[2] * 0.9, half[0] * 0.25, half[1] * 0.25)
        heights = np.array([-half[2], -half[2] + edge, half[2] - edge, half[2]])
        inset = np.array([edge, 0.0, 0.0, edge])
        rings = np.empty((4, points, 3))
        rings[:, :, 0] = (half[0] - inset)[:, None] * outline[:, 0]
        rings[:, :, 1] = (half[1] - inset)[:, None] * outline[:, 1]
        rings[:, :, 2] = heights[:, None]
        self.loft(rings + np.asarray(center), material)

    def tube(
        self, path: ArrayLike, radius: ArrayLike, material: Material, points: int = 8, closed: bool = False
    ) -> None:
        """A round rod along ``path`` (m, 3), ``radius`` one for all or one a point; ``closed`` joins its ends."""
        path = np.asarray(path, dtype=np.float64)
        radius = np.broadcast_to(np.asarray(radius, dtype=np.float64), (len(path),))
        if closed:
            path, radius = np.concatenate([path, path[:1]]), np.concatenate([radius, radius[:1]])
            around = np.concatenate([path[-2:-1], path, path[1:2]])
            tangent = unit_vectors(around[2:] - around[:-2])
        else:
            step = np.diff(path, axis=0)
            tangent = unit_vectors(np.concatenate([step[:1], step[1:] + step[:-1], step[-1:]]))
        # One reference direction for the whole path, the one it runs along least, keeps the rings from twisting.
        side = np.eye(3)[int(np.argmin(np.abs(tangent).max(axis=0)))]
        first = unit_vectors(np.cross(tangent, side))
        second = np.cross(tangent, first)
        unit = circle(points)
        spread = unit[:, :1] * first[:, None, :] + unit[:, 1:] * second[:, None, :]
        self.loft(path[:, None, :] + radius[:, None, None] * spread, material, caps=not closed)

    def revolve(
        self,
        profile: ArrayLike,
        material: Material,
        center: Point = (0.0, 0.0, 0.0),
        axis: str = "z",
        points: int = 16,
        stretch: tuple[float, float] = (1.0, 1.0),
        smooth: bool = True,
        caps: bool = True,
    ) -> None:
        """A turned part: ``profile`` (m, 2) of radius and height along ``axis``; ``stretch`` scales the two other
        axes."""
        profile = np.asarray(profile, dtype=np.float64)
        unit = circle(points, math.pi / points) * stretch
        along, first, second = {"x": (0, 1, 2), "y": (1, 2, 0), "z": (2, 0, 1)}[axis]
        rings = np.empty((len(profile), points, 3))
        rings[:, :, first] = profile[:, :1] * unit[:, 0]
        rings[:, :, second] = profile[:, :1] * unit[:, 1]
        rings[:, :, along] = profile[:, 1:]
        self.loft(rings + np.asarray(center), material, smooth, caps)

    def disc(
        self,
        center: Point,
        radius: float,
        depth: float,
        material: Material,
        axis: str = "x",
        points: int = 16,
    ) -> None:
        """A flat cylinder of thickness ``depth`` centred on ``center``."""
        self.revolve([[radius, -depth / 2], [radius, depth / 2]], material, center, axis, points)

    def ellipsoid(
        self, center: Point, radii: Sequence[float], material: Material, rings: int = 8, points: int = 14
    ) -> None:
        """An ellipsoid with the given half axes."""
        angle = np.linspace(-math.pi / 2 + 0.05, math.pi / 2 - 0.05, rings)
        profile = np.stack([np.cos(angle), radii[2] * np.sin(angle)], axis=1)
        self.revolve(profile, material, center, "z", points, (radii[0], radii[1]))

    def ring(
        self,
        center: Point,
        radius: float,
        thickness: float,
        material: Material,
        axis: str = "x",
        points: int = 18,
        section: int = 6,
    ) -> None:
        """A torus around ``axis``; ``thickness`` is the radius of its tube."""
        unit = circle(section)
        profile = np.stack([radius + thickness * unit[:, 0], thickness * unit[:, 1]], axis=1)
        self.revolve(np.concatenate([profile, profile[:1]]), material, center, axis, points, caps=False)

    def build(self) -> Shape:
        """All parts as one normalised shape."""
        offsets = np.cumsum([0] + [len(vertices) for vertices, *_ in self._parts[:-1]])
        counts = [len(faces) for _, faces, _, _ in self._parts]
        return make_shape(
            np.concatenate([vertices for vertices, *_ in self._parts]),
            np.concatenate([part[1] + offset for part, offset in zip(self._parts, offsets, strict=True)]).astype(
                np.int32
            ),
            np.repeat([part[2] for part in self._parts], counts),
            np.repeat([part[3] for part in self._parts], counts).astype(np.int32),
            list(self._materials),
        )
