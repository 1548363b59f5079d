"""Journals: finished work on the disk as soon as it is there, so that a killed run goes on where it was.

Each process has a journal of its own in a folder that all of them see. Its first line says what the work depends on,
every other is one finished part, by its number. A process that is killed leaves at most its last line torn.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from eval.fingerprint import check_same
from llava_pose.errors import UserError

Lines = list[dict[str, Any]]
Parts = dict[int, Lines]
"""The lines of each finished part, by its number."""


class Journal:
    """A process's own journal, open for adding to; a context that closes it."""

    def __init__(self, folder: Path, process: int, fingerprint: Mapping[str, Any]) -> None:
        """Begin a journal, or go on with the one that lies there, without its torn end.

        Raises:
            UserError: it cannot be written, or another process writes in it.
        """
        self.path = folder / f"{process:05d}.jsonl"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        except OSError as error:
            raise UserError(f"{self.path}: journal cannot be written: {error.strerror}") from error
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._file)
            raise UserError(f"{self.path}: another run is at work in this folder") from error
        content = self.path.read_bytes()
        os.ftruncate(self._file, content.rfind(b"\n") + 1)
        if b"\n" not in content:
            self._write({"fingerprint": dict(fingerprint)})

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._file)

    def add(self, part: int, lines: Sequence[Mapping[str, Any]]) -> None:
        """Keep a finished part; it is on the disk when this returns. Raises UserError where it cannot be written."""
        self._write({"part": part, "lines": list(lines)})

    def _write(self, entry: Mapping[str, Any]) -> None:
        left = (json.dumps(entry) + "\n").encode()
        before = os.fstat(self._file).st_size
        try:
            while left:
                left = left[os.write(self._file, left) :]
            os.fsync(self._file)
        except OSError as error:
            os.ftruncate(self._file, before)
            raise UserError(f"{self.path}: journal cannot be written: {error.strerror}") from error


def read_journals(folder: Path, fingerprint: Mapping[str, Any], place: Path) -> Parts:
    """All finished parts in a folder of journals, by whichever processes; torn last lines are left out.

    Raises:
        UserError: a journal is of another run than that into ``place`` (the message names the field and both values),
            or damaged.
    """
    parts: Parts = {}
    for path in sorted(folder.glob("*.jsonl")):
        for number, line in enumerate(path.read_bytes().split(b"\n")[:-1], start=1):
            try:
                entry = json.loads(line)
                if number == 1:
                    earlier = dict(entry["fingerprint"])
                else:
                    parts[int(entry["part"])] = list(entry["lines"])
            except (ValueError, KeyError, TypeError) as error:
                raise UserError(f"{path}:{number}: not a line of a journal; --overwrite begins anew") from error
            if number == 1:
                check_same(earlier, fingerprint, str(place))
    return parts
