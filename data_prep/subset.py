"""Make a data folder whose training split is a part of another's, for few-shot and open-vocabulary training.

    python data_prep/subset.py --data data/imagenet3d --out data/ten-shot --per-category 10
    python data_prep/subset.py --data data/imagenet3d --out data/known --vocabulary known

Of each category at most K training objects, drawn by the seed; or training objects of some categories alone: those
that the open-vocabulary task trains on, or those of a file. A row is taken whole or not at all. The other splits stay
as they are, so that what is trained on the part is evaluated on all: eval/benchmark.py with the new folder has a table
by how many training objects a category has, and one of known and novel categories.
"""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from data_prep.captioning.fill import data_shards
from data_prep.conversion.shards import open_shard, shard_name
from data_prep.conversion.stamp import renew_stamp
from llava_pose import taxonomy
from llava_pose.arguments import CommandParser, whole_number
from llava_pose.errors import UserError, run_cli
from llava_pose.scene import features

TRAIN = "train"


def main() -> None:
    """Choose the rows and write the folder."""
    parser = CommandParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="a folder that a data_prep script wrote")
    parser.add_argument("--out", type=Path, required=True, help="the folder to write (new)")
    parser.add_argument("--per-category", type=whole_number, metavar="K", help="at most so many objects of a category")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--vocabulary", choices=["known"], help="the categories the open-vocabulary task trains on")
    which.add_argument("--categories", type=Path, metavar="FILE", help="the categories to keep, one a line")
    parser.add_argument("--seed", type=int, default=0, help="which objects are drawn (default 0)")
    options = parser.parse_args()
    if options.seed < 0:
        raise UserError(f"--seed: must be 0 or above, got {options.seed}")
    if options.per_category is None and options.vocabulary is None and options.categories is None:
        raise UserError("--per-category, --vocabulary or --categories: say which part is wanted")
    taxonomy.use_folder(options.data)
    kept = taxonomy.read_category_file(options.categories) if options.categories else None
    names = taxonomy.known() if options.vocabulary else None if kept is None else frozenset(kept)
    found = write_subset(options.data, options.out, options.per_category, names, options.seed)
    print(f"{options.out}: {found.total()} training objects of {len(found)} categories")


def write_subset(
    data: Path, out: Path, per_category: int | None, names: frozenset[str] | None, seed: int
) -> Counter[str]:
    """Write the folder, whole or not at all; returns how many training objects of each category are in it.

    Raises:
        UserError: the data is wrong or has no training split, nothing is left, or ``out`` is there or cannot be made.
    """
    shards = [path for path, _ in data_shards(data)]
    train = [path for path in shards if path.name.startswith(f"{TRAIN}-")]
    if not train:
        raise UserError(f"{data}: no split {TRAIN!r}")
    if out.exists():
        raise UserError(f"{out}: is there already; name a new folder")
    rows = categories_of(train)
    chosen = choose(rows, per_category, names, seed)
    if not chosen.any():
        raise UserError(f"{data}: split {TRAIN!r}: no row of these categories")
    found = Counter(name for row, wanted in zip(rows, chosen, strict=True) if wanted for name in row)
    try:
        with tempfile.TemporaryDirectory(dir=out.absolute().parent, prefix=f".{out.name}.") as place:
            partial = Path(place) / "data"
            partial.mkdir()
            copy_rows(train, chosen, partial / shard_name(TRAIN, 0, 1))
            for path in data.iterdir():
                if path.is_file() and path not in train and not path.name.startswith("."):
                    shutil.copyfile(path, partial / path.name)
            describe(partial, found)
            os.replace(partial, out)
    except OSError as error:
        raise UserError(f"{out}: cannot be written: {error.strerror}") from error
    return found


def categories_of(shards: Sequence[Path]) -> list[list[str]]:
    """The categories of every row's objects."""
    tables = [pq.read_table(path, columns=["objects"]) for path in shards]
    return [[item["category"] for item in row] for row in pa.concat_tables(tables)["objects"].to_pylist()]


def choose(
    rows: Sequence[Sequence[str]], per_category: int | None, names: frozenset[str] | None, seed: int
) -> np.ndarray:
    """Which rows (N,) are taken, given the categories of their objects: by turns of chance, as long as none of a row's
    categories has its number already; never one with an object of another category than ``names``."""
    chosen, count = np.zeros(len(rows), dtype=bool), Counter[str]()
    for number in np.random.default_rng(seed).permutation(len(rows)):
        row = Counter(rows[number])
        wanted = bool(row) and (names is None or row.keys() <= names)
        if wanted and (per_category is None or all(count[name] + more <= per_category for name, more in row.items())):
            chosen[number] = True
            count += row
    return chosen


def copy_rows(shards: Sequence[Path], chosen: np.ndarray, target: Path) -> None:
    """Write these rows of all shards, in their order, as one, a row group at a time."""
    start = 0
    with open_shard(target, features().arrow_schema) as writer:
        for path in shards:
            with pq.ParquetFile(path) as shard:
                for group in range(shard.num_row_groups):
                    table = shard.read_row_group(group)
                    part = table.filter(pa.array(chosen[start : start + len(table)]))
                    start += len(table)
                    if len(part):
                        writer.write_table(part)


def describe(folder: Path, found: Counter[str]) -> None:
    """Say in the folder's card, if it has one, what part of the data it is."""
    card = folder / "README.md"
    if card.is_file():
        part = f"The training split is a part, {found.total()} objects of {len(found)} categories, of what follows."
        head, title, rest = card.read_text(encoding="utf-8").partition("\n# ")
        heading, _, body = rest.partition("\n")
        card.write_text(f"{head}{title}{heading}\n\n{part}\n{body}", encoding="utf-8")
        renew_stamp(folder)


if __name__ == "__main__":
    run_cli(main)
