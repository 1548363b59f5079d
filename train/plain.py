"""Plain conversations, about pictures or about nothing to be seen, that keep a model's general skills.

A file is in LLaVA's form (llava_v1_5_mix665k.json): a list of ``{"id", "image"?, "conversations": [{"from": "human",
"value": "<image>\\n…"}, {"from": "gpt", "value": …}, …]}``. It is read and checked whole before training begins. What
is kept of it is one string of bytes: hundreds of thousands of small objects would be copied into every worker process
by their reference counts.
"""

from __future__ import annotations

import json
import os
import re
import reprlib
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from llava_pose.errors import UserError
from llava_pose.processing import assistant_message, user_message, without_marks

IMAGE_MARK = "<image>"
_SPEAKERS = ("human", "gpt")
_BETWEEN = re.compile(r"[\s,]*")
_SHOWN = reprlib.Repr()
_SHOWN.maxstring = _SHOWN.maxother = 80


class PlainConversations:
    """The conversations of a file. ``files``: the pictures of all of them, each once."""

    def __init__(self, path: Path, entries: list[tuple[tuple[int, ...], bytes]], files: list[Path]):
        self.path, self.files = path, files
        self._numbers = np.array([number for pictures, _ in entries for number in pictures], dtype=np.int64)
        self._first_number = np.cumsum([0, *(len(pictures) for pictures, _ in entries)])
        self._text = b"".join(text for _, text in entries)
        self._begin = np.cumsum([0, *(len(text) for _, text in entries)])

    def __len__(self) -> int:
        return len(self._begin) - 1

    def characters(self, row: int) -> int:
        """About how many characters a conversation's text has."""
        return int(self._begin[row + 1] - self._begin[row])

    def pictures(self, row: int) -> list[int]:
        """Which of ``files`` a conversation is about, in reading order."""
        return self._numbers[self._first_number[row] : self._first_number[row + 1]].tolist()

    def messages(self, row: int) -> list[dict[str, Any]]:
        """One conversation in transformers' message form: a question's pictures stand before its text."""
        turns = json.loads(self._text[self._begin[row] : self._begin[row + 1]])
        return [
            user_message(text, images=pictures) if asked else assistant_message(text) for asked, pictures, text in turns
        ]


def load_plain(path: str | Path, images: str | Path | None = None) -> PlainConversations:
    """Read a file of plain conversations whose pictures lie under ``images`` (None: the file's own folder).

    The mark of a turn's only picture may stand anywhere, as in LLaVA's own training; those of several stand at the
    turn's beginning or end. A picture's name is taken relative to the folder.

    Raises:
        UserError: naming the file, the entry (counted from 0), the field and the value: the file cannot be read or is
            no list of such entries, the turns are not by human and gpt in alternation, the pictures and their marks
            differ in number, or a picture does not exist.
    """
    path = Path(path)
    folder = path.parent if images is None else Path(images)
    if not path.is_file():
        raise UserError(f"{path}: file of conversations does not exist")
    if not folder.is_dir():
        raise UserError(f"{path}: images: folder {folder} does not exist")
    entries, missing = [], []
    # What lies in a folder is asked for once: asking for each of its files takes minutes on a network.
    names_in = cache(_names_in)
    numbers: dict[str, int] = {}
    for number, entry in enumerate(_parsed(path)):
        where = f"{path}: entry {number}"
        names, turns = _checked(entry, where)
        for name in names:
            if name not in numbers:
                numbers[name] = len(numbers)
                if (folder / name).name not in names_in((folder / name).parent):
                    missing.append(f"{where}, image: {_SHOWN.repr(name)} is not in {folder}")
        text = json.dumps(turns, ensure_ascii=False).encode(errors="replace")
        entries.append((tuple(numbers[name] for name in names), text))
    if not entries:
        raise UserError(f"{path}: holds no conversation")
    if missing:
        more = f"; and {len(missing) - 1} more pictures are missing" if len(missing) > 1 else ""
        raise UserError(f"{missing[0]}{more}")
    return PlainConversations(path, entries, [folder / name for name in numbers])


