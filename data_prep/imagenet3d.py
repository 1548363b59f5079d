"""Turn ImageNet3D, or anything in its layout, into Parquet shards that datasets.load_dataset opens.

    python data_prep/imagenet3d.py --root DIR --out DIR [--crop object|box|scene]

Reads lists/{category}_imagenet_{train|val}.txt with either images/ and annotations/ beside lists/, or each
image next to its npz in {category}/. Objects that the data set's authors leave out are left out, and counted.
With
--crop object (the published protocol; it uses the true distance) or box a row is one object, with scene a
whole image. Images are used as stored: no EXIF rotation. The output appears whole or not at all, and is the
same bytes for any number of workers.
"""

from __future__ import annotations

import argparse
import io
import os
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from PIL import Image
from tqdm import tqdm

from data_prep.captions import template_caption
from data_prep.crops import PUBLISHED_SIZE, box_region, clip_box, crop_image, crop_object, object_region
from data_prep.layout import Task, limited, open_image, paths_of, read_lists
from data_prep.shards import ShardWriter, new_folder
from llava_pose.annotations import skip_reason
from llava_pose.errors import UserError, run_cli
from llava_pose.scene import PosedImage, PosedObject, posed_object, read_annotations
from llava_pose.taxonomy import read_category_file

JPEG_QUALITY = 95


@dataclass(frozen=True)
class Settings:
    """What the command line asks for."""

    root: Path
    crop: str = "object"
    size: int = PUBLISHED_SIZE
    categories: frozenset[str] | None = None


@dataclass
class Outcome:
    """What became of an image: rows, objects left out by reason, or the mistake in its files."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    skipped: Counter[str] = field(default_factory=Counter)
    error: str | None = None


def process(task: Task, settings: Settings) -> Outcome:
    """Read one image with its annotations and make its rows."""
    outcome = Outcome()
    image_path, npz_path = paths_of(task, settings.root)
    try:
        objects = usable_objects(npz_path, task.folder, settings.categories, outcome.skipped)
        if objects:
            image = open_image(image_path)
            objects = [clipped(item, image, npz_path) for item in objects]
            for record in records(image, objects, task, settings, npz_path):
                outcome.rows.append(encoded(record))
    except UserError as error:
        return Outcome(error=str(error))
    return outcome


def usable_objects(
    npz_path: Path, folder: str, categories: frozenset[str] | None, skipped: Counter[str]
) -> list[PosedObject]:
    """The objects of a file that are used; the others are counted in ``skipped`` by reason."""
    objects = []
    for index, annotation in enumerate(read_annotations(npz_path)):
        reason = skip_reason(annotation)
        if reason is None:
            try:
                item = posed_object(annotation, index, folder)
            except UserError as error:
                raise UserError(f"{npz_path}: annotations[{index}].class: {error}") from error
            if categories is None or item.category in categories:
                objects.append(item)
                continue
            reason = "category not asked for"
        skipped[reason] += 1
    return objects


def clipped(item: PosedObject, image: Image.Image, npz_path: Path) -> PosedObject:
    """The object with its box cut to the image."""
    try:
        return clip_box(item, image.width, image.height)
    except UserError as error:
        raise UserError(f"{npz_path}: annotations[{item.object_id}].{error}") from error


def records(
    image: Image.Image, objects: list[PosedObject], task: Task, settings: Settings, npz_path: Path
) -> Iterator[PosedImage]:
    """The whole image as one record, or a crop of each object as a record of its own."""
    image_id = f"{task.folder}/{task.name}"
    if settings.crop == "scene":
        caption, marks = template_caption(objects, image_id)
        yield PosedImage(image, image_id, image.width, image.height, tuple(objects), caption, marks)
        return
    region_of = object_region if settings.crop == "object" else box_region
    for item in objects:
        region = region_of(item)
        try:
            shown, crop = crop_object(item, region, settings.size), crop_image(image, region, settings.size)
        except UserError as error:
            raise UserError(f"{npz_path}: annotations[{item.object_id}].{error}") from error
        caption, marks = template_caption([shown], f"{image_id}#{item.object_id}")
        yield PosedImage(crop, image_id, settings.size, settings.size, (shown,), caption, marks)


def encoded(record: PosedImage) -> dict[str, Any]:
    """The record as a row with its image as JPEG bytes."""
    stream = io.BytesIO()
    assert record.image is not None
    record.image.save(stream, "JPEG", quality=JPEG_QUALITY)
    return {**record.to_row(), "image": {"bytes": stream.getvalue(), "path": None}}


def outcomes(tasks: Sequence[Task], settings: Settings, workers: int) -> Iterator[Outcome]:
    """The outcome of every task, in order, with a bounded number of them in flight."""
    if workers == 1:
        yield from (process(task, settings) for task in tasks)
        return
    pool = ProcessPoolExecutor(workers, mp_context=get_context("spawn"))
    try:
        pending: deque[Future[Outcome]] = deque()
        for task in tasks:
            pending.append(pool.submit(process, task, settings))
            if len(pending) >= 8 * workers:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def write_split(
    writer: ShardWriter, tasks: list[Task], settings: Settings, workers: int, on_error: str
) -> Counter[str]:
    """Write one split's shards; returns what was left out, by reason.

    Raises:
        UserError: a file is wrong and ``on_error`` is ``stop``, or no object is left.
    """
    skipped: Counter[str] = Counter()
    with tqdm(total=len(tasks), desc=writer.split, unit="image", disable=None) as bar:
        for outcome in outcomes(tasks, settings, workers):
            bar.update()
            if outcome.error is not None:
                if on_error == "stop":
                    raise UserError(outcome.error)
                bar.write(f"{writer.split}: file in error: {outcome.error}")
                skipped["image with a file in error"] += 1
            skipped += outcome.skipped
            for row in outcome.rows:
                writer.add(row)
    writer.close()
    if not writer.rows:
        reasons = ", ".join(f"{reason}: {count}" for reason, count in sorted(skipped.items()))
        raise UserError(f"{settings.root}: split {writer.split!r} is empty: nothing is left ({reasons})")
    return skipped


CARD = """\
---
configs:
- config_name: default
  data_files:
  - split: train
    path: train-*.parquet
  - split: val
    path: val-*.parquet
