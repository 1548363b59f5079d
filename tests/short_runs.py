"""A small posed data set of coloured noise, written with the project's own shard writer, and short runs on it."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from accelerate.state import AcceleratorState, GradientState, PartialState
from PIL import Image

from data_prep.conversion.shards import ShardWriter
from llava_pose.scene import PosedImage, PosedObject
from train import finetune

COLORS = {"car": (200, 40, 40), "sofa": (40, 200, 40), "bicycle": (40, 40, 200)}


def posed_image(number: int, category: str, objects: int, rng: np.random.Generator, width: int) -> PosedImage:
    """Noise around the category's colour, as bright as the pose says, with this many posed objects."""
    items = tuple(
        PosedObject(
            object_id=index,
            category=category if index == 0 else "boat",
            bbox=(4.0, 4.0, 40.0, 40.0),
            azimuth=float(rng.uniform(0, 6.28)),
            elevation=float(rng.uniform(-0.2, 0.8)),
            theta=float(rng.uniform(0, 0.2)),
            distance=4.0,
            px=20.0,
            py=20.0,
            viewport=900.0,
            cad_index=0,
            status="status_good",
            dense="",
        )
        for index in range(objects)
    )
    pixels = rng.normal(COLORS[category], 25, (48, width, 3)).clip(0, 255)
    # Brighter towards one side, so that a picture and its mirror image differ.
    pixels *= np.linspace(0.4, 1.0, width)[None, :, None]
    names = " and ".join(f"a {item.category} <pose>" for item in items)
    caption = f"A photo of {names}." if number % 3 else ""
    marks = tuple(range(objects)) if caption else ()
    picture = Image.fromarray(pixels.astype(np.uint8))
    return PosedImage(picture, f"{category}/n{number:04d}", width, 48, items, caption, marks)


def write_split(folder: Path, split: str, rows: int, seed: int, objects: Sequence[int] = (1, 1, 1, 1, 2)) -> None:
    """Write such a split; ``objects``: how many each row has, over and over."""
    rng = np.random.default_rng(seed)
    writer = ShardWriter(folder, split)
    for number in range(rows):
        category = list(COLORS)[number % 3]
        # Objects vary, widths too: pictures that are no squares are padded on the way.
        record = posed_image(number, category, objects[number % len(objects)], rng, 48 + 8 * (number % 2))
        buffer = io.BytesIO()
        record.image.save(buffer, "PNG")
        writer.add({**record.to_row(), "image": {"bytes": buffer.getvalue(), "path": None}})
    writer.close()


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 rows to train on and 9 to validate."""
    folder = tmp_path_factory.mktemp("posed")
    write_split(folder, "train", 24, seed=0)
    write_split(folder, "val", 9, seed=1)
    return folder


@pytest.fixture(scope="session")
def recipe(data_dir: Path) -> Callable[..., dict[str, Any]]:
    """The values of a run of a few steps on the data, with others laid over them."""

    def values(output_dir: Path, **more: Any) -> dict[str, Any]:
        return {
            "output_dir": str(output_dir),
            "data": [str(data_dir)],
            "model": {
                "text": {
                    "hidden_size": 32,
                    "intermediate_size": 64,
                    "num_hidden_layers": 2,
                    "num_attention_heads": 4,
                    "num_key_value_heads": 4,
                    "max_position_embeddings": 512,
                },
                "pose_hidden_size": 32,
            },
            "steps": 6,
            "batch_size": 4,
            "micro_batch_size": 4,
            "learning_rate": 0.003,
            "precision": "fp32",
            "log_every": 1,
            "eval_rows": 3,
            "cache_features": True,
            "cache_dir": str(data_dir / "features"),
            **more,
        }

    return values


@pytest.fixture
def run(recipe: Callable[..., dict[str, Any]], tmp_path: Path) -> Callable[..., Path]:
    """Train in this process through the script's own main: ``run(name, *flags, **settings)``, the run's folder."""

    def train(name: str, *flags: str, **settings: Any) -> Path:
        for state in (AcceleratorState, GradientState, PartialState):
            state._reset_state()
        path = tmp_path / f"{name}.yaml"
        path.write_text(yaml.safe_dump(recipe(tmp_path / name, **settings)))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "argv", ["finetune.py", "--config", str(path), *flags])
            finetune.main()
        return tmp_path / name

    return train
