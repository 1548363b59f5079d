"""Finetune a LLaVA to say which way things face.

    accelerate launch train/finetune.py --config train/recipes/demo.yaml output_dir=runs/mine data=runs/demo/data
    accelerate launch --num_processes 8 train/finetune.py --config … --resume

Every key of the recipe can be set with key=value (model.lora.rank=16). The run folder holds the resolved config.yaml,
log.jsonl, TensorBoard logs, checkpoint-* folders and, at the end, final/: a model folder for LlavaPose.from_pretrained,
``llava-pose --model`` and eval/benchmark.py.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import GradientAccumulationPlugin, gather_object, set_seed
from tqdm import tqdm

from llava_pose import checkpoint, taxonomy
from llava_pose.arguments import CommandParser
from llava_pose.engine import Engine
from llava_pose.errors import UserError, run_cli
from llava_pose.evaluation import predict_records, score
from llava_pose.launch import make_accelerator
from llava_pose.scene import PosedImage, load_split
from train.checkpointing import checkpoints, handle_weights, load_checkpoint, save_checkpoint
from train.config import TrainConfig, load_config, save_config
from train.data import MicroBatches, Split, TrainingRows
from train.features import FeatureCache, build_feature_cache
from train.log import Log
from train.optimizers import build_optimizers
from train.schedule import learning_rate_factor


def main() -> None:
    """Read the configuration, then train to the end of its steps."""
    parser = CommandParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", required=True, metavar="YAML", help="a recipe, such as train/recipes/demo.yaml")
    parser.add_argument("--resume", action="store_true", help="go on from the run's newest checkpoint")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="settings laid over the recipe's")
    arguments = parser.parse_args()
    config = load_config(arguments.config, arguments.overrides)
    run = Path(config.output_dir)
    if (checkpoints(run) or (run / "final").exists()) and not arguments.resume:
        raise UserError(f"{run}: holds a run already; give --resume to go on with it, or another output_dir")
    if arguments.resume:
        taxonomy.use_folder(run)
    data = {split: [load_split(folder, split) for folder in config.data] for split in ("train", "val")}
    train(config, data, run)


def train(config: TrainConfig, data: dict[str, list[Any]], run: Path) -> None:
    """Train on the splits ``data["train"]``, evaluate on ``data["val"]``, leave everything in ``run``."""
    accelerator = build_accelerator(config, run)
    set_seed(config.seed)
    model, processor = build_model(config)
    model.config.pose_categories = sorted(
        {item["category"] for part in data["train"] for row in part["objects"] for item in row}
    )
    rows = training_rows(config, data["train"], model, processor, accelerator, run)
    if accelerator.is_main_process:
        save_config(config, run)
        accelerator.print(describe_size(model, len(rows), config))
    optimizers = build_optimizers(model, config)
    handle_weights(accelerator, model)
    model, *optimizers = accelerator.prepare(model, *optimizers)
    accelerator.init_trackers("logs")
    step = load_checkpoint(accelerator, run)
    batches = MicroBatches(
        first_step=step,
        last_step=config.steps,
        batch_size=config.batch_size,
        micro_batch_size=config.micro_batch_size,
        process=accelerator.process_index,
        processes=accelerator.num_processes,
    )
    loader = torch.utils.data.DataLoader(
        rows,
        batch_sampler=batches,
        collate_fn=rows.collate,
        num_workers=config.workers,
        worker_init_fn=rows.start_worker,
        # Its own, or making the loader would draw from the random state that a checkpoint has just restored.
        generator=torch.Generator(),
        pin_memory=accelerator.device.type == "cuda",
    )
    quiet = not accelerator.is_local_main_process
    progress = tqdm(desc="train", total=config.steps, initial=step, unit="step", disable=quiet)
    iterator, log = iter(loader), Log(accelerator, run, config, step)
    model.train()
    while step < config.steps:
        losses = train_step(accelerator, model, optimizers, iterator, batches.accumulation, config, step)
        step += 1
        progress.update()
        log.add(step, losses, progress)
        if config.eval_every and step % config.eval_every == 0 and step < config.steps:
            log.write(step, evaluate(accelerator, model, processor, data["val"], config))
        if step % config.save_every == 0 and step < config.steps:
            save_checkpoint(accelerator, run, step, config.keep_checkpoints)
    progress.close()
    log.write(step, evaluate(accelerator, model, processor, data["val"], config))
    save_final(accelerator, model, processor, run, config.save_dtype)
    accelerator.end_training()


def build_accelerator(config: TrainConfig, run: Path) -> Accelerator:
    """The accelerator, after checking that the batch divides over its processes."""
    # Half precision is an autocast of train_step's own. Accelerate's would have DeepSpeed turn every weight into bf16,
    # the pose head's and the adapters' too.
    accelerator = make_accelerator(mixed_precision="no", log_with="tensorboard", project_dir=run)
    share = config.micro_batch_size * accelerator.num_processes
    if config.batch_size % share:
        raise UserError(
            f"batch_size: {config.batch_size} does not divide into {accelerator.num_processes} processes "
            f"of micro_batch_size {config.micro_batch_size}"
        )
    accumulation = GradientAccumulationPlugin(num_steps=config.batch_size // share, sync_with_dataloader=False)
    accelerator.gradient_state.plugin_kwargs.update(accumulation.to_kwargs())
    if accelerator.state.deepspeed_plugin is not None:
        if config.optimizer == "muon":
            raise UserError("optimizer: muon goes with a second optimizer, and DeepSpeed takes one; set adamw")
        accelerator.state.deepspeed_plugin.deepspeed_config.update(
            train_micro_batch_size_per_gpu=config.micro_batch_size,
            gradient_accumulation_steps=config.batch_size // share,
            gradient_clipping=config.max_grad_norm,
            # No module in the list: gradients are then summed over the processes in fp32.
            torch_autocast={
                "enabled": config.precision == "bf16",
                "dtype": "bfloat16",
                "lower_precision_safe_modules": [],
            },
        )
    if accelerator.is_main_process:
        run.mkdir(parents=True, exist_ok=True)
    return accelerator


def build_model(config: TrainConfig) -> tuple[Any, Any]:
    """The model with its trained parts marked, adapters in place, and its processor."""
    settings = config.model
    if settings.text is not None:
        model, processor = checkpoint.assemble(
            settings.text,
            settings.vision_tower,
            config.seed,
            settings.tower_sizes,
            pose_hidden_size=settings.pose_hidden_size or 512,
        )
    else:
        dtype = torch.bfloat16 if settings.base_dtype == "bf16" else torch.float32
        size = settings.pose_hidden_size
        model, processor = checkpoint.load(settings.base or "", dtype, {"pose_hidden_size": size} if size else None)
        if size not in (None, model.config.pose_hidden_size):
            raise UserError(f"model.pose_hidden_size: {size}, but the base's head has {model.config.pose_hidden_size}")
    model.set_attn_implementation({"text_config": settings.attention})
    model.config.pose_loss_weight = settings.pose_loss_weight
    model.config.pose_target_deviation = settings.pose_target_deviation
    model.requires_grad_(settings.lora is None)
    model.model.vision_tower.requires_grad_(settings.train_vision_tower)
    model.model.multi_modal_projector.requires_grad_(settings.train_projector)
    if settings.train_vision_tower:
        model.config.tower_source = None
    if config.gradient_checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    return (model if settings.lora is None else add_lora(model, config)), processor


def add_lora(model: Any, config: TrainConfig) -> Any:
    """Adapters on the language model, trainable ``<pose>`` rows, and the head (and projector) saved with them."""
    from peft import LoraConfig, get_peft_model

    lora = config.model.lora
    assert lora is not None
    token = [model.config.pose_token_id]
    peft_config = LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=lora.target_modules,
        # Both vocabulary matrices by name: the list form would reach the input side only.
        trainable_token_indices={"embed_tokens": token, "lm_head": token},
        modules_to_save=["pose_head", *(["multi_modal_projector"] if config.model.train_projector else [])],
    )
    adapted = get_peft_model(model, peft_config)
    # On a base in half precision PEFT leaves the saved modules in it, where small updates would be rounded away.
    for value in adapted.parameters():
        if value.requires_grad:
            value.data = value.data.float()
    return adapted


def training_rows(
    config: TrainConfig, splits: list[Any], model: Any, processor: Any, accelerator: Accelerator, run: Path
) -> TrainingRows:
    """The training rows, with the frozen tower's features cached if the configuration says so."""
    caches: list[FeatureCache | None] = [None] * len(splits)
    if config.cache_features:
        if config.model.train_vision_tower:
            raise UserError("cache_features: a trained vision tower's features change; set it to false")
        folder = Path(config.cache_dir) if config.cache_dir else run / "features"
        model.to(accelerator.device)
        with accelerator.main_process_first():
            show = accelerator.is_local_main_process
            caches = [FeatureCache(build_feature_cache(model, processor, data, folder, show)) for data in splits]
    pairs = [Split(data, cache) for data, cache in zip(splits, caches, strict=True)]
    return TrainingRows(pairs, processor, config.seed, config.flip, config.question_share)


