"""Taxonomy files: categories of one's own, and what is said otherwise of the built-in ones.

    categories:
      robot_dog:                     # lower_snake_case, as in folder names
        meta_class: robots           # one of a new category's own, or a built-in one
        spoken: robot dog            # otherwise the name with its underscores as spaces
        with_article: a robot dog    # otherwise a or an, and the spoken form
        plural: robot dogs           # otherwise by the rules of English
        aliases: [spot]              # further spellings
        known: true                  # whether the open-vocabulary task trains on it; otherwise it is novel there
      car:
        meta_class: road_vehicles    # of a built-in category only what is said is changed

A new category needs its meta-class and nothing else. YAML, or JSON where the file's name ends in ``.json``.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from .errors import UserError

FIELDS = ("meta_class", "spoken", "with_article", "plural", "aliases", "known")
GROUPING = ("meta_class", "known")
"""The fields that say how results are grouped, not what a model learnt to say."""

_IRREGULAR = {"knife": "knives", "shelf": "shelves", "mouse": "mice", "craft": "craft"}
_NOUN = re.compile(r"(.+?)((?: (?:of|for|built|in|on|with|to) .+)?)")
_NAME = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")


@dataclass(frozen=True)
class Category:
    """A category under its canonical name. ``known``: the open-vocabulary task trains on it."""

    name: str
    meta_class: str
    spoken: str
    with_article: str
    plural: str
    aliases: tuple[str, ...] = ()
    known: bool = False


@dataclass(frozen=True)
class Extension:
    """What one file says: ``fields[category][field]``. ``source`` is the file, for messages."""

    source: str
    fields: Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Taxonomy:
    """Every category by name, in alphabetical order, and the files that were laid over the built-in ones.

    ``explicit``: the file the user names; ``folders``: by their paths, those that data and model folders carry.
    """

    categories: Mapping[str, Category]
    explicit: Extension | None = None
    folders: Mapping[str, Extension] = field(default_factory=dict)

    @cached_property
    def canonical(self) -> dict[str, str]:
        """The category's name behind the ``key`` of every name, spoken form and alias."""
        return {key(said): one.name for one in self.categories.values() for _, said in _names(one)}


@dataclass
class _Said:
    """What several files say of one category, and which of them said it first."""

    source: str
    fields: dict[str, Any] = field(default_factory=dict)
    sources: dict[str, str] = field(default_factory=dict)


def key(name: str) -> str:
    """The form under which spellings of one name meet: lower case, words joined by underscores."""
    return "_".join(name.casefold().replace("-", " ").replace("_", " ").split())


def default_spoken(name: str) -> str:
    """How a category is spoken of unless a file says otherwise."""
    return name.replace("_", " ")


def default_article(spoken: str) -> str:
    """One such thing in a sentence, unless a file says otherwise."""
    return f"{'an' if spoken[0].lower() in 'aeiou' else 'a'} {spoken}"


def default_plural(with_article: str) -> str:
    """Several such things, unless a file says otherwise: ``pairs of scissors``, ``bicycles built for two``."""
    match = _NOUN.fullmatch(with_article.split(" ", 1)[-1])
    assert match is not None
    head, tail = match.groups()
    for one, several in _IRREGULAR.items():
        if head.endswith(one):
            return head.removesuffix(one) + several + tail
    if re.search(r"(s|x|z|ch|sh)$", head):
        return f"{head}es{tail}"
    if re.search(r"[^aeiou]y$", head):
        return f"{head[:-1]}ies{tail}"
    return f"{head}s{tail}"


def did_you_mean(name: str, spellings: Mapping[str, str] | Iterable[str]) -> str:
    """The end of a message about an unknown name: the names whose spellings come close, or nothing."""
    names = spellings if isinstance(spellings, Mapping) else {spelling: spelling for spelling in spellings}
    close = difflib.get_close_matches(key(name), names, n=5, cutoff=0.6)
    matches = list(dict.fromkeys(names[spelling] for spelling in close))[:3]
    return f"; did you mean {' or '.join(matches)}?" if matches else ""


# Reading one file -----------------------------------------------------------------------------------------------------


