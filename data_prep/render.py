"""python data_prep/render.py --out data/rendered --images 6000 [--meshes DIR] [--seed 0] [--workers 2]

Renders a posed data set in ImageNet3D's layout: ``images/``, ``annotations/``, ``lists/`` and ``CAD/``. Without
``--meshes`` the objects are built-in parametric ones; with it they are ``{category}/*.{off,obj,ply,glb,stl}``, z up
and facing -y unless ``--front chair=+x`` or ``axes.yaml`` says otherwise, centred and scaled to a box diagonal of 1.
The same arguments give the same bytes whatever ``--workers`` is; run again after a stop, the command goes on where it
was.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from tqdm import tqdm

from data_prep.crew import Crew
from data_prep.rendering.axes import read_axes
from data_prep.rendering.catalog import SPLITS, Catalog, Kept, image_counts
from data_prep.rendering.meshfiles import find_meshes
from data_prep.rendering.shapes import CATEGORIES
from data_prep.rendering.stock import Stock, take_stock
from data_prep.rendering.writer import Job, Task, Writer
from llava_pose import __version__, taxonomy
from llava_pose.arguments import CommandParser
from llava_pose.errors import UserError, run_cli
from llava_pose.files import write_atomic

RECORD = "render.json"
STORE = ".shapes"  # in the output folder while it is rendered: the user's models as they were read
_FEW = 16  # images and models together for which this process is enough
_CHUNK_PIXELS = 2**20  # of the images that a process takes at a time, which it ends with after Ctrl-C


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line, ranges checked. Raises UserError."""
    parser = CommandParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder to write (new, empty, or to be continued)")
    parser.add_argument("--images", type=int, required=True, help="number of images over all categories")
    parser.add_argument("--meshes", type=Path, help="folder of your own models: {category}/*.{off,obj,ply,glb,stl}")
    parser.add_argument(
        "--front",
        action="append",
        default=[],
        metavar="WHAT=AXES",
        help="which way models face in their files, where that is not -y with z up: chair=+x, car=-z,up=y, "
        "car/old.obj=+y, *.glb=+z,up=y; a file axes.yaml in --meshes can say the same",
    )
    parser.add_argument(
        "--on-error", choices=["stop", "skip"], default="stop", help="what a model that cannot be used does"
    )
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
    if arguments.front and arguments.meshes is None:
        raise UserError(f"--front {arguments.front[0]}: says how --meshes lie, and there are none")
    if not 0 <= arguments.val_fraction < 1:
        raise UserError(f"--val-fraction {arguments.val_fraction}: must be at least 0 and below 1")
    return arguments


def chosen_categories(arguments: argparse.Namespace, available: Sequence[str]) -> list[str]:
    """The categories to render, by canonical name. Raises UserError."""
    categories = list(dict.fromkeys(taxonomy.resolve(name) for name in arguments.categories or available))
    for category in categories:
        if category not in available:
            raise UserError(f"--categories {category}: not among {', '.join(available)}")
    return categories


def use_taxonomy(arguments: argparse.Namespace) -> None:
    """Put into effect the taxonomy file that is named, and those of the meshes and of a folder to be continued."""
    if arguments.taxonomy is not None:
        taxonomy.use_file(arguments.taxonomy)
    if arguments.meshes is not None:
        taxonomy.use_folder(arguments.meshes)
    taxonomy.use_folder(arguments.out)


def record_of(arguments: argparse.Namespace, categories: Sequence[str]) -> dict[str, Any]:
    """What a folder must have been begun with to be continued; what models is known once they are read."""
    models = {"models": None} if arguments.meshes is None else {}
    return {
        "version": __version__,
        "images": arguments.images,
        "seed": arguments.seed,
        "size": arguments.size,
        "val_fraction": arguments.val_fraction,
        "categories": list(categories),
        **models,
    }


def check_folder(out: Path, wanted: dict[str, Any]) -> None:
    """Make sure that the output folder is new, empty, or was begun with the same arguments. Raises UserError."""
    if out.exists() and not out.is_dir():
        raise UserError(f"--out {out}: not a folder")
    record = out / RECORD
    if not record.is_file():
        if out.is_dir() and any(path.name != STORE for path in out.iterdir()):
            raise UserError(f"--out {out}: not empty and not begun by this command")
        return
    try:
        held = json.loads(record.read_text(encoding="utf-8"))
    except ValueError:
        held = None
    if not isinstance(held, dict):
        raise UserError(f"{record}: not the record of a render")
    for name, value in wanted.items():
        if held.get(name) == value:
            continue
        if name == "models":
            raise UserError(f"--out {out}: begun with other models, or other axes of theirs; choose another folder")
        raise UserError(f"--out {out}: begun with {name} {held.get(name)}, not {value}; choose another folder")


