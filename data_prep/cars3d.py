"""Turn StanfordCars3D or CompCars3D into Parquet shards that datasets.load_dataset opens.

    python data_prep/cars3d.py --root FINEGRAINED_POSE --out DIR [--suite StanfordCars|CompCars] [--version 2]

Reads the authors' folders: Anno3D/{suite}/{train|test}_anno.pkl, which become train and val, the images under Image/
(StanfordCars/cars_train and cars_test, CompCars/image) and CAD/. The pickles are read by a reader that runs nothing it
reads. They have no boxes: the box of a row is that of the projected CAD model or, without CAD/02958343 or with --boxes
image, the whole image.
"""

from __future__ import annotations

import functools
import math
import re
import reprlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from data_prep.conversion.convert import argument_parser, convert, settings_from
from data_prep.conversion.pixels import read_image
from data_prep.conversion.source import Problem, Reading, Source, Task
from llava_pose.annotations import FieldError
from llava_pose.errors import UserError, run_cli
from llava_pose.geometry import camera_center, project, wrap_angle
from llava_pose.safe_npz import read_pickle
from llava_pose.scene import PosedObject

IMAGES = {
    "StanfordCars": {"train": "StanfordCars/cars_train", "val": "StanfordCars/cars_test"},
    "CompCars": {"train": "CompCars/image", "val": "CompCars/image"},
}
"""Where under Image/ the images of each split of a suite lie."""
PICKLES = {"train": "train_anno", "val": "test_anno"}
CARS = "02958343"
"""ShapeNet's number for cars, the folder of their models."""
SEEN_WIDTH = 300
"""The annotators saw every image at this width: u, v and f are pixels of that."""
_NUMBERS = ("azimuth", "elevation", "theta", "distance", "u", "v", "f")
_MAX_ANGLE = 4 * math.pi


def to_our_frame(points: Any) -> np.ndarray:
    """Points (…, 3) of a ShapeNetCore v1 model in our frame: z up, facing −y, +x the object's own left.

    A model of ShapeNetCore v1 has y up and faces +x, and is a mirror image, its left for its right (version 2 mends
    it). The projection of the annotations mirrors it back: it divides by z − d with the camera at z = +d, which draws
    +x to the left. So the way into our frame is a turn and a mirroring, and what remains of the pose is a turn.
    """
    points = np.asarray(points, dtype=np.float64)
    return np.stack([points[..., 2], -points[..., 0], points[..., 1]], -1)


def to_our_pose(azimuth: float, elevation: float, theta: float) -> tuple[float, float, float]:
    """Our azimuth, elevation and theta of an annotation's, in radians.

    Theirs turn a model by Rz(theta) · Rx(elevation) · Ry(−azimuth); π/2 shows the front, a larger azimuth more of the
    right side. With ``to_our_frame`` and the mirroring of x by their projection, the same camera in our convention is
    Rz(−theta) · Rx(elevation − π/2) · Rz(azimuth − π/2).
    """
    return float(wrap_angle(math.pi / 2 - azimuth)), elevation, float(wrap_angle(-theta))


