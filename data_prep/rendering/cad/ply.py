"""PLY, text and binary of either byte order, with the colours of its vertices or faces."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data_prep.rendering.cad.model import BrokenModel, Model, colored, fan, number, numbers, plain, show
from data_prep.rendering.shapes.mesh import Floats

_TYPES = {
    **{name: f"{kind}{size}" for kind, size, names in (
        ("i", 1, "char int8"), ("u", 1, "uchar uint8"), ("i", 2, "short int16"), ("u", 2, "ushort uint16"),
        ("i", 4, "int int32"), ("u", 4, "uint uint32"), ("f", 4, "float float32"), ("f", 8, "double float64"),
    ) for name in names.split()},
}  # fmt: skip
_ORDERS = {"ascii": "", "binary_little_endian": "<", "binary_big_endian": ">"}
_MOST = 2**40  # beyond any count of vertices, and a whole number in all types
_CORNERS = ("vertex_indices", "vertex_index")


@dataclass
class _Element:
    """``properties``: name, NumPy type and, of a list, the type of its length."""

    name: str
    count: int
    properties: list[tuple[str, str, str | None]]


def read_ply(data: bytes) -> Model:
    """The model in a PLY file. Raises BrokenModel."""
    order, elements, start = _header(data)
    names = [element.name for element in elements]
    if "vertex" not in names:
        raise BrokenModel("header: no element vertex")
    tables = (_text if order == "" else _binary)(data, start, order, elements)
    vertex, face = tables["vertex"], tables.get("face", {})
    for axis in "xyz":
        if np.ndim(vertex.get(axis, [[]])) != 1:
            raise BrokenModel(f"header: element vertex has no property {axis}")
    vertices = np.stack([vertex[axis].astype(np.float64) for axis in "xyz"], axis=1)
    faces, source = _triangles(next((face[name] for name in _CORNERS if name in face), []))
    colors, face_colors = _colors(vertex), _colors(face)
    if face_colors is not None:
        return Model(vertices, faces, *colored(face_colors[source]))
    inside = bool(len(faces)) and faces.min() >= 0 and faces.max() < len(vertices)
    if colors is not None and inside:
        return Model(vertices, faces, *colored(colors[faces].mean(axis=1)))
    return Model(vertices, faces, *plain(len(faces)))


def _triangles(corners: Any) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Triangles (F, 3) of faces of any number of corners, and the face that each is of."""
    alike = isinstance(corners, np.ndarray) and corners.ndim == 2 and corners.shape[1] == 3
    if alike and ((np.abs(corners) < _MOST) & (np.floor(corners) == corners)).all():
        return corners.astype(np.int64), np.arange(len(corners))
    return fan([_polygon(corner, k) for k, corner in enumerate(corners)])


def _polygon(corners: Any, face: int) -> list[int]:
    """The corners of one face, checked."""
    if np.ndim(corners) != 1 or len(corners) < 3:
        raise BrokenModel(f"face {face}: {np.size(corners)} corners, not 3 or more")
    for corner in corners:
        if not (abs(corner) < _MOST and corner == int(corner)):
            raise BrokenModel(f"face {face}: {corner} is no vertex")
    return [int(corner) for corner in corners]


def _header(data: bytes) -> tuple[str, list[_Element], int]:
    """Byte order ("" for text), elements, and where the body starts."""
    if not re.match(rb"ply\s", data):
        raise BrokenModel(f"line 1: starts with {show(data[:20])}, not with ply")
    end = data.find(b"end_header")
    stop = data.find(b"\n", end)
    if end < 0 or stop < 0:
        raise BrokenModel("header: no end_header")
    order, elements = None, []
    for place, line in enumerate(data[:end].decode("utf-8", "replace").splitlines()[1:], start=2):
        words, wrong = line.split(), BrokenModel(f"line {place}: {show(line)} is no line of a PLY header")
        if not words or words[0] in ("comment", "obj_info"):
            continue
        if words[0] == "format" and len(words) == 3 and words[1] in _ORDERS:
            order = _ORDERS[words[1]]
        elif words[0] == "element" and len(words) == 3 and words[2].isdecimal():
            elements.append(_Element(words[1], int(words[2]), []))
        elif words[0] == "property" and elements and len(words) == 3 and words[1] in _TYPES:
            elements[-1].properties.append((words[2], _TYPES[words[1]], None))
        elif words[:2] == ["property", "list"] and elements and len(words) == 5 and {*words[2:4]} <= _TYPES.keys():
            elements[-1].properties.append((words[4], _TYPES[words[3]], _TYPES[words[2]]))
        else:
            raise wrong
        if elements and len({name for name, _, _ in elements[-1].properties}) < len(elements[-1].properties):
            raise BrokenModel(f"line {place}: {show(line)}: a second property of that name")
    if order is None:
        raise BrokenModel("header: no format that is known")
    return order, elements, stop + 1


