"""Made-up files for the speed benchmark, like ImageNet3D's in what costs time: size, detail, objects and distances."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np

from data_prep.conversion.crops import Pixels
from llava_pose.files import write_atomic

CATEGORIES = ("car", "chair", "bicycle", "teapot")
SIZES = ((500, 375), (375, 500), (500, 333), (640, 480))
SHARES = (0.6, 0.2, 0.1, 0.1)
PICTURES = 64


def write_release(root: Path, images: int, seed: int = 0) -> int:
    """A folder in ImageNet3D's layout with this many images, all of them in the train lists; returns its objects.

    Every image is a file of its own; pictures repeat after ``PICTURES``. An image is of one to three objects whose
    distances are spread log-normally around 6.5 (of 100: 5 below 3, 5 above 14), so that an object fills most of a
    500 × 375 image at the middle distance, as in the release.
    """
    rng = np.random.default_rng(seed)
    names: dict[str, list[str]] = {category: [] for category in CATEGORIES}
    objects = 0
    pictures = []
    for _ in range(min(images, PICTURES)):
        size = SIZES[rng.choice(len(SIZES), p=SHARES)]
        quality = [cv2.IMWRITE_JPEG_QUALITY, 92]
        pictures.append((size, cv2.imencode(".jpg", photo(rng, *size), quality)[1].tobytes()))
    for number in range(images):
        category, name = CATEGORIES[number % len(CATEGORIES)], f"n{number:06d}"
        (width, height), content = pictures[number % len(pictures)]
        annotations = [
            annotation(rng, category, width, height) for _ in range(rng.choice([1, 2, 3], p=[0.7, 0.2, 0.1]))
        ]
        folder = root / "images" / category
        folder.mkdir(parents=True, exist_ok=True)
        write_atomic(folder / f"{name}.JPEG", content)
        rows = np.empty(len(annotations), dtype=object)
        rows[:] = annotations
        folder = root / "annotations" / category
        folder.mkdir(parents=True, exist_ok=True)
        np.savez(folder / f"{name}.npz", annotations=rows)
        names[category].append(name)
        objects += len(annotations)
    for category, listed in names.items():
        listing = root / "lists" / f"{category}_imagenet_train.txt"
        write_atomic(listing, "".join(f"{name}\n" for name in listed).encode())
    return objects


def photo(rng: np.random.Generator, width: int, height: int) -> Pixels:
    """Pixels with a photo's mixture of detail: smooth light, shapes with edges, texture and grain; about 100 KB as a
    JPEG of 500 × 375, which is what ImageNet's files weigh."""
    image = np.full((height, width, 3), 120, dtype=np.float32)
    for cells in (4, 8, 16, 32, 64, 128):
        grid = rng.standard_normal((cells * height // width + 2, cells + 2, 3), dtype=np.float32)
        image += cv2.resize(grid, (width, height), interpolation=cv2.INTER_CUBIC) * (40 * (4 / cells) ** 0.6)
    for _ in range(12):
        color = rng.uniform(0, 255, 3).tolist()
        middle = (int(rng.integers(width)), int(rng.integers(height)))
        axes = (int(rng.integers(8, width // 4)), int(rng.integers(8, height // 4)))
        patch = image.copy()
        cv2.ellipse(patch, middle, axes, float(rng.uniform(0, 180)), 0, 360, color, -1)
        image = 0.4 * image + 0.6 * patch
    image += 9 * rng.standard_normal((height, width, 1), dtype=np.float32)
    return np.clip(image, 0, 255).astype(np.uint8)


def annotation(rng: np.random.Generator, category: str, width: int, height: int) -> dict[str, Any]:
    """One object with all fields of the release."""
    distance = float(np.clip(rng.lognormal(np.log(6.5), 0.47), 1.5, 60))
    px, py = float(rng.uniform(0.35, 0.65) * width), float(rng.uniform(0.35, 0.65) * height)
    half = 0.45 * 2000 / distance
    box = [max(px - half, 0.0), max(py - half, 0.0), min(px + half, float(width)), min(py + half, float(height))]
    return {
        "azimuth": float(rng.uniform(0, 2 * np.pi)),
        "elevation": float(abs(rng.normal(0, 0.3))),
        "theta": float(rng.normal(0, 0.1) % (2 * np.pi)),
        "distance": distance,
        "viewport": 2000,
        "focal": 1,
        "px": px,
        "py": py,
        "principal": np.array([px, py]),
        "cad_index": int(rng.integers(1, 9)),
        "height": np.uint16(height),
        "width": np.uint16(width),
        "bbox": np.array(box),
        "class": category,
        "object_status": "status_good",
        "dense": "dense_no",
    }
