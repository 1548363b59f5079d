"""Annotation files as MATLAB writes them for PASCAL3D+ and ObjectNet3D, and the projection that their authors state."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from scipy.io import savemat

WIDTH, HEIGHT = 120, 90
EMPTY = np.zeros((0, 0))

VIEWPOINT = {
    "azimuth": 40.0,
    "elevation": 12.5,
    "theta": -7.0,
    "distance": 9.0,
    "focal": 1,
    "px": 61.5,
    "py": 44.25,
    "viewport": 3000,
    "azimuth_coarse": 45,
    "elevation_coarse": 10,
    "num_anchor": 9,
    "error": 12.75,
    "interval_azimuth": 5,
    "interval_elevation": 5,
}


def mat_object(viewpoint: Any = (), **fields: Any) -> dict[str, Any]:
    """An object's struct; ``viewpoint`` changes fields of its viewpoint (None: left out), or stands in its place."""
    view = viewpoint
    if isinstance(viewpoint, dict | tuple):
        view = {name: value for name, value in {**VIEWPOINT, **dict(viewpoint)}.items() if value is not None}
    base = {
        "class": "car",
        "view": "",
        "truncated": 0,
        "occluded": 0,
        "difficult": 0,
        "bbox": np.array([20.0, 15.0, 100.0, 70.0]),
        "viewpoint": view,
        "cad_index": 3,
        "anchors": {"left_front_wheel": {"location": EMPTY, "status": 2}},
    }
    return {name: value for name, value in {**base, **fields}.items() if value is not None}


def write_mat(path: Path, *objects: dict[str, Any]) -> None:
    """Write ``record`` with ``objects`` as a 1 × N struct array, compressed as MATLAB does."""
    path.parent.mkdir(parents=True, exist_ok=True)
    names = list(dict.fromkeys(name for item in objects for name in item))
    structs = np.empty((1, len(objects)), dtype=[(name, object) for name in names])
    for index, item in enumerate(objects):
        for name in names:
            structs[0, index][name] = item.get(name, EMPTY)
    record = {"filename": f"{path.stem}.JPEG", "imgsize": [WIDTH, HEIGHT, 3], "objects": structs if objects else EMPTY}
    savemat(path, {"record": record}, do_compression=True)


def write_image(path: Path) -> None:
    """A small photo-like picture."""
    path.parent.mkdir(parents=True, exist_ok=True)
    small = np.random.default_rng(len(path.name)).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    Image.fromarray(small).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC).save(path, "JPEG", quality=95)


def published_pixels(points: np.ndarray, view: dict[str, Any]) -> np.ndarray:
    """Pixels (N, 2) of points (N, 3) by the authors' description, in degrees.

    The camera is placed on a sphere by azimuth, elevation and distance and looks at the origin without roll; the
    picture is then turned about the principal point by theta, counter-clockwise, and scaled by viewport times focal.
    """
    azimuth, elevation, theta = np.radians([view["azimuth"], view["elevation"], view["theta"]])
    ahead = -np.array([np.cos(elevation) * np.sin(azimuth), -np.cos(elevation) * np.cos(azimuth), np.sin(elevation)])
    right = np.cross(ahead, [0.0, 0.0, 1.0])
    right /= np.linalg.norm(right)
    up = np.cross(right, ahead)
    offset = points + ahead * view["distance"]
    flat = np.stack([offset @ right, offset @ up], -1) / (offset @ ahead)[:, None]
    turned = flat @ np.array([[np.cos(theta), np.sin(theta)], [-np.sin(theta), np.cos(theta)]])
    scale = view["viewport"] * view["focal"]
    return np.stack([view["px"] + scale * turned[:, 0], view["py"] - scale * turned[:, 1]], -1)