crop: {crop}
---
# Posed images

{rows}

{kind}

Columns: `image`, `image_id`, `width`, `height`, `objects`, `caption` (every `<pose>` mark follows the
mention of an object), `caption_objects` (the `object_id` of each mark). Angles are radians; boxes, the
principal point (`px`, `py`) and the focal length (`viewport`) are pixels of the image in the row.
"""
KINDS = {
    "object": "A row is one object: the image scaled by distance / 4, 512 x 512 around the object's origin, "
    "brought to {size} x {size} (the published crop; it uses the true distance).",
    "box": "A row is one object: the square of 1.2 times the box's longer side, brought to {size} x {size}.",
    "scene": "A row is a whole image with all its objects.",
}


def convert(settings: Settings, out: Path, limit: int | None, workers: int, on_error: str, overwrite: bool) -> None:
    """Write the data folder ``out`` and report each split.

    Raises:
        UserError: the input or the output folder is wrong; nothing is left behind.
    """
    splits = read_lists(settings.root, settings.categories)
    lines = []
    with new_folder(out, overwrite) as folder:
        for split, tasks in splits.items():
            writer = ShardWriter(folder, split)
            tasks = limited(tasks, limit)
            skipped = write_split(writer, tasks, settings, workers, on_error)
            lines.append(f"{split}: {writer.rows} rows from {len(tasks)} images")
            lines += [f"{split}: left out: {reason}: {count}" for reason, count in sorted(skipped.items())]
        card = CARD.format(
            crop=settings.crop,
            rows="\n".join(f"- {line}" for line in lines),
            kind=KINDS[settings.crop].format(size=settings.size),
        )
        (folder / "README.md").write_text(card, encoding="utf-8")
    print("\n".join(lines))


def positive(text: str) -> int:
    """A whole number above 0, for argparse."""
    value = int(text)
    if value < 1:
        raise ValueError(text)
    return value


def main(argv: Sequence[str] | None = None) -> None:
    """Parse the command line and convert."""
    parser = argparse.ArgumentParser(description="Turn the ImageNet3D layout into Parquet shards.")
    parser.add_argument("--root", type=Path, required=True, help="folder with lists/ and the images")
    parser.add_argument("--out", type=Path, required=True, help="data folder to write")
    parser.add_argument("--crop", choices=["object", "box", "scene"], default="object")
    parser.add_argument("--size", type=positive, help="side of an object or box crop in pixels (default 512)")
    parser.add_argument("--categories", type=Path, help="file of the category names to keep, one a line")
    parser.add_argument("--limit", type=positive, help="at most this many images a split, from all categories")
    parser.add_argument("--workers", type=positive, default=os.cpu_count() or 1)
    parser.add_argument("--on-error", choices=["stop", "skip"], default="stop", help="what a damaged file does")
    parser.add_argument("--overwrite", action="store_true", help="replace an earlier output")
    options = parser.parse_args(argv)
    if options.crop == "scene" and options.size is not None:
        raise UserError("--size: whole scenes keep their size; give it with --crop object or box")
    settings = Settings(
        root=options.root,
        crop=options.crop,
        size=options.size or PUBLISHED_SIZE,
        categories=frozenset(read_category_file(options.categories)) if options.categories else None,
    )
    convert(settings, options.out, options.limit, options.workers, options.on_error, options.overwrite)


if __name__ == "__main__":
    run_cli(main)
