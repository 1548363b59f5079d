"""From what a file says to a shape that can be rendered: checked, turned, centred, scaled, with normals of its own.

Normals come from the corners alone, and the renderer shades the side it sees: a file's own normals and the way its
faces are wound, which are often wrong, play no part.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from data_prep.rendering.axes import Axes
from data_prep.rendering.cad.model import BrokenModel, Look, Model
from data_prep.rendering.shapes.mesh import VERTEX_DECIMALS, Floats, Ints, Shape, Skin, normalised, unit_vectors

MAX_FACES = 5_000_000
_CREASE = np.cos(np.radians(40))  # faces that meet at less than this share a normal where they do
_SMOOTHED_FACES = 300_000  # above it faces are about as small as pixels
_SMOOTHED_DEGREE = 64  # faces at a vertex; beyond it is the middle of a fan
_PAIRS_AT_ONCE = 1_000_000


def finish(model: Model, axes: Axes) -> Shape:
    """The shape of a model: box centred on the origin, box diagonal 1, faces without area left out.

    Raises BrokenModel when it has no face, a corner that is no vertex or not finite, too many faces, or no extent.
    """
    _check(model)
    whole = np.flatnonzero(_areas(model.vertices, model.faces).any(axis=1))
    if not len(whole):
        raise BrokenModel(f"{len(model.faces)} faces, none of which has an area")
    used, corners = np.unique(model.faces[whole], return_inverse=True)
    try:
        vertices = normalised(axes.turn(model.vertices[used]))
    except ValueError as error:
        raise BrokenModel(str(error)) from error
    faces = corners.reshape(-1, 3).astype(np.int32)
    # Rounding has made some of the smallest faces flat: they stay in the box, and are no longer traced.
    area = _areas(vertices, faces)
    solid = np.flatnonzero(area.any(axis=1))
    if not len(solid):
        raise BrokenModel(f"{len(faces)} faces, all thinner than 1/{10**VERTEX_DECIMALS} of the model")
    faces, area, solid = faces[solid], area[solid], whole[solid]
    looks, rows = np.unique(model.face_look[solid], return_inverse=True)
    used_looks = [model.looks[index] for index in looks]
    materials = np.array([look.material.row() for look in used_looks], dtype=np.float32)
    skin = _skin(model, used_looks, rows, solid)
    return Shape(vertices, faces, crease_normals(vertices, faces, area), rows.astype(np.int32), materials, skin)


def _areas(vertices: Floats, faces: NDArray[Any]) -> Floats:
    """Normals (F, 3) of faces, as long as twice their areas."""
    first, second, third = (vertices[faces[:, k]] for k in range(3))
    with np.errstate(over="ignore", invalid="ignore"):
        return np.cross(second - first, third - first)


def _check(model: Model) -> None:
    count, vertices = len(model.faces), len(model.vertices)
    if not count:
        raise BrokenModel(f"a cloud of {vertices} points without faces" if vertices else "no vertices and no faces")
    if count > MAX_FACES:
        raise BrokenModel(f"{count} faces, more than {MAX_FACES}: simplify it first")
    outside = np.flatnonzero(((model.faces < 0) | (model.faces >= vertices)).any(axis=1))
    if len(outside):
        face = int(outside[0])
        raise BrokenModel(f"face {face}: corners {model.faces[face].tolist()}, but vertices are 0 to {vertices - 1}")
    wrong = np.flatnonzero(~np.isfinite(model.vertices).all(axis=1))
    wrong = wrong[np.isin(wrong, model.faces)] if len(wrong) else wrong
    if len(wrong):
        vertex = int(wrong[0])
        raise BrokenModel(f"vertex {vertex}: {tuple(model.vertices[vertex].tolist())} is not finite")


def _skin(model: Model, looks: list[Look], rows: NDArray[np.int64], solid: NDArray[np.int64]) -> Skin | None:
    """The textures of the looks in use, laid end to end, and where each face finds its part."""
    textures = [look.texture for look in looks if look.texture is not None]
    if model.corner_uv is None or not textures:
        return None
    numbers = np.cumsum([look.texture is not None for look in looks]) - 1
    of_look = np.where([look.texture is not None for look in looks], numbers, -1).astype(np.int32)
    sizes = np.array([texture.shape[:2] for texture in textures], dtype=np.int32)
    starts = np.cumsum([0, *sizes.prod(axis=1)[:-1]])
    uv = np.nan_to_num(model.corner_uv[solid], posinf=0, neginf=0)
    uv -= np.floor(uv.min(axis=1, keepdims=True))  # tiles are all alike: small numbers keep their digits
    return Skin(
        uv.astype(np.float32),
        of_look[rows],
        np.concatenate([texture.reshape(-1, 3) for texture in textures]),
        np.column_stack([starts, sizes]).astype(np.int32),
    )


def crease_normals(vertices: Floats, faces: Ints, area: Floats) -> NDArray[np.float32]:
    """Unit normals (F, 3, 3) at the corners of faces, rounded over where faces meet at a small angle.

    ``area`` (F, 3): the faces' normals, as long as twice their areas. Corners meet where their ``vertices`` lie, to
    VERTEX_DECIMALS, not only where they share one; and a neighbour that is wound the other way counts as turned round.
    """
    own = unit_vectors(area)
    normals = np.repeat(own[:, None, :], 3, axis=1)
    if len(faces) > _SMOOTHED_FACES:
        return normals.astype(np.float32)
    flat = normals.reshape(-1, 3)
    grid = np.round(vertices * 10**VERTEX_DECIMALS).astype(np.int64) + 2**20
    places = np.unique((grid[:, 0] << 42) | (grid[:, 1] << 21) | grid[:, 2], return_inverse=True)[1]
    at = places[faces].ravel()
    order = np.argsort(at, kind="stable")
    starts = np.flatnonzero(np.diff(at[order], prepend=-1))
    degrees = np.diff(starts, append=len(order))
    for degree in np.unique(degrees):
        if not 1 < degree <= _SMOOTHED_DEGREE:
            continue
        groups = order[starts[degrees == degree][:, None] + np.arange(degree)]
        step = max(1, _PAIRS_AT_ONCE // degree**2)
        for first in range(0, len(groups), step):
            corners = groups[first : first + step]
            cosine = np.einsum("gic,gjc->gij", own[corners // 3], own[corners // 3])
            weight = np.where(np.abs(cosine) > _CREASE, np.sign(cosine), 0)
            flat[corners] = unit_vectors(np.einsum("gij,gjc->gic", weight, area[corners // 3]))
    return normals.astype(np.float32)
