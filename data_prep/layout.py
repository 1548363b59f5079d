"""ImageNet3D's folders: which images its lists name, and where their files lie."""

from __future__ import annotations

import re
from pathlib import Path

from data_prep.source import SPLITS, Task
from llava_pose.errors import UserError
from llava_pose.taxonomy import resolve

_LIST_NAME = re.compile(r"(.+)_imagenet_(train|val)\.txt")


def read_lists(root: Path, categories: frozenset[str] | None = None) -> dict[str, list[Task]]:
    """The images of each split, by category and then in list order; of some categories only, if they are given.

    Raises:
        UserError: the root or its lists are missing, a split is empty, a list names an unknown category, or a
            line is no plain file name or a second mention.
    """
    if not root.is_dir():
        raise UserError(f"{root}: root folder does not exist")
    lists = root / "lists"
    splits: dict[str, list[Task]] = {split: [] for split in SPLITS}
    for path in sorted(lists.glob("*.txt")):
        match = _LIST_NAME.fullmatch(path.name)
        if match is None:
            continue
        folder, split = match.groups()
        try:
            category = resolve(folder)
        except UserError as error:
            raise UserError(f"{path}: {error}") from error
        if categories is None or category in categories:
            splits[split] += read_list(path, folder)
    for split, tasks in splits.items():
        if not tasks:
            raise UserError(f"{lists}: split {split!r} is empty: no image in any {{category}}_imagenet_{split}.txt")
    return splits


def read_list(path: Path, folder: str) -> list[Task]:
    """The images of one list file, one name a line."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: list cannot be read: {error}") from error
    names: dict[str, int] = {}
    for number, line in enumerate(lines, start=1):
        name = line.strip()
        if not name:
            continue
        if name in names:
            raise UserError(f"{path}:{number}: {name!r} repeats line {names[name]}")
        # A list is downloaded: its lines must not lead out of the data set.
        if name.startswith(".") or re.search(r"[/\\\0]", name):
            raise UserError(f"{path}:{number}: {name!r} is not a plain file name")
        names[name] = number
    return [Task(folder, name) for name in names]


def paths_of(task: Task, root: Path) -> tuple[Path, Path]:
    """Where the image and its annotations lie, in either layout."""
    if (root / "images").is_dir():
        images, annotations = root / "images" / task.folder, root / "annotations" / task.folder
    else:
        images = annotations = root / task.folder
    return images / f"{task.name}.JPEG", annotations / f"{task.name}.npz"
