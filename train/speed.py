"""Time training beside TRL's SFTTrainer: the same model, rows and batches, in one run.

    python train/speed.py            # LLaVA-1.5 7B in shape with LoRA on a GPU; the model of from-nothing.yaml on a CPU
    python train/speed.py --quick    # smaller, fewer steps

Weights are random and the pictures are made up: neither matters for time. Ours and TRL's take turns, a round each, the
first steps of a round do not count, and a ratio is the median over the rounds. Ours learns words and poses, TRL's the
words alone. Both have the vision tower frozen, AdamW, bf16 where there is a GPU or the recipe says so, the same rows in
the same order and the same parts trained. The last line is one JSON object:

- trl_ratio: our samples a second over TRL's, as the recipe trains: with the frozen tower's features kept (from-nothing)
  or not (7B, whose features would fill disks); trl_ratio_with_tower: the same with our tower run at every step, as
  theirs is;
- samples_per_second, tokens_per_second: ours; tokens are those of text and images, without padding;
- mfu: the share of the GPU's peak that the model's own multiplications make up (null where no peak is known);
- peak_memory_gib: ours, of the GPU or of the process;
- compiled_ratio: our samples a second with ``compile: true`` over those without (not with --quick: compiling takes
  minutes).

On a GPU, without --quick, the object is also saved in train/results.
"""

from __future__ import annotations

import argparse
import io
import json
import resource
import statistics
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate.state import AcceleratorState, GradientState, PartialState
from PIL import Image
from tqdm import tqdm

from data_prep.conversion.shards import ShardWriter
from eval.random_llava import Size, build
from llava_pose import taxonomy
from llava_pose.errors import run_cli
from llava_pose.files import write_atomic
from llava_pose.scene import PosedImage, PosedObject
from train.beside_trl import now, plain_llava, train_with_trl, trl_rows
from train.config import TrainConfig, load_config
from train.data import TrainingRows, read_batches, training_rows
from train.model import add_lora, build_model, compile_layers
from train.optimizers import build_optimizers
from train.processes import build_accelerator
from train.sampling import MicroBatches
from train.sets import load_data
from train.step import train_step

RECIPES = Path(__file__).parent / "recipes"
LLAVA_7B = Size(hidden=4096, layers=32, heads=32, vocabulary=32064)
SKIPPED = 2
"""Steps of a round that do not count: the first ones find their memory and their kernels."""

PEAK_TFLOPS = {"H200": 989, "H100": 989, "A100": 312, "L40S": 362, "A6000": 155, "4090": 165, "3090": 71}
"""Dense bf16 peaks that the makers state, by a part of the device's name."""


@dataclass(frozen=True)
class Plan:
    """What is timed: pictures of this side, so many steps a round and rounds; and whether compiled layers are, too."""

    side: int
    steps: int
    rounds: int
    compiled: bool


def main() -> None:
    """Measure, and print one line a figure and the JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a smaller model, fewer steps and rounds")
    quick = parser.parse_args().quick
    with tempfile.TemporaryDirectory() as folder:
        result = on_gpu(Path(folder), quick) if torch.cuda.is_available() else on_cpu(Path(folder), quick)
    for name, value in result.items():
        print(f"{name}: {value}")
    if torch.cuda.is_available() and not quick:
        write_atomic(Path(__file__).parent / "results" / "speed.json", json.dumps(result, indent=1) + "\n")
    print(json.dumps(result))


def on_cpu(folder: Path, quick: bool) -> dict[str, Any]:
    """The model of from-nothing.yaml, trained in full."""
    plan = Plan(192, steps=2, rounds=1, compiled=False) if quick else Plan(192, steps=8, rounds=3, compiled=True)
    config = settings(
        "from-nothing", folder, optimizer="adamw", **({"batch_size": 16, "micro_batch_size": 16} if quick else {})
    )
    model, processor = build_model(config)
    return measure(config, plan, model, processor, folder)


def on_gpu(folder: Path, quick: bool) -> dict[str, Any]:
    """LLaVA-1.5 in shape, with the 7B recipe's adapters on a frozen base in bf16."""
    plan = Plan(512, steps=4 if quick else 12, rounds=1 if quick else 3, compiled=not quick)
    roomy = torch.cuda.get_device_properties(0).total_memory > 100e9
    batch = 16 if roomy else 8
    config = settings(
        "llava-1.5-7b-lora-8gpu",
        folder,
        **{"batch_size": batch, "micro_batch_size": batch, "gradient_checkpointing": "false", "workers": 4},
    )
    size = Size(hidden=1024, layers=8, heads=8, vocabulary=32064) if quick else LLAVA_7B
    engine = build(size, torch.device("cuda"), torch.bfloat16)
    engine.model.requires_grad_(False)
    engine.model.model.multi_modal_projector.requires_grad_(config.model.train_projector)
    return measure(config, plan, add_lora(engine.model, config), engine.processor, folder)


