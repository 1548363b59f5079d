"""Pictures out of requests: decoded text, nothing but a picture, no larger than allowed. No name of a file is read."""

from __future__ import annotations

import base64
import binascii
import io
import re

from PIL import Image

from .errors import ApiError
from .fetch import fetch
from .settings import ServerSettings

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP")
"""What is opened: Pillow knows many more formats, and starts other programs for some."""

_DATA_URL = re.compile(r"data:image/[a-z0-9.+-]{1,40};base64,", re.IGNORECASE)


async def picture_bytes(url: str, settings: ServerSettings, param: str) -> bytes:
    """What a request's data URL holds, or its http(s) URL where those are allowed.

    Raises ApiError, naming ``param``, for any other URL and for what cannot be had.
    """
    if url[:5].lower() == "data:":
        return _decoded(url, param)
    if url[:7].lower() != "http://" and url[:8].lower() != "https://":
        raise ApiError(400, f"{param}: expected data:image/…;base64,…", param, "invalid_image_url")
    if not settings.allow_http_images:
        raise ApiError(400, f"{param}: this server takes data URLs only", param, "invalid_image_url")
    return await fetch(url, settings.max_body_bytes, param)


def _decoded(url: str, param: str) -> bytes:
    head = _DATA_URL.match(url)
    if head is None:
        raise ApiError(400, f"{param}: expected data:image/…;base64,…", param, "invalid_image_url")
    try:
        return base64.b64decode(url[head.end() :], validate=True)
    except (binascii.Error, ValueError) as error:
        raise ApiError(400, f"{param}: not valid base64", param, "invalid_image_url") from error


def checked_picture(data: bytes, max_pixels: int, param: str) -> io.BytesIO:
    """A file in memory whose head says that it is a picture of an allowed format and size; nothing is decoded yet.

    Raises ApiError, naming ``param``.
    """
    stream = io.BytesIO(data)
    try:
        with Image.open(stream, formats=FORMATS) as opened:
            width, height = opened.size
    except Exception as error:  # a damaged file makes Pillow raise almost any
        told = f"{param}: not a picture that can be read ({', '.join(FORMATS)})"
        raise ApiError(400, told, param, "invalid_image") from error
    if width * height > max_pixels:
        told = f"{param}: {width}x{height} pixels, more than the {max_pixels:,} allowed"
        raise ApiError(400, told, param, "image_too_large")
    return stream
