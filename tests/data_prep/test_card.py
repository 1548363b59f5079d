"""The summary of a conversion: counts that add up, a card that the hub reads, angles as they are."""

import io
import re

import numpy as np
import pytest
import yaml
from huggingface_hub import DatasetCard
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from data_prep.conversion.card import angles_picture
from data_prep.conversion.summary import ANGLES, Tally
from llava_pose import scene
from tests.small_release import add_image, annotation, convert, small_release


@pytest.fixture
def card(tmp_path):
    root = small_release(tmp_path / "release")
    (root / "images/car/n05.JPEG").write_bytes(b"no image")
    add_image(root, "train", "car", "n06", annotation(), annotation(), annotation(theta=float("nan")))
    convert(root, tmp_path / "out", "--size", "32", "--on-error", "skip")
    return (tmp_path / "out/README.md").read_text(encoding="utf-8")


def table(card):
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in card.splitlines() if line[:1] == "|"]
    return {row[0]: row[1:] for row in rows}


def test_the_header_is_what_the_hub_and_datasets_read(tmp_path, card):
    data = DatasetCard(card).data
    assert (data.license, data.size_categories) == ("cc-by-nc-4.0", ["n<1K"])
    assert "image-text-to-text" in data.task_categories and "pose-estimation" in data.tags
    assert data.pretty_name == "ImageNet3D, object crops"
    header = yaml.safe_load(card.split("---")[1])
    files = header["configs"][0]["data_files"]
    assert files == [{"split": split, "path": f"{split}-*.parquet"} for split in ("train", "val")]
    assert header["crop"] == scene.crop_kind(tmp_path / "out") == "object"


def test_the_card_counts_by_split_meta_class_and_reason(card):
    counts = table(card)
    assert counts[""] == ["train", "val"]
    assert counts["rows"] == counts["objects"] == ["5", "1"]
    assert counts["images"] == ["3", "1"]
    assert counts["categories"] == ["3", "1"]
    assert counts["objects: vehicles"] == ["4", "1"]
    assert counts["objects: furniture"] == ["1", "0"]
    assert counts["left out: status_bad"] == ["1", "1"]
    assert counts["left out: theta in error"] == ["1", "0"]


def test_the_card_says_what_the_numbers_mean_and_how_they_were_made(card):
    for text in (
        "radians",
        "EXIF",
        "512 × 512",
        "brought to 32 × 32",
        "cc-by-nc-4.0",
        "load_dataset",
        "`skipped.jsonl`",
    ):
        assert text in card
    assert "{" not in card.split("---")[2], "no placeholder is left"


def test_the_card_shows_a_picture_of_the_angles(tmp_path, card):
    [name] = re.findall(r"!\[.+\]\((.+)\)", card)
    picture = Image.open(tmp_path / "out" / name)
    assert picture.format == "PNG" and picture.width > 2 * picture.height
    assert len(picture.convert("RGB").getcolors(10**6)) > 20


def test_the_picture_has_the_same_bytes_every_time():
    tally = Tally()
    tally.add_poses([[0.3, 0.2, 6.1], [3.0, -0.4, 0.1]])
    assert angles_picture({"train": tally}) == angles_picture({"train": tally})
    assert Image.open(io.BytesIO(angles_picture({"train": tally, "val": Tally()}))).size == (1100, 300)


@given(st.lists(st.tuples(*[st.floats(-12.5, 12.5)] * 3), min_size=1, max_size=20))
def test_every_pose_is_counted_once_in_each_histogram(poses):
    tally = Tally()
    tally.add_poses(poses)
    assert [sum(tally.angles[name]) for name in ANGLES] == [len(poses)] * 3


@pytest.mark.parametrize(
    ("degrees", "steps"),
    [
        ((0, 0, 0), (0, 9, 18)),
        ((359.9, 5, -5), (35, 9, 17)),
        ((90, 90, 180), (9, 17, 0)),
        ((185, -90, 179), (18, 0, 35)),
        ((15, 172, 25), (19, 9, 2)),  # beyond the pole: (195, 8, 205)
        ((45, 350, 0), (4, 8, 18)),
    ],
)
def test_angles_are_counted_where_they_belong(degrees, steps):
    tally = Tally()
    tally.add_poses([np.deg2rad(degrees)])
    assert tuple(tally.angles[name].index(1) for name in ANGLES) == steps


def test_tallies_add_up():
    whole, parts = Tally(), [Tally(), Tally()]
    for number, part in enumerate(parts):
        rows = [{"objects": [{"category": "car"}, {"category": "bed"}]}] * (number + 1)
        for tally in (whole, part):
            tally.add_image(rows, {"status_bad": number}, [])
            tally.add_poses([[number, 0, 0]])
    total = Tally()
    for part in parts:
        total.add(Tally.from_json(vars(part)))
    assert total == whole
    assert (total.images, total.rows, total.objects["car"]) == (2, 3, 3)