def read_extension(path: str | Path) -> Extension:
    """What a taxonomy file says, each value checked by itself.

    Raises:
        UserError: the file cannot be read, names a category twice or holds an unknown key or a value of another kind;
            the message names file, field and value.
    """
    values = _parsed(Path(path))
    if not isinstance(values, dict):
        raise UserError(f"{path}: expected a mapping with the key 'categories', got {values!r:.60}")
    for name in values:
        if name != "categories":
            raise UserError(f"{path}: unknown key {name!r}; the one key is 'categories'")
    categories = values.get("categories")
    if not isinstance(categories, dict) or not categories:
        raise UserError(f"{path}: categories: expected categories by name, got {categories!r:.60}")
    return Extension(str(path), {name: _checked(path, name, said) for name, said in categories.items()})


def _parsed(path: Path) -> Any:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: taxonomy file is not UTF-8 text (byte {error.start})") from error
    except OSError as error:
        raise UserError(f"{path}: cannot read taxonomy file: {error.strerror}") from error
    if path.suffix == ".json":
        try:
            return json.loads(text, object_pairs_hook=lambda pairs: _mapping(path, pairs))
        except (ValueError, RecursionError) as error:
            raise UserError(f"{path}: not valid JSON: {error}") from error
    import yaml  # here: whoever needs no YAML file is spared its loading

    try:
        node = yaml.compose(text, yaml.SafeLoader)
        _refuse_repeats(path, node)
        return yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise UserError(f"{path}: not valid YAML: {error}") from error


def _mapping(path: Path, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    names = [name for name, _ in pairs]
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"{path}: {name!r} is there twice")
    return dict(pairs)


def _refuse_repeats(path: Path, node: Any) -> None:
    """Refuse a key that a YAML mapping holds twice, of which reading it would keep the last without a word."""
    import yaml

    if isinstance(node, yaml.MappingNode):
        lines: dict[str, int] = {}
        for name, value in node.value:
            line, said = name.start_mark.line + 1, str(name.value)
            if said in lines:
                raise UserError(f"{path}:{line}: {said!r} is there twice, first on line {lines[said]}")
            lines[said] = line
            _refuse_repeats(path, value)


def _checked(path: str | Path, name: Any, said: Any) -> dict[str, Any]:
    place = f"{path}: categories.{name}"
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        better = key(name) if isinstance(name, str) else ""
        hint = f" (such as {better})" if _NAME.fullmatch(better) else ""
        raise UserError(f"{path}: categories: {name!r} is not a name in lower_snake_case{hint}")
    if not isinstance(said, dict):
        raise UserError(f"{place}: expected fields ({', '.join(FIELDS)}), got {said!r:.60}")
    for entry, value in said.items():
        if entry not in FIELDS:
            raise UserError(f"{place}: unknown field {entry!r}; the fields are {', '.join(FIELDS)}")
        _check_value(f"{place}.{entry}", entry, value)
    return dict(said)


def _check_value(place: str, entry: str, value: Any) -> None:
    if entry == "known":
        if not isinstance(value, bool):
            raise UserError(f"{place}: expected true or false, got {value!r:.60}")
    elif entry == "aliases":
        if not isinstance(value, list):
            raise UserError(f"{place}: expected a list of names, got {value!r:.60}")
        for alias in value:
            _check_words(place, alias)
    elif entry == "meta_class":
        if not isinstance(value, str) or not _NAME.fullmatch(value):
            raise UserError(f"{place}: expected a name in lower_snake_case, got {value!r:.60}")
    else:
        _check_words(place, value)


def _check_words(place: str, value: Any) -> None:
    """Words that may stand in a sentence: no line break, no odd spaces, nothing that could be read as a mark."""
    good = isinstance(value, str) and key(value) and value == " ".join(value.split()) and value.isprintable()
    if not good or set(value) & set("<>"):
        raise UserError(f"{place}: expected words on one line, without < and >, got {value!r:.60}")


# Laying files over a taxonomy -----------------------------------------------------------------------------------------


