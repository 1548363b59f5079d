"""A small data folder, and the caption writer run on it against a local endpoint."""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

from PIL import Image

from data_prep import captions
from data_prep.captioning.llm_captions import journal_path
from data_prep.conversion.rows import encoded
from data_prep.conversion.shards import ShardWriter
from llava_pose import scene
from llava_pose.scene import PosedImage, PosedObject

ROOT = Path(__file__).parents[2]
KEY = "sk-secret-0123456789"
CAR = PosedObject(
    0, "car", (6.0, 10.0, 30.0, 40.0), 0.5, 0.1, 0.0, 5.0, 30.0, 25.0, 900.0, 1, "status_good", "dense_yes"
)
BICYCLE = dataclasses.replace(CAR, object_id=3, category="bicycle", bbox=(33.0, 20.0, 57.0, 45.0))
TOLD = "A car <pose> stands by a bicycle <pose> on a grey street."
"""What ``endpoint.good`` says of the two."""


def data_folder(folder, rows=3):
    """A data folder of pictures with a car and a bicycle: ``rows`` in train, one in val."""
    folder.mkdir(parents=True)
    for split, count in (("train", rows), ("val", 1)):
        with ShardWriter(folder, split) as writer:
            for number in range(count):
                image = Image.new("RGB", (60, 50), (40 * number % 256, 0, 0))
                writer.add(encoded(PosedImage(image, f"{split}/n{number}", 60, 50, (CAR, BICYCLE), "old", ())))
    return folder


def ask(folder, endpoint, *options):
    """Run the writer in this process."""
    arguments = ["--data", str(folder), "--writer", "llm", "--model", "teller-1", "--base-url", endpoint.url]
    captions.main([*arguments, *options])


def rows_of(folder):
    """Every row as a record."""
    return [PosedImage.from_row(row) for split in ("train", "val") for row in scene.load_split(folder, split)]


def contents(folder):
    """The bytes of every file."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def journal(folder):
    """The journal's entries."""
    path = journal_path(folder)
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def command(folder, endpoint_url, *options, **environment):
    """Start the real command."""
    arguments = [sys.executable, "data_prep/captions.py", "--data", str(folder), "--writer", "llm"]
    arguments += ["--model", "teller-1", "--base-url", endpoint_url, *options]
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OPENAI_API_KEY": KEY, **environment}
    return subprocess.Popen(arguments, cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finished(process):
    """Wait for a command: its exit status, output and errors."""
    out, err = process.communicate(timeout=60)
    return process.returncode, out, err
