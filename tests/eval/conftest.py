"""Benchmark runs on a tiny model, in this process."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from accelerate.state import AcceleratorState, GradientState, PartialState

from data_prep.conversion.shards import ShardWriter
from eval import benchmark
from tests.short_runs import posed_image, write_split

Evaluate = Callable[..., Path]


def write_crops(folder: Path, split: str, rows: int) -> None:
    """A split with one object a row, as evaluation takes them."""
    folder.mkdir(exist_ok=True)
    rng = np.random.default_rng(rows)
    with ShardWriter(folder, split) as writer:
        for number in range(rows):
            record = posed_image(number, ("car", "sofa", "bicycle")[number % 3], 1, rng, 48)
            path = folder / "picture.png"
            assert record.image is not None
            record.image.save(path)
            writer.add({**record.to_row(), "image": {"bytes": path.read_bytes(), "path": None}})
            path.unlink()


@pytest.fixture(scope="session")
def crops(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six rows to train on and nine to validate, an object each. Read only."""
    folder = tmp_path_factory.mktemp("evaluated") / "crops"
    for split, rows in (("train", 6), ("val", 9)):
        write_crops(folder, split, rows)
    return folder


@pytest.fixture(scope="session")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Whole scenes, one in five of two objects. Read only."""
    folder = tmp_path_factory.mktemp("evaluated") / "scenes"
    folder.mkdir()
    for split, rows in (("train", 5), ("val", 10)):
        write_split(folder, split, rows, seed=rows)
    (folder / "README.md").write_text("crop: scene\n", encoding="utf-8")
    return folder


@pytest.fixture
def evaluate(tiny_model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Evaluate:
    """Run the command on the tiny model: ``evaluate(data, *options, out="out")``, the folder of results."""

    def run(data: Path, *options: object, out: str = "out", model: Path = tiny_model_dir) -> Path:
        for state in (AcceleratorState, GradientState, PartialState):
            state._reset_state()
        command = ["benchmark.py", "--model", model, "--data", data, "--out", tmp_path / out, *options]
        monkeypatch.setattr(sys, "argv", [*map(str, command)])
        benchmark.main()
        return tmp_path / out

    return run
