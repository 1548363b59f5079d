"""The user's own models: ``{folder}/{category}/*.{off,obj,ply,glb,stl}``, z up and the front towards -y."""

from __future__ import annotations

import hashlib
import io
import logging
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data_prep.shapes.mesh import Ints, Material, Shape, make_shape
from llava_pose.errors import UserError
from llava_pose.taxonomy import resolve

SUFFIXES = (".glb", ".obj", ".off", ".ply", ".stl")


def find_meshes(folder: Path) -> dict[str, list[Path]]:
    """The mesh files of each category, by canonical name and both sorted.

    Raises UserError: no such folder, a sub-folder whose name is no category, or no mesh at all.
    """
    if not folder.is_dir():
        raise UserError(f"--meshes {folder}: no such folder")
    found: dict[str, list[Path]] = {}
    for child in sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")):
        try:
            category = resolve(child.name)
        except UserError as error:
            raise UserError(f"--meshes {child}: {error}") from None
        files = sorted(path for path in child.iterdir() if path.suffix.lower() in SUFFIXES and path.is_file())
        for path in files:
            if not path.resolve().is_relative_to(folder.resolve()):
                raise UserError(f"--meshes {path}: a link out of the folder")
        found.setdefault(category, []).extend(files)
    found = {category: files for category, files in sorted(found.items()) if files}
    if not found:
        raise UserError(f"--meshes {folder}: no {{category}}/*.{{{','.join(s[1:] for s in SUFFIXES)}}} in it")
    return found


def digest(meshes: dict[str, list[Path]]) -> str:
    """SHA-256 of the categories and the files' contents: tells one set of meshes from another."""
    total = hashlib.sha256()
    for category, files in meshes.items():
        for path in files:
            total.update(f"{category}/{path.name}\0".encode())
            total.update(hashlib.sha256(path.read_bytes()).digest())
    return total.hexdigest()


def _face_colors(mesh: Any) -> NDArray[np.uint8]:
    """RGB (F, 3) of a trimesh; grey where the file gives none."""
    visual = mesh.visual.to_color() if mesh.visual.kind == "texture" else mesh.visual
    if visual.kind is None:
        return np.full((len(mesh.faces), 3), 160, dtype=np.uint8)
    return np.asarray(visual.face_colors)[:, :3]


def load_shape(path: Path) -> Shape:
    """Read, centre and scale one model, each face in the colour its material, texture or vertices give it.

    Textures and material files are read from the model's own folder and nowhere else. Raises UserError when the file
    is no readable mesh.
    """
    import trimesh  # here, since only this function needs its half second

    logging.getLogger("trimesh").setLevel(logging.ERROR)
    try:
        mesh = trimesh.load_mesh(
            io.BytesIO(path.read_bytes()),
            file_type=path.suffix[1:].lower(),
            resolver=trimesh.resolvers.FilePathResolver(str(path)),
        )
        used, places = np.unique(np.asarray(mesh.faces), return_inverse=True)
        vertices, faces = np.asarray(mesh.vertices, dtype=np.float64)[used], places.reshape(-1, 3).astype(np.int32)
        if not len(faces) or not np.isfinite(vertices).all():
            raise ValueError("no faces, or a vertex that is not finite")
        palette, inverse = np.unique(_face_colors(mesh), axis=0, return_inverse=True)
        rows: Ints = np.asarray(inverse, dtype=np.int32).ravel()
        materials = [Material((red / 255, green / 255, blue / 255)) for red, green, blue in palette.tolist()]
        flat = np.zeros(len(faces), dtype=bool)
        return make_shape(vertices, faces, flat, rows, materials)
    except Exception as error:  # trimesh's readers raise whatever a broken file leads them to
        raise UserError(f"--meshes {path}: not a readable mesh ({type(error).__name__}: {error})") from error
