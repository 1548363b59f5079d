"""From ObjectNet3D's MATLAB files to Parquet: what stands in for what, its lists, and every mistake named."""

import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from data_prep import objectnet3d
from llava_pose import scene
from llava_pose.errors import UserError
from llava_pose.geometry import project
from llava_pose.scene import PosedImage
from tests.mat_annotations import EMPTY, VIEWPOINT, mat_object, published_pixels, write_image, write_mat

ROOT = Path(__file__).parents[2]
COARSE = {"azimuth": None, "elevation": EMPTY, "theta": EMPTY, "focal": None, "viewport": None}


def add(root, split, name, *objects):
    write_mat(root / f"Annotations/{name}.mat", *objects)
    write_image(root / f"Images/{name}.JPEG")
    (root / "Image_sets").mkdir(exist_ok=True)
    with open(root / f"Image_sets/{split}.txt", "a") as stream:
        stream.write(f"{name}\n")


def small_release(root):
    add(root, "train", "n01_1", mat_object(COARSE, **{"class": "filing_cabinet"}), mat_object(EMPTY), mat_object())
    add(root, "train", "n02_1")
    add(root, "val", "n03_1", mat_object({"distance": EMPTY}), mat_object(**{"class": "teapot"}))
    add(root, "test", "n04_1", mat_object())
    return root


def convert(root, out, *options):
    objectnet3d.main(["--root", str(root), "--out", str(out), "--workers", "1", *options])


def rows_of(out, split):
    return [PosedImage.from_row(row) for row in scene.load_split(out, split)]


def test_objects_of_all_categories_are_read_and_those_without_a_viewpoint_counted(tmp_path, capsys):
    convert(small_release(tmp_path / "release"), tmp_path / "out", "--crop", "scene")
    printed = capsys.readouterr().out.splitlines()
    for line in (
        "train: 1 rows from 2 images",
        "train: left out: no viewpoint: 1",
        "val: 1 rows from 1 images",
        "val: left out: no distance: 1",
    ):
        assert line in printed
    [row] = rows_of(tmp_path / "out", "train")
    assert row.image_id == "objectnet3d/n01_1"
    assert [(item.object_id, item.category, item.cad_index) for item in row.objects] == [
        (0, "filing_cabinet", 3),
        (2, "car", 3),
    ]
    assert rows_of(tmp_path / "out", "val")[0].objects[0].category == "teapot"


def test_coarse_angles_and_the_toolboxs_defaults_stand_in_where_fields_are_missing(tmp_path):
    convert(small_release(tmp_path / "release"), tmp_path / "out", "--crop", "scene")
    coarse, full = rows_of(tmp_path / "out", "train")[0].objects
    assert coarse.pose.tolist() == [math.radians(45), math.radians(10), 0.0]
    assert (coarse.viewport, full.viewport) == (2000.0, 3000.0)
    assert full.pose.tolist() == [math.radians(angle) for angle in (40.0, 12.5, -7.0)]
    points = np.random.default_rng(0).uniform(-0.5, 0.5, (20, 3))
    seen = {**VIEWPOINT, "azimuth": 45, "elevation": 10, "theta": 0, "focal": 1, "viewport": 2000}
    for item, view in ((coarse, seen), (full, VIEWPOINT)):
        ours = project(points, item.pose, item.distance, item.viewport, (item.px, item.py))
        np.testing.assert_allclose(ours, published_pixels(points, view), atol=1e-6)


def test_the_official_test_list_can_be_val(tmp_path):
    convert(small_release(tmp_path / "release"), tmp_path / "out", "--val", "test", "--size", "64")
    assert [row.image_id for row in rows_of(tmp_path / "out", "val")] == ["objectnet3d/n04_1"]


@pytest.mark.parametrize(
    ("item", "message"),
    [
        (mat_object({"px": EMPTY}), "objects[0].viewpoint.px: field is missing"),
        (mat_object({**COARSE, "azimuth_coarse": None}), "objects[0].viewpoint.azimuth: field is missing"),
        (mat_object({**COARSE, "elevation_coarse": math.inf}), "viewpoint.elevation_coarse: expected a finite number"),
        (mat_object(**{"class": "spaceship"}), "objects[0].class: category: unknown name 'spaceship'"),
    ],
)
def test_a_wrong_field_is_named(tmp_path, item, message):
    root = small_release(tmp_path / "release")
    write_mat(root / "Annotations/n02_1.mat", item)
    with pytest.raises(UserError) as error:
        convert(root, tmp_path / "out", "--size", "64")
    assert str(error.value).startswith(f"{root}/Annotations/n02_1.mat: ") and message in str(error.value)


def test_the_command_names_a_wrong_line_of_a_list_with_exit_code_2(tmp_path):
    root = small_release(tmp_path / "release")
    (root / "Image_sets/val.txt").write_text("n03_1\n../n04_1\n")
    result = subprocess.run(
        [sys.executable, "data_prep/objectnet3d.py", "--root", root, "--out", tmp_path / "out"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 2
    assert result.stderr == f"error: {root}/Image_sets/val.txt:2: '../n04_1' is not a plain file name\n"
