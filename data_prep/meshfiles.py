"""The user's own models: ``{folder}/{category}/*.{off,obj,ply,glb,stl}``, z up and the front towards -y."""

from __future__ import annotations

import hashlib
import io
import logging
from pathlib import Path
from typing import Any

import numpy as np

from data_prep.shapes.mesh import Floats, Material, Shape, make_shape
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


def _face_colors(mesh: Any) -> Floats:
    """RGB (F, 3) in 0..1 of a trimesh: its texture at the corners, its material's colour, its own colours, or grey."""
    from trimesh.visual.material import PBRMaterial

    visual = mesh.visual
    if visual.kind is None:
        return np.full((len(mesh.faces), 3), 0.63)
    if visual.kind != "texture":
        return np.asarray(visual.face_colors)[:, :3] / 255
    material = visual.material
    texture = material.baseColorTexture if isinstance(material, PBRMaterial) else material.image
    if texture is None or visual.uv is None:
        return np.tile(np.asarray(material.main_color)[:3] / 255, (len(mesh.faces), 1))
    return np.asarray(material.to_color(visual.uv))[:, :3][mesh.faces].mean(axis=1) / 255


def load_shape(path: Path) -> Shape:
    """Read, centre and scale one model, each face in the colour its material, texture or vertices give it.

    Textures and material files are read from the model's own folder and nowhere else. Raises UserError when the file
    is no readable mesh.
    """
    import trimesh  # here: the parametric shapes do without its second of loading

    logging.getLogger("trimesh").setLevel(logging.ERROR)
    try:
        scene = trimesh.load_scene(
            io.BytesIO(path.read_bytes()),
            file_type=path.suffix[1:].lower(),
            resolver=trimesh.resolvers.FilePathResolver(str(path)),
        )
        meshes = [mesh for mesh in scene.dump() if isinstance(mesh, trimesh.Trimesh) and len(mesh.faces)]
        if not meshes:
            raise ValueError("no faces")
        corners = np.concatenate([np.asarray(mesh.triangles, dtype=np.float64) for mesh in meshes])
        if not np.isfinite(corners).all():
            raise ValueError("a vertex that is not finite")
        vertices, places = np.unique(corners.reshape(-1, 3), axis=0, return_inverse=True)
        colors = np.concatenate([np.round(_face_colors(mesh), 2) for mesh in meshes])
        palette, rows = np.unique(colors, axis=0, return_inverse=True)
        return make_shape(
            vertices,
            places.reshape(-1, 3).astype(np.int32),
            np.zeros(len(corners), dtype=bool),
            rows.ravel().astype(np.int32),
            [Material((red, green, blue)) for red, green, blue in palette.tolist()],
        )
    except Exception as error:  # trimesh's readers raise whatever a broken file leads them to
        raise UserError(f"--meshes {path}: not a readable mesh ({type(error).__name__}: {error})") from error
