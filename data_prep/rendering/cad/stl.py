"""STL, binary and text. Its normals are left unread: they are often wrong, and the corners say the same."""

from __future__ import annotations

import re

import numpy as np

from data_prep.rendering.cad.model import BrokenModel, Model, number, numbers, plain
from data_prep.rendering.shapes.mesh import Floats

_RECORD = np.dtype([("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("attribute", "<u2")])
_START = 84  # a title of 80 bytes and the count


def read_stl(data: bytes) -> Model:
    """The model in an STL file. Raises BrokenModel."""
    # Binary files too may begin with "solid": their length is what tells.
    count = int.from_bytes(data[80:_START], "little")
    if len(data) >= _START and len(data) == _START + count * _RECORD.itemsize:
        corners: Floats = np.frombuffer(data, _RECORD, offset=_START)["corners"].astype(np.float64)
    elif data.lstrip()[:5].lower() == b"solid" and b"\0" not in data[:1000]:
        corners = _text(data)
    elif len(data) < _START:
        raise BrokenModel(f"{len(data)} bytes: neither a text that starts with solid nor a binary file of 84 bytes up")
    else:
        wanted = _START + count * _RECORD.itemsize
        raise BrokenModel(f"byte 80: {count} triangles take {wanted} bytes, the file has {len(data)}")
    faces = np.arange(3 * len(corners)).reshape(-1, 3)
    return Model(corners.reshape(-1, 3), faces, *plain(len(faces)))


def _text(data: bytes) -> Floats:
    """Corners (F, 3, 3) of a text."""
    rows = re.findall(rb"(?mi)^[ \t]*vertex[ \t]+([^\r\n]*)", data)
    values = numbers(b" ".join(rows))
    whole = values is not None and len(values) == 3 * len(rows) and len(rows) % 3 == 0
    if whole and values is not None and re.search(rb"(?i)\bendsolid\b[^\r\n]*\s*$", data):
        return values.reshape(-1, 3, 3)
    for place, line in enumerate(data.split(b"\n"), start=1):
        words = line.split()
        if words[:1] and words[0].lower() == b"vertex":
            coordinates = [number(word, f"line {place}: vertex") for word in words[1:]]
            if len(coordinates) != 3:
                raise BrokenModel(f"line {place}: a vertex of {len(coordinates)} numbers, not 3")
    raise BrokenModel(f"ends after {len(rows)} vertices without endsolid (line {len(data.splitlines())})")
