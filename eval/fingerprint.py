"""What a run's predictions depend on, as a few words a field: work is taken up again only where all of them agree."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from llava_pose.errors import UserError
from llava_pose.scene import shard_rows

SAMPLES = 512
"""Values looked at of each weight: evenly spread, so that any training is seen, if not every change of one
value."""


def model_fingerprint(model: Any, processor: Any) -> str:
    """A digest of a model as it was loaded, wherever its files lie: ``SAMPLES`` values of each of its weights, its
    configuration, calibration, tokenizer, chat template and image sizes."""
    digest = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        flat = value.detach().reshape(-1)
        some = flat[:: max(1, flat.numel() // SAMPLES)].to("cpu", torch.float32)
        digest.update(f"{name} {tuple(value.shape)} {value.dtype}".encode() + some.numpy().tobytes())
    # The folder's own name and library versions are no part of what the model says.
    settings = {k: v for k, v in model.config.to_dict().items() if k not in ("_name_or_path", "transformers_version")}
    calibration = None if model.calibration is None else dataclasses.asdict(model.calibration)
    parts = [settings, calibration, processor.image_processor.to_dict(), str(processor.chat_template)]
    digest.update(json.dumps(parts, sort_keys=True, default=str).encode())
    digest.update(processor.tokenizer.backend_tokenizer.to_str().encode())
    return digest.hexdigest()[:16]


def data_fingerprint(folder: str | Path, split: str) -> str:
    """The number of rows and shards of a split, and a digest of the shards' names, sizes and footers, where Parquet
    keeps the place, size and range of every column: another data set is told by it without reading any image."""
    shards = sorted(Path(folder).glob(f"{split}-*.parquet"))
    digest = hashlib.sha256()
    for shard in shards:
        size = shard.stat().st_size
        with shard.open("rb") as file:
            file.seek(-8, 2)
            footer = int.from_bytes(file.read(4), "little")
            file.seek(-8 - footer, 2)
            digest.update(f"{shard.name} {size} ".encode() + file.read(footer))
    rows = sum(shard_rows(shard) for shard in shards)
    return f"{rows} rows in {len(shards)} shards, {digest.hexdigest()[:16]}"


def names_fingerprint(categories: Sequence[str]) -> str:
    """How many names, the first, and a digest of all in their order."""
    digest = hashlib.sha256("\n".join(categories).encode()).hexdigest()[:16]
    return f"{len(categories)} from {categories[0]!r}, {digest}"


def file_fingerprint(path: str | Path) -> str:
    """A digest of a file."""
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()[:16]


def check_same(earlier: Mapping[str, Any], now: Mapping[str, Any], place: str) -> None:
    """Raises UserError naming the first field in which what lies at ``place`` is of another run than this one."""
    for field in [*now, *(name for name in earlier if name not in now)]:
        if earlier.get(field) != now.get(field):
            raise UserError(
                f"{place}: {field}: holds predictions with {earlier.get(field)}, this run has {now.get(field)}; "
                "give another --out, or --overwrite"
            )
