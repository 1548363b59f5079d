"""The benchmark of making data: both ways do the same, and the command prints what it promises."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data_prep import speed
from data_prep.conversion.jobs import Settings, process
from data_prep.conversion.rows import Cut
from data_prep.imagenet3d import ImageNet3D
from data_prep.speed_data import write_release
from llava_pose.scene import PosedImage

ROOT = Path(__file__).parents[2]


def test_the_obvious_way_and_ours_make_the_same_crops(tmp_path):
    """To a pixel of the picture, which the obvious way rounds to, and with the same boxes."""
    objects = write_release(tmp_path / "release", 12)
    source = ImageNet3D(tmp_path / "release")
    (tmp_path / "out").mkdir()
    compared = 0
    for task in source.splits()["train"]:
        image, npz = source.files(task)[:2]
        speed.obvious_crops(image, npz, tmp_path / "out")
        rows, skipped, problems = process(task, source, Settings(Cut("object", 512)))
        assert not skipped and not problems
        for row in rows:
            record = PosedImage.from_row(row)
            [item] = record.objects
            path = tmp_path / "out" / f"{task.name}_{item.object_id:02d}.JPEG"
            plain = np.asarray(Image.open(path), dtype=float)
            assert plain.shape == (512, 512, 3)
            ours = np.asarray(record.image, dtype=float)
            inside = (plain.sum(-1) > 0) & (ours.sum(-1) > 0)
            smooth = [np.asarray(Image.fromarray(pixels.astype(np.uint8)).resize((64, 64))) for pixels in (plain, ours)]
            assert inside.mean() > 0.1
            assert np.abs(smooth[0].astype(float) - smooth[1]).mean() < 6
            box = np.clip(np.load(path.with_suffix(".npz"))["bbox"], 0, 512)
            assert np.abs(box - item.bbox).max() < 3
            compared += 1
    assert compared == objects


@pytest.mark.slow
def test_the_quick_benchmark_runs_and_ends_with_json():
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "data_prep/speed.py", "--quick", "--workers", "2"]
    result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    values = json.loads(result.stdout.splitlines()[-1])
    assert values["crop_ratio"] > 0 and values["renders_per_second"] > 0
    assert values["workers"] == 2
