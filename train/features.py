"""Features of a frozen vision tower, computed once for every image and its mirror image.

The file's name is a digest of everything the features depend on (the tower's weights, the image processor's settings,
the images' bytes), so a cache is never wrong, only absent. A batch then costs a read instead of a pass.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

BATCH = 64


class FeatureCache:
    """Read access to the features (N, 2, tokens, channels) bfloat16 of N rows: index 0 as seen, 1 mirrored."""

    def __init__(self, path: Path):
        # NumPy has no bfloat16: the bits are kept as int16 and viewed again on reading.
        self._bits = np.load(path, mmap_mode="r")

    def __len__(self) -> int:
        return len(self._bits)

    def get(self, row: int, mirrored: bool) -> torch.Tensor:
        """The features (tokens, channels) of one row."""
        return torch.from_numpy(np.array(self._bits[row, int(mirrored)])).view(torch.bfloat16)


def build_feature_cache(model: Any, processor: Any, data: Any, folder: Path, show_progress: bool) -> Path:
    """Compute the cache of a ``datasets`` split unless it exists, and return its path.

    Written under another name first: a killed run leaves no half-filled cache behind.
    """
    images = data.with_format(None).select_columns(["image"])
    path = folder / f"{_digest(model, processor, data)}.npy"
    if path.is_file():
        return path
    folder.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(f".partial-{os.getpid()}")
    channels = model.config.vision_config.hidden_size
    layers = model.config.vision_feature_layer
    channels *= 1 if isinstance(layers, int) else len(layers)
    shape = (len(data), 2, processor.image_tokens, channels)
    try:
        bits = np.lib.format.open_memmap(partial, mode="w+", dtype=np.int16, shape=shape)
        starts = range(0, len(data), BATCH)
        for start in tqdm(starts, desc="vision features", unit="batch", disable=not show_progress):
            batch = images[start : start + BATCH]["image"]
            pixels = processor.pixels(batch, flip=True)
            both = torch.cat([images.tensors["pixel_values"] for images in (pixels, pixels.mirrored)])
            features = tower_features(model, both).to(torch.bfloat16)
            pairs = features.view(2, len(batch), *shape[2:]).transpose(0, 1).contiguous().cpu()
            bits[start : start + len(batch)] = pairs.view(torch.int16).numpy()
        bits.flush()
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
    return path


@torch.inference_mode()
def tower_features(model: Any, pixels: torch.Tensor) -> torch.Tensor:
    """The tower's selected features (N, tokens, channels), before the projector, as in ``get_image_features``."""
    tower, config = model.model.vision_tower, model.config
    weight = next(tower.parameters())
    hidden = tower(pixels.to(weight.device, weight.dtype), output_hidden_states=True).hidden_states
    layers = config.vision_feature_layer
    chosen = torch.cat([hidden[layer] for layer in ([layers] if isinstance(layers, int) else layers)], -1)
    return chosen[:, 1:] if config.vision_feature_select_strategy == "default" else chosen


def _digest(model: Any, processor: Any, data: Any) -> str:
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
    ]
    digest.update(json.dumps(settings).encode())
    # Through the rows, and not the table behind them: a selection of rows is another data set. In parts, because the
    # images of a large one do not fit into memory.
    stored = data.with_format("arrow").select_columns(["image"])
    for start in range(0, len(data), BATCH):
        for image in stored[start : start + BATCH]["image"].to_pylist():
            digest.update(hashlib.sha256(image["bytes"]).digest())
    return digest.hexdigest()[:32]
