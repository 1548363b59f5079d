"""Conversations and images to tensors.

One path for training and inference: the chat template renders the messages, the tokenizer encodes the text, and the
one id of each ``<image>`` is then repeated for every image token, so a mask or a ``<pose>`` is found by id and never
by an offset. Training pads on the right, generation on the left.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from transformers import AddedToken, ProcessorMixin
from transformers.utils.chat_template_utils import render_jinja_template

from .configuration import IGNORED_LABEL, POSE_TOKEN
from .image_inputs import ImageInputs
from .wordings import wording

_RENDERING = threading.Lock()
"""transformers keeps one compiled template for all processors, whose tracker of the assistant's spans refuses a second
thread while a first is rendering."""


def user_message(text: str, images: int = 0) -> dict[str, Any]:
    """A user's turn in transformers' message form: so many images, then the text."""
    parts: list[dict[str, str]] = [{"type": "image"} for _ in range(images)]
    return {"role": "user", "content": [*parts, {"type": "text", "text": text}]}


def image_count(messages: Sequence[dict[str, Any]]) -> int:
    """How many images a conversation in transformers' message form holds."""
    return sum(part["type"] == "image" for message in messages for part in message["content"])


def assistant_message(text: str) -> dict[str, Any]:
    """An assistant's turn in transformers' message form."""
    return {"role": "assistant", "content": [{"type": "text", "text": text}]}


def upright(image: Image.Image) -> Image.Image:
    """The image as RGB, upright by its EXIF."""
    turned = ImageOps.exif_transpose(image)
    return (image if turned is None else turned).convert("RGB")


