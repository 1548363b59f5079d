"""Which way the user's models face and stand, where that is not -y and z: ``+x``, ``-z,up=y``.

Told by ``--front WHAT=AXES`` or by a file ``axes.yaml`` in the folder of models, with ``WHAT: AXES`` a line. WHAT is a
category, a file (``chair/old.obj``), or all files of a format (``*.glb``); the closer one counts, and the command line
before the file.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from data_prep.rendering.shapes.mesh import Floats
from llava_pose import taxonomy
from llava_pose.errors import UserError

FILE_NAME = "axes.yaml"
_AXIS = re.compile(r"([+-]?)([xyz])")


@dataclass(frozen=True)
class Axes:
    """The axes of a file along which its model's front and top lie, as unit vectors."""

    front: tuple[int, int, int] = (0, -1, 0)
    up: tuple[int, int, int] = (0, 0, 1)

    def turn(self, points: Floats) -> Floats:
        """Points (N, 3) of the file in the canonical frame, z up and the front towards -y: exact, axes change places
        and signs."""
        front, up = np.array(self.front), np.array(self.up)
        matrix = np.stack([np.cross(up, front), -front, up])
        source = np.abs(matrix).argmax(axis=1)
        return points[:, source] * matrix[np.arange(3), source]


CANONICAL = Axes()


def parse_axes(text: str, where: str) -> Axes:
    """Axes written as ``+x`` (the front; z is up) or ``-z,up=y``. Raises UserError."""
    found = {"front": "-y", "up": "+z"}
    for part in text.split(","):
        key, _, value = part.strip().rpartition("=")
        if (key or "front") not in found:
            raise UserError(f"{where}: {text!r}: {key!r} is neither front nor up")
        found[key or "front"] = value.strip()
    vectors = {key: _vector(value, f"{where}: {text!r}: {key}") for key, value in found.items()}
    if np.abs(vectors["front"]).argmax() == np.abs(vectors["up"]).argmax():
        raise UserError(f"{where}: {text!r}: front {found['front']} and up {found['up']} lie along one axis")
    return Axes(**vectors)


def _vector(text: str, where: str) -> tuple[int, int, int]:
    match = _AXIS.fullmatch(text.lower())
    if match is None:
        raise UserError(f"{where}: {text!r} is no axis (x, -y, +z, ...)")
    sign = -1 if match[1] == "-" else 1
    x, y, z = (sign * (match[2] == axis) for axis in "xyz")
    return x, y, z


@dataclass(frozen=True)
class AxesTable:
    """What the user said: axes by category, by ``category/file`` and by suffix."""

    entries: dict[str, Axes] = field(default_factory=dict)

    def of(self, category: str, path: Path) -> Axes:
        """The axes of a category's file."""
        for key in (f"{category}/{path.name}", category, f"*{path.suffix.lower()}"):
            if key in self.entries:
                return self.entries[key]
        return CANONICAL

    def names(self, category: str, path: Path) -> bool:
        """Whether anything was said of a file, or of others like it."""
        return any(k in self.entries for k in (f"{category}/{path.name}", category, f"*{path.suffix.lower()}"))


def read_axes(folder: Path, options: Iterable[str], meshes: dict[str, list[Path]]) -> AxesTable:
    """What ``axes.yaml`` in the folder and the command line's ``WHAT=AXES`` say of ``meshes``, files by category.

    Raises UserError on a mistake in either, and where WHAT is none of the categories, files and formats at hand.
    """
    entries: dict[str, Axes] = {}
    path = folder / FILE_NAME
    for key, value in _file_entries(path).items():
        entries[_known(key, meshes, str(path))] = parse_axes(value, f"{path}: {key}")
    for option in options:
        key, equals, value = option.partition("=")
        if not equals:
            raise UserError(f"--front {option}: write it as CATEGORY=AXES, such as chair=+x or car=-z,up=y")
        entries[_known(key.strip(), meshes, "--front")] = parse_axes(value, f"--front {key}")
    return AxesTable(entries)


def _file_entries(path: Path) -> dict[str, str]:
    if not path.exists():
        return {}
    import yaml  # here: few folders have the file

    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(f"{path}: cannot be read as YAML: {error}") from error
    if not isinstance(content, dict):
        raise UserError(f"{path}: not a mapping of categories to axes")
    for key, value in content.items():
        if not isinstance(key, str) or not isinstance(value, str):
            raise UserError(f"{path}: {key}: {value!r} are no axes (write +x, or '-z,up=y')")
    return content


def _known(key: str, meshes: dict[str, list[Path]], where: str) -> str:
    """The canonical form of WHAT. Raises UserError where no file at hand is meant."""
    if key.startswith("*."):
        if any(path.suffix.lower() == key[1:].lower() for files in meshes.values() for path in files):
            return key.lower()
        raise UserError(f"{where}: {key}: no such file among the models")
    name, _, file = key.partition("/")
    try:
        category = taxonomy.resolve(name)
    except UserError as error:
        raise UserError(f"{where}: {error}") from error
    files = meshes.get(category, [])
    if not files or (file and file not in [path.name for path in files]):
        raise UserError(f"{where}: {key}: no such {'file' if file else 'category'} among the models")
    return f"{category}/{file}" if file else category