def _parsed(path: Path) -> Any:
    """The entries of a JSON list one by one: at no time is all of a large file held as objects."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read: {error}") from error
    at = _after_gap(text, 0)
    if not text.startswith("[", at):
        raise UserError(f"{path}: not a list of conversations: it does not begin with [")
    decoder, at = json.JSONDecoder(), _after_gap(text, at + 1)
    first = int(os.environ.get("LOCAL_RANK", 0)) == 0
    with tqdm(desc=path.name, total=len(text), unit="B", unit_scale=True, disable=None if first else True) as bar:
        while not text.startswith("]", at):
            try:
                entry, end = decoder.raw_decode(text, at)
            except json.JSONDecodeError as error:
                raise UserError(f"{path}: not valid JSON: {error}") from error
            except RecursionError as error:
                raise UserError(f"{path}: not a list of conversations: nested too deeply") from error
            yield entry
            end = _after_gap(text, end)
            bar.update(end - at)
            at = end


def _after_gap(text: str, at: int) -> int:
    gap = _BETWEEN.match(text, at)
    return at if gap is None else gap.end()


def _checked(entry: Any, where: str) -> tuple[list[str], list[tuple[bool, int, str]]]:
    """An entry's picture names, and its turns: whether it asks, how many pictures it shows, its text."""
    if not isinstance(entry, dict):
        raise UserError(f"{where}: {_SHOWN.repr(entry)} is no conversation")
    names = _picture_names(entry.get("image"), where)
    spoken = entry.get("conversations")
    if not isinstance(spoken, list) or not spoken:
        raise UserError(f"{where}, conversations: {_SHOWN.repr(spoken)} is no list of turns")
    turns: list[tuple[bool, int, str]] = []
    for index, turn in enumerate(spoken):
        field = f"{where}, conversations[{index}]"
        if not isinstance(turn, dict):
            raise UserError(f"{field}: {_SHOWN.repr(turn)} is no turn")
        expected, speaker, value = _SPEAKERS[index % 2], turn.get("from"), turn.get("value")
        if speaker != expected:
            raise UserError(f"{field}.from: {_SHOWN.repr(speaker)}, expected {expected!r}: human and gpt take turns")
        if not isinstance(value, str):
            raise UserError(f"{field}.value: {_SHOWN.repr(value)} is no text")
        # Without a picture the mark is a word, as it may be in pages of code.
        pictures, text = _shown_pictures(value, f"{field}.value") if names and expected == "human" else (0, value)
        turns.append((expected == "human", pictures, without_marks(text)))
    if len(turns) % 2:
        raise UserError(f"{where}, conversations: ends with a question: {_SHOWN.repr(spoken[-1]['value'])}")
    marks = sum(pictures for _, pictures, _ in turns)
    if marks != len(names):
        raise UserError(f"{where}, image: {_SHOWN.repr(names)}, but {marks} {IMAGE_MARK} marks in its questions")
    return names, turns


def _picture_names(image: Any, where: str) -> list[str]:
    names = image if isinstance(image, list) else [] if image is None else [image]
    for name in names:
        if not isinstance(name, str) or not name or "\0" in name:
            raise UserError(f"{where}, image: {_SHOWN.repr(name)} is no file's name")
    return names


def _shown_pictures(value: str, field: str) -> tuple[int, str]:
    """How many pictures a question shows, and its text without their marks."""
    marks = value.count(IMAGE_MARK)
    if marks == 1:
        return 1, value.replace(IMAGE_MARK, "").strip()
    text = value.strip()
    for _ in range(marks):
        text = text.removeprefix(IMAGE_MARK).removesuffix(IMAGE_MARK).strip()
    if IMAGE_MARK in text:
        raise UserError(f"{field}: several {IMAGE_MARK} marks stand at its beginning or its end: {_SHOWN.repr(value)}")
    return marks, text


def _names_in(folder: Path) -> frozenset[str]:
    try:
        return frozenset(os.listdir(folder))
    except OSError:
        return frozenset()
