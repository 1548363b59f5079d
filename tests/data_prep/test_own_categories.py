"""Categories of one's own in every suite that has more than cars, and in captions: read, spoken of, handed on."""

import dataclasses
import json
from pathlib import Path

import pytest

from data_prep import kitti, objectnet3d, pascal3d
from data_prep.captioning.caption_files import released_caption
from data_prep.captioning.caption_templates import template_caption
from data_prep.captioning.caption_words import object_names
from llava_pose import scene, taxonomy
from llava_pose.errors import UserError
from tests.data_prep.test_captions_files import CAR
from tests.data_prep.test_kitti import small_release as small_kitti
from tests.data_prep.test_objectnet3d import add as add_objectnet3d
from tests.data_prep.test_pascal3d import add as add_pascal3d
from tests.mat_annotations import mat_object

OWN = {"robot_dog": {"meta_class": "robots", "spoken": "robotic dog", "aliases": ["spot"]}}


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    path = tmp_path / "mine.json"
    path.write_text(json.dumps({"categories": OWN}))
    return path


def pascal(root: Path) -> None:
    for split, name in (("train", "n01"), ("train", "n02"), ("val", "n03")):
        add_pascal3d(root, "robot_dog", "imagenet", split, name, mat_object(**{"class": "robot_dog"}))


def objectnet(root: Path) -> None:
    for split, name in (("train", "n01_1"), ("train", "n02_1"), ("val", "n03_1")):
        add_objectnet3d(root, split, name, mat_object(**{"class": "spot"}))


SUITES = {"pascal3d": (pascal3d.main, pascal), "objectnet3d": (objectnet3d.main, objectnet)}


@pytest.mark.parametrize("suite", SUITES)
def test_a_suites_own_category_is_read_by_all_workers_spoken_of_and_handed_on(
    suite: str, mine: Path, tmp_path: Path
) -> None:
    main, write = SUITES[suite]
    write(tmp_path / "release")
    words = ["--root", str(tmp_path / "release"), "--out", str(tmp_path / "out"), "--size", "32", "--workers", "2"]
    with pytest.raises(UserError, match=r"unknown name '(robot_dog|spot)'"):
        main(words)
    main([*words, "--taxonomy", str(mine)])
    taxonomy.activate(None)
    rows = scene.load_split(tmp_path / "out", "train")
    assert [item["category"] for row in rows for item in row["objects"]] == ["robot_dog"] * 2
    assert all("robotic dog <pose>" in caption for caption in rows["caption"])
    assert taxonomy.meta_class("robot_dog") == "robots"


def test_a_suite_of_cars_speaks_of_them_as_the_file_in_its_root_says(tmp_path: Path) -> None:
    root = tmp_path / "kitti"
    small_kitti(root)
    (root / "taxonomy.json").write_text(json.dumps({"categories": {"car": {"spoken": "automobile"}}}))
    kitti.main(["--root", str(root), "--out", str(tmp_path / "out"), "--crop", "box", "--size", "32"])
    taxonomy.activate(None)
    rows = scene.load_split(tmp_path / "out", "train")
    assert all("automobile <pose>" in caption for caption in rows["caption"])
    assert taxonomy.spoken_name("car") == "automobile"


def test_captions_name_them_and_released_ones_are_aligned_with_them(mine: Path, tmp_path: Path) -> None:
    taxonomy.use_file(mine)
    dog = dataclasses.replace(CAR, category="robot_dog")
    car = dataclasses.replace(CAR, object_id=1, bbox=(30.0, 10.0, 59.0, 40.0))
    text, marks = template_caption([dog], "any")
    assert "robotic dog <pose>" in text and marks == (0,)
    assert object_names([dog, car]) == ["ROBOTIC_DOG1", "CAR2"]
    (tmp_path / "captions.json").write_text(
        json.dumps({"n1": "CAR2 with <pose6d> passes ROBOTIC_DOG1 with <pose6d>.", "n2": "Spot <pose> sits."})
    )
    assert released_caption(tmp_path, "robot_dog", "n1", [dog, car]) == (
        "A car <pose> passes a robotic dog <pose>.",
        (1, 0),
    )
    assert released_caption(tmp_path, "robot_dog", "n2", [dog]) == ("Spot <pose> sits.", (0,))
