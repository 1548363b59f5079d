"""Template captions: every object once, in grammatical words that a flip keeps true."""

import dataclasses
import os
import re
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from PIL import Image

from data_prep import captions
from data_prep.captions import template_caption
from data_prep.rows import encoded
from data_prep.shards import ShardWriter
from llava_pose import scene
from llava_pose.errors import UserError
from llava_pose.scene import PosedImage, PosedObject

ROOT = Path(__file__).parents[2]
CAR = PosedObject(
    0, "car", (10.0, 10.0, 50.0, 40.0), 0.5, 0.1, 0.0, 5.0, 30.0, 25.0, 900.0, 1, "status_good", "dense_yes"
)


def thing(object_id, category, bbox=(10.0, 10.0, 50.0, 40.0), distance=5.0):
    return dataclasses.replace(CAR, object_id=object_id, category=category, bbox=bbox, distance=distance)


def phrasings(*objects):
    return [template_caption(objects, f"image{number}") for number in range(300)]


def test_one_object_is_named_with_its_article_and_marked():
    found = {text for text, _ in phrasings(thing(3, "umbrella"))}
    assert "A photo of an umbrella <pose>." in found and "An umbrella <pose>." in found
    assert len(found) >= 6
    assert all(text.count("an umbrella <pose>") + text.count("An umbrella <pose>") == 1 for text in found)


def test_marks_are_those_of_the_objects_in_order_of_mention():
    objects = [thing(4, "car"), thing(7, "chair"), thing(9, "diningtable")]
    names = {4: "a car <pose>", 7: "a chair <pose>", 9: "a dining table <pose>"}
    orders = set()
    for text, marks in phrasings(*objects):
        places = [text.lower().index(names[mark]) for mark in marks]
        assert places == sorted(places) and sorted(marks) == [4, 7, 9]
        assert text.count("<pose>") == 3 and text.endswith(("<pose>.", "<pose> here."))
        orders.add(marks)
    assert len(orders) == 6


def test_two_of_a_category_are_one_and_another():
    texts = {text for text, _ in phrasings(thing(0, "scissors"), thing(1, "scissors"))}
    assert all("a pair of scissors <pose>" in text.lower() for text in texts)
    assert all("another pair of scissors <pose>" in text for text in texts)


def relations(*objects):
    return {re.search(r"<pose> ([a-z ]+) a", text).group(1) for text, _ in phrasings(*objects)}


def test_relations_say_no_more_than_boxes_and_distances_tell():
    near, far = thing(0, "car", (0, 0, 10, 10)), thing(1, "chair", (200, 0, 210, 10))
    assert relations(near, far) == {"and", "with", "together with", "along with"}
    assert relations(near, thing(1, "chair", (11, 0, 21, 10))) == {"next to", "beside", "close to"}
    assert relations(near, dataclasses.replace(far, distance=50.0)) == {"and", "with", "together with", "along with"}
    for text, marks in phrasings(thing(0, "car", distance=4.0), thing(1, "car", distance=9.0)):
        farther = "behind" in text or "farther" in text
        assert marks[0] == (1 if farther else 0), text
        assert farther or "in front of" in text or "nearer" in text


def test_no_caption_names_a_side_so_all_survive_the_mirror():
    objects = tuple(thing(index, name) for index, name in enumerate(["car", "chair", "car"]))
    for number in (1, 2, 3):
        for text, marks in phrasings(*objects[:number]):
            record = PosedImage(Image.new("RGB", (60, 50)), "car/x", 60, 50, objects, text, marks)
            assert record.mirrored().caption == text


def test_a_crowd_is_captioned_by_its_largest_objects():
    crowd = [thing(index, "chair", (0.0, 0.0, 1.0 + index, 10.0)) for index in range(20)]
    text, marks = template_caption(crowd, "x")
    assert text.count("<pose>") == captions.MAX_MENTIONS == 6
    assert sorted(marks) == [14, 15, 16, 17, 18, 19]


def test_the_same_seed_gives_the_same_words():
    assert template_caption([CAR], "car/n1#0") == template_caption([CAR], "car/n1#0")
    assert template_caption([CAR], "car/n1#0")[0] == "We see a car <pose> here."


def data_folder(folder, rows=5):
    folder.mkdir()
    for split in ("train", "val"):
        writer = ShardWriter(folder, split)
        for number in range(rows):
            image = Image.new("RGB", (60, 50), (number, 0, 0))
            writer.add(encoded(PosedImage(image, f"car/n{number}", 60, 50, (CAR,), "", ())))
        writer.close()
    return folder


def test_filling_a_folder_changes_captions_alone(tmp_path, capsys):
    folder = data_folder(tmp_path / "data")
    before = {path.name: pq.read_table(path) for path in sorted(folder.iterdir())}
    captions.main(["--data", str(folder), "--writer", "template"])
    assert capsys.readouterr().out == f"{folder}: 10 captions written by the template writer\n"
    assert sorted(path.name for path in folder.iterdir()) == sorted(before)
    for name, old in before.items():
        new = pq.read_table(folder / name)
        assert new.drop_columns(["caption", "caption_objects"]) == old.drop_columns(["caption", "caption_objects"])
        assert new.schema.equals(old.schema, check_metadata=True)
    for row in scene.load_split(folder, "val"):
        record = PosedImage.from_row(row)
        assert (record.caption, record.caption_objects) == template_caption([CAR], f"{record.image_id}#0")


def test_filling_twice_gives_the_same_bytes(tmp_path):
    folder = data_folder(tmp_path / "data")
    captions.fill(folder)
    first = {path.name: path.read_bytes() for path in folder.iterdir()}
    captions.fill(folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == first


def test_a_damaged_shard_stops_before_any_is_changed(tmp_path):
    folder = data_folder(tmp_path / "data")
    good = (folder / "train-00000-of-00001.parquet").read_bytes()
    (folder / "val-00000-of-00001.parquet").write_bytes(good[:-200])
    with pytest.raises(UserError, match=r"val-00000-of-00001\.parquet: cannot be read"):
        captions.fill(folder)
    assert (folder / "train-00000-of-00001.parquet").read_bytes() == good
    assert len(list(folder.iterdir())) == 2


def test_the_command_refuses_a_folder_without_data_in_one_line(tmp_path):
    for folder, message in [(tmp_path / "none", "data folder does not exist"), (tmp_path, "holds no Parquet shards")]:
        result = subprocess.run(
            [sys.executable, "data_prep/captions.py", "--data", folder],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
        )
        assert result.returncode == 2
        assert result.stderr.count("\n") == 1 and message in result.stderr
