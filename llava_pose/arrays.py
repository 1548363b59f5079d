"""Pictures that are already in memory as NumPy arrays or torch tensors."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
from PIL import Image

from .errors import UserError

CHANNELS = {1: "L", 3: "RGB", 4: "RGBA"}
SLACK = 1e-3
"""How far a float may lie outside 0 to 1: resizing overshoots by rounding."""

_ROWS_AT_ONCE = 256


def is_array(values: Any) -> bool:
    """Whether this is an array or a tensor."""
    return isinstance(values, np.ndarray) or _is_tensor(values)


def picture_of(values: Any, name: str) -> Image.Image:
    """The PIL image of an array or a tensor.

    values: (H, W), (H, W, C) or (C, H, W) with C = 1 (grey), 3 (RGB) or 4 (RGB and alpha), as uint8, as uint16 or as
    floats from 0 to 1. Where both ends could be the channels, a tensor's come first, as torch keeps them, and an
    array's come last, as everybody else does.

    Raises UserError, telling ``name``, for any other shape, type or value.
    """
    channels_first = _is_tensor(values)
    pixels = _bytes(_channels_last(_array(values), channels_first, name), name)
    return Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)


def _is_tensor(values: Any) -> bool:
    # Whoever hands in a tensor has imported torch; nobody else has to wait for it.
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(values, torch.Tensor)


def _array(values: Any) -> np.ndarray:
    if not _is_tensor(values):
        return values
    # NumPy has no bfloat16.
    wide = values.detach().float() if values.dtype == sys.modules["torch"].bfloat16 else values.detach()
    return wide.cpu().numpy()


def _channels_last(array: np.ndarray, channels_first: bool, name: str) -> np.ndarray:
    if array.ndim == 2:
        array = array[..., None]
    ends = (0, -1) if channels_first and array.ndim == 3 else (-1, 0)
    if array.ndim == 3 and 0 not in array.shape:
        for end in ends:
            if array.shape[end] in CHANNELS:
                return np.moveaxis(array, end, -1)
    raise UserError(f"{name}: shape {array.shape}: expected (H, W), (H, W, C) or (C, H, W) with C = 1, 3 or 4")


def _bytes(array: np.ndarray, name: str) -> np.ndarray:
    """Values (H, W, C) as uint8."""
    if array.dtype == np.uint8:
        return np.ascontiguousarray(array)
    if array.dtype == np.uint16:
        scale = 1 / 257
    elif array.dtype.kind == "f":
        low, high = float(array.min()), float(array.max())
        if not (low >= -SLACK and high <= 1 + SLACK):  # what holds a NaN has one for both
            raise UserError(
                f"{name}: values from {low:g} to {high:g}: floats must lie in 0 to 1, other values be uint8"
            )
        scale = 255.0
    else:
        raise UserError(f"{name}: values of type {array.dtype}: expected uint8, uint16 or floats from 0 to 1")
    pixels = np.empty(array.shape, dtype=np.uint8)
    for top in range(0, len(array), _ROWS_AT_ONCE):  # a large array is never held a second time as floats
        rows = slice(top, top + _ROWS_AT_ONCE)
        pixels[rows] = np.rint(np.clip(array[rows].astype(np.float64) * scale, 0, 255))
    return pixels
