"""Parquet shards of posed images: written whole or not at all, in bounded memory, the same bytes every time."""

from __future__ import annotations

import contextlib
import os
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from llava_pose.scene import features

ROWS_PER_GROUP = 64


def shard_name(split: str, index: int, count: int) -> str:
    """The file name of one of ``count`` shards of a split, in the form that datasets and the hub know."""
    return f"{split}-{index:05d}-of-{count:05d}.parquet"


def checksum(path: Path) -> int:
    """The CRC-32 of a file."""
    total = 0
    with open(path, "rb") as file:
        while block := file.read(2**20):
            total = zlib.crc32(block, total)
    return total


def open_shard(path: Path, schema: pa.Schema) -> pq.ParquetWriter:
    """A writer of one shard; images do not compress and do not repeat, so neither is tried on any column."""
    return pq.ParquetWriter(path, schema, compression="none", use_dictionary=False)


class ShardWriter:
    """Writes one shard into a folder, a row group at a time; it has its name once it is closed.

    Used as a context, it leaves nothing behind when the block fails. ``schema``: that of ``features()``, which takes a
    second to import, where the caller has it already.
    """

    def __init__(
        self, folder: Path, split: str, index: int = 0, count: int = 1, schema: pa.Schema | None = None
    ) -> None:
        self._schema = schema or features().arrow_schema
        self.path = folder / shard_name(split, index, count)
        self.rows = 0
        self._group: list[dict[str, Any]] = []
        self._partial = self.path.with_name(f".{self.path.name}.partial")
        self._writer = open_shard(self._partial, self._schema)

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        if kind is None:
            self.close()
            return
        with contextlib.suppress(OSError):  # a full disk refuses the end of the file as well
            self._writer.close()
        self._partial.unlink(missing_ok=True)

    def add(self, row: dict[str, Any]) -> None:
        """Add a row whose image is already ``{"bytes": …, "path": None}``."""
        self._group.append(row)
        self.rows += 1
        if len(self._group) == ROWS_PER_GROUP:
            self._flush()

    def close(self) -> None:
        """Write what is left and give the shard its name."""
        self._flush()
        self._writer.close()
        os.replace(self._partial, self.path)

    def _flush(self) -> None:
        if self._group:
            self._writer.write_table(pa.Table.from_pylist(self._group, schema=self._schema))
            self._group.clear()


def rewrite_columns(source: Path, target: Path, columns: Iterable[str], change: Any) -> int:
    """Copy a shard with some columns computed anew by ``change(row)``, a dict of those columns for a row.

    ``change`` is given the rows without their images. Returns the number of rows.
    """
    schema = features().arrow_schema
    rows = 0
    with pq.ParquetFile(source) as shard, open_shard(target, schema) as writer:
        for index in range(shard.num_row_groups):
            table = shard.read_row_group(index)
            changed = [change(row) for row in table.drop_columns(["image"]).to_pylist()]
            for name in columns:
                values = pa.array([values[name] for values in changed], type=schema.field(name).type)
                table = table.set_column(table.schema.get_field_index(name), schema.field(name), values)
            writer.write_table(table)
            rows += len(changed)
    return rows
