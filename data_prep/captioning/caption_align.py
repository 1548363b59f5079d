"""Captions in ImageNet3D's manner brought into ours: each mark aligned with its object, names turned into words.

What the paper shows of its captions leaves the notation open, so both are read, together or alone: names that count the
objects ("CAR1 with <pose6d> is parked next to BICYCLE2 with <pose6d>") and plain words ("a car <pose6d>").
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from data_prep.captioning.caption_names import Name, spelled_out
from llava_pose.errors import UserError
from llava_pose.scene import POSE_MARK, PosedObject
from llava_pose.taxonomy import active, plural, spoken_name
from llava_pose.taxonomy_file import key

MARK = re.compile(r"<\s*pose[\s_-]*(?:6d)?\s*>", re.IGNORECASE)
LIKE_A_MARK = re.compile(r"[<\[({]\s*/?\s*pose|pose[\s_-]*(?:6d)?\s*[>\])}]|pose[\s_-]*6d", re.IGNORECASE)
"""What was meant as a mark and is none."""
_NUMBERED = re.compile(r"\b((?:[^\W\d_]+[ _-]){0,4}[^\W\d_]+)[_-]?(\d+)\b")
_WORD = re.compile(r"[^\W_]+(?:['-][^\W_]+)*")
_LONGEST = 5
"""Words in the longest category name that is looked for."""
_JOIN = re.compile(r",?\s*(?:with\s+)?(?=<pose>)")
"""What may stand between a mention and its mark, and goes."""
_AGAIN = re.compile(r"(?:and|with|the|an?|one|another|other|second|third|more|[\s,;])*", re.IGNORECASE)
"""What may stand between two marks where the second is of the first one's kind ("… and another <pose>")."""


@dataclass(frozen=True)
class _Mention:
    """A category in a text, from ``start`` to ``end``; ``number``: that of a name such as CAR1."""

    start: int
    end: int
    category: str
    number: int | None = None


def aligned(text: str, objects: Sequence[PosedObject], where: str) -> tuple[str, tuple[int, ...]]:
    """The caption with ``<pose>`` for its marks and words for its names, and the ``object_id`` of each mark.

    A number counts the objects of its name's category, or all objects, whichever fits every name of the caption. Plain
    words are the nearest mention before the mark; where several objects answer to them, each mark takes the next. As in
    all our texts a mark directly follows its mention: "CAR1 with <pose6d>" is "a car <pose>".

    Raises:
        UserError: there is no mark, one cannot be read, or one fits no object; the message starts with ``where``.
    """
    clean = MARK.sub(POSE_MARK, " ".join(text.split()))
    if LIKE_A_MARK.search(clean.replace(POSE_MARK, "")):
        raise UserError(f"{where}: caption: not a mark that can be read (<pose6d> or <pose>) in {text!r:.200}")
    if POSE_MARK not in clean:
        raise UserError(f"{where}: caption: no <pose6d> or <pose> in {text!r:.200}")
    spellings = _spellings(objects)
    mentions = list(_mentions(clean, spellings))
    chooser = _Chooser(clean, mentions, objects, where)
    marks = chooser.choose()
    names = [Name(said.start, said.end, chooser.named[said]) for said in mentions if said.number is not None]
    words = spelled_out(clean, names)
    for said in reversed(list(_mentions(words, spellings))):
        words = (
            words[: said.end] + _JOIN.sub(" ", words[said.end :], count=1) if _JOIN.match(words, said.end) else words
        )
    return words, tuple(item.object_id for item in marks)


# Finding mentions -----------------------------------------------------------------------------------------------------


def _spellings(objects: Sequence[PosedObject]) -> Mapping[str, str]:
    """The category behind every spelling, those of the objects themselves included."""
    own = {
        key(said): item.category
        for item in objects
        for said in (item.category, spoken_name(item.category), plural(item.category))
    }
    return {**active().canonical, **own}


def _mentions(text: str, spellings: Mapping[str, str]) -> Iterator[_Mention]:
    """Every mention of a category in the order of the text: names with numbers, and the longest words that are one."""
    names = list(_names(text, spellings))
    words = [
        word for word in _WORD.finditer(text) if not any(n.start < word.end() and word.start() < n.end for n in names)
    ]
    plain: list[_Mention] = []
    first = 0
    while first < len(words):
        for last in range(min(first + _LONGEST, len(words)) - 1, first - 1, -1):
            start, end = words[first].start(), words[last].end()
            category = _category(text[start:end], spellings)
            if category is not None:
                plain.append(_Mention(start, end, category))
                first = last
                break
        first += 1
    yield from sorted(names + plain, key=lambda said: said.start)


def _names(text: str, spellings: Mapping[str, str]) -> Iterator[_Mention]:
    for match in _NUMBERED.finditer(text):
        for start in [part.start() for part in re.finditer(r"[^ _-]+", match[1])]:
            category = spellings.get(key(match[1][start:]))
            if category is not None:
                yield _Mention(match.start() + start, match.end(), category, int(match[2]))
                break


