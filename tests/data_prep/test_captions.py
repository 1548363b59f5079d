"""Filling the captions of a data folder: all shards or none, nothing but the captions changed."""

import dataclasses
import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from PIL import Image

from data_prep import captions
from data_prep.captions import template_caption
from data_prep.conversion.rows import encoded
from data_prep.conversion.shards import ShardWriter
from llava_pose import scene, taxonomy
from llava_pose.errors import UserError
from llava_pose.scene import PosedImage, PosedObject

ROOT = Path(__file__).parents[2]
CAR = PosedObject(
    0, "car", (10.0, 10.0, 50.0, 40.0), 0.5, 0.1, 0.0, 5.0, 30.0, 25.0, 900.0, 1, "status_good", "dense_yes"
)


def data_folder(folder, rows=5):
    folder.mkdir()
    for split in ("train", "val"):
        with ShardWriter(folder, split) as writer:
            for number in range(rows):
                image = Image.new("RGB", (60, 50), (number, 0, 0))
                writer.add(encoded(PosedImage(image, f"car/n{number}", 60, 50, (CAR,), "", ())))
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
    captions.main(["--data", str(folder)])
    first = {path.name: path.read_bytes() for path in folder.iterdir()}
    captions.main(["--data", str(folder)])
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == first


def test_a_damaged_shard_stops_before_any_is_changed(tmp_path):
    folder = data_folder(tmp_path / "data")
    good = (folder / "train-00000-of-00001.parquet").read_bytes()
    (folder / "val-00000-of-00001.parquet").write_bytes(good[:-200])
    with pytest.raises(UserError, match=r"val-00000-of-00001\.parquet: cannot be read"):
        captions.main(["--data", str(folder)])
    assert (folder / "train-00000-of-00001.parquet").read_bytes() == good
    assert len(list(folder.iterdir())) == 2


def test_a_disk_that_is_full_leaves_the_folder_as_it_was(tmp_path):
    folder = data_folder(tmp_path / "data", rows=200)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    result = subprocess.run(
        [sys.executable, "data_prep/captions.py", "--data", folder],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        # No file may grow beyond this: what a write meets on a full disk, but for the error's number.
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000)),
        capture_output=True,
        text=True,
    )
    assert result.returncode == 2
    assert result.stderr.startswith(f"error: {folder}: captions cannot be written: ")
    assert result.stderr.count("\n") == 1
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


CHAIR = dataclasses.replace(CAR, object_id=2, category="chair")


def folder_of(folder, *images):
    """A data folder with a row for each image id with its objects."""
    folder.mkdir()
    with ShardWriter(folder, "train") as writer:
        for image_id, objects in images:
            writer.add(encoded(PosedImage(Image.new("RGB", (60, 50)), image_id, 60, 50, objects, "An old one.", ())))
    return folder


def written(folder):
    return [(row["image_id"], row["caption"], row["caption_objects"]) for row in scene.load_split(folder, "train")]


@pytest.mark.parametrize("form", ["root", "folder", "file"])
def test_captions_of_files_go_to_the_rows_they_speak_of(tmp_path, capsys, form):
    folder = folder_of(tmp_path / "data", ("car/n1", (CAR, CHAIR)), ("car/n2", (CAR,)), ("car/n3", (CHAIR,)))
    texts = {"car/n1": "CAR1 with <pose6d> by CHAIR2 with <pose6d>.", "car/n3": "A chair <pose6D>."}
    if form == "file":
        (tmp_path / "told.json").write_text(json.dumps(texts))
    for image_id, text in texts.items():
        path = tmp_path / "told" / "captions" / f"{image_id}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    place = {"root": "told", "folder": "told/captions", "file": "told.json"}[form]
    captions.main(["--data", str(folder), "--writer", "file", "--captions", str(tmp_path / place)])
    assert written(folder) == [
        ("car/n1", "A car <pose> by a chair <pose>.", [0, 2]),
        ("car/n2", "An old one.", []),
        ("car/n3", "A chair <pose>.", [2]),
    ]
    assert capsys.readouterr().out == (
        f"{folder}: 2 captions written from {tmp_path / place}; rows without a caption there keep theirs: 1; "
        "rows that show less than their caption tells keep theirs: 0\n"
    )


