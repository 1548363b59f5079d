"""From ImageNet3D's files to Parquet: exact records, counted skips, every mistake named, nothing half-written."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from datasets import load_dataset
from PIL import Image

from llava_pose import scene
from llava_pose.errors import UserError
from tests.small_release import (
    HEIGHT,
    WIDTH,
    add_chairs,
    annotation,
    convert,
    rows_of,
    small_release,
    write_npz,
)

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("side_by_side", [False, True], ids=["images and annotations", "side by side"])
def test_both_layouts_give_the_same_rows_and_counts(tmp_path, capsys, side_by_side):
    convert(small_release(tmp_path / "release", side_by_side), tmp_path / "out", "--size", "32")
    assert capsys.readouterr().out.splitlines() == [
        "train: 3 rows from 3 images",
        "train: 1 images have nothing to show",
        "train: 3 objects of 3 categories: vehicles 2, furniture 1",
        "train: left out: distance <= 0: 1",
        "train: left out: no object_status: 1",
        "train: left out: status_bad: 1",
        "val: 1 rows from 1 images",
        "val: 1 objects of 1 categories: vehicles 1",
        "val: left out: status_bad: 1",
    ]
    train = rows_of(tmp_path / "out", "train")
    found = [(item.image_id, item.objects[0].object_id, item.objects[0].category) for item in train]
    assert found == [("babby_buggy/n03", 0, "baby_buggy"), ("car/n01", 0, "car"), ("car/n01", 2, "diningtable")]
    assert all(item.image.size == (32, 32) and item.width == item.height == 32 for item in train)
    assert [item.image_id for item in rows_of(tmp_path / "out", "val")] == ["car/n04"]


def test_the_output_opens_with_load_dataset_as_train_and_val(tmp_path):
    convert(small_release(tmp_path / "release"), tmp_path / "out", "--size", "32")
    data = load_dataset(str(tmp_path / "out"))
    assert {split: len(rows) for split, rows in data.items()} == {"train": 3, "val": 1}
    assert data["train"].features == scene.features()
    assert data["train"][0]["image"].size == (32, 32)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "README.md",
        "angles.png",
        "train-00000-of-00001.parquet",
        "val-00000-of-00001.parquet",
    ]


@pytest.mark.parametrize("crop", ["object", "box", "scene"])
def test_the_folder_tells_how_its_rows_were_cut(tmp_path, crop):
    convert(small_release(tmp_path / "release"), tmp_path / "out", "--crop", crop)
    assert scene.crop_kind(tmp_path / "out") == crop
    assert scene.crop_kind(tmp_path) is None


def test_captions_mark_the_rows_objects(tmp_path):
    convert(small_release(tmp_path / "release"), tmp_path / "out", "--crop", "scene")
    first, second = rows_of(tmp_path / "out", "train")
    assert (first.image_id, second.image_id) == ("babby_buggy/n03", "car/n01")
    assert "a baby buggy <pose>" in first.caption.lower() and first.caption_objects == (0,)
    assert "a car <pose>" in second.caption.lower() and "a dining table <pose>" in second.caption.lower()
    assert sorted(second.caption_objects) == [0, 2]
    order = (2, 0) if second.caption.lower().find("dining table") < second.caption.lower().find("car") else (0, 2)
    assert second.caption_objects == order


def test_scene_keeps_pixels_and_numbers_of_all_objects(tmp_path):
    convert(small_release(tmp_path / "release"), tmp_path / "out", "--crop", "scene")
    record = rows_of(tmp_path / "out", "train")[1]
    assert record.image.size == (WIDTH, HEIGHT)
    stored = np.asarray(Image.open(tmp_path / "release/images/car/n01.JPEG"), dtype=float)
    assert np.abs(np.asarray(record.image, dtype=float) - stored).mean() < 3
    assert [(item.px, item.viewport, item.bbox) for item in record.objects] == [
        (30.0, 700.0, (20.0, 10.0, 42.0, 30.0)),
        (12.0, 700.0, (2.0, 4.0, 25.0, 30.0)),
    ]


def test_categories_and_limit_choose_images(tmp_path, capsys):
    root = small_release(tmp_path / "release")
    add_chairs(root, range(5, 9))
    names = tmp_path / "names.txt"
    names.write_text("car\nchair\n")
    convert(root, tmp_path / "some", "--size", "16", "--categories", str(names))
    kept = [row.objects[0].category for row in rows_of(tmp_path / "some", "train")]
    assert kept == ["car", "chair", "chair", "chair", "chair"]
    assert "train: left out: category not asked for: 1" in capsys.readouterr().out
    convert(root, tmp_path / "few", "--size", "16", "--limit", "3")
    ids = [row.image_id for row in rows_of(tmp_path / "few", "train")]
    assert ids == ["babby_buggy/n03", "car/n01", "car/n01", "chair/n05"]


def test_a_grey_or_transparent_image_becomes_rgb(tmp_path):
    root = small_release(tmp_path / "release")
    Image.new("L", (WIDTH, HEIGHT), 99).save(root / "images/car/n01.JPEG")
    convert(root, tmp_path / "out", "--crop", "scene")
    assert rows_of(tmp_path / "out", "train")[1].image.getpixel((3, 3)) == (99, 99, 99)


def replace_npz(root, *objects):
    write_npz(root / "annotations/car/n01.npz", *objects)


def write_list(root, name, content):
    (root / "lists" / name).write_bytes(content)


MISTAKES = {
    "root": (lambda root: shutil.rmtree(root), "release: root folder does not exist"),
    "no lists": (lambda root: shutil.rmtree(root / "lists"), "lists: no image in any {category}_imagenet_train.txt"),
    "list not text": (
        lambda root: write_list(root, "car_imagenet_val.txt", b"\xff"),
        "val.txt: list cannot be read: not UTF-8",
    ),
    "unknown list": (
        lambda root: write_list(root, "carr_imagenet_val.txt", b"n1\n"),
        "carr_imagenet_val.txt: category: unknown name 'carr'; did you mean car",
    ),
    "repeated line": (
        lambda root: write_list(root, "car_imagenet_val.txt", b"n04\n\nn04\n"),
        "car_imagenet_val.txt:3: 'n04' repeats line 1",
    ),
    "path in list": (
        lambda root: write_list(root, "car_imagenet_val.txt", b"../../n04\n"),
        "car_imagenet_val.txt:1: '../../n04' is not a plain file name",
    ),
    "no image": (lambda root: (root / "images/car/n01.JPEG").unlink(), "car/n01.JPEG: image is missing"),
    "image is text": (
        lambda root: (root / "images/car/n01.JPEG").write_text("no image"),
        "car/n01.JPEG: not a readable image",
    ),
    "torn image": (
        lambda root: (root / "images/car/n01.JPEG").write_bytes((root / "images/car/n01.JPEG").read_bytes()[:700]),
        "car/n01.JPEG: not a readable image",
    ),
    "no npz": (lambda root: (root / "annotations/car/n01.npz").unlink(), "car/n01.npz: cannot read: No such file"),
    "npz is text": (
        lambda root: (root / "annotations/car/n01.npz").write_text("no npz"),
        "car/n01.npz: not a readable npz file",
    ),
    "missing field": (
        lambda root: replace_npz(root, annotation(azimuth=None)),
        "car/n01.npz: annotations[0].azimuth: field is missing",
    ),
    "NaN angle": (
        lambda root: replace_npz(root, annotation(), annotation(theta=float("nan"))),
        "car/n01.npz: annotations[1].theta: expected a finite number, found nan",
    ),
    "unknown category": (
        lambda root: replace_npz(root, annotation(**{"class": "spaceship"})),
        "car/n01.npz: annotations[0].class: category: unknown name 'spaceship'",
    ),
    "box outside": (
        lambda root: replace_npz(root, annotation(bbox=[61.0, 3.0, 70.0, 9.0])),
        "car/n01.npz: annotations[0].bbox: (61.0, 3.0, 70.0, 9.0) lies outside the 60x40 image",
    ),
    "box outside the crop": (
        lambda root: replace_npz(root, annotation(px=2.0, py=2.0, distance=400.0)),
        "car/n01.npz: annotations[0].bbox: (20.0, 10.0, 42.0, 30.0) lies outside the crop around (2.0, 2.0)",
    ),
    "far too close": (
        lambda root: replace_npz(root, annotation(distance=1e-3)),
        "car/n01.npz: annotations[0].distance, px, py: the crop shows less than a pixel",
    ),
    "all left out": (
        lambda root: write_npz(root / "annotations/car/n04.npz", annotation(distance=0)),
        "split 'val' is empty: nothing is left (distance <= 0: 1)",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_named_and_no_output_appears(tmp_path, mistake):
    spoil, message = MISTAKES[mistake]
    root = small_release(tmp_path / "release")
    spoil(root)
    with pytest.raises(UserError) as error:
        convert(root, tmp_path / "out", "--size", "32")
    assert message in str(error.value)
    assert {path.name for path in tmp_path.iterdir()} <= {"release", ".out.partial"}


@pytest.mark.parametrize("workers", ["1", "2"])
def test_the_command_ends_with_one_line_and_exit_code_2(tmp_path, workers):
    root = small_release(tmp_path / "release")
    replace_npz(root, annotation(elevation=float("inf")))
    command = [sys.executable, "data_prep/imagenet3d.py", "--root", root, "--out", tmp_path / "out"]
    result = subprocess.run(
        [*command, "--size", "32", "--workers", workers],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 2
    [line] = result.stderr.splitlines()
    assert line.startswith(
        f"error: {root}/annotations/car/n01.npz: annotations[0].elevation: expected a finite number, found inf"
    )
    assert not (tmp_path / "out").exists()


def test_skip_leaves_the_bad_file_out_and_names_it(tmp_path, capsys):
    root = small_release(tmp_path / "release")
    (root / "images/car/n01.JPEG").write_bytes(b"no image")
    convert(root, tmp_path / "out", "--size", "32", "--on-error", "skip")
    printed = capsys.readouterr().out
    assert f"train: in error: {root}/images/car/n01.JPEG: not a readable image" in printed
    assert "train: left out: image in error: 1" in printed
    assert len(rows_of(tmp_path / "out", "train")) == 1


def test_a_malicious_annotation_never_runs(tmp_path):
    class Malice:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "ran"),)

    root = small_release(tmp_path / "release")
    replace_npz(root, {**annotation(), "extra": Malice()})
    with pytest.raises(UserError, match=r"n01\.npz: annotations: refused, .*posix\.mkdir"):
        convert(root, tmp_path / "out")
    assert not (tmp_path / "ran").exists()


def test_size_with_whole_scenes_is_refused(tmp_path):
    with pytest.raises(UserError, match="--size: whole scenes keep their size"):
        convert(small_release(tmp_path / "release"), tmp_path / "out", "--crop", "scene", "--size", "32")
