"""Category names: canonical form, aliases, meta-classes, known and novel, and how to say them.

The names live in ``assets/taxonomy.json``. Everything here is plain Python, so importing it costs
milliseconds.
"""

from __future__ import annotations

import difflib
import json
from pathlib import Path

from llava_pose.errors import UserError

_DATA = json.loads((Path(__file__).parent / "assets" / "taxonomy.json").read_text(encoding="utf-8"))

META_CLASSES: dict[str, tuple[str, ...]] = {name: tuple(members) for name, members in _DATA["meta_classes"].items()}
CATEGORIES: tuple[str, ...] = tuple(sorted(name for members in META_CLASSES.values() for name in members))
KNOWN: frozenset[str] = frozenset(_DATA["known"])
"""The categories the open-vocabulary task trains on; every other category is novel there."""

_META_CLASS_OF = {name: meta for meta, members in META_CLASSES.items() for name in members}


def spoken_name(category: str) -> str:
    """The name as people say it, without an article: ``diningtable`` is ``dining table``.

    A category of the caller's own, outside the taxonomy, is spoken with its underscores as spaces.
    """
    return _DATA["spoken"].get(category, category.replace("_", " "))


def with_article(category: str) -> str:
    """The spoken name as one thing in a sentence: ``a car``, ``an aeroplane``, ``a pair of scissors``."""
    if category in _DATA["with_article"]:
        return _DATA["with_article"][category]
    name = spoken_name(category)
    return f"{'an' if name[0].lower() in 'aeiou' else 'a'} {name}"


def _key(name: str) -> str:
    """The form under which spellings of one name meet: lower case, words joined by underscores."""
    return "_".join(name.casefold().replace("-", " ").replace("_", " ").split())


_CANONICAL = {
    **{_key(spoken_name(name)): name for name in CATEGORIES},
    **_DATA["aliases"],
    **{name: name for name in CATEGORIES},
}


def resolve(name: str) -> str:
    """The canonical name behind any spelling: canonical, alias or spoken, in any case.

    Raises:
        UserError: no category has this name; the message offers close matches.
    """
    canonical = _CANONICAL.get(_key(name))
    if canonical is None:
        raise UserError(f"category: unknown name {name!r}{_suggestion(name)}")
    return canonical


def _suggestion(name: str) -> str:
    spellings = difflib.get_close_matches(_key(name), _CANONICAL, n=5, cutoff=0.6)
    matches = list(dict.fromkeys(_CANONICAL[spelling] for spelling in spellings))[:3]
    return f"; did you mean {' or '.join(matches)}?" if matches else ""


def meta_class(category: str) -> str:
    """The meta-class (``vehicles``, ``furniture``, …) of a canonical category name.

    Raises:
        UserError: the category is not in the taxonomy.
    """
    if category not in _META_CLASS_OF:
        raise UserError(f"category: unknown name {category!r}{_suggestion(category)}")
    return _META_CLASS_OF[category]


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
