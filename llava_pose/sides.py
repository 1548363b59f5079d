"""Text about a picture's mirror image: left and right, clockwise and counterclockwise change places.

A mirror turns the picture's sides round and, with the poses, each object's own: either way a sentence stays true when
the words for its sides are swapped. What must not be swapped are the other meanings of "left" and "right" ("right next
to", "is left over"), so a text is changed only where every such word is plainly a side.
"""

from __future__ import annotations

import re

_SIDED = re.compile(r"\b(left|right)(?=(?:most|wards?|hand(?:ed)?)?\b)|\b(?:counter|anti)?-?clockwise\b", re.IGNORECASE)

_WHERE = r"(?:to|on|at|from|in|into|near|along|towards?)"
_WHOSE = r"(?:the|its|their|his|her|our|your|each\ other's)"
_END = r"(?:far|very|own|extreme|upper|lower|top|bottom|front|rear|back|near|outer|inner)"
_PART = (
    r"(?:side|half|third|edge|end|corner|part|portion|margin|border|foreground|background|hand|lane|"
    r"wheel|wing|door|window|arm|handle|leg|front|rear|flank|profile)s?"
)
# "The right way", "at the right moment": not a side of anything.
_CORRECT = (
    r"(?:way|time|moment|place|spot|order|track|amount|size|choice|angle|kind|type|height|answer|tool|direction)s?"
)

_CERTAIN = re.compile(
    rf"""
    \bfrom\ (?:left|right)\ to\ (?:left|right)\b
  | \b{_WHERE}\ {_WHOSE}\ (?:{_END}[ -])?(?:left|right)\b(?!\ {_CORRECT}\b)
  | \b{_WHOSE}\ (?:{_END}[ -])?(?:left|right)[ -]{_PART}\b
  | \b(?:left|right)(?:most|wards?|-hand(?:ed)?|hand(?:ed)?|-facing)\b
  | \b(?:fac|point|look|head|turn)(?:e?s|ing)\ (?:left|right)\b(?!\ {_CORRECT}\b)
  | \b(?:upper|lower|top|bottom|front|rear|back)[ -](?:left|right)\b
  | \b(?:counter|anti)?-?clockwise\b
    """,
    re.IGNORECASE | re.VERBOSE,
)


def mirrored_text(text: str) -> str | None:
    """The text about the mirrored picture; None where a left or right in it may not be a side.

    >>> mirrored_text("A car is to the left of a bench.")
    'A car is to the right of a bench.'
    >>> mirrored_text("A car is right next to a bench.") is None
    True
    """
    certain = [match.span() for match in _CERTAIN.finditer(text)]
    for word in _SIDED.finditer(text):
        if not any(start <= word.start() and word.end() <= end for start, end in certain):
            return None
    return swapped_sides(text)


def swapped_sides(text: str) -> str:
    """The text with every left and right, clockwise and counterclockwise swapped: where each is known to be a side."""
    return _SIDED.sub(_swapped, text)


def _swapped(match: re.Match[str]) -> str:
    word = match[0]
    lower = word.lower()
    if lower in ("left", "right"):
        other = "right" if lower == "left" else "left"
    else:
        other = "counterclockwise" if lower == "clockwise" else "clockwise"
    if word.isupper():
        return other.upper()
    return other.capitalize() if word[0].isupper() else other
