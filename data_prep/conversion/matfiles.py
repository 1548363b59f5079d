"""Read the MATLAB annotations of PASCAL3D+ and ObjectNet3D: a struct ``record`` whose ``objects`` are structs.

Of an object: ``class``, ``bbox`` (x1, y1, x2, y2 in pixels), ``cad_index``, ``truncated``, ``occluded``, ``difficult``,
and ``viewpoint``, a struct of ``azimuth``, ``elevation``, ``theta`` (degrees), ``distance``, ``focal``, ``viewport``,
``px`` and ``py`` (pixels), or empty. They describe the camera that ImageNet3D took over: its focal length in pixels is
``viewport * focal``. Pixels are taken as they are, as ImageNet3D takes them: MATLAB puts the middle of the first one at
1, we at ½, so they lie half a pixel too far right and down.
"""

from __future__ import annotations

import math
import reprlib
from abc import abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from scipy.io import loadmat

from data_prep.conversion.source import Problem, Reading, Source, Task
from llava_pose.annotations import FieldError
from llava_pose.errors import UserError
from llava_pose.scene import PosedObject
from llava_pose.taxonomy import resolve

MAX_BYTES = 2**20
"""The largest file that is read; real ones are a few kilobytes, and what is packed in one can be a thousand times as
large."""
_MAX_DEGREES = 720.0

Struct = Mapping[str, Any]


class MatSource(Source):
    """A data set with one annotation file of this kind an image."""

    defaults: Mapping[str, float] = {}
    """What stands in for a field of the viewpoint that is missing."""
    coarse: bool = False
    """Whether ``azimuth_coarse`` and ``elevation_coarse`` stand in for a missing azimuth and elevation."""

    @abstractmethod
    def paths(self, task: Task) -> tuple[Path, Path]:
        """The image and its annotations."""

    @abstractmethod
    def left_out(self, item: Struct, task: Task, where: str) -> str | None:
        """Why the data set's rules leave an object out, or None. Raises FieldError."""

    def files(self, task: Task) -> list[Path]:
        """The image and its annotations."""
        return list(self.paths(task))

    def where(self, task: Task, object_id: int) -> str:
        """The file and the object's index in it, counted from 0."""
        return f"{self.paths(task)[1]}: objects[{object_id}]"

    def read(self, task: Task) -> Reading:
        """The objects of a file by the data set's rules."""
        image, annotations = self.paths(task)
        reading = Reading(image, [])
        for index, item in enumerate(read_objects(annotations)):
            where = self.where(task, index)
            try:
                reason = self.left_out(item, task, where) or no_viewpoint(item, where)
                if reason is None:
                    reading.objects.append(posed_object(item, index, where, self.defaults, self.coarse))
                else:
                    reading.skipped[reason] += 1
            except FieldError as error:
                reading.problems.append(Problem(f"{error.field} in error", str(error)))
        return reading


def read_objects(path: Path) -> list[Struct]:
    """The structs of ``record.objects`` as dicts.

    Raises:
        UserError: the file is missing, too large or no MATLAB file, or has no such structs.
    """
    try:
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise UserError(f"{path}: file of {size} bytes, more than the {MAX_BYTES} allowed")
        record = loadmat(path, variable_names=["record"], simplify_cells=True).get("record")
    except FileNotFoundError as error:
        raise UserError(f"{path}: annotations are missing") from error
    except UserError:
        raise
    except Exception as error:
        # scipy's reader fails on a damaged file in whatever way its bytes lead it to.
        raise UserError(f"{path}: not a readable MATLAB file: {error or type(error).__name__}") from error
    objects = record.get("objects") if isinstance(record, dict) else None
    if isinstance(objects, dict):
        return [objects]
    if isinstance(objects, np.ndarray) and not objects.size:
        return []
    if not isinstance(objects, list) or not all(isinstance(item, dict) for item in objects):
        raise UserError(f"{path}: record.objects: expected structs, found {reprlib.repr(objects)}")
    return objects


def no_viewpoint(item: Struct, where: str) -> str | None:
    """Why an object has no full viewpoint, or None: then only coarse angles were annotated, or nothing."""
    view = viewpoint(item, where)
    if view is None:
        return "no viewpoint"
    if is_missing(view, "distance"):
        return "no distance"
    return "distance <= 0" if number(view, "distance", where, "viewpoint.") <= 0 else None


