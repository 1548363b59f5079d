"""Wavefront OBJ with its materials (MTL): polygons, several materials, textures. Normals in the file are not read."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from data_prep.rendering.cad.model import GREY, Beside, BrokenModel, Look, Model, colored, fan, number, numbers, show
from data_prep.rendering.cad.textures import read_texture
from data_prep.rendering.shapes.mesh import Floats, Material

_DIGITS = b"0123456789"
_MOST = 2**40  # beyond any count of vertices, and a whole number in all types
# Options of map_Kd that stand before its file name, and how many words each takes at most.
_MAP_OPTIONS = {"-s": 3, "-o": 3, "-t": 3, "-mm": 2} | dict.fromkeys(
    ("-blendu", "-blendv", "-boost", "-texres", "-clamp", "-bm", "-imfchan", "-type", "-cc"), 1
)


@dataclass
class _Lines:
    """What stands behind each keyword, in order. ``relative``: face -> how many v and vt come before it."""

    vertices: list[bytes] = field(default_factory=list)
    uvs: list[bytes] = field(default_factory=list)
    faces: list[bytes] = field(default_factory=list)
    relative: dict[int, tuple[int, int]] = field(default_factory=dict)
    materials: list[tuple[int, str]] = field(default_factory=list)  # first face and name
    libraries: list[str] = field(default_factory=list)


def read_obj(data: bytes, beside: Beside) -> Model:
    """The model in an OBJ file. Raises BrokenModel."""
    if b"\\" in data:
        data = data.replace(b"\\\r\n", b" ").replace(b"\\\n", b" ")
    lines = _sort(data)
    columns = _table(data, b"v", lines.vertices, 3)
    vertices = columns[:, :3]
    uvs = _table(data, b"vt", lines.uvs, 1)
    uvs = np.column_stack([uvs, np.zeros(len(uvs))])[:, :2]
    corners, source = _corners(data, lines, len(vertices), len(uvs))
    notes: list[str] = []
    looks, face_look = _looks(lines, source, beside, notes)
    if not lines.materials and columns.shape[1] >= 6 and len(corners):
        looks, face_look = colored(columns[:, 3:6][corners[..., 0]].mean(axis=1))
    corner_uv = None
    if any(look.texture is not None for look in looks) and len(uvs):
        corner_uv = np.where(corners[..., 1:] < 0, 0.0, uvs[corners[..., 1]])
    return Model(vertices, corners[..., 0], looks, face_look, corner_uv, notes)


def _sort(data: bytes) -> _Lines:
    found = _Lines()
    for line in data.splitlines():
        words = line.split(None, 1)
        if len(words) < 2:
            continue
        key, rest = words
        if key == b"v":
            found.vertices.append(rest)
        elif key == b"f":
            if b"-" in rest:
                found.relative[len(found.faces)] = len(found.vertices), len(found.uvs)
            found.faces.append(rest.split(b"#")[0].rstrip() if b"#" in rest else rest.rstrip())
        elif key == b"vt":
            found.uvs.append(rest)
        elif key == b"usemtl":
            found.materials.append((len(found.faces), rest.decode("utf-8", "replace").strip()))
        elif key == b"mtllib":
            found.libraries.append(rest.decode("utf-8", "replace").strip())
    return found


def _place(data: bytes, key: bytes, index: int) -> int:
    """The line, from 1, of the keyword's occurrence ``index``."""
    lines = ((place, line.split(None, 1)) for place, line in enumerate(data.splitlines(), start=1))
    of_key = (place for place, words in lines if len(words) > 1 and words[0] == key)
    return next(place for k, place in enumerate(of_key) if k == index)


def _table(data: bytes, key: bytes, rows: list[bytes], least: int) -> Floats:
    """The numbers (N, least or more) behind ``v`` or ``vt``, those that every row has."""
    if not rows:
        return np.zeros((0, least))
    widths = set(map(len, map(bytes.split, rows)))
    values = numbers(b" ".join(rows)) if len(widths) == 1 else None
    if values is not None and min(widths) >= least and len(values) == len(rows) * min(widths):
        return values.reshape(len(rows), -1)
    if min(widths) < least or len(widths) == 1:  # too few somewhere, or no numbers: find where
        least_wrong = next(k for k, row in enumerate(rows) if _is_wrong(row, least))
        where = f"line {_place(data, key, least_wrong)}: {key.decode()} {show(rows[least_wrong].strip())}"
        raise BrokenModel(f"{where}: not {least} numbers or more" if least > 1 else f"{where}: not a number")
    least = min(widths)
    return np.array([[number(word, key.decode()) for word in row.split()[:least]] for row in rows])


def _is_wrong(row: bytes, least: int) -> bool:
    words = row.split()
    return len(words) < least or numbers(b" ".join(words)) is None


