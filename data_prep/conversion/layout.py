"""ImageNet3D's folders: which images its lists name, and where their files lie."""

from __future__ import annotations

import os
import re
from pathlib import Path

from data_prep.conversion.source import SPLITS, Problem, Task
from llava_pose.errors import UserError
from llava_pose.taxonomy import resolve

_LIST_NAME = re.compile(r"(.+)_imagenet_(train|val)\.txt")
SUFFIXES = (".JPEG", ".jpg", ".jpeg", ".JPG", ".png", ".PNG")
"""How image files may end. The release has the first, copies of it and data of one's own may have others."""


def read_lists(root: Path, categories: frozenset[str] | None = None) -> tuple[dict[str, list[Task]], list[Problem]]:
    """The images of each split, by category and then in list order; of some categories only, if they are given.

    Beside them what is wrong: a list of an unknown category or that cannot be read, and lines that are no plain file
    name or a second mention. Those are left out.

    Raises:
        UserError: the root is missing, or no list names an image.
    """
    if not root.is_dir():
        raise UserError(f"{root}: root folder does not exist")
    lists = root / "lists"
    splits: dict[str, list[Task]] = {split: [] for split in SPLITS}
    problems: list[Problem] = []
    for path in sorted(lists.glob("*.txt")):
        match = _LIST_NAME.fullmatch(path.name)
        if match is None:
            continue
        folder, split = match.groups()
        try:
            category = resolve(folder)
            if categories is None or category in categories:
                splits[split] += read_list(path, folder, problems)
        except UserError as error:
            problems.append(Problem("list in error", f"{path}: {str(error).removeprefix(f'{path}: ')}"))
    if not problems and not any(splits.values()):
        raise UserError(f"{lists}: no image in any {{category}}_imagenet_train.txt or {{category}}_imagenet_val.txt")
    return splits, problems


def read_list(path: Path, folder: str, problems: list[Problem] | None = None) -> list[Task]:
    """The images of one list file, one name a line.

    Raises:
        UserError: the file cannot be read; or a line is no plain file name or a second mention, and there is no list of
            ``problems`` to add it to.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: list cannot be read: not UTF-8 text (byte {error.start})") from error
    except OSError as error:
        raise UserError(f"{path}: list cannot be read: {error.strerror}") from error
    names: dict[str, int] = {}
    for number, line in enumerate(lines, start=1):
        name = line.strip()
        problem = None
        if name in names:
            problem = Problem("image listed twice", f"{path}:{number}: {name!r} repeats line {names[name]}")
        # A list is downloaded: its lines must not lead out of the data set.
        elif name.startswith(".") or re.search(r"[/\\\0]", name):
            problem = Problem("no plain file name", f"{path}:{number}: {name!r} is not a plain file name")
        elif name:
            names[name] = number
        if problem is not None and problems is None:
            raise UserError(problem.message)
        if problem is not None and problems is not None:
            problems.append(problem)
    return [Task(folder, name) for name in names]


def paths_of(task: Task, root: Path) -> tuple[Path, Path]:
    """Where the image and its annotations lie, in either layout; the image by its usual name where it is missing."""
    # Asked for every image: texts are joined in a fifth of the time that paths take.
    if os.path.isdir(f"{root}/images"):
        images, annotations = f"{root}/images/{task.folder}/", f"{root}/annotations/{task.folder}/"
    else:
        images = annotations = f"{root}/{task.folder}/"
    image = released = f"{images}{task.name}{SUFFIXES[0]}"
    if not os.path.exists(released):
        others = (f"{images}{task.name}{suffix}" for suffix in SUFFIXES[1:])
        image = next((path for path in others if os.path.exists(path)), released)
    return Path(image), Path(f"{annotations}{task.name}.npz")
