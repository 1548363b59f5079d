"""The record: rows there and back, the mirror, and data folders that open or are refused by name."""

import dataclasses
import io
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from llava_pose import scene
from llava_pose.errors import UserError
from llava_pose.geometry import project, rotation_matrix
from llava_pose.scene import PosedImage, PosedObject

CAR = PosedObject(
    object_id=2,
    category="car",
    bbox=(3.0, 4.0, 20.5, 18.0),
    azimuth=1.0,
    elevation=0.25,
    theta=0.5,
    distance=5.0,
    px=11.25,
    py=12.0,
    viewport=900.0,
    cad_index=3,
    status="status_good",
    dense="dense_yes",
)
CHAIR = dataclasses.replace(CAR, object_id=5, category="chair", bbox=(1.0, 1.0, 4.0, 9.0), px=2.0)


def picture(width=32, height=24):
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def record(caption="A car <pose> next to a chair <pose>.", marks=(2, 5)):
    return PosedImage(picture(), "car/n1", 32, 24, (CAR, CHAIR), caption, marks)


def test_pose_is_azimuth_elevation_theta_in_float64():
    assert CAR.pose.dtype == np.float64
    assert CAR.pose.tolist() == [1.0, 0.25, 0.5]


angles = st.floats(-7, 7)


@given(azimuth=angles, elevation=angles, theta=angles, px=st.floats(-50, 90))
def test_projecting_mirrored_points_into_the_mirror_gives_mirrored_pixels(azimuth, elevation, theta, px):
    width = 32
    item = dataclasses.replace(CAR, azimuth=azimuth, elevation=elevation, theta=theta, px=px)
    mirrored = item.mirrored(width)
    points = np.random.default_rng(1).uniform(-0.5, 0.5, (7, 3))
    before = project(points, item.pose, item.distance, item.viewport, (item.px, item.py))
    after = project(
        points * [-1, 1, 1], mirrored.pose, mirrored.distance, mirrored.viewport, (mirrored.px, mirrored.py)
    )
    np.testing.assert_allclose(after, np.stack([width - before[:, 0], before[:, 1]], -1), atol=1e-6)


@given(azimuth=angles, elevation=angles, theta=angles)
def test_the_mirror_of_the_mirror_is_the_same_view(azimuth, elevation, theta):
    item = dataclasses.replace(CAR, azimuth=azimuth, elevation=elevation, theta=theta)
    twice = item.mirrored(32).mirrored(32)
    np.testing.assert_allclose(rotation_matrix(twice.pose), rotation_matrix(item.pose), atol=1e-12)
    assert twice.bbox == item.bbox and twice.px == item.px


def test_the_mirror_of_fixed_numbers():
    mirrored = CAR.mirrored(32)
    assert mirrored.bbox == (11.5, 4.0, 29.0, 18.0)
    assert mirrored.px == 20.75 and mirrored.py == 12.0
    assert mirrored.azimuth == pytest.approx(2 * math.pi - 1.0)
    assert mirrored.elevation == 0.25
    assert mirrored.theta == pytest.approx(2 * math.pi - 0.5)
    assert (mirrored.object_id, mirrored.category, mirrored.viewport) == (2, "car", 900.0)


def test_the_mirror_flips_pixels_and_keeps_a_caption_without_sides():
    mirrored = record().mirrored()
    np.testing.assert_array_equal(np.asarray(mirrored.image), np.asarray(picture())[:, ::-1])
    assert mirrored.caption == record().caption and mirrored.caption_objects == (2, 5)
    assert mirrored.objects == (CAR.mirrored(32), CHAIR.mirrored(32))


@pytest.mark.parametrize(
    ("words", "mirrored_words"),
    [
        ("to the left of", "to the right of"),
        ("on the Right side of", "on the Left side of"),
        ("leftmost beside", "rightmost beside"),
        ("in the right-hand lane by", "in the left-hand lane by"),
        ("turned clockwise by", "turned counterclockwise by"),
    ],
)
def test_the_mirror_swaps_the_sides_that_a_caption_names(words, mirrored_words):
    mirrored = record(f"A car <pose> {words} a chair <pose>.").mirrored()
    assert mirrored.caption == f"A car <pose> {mirrored_words} a chair <pose>."
    assert mirrored.caption_objects == (2, 5)


def test_the_mirror_empties_a_caption_whose_left_or_right_may_be_no_side():
    mirrored = record("A car <pose> left over right by a chair <pose>.").mirrored()
    assert mirrored.caption == "" and mirrored.caption_objects == ()


