"""What moves the weights: AdamW, or Muon for the language model's matrices with AdamW for the rest."""

from __future__ import annotations

from typing import Any

import torch

from .config import TrainConfig


def build_optimizers(model: Any, config: TrainConfig) -> list[torch.optim.Optimizer]:
    """The optimizers of the trained weights; every group carries its ``peak_lr``.

    Projector and pose head have ``head_learning_rate``, all else ``learning_rate``. With "muon" the matrices of the
    language model's layers get orthogonalised steps (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon),
    scaled to AdamW's size so that one learning rate serves both: a model that starts from nothing finds its attention
    in far fewer samples. Embeddings, norms and heads stay with AdamW.
    """
    named = [(name, value) for name, value in model.named_parameters() if value.requires_grad]
    matrices, rest, new = [], [], []
    for name, value in named:
        if "pose_head" in name or "multi_modal_projector" in name:
            new.append(value)
        elif config.optimizer == "muon" and ".layers." in name and value.ndim == 2:
            matrices.append(value)
        else:
            rest.append(value)
    head_rate = config.head_learning_rate or config.learning_rate
    groups = [_group(rest, config.learning_rate, config), _group(new, head_rate, config)]
    used = [group for group in groups if group["params"]]
    optimizers: list[torch.optim.Optimizer] = [
        torch.optim.AdamW(used, lr=config.learning_rate, betas=(0.9, config.adam_beta2), fused=True)
    ]
    if matrices:
        group = _group(matrices, config.learning_rate, config)
        optimizers.append(torch.optim.Muon([group], lr=config.learning_rate, adjust_lr_fn="match_rms_adamw"))
    return optimizers


def _group(values: list[Any], rate: float, config: TrainConfig) -> dict[str, Any]:
    return {"params": values, "lr": rate, "peak_lr": rate, "weight_decay": config.weight_decay}