def settings(recipe: str, folder: Path, **overrides: Any) -> TrainConfig:
    """A recipe on our made-up data."""
    given = {"output_dir": folder / "run", "data": folder / "data", **overrides}
    return load_config(RECIPES / f"{recipe}.yaml", [f"{key}={value}" for key, value in given.items()])


def measure(config: TrainConfig, plan: Plan, model: Any, processor: Any, folder: Path) -> dict[str, Any]:
    """All figures of a model."""
    needed = (SKIPPED + plan.steps) * config.batch_size
    write_rows(folder / "data", needed, plan.side)
    base = model if config.model.lora is None else model.get_base_model()
    configs = {"tower": config.model_copy(update={"cache_features": False})}
    if config.cache_features:
        configs = {"kept": config, **configs}
    rows = {name: rows_of(each, base, processor) for name, each in configs.items()}
    seconds: dict[str, list[float]] = {name: [] for name in (*configs, "trl")}
    tokens, peak = 0.0, 0.0
    other = None
    for number in tqdm(range(plan.rounds), desc="rounds", unit="round"):
        for name, each in configs.items():
            took, tokens = train_ours(each, model, rows[name], plan.steps)
            seconds[name].append(took)
            peak = peak or peak_memory_gib()
        if other is None:
            other = plain_llava(base, None if config.model.lora is None else model.peft_config["default"])
            talks = trl_rows(conversations(rows["tower"], needed))
        reset_accelerate()
        seconds["trl"].append(
            train_with_trl(other, processor, talks, config, plan.steps, SKIPPED, folder / f"trl{number}")
        )
    first = next(iter(configs))
    best = statistics.median(seconds[first])
    compiled = compiled_ratio(configs[first], model, base, rows[first], plan) if plan.compiled else None
    return {
        "trl_ratio": ratio(seconds["trl"], seconds[first]),
        "trl_ratio_with_tower": ratio(seconds["trl"], seconds["tower"]),
        "samples_per_second": plan.steps * config.batch_size / best,
        "tokens_per_second": tokens / best,
        "mfu": mfu(base, tokens, plan.steps * config.batch_size, best),
        "peak_memory_gib": peak,
        "compiled_ratio": compiled,
        "device": torch.cuda.get_device_name()
        if torch.cuda.is_available()
        else f"CPU, {torch.get_num_threads()} threads",
        "batch_size": config.batch_size,
        "parameters": sum(value.numel() for value in base.parameters()),
    }


def compiled_ratio(config: TrainConfig, model: Any, base: Any, rows: TrainingRows, plan: Plan) -> float:
    """The median over the rounds of the time uncompiled over that with compiled layers, each round one after the
    other; what compiling takes does not count."""
    layers = base.model.language_model.layers
    compile_layers(base)
    compiled = [layer._compiled_call_impl for layer in layers]
    seconds: dict[bool, list[float]] = {True: [], False: []}
    train_ours(config, model, rows, plan.steps)
    for number in range(2 * plan.rounds):
        use = number % 2 == 0
        for layer, call in zip(layers, compiled, strict=True):
            layer._compiled_call_impl = call if use else None
        seconds[use].append(train_ours(config, model, rows, plan.steps)[0])
    return ratio(seconds[False], seconds[True])


def ratio(theirs: list[float], ours: list[float]) -> float:
    """The median over the rounds of their time over ours."""
    return statistics.median(their / our for their, our in zip(theirs, ours, strict=True))