def test_words_that_only_contain_a_side_are_kept():
    caption = "A bright copyrighted car <pose> upright by a cleft chair <pose>."
    assert record(caption).mirrored().caption == caption


def test_a_row_goes_there_and_back():
    original = record()
    row = original.to_row()
    assert list(row) == list(scene.features())
    assert row["objects"][0]["bbox"] == [3.0, 4.0, 20.5, 18.0]
    assert PosedImage.from_row(row) == original


def test_a_row_with_undecoded_bytes_is_decoded():
    stream = io.BytesIO()
    picture().save(stream, "PNG")
    row = {**record().to_row(), "image": {"bytes": stream.getvalue(), "path": None}}
    assert PosedImage.from_row(row) == record()
    row["image"]["bytes"] = stream.getvalue()[:100]
    with pytest.raises(UserError, match="car/n1: image: cannot be decoded"):
        PosedImage.from_row(row)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"width": 33}, "car/n1: width, height: 33x24, but the image has 32x24"),
        ({"caption": "A car."}, "car/n1: caption_objects: 2 for 0 <pose> marks"),
        ({"caption_objects": (2, 7)}, "car/n1: caption_objects: no object has id 7"),
    ],
)
def test_a_record_that_contradicts_itself_is_refused(change, message):
    with pytest.raises(UserError, match=message):
        dataclasses.replace(record(), **change)


ANNOTATION = {
    "azimuth": 1.0,
    "elevation": 0.0,
    "theta": 0.0,
    "distance": 4.0,
    "px": 5.0,
    "py": 6.0,
    "bbox": (0.0, 0.0, 9.0, 9.0),
    "object_status": "status_good",
}


def test_objects_take_the_documented_defaults_and_keep_their_index():
    skipped = {**ANNOTATION, "object_status": "status_bad"}
    named = {**ANNOTATION, "class": "babby_buggy", "viewport": 3000.0, "cad_index": 4, "dense": "dense_no"}
    first, second = scene.objects_from_annotations([ANNOTATION, skipped, named], "axe")
    assert (first.object_id, first.category, first.viewport, first.cad_index, first.dense) == (
        0,
        "ax",
        2000.0,
        -1,
        "",
    )
    assert (second.object_id, second.category, second.viewport) == (2, "baby_buggy", 3000.0)
    assert (second.cad_index, second.dense, second.status) == (4, "dense_no", "status_good")
    with pytest.raises(UserError, match="'spaceship'"):
        scene.objects_from_annotations([{**ANNOTATION, "class": "spaceship"}], "car")


def save_split(folder, rows, split="train", columns=None):
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder.mkdir(exist_ok=True)
    columns = columns or scene.features()
    table = pa.Table.from_pylist([columns.encode_example(row) for row in rows], schema=columns.arrow_schema)
    pq.write_table(table, folder / f"{split}-00000-of-00001.parquet")


def test_a_saved_split_opens_as_the_same_records(tmp_path):
    save_split(tmp_path / "data", [record().to_row()] * 3)
    data = scene.load_split(tmp_path / "data", "train")
    assert len(data) == 3
    assert data.features == scene.features()
    assert PosedImage.from_row(data[1]) == record()


def test_a_folder_that_is_no_data_set_is_refused_by_name(tmp_path):
    from datasets import Features, Value

    with pytest.raises(UserError, match="none: data folder does not exist"):
        scene.load_split(tmp_path / "none", "train")
    with pytest.raises(UserError, match=r"no split 'train' \(found: none\)"):
        scene.load_split(tmp_path, "train")
    save_split(tmp_path, [record().to_row()], "val")
    with pytest.raises(UserError, match=r"no split 'train' \(found: val\)"):
        scene.load_split(tmp_path, "train")
    save_split(tmp_path / "empty", [])
    with pytest.raises(UserError, match="empty: split 'train' is empty"):
        scene.load_split(tmp_path / "empty", "train")
    save_split(tmp_path / "other", [{"text": "a"}], columns=Features({"text": Value("string")}))
    with pytest.raises(
        UserError, match=r"other/train-00000-of-00001\.parquet: column 'image' is missing or of another type"
    ):
        scene.load_split(tmp_path / "other", "train")
    (tmp_path / "torn").mkdir()
    (tmp_path / "torn" / "train-00000-of-00001.parquet").write_bytes(b"PAR1 torn")
    with pytest.raises(UserError, match=r"torn/train-00000-of-00001\.parquet: cannot be read"):
        scene.load_split(tmp_path / "torn", "train")
