"""Filling the captions of a data folder: all shards or none, nothing but the captions changed."""

import os
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