def _text(data: bytes, start: int, order: str, elements: list[_Element]) -> dict[str, dict[str, Any]]:
    """The columns of every element of a text."""
    first, lines = data.count(b"\n", 0, start) + 1, data[start:].split(b"\n")
    rows = [k for k, line in enumerate(lines) if line.strip()]
    tables: dict[str, dict[str, Any]] = {}
    done = 0
    for element in elements:
        mine = rows[done : done + element.count]
        if len(mine) < element.count:
            raise BrokenModel(f"says {element.count} of {element.name}, but the file ends after {len(mine)}")
        done += element.count
        tables[element.name] = _text_element(element, [lines[k] for k in mine], [first + k for k in mine])
    if done < len(rows):
        raise BrokenModel(f"line {first + rows[done]}: more lines than the header says")
    return tables


def _text_element(element: _Element, lines: list[bytes], places: list[int]) -> dict[str, Any]:
    names = [name for name, _, _ in element.properties]
    lists = [length for _, _, length in element.properties]
    even = len(set(map(len, map(bytes.split, lines)))) == 1
    values = numbers(b" ".join(lines)) if even else None
    table = values.reshape(len(lines), -1) if values is not None else None
    if table is not None and not any(lists) and table.shape[1] == len(names):
        return dict(zip(names, table.T, strict=True))
    if table is not None and len(names) == 1 and lists[0] and (table[:, 0] == table.shape[1] - 1).all():
        return {names[0]: table[:, 1:]}
    columns: dict[str, list[Any]] = {name: [] for name in names}
    for line, place in zip(lines, places, strict=True):
        words = [number(word, f"line {place}: {element.name}") for word in line.split()]
        at = 0
        for name, _, length in element.properties:
            size = 1
            if length:
                size = int(words[at]) if at < len(words) and words[at].is_integer() else -1
                at += 1
            if size < 0 or at + size > len(words):
                raise BrokenModel(f"line {place}: {element.name} lacks some of {name}")
            columns[name].append(words[at : at + size] if length else words[at])
            at += size
    return {name: columns[name] if length else np.array(columns[name]) for name, _, length in element.properties}


def _binary(data: bytes, start: int, order: str, elements: list[_Element]) -> dict[str, dict[str, Any]]:
    """The columns of every element of a binary body."""
    tables: dict[str, dict[str, Any]] = {}
    for element in elements:
        table, start = _even_rows(data, start, order, element)
        if table is None:
            table, start = _uneven_rows(data, start, order, element)
        tables[element.name] = table
    if start < len(data):
        raise BrokenModel(f"byte {start}: {len(data) - start} bytes more than the header says")
    return tables


def _too_short(element: _Element, at: int, data: bytes) -> BrokenModel:
    return BrokenModel(f"says {element.count} of {element.name}, but the file ends after {at} (byte {len(data)})")


def _even_rows(data: bytes, start: int, order: str, element: _Element) -> tuple[dict[str, NDArray[Any]] | None, int]:
    """All rows at once, if their lists are as long as the first row's. Raises BrokenModel where the file ends early."""
    if not element.properties:
        return {}, start
    fields: list[tuple[Any, ...]] = []
    sizes: dict[str, int] = {}
    at = start
    for name, kind, length in element.properties:
        if length:
            head = data[at : at + np.dtype(length).itemsize]
            if len(head) < np.dtype(length).itemsize:
                return None, start
            sizes[name] = int(np.frombuffer(head, order + length)[0])
            if not 0 <= sizes[name] < 256:
                return None, start
            fields.append((f"{name} length", order + length))
            at += len(head)
        fields.append((name, order + kind, (sizes[name],)) if length else (name, order + kind))
        at += np.dtype(kind).itemsize * sizes.get(name, 1)
    rows = np.dtype(fields)
    if start + rows.itemsize * element.count > len(data):
        if not sizes:
            raise _too_short(element, (len(data) - start) // max(rows.itemsize, 1), data)
        return None, start
    table = np.frombuffer(data, rows, element.count, start)
    if any((table[f"{name} length"] != size).any() for name, size in sizes.items()):
        return None, start
    return {name: table[name] for name, _, _ in element.properties}, start + rows.itemsize * element.count


def _uneven_rows(data: bytes, start: int, order: str, element: _Element) -> tuple[dict[str, Any], int]:
    """Row by row, lists of any length."""
    columns: dict[str, list[Any]] = {name: [] for name, _, _ in element.properties}
    for row in range(element.count):
        for name, kind, length in element.properties:
            size = 1
            if length:
                if start + np.dtype(length).itemsize > len(data):
                    raise _too_short(element, row, data)
                size = int(np.frombuffer(data, order + length, 1, start)[0])
                start += np.dtype(length).itemsize
            if size < 0 or start + size * np.dtype(kind).itemsize > len(data):
                raise _too_short(element, row, data)
            values = np.frombuffer(data, order + kind, size, start)
            columns[name].append(values if length else values[0])
            start += size * np.dtype(kind).itemsize
    return {name: columns[name] if length else np.array(columns[name]) for name, _, length in element.properties}, start


def _colors(columns: dict[str, Any]) -> Floats | None:
    """Colours (N, 3) in 0..1, if an element has them: bytes, or numbers up to 1."""
    names = ("red", "green", "blue")
    if not all(name in columns for name in names):
        return None
    colors = np.stack([np.asarray(columns[name], dtype=np.float64) for name in names], axis=1)
    return colors / 255 if colors.size and colors.max() > 1 else colors
