"""python data_prep/render.py --out data/rendered --images 6000 [--meshes DIR] [--seed 0] [--workers 2]

Renders a posed data set in ImageNet3D's layout: ``images/``, ``annotations/``, ``lists/`` and ``CAD/``. Without
``--meshes`` the objects are built-in parametric ones; with it they are ``{category}/*.{off,obj,ply,glb,stl}`` in the
canonical pose (z up, front towards -y). The same arguments give the same bytes whatever ``--workers`` is; run again
after a stop, the command goes on where it was.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import signal
import sys
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import NoReturn

from tqdm import tqdm

from data_prep.catalog import SPLITS, Catalog, image_counts
from data_prep.files import write_atomic
from data_prep.meshfiles import digest, find_meshes, load_shape
from data_prep.shapes import CATEGORIES
from data_prep.writer import Job, Task, Writer
from llava_pose import __version__, taxonomy
from llava_pose.errors import UserError, run_cli

RECORD = "render.json"
_CHUNK = 16  # images a worker takes at a time


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UserError(message)


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line, ranges checked. Raises UserError."""
    parser = _Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder to write (new, empty, or to be continued)")
    parser.add_argument("--images", type=int, required=True, help="number of images over all categories")
    parser.add_argument("--meshes", type=Path, help="folder of your own models: {category}/*.{off,obj,ply,glb,stl}")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes (default: every core)")
    parser.add_argument("--categories", nargs="+", help=f"default: all of --meshes, or {' '.join(CATEGORIES)}")
    parser.add_argument("--taxonomy", type=Path, help="file of categories of your own (YAML or JSON)")
    parser.add_argument("--size", type=int, default=224, help="width and height of an image, on average (pixels)")
    parser.add_argument("--val-fraction", type=float, default=0.2, help="share of the images in the val split")
    arguments = parser.parse_args(argv)
    for name, least, most in (("images", 1, 10**7), ("seed", 0, 2**32), ("workers", 1, 256), ("size", 32, 1024)):
        value = getattr(arguments, name)
        if not least <= value <= most:
            raise UserError(f"--{name} {value}: must be between {least} and {most}")
    if not 0 <= arguments.val_fraction < 1:
        raise UserError(f"--val-fraction {arguments.val_fraction}: must be at least 0 and below 1")
    return arguments


def make_catalog(arguments: argparse.Namespace) -> tuple[Catalog, str | None]:
    """The shapes to use and, for a folder of meshes, its digest. Reads every mesh once. Raises UserError."""
    meshes = None if arguments.meshes is None else find_meshes(arguments.meshes)
    available = CATEGORIES if meshes is None else tuple(meshes)
    categories = list(dict.fromkeys(taxonomy.resolve(name) for name in arguments.categories or available))
    for category in categories:
        if category not in available:
            raise UserError(f"--categories {category}: not among {', '.join(available)}")
    counts = image_counts(arguments.images, categories, arguments.val_fraction)
    if meshes is None:
        return Catalog(arguments.seed, counts, None), None
    meshes = {category: meshes[category] for category in categories}
    for category, files in meshes.items():
        for path in files:
            load_shape(path)
        if len(files) < 2 and counts[category]["val"]:
            counts[category] = {"train": sum(counts[category].values()), "val": 0}
            print(f"note: {category} has one mesh, so all its images go to train", file=sys.stderr)
    catalog = Catalog(arguments.seed, counts, {category: tuple(files) for category, files in meshes.items()})
    return catalog, digest(meshes)


