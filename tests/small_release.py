"""A small data set in ImageNet3D's layout, and the conversion of one, for the tests of whatever reads it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from data_prep import imagenet3d
from llava_pose import scene
from llava_pose.scene import PosedImage

WIDTH, HEIGHT = 60, 40


def annotation(**fields: Any) -> dict[str, Any]:
    """One object's fields as released; None leaves a field out."""
    base = {
        "azimuth": 1.0,
        "elevation": 0.25,
        "theta": 0.1,
        "distance": 40.0,
        "viewport": 700.0,
        "px": 30.0,
        "py": 20.0,
        "cad_index": 1,
        "bbox": np.array([20.0, 10.0, 42.0, 30.0]),
        "class": "car",
        "object_status": "status_good",
        "dense": "dense_no",
    }
    return {name: value for name, value in {**base, **fields}.items() if value is not None}


def write_npz(path: Path, *objects: dict[str, Any]) -> None:
    """An annotation file as released."""
    np.savez(path, annotations=np.array(objects, dtype=object))


def add_image(
    root: Path, split: str, folder: str, name: str, *objects: dict[str, Any], side_by_side: bool = False
) -> None:
    """Write an image, its annotations and its line in the list."""
    images = root / folder if side_by_side else root / "images" / folder
    annotations = root / folder if side_by_side else root / "annotations" / folder
    for path in (images, annotations, root / "lists"):
        path.mkdir(parents=True, exist_ok=True)
    small = np.random.default_rng(sum(name.encode())).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    Image.fromarray(small).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC).save(images / f"{name}.JPEG", quality=95)
    write_npz(annotations / f"{name}.npz", *objects)
    with open(root / "lists" / f"{folder}_imagenet_{split}.txt", "a") as stream:
        stream.write(f"{name}\n")


def small_release(root: Path, side_by_side: bool = False) -> Path:
    """Three images for train, one for val, with objects that the authors leave out."""
    kept = [annotation(), annotation(**{"class": "diningtable", "px": 12.0, "bbox": [2, 4, 25, 30]})]
    skipped = [
        annotation(object_status=None),
        annotation(object_status="status_bad"),
        annotation(distance=0.0),
        annotation(object_status="status_bad", distance=-1.0),
    ]
    add_image(root, "train", "car", "n01", kept[0], skipped[0], kept[1], side_by_side=side_by_side)
    add_image(root, "train", "car", "n02", skipped[1], skipped[2], side_by_side=side_by_side)
    add_image(root, "train", "babby_buggy", "n03", annotation(**{"class": None}), side_by_side=side_by_side)
    add_image(root, "val", "car", "n04", kept[0], skipped[3], side_by_side=side_by_side)
    return root


def add_chairs(root: Path, numbers: range) -> None:
    """Further images for train, of one chair each."""
    for number in numbers:
        add_image(root, "train", "chair", f"n{number:02d}", annotation(**{"class": "chair"}))


def convert(root: Path, out: Path, *options: str) -> None:
    """The script, in one process unless the options say otherwise."""
    imagenet3d.main(["--root", str(root), "--out", str(out), "--workers", "1", *options])


def rows_of(out: Path, split: str) -> list[PosedImage]:
    """The records of a data folder."""
    return [PosedImage.from_row(row) for row in scene.load_split(out, split)]


def contents(folder: Path) -> dict[str, bytes]:
    """The files of a folder."""
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}
