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

from data_prep import imagenet3d, shards
from llava_pose import scene
from llava_pose.errors import UserError
from llava_pose.scene import PosedImage

ROOT = Path(__file__).parents[2]
WIDTH, HEIGHT = 60, 40


def annotation(**fields):
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


def add_image(root, split, folder, name, *objects, side_by_side=False):
    """Write an image, its annotations and its line in the list."""
    images = root / folder if side_by_side else root / "images" / folder
    annotations = root / folder if side_by_side else root / "annotations" / folder
    for path in (images, annotations, root / "lists"):
        path.mkdir(parents=True, exist_ok=True)
    seed = sum(name.encode())
    small = np.random.default_rng(seed).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    Image.fromarray(small).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC).save(images / f"{name}.JPEG", quality=95)
    np.savez(annotations / f"{name}.npz", annotations=np.array(objects, dtype=object))
    with open(root / "lists" / f"{folder}_imagenet_{split}.txt", "a") as stream:
        stream.write(f"{name}\n")


def small_release(root, side_by_side=False):
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


def convert(root, out, *options):
    imagenet3d.main(["--root", str(root), "--out", str(out), "--workers", "1", *options])


def rows_of(out, split):
    return [PosedImage.from_row(row) for row in scene.load_split(out, split)]


@pytest.mark.parametrize("side_by_side", [False, True], ids=["images and annotations", "side by side"])
def test_both_layouts_give_the_same_rows_and_counts(tmp_path, capsys, side_by_side):
    convert(small_release(tmp_path / "release", side_by_side), tmp_path / "out", "--size", "32")
    assert capsys.readouterr().out.splitlines() == [
        "train: 3 rows from 3 images",
        "train: left out: distance <= 0: 1",
        "train: left out: no object_status: 1",
        "train: left out: status_bad: 1",
        "val: 1 rows from 1 images",
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


def test_any_number_of_workers_gives_the_same_bytes(tmp_path):
    root = small_release(tmp_path / "a release with spaces – ü")
    for number in range(5, 30):
        add_image(root, "train", "chair", f"n{number:02d}", annotation(**{"class": "chair"}))
    convert(root, tmp_path / "one", "--size", "32")
    convert(root, tmp_path / "three", "--size", "32", "--workers", "3")
    for path in sorted((tmp_path / "one").iterdir()):
        assert path.read_bytes() == (tmp_path / "three" / path.name).read_bytes(), path.name


def test_rows_are_cut_into_shards_and_row_groups(tmp_path, monkeypatch):
    monkeypatch.setattr(shards, "ROWS_PER_GROUP", 2)
    monkeypatch.setattr(shards, "ROWS_PER_SHARD", 5)
    root = small_release(tmp_path / "release")
    for number in range(5, 14):
        add_image(root, "train", "chair", f"n{number:02d}", annotation(**{"class": "chair"}))
    convert(root, tmp_path / "out", "--size", "16")
    names = sorted(path.name for path in (tmp_path / "out").glob("train-*"))
    assert names == [f"train-{index:05d}-of-00003.parquet" for index in range(3)]
    ids = [row.image_id for row in rows_of(tmp_path / "out", "train")]
    chairs = [f"chair/n{number:02d}" for number in range(5, 14)]
    assert ids == ["babby_buggy/n03", "car/n01", "car/n01", *chairs]


def test_categories_and_limit_choose_images(tmp_path, capsys):
    root = small_release(tmp_path / "release")
    for number in range(5, 9):
        add_image(root, "train", "chair", f"n{number:02d}", annotation(**{"class": "chair"}))
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
    np.savez(root / "annotations/car/n01.npz", annotations=np.array(objects, dtype=object))


def write_list(root, name, content):
    (root / "lists" / name).write_bytes(content)


MISTAKES = {
    "root": (lambda root: shutil.rmtree(root), "release: root folder does not exist"),
    "no lists": (lambda root: shutil.rmtree(root / "lists"), "lists: split 'train' is empty"),
    "no val": (lambda root: (root / "lists/car_imagenet_val.txt").unlink(), "lists: split 'val' is empty"),
    "empty list": (lambda root: write_list(root, "car_imagenet_val.txt", b"\n"), "lists: split 'val' is empty"),
    "list not text": (lambda root: write_list(root, "car_imagenet_val.txt", b"\xff"), "val.txt: list cannot be read"),
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
        lambda root: replace_npz(root, annotation(px=-500.0, distance=400.0)),
        "car/n01.npz: annotations[0].bbox: (20.0, 10.0, 42.0, 30.0) lies outside the crop around (-500.0, 20.0)",
    ),
    "far too close": (
        lambda root: replace_npz(root, annotation(distance=1e-3)),
        "car/n01.npz: annotations[0].distance, px, py: the crop shows less than a pixel",
    ),
    "all left out": (
        lambda root: np.savez(
            root / "annotations/car/n04.npz", annotations=np.array([annotation(distance=0)], dtype=object)
        ),
        "split 'val' is empty: nothing is left (distance <= 0: 1)",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_named_and_leaves_nothing_behind(tmp_path, mistake):
    spoil, message = MISTAKES[mistake]
    root = small_release(tmp_path / "release")
    spoil(root)
    with pytest.raises(UserError) as error:
        convert(root, tmp_path / "out", "--size", "32")
    assert message in str(error.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == (["release"] if root.exists() else [])


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
    assert result.stderr == (
        f"error: {root}/annotations/car/n01.npz: annotations[0].elevation: expected a finite number, found inf\n"
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["release"]


def test_skip_leaves_the_bad_file_out_and_names_it(tmp_path, capsys):
    root = small_release(tmp_path / "release")
    (root / "images/car/n01.JPEG").write_bytes(b"no image")
    convert(root, tmp_path / "out", "--size", "32", "--on-error", "skip")
    printed = capsys.readouterr().out
    assert f"train: file in error: {root}/images/car/n01.JPEG: not a readable image" in printed
    assert "train: left out: image with a file in error: 1" in printed
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


def test_an_output_folder_in_use_is_refused_and_an_earlier_output_replaced_on_request(tmp_path):
    root, out = small_release(tmp_path / "release"), tmp_path / "out"
    out.mkdir()
    convert(root, out, "--size", "16")
    with pytest.raises(UserError, match="out: output folder is not empty"):
        convert(root, out, "--size", "32")
    assert rows_of(out, "train")[0].width == 16
    convert(root, out, "--size", "32", "--overwrite")
    assert rows_of(out, "train")[0].width == 32
    (out / "thesis.txt").write_text("precious")
    with pytest.raises(UserError, match=r"output folder holds 'thesis\.txt'"):
        convert(root, out, "--overwrite")
    assert (out / "thesis.txt").read_text() == "precious"
    with pytest.raises(UserError, match=r"n01\.JPEG: output folder is a file"):
        convert(root, root / "images/car/n01.JPEG")


def test_a_failed_overwrite_keeps_the_earlier_output(tmp_path):
    root, out = small_release(tmp_path / "release"), tmp_path / "out"
    convert(root, out, "--size", "16")
    (root / "images/car/n04.JPEG").unlink()
    with pytest.raises(UserError, match="image is missing"):
        convert(root, out, "--overwrite")
    assert len(rows_of(out, "train")) == 3


def test_what_a_killed_run_left_is_cleared_by_the_next(tmp_path):
    root = small_release(tmp_path / "release")
    for name in (".out.partial", ".out.old"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "train-00000.part").write_bytes(b"torn")
    convert(root, tmp_path / "out", "--size", "16")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "release"]
    assert len(list((tmp_path / "out").iterdir())) == 3


def test_size_with_whole_scenes_is_refused(tmp_path):
    with pytest.raises(UserError, match="--size: whole scenes keep their size"):
        convert(small_release(tmp_path / "release"), tmp_path / "out", "--crop", "scene", "--size", "32")
