"""Turn the cars of KITTI's object benchmark into Parquet shards that datasets.load_dataset opens.

    python data_prep/kitti.py --root KITTI --out DIR [--difficulty easy|moderate|hard]

Reads training/{image_2, label_2, calib} and ImageSets/{train|val}.txt; without ImageSets/ the last fifth of the images
by name is val. By the published rule a car's box has a short side above 100 pixels and it is truncated by less than 0.2
(--min-side, --max-truncation).

What a pose means here: KITTI's alpha is the turn of a car against the ray along which it is seen, and so is ours. It is
the pose in a camera at the same place that is turned towards the car, first about its upright axis, then up or down:
azimuth = alpha + 3π/2, elevation is how high that camera stands over the middle of the car's 3-D box, and theta is 0,
because KITTI's cameras stand level. The origin is the middle of the box and the unit its diagonal, so that a car is as
large as the CAD models of other suites.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data_prep.conversion.convert import argument_parser, convert, settings_from
from data_prep.conversion.layout import read_list
from data_prep.conversion.source import SPLITS, Problem, Reading, Source, Task
from llava_pose.annotations import FieldError
from llava_pose.errors import UserError, run_cli
from llava_pose.geometry import wrap_angle
from llava_pose.scene import PosedObject

FOLDER = "kitti"
FIELDS = (
    *("truncated", "occluded", "alpha", "left", "top", "right", "bottom"),
    *("height", "width", "length", "x", "y", "z", "rotation_y"),
)
"""The numbers of a line of a label file, after the type. Lengths are metres, in the rectified first camera's frame: x
right, y down, z ahead; (x, y, z) is the middle of the bottom of the box."""
DIFFICULTIES = {"easy": (40, 0, 0.15), "moderate": (25, 1, 0.30), "hard": (25, 2, 0.50)}
"""KITTI's levels: the smallest height of a box in pixels, the greatest occlusion, the greatest truncation."""
STATUSES = {0: "status_good", 1: "status_partially", 2: "status_barely", 3: ""}
"""How much of a car is seen, by its occlusion: fully, partly, hardly, unknown."""


@dataclass(frozen=True)
class Kitti(Source):
    """The benchmark's training part under ``root`` (or ``root/training``).

    Of its cars those whose box has a short side above ``min_side`` pixels, which are truncated by less than
    ``max_truncation``, and up to a ``difficulty`` if it is given.
    """

    root: Path
    min_side: float = 100.0
    max_truncation: float = 0.2
    difficulty: str | None = None

    name = "KITTI"
    licence = "cc-by-nc-sa-3.0"
    how = "Cars only; the pose is seen along the ray to the car, in units of the diagonal of its 3-D box."

    @property
    def folder(self) -> Path:
        """The folder with image_2, label_2 and calib."""
        inner = self.root / "training"
        return inner if inner.is_dir() else self.root

    def splits(self) -> dict[str, list[Task]]:
        """The images of ImageSets/, or all that have labels, the last fifth of them as val."""
        return self.lists()[0]

    def list_problems(self) -> list[Problem]:
        """Lines of the lists that are no file name or a second mention."""
        return self.lists()[1]

    def lists(self) -> tuple[dict[str, list[Task]], list[Problem]]:
        """The images of each split, and what is wrong with their lists."""
        problems: list[Problem] = []
        sets = self.root / "ImageSets"
        if sets.is_dir():
            return {split: read_list(sets / f"{split}.txt", FOLDER, problems) for split in SPLITS}, problems
        labels = self.folder / "label_2"
        if not labels.is_dir():
            raise UserError(f"{labels}: folder does not exist")
        tasks = [Task(FOLDER, path.stem) for path in sorted(labels.glob("*.txt"))]
        last = len(tasks) - len(tasks) // 5
        return {"train": tasks[:last], "val": tasks[last:]}, problems

    def paths(self, task: Task) -> tuple[Path, Path, Path]:
        """The image, its labels and its calibration."""
        return (
            self.folder / "image_2" / f"{task.name}.png",
            self.folder / "label_2" / f"{task.name}.txt",
            self.folder / "calib" / f"{task.name}.txt",
        )

    def files(self, task: Task) -> list[Path]:
        """The image, its labels and its calibration."""
        return list(self.paths(task))

    def where(self, task: Task, object_id: int) -> str:
        """The label file and the line."""
        return f"{self.paths(task)[1]}:{object_id + 1}"

    def read(self, task: Task) -> Reading:
        """The cars of a label file."""
        image, labels, calib = self.paths(task)
        camera = read_camera(calib)
        reading = Reading(image, [])
        for index, line in enumerate(read_lines(labels)):
            kind, *words = line.split() or [""]
            if kind != "Car":
                reading.skipped[f"not a car: {kind}" if kind else "empty line"] += 1
                continue
            try:
                car = numbers(words, self.where(task, index))
                reason = self.left_out(car)
                if reason is None:
                    reading.objects.append(posed_car(car, camera, index, self.where(task, index)))
                else:
                    reading.skipped[reason] += 1
            except FieldError as error:
                reading.problems.append(Problem(f"{error.field} in error", str(error)))
        return reading

    def left_out(self, car: dict[str, float]) -> str | None:
        """Why a car is not used, or None."""
        height = car["bottom"] - car["top"]
        if min(car["right"] - car["left"], height) <= self.min_side:
            return f"short side <= {self.min_side:g} pixels"
        if car["truncated"] >= self.max_truncation:
            return f"truncation >= {self.max_truncation:g}"
        if self.difficulty is not None:
            least, occluded, truncated = DIFFICULTIES[self.difficulty]
            if height < least or car["occluded"] > occluded or car["truncated"] > truncated:
                return f"harder than {self.difficulty}"
        return None


