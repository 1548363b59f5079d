"""The model of a run: put together or opened, its trained parts marked, its adapters in place."""

from __future__ import annotations

from typing import Any

import torch
from accelerate import PartialState
from safetensors import SafetensorError
from safetensors.torch import load_file

from llava_pose import assembly, checkpoint
from llava_pose.bases import sample_weights
from llava_pose.errors import UserError
from llava_pose.folders import model_source, optional_file
from llava_pose.quantization import nf4

from .config import TrainConfig


def build_model(config: TrainConfig) -> tuple[Any, Any]:
    """The model with its trained parts marked, adapters in place, and its processor."""
    settings = config.model
    if settings.text is not None:
        model, processor = assembly.assemble(
            settings.text,
            settings.vision_tower,
            config.seed,
            settings.tower_sizes,
            pose_hidden_size=settings.pose_hidden_size or 512,
        )
    else:
        size = settings.pose_hidden_size
        model, processor = load_base(config, {"pose_hidden_size": size} if size else None)
        if size not in (None, model.config.pose_hidden_size):
            raise UserError(f"model.pose_hidden_size: {size}, but the base's head has {model.config.pose_hidden_size}")
        if settings.projector is not None:
            load_projector(model, settings.projector)
        if settings.lora is not None:
            model.config.base_weights = sample_weights(model.name_or_path, settings.base_dtype)
    return mark_trained(model, config), processor


def load_projector(model: Any, path: str) -> None:
    """Have the projector begin with a file's weights, in the precision that it has. Raises UserError where they are not
    this projector's."""
    try:
        model.model.multi_modal_projector.load_state_dict(load_file(path))
    except (OSError, SafetensorError, RuntimeError) as error:
        raise UserError(f"model.projector: {path}: {str(error).strip().splitlines()[0]}") from error


def mark_trained(model: Any, config: TrainConfig) -> Any:
    """The model as it is trained: what is frozen and what is not, its losses' weights, its adapters."""
    settings = config.model
    model.set_attn_implementation({"text_config": settings.attention})
    model.config.pose_loss_weight = settings.pose_loss_weight
    model.config.pose_target_deviation = settings.pose_target_deviation
    model.config.pose_geodesic_weight = settings.pose_geodesic_weight
    model.requires_grad_(settings.lora is None)
    model.model.vision_tower.requires_grad_(settings.train_vision_tower)
    model.model.multi_modal_projector.requires_grad_(settings.train_projector)
    if settings.train_vision_tower:
        model.config.tower_source = None
    if config.gradient_checkpointing:
        checkpoint_activations(model)
    trained = model if settings.lora is None else add_lora(model, config)
    if config.compile:
        compile_layers(model)
    return trained


def checkpoint_activations(model: Any) -> None:
    """Have layers computed anew on the way back instead of kept."""
    settings = {"use_reentrant": False}
    if hasattr(model, "activation_checkpointing_enable"):
        model.activation_checkpointing_enable(settings)
    else:  # transformers 5.20, the last for Python 3.10, has its older name alone
        model.gradient_checkpointing_enable(settings)


def compile_layers(model: Any) -> None:
    """Have torch fuse each layer of the language model when it is first run, for batches of any size and length.

    Layer by layer, not the whole: what is around them (images into the text, supervised positions alone) depends on the
    data, and one compiled layer serves them all. Weights keep their names.
    """
    for layer in model.model.language_model.layers:
        layer.compile(dynamic=True)


def load_base(config: TrainConfig, head: dict[str, int] | None) -> tuple[Any, Any]:
    """The base in its ``base_dtype``. In four bits it is on the device that it will be trained on, since it is
    quantised on the way there, and what is not quantised is in bfloat16."""
    base = config.model.base or ""
    if config.model.base_dtype != "nf4":
        return checkpoint.load(base, torch.bfloat16 if config.model.base_dtype == "bf16" else torch.float32, head)
    if optional_file(model_source(base), checkpoint.ADAPTER_CONFIG) is not None:
        raise UserError(f"model.base: {base} is an adapter; for base_dtype nf4 merge it first (llava-pose merge)")
    where = {"": PartialState().device}
    return checkpoint.load(base, torch.bfloat16, head, quantization_config=nf4(), device_map=where)


def add_lora(model: Any, config: TrainConfig) -> Any:
    """Adapters on the language model, trainable ``<pose>`` rows, and what is trained in full saved with them."""
    from peft import LoraConfig, get_peft_model

    lora = config.model.lora
    assert lora is not None
    token = [model.config.pose_token_id]
    # PEFT trains copies of these: a vision tower is held twice.
    trained = {
        "pose_head": True,
        "multi_modal_projector": config.model.train_projector,
        "vision_tower": config.model.train_vision_tower,
    }
    peft_config = LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=lora.target_modules,
        # Both vocabulary matrices by name: the list form would reach the input side only.
        trainable_token_indices={"embed_tokens": token, "lm_head": token},
        modules_to_save=[name for name, wanted in trained.items() if wanted],
    )
    adapted = get_peft_model(model, peft_config)
    # On a base in half precision PEFT leaves the saved modules in it, where small updates would be rounded away.
    for value in adapted.parameters():
        if value.requires_grad:
            value.data = value.data.float()
    return adapted


def describe_size(model: Any, rows: int, config: TrainConfig) -> str:
    """One line: parameters, trained ones, rows and epochs."""
    total = sum(value.numel() for value in model.parameters())
    trained = sum(value.numel() for value in model.parameters() if value.requires_grad)
    epochs = config.steps * config.batch_size / rows
    return f"{total / 1e6:.1f} M parameters, {trained / 1e6:.1f} M trained; {rows} rows, {epochs:.1f} epochs"
