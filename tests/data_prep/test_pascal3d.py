"""From PASCAL3D+'s MATLAB files to Parquet: its projection, its splits, and every mistake named."""

import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat

from data_prep import pascal3d
from llava_pose import scene
from llava_pose.errors import UserError
from llava_pose.geometry import project
from llava_pose.scene import PosedImage
from tests.mat_annotations import EMPTY, VIEWPOINT, mat_object, published_pixels, write_image, write_mat

ROOT = Path(__file__).parents[2]
FILE = "Annotations/car_imagenet/n01.mat"


def add(root, category, part, split, name, *objects):
    write_mat(root / f"Annotations/{category}_{part}/{name}.mat", *objects)
    write_image(root / f"Images/{category}_{part}/{name}{'.JPEG' if part == 'imagenet' else '.jpg'}")
    lists = root / ("Image_sets" if part == "imagenet" else "PASCAL/VOCdevkit/VOC2012/ImageSets/Main")
    lists.mkdir(parents=True, exist_ok=True)
    list_name = f"{category}_imagenet_{split}.txt" if part == "imagenet" else f"{category}_{split}.txt"
    with open(lists / list_name, "a") as stream:
        stream.write(f"{name}\n" if part == "imagenet" else f"{name}  1\n2008_999999 -1\n")


def small_release(root, pascal=False):
    add(root, "car", "imagenet", "train", "n01", mat_object(), mat_object(**{"class": "bus"}))
    add(root, "car", "imagenet", "train", "n02", mat_object(EMPTY), mat_object(occluded=1, cad_index=EMPTY))
    add(
        root, "car", "imagenet", "val", "n03", mat_object({"distance": 0}), mat_object({"distance": None}), mat_object()
    )
    add(root, "diningtable", "imagenet", "train", "n04", mat_object(**{"class": "diningtable"}))
    add(root, "diningtable", "imagenet", "val", "n05", mat_object(**{"class": "diningtable", "difficult": 1}))
    if pascal:
        person = mat_object(EMPTY, **{"class": "person"})
        add(root, "car", "pascal", "train", "2008_000008", person, mat_object({"azimuth": 200.0}))
        add(root, "car", "pascal", "val", "2008_000009", mat_object(truncated=1))
    return root


def convert(root, out, *options):
    pascal3d.main(["--root", str(root), "--out", str(out), "--workers", "1", *options])


def rows_of(out, split):
    return [PosedImage.from_row(row) for row in scene.load_split(out, split)]


def found(rows):
    return [(row.image_id, item.object_id, item.category, item.status) for row in rows for item in row.objects]


def test_both_splits_open_with_counted_reasons(tmp_path, capsys):
    convert(small_release(tmp_path / "release"), tmp_path / "out", "--size", "64")
    printed = capsys.readouterr().out.splitlines()
    for line in (
        "train: 3 rows from 3 images",
        "train: left out: another category than the folder's: 1",
        "train: left out: no viewpoint: 1",
        "val: 2 rows from 2 images",
        "val: left out: distance <= 0: 1",
        "val: left out: no distance: 1",
    ):
        assert line in printed
    assert found(rows_of(tmp_path / "out", "train")) == [
        ("car_imagenet/n01", 0, "car", "status_good"),
        ("car_imagenet/n02", 1, "car", "status_partially"),
        ("diningtable_imagenet/n04", 0, "diningtable", "status_good"),
    ]
    assert [row.objects[0].cad_index for row in rows_of(tmp_path / "out", "train")] == [3, -1, 3]


def test_a_row_has_the_annotations_numbers_with_angles_in_radians(tmp_path):
    convert(small_release(tmp_path / "release"), tmp_path / "out", "--crop", "scene")
    item = rows_of(tmp_path / "out", "train")[0].objects[0]
    assert item.pose.tolist() == [math.radians(angle) for angle in (40.0, 12.5, -7.0)]
    assert item.bbox == (20.0, 15.0, 100.0, 70.0)
    assert (item.distance, item.px, item.py, item.viewport) == (9.0, 61.5, 44.25, 3000.0)


