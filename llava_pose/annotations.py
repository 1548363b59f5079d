"""Read and check ImageNet3D annotation files: an npz with one array of dicts, a dict an object.

Fields of a dict: ``azimuth``, ``elevation``, ``theta`` (radians), ``distance`` (object units), ``viewport``
(focal length in pixels, 2000 where missing), ``px``, ``py`` (the object's origin in pixels), ``bbox`` (x1,
y1, x2, y2 in pixels), ``cad_index``, ``class``, ``object_status``, ``dense``, and others that pass through
unchecked.
"""

from __future__ import annotations

import math
import reprlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from llava_pose.errors import UserError
from llava_pose.safe_npz import read_object_array

STATUSES = ("status_good", "status_partially", "status_barely", "status_bad")
_REQUIRED = ("azimuth", "elevation", "theta", "distance", "px", "py", "bbox")
# Radians stay within two turns of zero; larger angles are degrees.
_MAX_ANGLE = 4 * math.pi


def skip_reason(annotation: dict[str, Any]) -> str | None:
    """Why the dataset's authors leave this object out, or None where they use it.

    They skip objects without ``object_status``, with ``status_bad``, with ``distance`` at or below 0, and those that
    they mark by ``ignore``, where an annotation has that field.
    """
    if annotation.get("object_status") is None:
        return "no object_status"
    if annotation["object_status"] == "status_bad":
        return "status_bad"
    distance = annotation.get("distance")
    if isinstance(distance, int | float) and distance <= 0:
        return "distance <= 0"
    return "ignore" if annotation.get("ignore") else None


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError("expected a number")
    if not math.isfinite(value):
        raise ValueError("expected a finite number")
    return float(value)


def _angle(value: Any) -> float:
    if abs(_number(value)) > _MAX_ANGLE:
        raise ValueError("expected radians")
    return float(value)


def _positive(value: Any) -> float:
    if _number(value) <= 0:
        raise ValueError("expected a number above 0")
    return float(value)


def _integer(value: Any) -> int:
    if _number(value) != int(value):
        raise ValueError("expected a whole number")
    return int(value)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError("expected text")
    return value


def _status(value: Any) -> str:
    if value not in STATUSES:
        raise ValueError(f"expected one of {', '.join(STATUSES)}")
    return value


def _bbox(value: Any) -> tuple[float, ...]:
    if not isinstance(value, list) or len(value) != 4:
        raise ValueError("expected four numbers x1, y1, x2, y2")
    return tuple(_number(item) for item in value)


_CHECKS: dict[str, Callable[[Any], Any]] = {
    "azimuth": _angle,
    "elevation": _angle,
    "theta": _angle,
    "distance": _number,
    "px": _number,
    "py": _number,
    "bbox": _bbox,
    "viewport": _positive,
    "cad_index": _integer,
    "height": _integer,
    "width": _integer,
    "class": _text,
    "object_status": _status,
    "dense": _text,
}


class FieldError(UserError):
    """A field of one object's annotation is missing or wrong; the objects beside it may be good."""

    def __init__(self, where: str, field: str, complaint: str) -> None:
        super().__init__(f"{where}.{field}: {complaint}")
        self.field = field


def check_annotation(annotation: dict[str, Any], where: str) -> dict[str, Any]:
    """One object's dict with its documented fields checked; fields that are None count as missing.

    ``where`` names file and object in messages. An object that is left out (see ``skip_reason``) may hold anything, and
    is returned as it is.

    Raises:
        FieldError: a field is missing, of the wrong type, not finite, no angle in radians, no known status, or a box
            without area.
    """
    fields = {name: value for name, value in annotation.items() if value is not None}
    if skip_reason(fields) is not None:
        return fields
    for name, check in _CHECKS.items():
        if name not in fields:
            continue
        try:
            fields[name] = check(fields[name])
        except (ValueError, OverflowError) as error:
            raise FieldError(where, name, f"{error}, found {reprlib.repr(fields[name])}") from error
    _check_complete(fields, where)
    return fields


def _check_complete(fields: dict[str, Any], where: str) -> None:
    for name in _REQUIRED:
        if name not in fields:
            raise FieldError(where, name, "field is missing")
    x1, y1, x2, y2 = fields["bbox"]
    if x2 <= x1 or y2 <= y1:
        raise FieldError(where, "bbox", f"box has no area: {fields['bbox']}")


def read_each(path: str | Path) -> list[dict[str, Any] | FieldError]:
    """Like ``read_annotations``, with the mistake in the place of each object whose fields are wrong.

    Raises:
        UserError: the file as a whole is missing, no npz, too large, holds more than plain data or no dicts.
    """
    value = read_object_array(path, "annotations")
    if isinstance(value, dict):
        value = [value]
    if not isinstance(value, list):
        raise UserError(f"{path}: annotations: expected dicts, found {type(value).__name__}")
    checked: list[dict[str, Any] | FieldError] = []
    for index, item in enumerate(value):
        where = f"{path}: annotations[{index}]"
        if not isinstance(item, dict):
            raise UserError(f"{where}: expected a dict, found {type(item).__name__}")
        try:
            checked.append(check_annotation(item, where))
        except FieldError as error:
            checked.append(error)
    return checked


def read_annotations(path: str | Path) -> list[dict[str, Any]]:
    """Read an ImageNet3D annotation file without running anything that is in it.

    Returns a dict an object, in file order, of plain Python values. Optional fields that the file lacks stay
    missing. Objects that the authors leave out (see ``skip_reason``) are returned too, as they are: they
    may lack any field, or hold nonsense.

    Raises:
        UserError: the file is missing, no npz, too large or holds more than plain data (nothing of it is
            run); an object lacks a required field, or a field has the wrong type, is not finite, is no angle
            in radians, no known status, or a box without area. The message names file, object, field and
            value.
    """
    annotations = []
    for item in read_each(path):
        if isinstance(item, FieldError):
            raise item
        annotations.append(item)
    return annotations
