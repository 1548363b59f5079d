"""The same recipe at three sizes of tower and language model: accuracy against what the training computed.

    python train/scaling.py --data DIR --out runs/scaling

DIR is a data set of object crops (data_prep/imagenet3d.py --crop object --size 256). Each size is trained anew for
every number of samples, each time to the end of its own learning rate schedule: an accuracy read half-way down a
schedule is not that of a model that was given half the compute. Compute is counted, not timed: the operations of one
forward and backward pass as torch counts them, a token, times the tokens of the run, and the tower's for every sample,
as without a cache of its features. CPU seconds are those of the training steps alone, with cached features.

Writes scaling.csv, a line a run as it ends (run again, the command goes on with what is missing), and scaling.png.
"""

from __future__ import annotations

import argparse
import csv
import time
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import set_seed
from torch.utils.flop_counter import FlopCounterMode
from tqdm import tqdm

from llava_pose.arguments import CommandParser, whole_number
from llava_pose.errors import run_cli
from llava_pose.files import write_atomic
from train.config import TrainConfig, load_config
from train.data import TrainingRows, read_batches, training_rows
from train.model import build_model
from train.optimizers import build_optimizers
from train.processes import build_accelerator
from train.sampling import MicroBatches
from train.sets import load_data
from train.step import train_step
from train.validation import Validation

RECIPE = Path(__file__).parent / "recipes" / "from-nothing.yaml"


@dataclass(frozen=True)
class Size:
    """A tower's picture, a language model's sizes, and the samples that each of its runs sees."""

    image_size: int
    hidden: int
    layers: int
    heads: int
    samples: tuple[int, ...]

    def overrides(self) -> list[str]:
        """What differs from the recipe. Weights begin at 1/√hidden, as the recipe's own do."""
        return [
            f"model.tower_sizes.image_size={self.image_size}",
            f"model.text.hidden_size={self.hidden}",
            f"model.text.intermediate_size={self.hidden * 11 // 4}",
            f"model.text.num_hidden_layers={self.layers}",
            f"model.text.num_attention_heads={self.heads}",
            f"model.text.num_key_value_heads={self.heads}",
            f"model.text.initializer_range={self.hidden**-0.5}",
        ]


SIZES = {
    "small": Size(128, 128, 4, 2, (3200, 9600, 28800)),
    "middle": Size(192, 256, 4, 4, (3200, 9600, 19200)),
    "large": Size(256, 384, 6, 6, (3200, 9600)),
}


@dataclass(frozen=True)
class Run:
    """One run's line: its size, parameters in millions of the language model and of all, what it took, what it scored
    (percent; degrees)."""

    size: str
    image_tokens: int
    language_millions: float
    all_millions: float
    samples: int
    petaflops: float
    cpu_seconds: float
    acc_pi_6: float
    acc_pi_18: float
    median_error_deg: float
    objects: int


