"""Unpack the posed models of Sweet Home 3D's furniture archives for ``render.py --meshes``.

    python data_prep/sweethome3d.py --archives DIR --out MESHES [--licence cc0|cc-by|all]

DIR holds BlendSwap-CC-0.sh3f, BlendSwap-CC-BY.sh3f, KatorLegaz.sh3f and Scopia.sh3f, of which the models listed in
rendering/cad/sweethome3d.yaml are taken: those of categories of ours, each with the axes along which it lies. MESHES
gets {category}/*.obj with materials and textures, axes.yaml, and SOURCES.txt with authors and licences.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import sys
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import yaml
from tqdm import tqdm

from data_prep.rendering import axes
from llava_pose.arguments import CommandParser
from llava_pose.errors import UserError, run_cli
from llava_pose.files import write_atomic

TABLE = Path(__file__).parent / "rendering" / "cad" / "sweethome3d.yaml"
LICENCES = ("cc0", "cc-by", "all")
CATALOGUE = "PluginFurnitureCatalog.properties"
SOURCES = "SOURCES.txt"
MAX_BYTES = 64 * 1024**2
"""The most that a file of an archive may unpack to; the largest in use has 6 MB."""


@dataclass(frozen=True)
class Listed:
    """A model of the table: its archive and licence, its path there, its category, and its axes as axes.yaml has
    them."""

    archive: str
    licence: str
    path: str
    category: str
    axes: str

    @property
    def stem(self) -> str:
        """What its files are called: the archive's folder is in it, as other archives have models of the same name."""
        path = PurePosixPath(self.path)
        return f"{path.parts[0]}-{path.stem}"


def read_table(path: Path, licence: str) -> list[Listed]:
    """The models of a table that have the ``licence``, one of LICENCES."""
    found = []
    for archive, entry in yaml.safe_load(path.read_text(encoding="utf-8")).items():
        name = str(entry["licence"])
        if licence != "all" and not name.lower().startswith(licence):
            continue
        for category, models in entry["models"].items():
            found += [Listed(archive, name, model, category, facing) for model, facing in models.items()]
    return found


class Archive:
    """A furniture archive: files by their exact names, so that none leads anywhere. All methods raise UserError."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._zip = zipfile.ZipFile(path)
        except OSError as error:
            raise UserError(f"--archives {path}: cannot read: {error.strerror or error}") from error
        except zipfile.BadZipFile as error:
            raise UserError(f"--archives {path}: not a zip archive: {error}") from error
        self._names = set(self._zip.namelist())
        self._lower = {name.lower(): name for name in self._names}

    def __enter__(self) -> Archive:
        return self

    def __exit__(self, *_: object) -> None:
        self._zip.close()

    def read(self, name: str) -> bytes:
        """The content of a file that must be there."""
        if name not in self._names:
            raise UserError(f"{self.path}: {name}: not in the archive; the table is made for version 1.8 of the models")
        size = self._zip.getinfo(name).file_size
        if size > MAX_BYTES:
            raise UserError(f"{self.path}: {name}: unpacks to {size} bytes, more than the {MAX_BYTES} allowed")
        try:
            with self._zip.open(name) as stream:
                return stream.read(MAX_BYTES + 1)
        except (OSError, zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
            raise UserError(f"{self.path}: {name}: cannot be unpacked: {error}") from error

    def find(self, folder: str, name: str) -> str | None:
        """The file in a folder that another file there names, whatever folders of an author's computer stand before
        the name and however it is capitalised; None where there is none."""
        wanted = f"{folder}/{plain(name)}"
        return wanted if wanted in self._names else self._lower.get(wanted.lower())

    def creators(self) -> dict[str, str]:
        """Who made each model, by its path, as the archive's catalogue says."""
        if CATALOGUE not in self._names:
            return {}
        fields = re.findall(r"^(model|creator)#(\d+)=(.*)$", self.read(CATALOGUE).decode("latin-1"), re.MULTILINE)
        by_number: dict[str, dict[str, str]] = {}
        for key, number, value in fields:
            by_number.setdefault(number, {})[key] = value.strip()
        return {
            one["model"].lstrip("/"): one["creator"] for one in by_number.values() if {"model", "creator"} <= {*one}
        }


def plain(name: str) -> str:
    """A file's name without the folders before it."""
    return PurePosixPath(name.replace("\\", "/")).name


