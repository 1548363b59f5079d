"""Open the pictures people hand in, cut out the boxes they mean, and save pictures whole or not at all."""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from PIL import Image, ImageOps, UnidentifiedImageError

from .errors import UserError

Box = tuple[float, float, float, float]
"""x1, y1, x2, y2 in pixels of the upright picture, as every viewer shows it."""

BOX_MARGIN = 1.2
"""How much wider than a given box the model looks: what is around an object helps, and boxes are drawn loosely."""


def open_image(image: Any) -> Image.Image:
    """The image in a file, or a PIL image, turned upright by its EXIF. Raises UserError naming the file."""
    if isinstance(image, Image.Image):
        return ImageOps.exif_transpose(image)
    with _reading(image), Image.open(image) as opened:
        return ImageOps.exif_transpose(opened)


def image_size(path: str | Path) -> tuple[int, int]:
    """Width and height of the upright picture in a file, from its header alone. Raises UserError naming the file."""
    with _reading(path), Image.open(path) as opened:
        quarter_turned = opened.getexif().get(0x0112, 1) >= 5  # orientations 5 to 8 lay the picture on its side
        return (opened.height, opened.width) if quarter_turned else opened.size


@contextmanager
def _reading(path: Any) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such image file") from error
    except IsADirectoryError as error:
        raise UserError(f"{path}: a folder, not an image") from error
    except UnidentifiedImageError as error:
        raise UserError(f"{path}: not an image that can be read") from error
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise UserError(f"{path}: not an image that can be read: {error}") from error


def check_box(box: Box, size: tuple[int, int]) -> None:
    """Raises UserError for a box without area, or outside a picture of this width and height."""
    x1, y1, x2, y2 = box
    text = ",".join(f"{value:g}" for value in box)
    if not all(math.isfinite(value) for value in box):
        raise UserError(f"box: {text}: every number must be finite")
    if not (x1 < x2 and y1 < y2):
        raise UserError(f"box: {text} has no area (x1 < x2 and y1 < y2 are needed)")
    if x2 <= 0 or y2 <= 0 or x1 >= size[0] or y1 >= size[1]:
        raise UserError(f"box: {text} lies outside the image of {size[0]}x{size[1]} pixels")


def crop_box(image: Image.Image, box: Box | None) -> Image.Image:
    """The square around a box with ``BOX_MARGIN``, black beyond the picture; all of the picture for None.

    A box that reaches beyond the picture is cut to it first, as the boxes of training are. Raises UserError for a box
    without area or outside the image.
    """
    if box is None:
        return image
    check_box(box, image.size)
    x1, y1 = max(box[0], 0.0), max(box[1], 0.0)
    x2, y2 = min(box[2], float(image.width)), min(box[3], float(image.height))
    # A sliver of a box still gives a picture of one pixel.
    half = max(x2 - x1, y2 - y1, 1.0) * BOX_MARGIN / 2
    x, y = (x1 + x2) / 2, (y1 + y2) / 2
    left, top, side = round(x - half), round(y - half), max(round(2 * half), 1)
    return image.convert("RGB").crop((left, top, left + side, top + side))


def check_png_target(path: str | Path) -> None:
    """Raises UserError unless a PNG file can be written under this name; leaves no trace."""
    path = Path(path)
    if path.suffix.lower() != ".png":
        raise UserError(f"{path}: a picture is saved as PNG: give a name that ends in .png")
    if path.is_dir():
        raise UserError(f"{path}: a folder, not a file to save a picture in")
    try:
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise UserError(f"{path}: cannot write into the folder {path.parent}: {error.strerror}") from error


def save_png(image: Image.Image, path: str | Path) -> None:
    """Write a PNG that appears under its name only when it is whole. Raises UserError where it cannot be written."""
    path = Path(path)
    check_png_target(path)
    partial = path.with_name(f".{path.name}.partial-{os.getpid()}")
    try:
        image.save(partial, format="PNG")
        os.replace(partial, path)
    except OSError as error:
        raise UserError(f"{path}: cannot save the picture: {error}") from error
    finally:
        partial.unlink(missing_ok=True)
