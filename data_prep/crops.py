"""Square crops of an image in which every number of an object's annotation stays exact.

A crop maps source pixel x to (x − x0) · scale, in continuous coordinates (column i covers [i, i + 1)), and
takes the focal length and the principal point along: projecting a point with the new annotation gives the new
pixel.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

from PIL import Image

from llava_pose.errors import UserError
from llava_pose.scene import PosedObject

PUBLISHED_SIZE = 512
PUBLISHED_DISTANCE = 4.0
PUBLISHED_VIEWPORT = 2000.0
BOX_MARGIN = 1.2


@dataclass(frozen=True)
class Region:
    """A square of the source image, in its pixels; it may reach beyond the image."""

    x0: float
    y0: float
    side: float


def object_region(item: PosedObject, by_viewport: bool = False) -> Region:
    """The published object-centric crop: the image scaled by distance / 4, then 512 × 512 around (px, py).

    It shows an object of unit size whole where the viewport is ImageNet3D's 2000. For data with other viewports, each
    crop can be as wide as it would be there: ``by_viewport``.
    """
    side = PUBLISHED_SIZE * PUBLISHED_DISTANCE / item.distance
    if by_viewport:
        side *= item.viewport / PUBLISHED_VIEWPORT
    return Region(item.px - side / 2, item.py - side / 2, side)


def box_region(item: PosedObject) -> Region:
    """The square around the middle of the box, 1.2 times its longer side: a crop that needs no distance."""
    x1, y1, x2, y2 = item.bbox
    side = BOX_MARGIN * max(x2 - x1, y2 - y1)
    return Region((x1 + x2 - side) / 2, (y1 + y2 - side) / 2, side)


def clip_box(item: PosedObject, width: float, height: float) -> PosedObject:
    """The object with its box cut to [0, width] × [0, height].

    Raises:
        UserError: nothing of the box lies inside.
    """
    x1, y1, x2, y2 = item.bbox
    box = (max(x1, 0.0), max(y1, 0.0), min(x2, float(width)), min(y2, float(height)))
    if box[2] <= box[0] or box[3] <= box[1]:
        raise UserError(f"bbox: {item.bbox} lies outside the {width:g}x{height:g} image")
    return dataclasses.replace(item, bbox=box)


def crop_object(item: PosedObject, region: Region, size: int) -> PosedObject:
    """The object as the crop of ``region``, resampled to size × size, shows it, its box cut to the crop.

    Raises:
        UserError: nothing of the box lies inside the crop.
    """
    scale = size / region.side
    x1, y1, x2, y2 = item.bbox
    moved = dataclasses.replace(
        item,
        bbox=(
            (x1 - region.x0) * scale,
            (y1 - region.y0) * scale,
            (x2 - region.x0) * scale,
            (y2 - region.y0) * scale,
        ),
        px=(item.px - region.x0) * scale,
        py=(item.py - region.y0) * scale,
        viewport=item.viewport * scale,
    )
    try:
        return clip_box(moved, size, size)
    except UserError as error:
        raise UserError(f"bbox: {item.bbox} lies outside the crop around ({item.px}, {item.py})") from error


def crop_image(image: Image.Image, region: Region, size: int) -> Image.Image:
    """The region resampled once (antialiased) to size × size, with zeros where it reaches beyond the image.

    An output pixel that the image covers only in part is zero, so that no pixel is a blend with the padding.

    Raises:
        UserError: the image covers no output pixel.
    """
    scale = size / region.side
    left, right, source_x = _covered(region.x0, scale, image.width, size)
    top, bottom, source_y = _covered(region.y0, scale, image.height, size)
    if right <= left or bottom <= top:
        raise UserError(f"distance, px, py: the crop shows less than a pixel of the image (scale {scale:g})")
    patch = image.resize(
        (right - left, bottom - top),
        Image.Resampling.BICUBIC,
        box=(source_x[0], source_y[0], source_x[1], source_y[1]),
        reducing_gap=3.0,
    )
    if patch.size == (size, size):
        return patch
    canvas = Image.new("RGB", (size, size))
    canvas.paste(patch, (left, top))
    return canvas


def _covered(start: float, scale: float, extent: int, size: int) -> tuple[int, int, tuple[float, float]]:
    """Along one axis: the first and last + 1 output pixel the image covers whole, and their source range."""
    # A border that rounding moved by less than a millionth of a pixel still counts as covered.
    first = max(0, math.ceil(-start * scale - 1e-6))
    last = min(size, math.floor((extent - start) * scale + 1e-6))
    return first, last, (max(0.0, start + first / scale), min(float(extent), start + last / scale))
