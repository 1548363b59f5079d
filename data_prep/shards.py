"""Parquet shards of posed images: written whole or not at all, in bounded memory, the same bytes every
time."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from llava_pose.errors import UserError
from llava_pose.scene import features

ROWS_PER_GROUP = 64
ROWS_PER_SHARD = 4096
_OUR_FILES = re.compile(r"(train|val)-\d{5}-of-\d{5}\.parquet|README\.md|taxonomy\.json")


def open_shard(path: Path) -> pq.ParquetWriter:
    """A writer of one shard; images do not compress and do not repeat, so neither is tried on any column."""
    return pq.ParquetWriter(path, features().arrow_schema, compression="none", use_dictionary=False)


class ShardWriter:
    """Writes the rows of one split as ``{split}-00000-of-0000N.parquet`` in a folder, a row group at a
    time."""

    def __init__(self, folder: Path, split: str) -> None:
        self.folder, self.split = folder, split
        self.rows = 0
        self._group: list[dict[str, Any]] = []
        self._parts: list[Path] = []
        self._writer: pq.ParquetWriter | None = None

    def add(self, row: dict[str, Any]) -> None:
        """Add a row whose image is already ``{"bytes": …, "path": None}``."""
        self._group.append(row)
        self.rows += 1
        if len(self._group) == ROWS_PER_GROUP:
            self._flush()
        if self.rows % ROWS_PER_SHARD == 0:
            self._close_part()

    def close(self) -> None:
        """Finish the last shard and give all of them their final names."""
        self._flush()
        self._close_part()
        for index, part in enumerate(self._parts):
            part.rename(self.folder / f"{self.split}-{index:05d}-of-{len(self._parts):05d}.parquet")

    def _flush(self) -> None:
        if not self._group:
            return
        if self._writer is None:
            self._parts.append(self.folder / f"{self.split}-{len(self._parts):05d}.part")
            self._writer = open_shard(self._parts[-1])
        self._writer.write_table(pa.Table.from_pylist(self._group, schema=features().arrow_schema))
        self._group.clear()

    def _close_part(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None


@contextmanager
def new_folder(out: Path, overwrite: bool) -> Iterator[Path]:
    """A folder to write in, which becomes ``out`` when the block ends well and vanishes when it fails.

    Raises:
        UserError: ``out`` is there and not empty, and either ``overwrite`` is false or it holds files that
        are no
            earlier output of these scripts; or it cannot be made.
    """
    _check_replaceable(out, overwrite)
    # Beside the target, so that the rename stays within one file system; left by a killed run, it is cleared.
    partial, earlier = (out.absolute().parent / f".{out.absolute().name}.{kind}" for kind in ("partial", "old"))
    try:
        for leftover in (partial, earlier):
            shutil.rmtree(leftover, ignore_errors=True)
        partial.mkdir(parents=True)
    except OSError as error:
        raise UserError(f"{out}: output folder cannot be made: {error.strerror}") from error
    try:
        yield partial
        if out.exists():
            out.rename(earlier)
        partial.rename(out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        shutil.rmtree(earlier, ignore_errors=True)


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


def rewrite_columns(source: Path, target: Path, columns: Iterable[str], change: Any) -> int:
    """Copy a shard with some columns computed anew by ``change(row)``, a dict of those columns for a row.

    ``change`` is given the rows without their images. Returns the number of rows.
    """
    schema = features().arrow_schema
    rows = 0
    with pq.ParquetFile(source) as shard, open_shard(target) as writer:
        for index in range(shard.num_row_groups):
            table = shard.read_row_group(index)
            changed = [change(row) for row in table.drop_columns(["image"]).to_pylist()]
            for name in columns:
                values = pa.array([values[name] for values in changed], type=schema.field(name).type)
                table = table.set_column(table.schema.get_field_index(name), schema.field(name), values)
            writer.write_table(table)
            rows += len(changed)
    return rows
