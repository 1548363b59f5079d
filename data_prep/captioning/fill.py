"""Write the captions of a data folder anew: all of its shards, or none."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from data_prep.conversion.shards import rewrite_columns
from data_prep.conversion.stamp import renew_stamp
from llava_pose.errors import UserError
from llava_pose.scene import PosedObject, shard_rows

Change = Callable[[dict[str, Any]], dict[str, Any]]
"""From a row without its image to its ``caption`` and ``caption_objects`` columns."""


def columns(caption: str, marks: Sequence[int]) -> dict[str, Any]:
    """The two columns."""
    return {"caption": caption, "caption_objects": list(marks)}


def objects_of(row: dict[str, Any]) -> list[PosedObject]:
    """The objects of a row."""
    return [PosedObject(**{**item, "bbox": tuple(item["bbox"])}) for item in row["objects"]]


def row_seed(row: dict[str, Any]) -> str:
    """What the phrasing of a row's template caption is drawn by: its image and objects."""
    return "#".join([row["image_id"], *(str(item["object_id"]) for item in row["objects"])])


def data_shards(folder: Path) -> list[tuple[Path, int]]:
    """The shards of a data folder and their numbers of rows.

    Raises:
        UserError: the folder is missing, or its shards are not those of a posed data set.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: data folder does not exist")
    shards = sorted(folder.glob("*-*-of-*.parquet"))
    if not shards:
        raise UserError(f"{folder}: data folder holds no Parquet shards")
    return [(shard, shard_rows(shard)) for shard in shards]


def fill(folder: Path, change: Change) -> int:
    """Write the captions of every row of a data folder; returns the number of rows.

    All shards are written beside the old ones before the first is replaced.

    Raises:
        UserError: the folder is not that of a posed data set, or cannot be written.
    """
    shards = [shard for shard, _ in data_shards(folder)]
    partial = [shard.with_name(f".{shard.name}.partial") for shard in shards]
    try:
        rows = sum(
            rewrite_columns(shard, target, ("caption", "caption_objects"), change)
            for shard, target in zip(shards, partial, strict=True)
        )
        for shard, target in zip(shards, partial, strict=True):
            os.replace(target, shard)
        renew_stamp(folder)
    except OSError as error:
        raise UserError(f"{folder}: captions cannot be written: {error.strerror or error}") from error
    finally:
        for target in partial:
            target.unlink(missing_ok=True)
    return rows
