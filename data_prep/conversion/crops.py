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
from llava_pose.images import BOX_MARGIN
from llava_pose.scene import PosedObject

PUBLISHED_SIZE = 512
PUBLISHED_DISTANCE = 4.0
PUBLISHED_VIEWPORT = 2000.0
_AVERAGED_BELOW = 0.75  # above, there is next to nothing to average, and averaging takes four times as long
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


def crop_image(pixels: Pixels, region: Region, size: int) -> tuple[Pixels, Region]:
    """The region resampled once to size × size, with zeros beyond the image; and the region that this shows exactly.

    An image is resampled on a grid that starts at a border of a source pixel, so an arbitrary region is met to half an
    output pixel: the one that is shown is moved by so much, and annotations are exact with it.

    Enlarged, or shrunk by less than a quarter, by cubic interpolation, as in the published script; shrunk further by
    averaging over the area of each output pixel. An output pixel that the image covers only in part is zero, so that
    no pixel is a blend with the padding.

    Raises:
        UserError: the image covers no output pixel, or the region is smaller than two pixels.
    """
    if region.side < 2:
        raise UserError(f"distance, bbox: the crop shows less than two pixels (its side is {region.side:g})")
    scale = size / region.side
    height, width = pixels.shape[:2]
    across, down = _Window.of(region.x0, scale, width, size), _Window.of(region.y0, scale, height, size)
    if across.last <= across.first or down.last <= down.first:
        raise UserError(f"distance, px, py: the crop shows less than a pixel of the image (scale {scale:g})")
    method = cv2.INTER_AREA if scale < _AVERAGED_BELOW else cv2.INTER_CUBIC
    source = pixels[down.begin : down.end, across.begin : across.end]
    patch: Pixels = np.asarray(cv2.resize(source, None, fx=scale, fy=scale, interpolation=method), dtype=np.uint8)
    patch = patch[down.taken, across.taken]
    shown = Region(across.begin + across.shift / scale, down.begin + down.shift / scale, region.side)
    if patch.shape[:2] == (size, size):
        return patch, shown
    canvas = np.zeros((size, size, 3), dtype=np.uint8)
    canvas[down.first : down.last, across.first : across.last] = patch
    return canvas, shown


@dataclass(frozen=True)
class _Window:
    """A crop along one axis: it takes source pixels ``begin`` to ``end``, resamples them, and leaves out the first
    ``shift`` of what comes out (or shifts it, where that is below 0); the image covers output pixels ``first`` to
    ``last``."""

    begin: int
    end: int
    shift: int
    first: int
    last: int

    @property
    def taken(self) -> slice:
        """Which of the resampled pixels the crop takes."""
        return slice(self.first + self.shift, self.last + self.shift)

    @classmethod
    def of(cls, start: float, scale: float, extent: int, size: int) -> _Window:
        """The window of ``size`` output pixels from ``start`` on, in an image of ``extent`` pixels."""
        begin = max(math.floor(start) - _SUPPORT, 0)
        shift = round((start - begin) * scale)
        # A border that rounding moved by less than a millionth of a pixel still counts as covered.
        covered = math.floor((extent - begin) * scale + 1e-6) - shift
        first, last = max(0, -shift), min(size, covered)
        end = min(extent, math.ceil(begin + (last + shift) / scale) + _SUPPORT)
        return cls(begin, end, shift, first, last)
