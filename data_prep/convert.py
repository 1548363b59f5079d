"""The machinery that every data set's script shares: a source's images through a pool of workers into Parquet shards.

Rows come in the order of the source's lists, so the output is the same bytes for any number of workers; it appears
whole or not at all.
"""

from __future__ import annotations

import argparse
import os
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from tqdm import tqdm

from data_prep.card import card_text
from data_prep.crops import PUBLISHED_SIZE
from data_prep.rows import Cut, rows_of
from data_prep.shards import ShardWriter, new_folder
from data_prep.source import Problem, Source, Task, limited
from llava_pose import taxonomy
from llava_pose.errors import UserError


@dataclass(frozen=True)
class Settings:
    """What the command line asks for beside the source itself."""

    cut: Cut
    categories: frozenset[str] | None = None
    limit: int | None = None
    workers: int = 1
    on_error: str = "stop"
    overwrite: bool = False


@dataclass
class Outcome:
    """What became of an image: rows, objects left out by reason, mistakes in its files."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    skipped: Counter[str] = field(default_factory=Counter)
    problems: list[Problem] = field(default_factory=list)


def process(task: Task, source: Source, settings: Settings) -> Outcome:
    """Read one image with its annotations and make its rows."""
    try:
        reading = source.read(task)
        objects = [
            item for item in reading.objects if settings.categories is None or item.category in settings.categories
        ]
        outcome = Outcome(skipped=Counter(reading.skipped), problems=list(reading.problems))
        if len(objects) < len(reading.objects):
            outcome.skipped["category not asked for"] += len(reading.objects) - len(objects)
        if objects:
            outcome.rows, problems = rows_of(reading.image, objects, task, partial(source.where, task), settings.cut)
            outcome.problems += problems
    except UserError as error:
        return Outcome(problems=[Problem("image with a file in error", str(error))])
    return outcome


def outcomes(tasks: Sequence[Task], source: Source, settings: Settings) -> Iterator[Outcome]:
    """The outcome of every task, in order, with a bounded number of them in flight."""
    if settings.workers == 1:
        yield from (process(task, source, settings) for task in tasks)
        return
    pool = ProcessPoolExecutor(
        settings.workers, get_context("spawn"), initializer=taxonomy.activate, initargs=(taxonomy.active(),)
    )
    try:
        pending: deque[Future[Outcome]] = deque()
        for task in tasks:
            pending.append(pool.submit(process, task, source, settings))
            if len(pending) >= 8 * settings.workers:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def write_split(writer: ShardWriter, tasks: list[Task], source: Source, settings: Settings) -> Counter[str]:
    """Write one split's shards; returns what was left out, by reason.

    Raises:
        UserError: something is wrong and ``settings.on_error`` is ``stop``, or no object is left.
    """
    skipped: Counter[str] = Counter()
    with tqdm(total=len(tasks), desc=writer.split, unit="image", disable=None) as bar:
        for outcome in outcomes(tasks, source, settings):
            bar.update()
            for problem in outcome.problems:
                if settings.on_error == "stop":
                    raise UserError(problem.message)
                bar.write(f"{writer.split}: file in error: {problem.message}")
                skipped[problem.reason] += 1
            skipped += outcome.skipped
            for row in outcome.rows:
                writer.add(row)
    writer.close()
    if not writer.rows:
        reasons = ", ".join(f"{reason}: {count}" for reason, count in sorted(skipped.items()))
        raise UserError(f"{source.name}: split {writer.split!r} is empty: nothing is left ({reasons})")
    return skipped


def convert(source: Source, out: Path, settings: Settings) -> None:
    """Write the data folder ``out`` and report each split.

    Raises:
        UserError: the input or the output folder is wrong; nothing is left behind.
    """
    splits = source.splits()
    lines = []
    with new_folder(out, settings.overwrite) as folder:
        for split, tasks in splits.items():
            writer = ShardWriter(folder, split)
            tasks = limited(tasks, settings.limit)
            skipped = write_split(writer, tasks, source, settings)
            lines.append(f"{split}: {writer.rows} rows from {len(tasks)} images")
            lines += [f"{split}: left out: {reason}: {count}" for reason, count in sorted(skipped.items())]
        (folder / "README.md").write_text(card_text(lines, settings.cut), encoding="utf-8")
        taxonomy.write_into(folder)
    print("\n".join(lines))


def positive(text: str) -> int:
    """A whole number above 0, for argparse."""
    value = int(text)
    if value < 1:
        raise ValueError(text)
    return value


def argument_parser(description: str) -> argparse.ArgumentParser:
    """A parser with the flags that all data sets share; a script adds its own."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--root", type=Path, required=True, help="folder of the data set as it was released")
    parser.add_argument("--out", type=Path, required=True, help="data folder to write")
    parser.add_argument("--crop", choices=["object", "box", "scene"], default="object")
    parser.add_argument("--size", type=positive, help="side of an object or box crop in pixels (default 512)")
    parser.add_argument("--categories", type=Path, help="file of the category names to keep, one a line")
    parser.add_argument("--taxonomy", type=Path, help="file of categories of your own (YAML or JSON)")
    parser.add_argument("--limit", type=positive, help="at most this many images a split, from all categories")
    parser.add_argument("--workers", type=positive, default=os.cpu_count() or 1)
    parser.add_argument("--on-error", choices=["stop", "skip"], default="stop", help="what a mistake in the data does")
    parser.add_argument("--overwrite", action="store_true", help="replace an earlier output")
    return parser


def settings_from(options: argparse.Namespace, by_viewport: bool = False) -> Settings:
    """The settings behind parsed flags; puts the taxonomy they ask for into effect. ``by_viewport``: see Cut.

    Raises UserError where they contradict one another, or a file that they name is wrong.
    """
    if options.crop == "scene" and options.size is not None:
        raise UserError("--size: whole scenes keep their size; give it with --crop object or box")
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
