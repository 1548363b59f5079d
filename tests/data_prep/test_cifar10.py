"""Photos of CIFAR-10 with poses read off by eye, from files in its formats."""

import csv
import math
import sys

import numpy as np
import pytest
from PIL import Image
from scipy.spatial.transform import Rotation

from data_prep import cifar10
from data_prep import imagenet3d as conversion
from llava_pose.errors import UserError
from llava_pose.geometry import rotation_matrix
from llava_pose.scene import load_split


@pytest.fixture(scope="module")
def pictures():
    """Each has a corner of its own from where it gets brighter."""
    corners = np.random.default_rng(0).integers(0, 2, (cifar10.COUNT, 1, 1, 3))
    rows, columns = np.mgrid[:32, :32][..., None] * 3
    return np.where(corners == 1, 20 + rows + columns, 206 - rows - columns).astype(np.uint8)


@pytest.fixture(scope="module")
def root(tmp_path_factory, pictures):
    folder = tmp_path_factory.mktemp("cifar")
    planes = pictures.transpose(0, 3, 1, 2).reshape(cifar10.COUNT, -1)
    np.hstack([np.full((cifar10.COUNT, 1), 7, np.uint8), planes]).tofile(folder / "test_batch.bin")
    return folder


def call(*words):
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(sys, "argv", ["cifar10.py", *map(str, words)])
        cifar10.main()


def test_both_forms_of_the_test_batch_hold_the_same_pictures(root, pictures, tmp_path):
    assert np.array_equal(cifar10.read_pictures(root), pictures)
    Image.fromarray(pictures.reshape(cifar10.COUNT, -1, 3)).save(tmp_path / "test_batch.png", compress_level=0)
    assert np.array_equal(cifar10.read_pictures(tmp_path), pictures)


def test_the_photos_become_a_data_set_whose_box_crops_are_whole_pictures(root, pictures, tmp_path):
    call("--root", root, "--out", tmp_path / "photos")
    out = tmp_path / "data"
    options = ("--crop", "box", "--size", "32", "--workers", "1")
    conversion.main(["--root", str(tmp_path / "photos"), "--out", str(out), *options])
    rows, labels = load_split(out, "train"), cifar10.read_labels(cifar10.LABELS)
    assert len(rows) == sum(map(len, labels.values())) > 100
    row = rows[5]
    category, number = row["image_id"].split("/")
    assert np.abs(np.asarray(row["image"], dtype=int) - pictures[int(number)]).mean() < 2
    made, wanted = (row["objects"][0][name] for name in cifar10.ANGLES), labels[category][int(number)]
    np.testing.assert_allclose(rotation_matrix(list(made)), rotation_matrix(wanted), atol=1e-6)


def test_labels_count_where_both_annotators_are_sure_and_agree_and_the_pose_is_in_the_middle():
    labels = cifar10.read_labels(cifar10.LABELS)
    with cifar10.LABELS.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 180
    for row in rows:
        labelled = [np.radians([float(row[f"{angle}_{who}"]) for angle in cifar10.ANGLES]) for who in "ab"]
        one, other = (Rotation.from_matrix(rotation_matrix(pose)) for pose in labelled)
        apart = (one.inv() * other).magnitude()
        used = row["sure_a"] == row["sure_b"] == "1" and math.degrees(apart) <= 30 + 1e-6
        pose = labels[row["category"]].get(int(row["index"]))
        assert (pose is not None) == used
        if used:
            middle = Rotation.from_matrix(rotation_matrix(pose))
            assert (one.inv() * middle).magnitude() == pytest.approx(apart / 2, abs=1e-6)
            assert (other.inv() * middle).magnitude() == pytest.approx(apart / 2, abs=1e-6)


def test_other_files_and_a_folder_that_is_there_are_refused(root, tmp_path):
    with pytest.raises(UserError, match="holds neither test_batch"):
        call("--root", tmp_path, "--out", tmp_path / "new")
    with pytest.raises(UserError, match="is there already"):
        call("--root", root, "--out", tmp_path)
    (tmp_path / "test_batch.bin").write_bytes(b"abc")
    with pytest.raises(UserError, match="expected 30730000 bytes, found 3"):
        call("--root", tmp_path, "--out", tmp_path / "new")
    (tmp_path / "test_batch.bin").unlink()
    Image.new("RGB", (4, 4)).save(tmp_path / "test_batch.png")
    with pytest.raises(UserError, match=r"expected 1024 × 10000 pixels, found 4 × 4"):
        call("--root", tmp_path, "--out", tmp_path / "new")