def _category(words: str, spellings: Mapping[str, str]) -> str | None:
    """The category that words are a spelling of, in the singular or plural."""
    spelling = key(words)
    endings = (("", ""), ("ies", "y"), ("es", ""), ("s", ""))
    forms = [spelling.removesuffix(ending) + single for ending, single in endings if spelling.endswith(ending)]
    return next((spellings[form] for form in forms if form in spellings), None)


# Choosing objects -----------------------------------------------------------------------------------------------------


class _Chooser:
    """Finds the object of each mark. ``named``: the object of each mention with a number."""

    def __init__(self, text: str, mentions: Sequence[_Mention], objects: Sequence[PosedObject], where: str) -> None:
        self.text, self.mentions, self.objects, self.where = text, mentions, objects, where
        self.marks = [match.start() for match in re.finditer(re.escape(POSE_MARK), text)]
        self.named = self._read_numbers([said for said in mentions if said.number is not None])
        self._free = [item for item in objects if item not in self.named.values()]

    def choose(self) -> list[PosedObject]:
        """The object of each mark, in order."""
        chosen: list[PosedObject | None] = []
        for number, mark in enumerate(self.marks):
            chosen.append(self._of_mark(number, mark, chosen[-1] if chosen else None))
        if chosen.count(None) == 1 and len(self._free) == 1:
            # One mark without a name, one object without a mark: they belong together ("a red Beetle <pose6d>").
            chosen[chosen.index(None)] = self._free[0]
        if None in chosen:
            raise self._misfit(chosen.index(None))
        return [item for item in chosen if item is not None]

    def _of_mark(self, number: int, mark: int, previous: PosedObject | None) -> PosedObject | None:
        """The object that a mark's words mean; None where they name no category."""
        start = self.marks[number - 1] + len(POSE_MARK) if number else 0
        before = [said for said in self.mentions if start <= said.start and said.end <= mark]
        present = {item.category for item in self.objects}
        if before and not self._joined(before[-1], mark):
            # Further off, a word need not be meant for a category ("a car you can see <pose>").
            before = [said for said in before if said.category in present] or before
        if before:
            return self.named.get(before[-1]) or self._next(before[-1].category, before[-1].start, number)
        if previous is not None and _AGAIN.fullmatch(self.text, start, mark):
            return self._next(previous.category, start, number)
        return None

    def _joined(self, said: _Mention, mark: int) -> bool:
        between = _JOIN.match(self.text, said.end)
        return between is not None and between.end() == mark

    def _next(self, category: str, start: int, number: int) -> PosedObject:
        """The next object of a category that no mark has; the only one again where it is "the car"."""
        for item in self._free:
            if item.category == category:
                self._free.remove(item)
                return item
        alike = [item for item in self.objects if item.category == category]
        if len(alike) == 1 and re.search(r"\b(the|this|that|same)( \w+)?\s*$", self.text[:start], re.IGNORECASE):
            return alike[0]
        raise self._misfit(number)

    def _misfit(self, number: int) -> UserError:
        end = self.marks[number] + len(POSE_MARK)
        start = self.marks[number - 1] + len(POSE_MARK) if number else 0
        said = self.text[max(start, end - 80) : end].strip()
        have = ", ".join(f"{item.category} ({item.object_id})" for item in self.objects) or "none"
        return UserError(f"{self.where}: caption: mark {number + 1} ({said!r}) fits no object; the image has: {have}")

    def _read_numbers(self, names: Sequence[_Mention]) -> dict[_Mention, PosedObject]:
        """The object of each name, by the first way of counting that fits all of them."""
        of_category: dict[str, list[PosedObject]] = defaultdict(list)
        for item in self.objects:
            of_category[item.category].append(item)
        used: dict[str, set[int]] = defaultdict(set)
        for name in names:
            used[name.category].add(name.number or 0)

        def in_category(name: _Mention) -> PosedObject | None:
            return dict(enumerate(of_category[name.category], start=1)).get(name.number or 0)

        def in_file(name: _Mention) -> PosedObject | None:
            found = {item.object_id + 1: item for item in self.objects}.get(name.number or 0)
            return found if found is not None and found.category == name.category else None

        def in_all(name: _Mention) -> PosedObject | None:
            found = dict(enumerate(self.objects, start=1)).get(name.number or 0)
            return found if found is not None and found.category == name.category else None

        # BICYCLE2 without a BICYCLE1 is rather the second of all objects than the second bicycle.
        from_one = all(numbers == set(range(1, len(numbers) + 1)) for numbers in used.values())
        ways: list[Callable[[_Mention], PosedObject | None]] = [in_file, in_all]
        for way in [in_category, *ways] if from_one else [*ways, in_category]:
            items = {name: found for name in names if (found := way(name)) is not None}
            if len(items) == len(set(names)):
                return items
        strange = next(name for name in names if in_category(name) is None)
        after = [number for number, mark in enumerate(self.marks) if mark >= strange.end]
        raise self._misfit(after[0] if after else len(self.marks) - 1)
