"""Open the pictures people hand in, cut out the boxes they mean, and save pictures whole or not at all."""

from __future__ import annotations

import io
import math
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from .arrays import is_array, picture_of
from .errors import UserError

Box = tuple[float, float, float, float]
"""x1, y1, x2, y2 in pixels of the upright picture, as every viewer shows it."""

BOX_MARGIN = 1.2
"""How much wider than a given box the model looks: what is around an object helps, and boxes are drawn loosely."""

MAX_PIXELS = 80_000_000
"""The largest picture that is decoded. A small file can claim any size, and decoding takes three bytes a pixel."""

BEHIND = (255, 255, 255)
"""What shows through where a picture is transparent: white, as on most pages."""

SPARE = 3
"""How many times the pixels a model looks at are kept on a side: what is left out by then no longer matters."""

FILE = (str, os.PathLike, io.IOBase)
"""What names or is a picture file: a path, or a binary stream."""

_ORIENTATION = 0x0112
_ON_ITS_SIDE = (5, 6, 7, 8)


def open_image(image: Any, name: str = "image") -> Image.Image:
    """The upright RGB picture in a file (a path or a binary stream), of a PIL image, or of an array or tensor as
    ``arrays.picture_of`` takes them.

    It is turned upright by its EXIF. White shows through where it is transparent, 16 bits a channel become 8, and of an
    animation it is the first frame. Raises UserError naming the file, or ``name`` where there is none.
    """
    if isinstance(image, FILE):
        return _open_file(image, name)
    if is_array(image):
        return _rgb(picture_of(image, name), name)
    if not isinstance(image, Image.Image):
        raise UserError(f"{name}: {type(image).__name__}: expected a path, a PIL image, an array or a tensor")
    with _reading(name):
        return _rgb(_upright(image), name)


def open_views(image: Any, boxes: Sequence[Box | None], side: int, name: str = "image") -> list[Image.Image]:
    """What a model that looks at ``side`` by ``side`` pixels is shown of an image at each box (``crop_box``).

    No view is larger than the model can make use of (``SPARE``), and a JPEG is decoded no larger than its views need:
    huge images cost little time, and many of their views fit in memory.

    Raises UserError for what is no image, and for a box without area or outside the image.
    """
    picture = None if isinstance(image, FILE) else open_image(image, name)
    size = image_size(image, name) if picture is None else picture.size
    for box in boxes:
        if box is not None:
            check_box(box, size, f"{_shown(image, name)}: box")
    least = SPARE * side
    if picture is None:
        spans = [max(size) if box is None else _square(box, size)[2] for box in boxes]
        picture = _open_file(image, name, shrink=min(spans, default=1) / least)
    factor = round(max(size) / max(picture.size))
    views = []
    for box in boxes:
        view = crop_box(picture, None if box is None else scaled(box, 1 / factor))
        by = max(view.size) // least
        views.append(view.reduce(by) if by > 1 else view)
    return views


def image_size(image: Any, name: str = "image") -> tuple[int, int]:
    """Width and height of the upright picture in a file, from its header alone. Raises UserError naming the file."""
    with _reading(_shown(image, name)), Image.open(image) as opened:
        _check_size(opened)
        return (opened.height, opened.width) if opened.getexif().get(_ORIENTATION) in _ON_ITS_SIDE else opened.size


def _open_file(image: Any, name: str, shrink: float = 1.0) -> Image.Image:
    """The picture in a file; a JPEG decoded at a half, a quarter or an eighth where it may be ``shrink`` times smaller,
    which costs less than all of it and averages over what it leaves out."""
    with _reading(_shown(image, name)), Image.open(image) as opened:
        _check_size(opened)
        if shrink > 1:
            opened.draft(None, (max(int(opened.width / shrink), 1), max(int(opened.height / shrink), 1)))
        opened.load()
        return _rgb(_upright(opened), name)


def _upright(image: Image.Image) -> Image.Image:
    return ImageOps.exif_transpose(image) if image.getexif().get(_ORIENTATION, 1) != 1 else image


