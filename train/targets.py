"""Where adapters go, looked at before any weight is loaded."""

from __future__ import annotations

import re

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForImageTextToText

from llava_pose.errors import UserError
from llava_pose.folders import model_source

from .config import TrainConfig

LANGUAGE_MODEL = "model.language_model."
"""How the names of a language model's modules begin, in every family."""


def check_targets(config: TrainConfig) -> None:
    """Raises UserError where ``model.lora.target_modules`` is no regular expression, or matches nothing in the base, or
    anything but linear layers of its language model.

    The base is built from its configuration alone, on PyTorch's meta device: its names are there, its weights are not.
    """
    if config.model.lora is None or config.model.base is None:
        return
    base, pattern = config.model.base, config.model.lora.target_modules
    try:
        settings = AutoConfig.from_pretrained(model_source(base), trust_remote_code=False)
        with torch.device("meta"):
            model = AutoModelForImageTextToText.from_config(settings)
    except (OSError, ValueError) as error:
        raise UserError(f"model.base: {base}: not a vision-language model of transformers: {error}") from error
    where = f"model.lora.target_modules: {pattern!r}"
    try:
        # As PEFT does it: the whole name.
        matched = [(name, module) for name, module in model.named_modules() if re.fullmatch(pattern, name)]
    except re.error as error:
        raise UserError(f"{where}: not a regular expression: {error}") from error
    if not matched:
        some = next(name for name, module in model.named_modules() if _is_target(name, module))
        raise UserError(f"{where} matches nothing in {base}, whose layers have names such as {some}")
    for name, module in matched:
        if not _is_target(name, module):
            kind = type(module).__name__
            raise UserError(f"{where} matches {name} ({kind}); adapters go to linear layers of the language model")


def _is_target(name: str, module: nn.Module) -> bool:
    return name.startswith(LANGUAGE_MODEL) and isinstance(module, nn.Linear)