@pytest.mark.parametrize("seed", range(5))
def test_our_projection_is_the_authors_own(tmp_path, seed):
    random = np.random.default_rng(seed)
    view = {
        "azimuth": random.uniform(0, 360),
        "elevation": random.uniform(-80, 80),
        "theta": random.uniform(-180, 180),
        "distance": random.uniform(3, 30),
        "focal": random.uniform(0.5, 2),
        "viewport": random.uniform(1000, 4000),
    }
    root = tmp_path / "release"
    for split in ("train", "val"):
        add(root, "car", "imagenet", split, f"n-{split}", mat_object(view))
    convert(root, tmp_path / "out", "--crop", "scene")
    item = rows_of(tmp_path / "out", "val")[0].objects[0]
    points = random.uniform(-0.5, 0.5, (20, 3))
    ours = project(points, item.pose, item.distance, item.viewport, (item.px, item.py))
    np.testing.assert_allclose(ours, published_pixels(points, {**VIEWPOINT, **view}), atol=1e-6)


def test_an_object_crop_shows_a_unit_object_as_large_as_imagenet3d_would(tmp_path):
    convert(small_release(tmp_path / "release"), tmp_path / "out", "--size", "512")
    item = rows_of(tmp_path / "out", "train")[0].objects[0]
    a_source_pixel = item.viewport / VIEWPOINT["viewport"]
    assert (item.px, item.py) == pytest.approx((256, 256), abs=a_source_pixel)
    assert item.viewport / item.distance == pytest.approx(2000 / 4, rel=0.02)


def test_the_pascal_part_is_split_by_voc_and_its_other_objects_left_out(tmp_path):
    root = small_release(tmp_path / "release", pascal=True)
    convert(root, tmp_path / "both", "--size", "64")
    assert [row.image_id for row in rows_of(tmp_path / "both", "val")] == [
        "car_imagenet/n03",
        "car_pascal/2008_000009",
        "diningtable_imagenet/n05",
    ]
    convert(root, tmp_path / "pascal", "--part", "pascal", "--size", "64")
    assert found(rows_of(tmp_path / "pascal", "train")) == [("car_pascal/2008_000008", 1, "car", "status_good")]
    assert rows_of(tmp_path / "pascal", "train")[0].objects[0].azimuth == math.radians(200)


def test_clear_leaves_out_what_is_hard_to_see_and_counts_it(tmp_path, capsys):
    root = small_release(tmp_path / "release")
    (tmp_path / "cars.txt").write_text("car\n")
    convert(root, tmp_path / "out", "--clear", "--categories", str(tmp_path / "cars.txt"))
    assert "train: left out: truncated, occluded or difficult: 1" in capsys.readouterr().out
    assert [row.image_id for row in rows_of(tmp_path / "out", "train")] == ["car_imagenet/n01"]


