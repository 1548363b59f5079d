"""python data_prep/speed.py [--quick] [--workers W]

How fast data are made here: object crops of a made-up release in ImageNet3D's layout, side by side with the obvious
way, and renders of small meshes. The last line is one JSON object with ``crop_ratio`` (over the obvious way) and
``renders_per_second``.

The obvious way is that of ImageNet3D's published script: for every object decode the image with Pillow, resize all of
it with OpenCV (cubic), pad, cut out 512 x 512, save a JPEG, and an npz with the annotation. Both get the same files, as
many processes and the same JPEG quality, in turns, after a round that does not count, in which the processes start.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from data_prep.conversion.jobs import REPORTS, SHARDS, Job, Settings, Workshop
from data_prep.conversion.pixels import JPEG_QUALITY
from data_prep.conversion.pool import JobCrew
from data_prep.conversion.rows import Cut
from data_prep.crew import Crew
from data_prep.imagenet3d import ImageNet3D
from data_prep.rendering.shapes import build
from data_prep.rendering.shapes.mesh import off_text
from data_prep.speed_data import write_release
from llava_pose.arguments import CommandParser, whole_number
from llava_pose.errors import UserError, run_cli
from llava_pose.scene import features

SIDE, DISTANCE = 512, 4.0
ROOT = Path(__file__).parents[1]


def obvious_crops(image_path: Path, npz_path: Path, out: Path) -> int:
    """All object crops of an image, each the obvious way; returns their number."""
    annotations = np.load(npz_path, allow_pickle=True)["annotations"]  # the benchmark's own file
    for index, item in enumerate(annotations):
        pixels = np.array(Image.open(image_path).convert("RGB"))
        scale = item["distance"] / DISTANCE
        size = (int(pixels.shape[1] * scale), int(pixels.shape[0] * scale))
        pixels = cv2.resize(pixels, size, interpolation=cv2.INTER_CUBIC)
        x, y = int(item["px"] * scale), int(item["py"] * scale)
        half = SIDE // 2
        above, left = max(half - y, 0), max(half - x, 0)
        below, right = max(half + y - pixels.shape[0], 0), max(half + x - pixels.shape[1], 0)
        pixels = np.pad(pixels, ((above, below), (left, right), (0, 0)))
        top, start = max(y - half, 0), max(x - half, 0)
        name = f"{image_path.stem}_{index:02d}"
        Image.fromarray(pixels[top : top + SIDE, start : start + SIDE]).save(out / f"{name}.JPEG", quality=JPEG_QUALITY)
        shift = np.array([left - start, above - top] * 2)
        moved = {"bbox": item["bbox"] * scale + shift, "px": half, "py": half, "distance": DISTANCE, "scale": scale}
        np.savez(out / name, **{**item, **moved})
    return len(annotations)


def one_thread() -> None:
    """Processes are as many as are asked for: each works alone."""
    cv2.setNumThreads(1)


def obvious_images(files: Sequence[Sequence[Path]], out: Path) -> None:
    """The crops of some images."""
    for image, npz in files:
        obvious_crops(image, npz, out)


def seconds(work: Iterable[object], out: Path) -> float:
    """How long a piece of work takes that writes into a folder, which is empty before and after it."""
    start = time.perf_counter()
    for _ in work:
        pass
    taken = time.perf_counter() - start
    for path in out.iterdir():
        path.unlink()
    return taken


def crop_rates(folder: Path, images: int, rounds: int, workers: int) -> tuple[list[float], list[float]]:
    """Object crops a second in each round, of the obvious way and of ours."""
    objects = write_release(folder / "release", images)
    source = ImageNet3D(folder / "release")
    tasks = source.splits()["train"]
    files = [source.files(task)[:2] for task in tasks]
    shop = Workshop(folder, source, Settings(Cut("object", SIDE)), features().arrow_schema)
    plain_out = folder / "obvious"
    for out in (plain_out, folder / SHARDS, folder / REPORTS):
        out.mkdir()
    count = 3 * workers
    jobs = [Job("train", index, count, tuple(tasks[index::count])) for index in range(count)]
    pieces = [(files[start : start + 8], plain_out) for start in range(0, len(files), 8)]
    obvious, ours = [], []
    with Crew(workers, one_thread) as plain, JobCrew(shop, workers) as crew:
        for _ in range(rounds + 1):
            obvious.append(objects / seconds(plain.run(obvious_images, pieces), plain_out))
            ours.append(objects / seconds(crew.run(jobs, lambda more: None), folder / SHARDS))
    # The first round is that in which the processes start.
    return obvious[1:], ours[1:]


def render_rate(folder: Path, images: int, workers: int) -> float:
    """Images a second of render.py at 128 pixels, small meshes, by the times of the files it writes."""
    for category in ("car", "chair", "teapot"):
        (folder / "meshes" / category).mkdir(parents=True)
        for index in range(4):
            text = off_text(build(category, np.random.default_rng(index)))
            (folder / "meshes" / category / f"{index:02d}.off").write_text(text)
    command = [sys.executable, str(ROOT / "data_prep" / "render.py"), "--out", str(folder / "rendered")]
    command += ["--meshes", str(folder / "meshes"), "--images", str(images), "--size", "128", "--workers", str(workers)]
    result = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)})
    if result.returncode:
        raise UserError(f"render.py: {result.stderr.strip().splitlines()[-1]}")
    times = sorted(path.stat().st_mtime for path in (folder / "rendered" / "annotations").rglob("*.npz"))
    first = len(times) // 4
    return (len(times) - 1 - first) / (times[-1] - times[first])


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print, and end with a line of JSON."""
    parser = CommandParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="half a minute, for a first idea")
    cores = os.cpu_count() or 1
    parser.add_argument("--workers", type=whole_number, default=cores, help="processes (default: all cores)")
    options = parser.parse_args(argv)
    images, rounds, renders = (120 * options.workers, 1, 240) if options.quick else (600 * options.workers, 5, 1500)
    with tempfile.TemporaryDirectory() as name:
        obvious, ours = crop_rates(Path(name), images, rounds, options.workers)
        rendered = render_rate(Path(name), renders, options.workers)
    ratio = statistics.median(our / one for our, one in zip(ours, obvious, strict=True))
    print(f"the obvious way   {statistics.median(obvious):8.1f} object crops a second, {options.workers} processes")
    print(f"imagenet3d.py     {statistics.median(ours):8.1f} object crops a second: {ratio:.2f} times as many")
    print(f"render.py         {rendered:8.1f} images a second at 128 pixels, small meshes")
    print(
        json.dumps(
            {
                "crop_ratio": round(ratio, 3),
                "crops_per_second": round(statistics.median(ours), 1),
                "obvious_crops_per_second": round(statistics.median(obvious), 1),
                "renders_per_second": round(rendered, 1),
                "workers": options.workers,
            }
        )
    )


if __name__ == "__main__":
    run_cli(main)
