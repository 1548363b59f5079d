"""A checkpoint in the form of the released llava-1.5 models, made small by plain transformers alone, and the outputs by
which two models are compared."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, processors, trainers
from transformers import (
    CLIPImageProcessorPil,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
)

from llava_pose.image_inputs import ImageInputs
from llava_pose.processing import assistant_message, user_message

IMAGE_SIDE, PATCH = 32, 8
IMAGE_TOKENS = (IMAGE_SIDE // PATCH) ** 2
TEXTS = [
    "USER: What is this object, and how is it posed? ASSISTANT: A photo of a car beside a train station.",
    "It faces the camera and turns to its own left, seen from its back-right, from slightly above.",
]


def llama_tokenizer() -> PreTrainedTokenizerFast:
    """Llama-2's kind of tokenizer: spaces as ▁ before words, single bytes for what is unknown, <s> at the start."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    specials = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    # Words apart, as if split: a merge across a space is what Llama's tokenizer never has.
    words = [f"▁{word}" for text in TEXTS for word in text.split()]
    trainer = trainers.BpeTrainer(vocab_size=400, special_tokens=specials, show_progress=False)
    bare = Tokenizer(models.BPE())
    bare.train_from_iterator(words, trainer)
    trained = json.loads(bare.to_str())["model"]
    merges = [tuple(merge) if isinstance(merge, list) else tuple(merge.split(" ")) for merge in trained["merges"]]
    tokenizer.model = models.BPE(trained["vocab"], merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True)
    tokenizer.add_special_tokens([AddedToken(word, normalized=False, special=True) for word in specials[:3]])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", tokenizer.token_to_id("<s>"))]
    )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>", padding_side="left"
    )
    # In the released ones these are 32000 and 32001 of a vocabulary padded to 32064.
    fast.add_special_tokens({"extra_special_tokens": ["<image>"]})
    fast.add_special_tokens({"pad_token": "<pad>"})
    return fast


def released_model(tokenizer: Any, width: int = 32) -> LlavaForConditionalGeneration:
    """A LLaVA-1.5 with CLIP's eyes and a Llama, random weights, its vocabulary padded beyond the tokenizer's."""
    torch.manual_seed(0)
    text = LlamaConfig(
        vocab_size=-(-(len(tokenizer) + 10) // 64) * 64,
        hidden_size=width,
        intermediate_size=width * 3 // 2,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        tie_word_embeddings=False,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        initializer_range=0.2 * (32 / width) ** 0.5,
    )
    vision = CLIPVisionConfig(
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=3,
        num_attention_heads=2,
        image_size=IMAGE_SIDE,
        patch_size=PATCH,
        projection_dim=16,
    )
    config = LlavaConfig(
        vision_config=vision,
        text_config=text,
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        vision_feature_layer=-2,
        vision_feature_select_strategy="default",
        image_seq_length=IMAGE_TOKENS,
        tie_word_embeddings=False,
    )
    return LlavaForConditionalGeneration(config).eval()


def write_released(folder: Path, old_processor: bool = False, width: int = 32) -> LlavaForConditionalGeneration:
    """Save such a checkpoint into a folder, and return the model. Older ones have a processor without patch size,
    selection strategy and chat template."""
    tokenizer = llama_tokenizer()
    model = released_model(tokenizer, width)
    side = {"height": IMAGE_SIDE, "width": IMAGE_SIDE}
    images = CLIPImageProcessorPil(size={"shortest_edge": IMAGE_SIDE}, crop_size=side)
    settings = {} if old_processor else {"patch_size": PATCH, "vision_feature_select_strategy": "default"}
    processor = LlavaProcessor(
        image_processor=images,
        tokenizer=tokenizer,
        num_additional_image_tokens=0 if old_processor else 1,
        chat_template=None if old_processor else "{{ messages }}",
        **settings,
    )
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return model


TALK = [user_message("Which way?", images=1), assistant_message("The car <pose> faces the camera.")]


def noise(processor: Any, count: int = 1, side: int = IMAGE_SIDE, seed: int = 0) -> ImageInputs:
    """Images (count, 3, side, side) of noise."""
    pixels = torch.randn(count, 3, side, side, generator=torch.Generator().manual_seed(seed))
    return ImageInputs({"pixel_values": pixels}, (processor.image_tokens,) * count)


def inputs_for(processor, side):
    inputs = processor.pad([processor.encode(TALK)[0]], "right")
    return {**inputs, **noise(processor, side=side).tensors}


@torch.no_grad()
def outputs_of(model, processor, side=32):
    inputs = inputs_for(processor, side)
    return model.eval()(**{**inputs, "pixel_values": inputs["pixel_values"].to(model.dtype)})


def assert_equal_outputs(first, second, **tolerance):
    torch.testing.assert_close(first.logits, second.logits, **tolerance)
    torch.testing.assert_close(first.pose_logits, second.pose_logits, **tolerance)
