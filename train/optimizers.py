"""What moves the weights: AdamW, or Muon for the language model's matrices with AdamW for the rest."""

from __future__ import annotations

from typing import Any

import torch

from .config import TrainConfig


def peak_learning_rates(config: TrainConfig) -> dict[str, float]:
    """The learning rates at the schedule's height, by the configuration's keys."""
    given = {
        "head_learning_rate": config.head_learning_rate,
        "projector_learning_rate": config.projector_learning_rate,
        "tower_learning_rate": config.tower_learning_rate,
    }
    others = {key: config.learning_rate if rate is None else rate for key, rate in given.items()}
    return {"learning_rate": config.learning_rate, **others}


def build_optimizers(model: Any, config: TrainConfig) -> list[torch.optim.Optimizer]:
    """The optimizers of the trained weights; every group carries its ``peak_lr``.

    Pose head, projector and vision tower have learning rates of their own, all else ``learning_rate``. With "muon" the
    matrices of the language model's layers get orthogonalised steps (Jordan et al. 2024,
    https://kellerjordan.github.io/posts/muon), scaled to AdamW's size so that one learning rate serves both: a model
    that starts from nothing finds its attention in far fewer samples. All else stays with AdamW.
    """
    rates = peak_learning_rates(config)
    matrices: list[Any] = []
    parts: dict[str, list[Any]] = {key: [] for key in rates}
    for name, value in model.named_parameters():
        key = _rate_of(name)
        if not value.requires_grad:
            continue
        if config.optimizer == "muon" and key == "learning_rate" and ".layers." in name and value.ndim == 2:
            matrices.append(value)
        else:
            parts[key].append(value)
    groups = [_group(values, rates[key], config) for key, values in parts.items() if values]
    optimizers: list[torch.optim.Optimizer] = [
        torch.optim.AdamW(groups, lr=config.learning_rate, betas=(0.9, config.adam_beta2), fused=True)
    ]
    if matrices:
        group = _group(matrices, config.learning_rate, config)
        optimizers.append(torch.optim.Muon([group], lr=config.learning_rate, adjust_lr_fn="match_rms_adamw"))
    return optimizers


def _rate_of(name: str) -> str:
    if "pose_head" in name:
        return "head_learning_rate"
    if "multi_modal_projector" in name:
        return "projector_learning_rate"
    return "tower_learning_rate" if "vision_tower" in name else "learning_rate"


def _group(values: list[Any], rate: float, config: TrainConfig) -> dict[str, Any]:
    return {"params": values, "lr": rate, "peak_lr": rate, "weight_decay": config.weight_decay}