def main() -> None:
    """Run what is missing, then draw."""
    parser = CommandParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, metavar="DIR", help="a data set of data_prep, of object crops")
    parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="where runs, table and plot go")
    parser.add_argument("--eval-rows", type=whole_number, default=1000, help="held-out objects to score on (1000)")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="settings laid over the recipe's")
    arguments = parser.parse_args()
    table = arguments.out / "scaling.csv"
    done = read_table(table)
    planned = [(samples, name) for name, size in SIZES.items() for samples in size.samples]
    for samples, name in sorted(planned):
        if any((run.size, run.samples) == (name, samples) for run in done):
            continue
        given = {"output_dir": arguments.out / f"{name}-{samples}", "data": arguments.data}
        given |= {"cache_dir": arguments.out / "features", "eval_rows": arguments.eval_rows}
        laid_over = [*SIZES[name].overrides(), *(f"{key}={value}" for key, value in given.items())]
        config = load_config(RECIPE, [*laid_over, *arguments.overrides])
        steps = max(samples // config.batch_size, 1)
        config = config.model_copy(update={"steps": steps, "warmup_steps": min(config.warmup_steps, -(-steps // 10))})
        done.append(measure(name, config))
        write_table(table, done)
    draw(done, arguments.out / "scaling.png")


def measure(name: str, config: TrainConfig) -> Run:
    """Train once, as train/finetune.py would, and evaluate at the end."""
    run = Path(config.output_dir)
    run.mkdir(parents=True, exist_ok=True)
    accelerator = build_accelerator(config, run)
    set_seed(config.seed)
    sets, validation_splits = load_data(config)
    validation = Validation(validation_splits, config)
    model, processor = build_model(config)
    rows = training_rows(config, sets, model, processor, accelerator, run)
    a_token, an_image = flops(model, rows, config)
    optimizers = build_optimizers(model, config)
    model, *optimizers = accelerator.prepare(model, *optimizers)
    batches = MicroBatches(0, config.steps, config.batch_size, config.micro_batch_size, 0, 1)
    reader = read_batches(rows, batches, config.workers, pin_memory=False)
    model.train()
    tokens, began = 0.0, time.process_time()
    for step in tqdm(range(config.steps), desc=f"{name}, {config.steps * config.batch_size:,} samples", unit="step"):
        tokens += train_step(accelerator, model, optimizers, reader, config, step, rows.name)["input_tokens"]
    seconds = time.process_time() - began
    scores = validation.evaluate(accelerator, model, processor)
    samples = config.steps * config.batch_size
    return Run(
        size=name,
        image_tokens=processor.image_tokens,
        language_millions=millions(model.model.language_model) + millions(model.lm_head),
        all_millions=millions(model),
        samples=samples,
        petaflops=(tokens * a_token + samples * an_image) / 1e15,
        cpu_seconds=seconds,
        acc_pi_6=scores["val_acc_pi_6"],
        acc_pi_18=scores["val_acc_pi_18"],
        median_error_deg=scores["val_median_error_deg"],
        objects=len(validation.rows),
    )


def millions(part: Any) -> float:
    """Parameters, in millions."""
    return sum(value.numel() for value in part.parameters()) / 1e6


def flops(model: Any, rows: TrainingRows, config: TrainConfig) -> tuple[float, float]:
    """Operations (a multiplication and an addition are two) of a training step a token, image tokens among them, and of
    the tower an image."""
    batch: Any = rows.collate([rows[number] for number in range(config.micro_batch_size)])
    with FlopCounterMode(display=False) as counted:
        model(**batch, use_cache=False).loss.backward()
    model.zero_grad()
    side = model.config.vision_config.image_size
    with FlopCounterMode(display=False) as seen, torch.no_grad():
        tower = model.model.vision_tower
        tower(torch.zeros(1, 3, side, side))
    return counted.get_total_flops() / float(batch["attention_mask"].sum()), float(seen.get_total_flops())


def read_table(path: Path) -> list[Run]:
    """The runs of an earlier start of the command."""
    if not path.is_file():
        return []
    kinds = {"size": str, "image_tokens": int, "samples": int, "objects": int}
    with path.open(newline="", encoding="utf-8") as file:
        return [
            Run(**{key: kinds.get(key, float)(value) for key, value in row.items()}) for row in csv.DictReader(file)
        ]


def write_table(path: Path, runs: list[Run]) -> None:
    """A line a run, figures to four digits."""
    names = [field.name for field in fields(Run)]
    lines = [",".join(names)]
    for run in runs:
        lines.append(
            ",".join(f"{value:.4g}" if isinstance(value, float) else str(value) for value in asdict(run).values())
        )
    write_atomic(path, "\n".join(lines) + "\n")


def draw(runs: list[Run], path: Path) -> None:
    """Accuracy against compute, a line a size."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    figure = Figure(figsize=(9, 3.6), layout="constrained")
    for axes, key, title in zip(
        figure.subplots(1, 2), ("acc_pi_6", "acc_pi_18"), ("joint acc@π/6", "joint acc@π/18"), strict=True
    ):
        for name in SIZES:
            points = sorted((run.petaflops * 1000, getattr(run, key)) for run in runs if run.size == name)
            one = next((run for run in runs if run.size == name), None)
            if one is not None:
                label = f"{name}: {one.image_tokens} image tokens, {one.language_millions:.1f} M"
                axes.plot(*zip(*points, strict=True), marker="o", label=label)
        axes.set(xscale="log", xlabel="training compute (TFLOP)", ylabel="%", title=title, ylim=(0, 100))
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    run_cli(main)
