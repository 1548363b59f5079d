"""Features of a frozen vision tower, computed once for every image and, where they are wanted, its mirror image.

The file's name is a digest of everything the features depend on (the tower's weights, the image processor's settings,
the images' bytes), so a cache is never wrong, only absent. A batch then costs a read instead of a pass.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from PIL import Image
from tqdm import tqdm

from llava_pose.errors import UserError
from llava_pose.images import open_image

BATCH = 64


class Pictures(Protocol):
    """Pictures whose features are cached: as stored, and as the tower is shown them."""

    views: int
    """1, or 2 where the mirror images are wanted too."""

    def __len__(self) -> int: ...

    def stored(self, start: int, end: int) -> Iterator[bytes]:
        """The bytes of a part of them."""

    def opened(self, start: int, end: int) -> list[Image.Image]:
        """A part of them, decoded."""


class RowPictures:
    """The images of a ``datasets`` split. Through its rows, and not the table behind them: a selection of rows is
    another data set."""

    def __init__(self, data: Any, views: int = 2):
        self.views = views
        self._decoded = data.with_format(None).select_columns(["image"])
        self._stored = data.with_format("arrow").select_columns(["image"])

    def __len__(self) -> int:
        return len(self._decoded)

    def stored(self, start: int, end: int) -> Iterator[bytes]:
        for image in self._stored[start:end]["image"].to_pylist():
            yield image["bytes"]

    def opened(self, start: int, end: int) -> list[Image.Image]:
        return self._decoded[start:end]["image"]


class FilePictures:
    """Pictures in files, never mirrored."""

    views = 1

    def __init__(self, files: Sequence[Path]):
        self._files = files

    def __len__(self) -> int:
        return len(self._files)

    def stored(self, start: int, end: int) -> Iterator[bytes]:
        for file in self._files[start:end]:
            yield file.read_bytes()

    def opened(self, start: int, end: int) -> list[Image.Image]:
        return [open_image(file) for file in self._files[start:end]]


class FeatureCache:
    """Read access to the features (N, views, tokens, channels) bfloat16 of N pictures: view 0 as seen, 1 mirrored."""

    def __init__(self, path: Path):
        # NumPy has no bfloat16: the bits are kept as int16 and viewed again on reading.
        self._bits = np.load(path, mmap_mode="r")

    def __len__(self) -> int:
        return len(self._bits)

    def get(self, number: int, mirrored: bool) -> torch.Tensor:
        """The features (tokens, channels) of one picture."""
        return torch.from_numpy(np.array(self._bits[number, int(mirrored)])).view(torch.bfloat16)


def build_feature_cache(
    model: Any, processor: Any, pictures: Pictures, folder: Path, show_progress: bool, half: bool = False
) -> Path:
    """Compute the cache of the pictures unless it exists, and return its path. ``half``: by the tower in bfloat16, as
    training in half precision has it; a CPU that knows the format takes a quarter to a half of the time.

    Written under another name first: a killed run leaves no half-filled cache behind.
    """
    path = folder / f"{_digest(model, processor, pictures, half)}.npy"
    if path.is_file():
        return path
    folder.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(f".partial-{os.getpid()}")
    channels = model.config.vision_config.hidden_size
    layers = model.config.vision_feature_layer
    channels *= 1 if isinstance(layers, int) else len(layers)
    views = pictures.views
    shape = (len(pictures), views, processor.image_tokens, channels)
    try:
        bits = np.lib.format.open_memmap(partial, mode="w+", dtype=np.int16, shape=shape)
        starts = range(0, len(pictures), BATCH)
        for start in tqdm(starts, desc="vision features", unit="batch", disable=not show_progress):
            pixels = processor.pixels(pictures.opened(start, start + BATCH), flip=views == 2)
            if pixels.tensors.keys() != {"pixel_values"}:
                raise UserError("cache_features: this model sees a picture in tiles; set it to false")
            shown = [pixels] if pixels.mirrored is None else [pixels, pixels.mirrored]
            values = torch.cat([images.tensors["pixel_values"] for images in shown])
            features = tower_features(model, values, half).to(torch.bfloat16)
            each = features.view(views, len(pixels), *shape[2:]).transpose(0, 1).contiguous().cpu()
            bits[start : start + len(pixels)] = each.view(torch.int16).numpy()
        bits.flush()
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
    return path


@torch.inference_mode()
def tower_features(model: Any, pixels: torch.Tensor, half: bool = False) -> torch.Tensor:
    """The tower's selected features (N, tokens, channels), before the projector, as in ``get_image_features``; with
    ``half`` in bfloat16 wherever autocast has it."""
    tower, config = model.model.vision_tower, model.config
    weight = next(tower.parameters())
    with torch.autocast(weight.device.type, torch.bfloat16, enabled=half):
        hidden = tower(pixels.to(weight.device, weight.dtype), output_hidden_states=True).hidden_states
    layers = config.vision_feature_layer
    chosen = torch.cat([hidden[layer] for layer in ([layers] if isinstance(layers, int) else layers)], -1)
    return chosen[:, 1:] if config.vision_feature_select_strategy == "default" else chosen


def _digest(model: Any, processor: Any, pictures: Pictures, half: bool) -> str:
    digest = hashlib.sha256()
    for name, value in sorted(model.model.vision_tower.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    config = model.config
    settings = [
        processor.image_processor.to_json_string(),
        config.vision_feature_layer,
        config.vision_feature_select_strategy,
        config.vision_config.to_json_string(),
        pictures.views,
        half,
    ]
    digest.update(json.dumps(settings).encode())
    # In parts, because the images of a large data set do not fit into memory.
    for start in range(0, len(pictures), BATCH):
        for stored in pictures.stored(start, start + BATCH):
            digest.update(hashlib.sha256(stored).digest())
    return digest.hexdigest()[:32]
