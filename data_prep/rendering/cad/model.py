"""What a model file says, whatever its format, and what the readers of the formats share."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from data_prep.rendering.shapes.mesh import Floats, Ints, Material

GREY = Material((0.63, 0.63, 0.63))  # of a model that has no colours
Pixels = NDArray[np.uint8]


class BrokenModel(Exception):
    """A file that is no usable model: the message says where in it and which value, not its name."""


class Look(NamedTuple):
    """How some faces look: a material and perhaps a texture (h, w, 3), which then stands for the material's colour."""

    material: Material
    texture: Pixels | None = None


@dataclass
class Model:
    """Triangles as a file has them: nothing is checked, moved or left out yet.

    ``vertices`` (V, 3); ``faces`` (F, 3); ``face_look`` (F,) numbers into ``looks``; ``corner_uv`` (F, 3, 2), v
    upwards, or None without textures; ``notes``: what the file names and could not be had, a sentence each.
    """

    vertices: Floats
    faces: NDArray[np.int64]
    looks: list[Look]
    face_look: Ints
    corner_uv: Floats | None = None
    notes: list[str] = field(default_factory=list)


class Beside:
    """The files in a model's own folder, for the materials and textures that it names.

    ``asked``: every path that was looked for and lies in the folder, found or not.
    """

    def __init__(self, model: Path) -> None:
        self._folder = model.parent
        self.asked: dict[str, None] = {}  # in order

    def read(self, name: str, notes: list[str]) -> bytes | None:
        """The content of a file named in the model; None, and a note that says why, where it cannot be had.

        Names made elsewhere are met half-way: backslashes, another case, or a folder of another computer before them.
        """
        plain_name = name.replace("\\", "/")
        try:
            for candidate in dict.fromkeys((plain_name, plain_name.rsplit("/", 1)[-1])):
                path = self._find(candidate)
                if path is not None:
                    return path.read_bytes()
        except (OSError, ValueError) as error:  # a ValueError where no file can have the name
            notes.append(f"{name!r} cannot be read ({error})")
            return None
        notes.append(f"{name!r} is not in the model's folder")
        return None

    def _find(self, name: str) -> Path | None:
        folder = self._folder.resolve()
        path = self._folder / name
        if not name or not path.resolve().is_relative_to(folder):
            return None
        found = _any_case(path)
        if found is not None and not found.resolve().is_relative_to(folder):
            return None
        self.asked[str((found or path).resolve().relative_to(folder))] = None
        return found


def _any_case(path: Path) -> Path | None:
    """The file of this name, or the only one that differs in nothing but case."""
    if path.is_file():
        return path
    if not path.parent.is_dir():
        return None
    alike = [other for other in path.parent.iterdir() if other.name.lower() == path.name.lower() and other.is_file()]
    return alike[0] if len(alike) == 1 else None


def numbers(text: bytes) -> Floats | None:
    """All of a text's numbers (N,), or None where it holds anything else."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", DeprecationWarning)  # NumPy's word for text that is no number
        try:
            return np.fromstring(text, dtype=np.float64, sep=" ") if text.strip() else np.zeros(0)
        except (DeprecationWarning, ValueError):
            return None


def number(word: bytes | str, where: str) -> float:
    """One number. Raises BrokenModel, which says where it stands."""
    try:
        return float(word)
    except ValueError:
        raise BrokenModel(f"{where}: {show(word)} is not a number") from None


def show(word: bytes | str) -> str:
    """A piece of a file as a message quotes it: short, and printable whatever is in it."""
    text = word.decode("utf-8", "replace") if isinstance(word, bytes) else word
    return repr(text if len(text) <= 40 else text[:37] + "...")


def fan(polygons: Sequence[Sequence[int]]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Triangles (F, 3) of polygons of three corners or more, and the polygon (F,) that each is of."""
    triangles = [(polygon[0], polygon[k], polygon[k + 1]) for polygon in polygons for k in range(1, len(polygon) - 1)]
    source = np.repeat(np.arange(len(polygons)), [len(polygon) - 2 for polygon in polygons])
    return np.array(triangles, dtype=np.int64).reshape(-1, 3), source


def colored(colors: Floats) -> tuple[list[Look], Ints]:
    """Looks for the colours (F, 3) in 0..1 of faces, told apart in steps of 0.02, and each face's (F,)."""
    steps = np.round(np.clip(np.nan_to_num(colors), 0, 1) * 50).astype(np.int64)
    codes, rows = np.unique((steps[:, 0] * 64 + steps[:, 1]) * 64 + steps[:, 2], return_inverse=True)
    palette = np.stack([codes // 4096, codes // 64 % 64, codes % 64], axis=1) / 50
    return [Look(Material((red, green, blue))) for red, green, blue in palette.tolist()], rows.astype(np.int32)


def plain(faces: int) -> tuple[list[Look], Ints]:
    """The look of a model without colours, and each face's."""
    return [Look(GREY)], np.zeros(faces, dtype=np.int32)