def read_lines(path: Path) -> list[str]:
    """The lines of a text file. Raises UserError."""
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError as error:
        raise UserError(f"{path}: file is missing") from error
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read: {error}") from error


def read_camera(path: Path) -> np.ndarray:
    """P2 (3, 4), the projection of the left colour camera. Raises UserError where it is missing or no plain pinhole."""
    for line in read_lines(path):
        if not line.startswith("P2:"):
            continue
        try:
            matrix = np.array(line.removeprefix("P2:").split(), dtype=np.float64)
        except ValueError as error:
            raise UserError(f"{path}: P2: {error}") from error
        if matrix.shape != (12,) or not np.isfinite(matrix).all():
            raise UserError(f"{path}: P2: expected 12 finite numbers, found {line.removeprefix('P2:').strip()!r}")
        matrix = matrix.reshape(3, 4)
        focal = matrix[0, 0]
        expected = np.array([[focal, 0, matrix[0, 2]], [0, focal, matrix[1, 2]], [0, 0, 1]])
        if focal <= 0 or not np.allclose(matrix[:, :3], expected, rtol=1e-6, atol=1e-6):
            raise UserError(f"{path}: P2: expected one focal length and no skew, found {matrix[:, :3].tolist()}")
        return matrix
    raise UserError(f"{path}: P2: field is missing")


def numbers(words: Sequence[str], where: str) -> dict[str, float]:
    """The fields of a car's line. Raises FieldError where one is missing, no finite number or out of its range."""
    if len(words) != len(FIELDS):
        raise FieldError(where, "line", f"expected the type and {len(FIELDS)} numbers, found {len(words)}")
    car = {}
    for name, word in zip(FIELDS, words, strict=True):
        try:
            car[name] = float(word)
        except ValueError as error:
            raise FieldError(where, name, f"expected a number, found {word!r}") from error
        if not math.isfinite(car[name]):
            raise FieldError(where, name, f"expected a finite number, found {word}")
    for name in ("alpha", "rotation_y"):
        if abs(car[name]) > 2 * math.pi:
            raise FieldError(where, name, f"expected radians, found {car[name]:g}")
    for name in ("height", "width", "length"):
        if car[name] <= 0:
            raise FieldError(where, name, f"expected metres above 0, found {car[name]:g}")
    if car["occluded"] not in STATUSES:
        raise FieldError(where, "occluded", f"expected 0, 1, 2 or 3, found {car['occluded']:g}")
    if not 0 <= car["truncated"] <= 1:
        raise FieldError(where, "truncated", f"expected 0 to 1, found {car['truncated']:g}")
    if car["right"] <= car["left"] or car["bottom"] <= car["top"]:
        corners = tuple(car[name] for name in ("left", "top", "right", "bottom"))
        raise FieldError(where, "bbox", f"box has no area: {corners}")
    return car


def posed_car(car: dict[str, float], camera: np.ndarray, object_id: int, where: str) -> PosedObject:
    """The car as a camera at the same place, turned to the middle of its box, sees it.

    The viewport is that camera's: its picture of the middle of the car has the scale of the real one, up and down.
    """
    centre = -np.linalg.solve(camera[:, :3], camera[:, 3])
    offset = np.array([car["x"], car["y"] - car["height"] / 2, car["z"]]) - centre
    if offset[2] <= 0:
        raise FieldError(where, "z", f"expected a car ahead of the camera, found {car['z']:g}")
    px, py, _ = camera[:, :3] @ offset / offset[2]
    metres = float(np.linalg.norm(offset))
    return PosedObject(
        object_id=object_id,
        category="car",
        bbox=(car["left"], car["top"], car["right"], car["bottom"]),
        azimuth=float(wrap_angle(car["alpha"] + 3 * math.pi / 2)),
        # y points down: a car whose middle is below the camera is seen from above.
        elevation=math.atan2(offset[1], math.hypot(offset[0], offset[2])),
        theta=0.0,
        distance=metres / math.hypot(car["height"], car["width"], car["length"]),
        px=float(px),
        py=float(py),
        viewport=float(camera[0, 0] * metres / offset[2]),
        cad_index=-1,
        status=STATUSES[int(car["occluded"])],
        dense="",
    )


def at_least_0(text: str) -> float:
    """A finite number of 0 or more: the type of an argument."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value < math.inf:
        raise argparse.ArgumentTypeError(f"must be a number of 0 or more, got {text!r}")
    return value


def main(argv: Sequence[str] | None = None) -> None:
    """Parse the command line and convert."""
    parser = argument_parser(__doc__)
    parser.add_argument(
        "--min-side", type=at_least_0, default=100.0, help="a box's short side is above this (default 100)"
    )
    parser.add_argument("--max-truncation", type=at_least_0, default=0.2, help="truncation is below this (default 0.2)")
    parser.add_argument(
        "--difficulty", choices=list(DIFFICULTIES), help="KITTI's level, and easier ones (default: any)"
    )
    options = parser.parse_args(argv)
    settings = settings_from(options, by_viewport=True)
    source = Kitti(options.root, options.min_side, options.max_truncation, options.difficulty)
    convert(source, options.out, settings)


if __name__ == "__main__":
    run_cli(main)