class PoseProcessorMixin(ProcessorMixin):
    """What a family's processor needs to know of ``<pose>``, conversations and batches.

    A family says ``pixels_by``, ``image_mark``, ``image_tokens``, ``side`` and ``_inputs``.
    """

    tokenizer: Any
    image_processor: Any
    image_token_id: int
    chat_template: Any

    pixels_by: Any
    """transformers' image processor that works with Pillow: the same pixels, whether torchvision is there or not."""
    image_mark = "<image>\n"
    """How an image is written before a turn's words."""

    @classmethod
    def from_pretrained(cls, name: Any, **kwargs: Any) -> Any:  # type: ignore[override]
        """The processor in a folder or of a hub name."""
        processor = super().from_pretrained(name, **kwargs)
        processor.image_processor = cls.pixels_by.from_pretrained(name)
        return processor

    def complete(self, config: Any) -> None:
        """Make a released processor ours: with what older ones leave out, from the model's configuration, and with a
        chat template that marks the assistant's turns, our wording of the marks the checkpoint knows where its own does
        not. Families add to it what they count tokens by."""
        if "{% generation" not in str(self.chat_template):
            self.chat_template = wording(self.tokenizer, config.get_text_config().model_type, self.image_mark)
        if self.tokenizer.pad_token is None:
            self.tokenizer.pad_token = self.tokenizer.eos_token

    @property
    def pose_token_id(self) -> int:
        """The one id of ``<pose>``. Raises ValueError where the tokenizer lacks it."""
        token_id = self.tokenizer.convert_tokens_to_ids(POSE_TOKEN)
        if token_id is None or token_id == self.tokenizer.unk_token_id:
            raise ValueError(f"the tokenizer has no {POSE_TOKEN} token")
        return int(token_id)

    @property
    def stop_token_id(self) -> int:
        """The token that ends an answer: the last of an assistant's turn."""
        labels = self.encode([user_message("?"), assistant_message("!")])[1]
        return int(labels[labels != IGNORED_LABEL][-1])

    @property
    def image_tokens(self) -> int:
        """The most tokens an image takes."""
        raise NotImplementedError

    @property
    def side(self) -> int:
        """The longest side in pixels that the model can make use of."""
        raise NotImplementedError

    def _inputs(self, images: Sequence[Image.Image]) -> ImageInputs:
        """What the model is given of upright RGB images."""
        raise NotImplementedError

    def pixels(self, images: Sequence[Image.Image], flip: bool = False) -> ImageInputs:
        """What the model is given of N images; with ``flip``, of their mirror images too."""
        pictures = [upright(image) for image in images]
        mirrored = self._inputs([ImageOps.mirror(picture) for picture in pictures]) if flip else None
        return replace(self._inputs(pictures), mirrored=mirrored)

    def render(self, messages: Sequence[dict[str, Any]]) -> tuple[str, list[tuple[int, int]]]:
        """The conversation as text, and the character spans of the assistant's turns.

        No words in it can pose as the marks that turns and images are told by.
        """
        marks = [mark for mark in self.tokenizer.all_special_tokens if mark != POSE_TOKEN]
        with _RENDERING:
            rendered: Any = render_jinja_template(
                [[_harmless(message, marks) for message in messages]],
                chat_template=str(self.chat_template),
                add_generation_prompt=messages[-1]["role"] == "user",
                return_assistant_tokens_mask=True,
                **self.tokenizer.special_tokens_map,
            )
        texts, spans = rendered
        return texts[0], spans[0]

    def encode(
        self, messages: Sequence[dict[str, Any]], tokens: Sequence[int] | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Token ids (S,) of a conversation with its image tokens expanded, and labels (S,): the ids of the
        assistant's turns, -100 elsewhere. Nothing is ever truncated.

        tokens: how many tokens each image takes, in reading order; when left out, ``image_tokens`` each. Raises
        ValueError where they are not as many as the images.
        """
        text, spans = self.render(messages)
        encoded = self.tokenizer(text, return_offsets_mapping=True)
        ids = np.asarray(encoded["input_ids"], dtype=np.int64)
        offsets = np.asarray(encoded["offset_mapping"], dtype=np.int64).reshape(-1, 2)
        labels = np.full_like(ids, IGNORED_LABEL)
        for start, end in spans:
            # A token whose last character lies in the turn is the assistant's (its first may be the space before).
            inside = (offsets[:, 1] > start) & (offsets[:, 1] <= end) & (offsets[:, 1] > offsets[:, 0])
            labels[inside] = ids[inside]
        return self.expand(ids, labels, tokens)

    def expand(
        self, ids: np.ndarray, labels: np.ndarray, tokens: Sequence[int] | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Ids and labels with each image's one token repeated: ``tokens`` as in ``encode``."""
        at_image = ids == self.image_token_id
        if tokens is not None and len(tokens) != at_image.sum():
            raise ValueError(f"{at_image.sum()} images in the conversation, but tokens for {len(tokens)}")
        repeats = np.ones_like(ids)
        repeats[at_image] = self.image_tokens if tokens is None else tokens
        return np.repeat(ids, repeats), np.repeat(labels, repeats)

    def pad(
        self, rows: Sequence[np.ndarray], side: str, labels: Sequence[np.ndarray] | None = None
    ) -> dict[str, torch.Tensor]:
        """Batch ids of different lengths into ``input_ids``, ``attention_mask`` and, if given, ``labels`` (B, S).

        ``side`` is "right" for training and "left" for generation, where every row must end at the same place.
        """
        length = max(len(row) for row in rows)
        pad_id = self.tokenizer.pad_token_id

        def stack(values: Sequence[np.ndarray], fill: int) -> torch.Tensor:
            batch = np.full((len(values), length), fill, dtype=np.int64)
            for target, row in zip(batch, values, strict=True):
                target[slice(0, len(row)) if side == "right" else slice(length - len(row), None)] = row
            return torch.from_numpy(batch)

        batch = {
            "input_ids": stack(rows, pad_id),
            "attention_mask": stack([np.ones_like(row) for row in rows], 0),
        }
        if labels is not None:
            batch["labels"] = stack(labels, IGNORED_LABEL)
        return batch


def add_pose_token(tokenizer: Any) -> int:
    """Add ``<pose>`` to a tokenizer, if it lacks it, and return its id.

    It swallows the space before it (``lstrip``), so that "a car <pose>" never leaves a separate space piece. Raises
    ValueError when the text "<pose>" is not one token afterwards.
    """
    tokenizer.add_tokens([AddedToken(POSE_TOKEN, lstrip=True, normalized=False)])
    ids = tokenizer.encode(f"x {POSE_TOKEN}", add_special_tokens=False)
    token_id = int(tokenizer.convert_tokens_to_ids(POSE_TOKEN))
    if ids[-1] != token_id or ids.count(token_id) != 1:
        raise ValueError(f"{POSE_TOKEN} is not a single token of this tokenizer: {ids}")
    return token_id


def _harmless(message: dict[str, Any], marks: Sequence[str]) -> dict[str, Any]:
    parts = message["content"]
    return {**message, "content": [{**p, "text": without_marks(p["text"], marks)} if "text" in p else p for p in parts]}


def without_marks(text: str, marks: Sequence[str] = ("<image>", POSE_TOKEN)) -> str:
    """Somebody's words with the special tokens made harmless, so that no text can pose as an image or a pose.

    Round brackets, because leaving the pointed ones out would make a mark of ``<<image>>``.
    """
    for mark in marks:
        text = text.replace(mark, f"({mark.strip('<|>')})")
    return text