def train_step(
    accelerator: Accelerator,
    model: Any,
    optimizers: list[Any],
    batches: Any,
    accumulation: int,
    config: Any,
    step: int,
) -> dict[str, float]:
    """One optimizer step over all processes and ``accumulation`` micro batches; the mean losses of this process."""
    micro = [{k: v.to(accelerator.device) for k, v in next(batches).items()} for _ in range(accumulation)]
    counts = torch.tensor(
        [[(batch["labels"][:, 1:] != -100).sum(), torch.isfinite(batch["poses"]).all(-1).sum()] for batch in micro],
        device=accelerator.device,
    ).sum(0)
    tokens, poses = accelerator.reduce(counts, "sum")
    for group in (group for optimizer in optimizers for group in optimizer.param_groups):
        group["lr"] = group["peak_lr"] * learning_rate_factor(step, config)
    parts = torch.zeros(3, device=accelerator.device)
    for batch in micro:
        with accelerator.accumulate(model):
            with torch.autocast(accelerator.device.type, torch.bfloat16, enabled=config.precision == "bf16"):
                outputs = model(**batch, use_cache=False, num_items_in_batch=tokens, num_poses_in_batch=poses)
            # The losses are shares of the whole step's; accelerate averages over micro batches and processes.
            accelerator.backward(outputs.loss * accumulation * accelerator.num_processes)
            if accelerator.sync_gradients:
                accelerator.clip_grad_norm_(model.parameters(), config.max_grad_norm)
            for optimizer in optimizers:
                optimizer.step()
                optimizer.zero_grad()
        parts += torch.stack([outputs.loss, outputs.language_loss, outputs.pose_loss]).detach()
    loss, language, pose = accelerator.reduce(parts, "sum").tolist()
    if not math.isfinite(loss):
        first = step * config.batch_size
        raise UserError(f"step {step + 1}: loss is {loss} on samples {first} to {first + config.batch_size - 1}")
    return {"loss": loss, "language_loss": language, "pose_loss": pose, "tokens": float(tokens)}


