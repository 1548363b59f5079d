"""What matters: one recipe, and runs that differ from it in one thing, over seeds.

    python train/ablations.py --out DIR                                 # data, all runs of all seeds, tables
    python train/ablations.py --out DIR --only baseline hard --seeds 0  # some of them
    python train/ablations.py --out DIR --tables                        # the tables again, from what is there

Renders its own data into DIR (six categories, and six more of which the embedded model knows two, for the adapters),
trains ``ablating/baseline.yaml`` and each variant of ``ablating/variants.py``, scores every held-out object, and leaves
``runs.csv`` (a line a run) and ``tables.md``. One seed of everything comes first, then the next. A finished run is
kept: the same command goes on where it was stopped.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from accelerate.state import AcceleratorState, GradientState, PartialState

from data_prep.captioning.fill import columns, fill
from llava_pose import checkpoint
from llava_pose.arguments import CommandParser, whole_number
from llava_pose.errors import UserError, run_cli
from llava_pose.folders import model_source
from train.ablating.scoring import Scored, load_scored, save_scored, score_model
from train.ablating.tables import write_tables
from train.ablating.variants import EMBEDDED, KNOWN_CATEGORIES, NEW_CATEGORIES, VARIANTS, Variant, chosen
from train.config import TrainConfig, load_config
from train.finetune import train
from train.sets import load_data

ROOT = Path(__file__).parents[1]
BASELINE_RECIPE = Path(__file__).parent / "ablating" / "baseline.yaml"
CATEGORIES = ("aeroplane", "bed", "car", "chair", "laptop", "motorbike")


def main(argv: Sequence[str] | None = None) -> None:
    """Make the data, run what has not been run, and write the tables."""
    arguments = parse_arguments(argv)
    out: Path = arguments.out
    if not arguments.tables:
        variants = chosen(arguments.only)
        prepare(out, arguments.images)
        if not (kept := result_of(out, EMBEDDED, 0)).is_file():
            save_scored(kept, score(out / "base", out / "crops", out / "features", steps=0))
        for seed in arguments.seeds:
            for variant in variants:
                run(variant, seed, out, arguments.steps)
    write_tables(out)


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = CommandParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="data, runs, results and tables")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="default: 0 1 2")
    names = [variant.name for variant in VARIANTS]
    parser.add_argument("--only", nargs="+", choices=names, metavar="NAME", help=f"of {', '.join(names)}")
    parser.add_argument("--steps", type=whole_number, help="of every run (default: the recipe's)")
    parser.add_argument("--images", type=whole_number, default=3000, help="rendered pictures (default: 3000)")
    parser.add_argument("--tables", action="store_true", help="run nothing: the tables of what is there")
    arguments = parser.parse_args(argv)
    if min(arguments.seeds) < 0:
        raise UserError(f"--seeds {min(arguments.seeds)}: must not be negative")
    return arguments


def prepare(out: Path, images: int) -> None:
    """Data and base, where they are not there yet: crops, the whole pictures, the crops without captions, and crops of
    new categories. The base is kept, as the embedded model of another day may be another."""
    convert = ("data_prep/imagenet3d.py", "--crop", "object", "--size", "256", "--workers", "1")
    for name, categories, count in (
        ("rendered", CATEGORIES, images),
        ("rendered-new", (*NEW_CATEGORIES, *KNOWN_CATEGORIES), images // 3),
    ):
        options = ("--images", str(count), "--seed", "5", "--val-fraction", "0.25", "--workers", "1")
        make(out / name, "data_prep/render.py", *options, "--categories", *categories)
    make(out / "crops", *convert, "--root", str(out / "rendered"))
    make(out / "new", *convert, "--root", str(out / "rendered-new"))
    make(
        out / "scenes", "data_prep/imagenet3d.py", "--crop", "scene", "--workers", "1", "--root", str(out / "rendered")
    )
    if not (out / "uncaptioned").is_dir():
        copy = out / "uncaptioned.partial"
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(out / "crops", copy)
        fill(copy, lambda row: columns("", ()))
        copy.rename(out / "uncaptioned")
    if not (out / "base").is_dir():
        shutil.copytree(model_source(checkpoint.EMBEDDED), out / "base.partial", dirs_exist_ok=True)
        (out / "base.partial").rename(out / "base")


def make(folder: Path, script: str, *options: str) -> None:
    """Run a script of data_prep whose ``--out`` is this folder; a finished one it has nothing to do for."""
    done = folder / ".made"
    if not done.is_file():
        command(script, "--out", str(folder), *options)
        done.touch()


def command(script: str, *options: str) -> None:
    """Run a script of this project, and stop where it does."""
    print("python", script, *options, flush=True)
    done = subprocess.run([sys.executable, str(ROOT / script), *options], check=False, cwd=ROOT)
    if done.returncode:
        raise UserError(f"{script}: stopped with exit code {done.returncode}")


def run(variant: Variant, seed: int, out: Path, steps: int | None) -> None:
    """Train and score one run, unless its result is there. What a stopped one left is thrown away."""
    result = result_of(out, variant.name, seed)
    if result.is_file():
        if steps is not None and (found := load_scored(result).steps) != steps:
            raise UserError(f"--steps {steps}: {result} holds a run of {found} steps; give another --out")
        return
    config = settings(variant, seed, out, steps)
    folder = Path(config.output_dir)
    with suppress(FileNotFoundError):
        shutil.rmtree(folder)
    for state in (AcceleratorState, GradientState, PartialState):
        state._reset_state()  # accelerate keeps one a process, and every run has its own
    print(f"{variant.name}, seed {seed}: {variant.says}", flush=True)
    with variant.patch():
        train(config, *load_data(config), folder)
        save_scored(result, score(folder / "final", out / variant.scored, out / "features", config.steps))
    shutil.rmtree(folder)


def settings(variant: Variant, seed: int, out: Path, steps: int | None) -> TrainConfig:
    """The configuration of a run."""
    folders = ", ".join(str(out / name) for name in variant.data)
    overrides = [
        f"output_dir={out / 'runs' / f'{variant.name}.{seed}'}",
        f"cache_dir={out / 'features'}",
        f"data=[{folders}]",
        f"seed={seed}",
        *(each.replace("=BASE", f"={out / 'base'}") for each in variant.overrides),
        *([] if steps is None else [f"steps={steps}"]),
    ]
    return load_config(BASELINE_RECIPE, overrides)


def result_of(out: Path, name: str, seed: int) -> Path:
    """Where a run's answers are kept."""
    return out / "results" / f"{name}.{seed}.npz"


def score(folder: Path, data: Path, features: Path, steps: int) -> Scored:
    """What a model folder says of the held-out objects of a data set."""
    model: Any
    model, processor = checkpoint.load(str(folder))
    model.calibration = None
    return score_model(model, processor, data, features, steps)


if __name__ == "__main__":
    run_cli(main)
