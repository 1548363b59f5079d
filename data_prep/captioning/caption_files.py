"""Captions that lie in files: beside ImageNet3D's images, or anywhere, by image.

Any of these is read below the data set's root, and any such folder or file by ``captions.py --writer file``:

    captions/{category}/{name}.txt      the caption
    captions/{category}/{name}.json     the caption as a string, or {"caption": "…"}
    captions.json                       {"{category}/{name}": "…"}, or a list of {"image_id": …, "caption": …}
    captions.jsonl                      {"image_id": …, "caption": …} a line

An image is named with or without its category, its suffix and a leading images/; ``image``, ``file_name``, ``name`` and
``id`` do for ``image_id``. How marks find their objects: ``caption_align``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from data_prep.captioning.caption_align import aligned
from llava_pose.errors import UserError
from llava_pose.scene import PosedObject

_NAME_FIELDS = ("image_id", "image", "file_name", "name", "id")
_SUFFIX = re.compile(r"\.(jpe?g|png|npz)$", re.IGNORECASE)


def released_caption(
    root: Path, folder: str, name: str, objects: Sequence[PosedObject]
) -> tuple[str, tuple[int, ...]] | None:
    """The caption that lies beside the data for this image, and the ``object_id`` of each of its ``<pose>`` marks.

    ``objects``: all that the image's annotation has and the data set's rules admit, in its order. None where no caption
    lies there.

    Raises:
        UserError: a file cannot be read, or a mark fits no object; the message names file and mark.
    """
    for path in caption_places(root):
        found = caption_text(path, folder, name)
        if found is not None:
            return aligned(found[1], objects, found[0])
    return None


def caption_places(root: Path) -> list[Path]:
    """The folder and files of captions that lie below a data set's root."""
    return [path for name in ("captions", "captions.json", "captions.jsonl") if (path := root / name).exists()]


def caption_text(path: Path, folder: str, name: str) -> tuple[str, str] | None:
    """Where an image's caption stands, for messages, and the caption as it is there; None where there is none.

    ``path``: a file of many images' captions, or a folder with a file an image.

    Raises:
        UserError: a file cannot be read.
    """
    if not path.is_dir():
        return _in_table(path, folder, name)
    files = (path / folder / f"{name}{suffix}" for suffix in (".txt", ".json"))
    return next(((str(file), _single(file)) for file in files if file.is_file()), None)


def _single(path: Path) -> str:
    text = _text(path)
    if path.suffix == ".txt":
        return _checked(text.strip(), str(path))
    value = _parsed(text, str(path))
    return _checked(value.get("caption") if isinstance(value, dict) else value, str(path))


def _in_table(path: Path, folder: str, name: str) -> tuple[str, str] | None:
    try:
        changed = path.stat().st_mtime_ns
    except OSError as error:
        raise UserError(f"{path}: captions cannot be read: {error.strerror}") from error
    table = _table(path, changed)
    return table.get(f"{folder}/{name}") or table.get(name)


@lru_cache(maxsize=4)
def _table(path: Path, changed: int) -> dict[str, tuple[str, str]]:
    """Every caption of a file by its image, with the place where it stands. ``changed``: when the file was written."""
    table: dict[str, tuple[str, str]] = {}
    for where, image, caption in _entries(path):
        if not isinstance(image, str) or not image.strip():
            raise UserError(f"{where}: image_id: expected the name of an image, got {image!r:.60}")
        key = _SUFFIX.sub("", image.strip()).removeprefix("./").removeprefix("images/")
        if key in table:
            raise UserError(f"{where}: image_id: {image!r} was there before, at {table[key][0]}")
        table[key] = where, _checked(caption, where)
    return table


def _entries(path: Path) -> Iterator[tuple[str, Any, Any]]:
    """Where each caption of a file stands, its image and itself, neither checked."""
    text = _text(path)
    if path.suffix == ".jsonl":
        for number, line in enumerate(text.splitlines(), start=1):
            if line.strip():
                yield from _fields(_parsed(line, f"{path}:{number}"), f"{path}:{number}")
        return
    value = _parsed(text, str(path))
    if isinstance(value, list):
        for number, entry in enumerate(value):
            yield from _fields(entry, f"{path}: [{number}]")
    elif isinstance(value, dict):
        for image, entry in value.items():
            caption = entry.get("caption") if isinstance(entry, dict) else entry
            yield f"{path}: {image!r}", image, caption
    else:
        raise UserError(f"{path}: expected captions by image, got {value!r:.60}")


def _fields(entry: Any, where: str) -> Iterator[tuple[str, Any, Any]]:
    name = next((name for name in _NAME_FIELDS if isinstance(entry, dict) and name in entry), None)
    if name is None:
        raise UserError(f"{where}: expected image_id and caption, got {entry!r:.60}")
    yield where, entry[name], entry.get("caption")


def _checked(caption: Any, where: str) -> str:
    if not isinstance(caption, str) or not caption.strip():
        raise UserError(f"{where}: caption: expected a text, got {caption!r:.60}")
    return caption


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: captions are not UTF-8 text (byte {error.start})") from error
    except OSError as error:
        raise UserError(f"{path}: captions cannot be read: {error.strerror}") from error


def _parsed(text: str, where: str) -> Any:
    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        names = dict(pairs)
        if len(names) < len(pairs):
            twice = next(name for index, (name, _) in enumerate(pairs) if name in dict(pairs[:index]))
            raise UserError(f"{where}: {twice!r} is there twice")
        return names

    try:
        return json.loads(text, object_pairs_hook=once)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{where}: not valid JSON: {error}") from error
