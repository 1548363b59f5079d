"""What a model says of held-out objects, for the scripts that fit its calibration or compare its readings."""

from __future__ import annotations

import argparse
import zlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from llava_pose import checkpoint, taxonomy
from llava_pose.arguments import whole_number
from llava_pose.engine import Engine, Naming
from llava_pose.errors import UserError
from llava_pose.evaluation import batched
from llava_pose.folders import model_source, use_taxonomy_of
from llava_pose.image_inputs import ImageInputs
from llava_pose.scene import PosedImage, load_split

TOP_NAMES = 3


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments that ``open_data`` and ``open_engine`` read."""
    parser.add_argument("--data", required=True, metavar="DIR", help="a data set of object or box crops")
    parser.add_argument("--split", default="val", help="which split (default: val); never one it was trained on")
    parser.add_argument("--categories", metavar="FILE", help="candidate names, one a line (default: those in the data)")
    parser.add_argument("--objects", type=whole_number, default=4000, help="how many to draw at most (default: 4000)")
    parser.add_argument("--batch-size", type=whole_number, default=32, help="objects at a time (default: 32)")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32", help="the model's precision")


def open_data(arguments: argparse.Namespace) -> tuple[Any, list[str]]:
    """The rows that are used, drawn by chance but always the same, and the candidate names.

    Raises UserError for data with several objects in a row or with a category that is not among the names.
    """
    use_taxonomy_of(model_source(arguments.model))
    data = load_split(arguments.data, arguments.split)
    for image_id, row in zip(data["image_id"], data["objects"], strict=True):
        if len(row) != 1:
            raise UserError(f"{image_id}: objects: {len(row)} in a row; make the data with --crop object or box")
    present = sorted({row[0]["category"] for row in data["objects"]})
    categories = taxonomy.read_category_file(arguments.categories) if arguments.categories else present
    missing = sorted(set(present) - set(categories))
    if missing:
        raise UserError(f"{arguments.categories}: {missing[0]!r} is in the data but not among the names")
    chosen = np.sort(np.random.default_rng(0).permutation(len(data))[: arguments.objects])
    return data.select(chosen), categories


def open_engine(arguments: argparse.Namespace) -> Engine:
    """The model as if it had never been calibrated, on the GPU where there is one."""
    model: Any  # transformers types its own ``to`` as if it took a model
    model, processor = checkpoint.load(arguments.model, getattr(torch, arguments.dtype))
    model.calibration = None
    return Engine(model.to("cuda" if torch.cuda.is_available() else "cpu"), processor)


def name_objects(
    engine: Engine, data: Any, categories: Sequence[str], batch_size: int
) -> Iterator[tuple[list[PosedImage], list[Naming], ImageInputs]]:
    """Batches of records, what they are named with the poses at the best names, and what the model saw."""
    trie = engine.name_trie(categories, temperature=1.0)
    rows = tqdm(range(len(data)), desc="objects", unit="object")
    for batch in batched(rows, batch_size):
        records = [PosedImage.from_row(data[row]) for row in batch]
        pixels = engine.pixels([record.image for record in records if record.image is not None], flip=True)
        yield records, engine.name(pixels, trie, top_k=min(TOP_NAMES, len(categories))), pixels


def in_first_half(image_ids: Sequence[str]) -> np.ndarray:
    """Which (N,) objects are in the first of two halves: always the same, and all objects of a picture in one."""
    return np.array([zlib.crc32(image_id.encode()) % 2 == 0 for image_id in image_ids])