@dataclass(frozen=True)
class Cars3D(Source):
    """A suite under ``root``. ``suffix`` ends the names of its pickles; ``cad``: whether boxes come from CAD models."""

    root: Path
    suite: str
    suffix: str = ""
    cad: bool = True

    licence = "other"

    @property
    def name(self) -> str:  # type: ignore[override]
        """The suite's name as its authors write it."""
        return f"{self.suite}3D"

    @property
    def how(self) -> str:  # type: ignore[override]
        """Where the boxes come from."""
        boxes = "the projected CAD model" if self.cad else "the whole image"
        return f"The annotations have no boxes: the box of a row is that of {boxes}."

    def splits(self) -> dict[str, list[Task]]:
        """The images that the pickles name, in the order of their names."""
        return self.lists()[0]

    def list_problems(self) -> list[Problem]:
        """Names in the pickles that are not those of .jpg files."""
        return self.lists()[1]

    def lists(self) -> tuple[dict[str, list[Task]], list[Problem]]:
        """The images of each split, and what is wrong with their names."""
        splits: dict[str, list[Task]] = {}
        problems = []
        for split in PICKLES:
            path, splits[split] = self.pickle(split), []
            for name in sorted(read_cars(path)):
                # The file is downloaded: its names must not lead out of the data set.
                if re.fullmatch(r"(\w[\w.-]*/)*\w[\w.-]*\.jpg", name):
                    splits[split].append(Task(*f"{split}/{name.removesuffix('.jpg')}".rsplit("/", 1)))
                else:
                    message = f"{path}: {name!r} is not the name of a .jpg file"
                    problems.append(Problem("no plain file name", message))
        return splits, problems

    def pickle(self, split: str) -> Path:
        """The annotations of a split."""
        return self.root / "Anno3D" / self.suite / f"{PICKLES[split]}{self.suffix}.pkl"

    def paths(self, task: Task) -> tuple[Path, str, Path]:
        """The pickle, the image's name in it, and the image."""
        split, _, name = f"{task.folder}/{task.name}.jpg".partition("/")
        return self.pickle(split), name, self.root / "Image" / IMAGES[self.suite][split] / name

    def files(self, task: Task) -> list[Path]:
        """The image and the pickle."""
        path, _, image = self.paths(task)
        return [image, path]

    def where(self, task: Task, object_id: int) -> str:
        """The pickle and the image's name in it."""
        path, name, _ = self.paths(task)
        return f"{path}: {name}"

    def read(self, task: Task) -> Reading:
        """The one car of an image."""
        path, name, image = self.paths(task)
        reading = Reading(image, [])
        file = read_image(image)
        try:
            car = self.posed_car(read_cars(path)[name], file.width, file.height, self.where(task, 0))
            reading.objects.append(car)
        except FieldError as error:
            reading.problems.append(Problem(f"{error.field} in error", str(error)))
        return reading

    def posed_car(self, annotation: Any, width: int, height: int, where: str) -> PosedObject:
        """The car behind one annotation, in pixels of the image as stored. Raises FieldError."""
        values, model = checked(annotation, where)
        # As the authors resize, so that u and v are offsets from the middle of what they saw.
        seen_height = int(height * SEEN_WIDTH / width)
        if seen_height < 1:
            raise FieldError(where, "v", f"the image of {width}x{height} has no row at a width of {SEEN_WIDTH}")
        azimuth, elevation, theta = to_our_pose(values["azimuth"], values["elevation"], values["theta"])
        px = width / 2 + values["u"] * width / SEEN_WIDTH
        py = height / 2 + values["v"] * height / seen_height
        distance, viewport = values["distance"], values["f"] * width / SEEN_WIDTH
        box = (0.0, 0.0, float(width), float(height))
        if self.cad:
            points = self.model_points(model, where)
            pose = np.array([azimuth, elevation, theta])
            if (points @ camera_center(pose, 1.0)).max() >= distance:
                raise FieldError(where, "distance", f"the camera is inside the CAD model, found {distance}")
            pixels = project(points, pose, distance, viewport, (px, py))
            box = (*pixels.min(axis=0).tolist(), *pixels.max(axis=0).tolist())
        return PosedObject(
            object_id=0,
            category="car",
            bbox=box,
            azimuth=azimuth,
            elevation=elevation,
            theta=theta,
            distance=distance,
            px=px,
            py=py,
            viewport=viewport,
            cad_index=model_numbers(self.root / "CAD" / f"{self.suite}3D.txt").get(model, -1),
            status="",
            dense="",
        )

    def model_points(self, model: str, where: str) -> np.ndarray:
        """The vertices (N, 3) of a car's CAD model in our frame. Raises FieldError where there is none."""
        path = self.root / "CAD" / CARS / model / "model.obj"
        try:
            return to_our_frame(vertices(path))
        except UserError as error:
            raise FieldError(where, "model_id", str(error)) from error


