"""Square crops of an image in which every number of an object's annotation stays exact.

A crop maps source pixel x to (x − x0) · scale, in continuous coordinates (column i covers [i, i + 1)), and
takes the focal length and the principal point along: projecting a point with the new annotation gives the new
pixel.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from llava_pose.errors import UserError
from llava_pose.scene import PosedObject

PUBLISHED_SIZE = 512
PUBLISHED_DISTANCE = 4.0
PUBLISHED_VIEWPORT = 2000.0
BOX_MARGIN = 1.2
_SUPPORT = 2  # source pixels on either side that cubic interpolation looks at

Pixels = NDArray[np.uint8]
"""An RGB image: (height, width, 3)."""


@dataclass(frozen=True)
class Region:
    """A square of the source image, in its pixels; it may reach beyond the image."""

    x0: float
    y0: float
    side: float

    def scaled(self, scale: float) -> Region:
        """The same region of the image scaled as a whole."""
        return Region(self.x0 * scale, self.y0 * scale, self.side * scale)


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


def crop_image(pixels: Pixels, region: Region, size: int) -> Pixels:
    """The region (see ``on_grid``) resampled once to size × size, with zeros where it reaches beyond the image.

    Enlarged by cubic interpolation, as in the published script; shrunk by averaging over the area of each output
    pixel. An output pixel that the image covers only in part is zero, so that no pixel is a blend with the padding.

    Raises:
        UserError: the image covers no output pixel, or the region is smaller than two pixels.
    """
    if region.side < 2:
        raise UserError(f"distance, bbox: the crop shows less than two pixels (its side is {region.side:g})")
    scale = size / region.side
    height, width = pixels.shape[:2]
    left, right, columns, shift_x = _window(region.x0, scale, width, size)
    top, bottom, rows, shift_y = _window(region.y0, scale, height, size)
    if right <= left or bottom <= top:
        raise UserError(f"distance, px, py: the crop shows less than a pixel of the image (scale {scale:g})")
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    resized = cv2.resize(pixels[rows, columns], None, fx=scale, fy=scale, interpolation=method)
    patch: Pixels = np.asarray(resized, dtype=np.uint8)
    patch = patch[top + shift_y : bottom + shift_y, left + shift_x : right + shift_x]
    if patch.shape[:2] == (size, size):
        return patch
    canvas = np.zeros((size, size, 3), dtype=np.uint8)
    canvas[top:bottom, left:right] = patch
    return canvas


def on_grid(region: Region, size: int) -> Region:
    """The region moved by at most half an output pixel, to where resampling starts at a whole source pixel.

    An image is resampled on a grid that starts at a border of a source pixel, so an arbitrary region is met only to
    half an output pixel. Moving the region there first keeps the annotation exact.
    """
    scale = size / region.side
    x0, y0 = (
        first + round((start - first) * scale) / scale
        for start, first in ((region.x0, _first(region.x0)), (region.y0, _first(region.y0)))
    )
    return Region(x0, y0, region.side)


def _first(start: float) -> int:
    """The source pixel that resampling begins with: a little before the region, for the filter's sake."""
    return max(math.floor(start) - _SUPPORT, 0)


def _window(start: float, scale: float, extent: int, size: int) -> tuple[int, int, slice, int]:
    """Along one axis: the first and last + 1 output pixel that the image covers whole, the source pixels to resample,
    and how many resampled pixels come before output pixel 0."""
    begin = _first(start)
    shift = round((start - begin) * scale)
    # A border that rounding moved by less than a millionth of a pixel still counts as covered.
    covered = math.floor((extent - begin) * scale + 1e-6) - shift
    first, last = max(0, -shift), min(size, covered)
    end = min(extent, math.ceil(begin + (last + shift) / scale) + _SUPPORT)
    return first, last, slice(begin, end), shift