def posed_object(item: Struct, object_id: int, where: str, defaults: Mapping[str, float], coarse: bool) -> PosedObject:
    """The object with its angles in radians; ``defaults`` and ``coarse`` are those of ``MatSource``.

    ``cad_index`` counts a category's models from 1. An object that is truncated or occluded has the status
    ``status_partially``, another ``status_good``.

    Raises:
        FieldError: a field is missing, of another shape, not finite or out of its range, or the class is unknown.
    """
    view = viewpoint(item, where)
    assert view is not None

    def of_view(name: str) -> float:
        if name in defaults and is_missing(view, name):
            return defaults[name]
        return number(view, name, where, "viewpoint.")

    def angle(name: str) -> float:
        if coarse and is_missing(view, name) and not is_missing(view, f"{name}_coarse"):
            name = f"{name}_coarse"
        value = of_view(name)
        if abs(value) > _MAX_DEGREES:
            raise FieldError(where, f"viewpoint.{name}", f"expected degrees, found {value}")
        return math.radians(value)

    viewport = of_view("viewport") * of_view("focal")
    if viewport <= 0:
        raise FieldError(where, "viewpoint.viewport", f"expected a viewport and a focal above 0, found {viewport}")
    try:
        category = resolve(text(item, "class", where))
    except FieldError:
        raise
    except UserError as error:
        raise FieldError(where, "class", str(error)) from error
    return PosedObject(
        object_id=object_id,
        category=category,
        bbox=box(item, where),
        azimuth=angle("azimuth"),
        elevation=angle("elevation"),
        theta=angle("theta"),
        distance=of_view("distance"),
        px=of_view("px"),
        py=of_view("py"),
        viewport=viewport,
        cad_index=whole(item, "cad_index", where, -1),
        status="status_partially" if flagged(item, ("truncated", "occluded"), where) else "status_good",
        dense="",
    )


def viewpoint(item: Struct, where: str) -> Struct | None:
    """The viewpoint's struct; None where it is missing or empty."""
    if is_missing(item, "viewpoint"):
        return None
    view = item["viewpoint"]
    if not isinstance(view, dict):
        raise FieldError(where, "viewpoint", f"expected a struct, found {reprlib.repr(view)}")
    return view


def is_missing(struct: Struct, name: str) -> bool:
    """Whether a struct lacks a field or holds nothing in it."""
    value = struct.get(name)
    return value is None or (isinstance(value, np.ndarray | list) and not len(value))


def number(struct: Struct, name: str, where: str, prefix: str = "") -> float:
    """A finite number. Raises FieldError, naming the field with the prefix."""
    if is_missing(struct, name):
        raise FieldError(where, prefix + name, "field is missing")
    value = struct[name]
    if isinstance(value, bool | np.bool_) or not isinstance(value, int | float | np.number):
        raise FieldError(where, prefix + name, f"expected a number, found {reprlib.repr(value)}")
    if not np.isreal(value) or not math.isfinite(value):
        raise FieldError(where, prefix + name, f"expected a finite number, found {value}")
    return float(value)


def whole(struct: Struct, name: str, where: str, missing: int) -> int:
    """A whole number of 0 or more, or ``missing``. Raises FieldError."""
    if is_missing(struct, name):
        return missing
    value = number(struct, name, where)
    if value != int(value) or value < 0:
        raise FieldError(where, name, f"expected a whole number, found {value}")
    return int(value)


def flagged(item: Struct, names: tuple[str, ...], where: str) -> bool:
    """Whether one of these marks is set; a missing one is not. Raises FieldError."""
    return any(whole(item, name, where, 0) for name in names)


def text(struct: Struct, name: str, where: str) -> str:
    """A text. Raises FieldError."""
    if is_missing(struct, name):
        raise FieldError(where, name, "field is missing")
    value = struct[name]
    if not isinstance(value, str):
        raise FieldError(where, name, f"expected text, found {reprlib.repr(value)}")
    return value


def box(item: Struct, where: str) -> tuple[float, float, float, float]:
    """The box x1, y1, x2, y2. Raises FieldError where it is none, not finite or has no area."""
    if is_missing(item, "bbox"):
        raise FieldError(where, "bbox", "field is missing")
    value = item["bbox"]
    if not isinstance(value, np.ndarray) or value.shape != (4,) or value.dtype.kind not in "fiu":
        raise FieldError(where, "bbox", f"expected four numbers x1, y1, x2, y2, found {reprlib.repr(value)}")
    x1, y1, x2, y2 = (float(part) for part in value)
    if not all(math.isfinite(part) for part in (x1, y1, x2, y2)):
        raise FieldError(where, "bbox", f"expected finite numbers, found {[x1, y1, x2, y2]}")
    if x2 <= x1 or y2 <= y1:
        raise FieldError(where, "bbox", f"box has no area: {(x1, y1, x2, y2)}")
    return x1, y1, x2, y2