def extended(built_in: Taxonomy, explicit: Extension | None, folders: Mapping[str, Extension]) -> Taxonomy:
    """The taxonomy with everything that the files say laid over it.

    Folders must agree with each other. The file the user names decides how categories are grouped; but how they are
    spoken of is what a model has learnt and captions were written with: there it must agree with the folders.

    Raises:
        UserError: two files contradict each other, a new category has no meta-class, or a name, a spoken form or an
            alias is already another category's.
    """
    categories = dict(built_in.categories)
    said = _gathered(([explicit] if explicit else []) + list(folders.values()), explicit)
    for name, what in said.items():
        categories[name] = _laid_over(categories.get(name), name, what, built_in)
    _refuse_shared_names(categories, said)
    return Taxonomy(dict(sorted(categories.items())), explicit, folders)


def _gathered(extensions: Sequence[Extension], explicit: Extension | None) -> dict[str, _Said]:
    said: dict[str, _Said] = {}
    for extension in extensions:
        for name, fields in extension.fields.items():
            what = said.setdefault(name, _Said(extension.source))
            for entry, value in fields.items():
                if entry == "aliases":
                    what.fields[entry] = [*what.fields.get(entry, ()), *value]
                elif what.fields.setdefault(entry, value) == value:
                    what.sources.setdefault(entry, extension.source)
                elif not (entry in GROUPING and explicit and what.sources[entry] == explicit.source):
                    raise UserError(
                        f"{extension.source}: categories.{name}.{entry}: {value!r} contradicts "
                        f"{what.fields[entry]!r} in {what.sources[entry]}"
                    )
    return said


def _laid_over(before: Category | None, name: str, said: _Said, built_in: Taxonomy) -> Category:
    fields = said.fields
    if before is None:
        if "meta_class" not in fields:
            raise UserError(
                f"{said.source}: categories.{name}.meta_class: missing, and {name!r} is no built-in category"
                f"{did_you_mean(name, built_in.canonical)}"
            )
        spoken = default_spoken(name)
        article = default_article(spoken)
        before = Category(name, fields["meta_class"], spoken, article, default_plural(article))
    spoken = fields.get("spoken", before.spoken)
    kept = before.with_article if spoken == before.spoken else default_article(spoken)
    article = fields.get("with_article", kept)
    if not article.endswith(f" {spoken}"):
        # Where a pose is told of, the spoken form is looked for right before its mark.
        place = f"{said.sources['with_article']}: categories.{name}.with_article"
        raise UserError(f"{place}: {article!r} does not end with the spoken form, {spoken!r}")
    # A spoken form that is replaced stays a spelling.
    spellings = map(key, [*before.aliases, before.spoken, *fields.get("aliases", ())])
    return replace(
        before,
        meta_class=fields.get("meta_class", before.meta_class),
        spoken=spoken,
        with_article=article,
        plural=fields.get("plural", before.plural if article == before.with_article else default_plural(article)),
        aliases=tuple(dict.fromkeys(alias for alias in spellings if alias not in (name, key(spoken)))),
        known=fields.get("known", before.known),
    )


def _refuse_shared_names(categories: Mapping[str, Category], said: Mapping[str, _Said]) -> None:
    owner: dict[str, str] = {}
    # The built-in ones first, so that a clash is told of the category that a file speaks of.
    for name in sorted(categories, key=lambda name: name in said):
        for entry, spelling in _names(categories[name]):
            other = owner.setdefault(key(spelling), name)
            if other != name:
                raise UserError(
                    f"{said[name].source}: categories.{name}{entry}: {spelling!r} already is a name of {other!r}"
                )


def _names(category: Category) -> list[tuple[str, str]]:
    """Every spelling of a category, with the field it is from."""
    aliases = [(".aliases", alias) for alias in category.aliases]
    return [("", category.name), (".spoken", category.spoken), *aliases]


# Writing --------------------------------------------------------------------------------------------------------------


def difference(taxonomy: Taxonomy, built_in: Taxonomy) -> dict[str, dict[str, Any]]:
    """What a file must say to make ``taxonomy`` of the built-in one: new categories in full, of others what changed."""
    changes: dict[str, dict[str, Any]] = {}
    for name, category in taxonomy.categories.items():
        before = built_in.categories.get(name)
        fields, old = asdict(category), asdict(before) if before else {}
        fields["aliases"] = [alias for alias in category.aliases if alias not in old.get("aliases", ())]
        changed = {entry: fields[entry] for entry in FIELDS if entry == "aliases" or fields[entry] != old.get(entry)}
        if not changed["aliases"]:
            del changed["aliases"]
        if changed:
            changes[name] = changed
    return changes
