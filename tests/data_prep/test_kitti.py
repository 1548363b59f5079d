"""From KITTI's labels to Parquet: the pose against a full projection of the 3-D boxes, its rules counted, every mistake
named."""

import argparse
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.spatial.transform import Rotation

from data_prep import kitti
from llava_pose import scene
from llava_pose.errors import UserError
from llava_pose.geometry import camera_center, project
from llava_pose.scene import PosedImage

ROOT = Path(__file__).parents[2]
WIDTH, HEIGHT = 1242, 375
# Of a real file: P2 stands 6 cm to the right of the first camera, in whose frame the labels are.
P2 = np.array([[721.5377, 0, 609.5593, 44.85728], [0, 721.5377, 172.854, 0.2163791], [0, 0, 1, 0.002745884]])
CALIB = "P0: 1 0 0 0 0 1 0 0 0 0 1 0\nP2: {}\nR0_rect: 1 0 0 0 1 0 0 0 1\n"
REAL = "Car 0.00 0 1.85 387.63 181.54 423.81 203.12 1.67 1.87 3.69 -16.53 2.39 58.49 1.57"
OTHERS = [
    "Truck 0.00 0 -1.57 599.41 156.40 629.75 189.25 2.85 2.63 12.34 0.47 1.49 69.44 -1.56",
    "DontCare -1 -1 -10 503.89 169.71 590.61 190.13 -1 -1 -1 -1000 -1000 -1000 -10",
]


def corners_of(car):
    """The corners (8, 3) of the 3-D box in the first camera's frame, as KITTI's devkit makes them."""
    height, width, length = car["size"]
    forward, down, side = np.array(
        [(x, y, z) for x in (length / 2, -length / 2) for y in (0, -height) for z in (width / 2, -width / 2)]
    ).T
    cos, sin = math.cos(car["rotation_y"]), math.sin(car["rotation_y"])
    return np.stack([cos * forward + sin * side, down, -sin * forward + cos * side], -1) + car["at"]


def pixels_of(points):
    """Pixels (N, 2) by P2."""
    seen = points @ P2[:, :3].T + P2[:, 3]
    return seen[:, :2] / seen[:, 2:]


def car_at(x, z, rotation_y, size=(1.5, 1.7, 4.2), ground=1.65):
    return {"at": np.array([x, ground, z]), "rotation_y": rotation_y, "size": size}


def eye():
    """Where the second camera stands in the first one's frame."""
    return -np.linalg.solve(P2[:, :3], P2[:, 3])


def label(car, **fields):
    """A line of a label file with all digits; alpha is seen from the camera that took the picture."""
    corners = pixels_of(corners_of(car))
    offset = car["at"] - eye()
    values = {
        "type": "Car",
        "truncated": 0.0,
        "occluded": 0,
        "alpha": car["rotation_y"] - math.atan2(offset[0], offset[2]),
        **dict(zip(("left", "top"), np.clip(corners.min(axis=0), 0, None).tolist(), strict=True)),
        **dict(zip(("right", "bottom"), np.clip(corners.max(axis=0), 0, (WIDTH, HEIGHT)).tolist(), strict=True)),
        **dict(zip(("height", "width", "length"), car["size"], strict=True)),
        **dict(zip(("x", "y", "z"), car["at"].tolist(), strict=True)),
        "rotation_y": car["rotation_y"],
        **fields,
    }
    return " ".join(str(value) for value in values.values())


NEAR = car_at(-2.0, 8.0, 0.4)


def add(root, name, *lines, camera=P2):
    for folder in ("image_2", "label_2", "calib"):
        (root / "training" / folder).mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (WIDTH, HEIGHT), (90, 120, 60)).save(root / f"training/image_2/{name}.png", compress_level=1)
    (root / f"training/label_2/{name}.txt").write_text("".join(line + "\n" for line in lines))
    numbers = " ".join(str(value) for value in camera.ravel().tolist())
    (root / f"training/calib/{name}.txt").write_text(CALIB.format(numbers))


def small_release(root, *train):
    add(root, "000001", *(train or [label(NEAR), *OTHERS, REAL]))
    add(root, "000002", label(NEAR, truncated=0.2), label(NEAR, occluded=2))
    (root / "ImageSets").mkdir()
    (root / "ImageSets/train.txt").write_text("000001\n")
    (root / "ImageSets/val.txt").write_text("000002\n")
    return root


def convert(root, out, *options):
    kitti.main(["--root", str(root), "--out", str(out), "--workers", "1", *options])


def rows_of(out, split):
    return [PosedImage.from_row(row) for row in scene.load_split(out, split)]


