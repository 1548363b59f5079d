"""Category names: canonical form, aliases, meta-classes, known and novel, and how to say them.

The built-in names live in ``assets/taxonomy.json``. A file (``taxonomy_file``) adds categories and says other things of
the built-in ones; it takes effect in the whole process, from one of two sides:

- the user names it, by ``--taxonomy FILE`` or the environment variable ``LLAVA_POSE_TAXONOMY`` (``use_file``);
- a data or model folder carries it, as ``taxonomy.json``, from whoever wrote the folder (``use_folder``).

A worker process is handed the taxonomy of its parent: ``activate`` as its initialiser, with ``active()``. Everything
here is plain Python, so importing it costs milliseconds.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path

from llava_pose.errors import UserError
from llava_pose.taxonomy_file import (
    Category,
    Taxonomy,
    default_article,
    default_plural,
    default_spoken,
    did_you_mean,
    difference,
    extended,
    key,
    read_extension,
)

ENVIRONMENT = "LLAVA_POSE_TAXONOMY"
"""The environment variable that may name a taxonomy file."""
FILE_NAME = "taxonomy.json"
"""The taxonomy file in a data or model folder."""


def _built_in() -> Taxonomy:
    asset = Path(__file__).parent / "assets" / FILE_NAME
    data = json.loads(asset.read_text(encoding="utf-8"))
    categories = {}
    for meta, members in data["meta_classes"].items():
        for name in members:
            spoken = data["spoken"].get(name, default_spoken(name))
            article = data["with_article"].get(name, default_article(spoken))
            aliases = tuple(alias for alias, of in data["aliases"].items() if of == name)
            plural = default_plural(article)
            categories[name] = Category(name, meta, spoken, article, plural, aliases, name in data["known"])
    return Taxonomy(dict(sorted(categories.items())))


BUILT_IN = _built_in()
_active: Taxonomy | None = None  # until it is asked for: a wrong file in the environment is told of then


def active() -> Taxonomy:
    """The taxonomy in effect. Raises UserError when the environment names a wrong file."""
    global _active
    if _active is None:
        named = os.environ.get(ENVIRONMENT)
        _active = extended(BUILT_IN, read_extension(named) if named else None, {})
    return _active


def activate(taxonomy: Taxonomy | None) -> None:
    """Put a taxonomy into effect, such as that of a parent process; None: forget every file in use."""
    global _active
    _active = taxonomy


def use_file(path: str | Path) -> None:
    """Lay the file that the user names over the taxonomy, in place of an earlier one or the environment's.

    Raises:
        UserError: the file is wrong, or says how to speak of a category otherwise than a folder in use; the message
            names file, field and value.
    """
    activate(extended(BUILT_IN, read_extension(path), _active.folders if _active else {}))


def use_folder(folder: str | Path) -> None:
    """Lay the ``taxonomy.json`` of a data or model folder over the taxonomy, if there is one.

    Raises:
        UserError: the file is wrong, or contradicts that of another folder in use; the message names file, field and
            value.
    """
    path, before = Path(folder) / FILE_NAME, active()
    if path.is_file():
        folders = {**before.folders, str(path.resolve()): read_extension(path)}
        activate(extended(BUILT_IN, before.explicit, folders))


def file_text() -> str | None:
    """What a folder must carry as ``taxonomy.json`` to be understood elsewhere; None where the built-in one will do."""
    changes = difference(active(), BUILT_IN)
    return json.dumps({"categories": changes}, indent=1, ensure_ascii=False) + "\n" if changes else None


def write_into(folder: Path) -> None:
    """Leave ``file_text`` in a folder, whole or not at all; where there is none, leave no earlier one either."""
    path, text = folder / FILE_NAME, file_text()
    if text is None:
        path.unlink(missing_ok=True)
        return
    partial = path.with_name(f".{path.name}.partial-{os.getpid()}")
    try:
        partial.write_text(text, encoding="utf-8")
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def categories() -> tuple[str, ...]:
    """The canonical names of all categories, in alphabetical order."""
    return tuple(active().categories)


def meta_classes() -> dict[str, tuple[str, ...]]:
    """The categories of each meta-class."""
    members: dict[str, list[str]] = {}
    for category in active().categories.values():
        members.setdefault(category.meta_class, []).append(category.name)
    return {meta: tuple(names) for meta, names in sorted(members.items())}


def known() -> frozenset[str]:
    """The categories the open-vocabulary task trains on; every other category is novel there."""
    return frozenset(category.name for category in active().categories.values() if category.known)


def spoken_name(category: str) -> str:
    """The name as people say it, without an article: ``diningtable`` is ``dining table``.

    What is no category is spoken with its underscores as spaces.
    """
    found = active().categories.get(category)
    return found.spoken if found else default_spoken(category)


def with_article(category: str) -> str:
    """The spoken name as one thing in a sentence: ``a car``, ``an aeroplane``, ``a pair of scissors``."""
    found = active().categories.get(category)
    return found.with_article if found else default_article(default_spoken(category))


def plural(category: str) -> str:
    """Several of them: ``cars``, ``pairs of scissors``, ``bicycles built for two``."""
    found = active().categories.get(category)
    return found.plural if found else default_plural(with_article(category))


def resolve(name: str) -> str:
    """The canonical name behind any spelling: canonical, alias or spoken, in any case.

    Raises:
        UserError: no category has this name; the message offers close matches.
    """
    canonical = active().canonical.get(key(name))
    if canonical is None:
        raise _unknown(name)
    return canonical


def _unknown(name: str) -> UserError:
    return UserError(
        f"category: unknown name {name!r}{did_you_mean(name, active().canonical)} "
        f"(categories of your own: --taxonomy FILE, or {ENVIRONMENT}=FILE)"
    )


def meta_class(category: str) -> str:
    """The meta-class (``vehicles``, ``furniture``, …) of a canonical category name.

    Raises:
        UserError: the category is not in the taxonomy.
    """
    found = active().categories.get(category)
    if found is None:
        raise _unknown(category)
    return found.meta_class


def check_canonical(names: Iterable[str], source: str | Path) -> None:
    """Make sure that every name is a category's canonical one, as the objects of ``source`` must have.

    Raises:
        UserError: one is not; the message names the source.
    """
    defined = active().categories
    for name in names:
        if name not in defined:
            raise UserError(f"{source}: {_unknown(name)}")


def read_category_file(path: str | Path) -> list[str]:
    """Read canonical category names, in file order, from a UTF-8 text file with one name a line.

    Empty lines and everything after ``#`` are ignored.

    Raises:
        UserError: the file is missing, unreadable, not UTF-8 or holds no name, or a line holds an unknown
            name or one that an earlier line already gave; the message names file, line and value.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: category file is not UTF-8 text (byte {error.start})") from error
    except OSError as error:
        raise UserError(f"{path}: cannot read category file: {error.strerror}") from error
    active()  # A mistake in the environment's file is none in this one.
    first_line: dict[str, int] = {}
    for number, line in enumerate(lines, start=1):
        name = line.split("#", 1)[0].strip()
        if not name:
            continue
        try:
            category = resolve(name)
        except UserError as error:
            raise UserError(f"{path}:{number}: {error}") from error
        if category in first_line:
            raise UserError(f"{path}:{number}: category: {name!r} repeats line {first_line[category]}")
        first_line[category] = number
    if not first_line:
        raise UserError(f"{path}: category file holds no name")
    return list(first_line)
