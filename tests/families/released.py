"""Checkpoints in the form of each family's released ones, made small by plain transformers alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    CLIPVisionConfig,
    GotOcr2ImageProcessorPil,
    InternVLConfig,
    InternVLForConditionalGeneration,
    InternVLVisionConfig,
    LlavaNextConfig,
    LlavaNextForConditionalGeneration,
    LlavaNextImageProcessorPil,
    LlavaNextProcessor,
    LlavaOnevisionConfig,
    LlavaOnevisionForConditionalGeneration,
    LlavaOnevisionImageProcessorPil,
    MistralConfig,
    PreTrainedTokenizerFast,
    Qwen2Config,
    SiglipVisionConfig,
)

from llava_pose.families.internvl import InternVLPoseProcessor
from llava_pose.families.llava_onevision import LlavaOnevisionPoseProcessor
from tests.released import TEXTS, llama_tokenizer, write_released

SIDE, PATCH = 16, 8
GRID = [[16, 32], [32, 16], [32, 32]]
"""One row or column of two tiles, or two of each."""


def qwen_tokenizer(**images: str) -> PreTrainedTokenizerFast:
    """Qwen's kind of tokenizer: bytes, no token at the start, turns between two marks; and those of images."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    specials = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=350,
        special_tokens=specials,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(TEXTS, trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=["<|im_start|>"],
        extra_special_tokens=images,
    )
    return fast


def text_sizes(tokenizer: Any, tied: bool, spare: int) -> dict[str, Any]:
    """What the language models have in common; ``spare``: vocabulary rows beyond the tokenizer's."""
    return {
        "vocab_size": len(tokenizer) + spare,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 1024,
        "tie_word_embeddings": tied,
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "initializer_range": 0.2,
    }


VISION: dict[str, Any] = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": SIDE,
    "patch_size": PATCH,
}


def write_llava(folder: Path) -> Any:
    """LLaVA-1.5 with CLIP and a Llama, its vocabulary padded."""
    return write_released(folder)


def write_llava_next(folder: Path) -> Any:
    """LLaVA-NeXT with CLIP and a Mistral, its vocabulary padded."""
    tokenizer = llama_tokenizer()
    config = LlavaNextConfig(
        vision_config=CLIPVisionConfig(**VISION, projection_dim=16),
        text_config=MistralConfig(**text_sizes(tokenizer, tied=False, spare=6), sliding_window=None),
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        vision_feature_layer=-2,
        vision_feature_select_strategy="default",
        image_grid_pinpoints=GRID,
        tie_word_embeddings=False,
    )
    side = {"height": SIDE, "width": SIDE}
    processor = LlavaNextProcessor(
        LlavaNextImageProcessorPil(size={"shortest_edge": SIDE}, crop_size=side, image_grid_pinpoints=GRID),
        tokenizer,
        patch_size=PATCH,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template="{{ messages }}",
    )
    processor.save_pretrained(folder)
    return saved(LlavaNextForConditionalGeneration, config, folder)


def write_llava_onevision(folder: Path) -> Any:
    """LLaVA-OneVision with SigLIP and a Qwen whose vocabulary matrices are tied, as the one of 0.5 B has them."""
    tokenizer = qwen_tokenizer(image_token="<image>", video_token="<video>")
    grid = [[rows * SIDE, columns * SIDE] for rows in (1, 2, 3) for columns in (1, 2, 3)]
    config = LlavaOnevisionConfig(
        vision_config=SiglipVisionConfig(**VISION, vision_use_head=False),
        text_config=Qwen2Config(**text_sizes(tokenizer, tied=True, spare=10)),
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        video_token_index=tokenizer.convert_tokens_to_ids("<video>"),
        image_grid_pinpoints=grid,
        vision_aspect_ratio="anyres_max_4",
        tie_word_embeddings=True,
    )
    side = {"height": SIDE, "width": SIDE}
    processor = LlavaOnevisionPoseProcessor(
        LlavaOnevisionImageProcessorPil(size=side, image_grid_pinpoints=grid),
        tokenizer,
        num_image_tokens=(SIDE // PATCH) ** 2,
        vision_feature_select_strategy="full",
        vision_aspect_ratio="anyres_max_4",
        chat_template="{{ messages }}",
    )
    processor.save_pretrained(folder)
    return saved(LlavaOnevisionForConditionalGeneration, config, folder)


def write_internvl(folder: Path) -> Any:
    """InternVL with its own tower and a Qwen whose vocabulary has not a row to spare."""
    marks = {"start_image_token": "<img>", "end_image_token": "</img>", "context_image_token": "<IMG_CONTEXT>"}
    tokenizer = qwen_tokenizer(**marks, video_token="<video>")
    config = InternVLConfig(
        vision_config=InternVLVisionConfig(**VISION),
        text_config=Qwen2Config(**text_sizes(tokenizer, tied=False, spare=0)),
        image_token_id=tokenizer.convert_tokens_to_ids("<IMG_CONTEXT>"),
        image_seq_length=(SIDE // PATCH) ** 2 // 4,
        tie_word_embeddings=False,
    )
    processor = InternVLPoseProcessor(
        GotOcr2ImageProcessorPil(size={"height": SIDE, "width": SIDE}, max_patches=4),
        tokenizer,
        image_seq_length=config.image_seq_length,
        chat_template="{{ messages }}",
    )
    processor.save_pretrained(folder)
    return saved(InternVLForConditionalGeneration, config, folder)


def saved(kind: Any, config: Any, folder: Path) -> Any:
    """A model of random weights, saved."""
    torch.manual_seed(0)
    model = kind(config).eval()
    model.save_pretrained(folder)
    return model


WRITERS = {
    "llava": write_llava,
    "llava_next": write_llava_next,
    "llava_onevision": write_llava_onevision,
    "internvl": write_internvl,
}
