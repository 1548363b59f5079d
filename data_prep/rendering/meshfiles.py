"""The user's own models, ``{folder}/{category}/*.{off,obj,ply,glb,stl}``: found, read once, and kept for the renderer.

Reading a large model takes seconds, so what was read is kept while a data set is rendered, one file a model under its
content's digest: every process takes it from there, and so does a run that goes on after a stop.
"""

from __future__ import annotations

import hashlib
import io
import json
import sys
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np

from data_prep.rendering.axes import CANONICAL, Axes
from data_prep.rendering.cad import MAX_BYTES, SUFFIXES, Beside, BrokenModel, finish, read_model
from data_prep.rendering.shapes.mesh import Shape, Skin
from llava_pose import taxonomy
from llava_pose.errors import UserError
from llava_pose.files import write_atomic

_FORM = "1"  # of the kept files; another one reads all models anew


@dataclass(frozen=True)
class MeshFile:
    """One model: where it lies and how its axes lie."""

    category: str
    path: Path
    axes: Axes


@dataclass(frozen=True)
class Found:
    """What came of reading a model.

    ``name``: what its shape is kept under, in that folder of models alone. ``key``: SHA-256 of all that the shape
    depends on, equal for equal models wherever they lie. ``error``: why it cannot be used, one line that names the
    file, or empty. ``notes``: lines on what it names and could not be had.
    """

    name: str = ""
    key: str = ""
    error: str = ""
    notes: tuple[str, ...] = ()


def find_meshes(folder: Path, on_error: str = "stop") -> dict[str, list[Path]]:
    """The model files of each category, by canonical name and both sorted; links out of the folder are among them.

    Raises UserError: no such folder, no model at all or, where ``on_error`` is ``stop``, a sub-folder whose name is no
    category.
    """
    if not folder.is_dir():
        raise UserError(f"--meshes {folder}: no such folder")
    found: dict[str, list[Path]] = {}
    for child in sorted(path for path in _entries(folder) if path.is_dir()):
        try:
            # Some systems store ü as u and two dots: one letter is what a name is written with.
            category = taxonomy.resolve(unicodedata.normalize("NFC", child.name))
        except UserError as error:
            if on_error == "stop":
                raise UserError(f"--meshes {child}: {error}") from None
            print(f"skipped: {child}: {error}", file=sys.stderr)
            continue
        files = [path for path in _entries(child) if path.suffix.lower() in SUFFIXES and not path.is_dir()]
        if files:
            found.setdefault(category, []).extend(sorted(files))
        else:
            print(f"note: {child}: holds no model", file=sys.stderr)
    if not found:
        raise UserError(f"--meshes {folder}: no {{category}}/*.{{{','.join(s[1:] for s in SUFFIXES)}}} in it")
    return dict(sorted(found.items()))


def _entries(folder: Path) -> list[Path]:
    """What lies in a folder, hidden things aside. Raises UserError where that cannot be seen."""
    try:
        return [path for path in folder.iterdir() if not path.name.startswith(".")]
    except OSError as error:
        raise UserError(f"--meshes {folder}: cannot be read ({error.strerror})") from error


def digest(keys: dict[str, tuple[str, ...]]) -> str:
    """SHA-256 of the categories and their models' keys: tells one set of models from another."""
    text = "".join(f"{category}\0{key}\n" for category, members in keys.items() for key in members)
    return hashlib.sha256(text.encode()).hexdigest()


def load_shape(path: Path, axes: Axes = CANONICAL) -> Shape:
    """Read, turn, centre and scale one model. Raises UserError when the file is no usable model."""
    try:
        return finish(read_model(path, _content(path), Beside(path)), axes)
    except BrokenModel as error:
        raise UserError(f"{path}: {error}") from error


def keep_shape(mesh: MeshFile, root: Path, store: Path) -> Found:
    """Read one model of the folder ``root`` and keep its shape in ``store``, unless it is there already."""
    try:
        if not mesh.path.resolve().is_relative_to(root.resolve()):
            raise BrokenModel("a link out of the folder")
        data = _content(mesh.path)
        # Models of one folder find the same materials; those of another may not.
        what = hashlib.sha256(f"{_FORM}\0{mesh.path.suffix.lower()}\0{mesh.axes}\0".encode() + data)
        name = hashlib.sha256(what.digest() + str(mesh.path.parent.relative_to(root)).encode()).hexdigest()[:32]
        kept = store / f"{name}.npz"
        lines = _lines_of(kept)
        if lines is None or lines["beside"] != _digests(mesh.path.parent, lines["beside"]):
            beside = Beside(mesh.path)
            model = read_model(mesh.path, data, beside)
            shape = finish(model, mesh.axes)
            lines = {"beside": _digests(mesh.path.parent, beside.asked), "notes": dict.fromkeys(model.notes, "")}
            write_atomic(kept, _packed(shape, lines))
    except BrokenModel as error:
        return Found(error=f"{mesh.path}: {error}")
    except MemoryError:
        return Found(error=f"{mesh.path}: takes more memory than there is")
    what.update(repr(lines["beside"]).encode())
    return Found(name, what.hexdigest(), notes=tuple(f"{mesh.path}: {note}" for note in lines["notes"]))


def kept_shape(store: Path, name: str) -> Shape:
    """A shape that ``keep_shape`` has kept."""
    with np.load(store / f"{name}.npz", allow_pickle=False) as arrays:
        skin = Skin(*(arrays[field.name] for field in fields(Skin))) if "texels" in arrays else None
        return Shape(**{field.name: arrays[field.name] for field in fields(Shape) if field.name != "skin"}, skin=skin)


def _packed(shape: Shape, lines: dict[str, dict[str, str]]) -> bytes:
    arrays = {field.name: getattr(shape, field.name) for field in fields(Shape) if field.name != "skin"}
    if shape.skin is not None:
        arrays |= {field.name: getattr(shape.skin, field.name) for field in fields(Skin)}
    file = io.BytesIO()
    np.savez(file, lines=np.array(json.dumps(lines)), **arrays)
    return file.getvalue()


def _lines_of(kept: Path) -> dict[str, dict[str, str]] | None:
    """What was kept beside a shape: the digests of the files it asked for, and the notes. None where there is none."""
    if not kept.is_file():
        return None
    with np.load(kept, allow_pickle=False) as arrays:
        return json.loads(str(arrays["lines"]))


def _digests(folder: Path, names: Iterable[str]) -> dict[str, str]:
    """SHA-256 of files in a folder, empty for one that is not there."""
    paths = {name: folder / name for name in names}
    return {
        name: hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "" for name, path in paths.items()
    }


def _content(path: Path) -> bytes:
    try:
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise BrokenModel(f"{size} bytes, more than {MAX_BYTES}: simplify it first")
        return path.read_bytes()
    except OSError as error:
        raise BrokenModel(f"cannot be read ({error.strerror})") from error
