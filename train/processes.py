"""The processes of a run: how a batch is shared out over them, and what DeepSpeed is told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import GradientAccumulationPlugin
from transformers.integrations import unset_hf_deepspeed_config

from llava_pose.errors import UserError
from llava_pose.launch import make_accelerator

from .config import TrainConfig
from .log import tracking


def build_accelerator(config: TrainConfig, run: Path) -> Accelerator:
    """The accelerator, after checking that the batch divides over its processes."""
    # Half precision is an autocast of train_step's own. Accelerate's would have DeepSpeed turn every weight into bf16,
    # the pose head's and the adapters' too.
    accelerator = make_accelerator(mixed_precision="no", **tracking(config, run))
    check_half_precision(config, accelerator.device)
    share = config.micro_batch_size * accelerator.num_processes
    if config.batch_size % share:
        raise UserError(
            f"batch_size: {config.batch_size} does not divide into {accelerator.num_processes} processes "
            f"of micro_batch_size {config.micro_batch_size}"
        )
    accumulation = GradientAccumulationPlugin(num_steps=config.batch_size // share, sync_with_dataloader=False)
    accelerator.gradient_state.plugin_kwargs.update(accumulation.to_kwargs())
    plugin = accelerator.state.deepspeed_plugin
    if plugin is not None:
        if config.optimizer == "muon":
            raise UserError("optimizer: muon goes with a second optimizer, and DeepSpeed takes one; set adamw")
        plugin.deepspeed_config.update(
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
        # What is saved in the end is gathered from all processes, in the weights' own precision whatever the name.
        plugin.deepspeed_config["zero_optimization"]["stage3_gather_16bit_weights_on_model_save"] = True
        # transformers would open a model in pieces for ZeRO-3, before it has its head, its token and its adapters.
        unset_hf_deepspeed_config()
    if accelerator.is_main_process:
        run.mkdir(parents=True, exist_ok=True)
    return accelerator


def check_half_precision(config: TrainConfig, device: torch.device) -> None:
    """Raises UserError where the configuration asks for bfloat16 of a GPU that has none (a CPU always has it)."""
    if config.precision == "fp32" or device.type != "cuda" or torch.cuda.is_bf16_supported(including_emulation=False):
        return
    instead = "precision=fp32" + (" model.base_dtype=fp32" if config.model.base_dtype != "fp32" else "")
    name = torch.cuda.get_device_name(device)
    raise UserError(f"precision: {config.precision}, but {name} has no bfloat16; set {instead}")


def shards_weights(accelerator: Accelerator) -> bool:
    """Whether every process holds a piece of each weight only (DeepSpeed ZeRO-3): whatever reads one is then a
    meeting of all processes, which have to run the same modules equally often."""
    plugin = accelerator.state.deepspeed_plugin
    return plugin is not None and plugin.zero_stage == 3


def shard_weights(accelerator: Accelerator, model: Any) -> None:
    """Share the weights of a complete model out over the processes, one weight after the other.

    Left to DeepSpeed's start, the whole model would go to every device first, which it need not fit.
    """
    import deepspeed  # here: a run without DeepSpeed needs none

    zero = accelerator.state.deepspeed_plugin.deepspeed_config["zero_optimization"]
    settings = {name: value for name, value in zero.items() if value != "auto"}
    deepspeed.zero.Init(
        module=model, config_dict_or_path={"train_micro_batch_size_per_gpu": 1, "zero_optimization": settings}
    )
