"""A LLaVA-1.5 in shape, with random weights: for measuring time, where it does not matter what a model knows, but how
surely it says a name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from transformers import CLIPImageProcessorPil, CLIPVisionConfig, LlamaConfig

from llava_pose import assembly, conversation
from llava_pose.configuration import POSE_TOKEN
from llava_pose.engine import Engine
from llava_pose.families.llava import LlavaPoseConfig, LlavaPoseForConditionalGeneration, LlavaPoseProcessor
from llava_pose.image_inputs import ImageInputs
from llava_pose.processing import assistant_message
from llava_pose.wordings import VICUNA, with_images

LIKELY = 6
SURENESS = (0.9, 0.5, 0.97, 0.7)
"""What the fitted head gives an image's drawn name, in turn; five other names share the rest."""


@dataclass(frozen=True)
class Size:
    """A model's sizes. The widths of the language model's layers and of the tower follow from ``hidden`` in LLaVA-1.5's
    proportions; a vocabulary in proportion to the layers' work keeps the output head's share of the time."""

    hidden: int
    layers: int
    heads: int
    vocabulary: int
    image_side: int = 336
    images: int = 4
    repetitions: int = 5
    names_timed: int = 5

    def config(self, tokenizer: Any) -> LlavaPoseConfig:
        """The configuration, with CLIP's eyes: a quarter as wide as the language model, three quarters as deep."""
        special = {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("bos", "eos", "pad")}
        return LlavaPoseConfig(
            vision_config=CLIPVisionConfig(
                hidden_size=self.hidden // 4,
                intermediate_size=self.hidden,
                num_hidden_layers=self.layers * 3 // 4,
                num_attention_heads=max(self.heads // 2, 1),
                image_size=self.image_side,
                patch_size=14,
                projection_dim=self.hidden * 3 // 16,
            ),
            text_config=LlamaConfig(
                vocab_size=max(self.vocabulary, len(tokenizer)),
                hidden_size=self.hidden,
                intermediate_size=self.hidden * 43 // 16,
                num_hidden_layers=self.layers,
                num_attention_heads=self.heads,
                max_position_embeddings=4096,
                **special,
            ),
            image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
            pose_token_id=tokenizer.convert_tokens_to_ids(POSE_TOKEN),
            vision_feature_layer=-2,
            vision_feature_select_strategy="default",
        )


def build(size: Size, device: torch.device, dtype: torch.dtype) -> Engine:
    """A model of this size, made on the device, and the small tokenizer of this package."""
    tokenizer = assembly.train_tokenizer()
    torch.manual_seed(0)
    default = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with device:
            model = LlavaPoseForConditionalGeneration(size.config(tokenizer))
    finally:
        torch.set_default_dtype(default)
    model.pose_head.float()
    side = {"height": size.image_side, "width": size.image_side}
    processor = LlavaPoseProcessor(
        image_processor=CLIPImageProcessorPil(size={"shortest_edge": size.image_side}, crop_size=side),
        tokenizer=tokenizer,
        patch_size=14,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=with_images(VICUNA, LlavaPoseProcessor.image_mark),
    )
    return Engine(model, processor)


def say_names(engine: Engine, images: ImageInputs, categories: Sequence[str]) -> torch.nn.Linear:
    """An output head for these images that answers the naming question as a finetuned model does.

    For each image six names are drawn; the first gets ``SURENESS``, the others share the rest. The head is fitted by
    least cross-entropy to the states that the random model has along those six answers, up to their end.
    """
    rng = np.random.default_rng(0)
    parts = []
    for index, sure in enumerate(np.resize(SURENESS, len(images))):
        names = rng.choice(categories, LIKELY, replace=False).tolist()
        shares = torch.tensor([sure, *rng.dirichlet(np.ones(LIKELY - 1)) * (1 - sure)], dtype=torch.float32)
        parts.append(states_along(engine, images.select([index]), names, shares))
    states, targets, weights = (torch.cat(part) for part in zip(*parts, strict=True))
    return fit(engine.model.lm_head, states, targets, weights).to(engine.model.dtype)


@torch.no_grad()
def states_along(
    engine: Engine, image: ImageInputs, names: Sequence[str], shares: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The states (S, H) float32 along the answers that name each of ``names`` in one image, the tokens (S,) that
    they should predict, and how much each counts: its name's share."""
    question = conversation.naming_messages()
    before = engine.prompt_length(question)
    talks = [[*question, assistant_message(conversation.naming_answer(name))] for name in names]
    batch = engine.processor.pad([engine.processor.encode(talk)[0][before:] for talk in talks], side="right")
    ids, inside = (batch[name].to(engine.device) for name in ("input_ids", "attention_mask"))
    state = engine.prefill([question], image)
    state.cache.batch_repeat_interleave(len(names))
    hidden = engine.model.backbone(
        input_ids=ids,
        attention_mask=torch.cat([state.attention_mask.expand(len(names), -1), inside], 1),
        position_ids=state.lengths[:, None] + torch.arange(ids.shape[1], device=ids.device),
        past_key_values=state.cache,
        use_cache=True,
    ).last_hidden_state
    # The state before a token predicts it.
    predicting = torch.cat([state.last_hidden[:, None].expand(len(names), -1, -1), hidden[:, :-1]], 1)
    real = inside.bool()
    return predicting[real].float().clone(), ids[real], (shares.to(ids.device)[:, None] * inside)[real]


def fit(head: torch.nn.Linear, states: torch.Tensor, targets: torch.Tensor, weights: torch.Tensor) -> torch.nn.Linear:
    """A linear layer like ``head`` that predicts targets (S,) from states (S, H), each as important as its weight."""
    fitted = torch.nn.Linear(states.shape[1], head.weight.shape[0], bias=False, device=states.device)
    with torch.no_grad():
        fitted.weight.copy_(head.weight)
    optimizer = torch.optim.Adam(fitted.parameters(), lr=3e-3)
    for _ in range(500):
        optimizer.zero_grad()
        loss = (F.cross_entropy(fitted(states), targets, reduction="none") * weights).sum() / weights.sum()
        loss.backward()
        optimizer.step()
    return fitted.requires_grad_(False)
