"""How captions speak of objects: one, another and a third; two of them; the names CAR1 and BICYCLE2."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from llava_pose.scene import POSE_MARK, PosedObject
from llava_pose.taxonomy import spoken_name, with_article

NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_ORDINALS = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth")


def noun(category: str) -> str:
    """One such thing without its article: ``car``, ``pair of scissors``."""
    return with_article(category).split(" ", 1)[-1]


def nth_mention(category: str, earlier: int) -> str:
    """One more of a category after ``earlier`` others: ``a car``, ``another car``, ``a third car``, …"""
    if earlier == 0:
        return with_article(category)
    if earlier == 1 or earlier >= len(_ORDINALS):
        return f"another {noun(category)}"
    ordinal = _ORDINALS[earlier]
    return f"{'an' if ordinal[0] in 'aeiou' else 'a'} {ordinal} {noun(category)}"


def mentions(objects: Sequence[PosedObject]) -> list[str]:
    """Each object's mention with its mark, in this order of mention."""
    seen: Counter[str] = Counter()
    texts = []
    for item in objects:
        texts.append(f"{nth_mention(item.category, seen[item.category])} {POSE_MARK}")
        seen[item.category] += 1
    return texts


def object_names(objects: Sequence[PosedObject]) -> list[str]:
    """The names by which a language model is told of the objects: ``CAR1``, ``DINING_TABLE2``, counted through."""
    names = []
    for number, item in enumerate(objects, start=1):
        letters = re.sub(r"[\W\d_]+", "_", spoken_name(item.category).upper()).strip("_")
        names.append(f"{letters or 'OBJECT'}{number}")
    return names
