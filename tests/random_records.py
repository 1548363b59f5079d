"""Random records for tests of what is true of them: any pose, one to four objects, some of which are not to be used."""

from __future__ import annotations

import dataclasses
import io
import math
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image

from data_prep.conversion.shards import ShardWriter
from llava_pose.scene import PosedImage, PosedObject

CATEGORIES = ("car", "bus", "sofa", "bicycle", "teapot")
SIZE = (400, 300)


def posed(
    object_id: int = 0,
    category: str = "car",
    pose: tuple[float, float, float] = (0.0, 0.0, 0.0),
    center: tuple[float, float] = (200.0, 150.0),
    distance: float = 4.0,
    status: str = "status_good",
    half_width: float = 30.0,
    viewport: float = 2000.0,
) -> PosedObject:
    """An object with its origin and the middle of its box at ``center``."""
    x, y = center
    return PosedObject(
        object_id=object_id,
        category=category,
        bbox=(x - half_width, y - 20.0, x + half_width, y + 20.0),
        azimuth=pose[0],
        elevation=pose[1],
        theta=pose[2],
        distance=distance,
        px=x,
        py=y,
        viewport=viewport,
        cad_index=0,
        status=status,
        dense="",
    )


def record_of(*objects: PosedObject, image_id: str = "car/n1") -> PosedImage:
    """A record of these objects, without its image and without a caption."""
    return PosedImage(None, image_id, *SIZE, tuple(objects), "", ())


def random_pose(rng: np.random.Generator) -> tuple[float, float, float]:
    """Any direction; half of the cameras stand low and nearly upright, as most do, some of them exactly upright."""
    spread = rng.choice([0.3, 1.0])
    elevation = float(np.clip(rng.normal(0.2, 0.5 * spread), -math.pi / 2, math.pi / 2))
    azimuth, theta = float(rng.uniform(0, 2 * math.pi)), float(rng.normal(0, spread))
    if rng.random() < 0.2:
        return float(rng.integers(12)) * math.pi / 6, elevation * float(rng.integers(2)), 0.0
    return azimuth, elevation, theta


def random_record(rng: np.random.Generator, most: int = 4) -> PosedImage:
    """A record of one to ``most`` objects."""
    items = [
        posed(
            object_id,
            str(rng.choice(CATEGORIES)),
            random_pose(rng),
            (float(rng.uniform(40, 360)), float(rng.uniform(30, 270))),
            float(rng.uniform(2, 12)),
            str(rng.choice(["status_good", "status_barely", "status_bad", ""], p=[0.6, 0.25, 0.1, 0.05])),
        )
        for object_id in range(int(rng.integers(1, most + 1)))
    ]
    return record_of(*items)


def write_records(folder: Path, split: str, records: Iterable[PosedImage], crop: str = "scene") -> None:
    """A data folder of these records. Row n is n in its red, and bluer towards the right."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "README.md").write_text(f"---\ncrop: {crop}\n---\n")
    with ShardWriter(folder, split) as writer:
        for number, record in enumerate(records):
            pixels = np.zeros((record.height, record.width, 3), dtype=np.uint8)
            pixels[..., 0] = number
            pixels[..., 2] = np.linspace(0, 200, record.width)
            buffer = io.BytesIO()
            Image.fromarray(pixels).save(buffer, "PNG")
            row = dataclasses.replace(record, image_id=f"car/n{number:03d}").to_row()
            writer.add({**row, "image": {"bytes": buffer.getvalue(), "path": None}})