@functools.lru_cache(maxsize=4)
def read_cars(path: Path) -> dict[str, Any]:
    """The annotations of one pickle by image name. Raises UserError where it is none or holds anything else."""
    cars = read_pickle(path)
    if not isinstance(cars, dict) or not all(isinstance(name, str) for name in cars):
        raise UserError(f"{path}: expected annotations by image name, found {reprlib.repr(cars)}")
    return cars


def checked(annotation: Any, where: str) -> tuple[dict[str, float], str]:
    """The numbers of an annotation and its model's id. Raises FieldError."""
    if not isinstance(annotation, dict):
        raise FieldError(where, "annotation", f"expected a dict, found {reprlib.repr(annotation)}")
    values = {}
    for name in _NUMBERS:
        value = annotation.get(name)
        if value is None:
            raise FieldError(where, name, "field is missing")
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise FieldError(where, name, f"expected a finite number, found {reprlib.repr(value)}")
        if name in ("azimuth", "elevation", "theta") and abs(value) > _MAX_ANGLE:
            raise FieldError(where, name, f"expected radians, found {value}")
        if name in ("distance", "f") and value <= 0:
            raise FieldError(where, name, f"expected a number above 0, found {value}")
        values[name] = float(value)
    model = annotation.get("model_id")
    if not isinstance(model, str) or not re.fullmatch(r"[\w-]+", model):
        raise FieldError(where, "model_id", f"expected the id of a model, found {reprlib.repr(model)}")
    return values, model


@functools.lru_cache(maxsize=64)
def vertices(path: Path) -> np.ndarray:
    """The vertices (N, 3) of an OBJ file. Raises UserError where there are none, or not three finite numbers."""
    try:
        lines = path.read_bytes().splitlines()
    except FileNotFoundError as error:
        raise UserError(f"{path}: CAD model is missing (--boxes image does without)") from error
    except OSError as error:
        raise UserError(f"{path}: CAD model cannot be read: {error.strerror}") from error
    try:
        points = np.array([line.split()[1:4] for line in lines if line.startswith(b"v ")], dtype=np.float64)
    except ValueError as error:
        raise UserError(f"{path}: a vertex that is not three numbers") from error
    if points.ndim != 2 or points.shape[1] != 3 or not np.isfinite(points).all():
        raise UserError(f"{path}: no vertices, or one that is not three finite numbers")
    return np.unique(points, axis=0)


@functools.lru_cache(maxsize=4)
def model_numbers(path: Path) -> dict[str, int]:
    """The first line, from 1, that names a model in a suite's list of CAD models; empty without a list."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    return {line.strip(): number for number, line in reversed(list(enumerate(lines, start=1)))}


def suite_under(root: Path, asked: str | None) -> str:
    """The suite that is asked for, or the only one that is there. Raises UserError."""
    found = [suite for suite in IMAGES if (root / "Anno3D" / suite).is_dir()]
    if asked is not None and asked not in found:
        raise UserError(f"{root / 'Anno3D' / asked}: folder does not exist")
    if asked is None and len(found) != 1:
        raise UserError(
            f"{root / 'Anno3D'}: expected StanfordCars or CompCars, found {' and '.join(found) or 'neither'}"
        )
    return asked or found[0]


def main(argv: Sequence[str] | None = None) -> None:
    """Parse the command line and convert."""
    parser = argument_parser(__doc__)
    parser.add_argument("--suite", choices=list(IMAGES), help="which of the two (default: the one that is there)")
    parser.add_argument("--version", type=int, choices=[1, 2], default=1, help="2: annotations improved by the authors")
    parser.add_argument("--boxes", choices=["cad", "image"], help="where boxes come from (default: cad if it is there)")
    options = parser.parse_args(argv)
    settings = settings_from(options, by_viewport=True)
    cad = options.boxes == "cad" or (options.boxes is None and (options.root / "CAD" / CARS).is_dir())
    suffix = "_v2" if options.version == 2 else ""
    source = Cars3D(options.root, suite_under(options.root, options.suite), suffix, cad)
    convert(source, options.out, settings)


if __name__ == "__main__":
    run_cli(main)
