"""Finetune a LLaVA to say which way things face.

    accelerate launch train/finetune.py --config train/recipes/demo.yaml output_dir=runs/mine data=runs/demo/data
    accelerate launch --num_processes 8 train/finetune.py --config … --resume

Every key of the recipe can be set with key=value (model.lora.rank=16). The run folder holds the resolved config.yaml,
log.jsonl, TensorBoard logs, checkpoint-* folders and, at the end, final/: a model folder for LlavaPose.from_pretrained,
``llava-pose --model`` and eval/benchmark.py.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from tqdm import tqdm

from llava_pose import checkpoint, taxonomy
from llava_pose.arguments import CommandParser
from llava_pose.errors import UserError, run_cli
from train.card import last_scores, model_card
from train.checkpointing import checkpoints, handle_weights, load_best, load_checkpoint, save_checkpoint
from train.config import TrainConfig, load_config, save_config
from train.data import read_batches, training_rows
from train.disk import disk_errors
from train.log import Log, start_trackers
from train.model import build_model, describe_size
from train.optimizers import build_optimizers
from train.processes import build_accelerator, shard_weights, shards_weights
from train.resume import check_resumable, origin_of
from train.sampling import MicroBatches
from train.sets import PosedRows, Rows, load_data
from train.step import train_step
from train.targets import check_targets
from train.validation import Validation


def main() -> None:
    """Read the configuration, then train to the end of its steps."""
    parser = CommandParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", required=True, metavar="YAML", help="a recipe, such as train/recipes/demo.yaml")
    parser.add_argument("--resume", action="store_true", help="go on from the run's newest checkpoint")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="settings laid over the recipe's")
    arguments = parser.parse_args()
    config = load_config(arguments.config, arguments.overrides)
    check_targets(config)
    run = Path(config.output_dir)
    if (checkpoints(run) or (run / "final").exists()) and not arguments.resume:
        raise UserError(f"{run}: holds a run already; give --resume to go on with it, or another output_dir")
    if arguments.resume:
        taxonomy.use_folder(run)
    with disk_errors(run):
        train(config, *load_data(config), run)


def train(config: TrainConfig, sets: list[Rows], validation_splits: list[Any], run: Path) -> None:
    """Train on the data sets, evaluate on the splits, leave everything in ``run``."""
    accelerator = build_accelerator(config, run)
    origin = origin_of(accelerator, config, [len(part) for part in sets])
    check_resumable(run, origin)
    set_seed(config.seed)
    validation = Validation(validation_splits, config)
    model, processor = build_model(config)
    named = {name for part in sets if isinstance(part, PosedRows) for name in part.categories}
    # What a base could name it still can: new categories come beside those.
    model.config.pose_categories = sorted(named.union(model.config.pose_categories or ()))
    rows = training_rows(config, sets, model, processor, accelerator, run)
    if accelerator.is_main_process:
        save_config(config, run)
        accelerator.print(describe_size(model, len(rows), config))
    optimizers = build_optimizers(model, config)
    handle_weights(accelerator, model)
    if shards_weights(accelerator):
        shard_weights(accelerator, model)
    model, *optimizers = accelerator.prepare(model, *optimizers)
    start_trackers(accelerator, config, run)
    step, best = load_checkpoint(accelerator, run)
    batches = MicroBatches(
        first_step=step,
        last_step=config.steps,
        batch_size=config.batch_size,
        micro_batch_size=config.micro_batch_size,
        process=accelerator.process_index,
        processes=accelerator.num_processes,
    )
    reader = read_batches(rows, batches, config.workers, pin_memory=accelerator.device.type == "cuda")
    quiet = not accelerator.is_local_main_process
    progress = tqdm(desc="train", total=config.steps, initial=step, unit="step", disable=quiet)
    log = Log(accelerator, run, config, step)
    model.train()
    while step < config.steps and not best.stops(config.early_stopping):
        losses = train_step(accelerator, model, optimizers, reader, config, step, rows.name)
        step += 1
        progress.update()
        log.add(step, losses, progress)
        if config.eval_every and step % config.eval_every == 0:
            best.add(step, log.write(step, validation.evaluate(accelerator, model, processor)))
        found = config.keep_best and best.step == step
        if step < config.steps and (found or step % config.save_every == 0):
            save_checkpoint(accelerator, run, step, best, config, origin)
    progress.close()
    if best.evaluated < step:
        best.add(step, log.write(step, validation.evaluate(accelerator, model, processor)))
    if config.keep_best and best.step < step:
        load_best(accelerator, run, best)
        accelerator.print(f"the best evaluation was that after step {best.step}: its weights are the final ones")
    final_step = best.step if config.keep_best else step
    save_final(accelerator, model, processor, config, [len(part) for part in sets], final_step)
    accelerator.end_training()


def save_final(
    accelerator: Accelerator, model: Any, processor: Any, config: TrainConfig, rows: list[int], step: int
) -> None:
    """Write the model folder ``final`` that everything else opens: the weights after ``step``, and their card, which
    tells the ``rows`` of every data set."""
    state = accelerator.get_state_dict(model)
    dtype = torch.bfloat16 if config.save_dtype == "bf16" else None
    run = Path(config.output_dir)
    if accelerator.is_main_process:
        card = model_card(config, rows, step, last_scores(run / "log.jsonl", step))
        checkpoint.save(accelerator.unwrap_model(model), processor, run / "final", dtype, state, card)
        accelerator.print(f"model folder: {run / 'final'}")
    accelerator.wait_for_everyone()


if __name__ == "__main__":
    run_cli(main)