def in_our_frame(points, car):
    """Points of the first camera's frame in the object's: left, back and up from the middle of the box, in its
    diagonals. The car's own axes are forward (x of KITTI's box), down (y) and left (z)."""
    height = car["size"][0]
    cos, sin = math.cos(car["rotation_y"]), math.sin(car["rotation_y"])
    offset = points - car["at"] + [0, height / 2, 0]
    forward, left = offset @ [cos, 0, -sin], offset @ [sin, 0, cos]
    return np.stack([left, -forward, -offset[:, 1]], -1) / np.linalg.norm(car["size"])


PLACES = [(0.0, 12.0), (-6.0, 9.0), (5.0, 7.0), (-2.5, 20.0), (3.0, 6.0), (-1.0, 30.0)]


@pytest.fixture(scope="module")
def converted(tmp_path_factory):
    """Cars all around, seen from all sides and on two levels of ground, with the objects made of them."""
    folder = tmp_path_factory.mktemp("kitti")
    turns = np.linspace(-3.1, 3.1, 9)
    cars = [car_at(x, z, turn, ground=ground) for x, z in PLACES for turn in turns for ground in (1.65, -0.5)]
    small_release(folder / "release", *(label(car) for car in cars))
    convert(folder / "release", folder / "out", "--crop", "scene", "--min-side", "0")
    [row] = rows_of(folder / "out", "train")
    assert len(row.objects) == len(cars)
    return list(zip(cars, row.objects, strict=True))


def test_a_camera_turned_to_the_car_sees_our_projection_of_the_box(converted):
    # Turning a camera on the spot maps its pixels by a homography. So our pixels, as rays of the turned camera, turned
    # back, must meet the pixels of the full projection: for all corners, not only near the middle.
    for car, item in converted:
        corners = corners_of(car)
        ours = project(in_our_frame(corners, car), item.pose, item.distance, item.viewport, (item.px, item.py))
        rays = np.column_stack([(ours - [item.px, item.py]) / item.viewport, np.ones(len(ours))])
        offset = car["at"] - [0, car["size"][0] / 2, 0] - eye()
        sideways = math.atan2(offset[0], offset[2])
        downward = math.atan2(offset[1], math.hypot(offset[0], offset[2]))
        turned_back = Rotation.from_euler("YX", [sideways, -downward]).apply(rays)
        seen = turned_back @ P2[:, :3].T
        np.testing.assert_allclose(seen[:, :2] / seen[:, 2:], pixels_of(corners), atol=1e-6)


def test_the_scale_up_and_down_at_the_middle_of_the_car_is_the_pictures_own(converted):
    for car, item in converted:
        middle = car["at"] - [0, car["size"][0] / 2, 0]
        step = np.array([[0, -1e-6, 0], [0, 1e-6, 0]])
        ours = project(in_our_frame(middle + step, car), item.pose, item.distance, item.viewport, (item.px, item.py))
        full = pixels_of(middle + step)
        across = math.cos(item.elevation)
        assert (ours[1] - ours[0])[1] == pytest.approx((full[1] - full[0])[1] * across, rel=1e-4)
        assert abs((ours[1] - ours[0])[0]) < 1e-9 and abs((full[1] - full[0])[0]) < 1e-9  # upright in both: theta is 0
        np.testing.assert_allclose(ours.mean(axis=0), full.mean(axis=0), atol=1e-6)


def test_the_sides_of_the_car_that_the_pose_shows_are_those_the_camera_sees(converted):
    counts = dict.fromkeys(("front", "back", "left", "right", "top", "bottom"), 0)
    for car, item in converted:
        height, width, length = np.array(car["size"]) / 2
        # In KITTI's terms: the camera from the middle of the box, along the car's own axes.
        offset = eye() - (car["at"] - [0, height, 0])
        cos, sin = math.cos(car["rotation_y"]), math.sin(car["rotation_y"])
        forward, up, left = offset @ [cos, 0, -sin], -offset[1], offset @ [sin, 0, cos]
        seen = {
            "front": forward > length,
            "back": forward < -length,
            "left": left > width,
            "right": left < -width,
            "top": up > height,
            "bottom": up < -height,
        }
        x, y, z = camera_center(item.pose, item.distance) * np.linalg.norm(car["size"])
        said = {
            "front": y < -length,
            "back": y > length,
            "left": x > width,
            "right": x < -width,
            "top": z > height,
            "bottom": z < -height,
        }
        assert said == seen
        assert (item.elevation > 0) == (up > 0)
        for side, there in seen.items():
            counts[side] += there
    assert min(counts.values()) >= 6


