"""The journal of answers that a language model was paid for: nothing that is in it is asked for again.

A line is a JSON object; each is on the disk before the next question is asked in its place. A run that is killed leaves
at most its last line torn, which the next run cuts off.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from llava_pose.errors import UserError


@dataclass(frozen=True)
class Answer:
    """An answer and the tokens it cost; None where the endpoint did not say."""

    text: str
    tokens_in: int | None
    tokens_out: int | None


class Journal:
    """``answers``: those to each question, by its key, in the order they came."""

    def __init__(self, path: Path) -> None:
        """Read the journal, or begin one.

        Raises:
            UserError: it cannot be read or written, or a line before the last is damaged.
        """
        self.path = path
        self.answers: dict[str, list[Answer]] = {}
        try:
            content = path.read_bytes() if path.exists() else b""
            whole = content[: content.rfind(b"\n") + 1]
            for number, line in enumerate(whole.splitlines(), start=1):
                self._read(line, number)
            self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
            if len(whole) < len(content):
                os.ftruncate(self._file, len(whole))
        except OSError as error:
            raise UserError(f"{path}: journal of captions: {error.strerror}") from error

    def _read(self, line: bytes, number: int) -> None:
        try:
            entry = json.loads(line)
            answer = Answer(str(entry["answer"]), entry["tokens_in"], entry["tokens_out"])
            self.answers.setdefault(str(entry["key"]), []).append(answer)
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(f"{self.path}:{number}: not a line of a journal of captions: {line!r:.60}") from error

    def add(self, key: str, image_id: str, answer: Answer) -> None:
        """Keep an answer; it is on the disk when this returns. Raises UserError where it cannot be written."""
        entry = {"key": key, "image_id": image_id, "answer": answer.text}
        entry |= {name: value for name, value in asdict(answer).items() if name != "text"}
        line = (json.dumps(entry) + "\n").encode()
        before = os.fstat(self._file).st_size
        try:
            while line:
                line = line[os.write(self._file, line) :]
            os.fsync(self._file)
        except OSError as error:
            os.ftruncate(self._file, before)  # answers still under way must not be added to half a line
            raise UserError(f"{self.path}: journal of captions cannot be written: {error.strerror}") from error
        self.answers.setdefault(key, []).append(answer)

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)
