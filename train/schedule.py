"""The learning rate as a function of the step: nothing to save, nothing to resume."""

from __future__ import annotations

import math

from .config import TrainConfig


def learning_rate_factor(step: int, config: TrainConfig) -> float:
    """The share of the peak learning rate used for step ``step`` (from 0): warm-up, then the schedule down to 0."""
    if step < config.warmup_steps:
        return (step + 1) / config.warmup_steps
    if config.schedule == "constant_with_warmup":
        return 1.0
    done = (step - config.warmup_steps) / max(1, config.steps - config.warmup_steps)
    return 1.0 - done if config.schedule == "linear" else 0.5 * (1.0 + math.cos(math.pi * done))
