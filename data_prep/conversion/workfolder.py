"""The folder that a conversion works in, beside its output: kept when it is stopped, so that it can go on.

It holds a record of what was asked for, finished shards, and a report of each. When all is finished the shards become
the output, at one stroke. One process at a time may work in it.
"""

from __future__ import annotations

import errno
import fcntl
import json
import re
import reprlib
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

from data_prep.conversion.jobs import REPORTS, SHARDS, Job, Report, fingerprint
from data_prep.conversion.source import Source
from llava_pose.errors import UserError
from llava_pose.files import write_atomic
from llava_pose.scene import shard_rows

_OUR_FILES = re.compile(r"(train|val)-\d{5}-of-\d{5}\.parquet|README\.md|angles\.png|skipped\.jsonl|taxonomy\.json")


class WorkFolder:
    """``.{name}.partial`` beside the output folder ``out``; a context for as long as this process works in it.

    ``record``: everything that the shards depend on beside their input, as JSON values.

    Raises:
        UserError: on construction, where ``out`` is in use or no earlier output, cannot be made, another process
            works on it, or an unfinished conversion with another record lies there and ``overwrite`` is false.
    """

    def __init__(self, out: Path, record: dict[str, Any], overwrite: bool) -> None:
        self.out = out
        self.path = out.absolute().parent / f".{out.absolute().name}.partial"
        self.shards, self.reports = self.path / SHARDS, self.path / REPORTS
        self._earlier = self.path.with_name(f".{out.absolute().name}.old")
        _check_replaceable(out, overwrite)
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock = self._locked()
            try:
                self._begin(record, overwrite)
            except BaseException:
                self._lock.close()
                raise
        except OSError as error:
            raise UserError(f"{out}: output folder cannot be made: {error.strerror}") from error

    def __enter__(self) -> WorkFolder:
        return self

    def __exit__(self, *_: object) -> None:
        """Leave the folder for another time if a shard is finished in it, and remove it otherwise."""
        if not self.reports.is_dir() or not any(self.reports.iterdir()):
            shutil.rmtree(self.path, ignore_errors=True)
        self._lock.close()

    def finished(self, jobs: Sequence[Job], source: Source) -> dict[Job, Report]:
        """The jobs that are finished, with the input they have now; what else lies here is removed."""
        found: dict[Job, Report] = {}
        for job in jobs:
            report = Report.from_file(self.reports / job.report)
            if report and self._rows(job) == report.tally.rows and fingerprint(job, source) == report.inputs:
                found[job] = report
        kept = {name for job in found for name in (job.shard, job.report)}
        for path in (*self.shards.iterdir(), *self.reports.iterdir()):
            if path.name not in kept:
                path.unlink()
        return found

    def finish(self) -> None:
        """Make the shards, and what was written beside them, the output folder."""
        if self.out.exists():
            shutil.rmtree(self._earlier, ignore_errors=True)
            self.out.rename(self._earlier)
        self.shards.rename(self.out)
        shutil.rmtree(self._earlier, ignore_errors=True)
        shutil.rmtree(self.path, ignore_errors=True)

    def _locked(self) -> IO[bytes]:
        """The lock file, which the system frees when this process ends, however it ends."""
        lock = open(self.path / "lock", "wb")  # noqa: SIM115 (held as long as the folder)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            # A file system without locks is none the worse for it; only two runs at once go unnoticed.
            if error.errno in (errno.EAGAIN, errno.EACCES):
                lock.close()
                raise UserError(f"{self.out}: another conversion is writing it at this moment") from error
        return lock

    def _begin(self, record: dict[str, Any], overwrite: bool) -> None:
        """Go on with what lies here if it has the same record, otherwise start with empty folders."""
        path = self.path / "record.json"
        # Without shards, it is what a conversion that was killed after its last step left.
        held = _read_record(path) if self.shards.is_dir() else None
        if held is not None and held != record and not overwrite:
            name = next(name for name in {**held, **record} if held.get(name) != record.get(name))
            raise UserError(
                f"{self.out}: an unfinished conversion lies beside it, with {name} {_short(held.get(name))} and not "
                f"{_short(record.get(name))}: finish that one, or give it up with --overwrite"
            )
        if held != record:
            for left in (self.shards, self.reports):
                shutil.rmtree(left, ignore_errors=True)
        self.shards.mkdir(exist_ok=True)
        self.reports.mkdir(exist_ok=True)
        write_atomic(path, json.dumps(record, ensure_ascii=False).encode())

    def _rows(self, job: Job) -> int | None:
        try:
            return shard_rows(self.shards / job.shard)
        except UserError:
            return None


def _read_record(path: Path) -> dict[str, Any] | None:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _short(value: Any) -> str:
    return reprlib.repr(value) if isinstance(value, list) else str(value)


def _check_replaceable(out: Path, overwrite: bool) -> None:
    if not out.exists():
        return
    if not out.is_dir():
        raise UserError(f"{out}: output folder is a file")
    names = sorted(path.name for path in out.iterdir())
    if names and not overwrite:
        raise UserError(f"{out}: output folder is not empty (--overwrite replaces an earlier output)")
    foreign = [name for name in names if not _OUR_FILES.fullmatch(name)]
    if foreign:
        raise UserError(f"{out}: output folder holds {foreign[0]!r}, so it is no earlier output")
