"""Bases in four bits (QLoRA; Dettmers et al. 2023, https://arxiv.org/abs/2305.14314): nf4 with double quantisation."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import torch

from .errors import UserError

KEPT = r"(?!.*language_model\.layers\.).*"
"""Modules that keep their precision, as a pattern: all but the language model's layers, which are most of the weights.
The vision tower, the projector, both vocabulary matrices and the pose head stay as they are."""


def nf4() -> Any:
    """What ``from_pretrained`` is given to load a language model's layers in four bits, computing in bfloat16.

    About 0.52 bytes a weight: 4 bits, and 8 bits for each 64 of them, these scaled in groups of 256 in turn.

    Raises UserError where bitsandbytes is not installed.
    """
    if find_spec("bitsandbytes") is None:
        raise UserError("nf4 needs bitsandbytes: pip install 'llava-pose[qlora]'")
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
        llm_int8_skip_modules=[KEPT],
    )


def keep_exact(model: Any) -> None:
    """Keep four-bit layers as they are on a CPU too. In evaluation bitsandbytes repacks them there for its faster
    kernels, with scales rounded to bfloat16: training then goes on with other weights, or not at all."""
    from bitsandbytes.nn import Linear4bit

    for module in model.modules():
        if isinstance(module, Linear4bit):
            module.support_avx512bf16_for_cpu = False