def take_models(
    arguments: argparse.Namespace,
    meshes: dict[str, list[Path]],
    categories: Sequence[str],
    record: dict[str, Any],
    crew: Crew,
) -> Stock:
    """Read the user's models of the categories, keep their shapes beside the images, and add them to the folder's
    record. What is said of the axes of other models is left aside.

    Raises UserError, with nothing left behind, where one cannot be used or the folder was begun with others.
    """
    axes = read_axes(arguments.meshes, arguments.front, meshes)
    wanted = {category: meshes[category] for category in categories}
    store = arguments.out / STORE
    try:
        stock = take_stock(crew, arguments.meshes, wanted, axes, store, arguments.on_error)
        record["models"] = stock.digest
        check_folder(arguments.out, record)
    except UserError:
        shutil.rmtree(store, ignore_errors=True)
        with suppress(OSError):
            arguments.out.rmdir()  # if this run has made it
        raise
    record["skipped"] = stock.skipped
    return stock


def make_catalog(arguments: argparse.Namespace, categories: Sequence[str], stock: Stock | None) -> Catalog:
    """How many images of what, and where their shapes come from."""
    counts = image_counts(arguments.images, categories, arguments.val_fraction)
    if stock is None:
        return Catalog(arguments.seed, counts, None)
    for category, names in stock.names.items():
        if len(names) < 2 and counts[category]["val"]:
            counts[category] = {"train": sum(counts[category].values()), "val": 0}
            print(f"note: {category} has one model, so all its images go to train", file=sys.stderr)
    return Catalog(arguments.seed, counts, Kept(arguments.out / STORE, stock.names))


def all_tasks(catalog: Catalog) -> list[Task]:
    """Every image, those of one shape near one another: a process then seldom reads or builds it twice."""
    tasks = [
        (number % len(catalog.cad_indices(category, split)), Task(category, split, number))
        for split in SPLITS
        for category, counts in catalog.counts.items()
        for number in range(counts[split])
    ]
    tasks.sort(key=lambda item: (item[1].split, item[0], item[1].number))
    return [task for _, task in tasks]


def render_all(job: Job, crew: Crew) -> None:
    """Write the images that are not complete."""
    writer, tasks = Writer(job), all_tasks(job.catalog)
    left = [task for task in tasks if not writer.is_complete(task)]
    # Large chunks keep the images of a shape together, small ones keep everybody busy to the end.
    size = max(1, min(_CHUNK_PIXELS // job.size**2, len(left) // (8 * crew.workers)))
    chunks = (left[start : start + size] for start in range(0, len(left), size))
    with tqdm(total=len(tasks), initial=len(tasks) - len(left), unit="image", smoothing=0.05) as progress:
        for written in crew.run(_write_chunk, ((job, chunk) for chunk in chunks)):
            progress.update(written)


_writer: Writer | None = None  # of a process: it holds the shapes that were used last


def _write_chunk(job: Job, tasks: Iterable[Task]) -> int:
    global _writer
    if _writer is None or _writer.job != job:
        _writer = Writer(job)
    return sum(_writer.write(task) for task in tasks)


def write_lists(out: Path, catalog: Catalog) -> None:
    """The names of the images of each category and split. Their presence says that the set is complete."""
    for category, counts in catalog.counts.items():
        for split in SPLITS:
            names = [f"{Task(category, split, number).name}\n" for number in range(counts[split])]
            write_atomic(out / "lists" / f"{category}_imagenet_{split}.txt", "".join(names).encode())


def main(argv: Sequence[str] | None = None) -> None:
    """Render the data set the command line asks for. Raises UserError."""
    arguments = parse_arguments(argv)
    use_taxonomy(arguments)
    meshes = None if arguments.meshes is None else find_meshes(arguments.meshes, arguments.on_error)
    categories = chosen_categories(arguments, CATEGORIES if meshes is None else tuple(meshes))
    out, record = arguments.out, record_of(arguments, categories)
    check_folder(out, record)
    few = arguments.images + sum(map(len, (meshes or {}).values())) <= _FEW
    try:
        with Crew(1 if few else arguments.workers) as crew:
            stock = None
            if meshes is not None:
                stock = take_models(arguments, meshes, categories, record, crew)
            for leftover in out.rglob(".*.partial"):
                leftover.unlink()
            write_atomic(out / RECORD, (json.dumps(record, indent=1) + "\n").encode())
            taxonomy.write_into(out)
            catalog = make_catalog(arguments, categories, stock)
            render_all(Job(out, arguments.seed, arguments.size, catalog), crew)
        write_lists(out, catalog)
        shutil.rmtree(out / STORE, ignore_errors=True)
    except OSError as error:
        raise UserError(f"--out {out}: cannot write ({error.strerror})") from error


if __name__ == "__main__":
    run_cli(main)
