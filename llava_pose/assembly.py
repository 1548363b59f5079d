"""New models: a LLaVA put together from a vision tower and a language model, and the small tokenizer of ours."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoTokenizer,
    CLIPImageProcessorPil,
    LlamaConfig,
    PreTrainedTokenizerFast,
)
from transformers.utils import is_gguf_available

from . import conversation, vision
from .configuration import POSE_TOKEN
from .errors import UserError
from .families.llava import LlavaPoseConfig, LlavaPoseForConditionalGeneration, LlavaPoseProcessor
from .folders import EMBEDDED, POSED
from .processing import add_pose_token
from .wordings import wording

TOKENIZER_SIZE = 1024
"""Vocabulary of the small tokenizer: every category name in a few tokens, and single bytes for all else."""


def assemble(
    text: Mapping[str, int | float] | str,
    vision_tower: str = EMBEDDED,
    seed: int = 0,
    tower_sizes: Mapping[str, int] | None = None,
    **pose: Any,
) -> tuple[LlavaPoseForConditionalGeneration, LlavaPoseProcessor]:
    """A new LLaVA from a vision tower and a language model, its projector and pose head freshly initialised.

    text: sizes of a new Llama (``LlamaConfig`` fields such as hidden_size, num_hidden_layers), which starts from
    nothing and gets a small tokenizer trained on our templates; or a checkpoint's folder, hub name or .gguf file, with
    its own tokenizer and its own wording of turns. vision_tower: "embedded", as ImageNet taught it, or "posed", as the
    embedded model has it, with ``tower_sizes`` image_size and patch_size; or a checkpoint (CLIP, SigLIP, DINOv2 …).
    ``pose``: ``LlavaPoseConfig`` fields.

    Raises UserError where ``text`` is no language model or the embedded tower cannot have these sizes.
    """
    torch.manual_seed(seed)
    tower, tower_name = _tower(vision_tower, tower_sizes or {})
    if isinstance(text, str):
        language, tokenizer = _text_checkpoint(text)
        text_config = language.config
    else:
        tokenizer = train_tokenizer()
        special = {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("bos", "eos", "pad")}
        sizes: dict[str, Any] = {"vocab_size": len(tokenizer), **special, **text}
        text_config, language = LlamaConfig(**sizes), None
    has_class_token = tower.config.model_type in (
        "clip_vision_model",
        "dinov2",
        "dinov2_with_registers",
        "vit",
    )
    config = LlavaPoseConfig(
        vision_config=tower.config,
        text_config=text_config,
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        vision_feature_layer=-2 if has_class_token else -1,
        vision_feature_select_strategy="default" if has_class_token else "full",
        pose_token_id=tokenizer.convert_tokens_to_ids(POSE_TOKEN),
        tower_source=EMBEDDED if vision_tower == EMBEDDED else None,
        tie_word_embeddings=bool(text_config.tie_word_embeddings),
        **pose,
    )
    # The tower's file is in half precision; new weights are trained, and so begin, in full.
    tower.config.dtype = config.dtype = torch.float32
    model = LlavaPoseForConditionalGeneration(config)
    model.model.vision_tower.load_state_dict(tower.state_dict())
    if language is not None:
        model.model.language_model.load_state_dict(language.model.state_dict())
        model.lm_head.load_state_dict(language.lm_head.state_dict())
    processor = _build_processor(tower, tower_name, tokenizer, config)
    config.image_seq_length = processor.image_tokens
    return model.eval(), processor


def train_tokenizer() -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer of ``TOKENIZER_SIZE`` tokens, trained on ``conversation.example_texts``."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    specials = ["<s>", "</s>", "<pad>", "<image>"]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        # One less than the size: <pose> is added last.
        vocab_size=TOKENIZER_SIZE - 1,
        special_tokens=specials,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(conversation.example_texts(), trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        extra_special_tokens={"image_token": "<image>"},
    )
    add_pose_token(fast)
    return fast


def _tower(source: str, sizes: Mapping[str, int]) -> tuple[Any, str]:
    if source in (EMBEDDED, POSED):
        try:
            return vision.load_embedded_tower(posed=source == POSED, **dict[str, Any](sizes)), source
        except (TypeError, ValueError) as error:
            raise UserError(f"tower_sizes: {dict(sizes)}: {error}") from error
    if sizes:
        raise UserError(f"tower_sizes: {dict(sizes)}: only the embedded tower's sizes can be chosen")
    config = AutoConfig.from_pretrained(source, trust_remote_code=False)
    # A CLIP or SigLIP checkpoint holds both halves; its vision half is a model of its own.
    vision_config = getattr(config, "vision_config", config)
    return AutoModel.from_config(vision_config).__class__.from_pretrained(source), source


def _text_checkpoint(source: str) -> tuple[Any, Any]:
    """A language model in float32 and its tokenizer, both with ``<image>`` and ``<pose>``.

    Rows that these need are the mean of the others: neither likelier nor stranger than a usual token.
    """
    name, options = _transformers_name(source)
    try:
        language: Any = AutoModelForCausalLM.from_pretrained(
            name, dtype=torch.float32, trust_remote_code=False, **options
        )
        tokenizer: Any = AutoTokenizer.from_pretrained(name, **options)
    except (OSError, ValueError) as error:
        first_line = str(error).strip().partition("\n")[0]
        raise UserError(f"{source}: cannot be opened as a language model: {first_line}") from error
    if options:
        # It tells of the file, whose weights are in full by now: saved, it would be taken for theirs.
        del language.config.quantization_config
    tokenizer.add_special_tokens({"extra_special_tokens": ["<image>"]}, replace_extra_special_tokens=False)
    if tokenizer.pad_token is None:
        tokenizer.add_special_tokens({"pad_token": "<pad>"})
    add_pose_token(tokenizer)
    known = language.get_input_embeddings().num_embeddings
    if len(tokenizer) > known:
        language.resize_token_embeddings(len(tokenizer), pad_to_multiple_of=64, mean_resizing=False)
        with torch.no_grad():
            for matrix in (language.get_input_embeddings().weight, language.get_output_embeddings().weight):
                matrix[known:] = matrix[:known].mean(0)
    return language, tokenizer


def _transformers_name(source: str) -> tuple[str, dict[str, Any]]:
    """What transformers opens for a checkpoint: a name, and the file in it where that is one of llama.cpp's."""
    if not source.endswith(".gguf"):
        return source, {}
    if not Path(source).is_file():
        raise UserError(f"{source}: no such file")
    if not is_gguf_available():
        raise UserError(f"{source}: opening it needs the package gguf (pip install 'llava-pose[gguf]')")
    return str(Path(source).parent), {"gguf_file": Path(source).name}


def _build_processor(tower: Any, tower_name: str, tokenizer: Any, config: Any) -> LlavaPoseProcessor:
    if tower_name in (EMBEDDED, POSED):
        size = {"height": tower.config.image_size, "width": tower.config.image_size}
        mean, std = tower.config.image_mean, tower.config.image_std
        images = CLIPImageProcessorPil(size=size, do_center_crop=False, image_mean=mean, image_std=std)
    else:
        images = CLIPImageProcessorPil.from_pretrained(tower_name)
    return LlavaPoseProcessor(
        image_processor=images,
        tokenizer=tokenizer,
        patch_size=tower.config.patch_size,
        vision_feature_select_strategy=config.vision_feature_select_strategy,
        num_additional_image_tokens=_additional_tokens(tower, config.vision_feature_select_strategy),
        chat_template=wording(tokenizer, config.get_text_config().model_type, LlavaPoseProcessor.image_mark),
    )


def _additional_tokens(tower: Any, strategy: str) -> int:
    """How many of a tower's tokens are no patch of the picture: the class token, which "default" drops, and DINOv2's
    registers, which LLaVA keeps, as it drops one token only."""
    return 1 + getattr(tower.config, "num_register_tokens", 0) if strategy == "default" else 0
