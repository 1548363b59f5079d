"""An answer's text out of the tokens a model writes, as they come: what was shown once is never taken back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .configuration import POSE_TOKEN
from .processing import without_marks

MARKS = ("<image>", POSE_TOKEN)

UNFINISHED = "\N{REPLACEMENT CHARACTER}"
"""How a character shows whose last bytes are still to come."""


class AnswerText:
    """Tokens in, text out. Each ``<pose>`` token is a mark with a space before it; a mark spelled out in pieces is no
    ``<pose>``, nothing was read there, and shows in round brackets. The text ends before the first of ``stops``."""

    def __init__(self, processor: Any, stops: Sequence[str] = ()):
        self._pose_id, self._stops = processor.pose_token_id, stops
        # The tokenizer without what transformers does around it, which takes ten times as long.
        self._tokenizer = processor.tokenizer.backend_tokenizer
        # Everything up to the last <pose>, then the words since, then tokens that are no whole characters yet.
        self._before, self._words = "", ""
        self._context: list[int] = []
        self._rest: list[int] = []

    def add(self, token: int) -> None:
        """Another token of the answer."""
        if token == self._pose_id:
            self._before += without_marks(self._words + self._new()) + f" {POSE_TOKEN}"
            self._words, self._context, self._rest = "", [token], []
            return
        self._rest.append(token)
        new = self._new()
        if new and not new.endswith(UNFINISHED):
            self._words += new
            self._context, self._rest = self._rest, []

    def text(self, ended: bool) -> tuple[str, bool]:
        """The text so far, with single spaces, and whether a stop ended it; until it has ``ended`` without what the
        next tokens may change."""
        words = self._words
        if ended:
            words += self._new()
        else:
            words = words[: len(words) - _beginning_at_end(words, MARKS)]
        text, stopped = before_stop(self._before + without_marks(words), self._stops, ended)
        return " ".join(text.split()), stopped

    def _new(self) -> str:
        # Decoded behind the tokens before them: at the beginning of a text some tokenizers leave a space out.
        before, both = map(self._tokenizer.decode, (self._context, self._context + self._rest))
        return both[len(before) :]


def before_stop(text: str, stops: Sequence[str], ended: bool) -> tuple[str, bool]:
    """The text before the first of ``stops``, and whether there was one; of a text that has not ``ended``, without what
    may be the beginning of one."""
    found = [place for stop in stops if (place := text.find(stop)) >= 0]
    if found:
        return text[: min(found)], True
    return (text if ended else text[: len(text) - _beginning_at_end(text, stops)]), False


def _beginning_at_end(text: str, marks: Sequence[str]) -> int:
    """The length of the longest end of a text that is the beginning of a mark."""
    longest = max(map(len, marks), default=0) - 1
    for length in range(min(longest, len(text)), 0, -1):
        if text.endswith(tuple(mark[:length] for mark in marks if len(mark) > length)):
            return length
    return 0
