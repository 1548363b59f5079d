"""Fill the captions of a data folder, each mention of an object followed by its <pose> mark.

    python data_prep/captions.py --data DIR --writer template

Every caption is written anew from the row's objects. The phrasing is drawn by the image's name, so the same
data gets the same captions. No caption speaks of left or right: all stay true when the image is flipped.
"""

from __future__ import annotations

import argparse
import os
import random
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from data_prep.shards import rewrite_columns
from llava_pose.errors import UserError, run_cli
from llava_pose.scene import POSE_MARK, PosedObject, shard_rows
from llava_pose.taxonomy import with_article

MAX_MENTIONS = 6
"""A caption speaks of this many objects at most, those with the largest boxes."""

_FRAMES = (
    "{}.",
    "A photo of {}.",
    "A picture of {}.",
    "An image of {}.",
    "This photo shows {}.",
    "The picture shows {}.",
    "In this image there is {}.",
    "We see {} here.",
)
_APART = ("and", "with", "together with", "along with")
_CLOSE = ("next to", "beside", "close to")
_FARTHER = ("behind", "farther away than")
_NEARER = ("in front of", "nearer than")


def template_caption(objects: Sequence[PosedObject], seed: str) -> tuple[str, tuple[int, ...]]:
    """A caption of the objects, and the ``object_id`` of each of its ``<pose>`` marks in order.

    ``seed`` picks the phrasing and the order of mention. Two objects are related in ways that a horizontal
    flip keeps: close by, or nearer and farther, the latter only between objects of one category, because a
    distance is in units of the object's own size.
    """
    rng = random.Random(seed)
    shown = sorted(objects, key=lambda item: (-_area(item.bbox), item.object_id))[:MAX_MENTIONS]
    rng.shuffle(shown)
    frame = rng.choice(_FRAMES)
    mentions = [f"{name} {POSE_MARK}" for name in _names(shown)]
    if len(shown) == 2:
        text = f"{mentions[0]} {rng.choice(_relations(shown[0], shown[1]))} {mentions[1]}"
    elif len(shown) > 2:
        text = f"{', '.join(mentions[:-1])} and {mentions[-1]}"
    else:
        text = mentions[0]
    caption = frame.format(text)
    return caption[0].upper() + caption[1:], tuple(item.object_id for item in shown)


def _names(objects: Sequence[PosedObject]) -> list[str]:
    """Each object's name with its article, a second one of a category being another."""
    seen: Counter[str] = Counter()
    names = []
    for item in objects:
        first = with_article(item.category)
        again = f"another {first.split(' ', 1)[1]}" if seen[item.category] else first
        names.append(again)
        seen[item.category] += 1
    return names


def _relations(a: PosedObject, b: PosedObject) -> Sequence[str]:
    if a.category == b.category and a.distance > 1.3 * b.distance:
        return _FARTHER
    if a.category == b.category and b.distance > 1.3 * a.distance:
        return _NEARER
    gap_x = max(a.bbox[0], b.bbox[0]) - min(a.bbox[2], b.bbox[2])
    gap_y = max(a.bbox[1], b.bbox[1]) - min(a.bbox[3], b.bbox[3])
    reach = 0.25 * (_area(a.bbox) ** 0.5 + _area(b.bbox) ** 0.5) / 2
    return _CLOSE if max(gap_x, gap_y) < reach else _APART


def _area(bbox: Sequence[float]) -> float:
    return (bbox[2] - bbox[0]) * (bbox[3] - bbox[1])


def caption_of_row(row: dict[str, Any]) -> dict[str, Any]:
    """The ``caption`` and ``caption_objects`` columns of a row, by the template."""
    objects = [PosedObject(**item) for item in row["objects"]]
    seed = "#".join([row["image_id"], *(str(item.object_id) for item in objects)])
    caption, marks = template_caption(objects, seed)
    return {"caption": caption, "caption_objects": list(marks)}


def fill(folder: Path) -> int:
    """Write template captions into every shard of a data folder; returns the number of rows.

    All shards are written beside the old ones before the first is replaced.

    Raises:
        UserError: the folder is missing, or its shards are not those of a posed data set.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: data folder does not exist")
    shards = sorted(folder.glob("*-*-of-*.parquet"))
    if not shards:
        raise UserError(f"{folder}: data folder holds no Parquet shards")
    for shard in shards:
        shard_rows(shard)
    partial = [shard.with_name(f".{shard.name}.partial") for shard in shards]
    try:
        rows = sum(
            rewrite_columns(shard, target, ("caption", "caption_objects"), caption_of_row)
            for shard, target in zip(shards, partial, strict=True)
        )
        for shard, target in zip(shards, partial, strict=True):
            os.replace(target, shard)
    finally:
        for target in partial:
            target.unlink(missing_ok=True)
    return rows


def main(argv: Sequence[str] | None = None) -> None:
    """Parse the command line, fill the captions and say how many."""
    parser = argparse.ArgumentParser(description="Fill the captions of a data folder.")
    parser.add_argument("--data", type=Path, required=True, help="a folder that a data_prep script wrote")
    parser.add_argument("--writer", choices=["template"], default="template")
    options = parser.parse_args(argv)
    print(f"{options.data}: {fill(options.data)} captions written by the {options.writer} writer")


if __name__ == "__main__":
    run_cli(main)
