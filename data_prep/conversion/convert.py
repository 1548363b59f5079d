"""The machinery that every data set's script shares: a source's images through workers into Parquet shards.

    images ──▶ jobs (shards) ──▶ processes ──▶ work folder ──▶ output, card, summary

Rows come in the order of the source's lists and shards hold a fixed number of images, so the output is the same bytes
for any number of workers. It appears whole or not at all; a conversion that was stopped goes on when it is started
again.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import os
import sys
from pathlib import Path
from typing import Any

from tqdm import tqdm

from data_prep.conversion.card import SKIPPED_FILE, write_card
from data_prep.conversion.crops import PUBLISHED_SIZE
from data_prep.conversion.jobs import Job, Report, Settings, Workshop
from data_prep.conversion.pool import JobCrew
from data_prep.conversion.rows import Cut
from data_prep.conversion.source import SPLITS, Problem, Source, Task, limited
from data_prep.conversion.summary import Tally, summary_lines
from data_prep.conversion.workfolder import WorkFolder
from llava_pose import __version__, taxonomy
from llava_pose.arguments import CommandParser, whole_number
from llava_pose.errors import UserError
from llava_pose.files import write_atomic
from llava_pose.scene import features

IMAGES_PER_SHARD = 512
"""So many that files are large enough to be read fast, so few that many workers get their share and little is lost."""


def convert(source: Source, out: Path, settings: Settings) -> None:
    """Write the data folder ``out`` and print what is in it.

    Raises:
        UserError: the input or the output folder is wrong, or the disk is full. Finished shards are kept, and the
            next call with the same arguments goes on from there.
    """
    jobs, problems = plan(source, settings)
    with WorkFolder(out, record_of(source, settings), settings.overwrite) as work:
        done = work.finished(jobs, source)
        if done:
            print(f"{out}: goes on, {len(done)} of {len(jobs)} shards are finished", file=sys.stderr)
        try:
            make_missing(jobs, done, work, source, settings)
            lines = finish(jobs, done, problems, work, source, settings)
        except OSError as error:
            raise UserError(f"{out}: cannot be written: {error.strerror or error}{_kept(done, jobs)}") from error
        except UserError as error:
            raise UserError(f"{error}{_kept(done, jobs)}") from error
    print("\n".join(lines))


def _kept(done: dict[Job, Report], jobs: list[Job]) -> str:
    return f" ({len(done)} of {len(jobs)} shards are finished and kept: started again, it goes on)" if done else ""


def plan(source: Source, settings: Settings) -> tuple[list[Job], list[Problem]]:
    """The shards to make, and what is wrong with the lists.

    Raises:
        UserError: the lists are missing or name no image, or something is wrong with them and ``settings.on_error``
            is ``stop``.
    """
    splits, problems = source.splits(), source.list_problems()
    listed: dict[Task, str] = {}
    # Held-out images first: what train names as well is not trained on.
    for split in reversed(SPLITS):
        for task in splits.get(split, []):
            if task in listed:
                message = f"{source.name}: {task.image_id} is listed in {split} and, before, in {listed[task]}"
                problems.append(Problem("image listed twice", message))
            listed.setdefault(task, split)
    if problems and settings.on_error == "stop":
        raise UserError(problems[0].message)
    jobs: list[Job] = []
    for split in SPLITS:
        once = dict.fromkeys(task for task in splits.get(split, []) if listed[task] == split)
        tasks = limited(list(once), settings.limit)
        if not tasks:
            print(f"note: {source.name} lists no image for {split}, so the data has no such split", file=sys.stderr)
        parts = [tuple(tasks[start : start + IMAGES_PER_SHARD]) for start in range(0, len(tasks), IMAGES_PER_SHARD)]
        jobs += [Job(split, index, len(parts), part) for index, part in enumerate(parts)]
    if not jobs:
        raise UserError(f"{source.name}: the lists name no image")
    return jobs, problems


def record_of(source: Source, settings: Settings) -> dict[str, Any]:
    """What shards depend on beside their input: JSON values, by the names of flags where there are such."""
    own = {item.name: getattr(source, item.name) for item in dataclasses.fields(source)}  # type: ignore[arg-type]
    names = taxonomy.file_text()
    return {
        "version": __version__,
        "source": source.name,
        **{name: _plain(value) for name, value in own.items()},
        **dataclasses.asdict(settings.cut),
        "categories": _plain(settings.categories),
        "limit": settings.limit,
        "taxonomy": names and hashlib.sha256(names.encode()).hexdigest(),
    }


def _plain(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value.absolute())
    return sorted(value) if isinstance(value, frozenset) else value


def make_missing(
    jobs: list[Job], done: dict[Job, Report], work: WorkFolder, source: Source, settings: Settings
) -> None:
    """Make the shards that are not done, and enter them there; every mistake is reported on a line.

    Raises:
        UserError: there is a mistake, and ``settings.on_error`` is ``stop``.
        OSError: the disk is full, or the folder cannot be written.
    """
    mistakes = [problem for report in done.values() for _, problem in report.problems]
    if mistakes and settings.on_error == "stop":
        raise UserError(mistakes[0].message)
    missing = [job for job in jobs if job not in done]
    shop = Workshop(work.path, source, settings, features().arrow_schema)
    total, left = (sum(len(job.tasks) for job in some) for some in (jobs, missing))
    bar = tqdm(total=total, initial=total - left, desc=source.name, unit="image", smoothing=0.05, disable=None)
    with bar, JobCrew(shop, max(1, min(settings.workers, len(missing)))) as crew:
        for job, report in crew.run(missing, bar.update):
            done[job] = report
            for _, problem in report.problems:
                bar.write(f"{job.split}: in error: {problem.message}")


def finish(
    jobs: list[Job],
    done: dict[Job, Report],
    problems: list[Problem],
    work: WorkFolder,
    source: Source,
    settings: Settings,
) -> list[str]:
    """Make the finished shards the output, with what belongs beside them; returns the summary.

    Raises:
        UserError: nothing is left of a split.
        OSError: the disk is full, or the folder cannot be written.
    """
    tallies: dict[str, Tally] = {}
    for job in jobs:
        tallies.setdefault(job.split, Tally()).add(done[job].tally)
    for split, tally in tallies.items():
        if not tally.rows:
            reasons = ", ".join(f"{reason}: {count}" for reason, count in sorted(tally.skipped.items()))
            raise UserError(f"{source.name}: split {split!r} is empty: nothing is left ({reasons})")
    skipped = [{"reason": problem.reason, "message": problem.message} for problem in problems]
    for job in jobs:
        place = {"split": job.split}
        skipped += [{**place, "image_id": name, **dataclasses.asdict(found)} for name, found in done[job].problems]
    if skipped:
        lines = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in skipped)
        write_atomic(work.shards / SKIPPED_FILE, lines.encode(errors="surrogateescape"))
    checksums = {job.shard: done[job].checksum for job in jobs}
    write_card(work.shards, source, settings.cut, tallies, checksums)
    taxonomy.write_into(work.shards)
    work.finish()
    for problem in problems:
        print(f"lists: in error: {problem.message}")
    return [line for split, tally in tallies.items() for line in summary_lines(split, tally)]


def argument_parser(description: str | None) -> CommandParser:
    """A parser with the flags that all data sets share; a script adds its own. ``description``: the script's own."""
    parser = CommandParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, required=True, help="folder of the data set as it was released")
    parser.add_argument("--out", type=Path, required=True, help="data folder to write")
    parser.add_argument("--crop", choices=["object", "box", "scene"], default="object")
    parser.add_argument("--size", type=whole_number, help="side of an object or box crop in pixels (default 512)")
    parser.add_argument("--categories", type=Path, help="file of the category names to keep, one a line")
    parser.add_argument("--taxonomy", type=Path, help="file of categories of your own (YAML or JSON)")
    parser.add_argument("--limit", type=whole_number, help="at most this many images a split, from all categories")
    parser.add_argument("--workers", type=whole_number, default=os.cpu_count() or 1)
    parser.add_argument("--on-error", choices=["stop", "skip"], default="stop", help="what a mistake in the data does")
    parser.add_argument("--overwrite", action="store_true", help="replace an earlier output")
    return parser


def settings_from(options: argparse.Namespace, by_viewport: bool = False) -> Settings:
    """The settings behind parsed flags; puts the taxonomy they ask for into effect. ``by_viewport``: see Cut.

    Raises UserError where they contradict one another, or a file that they name is wrong.
    """
    if options.crop == "scene" and options.size is not None:
        raise UserError("--size: whole scenes keep their size; give it with --crop object or box")
    if not options.root.is_dir():
        raise UserError(f"{options.root}: root folder does not exist")
    if options.taxonomy is not None:
        taxonomy.use_file(options.taxonomy)
    taxonomy.use_folder(options.root)
    return Settings(
        cut=Cut(options.crop, options.size or PUBLISHED_SIZE, by_viewport),
        categories=frozenset(taxonomy.read_category_file(options.categories)) if options.categories else None,
        limit=options.limit,
        workers=options.workers,
        on_error=options.on_error,
        overwrite=options.overwrite,
    )