@pytest.mark.parametrize(
    ("alpha", "azimuth"), [(math.pi / 2, 0.0), (math.pi, 90.0), (-math.pi / 2, 180.0), (0.0, 270.0), (0.6, 304.38)]
)
def test_azimuth_is_alpha_and_three_quarters_of_a_turn(tmp_path, alpha, azimuth):
    convert(small_release(tmp_path / "kitti", label(NEAR, alpha=alpha)), tmp_path / "out", "--crop", "scene")
    found = math.degrees(rows_of(tmp_path / "out", "train")[0].objects[0].azimuth)
    assert (found - azimuth + 180) % 360 - 180 == pytest.approx(0, abs=0.01)


def test_a_real_line_gives_a_car_seen_from_its_front_from_above(tmp_path):
    root = small_release(tmp_path / "kitti", REAL)
    convert(root, tmp_path / "out", "--crop", "scene", "--min-side", "20")
    item = rows_of(tmp_path / "out", "train")[0].objects[0]
    assert (item.object_id, item.category, item.cad_index, item.status, item.theta) == (0, "car", -1, "status_good", 0)
    assert math.degrees(item.azimuth) == pytest.approx(math.degrees(1.85) - 90)
    assert math.degrees(item.elevation) == pytest.approx(1.5, abs=0.1)
    assert item.distance == pytest.approx(math.hypot(-16.53, 58.49) / math.hypot(1.67, 1.87, 3.69), rel=0.01)
    assert 387.63 < item.px < 423.81 and 181.54 < item.py < 203.12


def test_an_object_crop_frames_a_car_as_imagenet3d_would(tmp_path):
    convert(small_release(tmp_path / "kitti"), tmp_path / "out")
    item = rows_of(tmp_path / "out", "train")[0].objects[0]
    assert item.viewport / item.distance == pytest.approx(2000 / 4, rel=0.02)
    x1, y1, x2, y2 = item.bbox
    assert 300 < x2 - x1 < 512


def test_the_rules_are_counted_by_reason(tmp_path, capsys):
    convert(small_release(tmp_path / "kitti"), tmp_path / "out")
    printed = capsys.readouterr().out.splitlines()
    for line in (
        "train: 1 rows from 1 images",
        "train: left out: not a car: DontCare: 1",
        "train: left out: not a car: Truck: 1",
        "train: left out: short side <= 100 pixels: 1",
        "val: 1 rows from 1 images",
        "val: left out: truncation >= 0.2: 1",
    ):
        assert line in printed
    [row] = rows_of(tmp_path / "out", "val")
    assert (row.image_id, row.objects[0].object_id, row.objects[0].status) == ("kitti/000002", 1, "status_barely")


@pytest.mark.parametrize(
    ("fields", "levels"),
    [
        ({}, ["easy", "moderate", "hard"]),
        ({"truncated": 0.16}, ["moderate", "hard"]),
        ({"occluded": 1}, ["moderate", "hard"]),
        ({"occluded": 2}, ["hard"]),
        ({"truncated": 0.4}, ["hard"]),
        ({"top": 200.0, "bottom": 239.0}, ["moderate", "hard"]),
        ({"top": 200.0, "bottom": 224.0}, []),
        ({"occluded": 3}, []),
        ({"truncated": 0.51}, []),
    ],
)
def test_difficulties_are_kittis(fields, levels):
    car = kitti.numbers(label(NEAR, **fields).split()[1:], "a line")
    found = [name for name in kitti.DIFFICULTIES if kitti.Kitti(Path(), 0, 1.1, name).left_out(car) is None]
    assert found == levels
    assert kitti.Kitti(Path(), 0, 1.1).left_out(car) is None


@pytest.mark.parametrize("text", ["many", "-1", "nan", "inf"])
def test_a_limit_that_is_no_number_of_0_or_more_is_refused(text):
    with pytest.raises(argparse.ArgumentTypeError, match=f"must be a number of 0 or more, got '{text}'"):
        kitti.at_least_0(text)
    assert kitti.at_least_0("0") == 0


def test_without_lists_the_last_fifth_is_val_and_the_root_may_be_the_inner_folder(tmp_path):
    for number in range(10):
        add(tmp_path / "kitti", f"{number:06d}", label(NEAR))
    convert(tmp_path / "kitti/training", tmp_path / "out", "--size", "64")
    assert len(rows_of(tmp_path / "out", "train")) == 8
    assert [row.image_id for row in rows_of(tmp_path / "out", "val")] == ["kitti/000008", "kitti/000009"]


