"""Fill the captions of a data folder, each mention of an object followed by its <pose> mark.

    python data_prep/captions.py --data DIR --writer template

Every caption is written anew from the row's objects. The phrasing is drawn by the image's name, so the same
data gets the same captions. No caption speaks of left or right: all stay true when the image is flipped.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from data_prep.caption_templates import template_caption
from data_prep.shards import rewrite_columns
from llava_pose.errors import UserError, run_cli
from llava_pose.scene import PosedObject, shard_rows


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
