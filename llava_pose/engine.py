"""Run the model: prefill once, then branch into candidate names or into an answer.

Works on token ids, pixel values and hidden states; everything about a family is behind the model's ``backbone`` and
the processor.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from PIL import Image

from . import conversation
from .configuration import POSE_TOKEN
from .decoding import NameTrie, Prefill, score_names
from .processing import assistant_message, without_marks
from .reading import PoseReading, read_poses

MAX_NEW_TOKENS = 200


@dataclass(frozen=True)
class Naming:
    """The best of N candidate names for an image: its index, the probabilities (N,) over the candidates (softmax of
    their summed log-probabilities), and the pose read at the ``<pose>`` that ends it."""

    index: int
    probabilities: np.ndarray
    reading: PoseReading


@dataclass
class Answer:
    """An answer's text, with ``<pose>`` marks, and the reading of each mark in order."""

    text: str = ""
    readings: list[PoseReading] = field(default_factory=list)
    complete: bool = False
    """Whether the model ended the answer itself, rather than running into the token limit."""


class Engine:
    """A model and its processor, ready to answer."""

    def __init__(self, model: Any, processor: Any):
        self.model = model.eval()
        self.processor = processor

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return next(self.model.parameters()).device

    @property
    def context(self) -> int:
        """The number of tokens, the image's included, that the language model was built for."""
        return int(self.model.config.get_text_config().max_position_embeddings)

    def prompt_length(self, messages: Sequence[dict[str, Any]]) -> int:
        """The number of tokens of a conversation, the image's included."""
        return len(self.processor.encode(messages)[0])

    @torch.inference_mode()
    def prefill(self, messages: Sequence[Sequence[dict[str, Any]]], pixels: torch.Tensor) -> Prefill:
        """Run B conversations, each up to the point where the model answers, on pixels (images, 3, H, W)."""
        rows = [self.processor.encode(conversation)[0] for conversation in messages]
        inputs = {name: value.to(self.device) for name, value in self.processor.pad(rows, side="left").items()}
        mask = inputs["attention_mask"]
        outputs = self.model.backbone(
            **inputs,
            # Positions count real tokens only, so that padding on the left changes nothing.
            position_ids=(mask.cumsum(-1) - 1).clamp(min=0),
            pixel_values=pixels.to(self.device, self.model.dtype),
            use_cache=True,
        )
        return Prefill(outputs.past_key_values, mask, mask.sum(-1), outputs.last_hidden_state[:, -1])

    def name_trie(self, categories: Sequence[str]) -> NameTrie:
        """The trie of the answers that name each category, each up to and including its ``<pose>``."""
        prompt = self.processor.encode(conversation.naming_messages())[0]
        sequences = []
        for category in categories:
            answer = assistant_message(conversation.naming_answer(category))
            ids = self.processor.encode([*conversation.naming_messages(), answer])[0]
            if not np.array_equal(ids[: len(prompt)], prompt):
                raise ValueError(f"the tokenizer merges the prompt's end with the name {category!r}")
            tokens = ids[len(prompt) :].tolist()
            sequences.append(tokens[: tokens.index(self.processor.pose_token_id) + 1])
        return NameTrie.build(sequences)

    @torch.inference_mode()
    def name(self, images: Sequence[Image.Image], trie: NameTrie) -> list[Naming]:
        """Name each of B images among the trie's N candidates and read its pose, in two passes."""
        if not images:
            return []
        prompts = [conversation.naming_messages()] * len(images)
        scores = score_names(self.model, self.prefill(prompts, self.processor.pixels(images)), trie)
        probabilities = scores.log_probabilities.softmax(-1)
        best = probabilities.argmax(-1)
        chosen = scores.pose_hidden[torch.arange(len(best), device=best.device), best]
        readings = read_poses(self.model.pose_head(chosen))
        return [
            Naming(int(index), row, reading)
            for index, row, reading in zip(best, probabilities.cpu().numpy(), readings, strict=True)
        ]

    @torch.inference_mode()
    def stream(
        self, messages: Sequence[dict[str, Any]], pixels: torch.Tensor, max_new_tokens: int = MAX_NEW_TOKENS
    ) -> Iterator[Answer]:
        """Answer one conversation greedily, yielding the answer as it grows.

        A ``<pose>`` is read when it has itself been fed to the model, from its own hidden state.
        """
        state = self.prefill([messages], pixels)
        mask, hidden, tokens = state.attention_mask, state.last_hidden, []
        answer = Answer()
        for step in range(max_new_tokens):
            token = int(self.model.lm_head(hidden).argmax(-1))
            if token == self.processor.tokenizer.eos_token_id:
                answer.complete = True
                break
            tokens.append(token)
            mask = torch.cat([mask, mask.new_ones(1, 1)], 1)
            hidden = self.model.backbone(
                input_ids=torch.tensor([[token]], device=self.device),
                attention_mask=mask,
                position_ids=(state.lengths + step)[:, None],
                past_key_values=state.cache,
                use_cache=True,
            ).last_hidden_state[:, -1]
            if token == self.processor.pose_token_id:
                answer.readings += read_poses(self.model.pose_head(hidden))
            answer.text = self._decode(tokens)
            yield answer
        yield answer

    def answer(
        self, messages: Sequence[dict[str, Any]], pixels: torch.Tensor, max_new_tokens: int = MAX_NEW_TOKENS
    ) -> Answer:
        """The whole answer to one conversation."""
        *_, last = self.stream(messages, pixels, max_new_tokens)
        return last

    def _decode(self, tokens: list[int]) -> str:
        pose_id, decode = self.processor.pose_token_id, self.processor.tokenizer.decode
        text = decode(tokens, skip_special_tokens=True)
        if text.count(POSE_TOKEN) > tokens.count(pose_id):
            # A mark spelled out in pieces is no <pose>: nothing was read there.
            ends = [index for index, token in enumerate(tokens) if token == pose_id]
            parts = zip([0, *(end + 1 for end in ends)], [*ends, len(tokens)], strict=True)
            words = [without_marks(decode(tokens[start:end], skip_special_tokens=True)) for start, end in parts]
            text = POSE_TOKEN.join(words)
        # <pose> swallows the space before it in encoding; people read it with one.
        return " ".join(text.replace(POSE_TOKEN, f" {POSE_TOKEN}").split())
