"""Image files to pixels and back: decoded once, never larger than needed, and refused by their header where too large.

Pixels are those stored in the file. An EXIF rotation is not applied, because annotations refer to stored pixels.
"""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import simplejpeg  # type: ignore[import-untyped]
from PIL import Image, UnidentifiedImageError

from data_prep.conversion.crops import Pixels
from llava_pose.errors import UserError
from llava_pose.images import MAX_PIXELS

JPEG_QUALITY = 95
_JPEG = b"\xff\xd8\xff"


@dataclass(frozen=True)
class ImageFile:
    """An image file in memory, its size as the header gives it. ``kind``: jpeg, grey jpeg or other."""

    path: Path
    data: bytes
    width: int
    height: int
    kind: str


def read_image(path: Path) -> ImageFile:
    """Read an image file without decoding it.

    Raises:
        UserError: the file is missing, no image, animated or too large.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise UserError(f"{path}: image is missing") from error
    except OSError as error:
        raise UserError(f"{path}: image cannot be read: {error.strerror}") from error
    found = _jpeg_header(data)
    if found is not None:
        file = ImageFile(path, data, *found)
    else:
        with _opened(path, data) as image:
            frames = getattr(image, "n_frames", 1)
            if frames > 1:
                raise UserError(f"{path}: animated image of {frames} frames")
            file = ImageFile(path, data, image.width, image.height, "other")
    if file.width * file.height > MAX_PIXELS:
        raise UserError(f"{path}: image of {file.width}x{file.height} pixels, more than the {MAX_PIXELS:,} allowed")
    return file


def decode(file: ImageFile, scale: float = 1.0) -> tuple[Pixels, int]:
    """RGB pixels, and by what factor they are smaller than the image: 1, 2, 4 or 8.

    They are smaller where ``scale``, the largest at which any of them is needed, allows it: a JPEG is then decoded at
    a half, a quarter or an eighth of its size, which costs less than all of it and averages over what it leaves out.

    Raises:
        UserError: the file is damaged or of an unknown kind.
    """
    if file.kind != "other":
        # Below 64 pixels the sizes that libjpeg can decode to are too close to one another to tell which it took.
        small = min(file.width, file.height) < 64
        factor = next(n for n in (8, 4, 2, 1) if n == 1 or (n * scale <= 1 and not small))
        least = {"min_width": math.ceil(file.width / factor), "min_height": math.ceil(file.height / factor)}
        try:
            return simplejpeg.decode_jpeg(file.data, "RGB", **least), factor
        except ValueError:
            pass  # Damaged, or harmless stray bytes: Pillow tells them apart.
    with _opened(file.path, file.data) as image:
        return np.asarray(_to_rgb(image)), 1


def encode(pixels: Pixels) -> bytes:
    """RGB pixels as a JPEG file."""
    return simplejpeg.encode_jpeg(pixels, quality=JPEG_QUALITY, colorsubsampling="420")


def stored_or_encoded(file: ImageFile) -> bytes:
    """The whole image as a JPEG: the file as it is where every reader shows it alike, otherwise encoded anew.

    Raises:
        UserError: the file is damaged or of an unknown kind.
    """
    pixels, _ = decode(file)
    # An EXIF rotation is among what readers show differently, so a file with any EXIF is written without it.
    return file.data if file.kind == "jpeg" and b"Exif\0" not in file.data else encode(pixels)


def _jpeg_header(data: bytes) -> tuple[int, int, str] | None:
    """Width, height and kind of a JPEG that libjpeg decodes to RGB by itself."""
    if not data.startswith(_JPEG):
        return None
    try:
        height, width, space, _ = simplejpeg.decode_jpeg_header(data)
    except ValueError:
        return None
    kinds = {"YCbCr": "jpeg", "RGB": "jpeg", "Gray": "grey jpeg"}
    return (width, height, kinds[space]) if space in kinds else None


@contextmanager
def _opened(path: Path, data: bytes) -> Iterator[Image.Image]:
    """The image opened by Pillow, its complaints as UserErrors. The size is checked elsewhere, so a warning is none."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            image = Image.open(io.BytesIO(data))
        with image:
            yield image
    except UnidentifiedImageError as error:
        raise UserError(f"{path}: not a readable image: of no kind that is known") from error
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as error:
        raise UserError(f"{path}: not a readable image: {error}") from error


def _to_rgb(image: Image.Image) -> Image.Image:
    """The image in 8-bit RGB. Pillow's own conversion of 16 bits to 8 would cut them off at 255."""
    if image.mode.startswith("I"):
        values = np.asarray(image)
        if values.min(initial=0) < 0 or values.max(initial=0) > 65535:
            raise ValueError("pixels of more than 16 bits")
        return Image.fromarray((values // 257).astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        raise ValueError("pixels are not whole numbers")
    return image.convert("RGB")
