"""Which base an adapter belongs to: a few of its weights, kept in the adapter's config and looked at when it is opened.

A name is not enough: a folder is overwritten, a hub name moves on, a path means another model elsewhere. The sample is
read from the base's files, so it is the same however the base is loaded (in half precision, in four bits).
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from .errors import UserError
from .folders import model_source, optional_file

TENSORS, VALUES = 24, 4
"""So many tensors, spread over the sorted names, and so many values of each."""

COPY_TOLERANCE = 0.01
"""The relative difference that a copy in another precision may have: rounding to bfloat16 is at most 2⁻⁸ of a value."""


def sample_weights(base: str, loaded_as: str) -> dict[str, Any]:
    """What an adapter's config keeps of its base: its name, in which precision (such as "nf4") the adapter was trained
    beside it, and of some of its tensors shape, dtype and a few values.

    Raises UserError where ``base`` (a folder, a hub name, "embedded") holds no safetensors that can be read.
    """
    files = _tensor_files(base)
    names = sorted(files)
    chosen = sorted({names[round(k * (len(names) - 1) / (TENSORS - 1))] for k in range(TENSORS)})
    try:
        return {"name": base, "loaded_as": loaded_as, "tensors": {name: _sample(files[name], name) for name in chosen}}
    except (OSError, SafetensorError) as error:
        raise UserError(f"{base}: its weights cannot be read: {error}") from error


def check_base(adapter: Path | str, base: str, expected: dict[str, Any]) -> None:
    """Raises UserError, naming both, where the weights of ``base`` are not those in ``expected``, the sample kept by
    the adapter. Stored in the same precision the values must be equal; a copy in another one must be as near as
    rounding leaves it."""
    trained_on = expected["name"]
    other = f"{trained_on} as it was then" if base == trained_on else trained_on
    refusal = f"{adapter}: an adapter of {other}, not of {base}"
    files = _tensor_files(base)
    for name, kept in expected["tensors"].items():
        if name not in files:
            raise UserError(f"{refusal}: that one has no {name}")
        found = _sample(files[name], name)
        if found["shape"] != kept["shape"]:
            raise UserError(f"{refusal}: {name} is {found['shape']}, expected {kept['shape']}")
        exact = found["dtype"] == kept["dtype"]
        size = max(math.hypot(*kept["values"]), 1e-6)
        if math.dist(found["values"], kept["values"]) > (0.0 if exact else COPY_TOLERANCE * size):
            raise UserError(f"{refusal}: {name} holds other values")


def _tensor_files(base: str) -> dict[str, Path]:
    """The safetensors file of every tensor of a model's own weights: for an adapter, the adapter's."""
    source = model_source(base)
    for name in ("adapter_model.safetensors", "model.safetensors"):
        file = optional_file(source, name)
        if file is not None:
            with safe_open(file, "pt") as opened:
                return dict.fromkeys(opened.keys(), file)
    index = optional_file(source, "model.safetensors.index.json")
    if index is None:
        raise UserError(f"{base}: holds no safetensors weights")
    shard_of: dict[str, str] = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
    paths = {shard: optional_file(source, shard) for shard in set(shard_of.values())}
    missing = [shard for shard, path in paths.items() if path is None]
    if missing:
        raise UserError(f"{base}: {missing[0]} is missing")
    return {name: Path(str(paths[shard])) for name, shard in shard_of.items()}


def _sample(file: Path, name: str) -> dict[str, Any]:
    with safe_open(file, "pt") as opened:
        stored = opened.get_slice(name)
        shape: list[int] = stored.get_shape()
        # From the middle: the first rows of a vocabulary are the same in many models, and often zero.
        row = stored[shape[0] // 2 : shape[0] // 2 + VALUES] if shape else opened.get_tensor(name)
    values = row.flatten()[:VALUES].to(torch.float32)
    return {"shape": shape, "dtype": str(row.dtype).removeprefix("torch."), "values": values.tolist()}
