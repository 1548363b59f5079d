"""The gradient of a run's first step, out of the checkpoint after it: Adam's first moment is then a tenth of it."""

from __future__ import annotations

from math import ceil
from pathlib import Path
from typing import Any

import torch

FIRST = 0.1
"""1 - beta1."""


def first_gradients(checkpoint: Path, order: list[list[tuple[str, torch.Size]]]) -> dict[str, torch.Tensor]:
    """By name, from a checkpoint of any kind. ``order``: names and shapes by group of the optimizer."""
    folder = checkpoint / "pytorch_model"
    if not folder.exists():
        state = torch.load(checkpoint / "optimizer.bin", weights_only=True)["state"]
        flat = [entry for group in order for entry in group]
        assert len(state) == len(flat)
        assert all(state[index]["exp_avg"].shape == shape for index, (_, shape) in enumerate(flat))
        return {name: state[index]["exp_avg"] / FIRST for index, (name, _) in enumerate(flat)}
    ranks = [_optimizer(path) for path in sorted(folder.glob("*optim_states.pt"))]
    return _unpartitioned(ranks, order) if "fp32_flat_groups" not in ranks[0] else _gathered(ranks, order)


def trained_order(checkpoint: Path) -> list[list[tuple[str, torch.Size]]]:
    """Names and shapes by group of the optimizer, as DeepSpeed keeps them in a checkpoint."""
    file = sorted((checkpoint / "pytorch_model").glob("*model_states.pt"))[0]
    return [list(group.items()) for group in torch.load(file, weights_only=False)["param_shapes"]]


def _optimizer(path: Path) -> dict[str, Any]:
    return torch.load(path, weights_only=False)["optimizer_state_dict"]


def _unpartitioned(ranks: list[dict[str, Any]], order: list[list[tuple[str, torch.Size]]]) -> dict[str, torch.Tensor]:
    """ZeRO-2: a group's weights lie one after the other, cut into as many equal parts as there are ranks."""
    gradients = {}
    for index, group in enumerate(order):
        flat = torch.cat([rank["base_optimizer_state"]["state"][index]["exp_avg"] for rank in ranks]) / FIRST
        for name, shape in group:
            gradients[name], flat = flat[: shape.numel()].view(shape), flat[shape.numel() :]
        assert not flat.any(), "padding"
    return gradients


def _gathered(ranks: list[dict[str, Any]], order: list[list[tuple[str, torch.Size]]]) -> dict[str, torch.Tensor]:
    """ZeRO-3: every weight is cut into as many equal parts as there are ranks, and a rank's lie one after the other."""
    gradients = {}
    for index, group in enumerate(order):
        flat = [rank["optimizer_state_dict"]["state"][index]["exp_avg"] / FIRST for rank in ranks]
        for name, shape in group:
            size = ceil(shape.numel() / len(ranks))
            gradients[name] = torch.cat([part[:size] for part in flat])[: shape.numel()].view(shape)
            flat = [part[size:] for part in flat]
    return gradients