MISTAKES = {
    "too few": ("Car 0.00 0 1.85", "line: expected the type and 14 numbers, found 3"),
    "a score": (label(NEAR) + " 0.9", "line: expected the type and 14 numbers, found 15"),
    "text": (label(NEAR, alpha="front"), "alpha: expected a number, found 'front'"),
    "NaN": (label(NEAR, x=math.nan), "x: expected a finite number, found nan"),
    "no alpha": (label(NEAR, alpha=-10), "alpha: expected radians, found -10"),
    "no size": (label(NEAR, height=-1), "height: expected metres above 0, found -1"),
    "occlusion": (label(NEAR, occluded=7), "occluded: expected 0, 1, 2 or 3, found 7"),
    "truncation": (label(NEAR, truncated=-1), "truncated: expected 0 to 1, found -1"),
    "behind": (label(NEAR, z=-3.0), "z: expected a car ahead of the camera, found -3"),
    "reversed": (label(NEAR, left=800.0, right=300.0), "bbox: box has no area: (800.0, "),
    "outside": (label(NEAR, left=5000.0, right=5300.0), "bbox: (5000.0, "),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_wrong_line_is_named_and_leaves_nothing_behind(tmp_path, mistake):
    line, message = MISTAKES[mistake]
    root = small_release(tmp_path / "kitti", OTHERS[0], line)
    with pytest.raises(UserError) as error:
        convert(root, tmp_path / "out")
    assert str(error.value).startswith(f"{root}/training/label_2/000001.txt:2.{message}")
    assert [path.name for path in tmp_path.iterdir()] == ["kitti"]


def calib(text):
    return lambda root: (root / "training/calib/000001.txt").write_text(text)


FILES = {
    "no P2": (calib("P0: 1 2\n"), "calib/000001.txt: P2: field is missing"),
    "P2 short": (calib("P2: 1 2 3\n"), "calib/000001.txt: P2: expected 12 finite numbers, found '1 2 3'"),
    "P2 text": (calib("P2: a b\n"), "calib/000001.txt: P2: could not convert"),
    "P2 NaN": (calib("P2:" + " nan" * 12), "calib/000001.txt: P2: expected 12 finite numbers"),
    "P2 skewed": (calib("P2: 700 9 600 0 0 700 170 0 0 0 1 0\n"), "P2: expected one focal length and no skew"),
    "calib missing": (lambda root: (root / "training/calib/000001.txt").unlink(), "calib/000001.txt: file is missing"),
    "labels missing": (lambda root: (root / "training/label_2/000001.txt").unlink(), "000001.txt: file is missing"),
    "labels binary": (
        lambda root: (root / "training/label_2/000001.txt").write_bytes(b"\xff\xfe\x00"),
        "label_2/000001.txt: cannot be read",
    ),
    "image missing": (lambda root: (root / "training/image_2/000001.png").unlink(), "000001.png: image is missing"),
    "list missing": (lambda root: (root / "ImageSets/val.txt").unlink(), "val.txt: list cannot be read"),
    "way out": (
        lambda root: (root / "ImageSets/val.txt").write_text("000002\n../000001\n"),
        "val.txt:2: '../000001' is not a plain file name",
    ),
    "no labels": (lambda root: shutil.rmtree(root) or root.mkdir(), "label_2: folder does not exist"),
}


@pytest.mark.parametrize("mistake", FILES)
def test_a_wrong_file_is_named_and_leaves_nothing_behind(tmp_path, mistake):
    spoil, message = FILES[mistake]
    root = small_release(tmp_path / "kitti")
    spoil(root)
    with pytest.raises(UserError) as error:
        convert(root, tmp_path / "out")
    assert message in str(error.value)
    assert [path.name for path in tmp_path.iterdir()] == ["kitti"]


@pytest.mark.parametrize("strict", [True, False])
def test_the_command_ends_with_one_line_and_exit_code_2_or_skips_on_request(tmp_path, strict):
    root = small_release(tmp_path / "kitti", "Car 0.00 0 1.85", label(NEAR))
    result = subprocess.run(
        [
            *(sys.executable, "data_prep/kitti.py", "--root", root, "--out", tmp_path / "out", "--size", "64"),
            *([] if strict else ["--on-error", "skip"]),
        ],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    message = f"{root}/training/label_2/000001.txt:1.line: expected the type and 14 numbers, found 3"
    assert result.returncode == (2 if strict else 0)
    assert (tmp_path / "out").exists() is not strict
    if strict:
        assert result.stderr == f"error: {message}\n"
    else:
        assert [row.objects[0].object_id for row in rows_of(tmp_path / "out", "train")] == [1]