def _rgb(image: Image.Image, name: str) -> Image.Image:
    if image.mode == "RGB" and not image.has_transparency_data:
        return image
    if image.mode.startswith("I"):
        # Pillow's own conversion would cut 16 bits off at 255.
        values = np.asarray(image)
        if values.min(initial=0) < 0 or values.max(initial=0) > 65535:
            raise ValueError("pixels of more than 16 bits")
        return picture_of(values.astype(np.uint16), name).convert("RGB")
    if image.mode == "F":
        raise ValueError("pixels that are not whole numbers")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        opaque = Image.new("RGB", image.size, BEHIND)
        opaque.paste(image, mask=image)
        return opaque
    return image.convert("RGB")


def _check_size(image: Image.Image) -> None:
    if image.width * image.height > MAX_PIXELS:
        raise ValueError(f"{image.width}x{image.height} pixels, more than the {MAX_PIXELS:,} allowed")


def _shown(image: Any, name: str) -> str:
    return str(image) if isinstance(image, (str, os.PathLike)) else name


@contextmanager
def _reading(name: str) -> Iterator[None]:
    try:
        yield
    except UserError:
        raise
    except FileNotFoundError as error:
        raise UserError(f"{name}: no such image file") from error
    except IsADirectoryError as error:
        raise UserError(f"{name}: a folder, not an image") from error
    except UnidentifiedImageError as error:
        raise UserError(f"{name}: not an image that can be read") from error
    except Exception as error:  # a damaged file makes Pillow raise almost any
        raise UserError(f"{name}: not an image that can be read: {error}") from error


def parse_box(text: str) -> Box:
    """A box from ``x1,y1,x2,y2``. Raises UserError for any other text."""
    try:
        x1, y1, x2, y2 = (float(part) for part in text.split(","))
    except ValueError as error:
        raise UserError(f"box: expected x1,y1,x2,y2 in pixels, got {text!r}") from error
    return x1, y1, x2, y2


def check_box(box: Box, size: tuple[int, int], name: str = "box") -> None:
    """Raises UserError for a box without area, or outside a picture of this width and height."""
    x1, y1, x2, y2 = box
    text = ",".join(f"{value:g}" for value in box)
    if not all(math.isfinite(value) for value in box):
        raise UserError(f"{name}: {text}: every number must be finite")
    if not (x1 < x2 and y1 < y2):
        raise UserError(f"{name}: {text} has no area (x1 < x2 and y1 < y2 are needed)")
    if x2 <= 0 or y2 <= 0 or x1 >= size[0] or y1 >= size[1]:
        raise UserError(f"{name}: {text} lies outside the image of {size[0]}x{size[1]} pixels")


def scaled(box: Box, by: float) -> Box:
    """The box in a picture that is larger by this factor."""
    x1, y1, x2, y2 = box
    return x1 * by, y1 * by, x2 * by, y2 * by


def crop_box(image: Image.Image, box: Box | None) -> Image.Image:
    """The square around a box with ``BOX_MARGIN``, black beyond the picture; all of the picture for None.

    A box that reaches beyond the picture is cut to it first, as the boxes of training are. Raises UserError for a box
    without area or outside the image.
    """
    if box is None:
        return image
    check_box(box, image.size)
    x, y, span = _square(box, image.size)
    left, top, side = round(x - span / 2), round(y - span / 2), max(round(span), 1)
    rgb = image if image.mode == "RGB" else image.convert("RGB")
    return rgb.crop((left, top, left + side, top + side))


def _square(box: Box, size: tuple[int, int]) -> tuple[float, float, float]:
    """The middle (x, y) of what the model looks at for a box, and its side."""
    x1, y1 = max(box[0], 0.0), max(box[1], 0.0)
    x2, y2 = min(box[2], float(size[0])), min(box[3], float(size[1]))
    # A sliver of a box still gives a picture of one pixel.
    return (x1 + x2) / 2, (y1 + y2) / 2, max(x2 - x1, y2 - y1, 1.0) * BOX_MARGIN


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
