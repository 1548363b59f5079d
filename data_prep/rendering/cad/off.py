"""Object File Format: ``OFF`` and ``COFF`` (coloured), as text."""

from __future__ import annotations

import re

import numpy as np
from numpy.typing import NDArray

from data_prep.rendering.cad.model import BrokenModel, Look, Model, colored, fan, number, numbers, plain, show
from data_prep.rendering.shapes.mesh import Floats, Ints

# Many files have their counts right behind the header: "OFF8 12 0".
_HEADER = re.compile(rb"\s*(ST)?(C)?(N)?(4)?(n)?OFF[ \t]*(BINARY)?")


def read_off(data: bytes) -> Model:
    """The model in an OFF file. Raises BrokenModel."""
    if b"#" in data:
        data = re.sub(rb"#[^\r\n]*", b"", data)
    header = _HEADER.match(data)
    if header is None:
        raise BrokenModel(f"line 1: starts with {show(data.lstrip()[:20])}, not with OFF")
    if header[4] or header[5] or header[6]:
        raise BrokenModel(f"line 1: {show(header[0].strip())}: only OFF, COFF, NOFF and STOFF as text are read")
    if not header[2]:
        plain_model = _triangles_only(data[header.end() :])
        if plain_model is not None:
            return plain_model
    return _read_lines(data, header.end(), bool(header[2]), 3 * bool(header[3]))


def _triangles_only(body: bytes) -> Model | None:
    """The common case, at the speed of one call: nothing but coordinates and triangles. None for all else."""
    values = numbers(body)
    if values is None or len(values) < 3:
        return None
    vertices, faces = values[:2].tolist()
    if not (0 <= vertices < 2**40 and 0 <= faces < 2**40) or len(values) != 3 + 3 * vertices + 4 * faces:
        return None
    split = 3 + 3 * int(vertices)
    cells = values[split:].reshape(-1, 4)
    corners = cells[:, 1:]
    if not (
        (cells[:, 0] == 3).all() and ((corners >= 0) & (corners < vertices) & (np.floor(corners) == corners)).all()
    ):
        return None
    return Model(values[3:split].reshape(-1, 3), corners.astype(np.int64), *plain(len(cells)))


def _read_lines(data: bytes, start: int, coloured: bool, normals: int) -> Model:
    """Line by line: polygons and colours, or what is wrong."""
    first = data.count(b"\n", 0, start) + 1
    lines = [(first + k, line.split()) for k, line in enumerate(data[start:].split(b"\n"))]
    rows = [(place, words) for place, words in lines if words]
    if not rows or len(rows[0][1]) < 2:
        raise BrokenModel("ends before the counts of vertices and faces" if not rows else _counts_wrong(rows[0]))
    counts = [_whole(word, _counts_wrong(rows[0])) for word in rows[0][1][:2]]
    vertex_rows, face_rows = rows[1 : 1 + counts[0]], rows[1 + counts[0] : 1 + sum(counts)]
    for name, count, found in (("vertices", counts[0], vertex_rows), ("faces", counts[1], face_rows)):
        if len(found) < count:
            raise BrokenModel(f"line {rows[0][0]}: says {count} {name}, but the file ends after {len(found)}")
    vertices, colors = np.empty((counts[0], 3)), np.full((counts[0], 3), np.nan)
    for k, (place, words) in enumerate(vertex_rows):
        if len(words) < 3:
            raise BrokenModel(f"line {place}: vertex {k} has {len(words)} numbers, not 3")
        vertices[k] = [number(word, f"line {place}: vertex {k}") for word in words[:3]]
        if coloured:
            colors[k] = _color(words[3 + normals :], place)
    polygons, face_colors = [], np.full((counts[1], 3), np.nan)
    for k, (place, words) in enumerate(face_rows):
        polygons.append(_polygon(words, place, k, counts[0]))
        face_colors[k] = _color(words[1 + len(polygons[-1]) :], place)
    faces, source = fan(polygons)
    return Model(vertices, faces, *_looks(faces, source, colors, face_colors))


def _looks(
    faces: NDArray[np.int64], source: NDArray[np.int64], colors: Floats, face_colors: Floats
) -> tuple[list[Look], Ints]:
    """A face's own colour, or else the mean of its vertices', or grey."""
    shown = face_colors[source]
    of_vertices = np.isnan(shown[:, 0])
    shown[of_vertices] = colors[faces[of_vertices]].mean(axis=1)
    if np.isnan(shown).all():
        return plain(len(faces))
    shown[np.isnan(shown[:, 0])] = 0.63
    return colored(shown)


def _counts_wrong(row: tuple[int, list[bytes]]) -> str:
    return f"line {row[0]}: {show(b' '.join(row[1]))} are no counts of vertices and faces"


def _whole(word: bytes, message: str) -> int:
    if not word.isdigit():
        raise BrokenModel(message)
    return int(word)


def _polygon(words: list[bytes], place: int, face: int, vertices: int) -> list[int]:
    """The corners of one face, checked."""
    size = _whole(words[0], f"line {place}: face {face}: {show(words[0])} is no number of corners")
    if size < 3 or len(words) <= size:
        raise BrokenModel(f"line {place}: face {face}: says {size} corners and lists {len(words) - 1}")
    corners = [_whole(w, f"line {place}: face {face}: {show(w)} is no vertex") for w in words[1 : 1 + size]]
    if max(corners) >= vertices:
        raise BrokenModel(f"line {place}: face {face}: vertex {max(corners)} of {vertices}, counted from 0")
    return corners


def _color(words: list[bytes], place: int) -> list[float]:
    """Three numbers of a colour in 0..1; NaN where there are none: a single number is an index into nothing we have."""
    if len(words) < 3:
        return [np.nan] * 3
    scale = 1.0 if any(b"." in word for word in words[:3]) else 255.0
    return [number(word, f"line {place}: colour") / scale for word in words[:3]]
