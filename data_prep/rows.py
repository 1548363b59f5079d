"""From an image file and its objects to rows: decode, cut, caption, encode."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from data_prep.captions import template_caption
from data_prep.crops import PUBLISHED_SIZE, box_region, clip_box, crop_image, crop_object, object_region
from data_prep.source import Problem, Task
from llava_pose.errors import UserError
from llava_pose.scene import PosedImage, PosedObject

JPEG_QUALITY = 95


@dataclass(frozen=True)
class Cut:
    """How rows are cut out of images: ``kind`` object, box or scene; ``size``: side of a crop in pixels;
    ``by_viewport``: whether an object crop is as wide as it would be with ImageNet3D's viewport."""

    kind: str = "object"
    size: int = PUBLISHED_SIZE
    by_viewport: bool = False


def open_image(path: Path) -> Image.Image:
    """The image decoded to RGB, as stored.

    Raises:
        UserError: the file is missing, no image, damaged or too large.
    """
    try:
        with Image.open(path) as image:
            return image.convert("RGB")
    except FileNotFoundError as error:
        raise UserError(f"{path}: image is missing") from error
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise UserError(f"{path}: not a readable image: {error}") from error


def rows_of(
    image: Image.Image, objects: Sequence[PosedObject], task: Task, where: Callable[[int], str], cut: Cut
) -> tuple[list[dict[str, Any]], list[Problem]]:
    """The rows that show these objects, and a problem for every object that cannot be shown.

    ``where(object_id)`` is how a message names an object's annotation.
    """
    shown: list[PosedObject] = []
    problems: list[Problem] = []
    for item in objects:
        try:
            shown.append(clip_box(item, image.width, image.height))
        except UserError as error:
            problems.append(Problem("box outside the image", f"{where(item.object_id)}.{error}"))
    if cut.kind == "scene":
        return ([encoded(whole(image, shown, task.image_id))] if shown else []), problems
    rows = []
    for item in shown:
        try:
            rows.append(encoded(cropped(image, item, task.image_id, cut)))
        except UserError as error:
            problems.append(Problem("object outside the crop", f"{where(item.object_id)}.{error}"))
    return rows, problems


def whole(image: Image.Image, objects: Sequence[PosedObject], image_id: str) -> PosedImage:
    """The whole image with all its objects."""
    caption, marks = template_caption(objects, image_id)
    return PosedImage(image, image_id, image.width, image.height, tuple(objects), caption, marks)


def cropped(image: Image.Image, item: PosedObject, image_id: str, cut: Cut) -> PosedImage:
    """A crop of one object. Raises UserError where the crop misses the image or the object."""
    region = object_region(item, cut.by_viewport) if cut.kind == "object" else box_region(item)
    shown, crop = crop_object(item, region, cut.size), crop_image(image, region, cut.size)
    caption, marks = template_caption([shown], f"{image_id}#{item.object_id}")
    return PosedImage(crop, image_id, cut.size, cut.size, (shown,), caption, marks)


def encoded(record: PosedImage) -> dict[str, Any]:
    """The record as a row with its image as JPEG bytes."""
    stream = io.BytesIO()
    assert record.image is not None
    record.image.save(stream, "JPEG", quality=JPEG_QUALITY)
    return {**record.to_row(), "image": {"bytes": stream.getvalue(), "path": None}}
