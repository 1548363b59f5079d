"""A folder of the user's models as the stock of a data set: which can be used, and what is wrong with the others."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from data_prep.crew import Crew
from data_prep.rendering.axes import AxesTable
from data_prep.rendering.meshfiles import Found, MeshFile, digest, keep_shape
from llava_pose.errors import UserError

_SHOWN = 20  # notes; the number of the others follows


@dataclass(frozen=True)
class Stock:
    """The models that can be used. ``names``: by category, what each is kept under; ``digest``: of them all;
    ``skipped``: a line for each of the others."""

    names: dict[str, tuple[str, ...]]
    digest: str
    skipped: tuple[str, ...]


def take_stock(
    crew: Crew, root: Path, meshes: dict[str, list[Path]], axes: AxesTable, store: Path, on_error: str
) -> Stock:
    """Read all models of the folder ``root``, keep their shapes in ``store``, and say which can be used.

    All are read before a mistake in one is told of, so that every bad file is named at once.

    Raises UserError when one cannot be used and ``on_error`` is ``stop``, or when a category has none left.
    """
    files = [MeshFile(category, path, axes.of(category, path)) for category, paths in meshes.items() for path in paths]
    found: dict[int, Found] = {}
    with tqdm(total=len(files), unit="model", disable=None) as progress:
        for index, one in crew.run(_keep, ((k, mesh, root, store) for k, mesh in enumerate(files))):
            found[index] = one
            progress.update()
    skipped = tuple(found[k].error for k in range(len(files)) if found[k].error)
    if skipped and on_error == "stop":
        _tell("cannot be used", skipped[1:])
        others = f" (and {len(skipped) - 1} more, named above)" if len(skipped) > 1 else ""
        raise UserError(f"{skipped[0]}{others}; --on-error skip leaves out what cannot be used")
    _tell("skipped", skipped)
    usable = [(mesh, found[k]) for k, mesh in enumerate(files) if not found[k].error]
    notes = [note for _, one in usable for note in one.notes]
    if any(mesh.path.suffix.lower() == ".glb" and not axes.names(mesh.category, mesh.path) for mesh, _ in usable):
        notes.insert(0, "GLB files are taken as z up; where yours are y up, as glTF has it: --front '*.glb=+z,up=y'")
    keys: dict[str, dict[str, Found]] = {category: {} for category in meshes}
    first: dict[str, MeshFile] = {}
    for mesh, one in usable:
        twin = first.setdefault(one.key, mesh)
        if twin is not mesh:
            # In one category it would be in train and val.
            again = "used once" if one.key in keys[mesh.category] else "of another category"
            notes.append(f"{mesh.path}: the same model as {twin.path}, {again}")
        keys[mesh.category].setdefault(one.key, one)
    _tell("note", notes[:_SHOWN])
    if len(notes) > _SHOWN:
        print(f"note: and {len(notes) - _SHOWN} more like these", file=sys.stderr)
    for category, members in keys.items():
        if not members:
            raise UserError(f"--meshes {root}: {category}: none of its {len(meshes[category])} models can be used")
    names = {category: tuple(one.name for one in members.values()) for category, members in keys.items()}
    return Stock(names, digest({category: tuple(members) for category, members in keys.items()}), skipped)


def _keep(index: int, mesh: MeshFile, root: Path, store: Path) -> tuple[int, Found]:
    return index, keep_shape(mesh, root, store)


def _tell(what: str, lines: Iterable[str]) -> None:
    for line in lines:
        print(f"{what}: {line}", file=sys.stderr)
