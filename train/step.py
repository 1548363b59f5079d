"""One optimizer step: the losses of a whole batch, over micro batches and processes."""

from __future__ import annotations

import math
from typing import Any

import torch
from accelerate import Accelerator

from llava_pose.errors import UserError
from llava_pose.losses import POSE_LOSS_PARTS

from .schedule import learning_rate_factor


def train_step(
    accelerator: Accelerator,
    model: Any,
    optimizers: list[Any],
    batches: Any,
    accumulation: int,
    config: Any,
    step: int,
) -> dict[str, float]:
    """One optimizer step over all processes and ``accumulation`` micro batches.

    Returns the step's losses, ``gradient_norm`` before clipping, and how many ``tokens`` were supervised and
    ``input_tokens`` (text and image, without padding) were run.
    """
    micro = [{k: v.to(accelerator.device) for k, v in next(batches).items()} for _ in range(accumulation)]
    counts = torch.tensor(
        [
            [
                (batch["labels"][:, 1:] != -100).sum(),
                torch.isfinite(batch["poses"]).all(-1).sum(),
                batch["attention_mask"].sum(),
            ]
            for batch in micro
        ],
        device=accelerator.device,
    ).sum(0)
    tokens, poses, input_tokens = accelerator.reduce(counts, "sum")
    for group in (group for optimizer in optimizers for group in optimizer.param_groups):
        group["lr"] = group["peak_lr"] * learning_rate_factor(step, config)
    parts = torch.zeros(3 + len(POSE_LOSS_PARTS), device=accelerator.device)
    norm: Any = 0.0
    for batch in micro:
        with accelerator.accumulate(model):
            with torch.autocast(accelerator.device.type, torch.bfloat16, enabled=config.precision == "bf16"):
                outputs = model(**batch, use_cache=False, num_items_in_batch=tokens, num_poses_in_batch=poses)
            # The losses are shares of the whole step's; accelerate averages over micro batches and processes.
            accelerator.backward(outputs.loss * accumulation * accelerator.num_processes)
            if accelerator.sync_gradients:
                norm = accelerator.clip_grad_norm_(model.parameters(), config.max_grad_norm)
            for optimizer in optimizers:
                optimizer.step()
                optimizer.zero_grad()
        losses = torch.stack([outputs.loss, outputs.language_loss, outputs.pose_loss]).detach()
        parts += torch.cat([losses, outputs.pose_loss_parts])
    loss, language, pose, *each = accelerator.reduce(parts, "sum").tolist()
    if not math.isfinite(loss):
        first = step * config.batch_size
        raise UserError(f"step {step + 1}: loss is {loss} on samples {first} to {first + config.batch_size - 1}")
    return {
        "loss": loss,
        "language_loss": language,
        "pose_loss": pose,
        **{f"pose_loss_{part}": value for part, value in zip(POSE_LOSS_PARTS, each, strict=True)},
        "gradient_norm": float(norm),
        "tokens": float(tokens),
        "input_tokens": float(input_tokens),
    }
