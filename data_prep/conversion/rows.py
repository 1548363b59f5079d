"""From an image file and its objects to rows: decode once, cut, caption, encode."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from data_prep.captioning.caption_templates import template_caption
from data_prep.conversion.crops import (
    PUBLISHED_SIZE,
    Pixels,
    Region,
    box_region,
    clip_box,
    crop_image,
    crop_object,
    object_region,
)
from data_prep.conversion.pixels import decode, encode, read_image, stored_or_encoded
from data_prep.conversion.source import Problem, Task
from llava_pose.errors import UserError
from llava_pose.scene import PosedImage, PosedObject


@dataclass(frozen=True)
class Cut:
    """How rows are cut out of images: ``kind`` object, box or scene; ``size``: side of a crop in pixels;
    ``by_viewport``: whether an object crop is as wide as it would be with ImageNet3D's viewport."""

    kind: str = "object"
    size: int = PUBLISHED_SIZE
    by_viewport: bool = False

    def region(self, item: PosedObject) -> Region:
        """The part of the image that a crop of this object shows."""
        return object_region(item, self.by_viewport) if self.kind == "object" else box_region(item)


Caption = tuple[str, tuple[int, ...]]
"""A caption, and the ``object_id`` of each of its ``<pose>`` marks."""


def rows_of(
    path: Path,
    objects: Sequence[PosedObject],
    task: Task,
    where: Callable[[int], str],
    cut: Cut,
    caption: Caption | None = None,
) -> tuple[list[dict[str, Any]], list[Problem]]:
    """The rows that show these objects, and a problem for every object that cannot be shown.

    ``where(object_id)`` is how a message names an object's annotation. ``caption``: the data set's own, used where the
    row shows all that it speaks of, and a crop nothing else; the other rows get one by the template.

    Raises:
        UserError: the image is missing, damaged, animated or too large.
    """
    file = read_image(path)
    shown: list[PosedObject] = []
    problems: list[Problem] = []
    for item in objects:
        try:
            shown.append(clip_box(item, file.width, file.height))
        except UserError as error:
            problems.append(Problem("box outside the image", f"{where(item.object_id)}.{error}"))
    if not shown:
        return [], problems
    if cut.kind == "scene":
        if caption is None or not set(caption[1]) <= {item.object_id for item in shown}:
            caption = template_caption(shown, task.image_id)
        record = PosedImage(None, task.image_id, file.width, file.height, tuple(shown), *caption)
        return [with_image(record, stored_or_encoded(file))], problems
    pixels, factor = decode(file, max(cut.size / cut.region(item).side for item in shown))
    rows = []
    for item in shown:
        try:
            rows.append(crop_row(pixels, factor, item, task, cut, caption))
        except UserError as error:
            problems.append(Problem("object outside the crop", f"{where(item.object_id)}.{error}"))
    return rows, problems


def crop_row(
    pixels: Pixels, factor: int, item: PosedObject, task: Task, cut: Cut, caption: Caption | None
) -> dict[str, Any]:
    """A crop of one object, out of an image decoded ``factor`` times smaller than the pixels of its annotation.

    Raises:
        UserError: the crop misses the image or the object.
    """
    crop, region = crop_image(pixels, cut.region(item).scaled(1 / factor), cut.size)
    shown = crop_object(item, region.scaled(factor), cut.size)
    if caption is None or set(caption[1]) != {item.object_id}:
        caption = template_caption([shown], f"{task.image_id}#{item.object_id}")
    record = PosedImage(None, task.image_id, cut.size, cut.size, (shown,), *caption)
    return with_image(record, encode(crop))


def with_image(record: PosedImage, jpeg: bytes) -> dict[str, Any]:
    """The record as a row with these bytes as its image."""
    return {**record.to_row(), "image": {"bytes": jpeg, "path": None}}


def encoded(record: PosedImage) -> dict[str, Any]:
    """The record as a row with its image as a JPEG."""
    return with_image(record, encode(np.asarray(record.image)))