def write_rows(folder: Path, count: int, side: int) -> None:
    """A split of made-up pictures, smooth as photographs are, of one object each."""
    rng, names = np.random.default_rng(0), taxonomy.categories()
    folder.mkdir()
    writers = [ShardWriter(folder, split) for split in ("train", "val")]
    for number in range(count):
        small = rng.integers(0, 255, (12, 12, 3), dtype=np.uint8)
        picture = Image.fromarray(small).resize((side, side), Image.Resampling.BICUBIC)
        angles = (float(rng.uniform(0, 6.28)), float(rng.uniform(-0.2, 0.8)), float(rng.uniform(-0.2, 0.2)))
        place = ((0.0, 0.0, float(side), float(side)), *angles, 4.0, side / 2, side / 2, 2000.0)
        item = PosedObject(0, names[number % len(names)], *place, 0, "status_good", "")
        record = PosedImage(picture, f"made/{number:05d}", side, side, (item,), "", ())
        stream = io.BytesIO()
        picture.save(stream, "JPEG", quality=90)
        # A run wants rows to validate on, too; here they are not looked at.
        for writer in writers[: 2 if number == 0 else 1]:
            writer.add({**record.to_row(), "image": {"bytes": stream.getvalue(), "path": None}})
    for writer in writers:
        writer.close()


def rows_of(config: TrainConfig, model: Any, processor: Any) -> TrainingRows:
    """The rows as a run would draw them."""
    sets, _ = load_data(config)
    reset_accelerate()
    run = Path(config.output_dir)
    return training_rows(config, sets, model, processor, build_accelerator(config, run), run)


def conversations(rows: TrainingRows, count: int) -> Iterator[tuple[PosedImage, list[dict[str, Any]]]]:
    """The first samples' records and messages, for TRL."""
    for number in range(count):
        record, talk = rows.talk(number)
        yield record, talk.messages


def train_ours(config: TrainConfig, model: Any, rows: TrainingRows, steps: int) -> tuple[float, float]:
    """The seconds that ``steps`` steps take after the first ones, and their tokens."""
    reset_accelerate()
    accelerator = build_accelerator(config, Path(config.output_dir))
    optimizers = build_optimizers(model, config)
    prepared, *optimizers = accelerator.prepare(model, *optimizers)
    batches = MicroBatches(0, SKIPPED + steps, config.batch_size, config.micro_batch_size, 0, 1)
    reader = read_batches(rows, batches, config.workers, pin_memory=torch.cuda.is_available())
    prepared.train()
    began, tokens = 0.0, 0.0
    for step in range(SKIPPED + steps):
        if step == SKIPPED:
            began = now()
        told = train_step(accelerator, prepared, optimizers, reader, config, step, rows.name)
        tokens += told["input_tokens"] if step >= SKIPPED else 0.0
    return now() - began, tokens


def reset_accelerate() -> None:
    """Forget the accelerator before: accelerate keeps one a process, and TRL's is set up otherwise than ours."""
    for state in (AcceleratorState, GradientState, PartialState):
        state._reset_state()


def mfu(model: Any, tokens: float, images: int, seconds: float) -> float | None:
    """The model's own ``operations`` over what the GPU could have done in that time."""
    if not torch.cuda.is_available():
        return None
    peak = next((value for name, value in PEAK_TFLOPS.items() if name in torch.cuda.get_device_name()), None)
    return None if peak is None else operations(model, tokens, images) / seconds / (peak * 1e12)


def operations(model: Any, tokens: float, images: int) -> float:
    """The multiplications and additions that training on so many tokens and images needs by its nature.

    For each weight of a matrix and token 2 forward, 2 for the gradient of what came in, and 2 more for the gradient of
    a trained weight; the frozen tower runs forward alone. Attention's two products of each pair of tokens, half of them
    masked, likewise forward and twice backward. Not the two heads, which few tokens meet, and nothing twice.
    """
    heads = ("embed", "lm_head", "pose_head")
    kept = [(n, v) for n, v in model.named_parameters() if v.ndim == 2 and not any(head in n for head in heads)]
    tower = sum(value.numel() for name, value in kept if ".vision_tower." in name)
    language = sum((6 if v.requires_grad else 4) * v.numel() for n, v in kept if ".vision_tower." not in n)
    text, vision = model.config.get_text_config(), model.config.vision_config
    attention = 6 * text.num_hidden_layers * text.hidden_size * tokens / images
    patches = (vision.image_size // vision.patch_size) ** 2
    return tokens * (language + attention) + images * patches * 2 * tower


def peak_memory_gib() -> float:
    """The most memory held so far, on the GPU where there is one."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**30
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


if __name__ == "__main__":
    run_cli(main)
