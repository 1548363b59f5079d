"""Binary glTF, read by trimesh: a scene's transforms, several materials, embedded textures."""

from __future__ import annotations

import io
import json
import logging
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data_prep.rendering.cad.model import BrokenModel, Look, Model, colored, plain
from data_prep.rendering.cad.textures import shrunk
from data_prep.rendering.shapes.mesh import Floats, Ints, Material

_NOT_READ = ("KHR_draco_mesh_compression", "EXT_meshopt_compression", "KHR_mesh_quantization")


def read_glb(data: bytes) -> Model:
    """The model in a GLB file. Raises BrokenModel."""
    notes = _check_container(data)
    import trimesh  # here: the other formats do without its second of loading

    logging.getLogger("trimesh").setLevel(logging.ERROR)
    try:
        scene = trimesh.load_scene(io.BytesIO(data), file_type="glb")
        placed = [(scene.geometry[name], matrix) for matrix, name in map(scene.graph.get, scene.graph.nodes_geometry)]
        meshes = [(mesh, matrix) for mesh, matrix in placed if isinstance(mesh, trimesh.Trimesh) and len(mesh.faces)]
        corners = [mesh.vertices @ matrix[:3, :3].T + matrix[:3, 3] for mesh, matrix in meshes]
    except Exception as error:  # trimesh raises whatever a broken file leads it to
        raise BrokenModel(f"{type(error).__name__}: {error}") from error
    for mesh, _ in meshes:
        if mesh.faces.min() < 0 or mesh.faces.max() >= len(mesh.vertices):
            raise BrokenModel(f"indices up to {mesh.faces.max()}, but its mesh has {len(mesh.vertices)} vertices")
    if not meshes:
        return Model(np.zeros((0, 3)), np.zeros((0, 3), dtype=np.int64), *plain(0), notes=notes)
    starts = np.cumsum([0, *map(len, corners)])
    faces = [mesh.faces + start for (mesh, _), start in zip(meshes, starts[:-1], strict=True)]
    palette = _Palette(notes)
    rows = [palette.rows(mesh) for mesh, _ in meshes]
    uv = [_corner_uv(mesh) for mesh, _ in meshes] if palette.textured else None
    return Model(
        np.concatenate(corners),
        np.concatenate(faces),
        palette.looks,
        np.concatenate(rows),
        None if uv is None else np.concatenate(uv),
        notes,
    )


def _check_container(data: bytes) -> list[str]:
    """The header and the JSON, whose mistakes say most about a file: what to note. Raises BrokenModel."""
    version, length, size = (int.from_bytes(data[k : k + 4], "little") for k in (4, 8, 12))
    if data[:4] != b"glTF":
        raise BrokenModel("byte 0: no glTF header")
    if version != 2:
        raise BrokenModel(f"byte 4: glTF version {version}, not 2")
    if length != len(data):
        raise BrokenModel(f"byte 8: says {length} bytes, the file has {len(data)}")
    try:
        content = json.loads(data[20 : 20 + size])
        needed, images = content.get("extensionsRequired", []), content.get("images", [])
        outside = [image["uri"] for image in images if not image.get("uri", "data:").startswith("data:")]
    except (ValueError, AttributeError, TypeError):
        raise BrokenModel("byte 20: the JSON part cannot be read") from None
    for name in _NOT_READ:
        if name in needed:
            raise BrokenModel(f"extensionsRequired: {name} is not read; export without it")
    return [f"texture {name!r} lies outside the file and is not read" for name in outside]


class _Palette:
    """The looks of a scene's meshes. Meshes that share a material share a look."""

    def __init__(self, notes: list[str]) -> None:
        self.looks: list[Look] = []
        self.textured = False
        self._notes, self._of_material = notes, dict[int, int]()

    def rows(self, mesh: Any) -> Ints:
        """The look (F,) of a mesh's faces."""
        visual = mesh.visual
        if visual.kind == "texture":
            if id(visual.material) not in self._of_material:
                self._of_material[id(visual.material)] = len(self.looks)
                self.looks.append(self._look(visual.material))
            return np.full(len(mesh.faces), self._of_material[id(visual.material)], dtype=np.int32)
        if visual.kind is None:
            looks, rows = plain(len(mesh.faces))
        else:
            looks, rows = colored(np.asarray(visual.face_colors)[:, :3] / 255)
        self.looks += looks
        return rows + np.int32(len(self.looks) - len(looks))

    def _look(self, material: Any) -> Look:
        """Of a PBR material. Its factors are linear light, colours here are for display: gamma 2, as in the shader."""
        factor = [1.0] * 3 if material.baseColorFactor is None else np.asarray(material.baseColorFactor)[:3] / 255
        red, green, blue = np.sqrt(np.clip(factor, 0, 1)).tolist()
        rough = 1.0 if material.roughnessFactor is None else float(material.roughnessFactor)
        metal = 0.0 if material.metallicFactor is None else float(material.metallicFactor)
        shine = 1 - min(max(rough, 0.0), 1.0)
        plain_look = Look(
            Material(
                (red, green, blue),
                specular=0.05 + 0.4 * shine,
                gloss=5 * math.exp(3.5 * shine),
                reflect=0.35 * shine * min(max(metal, 0.0), 1.0),
            )
        )
        if material.baseColorTexture is None:
            return plain_look
        try:
            texture = shrunk(material.baseColorTexture)
        except Exception as error:  # whatever a broken picture leads its decoder to
            self._notes.append(f"an embedded texture cannot be read ({type(error).__name__}: {error})")
            return plain_look
        self.textured = True
        tinted = np.round(texture * np.array([red, green, blue])).astype(np.uint8)
        return plain_look._replace(texture=tinted)


def _corner_uv(mesh: Any) -> Floats:
    """Texture coordinates (F, 3, 2), v upwards."""
    uv: NDArray[Any] | None = mesh.visual.uv if mesh.visual.kind == "texture" else None
    return np.zeros((len(mesh.faces), 3, 2)) if uv is None else uv[mesh.faces]