def test_a_crop_gets_a_caption_that_speaks_of_its_object_alone(tmp_path, capsys):
    other = dataclasses.replace(CAR, object_id=1)
    rows = [("car/n1", (item,)) for item in (CAR, other, CHAIR)] + [("car/n2", (item,)) for item in (CAR, CHAIR)]
    folder = folder_of(tmp_path / "data", *rows)
    told = {"car/n1": "CAR2 with <pose6d> in the sun.", "car/n2": "A car <pose6d> by a chair <pose6d>."}
    (tmp_path / "told.json").write_text(json.dumps(told))
    captions.main(["--data", str(folder), "--writer", "file", "--captions", str(tmp_path / "told.json")])
    found = [(caption, marks) for _, caption, marks in written(folder)]
    old = ("An old one.", [])
    assert found == [old, ("A car <pose> in the sun.", [1]), old, old, old]
    assert "tells keep theirs: 4\n" in capsys.readouterr().out


MISTAKES = {
    "mark": ('{"car/n1": "A bus <pose>."}', "told.json: 'car/n1': caption: mark 1 ('A bus <pose>') fits no object"),
    "other images": ('{"car/n7": "A car <pose>."}', "told.json: holds no caption for any image of"),
    "not JSON": ("{", "told.json: not valid JSON"),
    "missing": (None, "told.json: no such file or folder of captions"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_captions_that_cannot_be_used_change_nothing(tmp_path, name):
    content, message = MISTAKES[name]
    folder = data_folder(tmp_path / "data")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    if content is not None:
        (tmp_path / "told.json").write_text(content)
    with pytest.raises(UserError) as error:
        captions.main(["--data", str(folder), "--writer", "file", "--captions", str(tmp_path / "told.json")])
    assert message in str(error.value)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


UNFIT = {
    "--writer file": "--captions: needed with --writer file",
    "--writer llm": "--model: needed with --writer llm",
    "--captions x": "--captions: only with --writer file",
    "--writer file --captions x --model m": "--model: only with --writer llm",
    "--price-in 3": "--price-in: only with --writer llm",
    "--writer llm --model m --base-url localhost:80": "--base-url: 'localhost:80' is not an address",
}


@pytest.mark.parametrize("options", UNFIT)
def test_options_that_do_not_fit_are_refused(tmp_path, options):
    with pytest.raises(UserError, match=UNFIT[options]):
        captions.main(["--data", str(data_folder(tmp_path / "data")), *options.split()])


@pytest.mark.parametrize("option", ["--concurrency=0", "--timeout=nan", "--requests-per-minute=-1", "--price-in=x"])
def test_numbers_out_of_range_are_refused(tmp_path, option):
    with pytest.raises(UserError, match=option.split("=")[0]):
        captions.main(["--data", str(tmp_path), "--writer", "llm", option])


@pytest.mark.parametrize("carried", [True, False])
def test_categories_of_ones_own_are_spoken_of_as_their_file_says(tmp_path, carried):
    folder = folder_of(tmp_path / "data", ("x/n1", (dataclasses.replace(CAR, category="robot_dog"),)))
    words = {"categories": {"robot_dog": {"meta_class": "robots", "with_article": "an old robot dog"}}}
    path = folder / "taxonomy.json" if carried else tmp_path / "mine.json"
    path.write_text(json.dumps(words))
    try:
        captions.main(["--data", str(folder), *([] if carried else ["--taxonomy", str(path)])])
        ((_, caption, marks),) = written(folder)
    finally:
        taxonomy.activate(None)
    assert "an old robot dog <pose>" in caption.lower() and marks == [0]


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
