"""Readers of the users' model files: ``read_model`` for any format, ``finish`` for a shape that can be rendered."""

from __future__ import annotations

import re
from pathlib import Path

from data_prep.rendering.cad.finishing import MAX_FACES, finish
from data_prep.rendering.cad.glb import read_glb
from data_prep.rendering.cad.model import Beside, BrokenModel, Model, show
from data_prep.rendering.cad.obj import read_obj
from data_prep.rendering.cad.off import read_off
from data_prep.rendering.cad.ply import read_ply
from data_prep.rendering.cad.stl import read_stl

__all__ = ["MAX_BYTES", "MAX_FACES", "SUFFIXES", "Beside", "BrokenModel", "Model", "finish", "read_model"]

SUFFIXES = (".glb", ".obj", ".off", ".ply", ".stl")
MAX_BYTES = 2 * 1024**3
# What a file shows itself to be in its first bytes, whatever its name: (pattern, kind, suffix that fits).
_SIGNS = (
    (rb"glTF", "binary glTF", ".glb"),
    (rb"ply\r?\n", "PLY", ".ply"),
    (rb"\s*(ST)?C?N?4?n?OFF\b", "OFF", ".off"),
    (rb"\s*solid\b", "STL", ".stl"),
    (rb"\s*(<!doctype|<html|<\?xml)", "a web page or XML", ""),
    (rb"version https://git-lfs", "a Git LFS pointer, not the file itself", ""),
    (rb"PK\x03\x04", "a zip archive", ""),
    (rb"\x1f\x8b", "a gzip archive", ""),
    (rb"Kaydara FBX", "FBX", ""),
    (rb"\x89PNG|\xff\xd8\xff", "a picture", ""),
)


def read_model(path: Path, data: bytes, beside: Beside) -> Model:
    """The model in a file of one of ``SUFFIXES``, whose content is ``data``. Raises BrokenModel."""
    suffix = path.suffix.lower()
    if not data.strip():
        raise BrokenModel("an empty file" if not data else f"{len(data)} bytes, nothing but blanks")
    for sign, kind, fitting in _SIGNS:
        if fitting != suffix and re.match(sign, data[:200], re.IGNORECASE):
            raise BrokenModel(f"starts with {show(data[:20])}: {kind}, not what {path.suffix} says")
    if suffix == ".obj":
        return read_obj(data, beside)
    return {".glb": read_glb, ".off": read_off, ".ply": read_ply, ".stl": read_stl}[suffix](data)