def unpack(archive: Archive, model: Listed) -> tuple[dict[str, bytes], list[str]]:
    """The files of a model by the names they get, and what the model names and the archive does not have.

    All models of a category share a folder: materials and textures get the model's name before their own, and are
    called so in the files that name them. Raises UserError.
    """
    folder = str(PurePosixPath(model.path).parent)
    mesh, libraries = without_edges(archive.read(model.path))
    files, missing, materials = {}, [], []
    for library in libraries:
        found = archive.find(folder, library)
        if found is None:
            missing.append(library)
            continue
        for line in archive.read(found).decode("utf-8", "replace").splitlines():
            key, name = (*line.split(None, 1), "", "")[:2]
            if key.lower() == "map_kd" and name:  # none of the archives has options before the name
                texture = archive.find(folder, name.strip())
                if texture is None:
                    missing.append(name.strip())
                    continue
                kept = f"{model.stem}-{plain(texture)}"
                files[kept] = archive.read(texture)
                line = f"map_Kd {kept}"
            materials.append(line)
    if materials:
        mesh = f"mtllib {model.stem}.mtl\n".encode() + mesh
        files[f"{model.stem}.mtl"] = "\n".join([*materials, ""]).encode()
    return {**files, f"{model.stem}.obj": mesh}, missing


def without_edges(mesh: bytes) -> tuple[bytes, list[str]]:
    """An OBJ file without its ``mtllib`` lines, and the names in them.

    Some of the models have edges among their faces, ``f`` lines with two corners, which no reader of ours takes: they
    show nothing and are left out.
    """
    lines, libraries = [], []
    for line in mesh.replace(b"\\\r\n", b" ").replace(b"\\\n", b" ").splitlines():
        words = line.split(None, 1)
        if words[:1] == [b"mtllib"]:
            libraries += [word.decode("utf-8", "replace").strip() for word in words[1:]]
        elif words[:1] != [b"f"] or len(line.split()) > 3:
            lines.append(line)
    return b"\n".join([*lines, b""]), libraries


def unpack_all(archives: Path, models: Sequence[Listed], out: Path) -> list[str]:
    """Write the models, ``axes.yaml`` and ``SOURCES.txt`` into a new folder; the notes on what is missing.

    Raises UserError.
    """
    facing, sources, notes = {}, [], []
    with tqdm(total=len(models), unit="model", disable=None) as progress:
        for name in dict.fromkeys(model.archive for model in models):
            with Archive(archives / name) as archive:
                creators = archive.creators()
                for model in (model for model in models if model.archive == name):
                    files, missing = unpack(archive, model)
                    for file, content in files.items():
                        write_atomic(out / model.category / file, content)
                    place = f"{model.category}/{model.stem}.obj"
                    facing[place] = model.axes
                    author = creators.get(model.path, "unknown")
                    sources.append(f"{place}: {model.path} of {name}, by {author}, {model.licence}")
                    notes += [f"{place}: {file!r} is not in the archive" for file in missing]
                    progress.update()
    write_atomic(out / axes.FILE_NAME, yaml.safe_dump(facing))
    write_atomic(out / SOURCES, "\n".join([*sources, ""]))
    return notes


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line. Raises UserError."""
    parser = CommandParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--archives", type=Path, required=True, help="folder of the .sh3f files")
    parser.add_argument("--out", type=Path, required=True, help="folder to write (new or empty)")
    parser.add_argument("--licence", choices=LICENCES, default="all", help="only models under it (default: all)")
    arguments = parser.parse_args(argv)
    out = arguments.out
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise UserError(f"--out {out}: not a new or empty folder")
    return arguments


def main(argv: Sequence[str] | None = None) -> None:
    """Unpack what the command line asks for; the folder is whole or not there. Raises UserError."""
    arguments = parse_arguments(argv)
    models, out = read_table(TABLE, arguments.licence), arguments.out
    partial = out.with_name(f".{out.name}.{os.getpid()}.partial")
    try:
        notes = unpack_all(arguments.archives, models, partial)
        os.replace(partial, out)
    except OSError as error:
        raise UserError(f"--out {out}: cannot write ({error.strerror})") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    for note in dict.fromkeys(notes):
        print(f"note: {note}", file=sys.stderr)
    categories = len({model.category for model in models})
    print(f"{out}: {len(models)} models of {categories} categories; authors and licences are in {SOURCES}")


if __name__ == "__main__":
    run_cli(main)