def _corners(data: bytes, lines: _Lines, vertices: int, uvs: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Vertex and texture vertex (F, 3, 2) of every triangle's corners, from 0, -1 for none; and the line each is of."""
    table = None if lines.relative else _alike(lines.faces)
    if table is None:
        polygons = [_polygon(data, lines, k) for k in range(len(lines.faces))]
        flat = np.array([corner for polygon in polygons for corner in polygon], dtype=np.int64).reshape(-1, 2)
        ends = np.cumsum([0, *(len(polygon) for polygon in polygons)]).tolist()
        order, source = fan([range(first, last) for first, last in pairwise(ends)])
        corners = flat[order]
    else:
        width = table.shape[1]
        fans = [[0, k, k + 1] for k in range(1, width - 1)]
        corners = table[:, fans].reshape(-1, 3, 2)
        source = np.repeat(np.arange(len(table)), width - 2)
    for column, count, name in ((0, vertices, "v"), (1, uvs, "vt")):
        wrong = np.flatnonzero(((corners[..., column] >= count) | (corners[..., column] < -column)).any(axis=1))
        if len(wrong):
            line = int(source[wrong[0]])
            text = f"line {_place(data, b'f', line)}: f {show(lines.faces[line])}"
            raise BrokenModel(f"{text}: there are {count} {name}, counted from 1")
    return corners, source


def _alike(faces: list[bytes]) -> NDArray[np.int64] | None:
    """Corners (F, k, 2) of faces that are all written in the same way; None where they are not."""
    if not faces:
        return None
    joined = b"\n".join(faces)
    patterns = set(joined.translate(None, _DIGITS).split(b"\n"))
    width = len(faces[0].split())
    if width < 3:
        return None
    one = faces[0].split()[0].translate(None, _DIGITS)
    if patterns != {b" ".join([one] * width)} or one not in (b"", b"/", b"//"):
        return None
    skips = joined.count(b"//")
    if skips not in (0, len(faces) * width):
        return None
    values = numbers(joined.replace(b"/", b" "))
    size = 1 + len(one) - (skips > 0)
    if values is None or len(values) != len(faces) * width * size or values.max() > _MOST:
        return None
    table = values.astype(np.int64).reshape(len(faces), width, size) - 1
    if size == 1 or skips:
        return np.stack([table[..., 0], np.full(table.shape[:2], -1)], axis=2)
    return table[..., :2]


def _polygon(data: bytes, lines: _Lines, index: int) -> list[tuple[int, int]]:
    """Vertex and texture vertex of one face's corners, from 0; -1 for no texture vertex, -2 for one that is wrong."""
    before = lines.relative.get(index, (0, 0))
    try:
        words = [(*word.split(b"/"), b"") for word in lines.faces[index].split()]
        corners = [(_index(word[0], before[0]), _index(word[1], before[1])) for word in words]
    except ValueError:
        corners = []
    if len(corners) < 3:
        where = f"line {_place(data, b'f', index)}: f {show(lines.faces[index])}"
        raise BrokenModel(f"{where}: no face of three corners or more")
    return corners


def _index(word: bytes, before: int) -> int:
    """An index of the file, which counts from 1 or, below 0, back from the last of ``before``."""
    if not word:
        return -1
    value = max(-_MOST, min(int(word), _MOST))
    place = value - 1 if value > 0 else before + value
    return place if value and place >= 0 else -2


def _looks(lines: _Lines, source: NDArray[np.int64], beside: Beside, notes: list[str]) -> tuple[list[Look], np.ndarray]:
    """The materials that the file uses, and each triangle's."""
    known: dict[str, Look] = {}
    for library in lines.libraries:
        text = beside.read(library, notes)
        if text is not None:
            known |= dict(_materials(library, text, beside, notes))
    looks, numbers_of = [Look(GREY)], {"": 0}
    for _, name in lines.materials:
        if name not in numbers_of:
            if name not in known:
                notes.append(f"material {name!r} is not to be had: grey")
            numbers_of[name] = len(looks)
            looks.append(known.get(name, Look(GREY)))
    starts = np.array([0, *(face for face, _ in lines.materials)])
    rows = np.array([0, *(numbers_of[name] for _, name in lines.materials)], dtype=np.int32)
    return looks, rows[np.searchsorted(starts, source, side="right") - 1]


def _materials(library: str, data: bytes, beside: Beside, notes: list[str]) -> Iterator[tuple[str, Look]]:
    """Names and looks of an MTL file. Raises BrokenModel where a colour is none."""
    fresh = {"kd": list(GREY.color), "ks": [2 * GREY.specular] * 3, "ns": [GREY.gloss]}
    name, values, image = None, dict(fresh), None
    for place, line in enumerate(data.decode("utf-8", "replace").splitlines(), start=1):
        key, rest = (*line.split(None, 1), "", "")[:2]
        words, key = rest.split(), key.lower()
        if key == "newmtl":
            if name is not None:
                yield name, _look(values, image, beside, notes)
            name, values, image = rest.strip(), dict(fresh), None
        elif key in values and words and words[0] not in ("spectral", "xyz"):
            found = [number(word, f"{library}: line {place}: {key}") for word in words[:3]]
            values[key] = (found * 3)[:3] if len(found) < 3 else found
        elif key == "map_kd" and words:
            image = _file_name(rest.strip())
    if name is not None:
        yield name, _look(values, image, beside, notes)


def _file_name(text: str) -> str:
    """The file behind the options of a ``map_Kd``; it may have spaces."""
    words = text.split(" ")
    while len(words) > 1 and words[0] in _MAP_OPTIONS:
        most = _MAP_OPTIONS[words.pop(0)]
        while most and len(words) > 1 and (most == 1 or words[0].replace(".", "").lstrip("-").isdigit()):
            words.pop(0)
            most -= 1
    return " ".join(words)


def _look(values: dict[str, list[float]], image: str | None, beside: Beside, notes: list[str]) -> Look:
    red, green, blue = np.clip(values["kd"], 0, 1).tolist()
    shine, gloss = np.clip(np.mean(values["ks"]), 0, 1), np.clip(values["ns"][0], 5, 200)
    material = Material((red, green, blue), specular=0.5 * float(shine), gloss=float(gloss))
    return Look(material, None if image is None else read_texture(image, beside, notes))
