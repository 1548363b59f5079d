"""The work of a conversion: every shard is a job of its own, made from some images by one process.

A job's files are its shard and a report of what it counted, written after it. Jobs share nothing, so any number of
processes makes the same bytes, and a conversion that was stopped goes on with the jobs that have no report.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa

from data_prep.conversion.rows import Cut, rows_of
from data_prep.conversion.shards import ShardWriter, checksum, shard_name
from data_prep.conversion.source import Problem, Source, Task
from data_prep.conversion.summary import ANGLES, Tally
from llava_pose.errors import UserError
from llava_pose.files import write_atomic

SHARDS, REPORTS = "shards", "reports"
"""The folders of shards and of reports in a work folder."""


@dataclass(frozen=True)
class Settings:
    """What the command line asks for beside the source itself."""

    cut: Cut
    categories: frozenset[str] | None = None
    limit: int | None = None
    workers: int = 1
    on_error: str = "stop"
    overwrite: bool = False


@dataclass(frozen=True)
class Job:
    """One of the ``count`` shards of a split, and the images it is made from."""

    split: str
    index: int
    count: int
    tasks: tuple[Task, ...]

    @property
    def shard(self) -> str:
        """The shard's file name."""
        return shard_name(self.split, self.index, self.count)

    @property
    def report(self) -> str:
        """The report's file name."""
        return f"{self.shard}.json"


@dataclass(frozen=True)
class Workshop:
    """What every job needs: the work folder, the data set, the settings, the columns of a shard."""

    folder: Path
    source: Source
    settings: Settings
    schema: pa.Schema


@dataclass
class Report:
    """What a finished job counted and found wrong. ``inputs``: see ``fingerprint``; ``checksum``: of its shard."""

    inputs: str
    checksum: int = 0
    tally: Tally = field(default_factory=Tally)
    problems: list[tuple[str, Problem]] = field(default_factory=list)
    """With the image's name."""

    def to_json(self) -> bytes:
        """The report as a file's content."""
        problems = [(image_id, vars(problem)) for image_id, problem in self.problems]
        values = {**vars(self), "tally": vars(self.tally), "problems": problems}
        return json.dumps(values, ensure_ascii=False).encode(errors="surrogateescape")

    @classmethod
    def from_file(cls, path: Path) -> Report | None:
        """The report in a file; None where there is none, or half of one."""
        try:
            values = json.loads(path.read_text(encoding="utf-8", errors="surrogateescape"))
        except (OSError, ValueError):
            return None
        problems = [(image_id, Problem(**problem)) for image_id, problem in values["problems"]]
        return cls(values["inputs"], values["checksum"], Tally.from_json(values["tally"]), problems)


def fingerprint(job: Job, source: Source) -> str:
    """What tells whether a job's input has changed: the names, sizes and times of all of its files, digested."""
    digest = hashlib.sha256()
    for task in job.tasks:
        for path in source.files(task):
            try:
                stat = os.stat(path)
                state = f"{stat.st_size} {stat.st_mtime_ns}"
            except OSError:
                state = "missing"
            digest.update(f"{task.image_id}\0{path.name}\0{state}\n".encode(errors="surrogateescape"))
    return digest.hexdigest()


def process(task: Task, source: Source, settings: Settings) -> tuple[list[dict[str, Any]], Counter[str], list[Problem]]:
    """The rows of one image, the objects left out by reason, and what is wrong with it."""
    try:
        reading = source.read(task)
    except UserError as error:
        return [], Counter(), [Problem("annotations in error", str(error))]
    wanted = settings.categories
    objects = [item for item in reading.objects if wanted is None or item.category in wanted]
    skipped, problems = Counter(reading.skipped), list(reading.problems)
    if len(objects) < len(reading.objects):
        skipped["category not asked for"] += len(reading.objects) - len(objects)
    if not objects:
        return [], skipped, problems
    caption = None
    try:
        caption = source.caption(task, reading.objects)
    except UserError as error:
        problems.append(Problem("caption in error", str(error)))
    try:
        rows, unshown = rows_of(reading.image, objects, task, partial(source.where, task), settings.cut, caption)
    except UserError as error:
        return [], skipped, [*problems, Problem("image in error", str(error))]
    return rows, skipped, problems + unshown


def make_shard(job: Job, shop: Workshop, advance: Callable[[], object]) -> Report:
    """Write a job's shard and report into the work folder; ``advance`` is called after every image.

    Raises:
        UserError: something is wrong with an image or an object, and the settings say to stop then.
        OSError: the shard cannot be written.
    """
    report = Report(fingerprint(job, shop.source))
    poses: list[list[float]] = []
    with ShardWriter(shop.folder / SHARDS, job.split, job.index, job.count, shop.schema) as writer:
        for task in job.tasks:
            rows, skipped, problems = process(task, shop.source, shop.settings)
            if problems and shop.settings.on_error == "stop":
                raise UserError(problems[0].message)
            report.problems += [(task.image_id, problem) for problem in problems]
            report.tally.add_image(rows, skipped, problems)
            poses += [[item[name] for name in ANGLES] for row in rows for item in row["objects"]]
            for row in rows:
                writer.add(row)
            advance()
    report.checksum = checksum(writer.path)
    report.tally.add_poses(poses)
    write_atomic(shop.folder / REPORTS / job.report, report.to_json())
    return report
