"""Textures of models: read, made small, and refused politely: a picture that cannot be had leaves the plain colour."""

from __future__ import annotations

import io
import warnings

import numpy as np
from PIL import Image

from data_prep.rendering.cad.model import Beside, Pixels

SIDE = 512  # longest side that is kept: an object seldom spans more pixels than that
_MOST_PIXELS = 64_000_000


def read_texture(name: str, beside: Beside, notes: list[str]) -> Pixels | None:
    """The picture (h, w, 3) in a file beside the model; None and a note where it cannot be had."""
    data = beside.read(name, notes)
    if data is None:
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the check below is stricter
            with Image.open(io.BytesIO(data)) as image:
                return shrunk(image)
    except Exception as error:  # whatever a broken picture leads its decoder to
        notes.append(f"texture {name!r} cannot be read ({type(error).__name__}: {error})")
        return None


def shrunk(image: Image.Image) -> Pixels:
    """A picture as (h, w, 3), its longest side at most ``SIDE``. Raises ValueError on one that is far too large."""
    if image.width * image.height > _MOST_PIXELS:
        raise ValueError(f"{image.width} x {image.height} pixels, more than {_MOST_PIXELS}")
    image.draft("RGB", (SIDE, SIDE))
    image = image.convert("RGB")
    image.thumbnail((SIDE, SIDE), Image.Resampling.BOX)
    return np.asarray(image)