MISTAKES = {
    "azimuth missing": (mat_object({"azimuth": None}), "objects[0].viewpoint.azimuth: field is missing"),
    "azimuth empty": (mat_object({"azimuth": EMPTY}), "objects[0].viewpoint.azimuth: field is missing"),
    "px NaN": (mat_object({"px": math.nan}), "objects[0].viewpoint.px: expected a finite number, found nan"),
    "theta as text": (mat_object({"theta": "7"}), "objects[0].viewpoint.theta: expected a number, found '7'"),
    "two azimuths": (mat_object({"azimuth": [1.0, 2.0]}), "viewpoint.azimuth: expected a number, found array([1., 2."),
    "complex": (mat_object({"py": 2 + 1j}), "objects[0].viewpoint.py: expected a"),
    "no degrees": (mat_object({"elevation": 4000.0}), "objects[0].viewpoint.elevation: expected degrees, found 4000.0"),
    "no viewport": (mat_object({"viewport": 0}), "objects[0].viewpoint.viewport: expected a viewport and a focal"),
    "viewpoint a number": (mat_object(3.0), "objects[0].viewpoint: expected a struct, found 3.0"),
    "no class": (mat_object(**{"class": EMPTY}), "objects[0].class: field is missing"),
    "box of three": (mat_object(bbox=[1.0, 2.0, 3.0]), "objects[0].bbox: expected four numbers"),
    "box missing": (mat_object(bbox=EMPTY), "objects[0].bbox: field is missing"),
    "box reversed": (
        mat_object(bbox=[50.0, 1.0, 20.0, 9.0]),
        "objects[0].bbox: box has no area: (50.0, 1.0, 20.0, 9.0)",
    ),
    "box with inf": (mat_object(bbox=[1.0, 2.0, math.inf, 9.0]), "objects[0].bbox: expected finite numbers"),
    "box outside": (
        mat_object(bbox=[500.0, 1.0, 600.0, 9.0]),
        "objects[0].bbox: (500.0, 1.0, 600.0, 9.0) lies outside",
    ),
    "half a model": (mat_object(cad_index=1.5), "objects[0].cad_index: expected a whole number, found 1.5"),
    "odd mark": (mat_object(occluded="no"), "objects[0].occluded: expected a number, found 'no'"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_wrong_field_is_named_and_leaves_nothing_behind(tmp_path, mistake):
    item, message = MISTAKES[mistake]
    root = small_release(tmp_path / "release")
    write_mat(root / FILE, item)
    with pytest.raises(UserError) as error:
        convert(root, tmp_path / "out", "--size", "64")
    assert str(error.value).startswith(f"{root / FILE}: ") and message in str(error.value)
    assert [path.name for path in tmp_path.iterdir()] == ["release"]


def test_skip_keeps_the_good_objects_beside_a_wrong_one(tmp_path, capsys):
    root = small_release(tmp_path / "release")
    write_mat(root / FILE, mat_object({"px": math.nan}), mat_object())
    convert(root, tmp_path / "out", "--size", "64", "--on-error", "skip")
    printed = capsys.readouterr().out
    assert "n01.mat: objects[0].viewpoint.px: expected a finite number" in printed
    assert "train: left out: viewpoint.px in error: 1" in printed
    assert found(rows_of(tmp_path / "out", "train"))[0][:2] == ("car_imagenet/n01", 1)


def test_skip_goes_on_without_a_list_and_a_category_that_are_wrong(tmp_path, capsys):
    root = small_release(tmp_path / "release")
    (root / "Annotations/spaceship_imagenet").mkdir()
    (root / "Image_sets/diningtable_imagenet_val.txt").unlink()
    convert(root, tmp_path / "out", "--size", "64", "--on-error", "skip")
    printed = capsys.readouterr().out
    assert f"{root}/Annotations/spaceship_imagenet: category: unknown name 'spaceship'" in printed
    assert f"{root}/Image_sets/diningtable_imagenet_val.txt: list cannot be read" in printed
    assert [row.image_id for row in rows_of(tmp_path / "out", "val")] == ["car_imagenet/n03"]


def spoilt_bytes(change):
    return lambda root: (root / FILE).write_bytes(change((root / FILE).read_bytes()))


FILES = {
    "missing": (lambda root: (root / FILE).unlink(), f"{FILE}: annotations are missing"),
    "torn": (spoilt_bytes(lambda data: data[: len(data) // 2]), f"{FILE}: not a readable MATLAB file"),
    "empty": (spoilt_bytes(lambda data: b""), f"{FILE}: not a readable MATLAB file"),
    "text": (spoilt_bytes(lambda data: b"record\n" * 50), f"{FILE}: not a readable MATLAB file"),
    "HDF5": (
        spoilt_bytes(lambda data: b"MATLAB 7.3 MAT-file".ljust(124) + b"\0\2IM"),
        f"{FILE}: not a readable MATLAB",
    ),
    "huge": (spoilt_bytes(lambda data: data + bytes(2**20)), f"{FILE}: file of "),
    "no record": (
        lambda root: savemat(root / FILE, {"other": 1}),
        f"{FILE}: record.objects: expected structs, found None",
    ),
    "no structs": (
        lambda root: savemat(root / FILE, {"record": {"objects": "x"}}),
        f"{FILE}: record.objects: expected",
    ),
    "image": (lambda root: (root / "Images/car_imagenet/n01.JPEG").unlink(), "n01.JPEG: image is missing"),
    "list": (
        lambda root: (root / "Image_sets/car_imagenet_val.txt").unlink(),
        "car_imagenet_val.txt: list cannot be read",
    ),
    "twice": (
        lambda root: (root / "Image_sets/car_imagenet_train.txt").write_text("n01\nn01\n"),
        "car_imagenet_train.txt:2: 'n01' repeats line 1",
    ),
    "way out": (
        lambda root: (root / "Image_sets/car_imagenet_train.txt").write_text("../../n01\n"),
        "'../../n01' is not a plain file name",
    ),
    "category": (lambda root: (root / "Annotations/spaceship_imagenet").mkdir(), "unknown name 'spaceship'"),
    "folder": (lambda root: (root / "Annotations").rename(root / "annotations"), "Annotations: folder does not exist"),
}


@pytest.mark.parametrize("mistake", FILES)
def test_a_wrong_file_is_named_and_leaves_nothing_behind(tmp_path, mistake):
    spoil, message = FILES[mistake]
    root = small_release(tmp_path / "release")
    spoil(root)
    with pytest.raises(UserError) as error:
        convert(root, tmp_path / "out", "--size", "64")
    assert message in str(error.value)
    assert [path.name for path in tmp_path.iterdir()] == ["release"]


def test_a_part_or_a_voc_list_that_is_not_there_is_named(tmp_path):
    root = small_release(tmp_path / "release")
    with pytest.raises(UserError, match=r"Annotations: no folder \{category\}_pascal"):
        convert(root, tmp_path / "out", "--part", "pascal")
    write_mat(root / "Annotations/car_pascal/2008_000008.mat", mat_object())
    with pytest.raises(UserError, match=r"ImageSets/Main/car_train\.txt: list cannot be read"):
        convert(root, tmp_path / "out")


def test_flipped_bytes_give_an_object_or_a_user_error(tmp_path):
    from data_prep.conversion.matfiles import read_objects

    write_mat(tmp_path / "a.mat", mat_object(), mat_object(EMPTY))
    whole = (tmp_path / "a.mat").read_bytes()
    random = np.random.default_rng(0)
    for _ in range(200):
        data = bytearray(whole)
        data[random.integers(100, len(data))] ^= 1 << int(random.integers(8))
        (tmp_path / "b.mat").write_bytes(data)
        try:
            read_objects(tmp_path / "b.mat")
        except UserError as error:
            assert "b.mat: " in str(error)


@pytest.mark.parametrize("spoilt", [False, True])
def test_the_command_ends_well_or_with_one_line_and_exit_code_2(tmp_path, spoilt):
    root = small_release(tmp_path / "größer und schöner")
    if spoilt:
        write_mat(root / FILE, mat_object({"azimuth": math.nan}))
    result = subprocess.run(
        [sys.executable, "data_prep/pascal3d.py", "--root", root, "--out", tmp_path / "out", "--size", "64"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert result.returncode == (2 if spoilt else 0)
    assert (tmp_path / "out").exists() is not spoilt
    if spoilt:
        message = "objects[0].viewpoint.azimuth: expected a finite number, found nan"
        assert result.stderr == f"error: {root / FILE}: {message}\n"
    else:
        assert len(rows_of(tmp_path / "out", "train")) == 3