def open_folder(arguments: argparse.Namespace, categories: Sequence[str], mesh_digest: str | None) -> None:
    """Make the output folder, or make sure it was begun with the same arguments. Raises UserError."""
    out = arguments.out
    wanted = {
        "version": __version__,
        "images": arguments.images,
        "seed": arguments.seed,
        "size": arguments.size,
        "val_fraction": arguments.val_fraction,
        "categories": list(categories),
        "meshes": mesh_digest,
    }
    if out.exists() and not out.is_dir():
        raise UserError(f"--out {out}: not a folder")
    record = out / RECORD
    if record.is_file():
        try:
            held = json.loads(record.read_text(encoding="utf-8"))
        except ValueError:
            held = None
        if not isinstance(held, dict):
            raise UserError(f"{record}: not the record of a render")
        for name, value in wanted.items():
            if held.get(name) != value:
                raise UserError(f"--out {out}: begun with {name} {held.get(name)}, not {value}; choose another folder")
        for leftover in out.rglob(".*.partial"):
            leftover.unlink()
    elif out.is_dir() and any(out.iterdir()):
        raise UserError(f"--out {out}: not empty and not begun by this command")
    try:
        out.mkdir(parents=True, exist_ok=True)
        write_atomic(record, (json.dumps(wanted, indent=1) + "\n").encode())
    except OSError as error:
        raise UserError(f"--out {out}: cannot write ({error.strerror})") from error


def use_taxonomy(arguments: argparse.Namespace) -> None:
    """Put into effect the taxonomy file that is named, and those of the meshes and of a folder to be continued."""
    if arguments.taxonomy is not None:
        taxonomy.use_file(arguments.taxonomy)
    if arguments.meshes is not None:
        taxonomy.use_folder(arguments.meshes)
    taxonomy.use_folder(arguments.out)


def render_all(job: Job, tasks: Sequence[Task], workers: int) -> None:
    """Write the images of ``tasks`` that are not complete, in this process or in ``workers`` others."""
    writer = Writer(job)
    left = [task for task in tasks if not writer.is_complete(task)]
    with tqdm(total=len(tasks), initial=len(tasks) - len(left), unit="image", smoothing=0.05) as progress:
        if workers == 1 or len(left) <= _CHUNK:
            for task in left:
                writer.write(task)
                progress.update()
            return
        chunks = [left[start : start + _CHUNK] for start in range(0, len(left), _CHUNK)]
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(min(workers, len(chunks)), context, _start_worker, (job,)) as pool:
            # Ctrl-C is for this process: workers inherit the mask, never see it, and end with a whole image.
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
            futures = [pool.submit(_write_chunk, chunk) for chunk in chunks]
            try:
                signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
                for future in as_completed(futures):
                    progress.update(future.result())
            except BaseException:
                pool.shutdown(wait=True, cancel_futures=True)
                raise


_writer: Writer  # of a worker process


def _start_worker(job: Job) -> None:
    global _writer
    _writer = Writer(job)


def _write_chunk(tasks: Iterable[Task]) -> int:
    return sum(_writer.write(task) for task in tasks)


def main(argv: Sequence[str] | None = None) -> None:
    """Render the data set the command line asks for. Raises UserError."""
    arguments = parse_arguments(argv)
    use_taxonomy(arguments)
    catalog, mesh_digest = make_catalog(arguments)
    open_folder(arguments, list(catalog.counts), mesh_digest)
    job = Job(arguments.out, arguments.seed, arguments.size, catalog)
    # Number by number through all categories, so that shapes are reused soon and a part of the set is balanced.
    tasks = [
        Task(category, split, number)
        for split in SPLITS
        for number in range(max(counts[split] for counts in catalog.counts.values()))
        for category, counts in catalog.counts.items()
        if number < counts[split]
    ]
    try:
        taxonomy.write_into(arguments.out)
        render_all(job, tasks, arguments.workers)
        for category in catalog.counts:
            for split in SPLITS:
                names = [task.name for task in tasks if (task.category, task.split) == (category, split)]
                listing = arguments.out / "lists" / f"{category}_imagenet_{split}.txt"
                write_atomic(listing, "".join(f"{name}\n" for name in names).encode())
    except OSError as error:
        raise UserError(f"--out {arguments.out}: cannot write ({error.strerror})") from error


if __name__ == "__main__":
    run_cli(main)