def evaluate(
    accelerator: Accelerator, model: Any, processor: Any, splits: list[Any], config: TrainConfig
) -> dict[str, float]:
    """The joint metric on a fixed, spread subset of the validation rows with one object, over all processes."""
    unwrapped = accelerator.unwrap_model(model)
    engine = Engine(unwrapped.get_base_model() if config.model.lora else unwrapped, processor)
    single = [
        (data, row, items[0]["category"])
        for data in splits
        for row, items in enumerate(data["objects"])
        if len(items) == 1
    ]
    if not single:
        model.train()
        return {}
    chosen = single[:: max(1, len(single) // config.eval_rows)][: config.eval_rows]
    categories = sorted({category for _, _, category in single})
    mine = chosen[accelerator.process_index :: accelerator.num_processes]
    records = (PosedImage.from_row(data[row]) for data, row, _ in mine)
    with torch.autocast(accelerator.device.type, torch.bfloat16, enabled=config.precision == "bf16"):
        lines = list(predict_records(engine, records, categories, batch_size=32))
    lines = gather_object(lines)
    model.train()
    average = score(lines)["joint"]["average"]
    return {f"val_{name}": float(value) for name, value in average.items()}


def save_final(accelerator: Accelerator, model: Any, processor: Any, run: Path, save_dtype: str) -> None:
    """Write the model folder ``final`` that everything else opens."""
    state = accelerator.get_state_dict(model)
    dtype = torch.bfloat16 if save_dtype == "bf16" else None
    if accelerator.is_main_process:
        checkpoint.save(accelerator.unwrap_model(model), processor, run / "final", dtype, state)
        accelerator.print(f"model folder: {run / 'final'}")
    accelerator.wait_for_everyone()


def describe_size(model: Any, rows: int, config: TrainConfig) -> str:
    """One line: parameters, trained ones, rows and epochs."""
    total = sum(value.numel() for value in model.parameters())
    trained = sum(value.numel() for value in model.parameters() if value.requires_grad)
    epochs = config.steps * config.batch_size / rows
    return f"{total / 1e6:.1f} M parameters, {trained / 1e6:.1f} M trained; {rows} rows, {epochs:.1f} epochs"


if __name__ == "__main__":
    run_cli(main)
