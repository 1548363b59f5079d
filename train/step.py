"""One optimizer step: the losses of a whole batch, over micro batches and processes."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator

from llava_pose.errors import UserError
from llava_pose.losses import POSE_LOSS_PARTS

from .config import TrainConfig
from .schedule import learning_rate_factor

NAMED = 8
"""Samples that a message names; of more it tells the number."""


def train_step(
    accelerator: Accelerator,
    model: Any,
    optimizers: list[Any],
    batches: Any,
    config: TrainConfig,
    step: int,
    name: Callable[[int], str],
) -> dict[str, float]:
    """One optimizer step over all processes and all micro batches that this process has in it.

    ``batches`` yields those; ``name`` tells what the sample of a number shows.

    Returns the step's losses, ``gradient_norm`` before clipping, and how many ``tokens`` were supervised and
    ``input_tokens`` (text and image, without padding) were run.

    Raises UserError, in every process and before weights or optimizer are touched, when the loss or the gradient is
    not finite: it names the step, and the samples with such a loss.
    """
    share = config.batch_size // accelerator.num_processes
    first = step * config.batch_size + accelerator.process_index * share
    starts = range(first, first + share, config.micro_batch_size)
    micro = [{k: v.to(accelerator.device) for k, v in next(batches).items()} for _ in starts]
    tokens, poses, input_tokens = accelerator.reduce(_count(micro, accelerator.device), "sum")
    for group in (group for optimizer in optimizers for group in optimizer.param_groups):
        group["lr"] = group["peak_lr"] * learning_rate_factor(step, config)
    shares: list[torch.Tensor] = []
    for start, batch in zip(starts, micro, strict=True):
        seed_micro_batch(config.seed, start)
        with accelerator.accumulate(model):
            with torch.autocast(accelerator.device.type, torch.bfloat16, enabled=config.precision == "bf16"):
                outputs = model(**batch, use_cache=False, num_items_in_batch=tokens, num_poses_in_batch=poses)
            losses = torch.stack([outputs.loss, outputs.language_loss, outputs.pose_loss]).detach()
            shares.append(torch.cat([losses, outputs.pose_loss_parts]))
            if accelerator.sync_gradients:
                # The last micro batch: the whole step's losses are known. DeepSpeed steps within ``backward``.
                loss, language, pose, *each = accelerator.reduce(torch.stack(shares).sum(0), "sum").tolist()
                if not math.isfinite(loss):
                    _refuse_losses(accelerator, torch.stack(shares)[:, 0], config, step, name)
            # The losses are shares of the whole step's; accelerate averages over micro batches and processes.
            accelerator.backward(outputs.loss * len(micro) * accelerator.num_processes)
            if accelerator.sync_gradients:
                # DeepSpeed has left out a step whose norm is not finite; for the others it is yet to come.
                norm = float(accelerator.clip_grad_norm_(model.parameters(), config.max_grad_norm))
                if not math.isfinite(norm):
                    numbers = range(step * config.batch_size, (step + 1) * config.batch_size)
                    raise UserError(f"step {step + 1}: the gradient is not finite on {_named(numbers, name)}")
            for optimizer in optimizers:
                optimizer.step()
                optimizer.zero_grad()
    return {
        "loss": loss,
        "language_loss": language,
        "pose_loss": pose,
        **{f"pose_loss_{part}": value for part, value in zip(POSE_LOSS_PARTS, each, strict=True)},
        "gradient_norm": norm,
        "tokens": float(tokens),
        "input_tokens": float(input_tokens),
    }


def seed_micro_batch(seed: int, start: int) -> None:
    """Make what a micro batch draws (its dropout masks) a function of the run's seed and its first sample's number.

    The masks then differ between processes, are the same for any number of processes with micro batches of that size,
    and a resumed run has no random state to find again.
    """
    torch.manual_seed(int(np.random.SeedSequence([seed, 4, start]).generate_state(1, np.uint64)[0]))


def _count(micro: Sequence[dict[str, torch.Tensor]], device: torch.device) -> torch.Tensor:
    """Supervised tokens, known poses, and tokens without padding of this process's micro batches: (3,)."""
    counts = [
        [
            (batch["labels"][:, 1:] != -100).sum(),
            torch.isfinite(batch["poses"]).all(-1).sum(),
            batch["attention_mask"].sum(),
        ]
        for batch in micro
    ]
    return torch.tensor(counts, device=device).sum(0)


def _refuse_losses(
    accelerator: Accelerator, losses: torch.Tensor, config: TrainConfig, step: int, name: Callable[[int], str]
) -> None:
    """Raise UserError naming the samples of the first micro batch, of any process, whose loss is not finite."""
    # (processes · accumulation): the processes' micro batches one after the other, which is their samples' order.
    everywhere = accelerator.gather(losses)
    wrong = int((~torch.isfinite(everywhere)).int().argmax())
    start = step * config.batch_size + wrong * config.micro_batch_size
    numbers = range(start, start + config.micro_batch_size)
    raise UserError(f"step {step + 1}: the loss is {float(everywhere[wrong])} on {_named(numbers, name)}")


def _named(numbers: range, name: Callable[[int], str]) -> str:
    names = ", ".join(name(number) for number in numbers[:NAMED])
    more = f" and {len(numbers) - NAMED} more" if len(numbers) > NAMED else ""
    return f"samples {numbers[0]} to {numbers[-1]} ({names}{more})"
