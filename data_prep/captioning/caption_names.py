"""Names such as CAR1 and DINING_TABLE2 in a text, and the text with words in their place: "a car", "another car"."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from data_prep.captioning.caption_words import noun, nth_mention
from llava_pose.scene import PosedObject

_ARTICLES = {"a", "an"}
_DETERMINERS = {
    *_ARTICLES,
    *("the", "this", "that", "another", "one", "each", "every", "other", "first", "second", "third", "fourth"),
    *("my", "your", "his", "her", "its", "our", "their", "some", "no", "same"),
}
# Words after which a noun phrase starts. Elsewhere an adjective may stand before the name ("a red CAR1").
_OPENERS = {
    *("about", "above", "across", "against", "along", "alongside", "amid", "among", "and", "are", "around", "as", "at"),
    *("before", "behind", "below", "beneath", "beside", "between", "beyond", "but", "by", "can", "depicts", "for"),
    *("from", "has", "have", "in", "inside", "into", "is", "like", "near", "of", "off", "on", "onto", "or", "outside"),
    *("over", "past", "plus", "see", "than", "through", "to", "toward", "towards", "under", "underneath", "upon"),
    *("via", "was", "were", "where", "while", "with", "within", "without", "then", "there", "here", "both"),
}


@dataclass(frozen=True)
class Name:
    """A name in a text, from ``start`` to ``end``, and the object behind it."""

    start: int
    end: int
    item: PosedObject


def spelled_out(text: str, names: Sequence[Name]) -> str:
    """The text with words for its names (in their order): "a car" where an object is first named, then "the car".

    The second object of a category is "another car". Where the text gives a name an article or an adjective of its own,
    these are kept, "a" and "an" as the word asks for.
    """
    parts: list[str] = []
    told: dict[str, list[int]] = {}
    place = 0
    for name in names:
        before = text[place : name.start]
        ids = told.setdefault(name.item.category, [])
        again = name.item.object_id in ids
        words, dropped = _words(text[: name.start], name.item.category, None if again else len(ids))
        before = before[: len(before) - dropped]
        starts = re.search(r"(^|[.!?][\"')]*\s+)[\"'(]*$", text[: name.start - dropped]) is not None
        parts += [before, words[0].upper() + words[1:] if starts else words]
        if not again:
            ids.append(name.item.object_id)
        place = name.end
    return "".join(parts) + text[place:]


def _words(before: str, category: str, earlier: int | None) -> tuple[str, int]:
    """The words for a name after this text, and how many characters of the text they stand in for.

    ``earlier``: objects of the category told of before; None where this one has been.
    """
    clause = re.split(r"[^\w\s'-]", before)[-1]
    words = clause.lower().split()
    joined = before[-1:] in (" ", "\n", "\t")  # else the name follows a quote or bracket
    last = words[-1] if words and joined else ""
    if last in _ARTICLES and earlier is not None:
        return nth_mention(category, earlier), len(last) + 1
    if not last or _opens_a_phrase(words):
        return (f"the {noun(category)}" if earlier is None else nth_mention(category, earlier)), 0
    return noun(category), 0


def _opens_a_phrase(words: Sequence[str]) -> bool:
    """Whether a noun phrase starts after these words. Verbs are told from adjectives by their endings."""
    last, before = words[-1], words[-2] if len(words) > 1 else ""
    if last in _DETERMINERS:
        return False
    if last in _OPENERS or (last.endswith("s") and not last.endswith(("ous", "ss", "'s"))):
        return True
    return last.endswith("ing") and before not in _DETERMINERS
