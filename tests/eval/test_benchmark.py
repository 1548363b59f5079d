"""The benchmark command on a tiny model: the files it leaves, and what it refuses before any work."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np

from data_prep.shards import ShardWriter
from llava_pose.geometry import pose_error
from llava_pose.scene import load_split
from tests.short_runs import posed_image, write_split

ROOT = Path(__file__).parents[2]
LINE = {
    *("image_id", "object_id", "category", "predicted_category", "class_probability", "azimuth", "elevation"),
    *("theta", "confidence", "target", "pose_error", "argmax_pose_error", "correct"),
}
TABLE = {"acc_pi_6", "acc_pi_18", "median_error_deg", "mean_error_deg", "classification_accuracy", "count"}


def write_crops(folder: Path, split: str, rows: int) -> None:
    """A split with one object a row, as evaluation takes them."""
    rng = np.random.default_rng(rows)
    writer = ShardWriter(folder, split)
    for number in range(rows):
        record = posed_image(number, ("car", "sofa", "bicycle")[number % 3], 1, rng, 48)
        path = folder / "picture.png"
        record.image.save(path)
        writer.add({**record.to_row(), "image": {"bytes": path.read_bytes(), "path": None}})
        path.unlink()
    writer.close()


def benchmark(*options: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "eval/benchmark.py", *map(str, options)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


def test_the_files_are_those_of_the_contract_and_agree(tmp_path: Path, tiny_model_dir: Path) -> None:
    (tmp_path / "data").mkdir()
    write_crops(tmp_path / "data", "train", 6)
    write_crops(tmp_path / "data", "val", 9)
    out = tmp_path / "out"
    done = benchmark("--model", tiny_model_dir, "--data", tmp_path / "data", "--out", out)
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in out.iterdir()) == ["metrics.json", "predictions.jsonl", "report.html"]
    lines = [json.loads(line) for line in (out / "predictions.jsonl").read_text().splitlines()]
    rows = load_split(tmp_path / "data", "val")
    assert [line["image_id"] for line in lines] == rows["image_id"][:]
    for line in lines:
        assert set(line) == LINE
        found, true = (
            [angles[name] for name in ("azimuth", "elevation", "theta")] for angles in (line, line["target"])
        )
        assert abs(line["pose_error"] - float(pose_error(found, true))) < 1e-9
        assert line["correct"] == (line["category"] == line["predicted_category"])
    metrics = json.loads((out / "metrics.json").read_text())
    assert {"joint", "pose_only", "settings"} <= set(metrics)
    assert set(metrics["joint"]) == {"average", "meta_classes", "categories"}
    assert set(metrics["joint"]["average"]) == TABLE
    assert metrics["joint"]["average"]["count"] == 9


def test_data_without_a_train_split_is_refused_before_any_work(tmp_path: Path, tiny_model_dir: Path) -> None:
    (tmp_path / "data").mkdir()
    write_split(tmp_path / "data", "val", 3, seed=0)
    done = benchmark("--model", tiny_model_dir, "--data", tmp_path / "data", "--out", tmp_path / "out")
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].endswith("no split 'train' (found: val)")
    assert not (tmp_path / "out").exists()
