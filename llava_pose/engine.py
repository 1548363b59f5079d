"""Run the model: prefill once, then branch into candidate names or into an answer.

Works on token ids, prepared images and hidden states; everything about a family is behind the model's ``backbone`` and
the processor.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import torch
from PIL import Image

from . import conversation
from .bins import PoseBins
from .decoding import Prefill, all_names, best_names, name_states, score_names
from .errors import UserError
from .generation import MAX_NEW_TOKENS, Answer, Request, stream
from .image_inputs import ImageInputs
from .joint import Goal
from .processing import assistant_message, image_count, user_message, without_marks
from .reading import PoseReading, read_poses
from .row_cache import KeptCaches
from .trie import NameTrie

SHARED_PREFIX = 16
"""The shortest beginning of prompts that is kept apart. A shorter one saves some 2% of a prompt of 600 tokens at most,
and a cache before a prompt brings an attention mask that the prompt alone does without."""

PREFIXES_KEPT = 4
"""How many such beginnings an engine keeps: mostly one, of the system's words."""

TREE_ATTENTION = ("sdpa", "eager")
"""The attention implementations that honour a mask with a row for each token; others would leave it out silently."""


@dataclass(frozen=True)
class Naming:
    """The best names of an image among N candidates, and the poses read at the ``<pose>`` that ends them.

    names: indices of the best K, best first; probabilities (N,): over the candidates; log_probabilities (N,): of each
    name's tokens up to ``<pose>``; pose_logits (K, 3, bins) and readings: the poses of the best K; joint_confidence:
    the probability that the best name is right and its pose errs by less than π/6; given: the pose read at the name
    that was given, if one was; nodes: trie nodes computed.

    Where only the best names were searched for, the names never reached have probability 0 and log-probability NaN,
    ``unexplored`` bounds the probability of all of them together, and the other probabilities are lower bounds, by no
    more than that; elsewhere ``unexplored`` is 0.
    """

    names: tuple[int, ...]
    probabilities: np.ndarray
    log_probabilities: np.ndarray
    pose_logits: np.ndarray
    readings: tuple[PoseReading, ...]
    joint_confidence: float
    given: PoseReading | None
    unexplored: float
    nodes: int

    @property
    def index(self) -> int:
        """The best name."""
        return self.names[0]

    @property
    def reading(self) -> PoseReading:
        """The pose read at the best name."""
        return self.readings[0]


class Engine:
    """A model and its processor, ready to answer. Calls share nothing that changes, so threads may make them side by
    side; the weights must stay as they are while an engine lives."""

    def __init__(self, model: Any, processor: Any):
        self.model = model.eval()
        self.processor = processor
        self.stop_token_id: int = processor.stop_token_id
        # What prompts began with, run once: never changed, only copied. Threads may at worst do the same work twice.
        self._prefixes: dict[tuple[torch.device, bytes], Any] = {}
        # What answers were prefilled with: their next turns go on from there.
        self.kept = KeptCaches()

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return next(self.model.parameters()).device

    @property
    def context(self) -> int:
        """The number of tokens, the image's included, that the language model was built for."""
        return int(self.model.config.get_text_config().max_position_embeddings)

    def prompt_length(self, messages: Sequence[dict[str, Any]]) -> int:
        """The number of tokens of a conversation, with the most that its images may take."""
        return len(self.processor.encode(messages)[0])

    def pixels(self, images: Sequence[Image.Image], flip: bool = False) -> ImageInputs:
        """What the model is given of images, with ``flip`` of their mirror images too, in page-locked memory where the
        model is on a GPU, so that the transfer need not wait. For threads that prepare images ahead of need."""
        pixels: ImageInputs = self.processor.pixels(images, flip)
        return pixels.pin_memory() if self.device.type == "cuda" else pixels

    @torch.inference_mode()
    def prefill(self, messages: Sequence[Sequence[dict[str, Any]]], pixels: ImageInputs | None) -> Prefill:
        """Run B conversations, each up to the point where the model answers, on their images in reading order."""
        tokens = iter(() if pixels is None else pixels.tokens)
        counts = [list(islice(tokens, image_count(conversation))) for conversation in messages]
        rows = [self.processor.encode(row, own)[0] for row, own in zip(messages, counts, strict=True)]
        return self._prefill(rows, pixels)

    def _prefill(self, rows: Sequence[np.ndarray], pixels: ImageInputs | None) -> Prefill:
        shared = self._shared_length(rows)
        rest = self.processor.pad([row[shared:] for row in rows], side="left")
        inputs: dict[str, Any] = {name: value.to(self.device) for name, value in rest.items()}
        if shared:
            # A cache before the prompts: what they share comes in front of the padding.
            before = inputs["attention_mask"].new_ones(len(rows), shared)
            inputs["attention_mask"] = torch.cat([before, inputs["attention_mask"]], 1)
            inputs["past_key_values"] = self._shared_cache(rows[0][:shared], len(rows))
        mask = inputs["attention_mask"]
        if pixels is not None:
            inputs.update(pixels.to(self.device, self.model.dtype).tensors)
        outputs = self.model.backbone(
            **inputs,
            # Positions count real tokens only, so that padding on the left changes nothing.
            position_ids=(mask.cumsum(-1) - 1).clamp(min=0)[:, shared:],
            use_cache=True,
        )
        return Prefill(outputs.past_key_values, mask, mask.sum(-1), outputs.last_hidden_state[:, -1])

    def _shared_length(self, rows: Sequence[np.ndarray]) -> int:
        """How many tokens all of these prompts begin with alike before the first image, if it pays to keep them."""
        is_image = [row == self.processor.image_token_id for row in rows]
        if not all(row.any() for row in is_image):
            return 0
        before = min(int(row.argmax()) for row in is_image)
        same = np.all([row[:before] == rows[0][:before] for row in rows], axis=0)
        shared = before if same.all() else int(same.argmin())
        return shared if shared >= SHARED_PREFIX else 0

    def _shared_cache(self, ids: np.ndarray, batch: int) -> Any:
        key = (self.device, ids.tobytes())
        kept = self._prefixes.get(key)
        if kept is None:
            inputs = torch.from_numpy(ids)[None].to(self.device)
            kept = self.model.backbone(input_ids=inputs, use_cache=True).past_key_values
            if len(self._prefixes) >= PREFIXES_KEPT:
                self._prefixes.clear()
            self._prefixes[key] = kept
        cache = copy.deepcopy(kept)
        cache.batch_repeat_interleave(batch)
        return cache

    def name_trie(self, categories: Sequence[str], scoring: str = "sum", temperature: float | None = None) -> NameTrie:
        """The trie of the answers that name each category, each up to and including its ``<pose>``.

        scoring: how names compare: "sum" of their tokens' log-probabilities, as they were trained; "mean" of them; or
        "prior", the sum less that of the same answer to the question asked without an image, so that a name is not
        chosen for being frequent. temperature: of the softmax over the scores; when left out, the one that the model's
        calibration found for sums, and 1 otherwise.

        Raises UserError for no name, one given twice, one without tokens and two that are the same tokens.
        """
        if not categories:
            raise UserError("categories: no name given")
        sequences: dict[tuple[int, ...], str] = {}
        prompt = self.processor.encode(conversation.naming_messages())[0]
        for category in categories:
            tokens = self._name_tokens(category, prompt)
            if (other := sequences.get(tokens)) is not None:
                same = "is given twice" if other == category else f"and {other!r} are the same tokens to this model"
                raise UserError(f"categories: {category!r} {same}")
            sequences[tokens] = category
        trie = NameTrie.build(list(sequences))
        if temperature is None:
            calibration = self.model.calibration
            temperature = 1.0 if calibration is None or scoring != "sum" else calibration.class_temperature
        try:
            return trie.scored(scoring, temperature, self._prior(trie) if scoring == "prior" else None)
        except ValueError as error:
            raise UserError(str(error)) from error

    def _name_tokens(self, category: str, prompt: np.ndarray) -> tuple[int, ...]:
        answer = conversation.naming_answer(category)
        if without_marks(category) != category:
            raise UserError(f"categories: {category!r} holds a mark that is not part of a name")
        ids = self.processor.encode([*conversation.naming_messages(), assistant_message(answer)])[0]
        if not np.array_equal(ids[: len(prompt)], prompt):
            raise UserError(f"categories: the tokenizer merges the prompt's end with {category!r}")
        tokens = ids[len(prompt) :].tolist()
        name = tuple(tokens[: tokens.index(self.processor.pose_token_id) + 1])
        if not self.processor.tokenizer.decode(name[:-1]).strip():
            raise UserError(f"categories: {category!r} is a name without tokens")
        return name

    @torch.inference_mode()
    def _prior(self, trie: NameTrie) -> np.ndarray:
        """The log-probability (N,) of every name after the question alone."""
        state = self.prefill([[user_message(conversation.NAMING_QUESTION)]], None)
        return score_names(self.model, state, trie)[0].double().cpu().numpy()

    @torch.inference_mode()
    def name(
        self,
        images: Sequence[Image.Image] | ImageInputs,
        trie: NameTrie,
        *,
        top_k: int = 1,
        distribution: bool = True,
        given: Sequence[int] | None = None,
        flip: bool = False,
        goal: Goal = "mean",
    ) -> list[Naming]:
        """Name each of B images among the trie's N candidates and read its pose, without another prefill.

        images: pictures, or what ``pixels`` made of them, with their mirror images where ``flip`` is; top_k: how many
        of the best names are wanted, with their poses; distribution: whether every name's probability is, or only the
        best names, as exactly (up to the rounding of the model's precision) and in less time; given: for each image a
        name at which the pose is read besides; flip: whether each pose is read in the mirror image as well, at another
        prefill's cost, and its logits averaged: a pose reads better by both; goal: what a pose is chosen for.
        """
        if len(images) == 0:
            return []
        pixels = self._prepared(images, flip)
        state = self._ask_for_names(pixels)
        extra = np.asarray(np.zeros((len(pixels), 0)) if given is None else np.reshape(given, (-1, 1)), dtype=np.int64)
        find = all_names if distribution else best_names
        best = find(self.model, state, trie, top_k, extra)
        logits = self.model.pose_head(best.states)
        if flip:
            logits = self._with_mirrored(logits, pixels, trie, np.concatenate([best.names, extra], axis=1))
        all_readings = read_poses(logits.flatten(0, 1), self.model.calibration, goal)
        namings, wanted, count = [], logits.shape[1], best.names.shape[1]
        for row, row_logits in enumerate(logits.float().cpu()):
            readings = all_readings[row * wanted : (row + 1) * wanted]
            namings.append(
                Naming(
                    names=tuple(best.names[row].tolist()),
                    probabilities=best.probabilities[row],
                    log_probabilities=best.log_probabilities[row],
                    pose_logits=row_logits[:count].numpy(),
                    readings=tuple(readings[:count]),
                    joint_confidence=self._joint_confidence(readings[0], best.probabilities[row, best.names[row, 0]]),
                    given=None if given is None else readings[-1],
                    unexplored=float(best.unexplored[row]),
                    nodes=int(best.nodes[row]),
                )
            )
        return namings

    def _joint_confidence(self, reading: PoseReading, class_probability: float) -> float:
        calibration = self.model.calibration
        if calibration is None:
            return reading.confidence * float(class_probability)
        return float(calibration.hit_and_class(reading.confidence, class_probability))

    @torch.inference_mode()
    def read_names(
        self,
        images: Sequence[Image.Image] | ImageInputs,
        trie: NameTrie,
        names: Sequence[int],
        *,
        flip: bool = False,
        goal: Goal = "mean",
    ) -> list[PoseReading]:
        """The pose of each of B images read at the ``<pose>`` of the one name (B,) of the trie that it is known to
        have, without any naming; images, flip and goal as for ``name``."""
        if len(images) == 0:
            return []
        pixels = self._prepared(images, flip)
        state = self._ask_for_names(pixels)
        columns = np.asarray(names, dtype=np.int64).reshape(-1, 1)
        logits = self.model.pose_head(name_states(self.model, state, trie, columns))
        if flip:
            logits = self._with_mirrored(logits, pixels, trie, columns)
        return read_poses(logits[:, 0], self.model.calibration, goal)

    def _prepared(self, images: Sequence[Image.Image] | ImageInputs, flip: bool) -> ImageInputs:
        pixels = images if isinstance(images, ImageInputs) else self.processor.pixels(images, flip)
        if flip and pixels.mirrored is None:
            raise ValueError("flip: these images were prepared without their mirror images")
        return pixels

    def _ask_for_names(self, pixels: ImageInputs) -> Prefill:
        """The question for a name, run on each image."""
        attention = self.model.config.get_text_config()._attn_implementation
        if attention not in TREE_ATTENTION:
            raise UserError(f"attn_implementation: {attention!r} cannot score names; open the model with 'sdpa'")
        asked = conversation.naming_messages()
        prompts = {count: self.processor.encode(asked, [count])[0] for count in set(pixels.tokens)}
        return self._prefill([prompts[count] for count in pixels.tokens], pixels)

    def _with_mirrored(
        self, logits: torch.Tensor, pixels: ImageInputs, trie: NameTrie, names: np.ndarray
    ) -> torch.Tensor:
        """Pose logits (B, K, 3, bins) averaged with those read at the same names (B, K) in the mirror images."""
        assert pixels.mirrored is not None
        states = name_states(self.model, self._ask_for_names(pixels.mirrored), trie, names)
        return (logits + PoseBins(logits.shape[-1]).mirror(self.model.pose_head(states))) / 2

    def stream(
        self, messages: Sequence[dict[str, Any]], images: ImageInputs | None, max_new_tokens: int = MAX_NEW_TOKENS
    ) -> Iterator[Answer]:
        """Answer one conversation greedily, yielding the answer as it grows. Raises UserError at once where the model
        cannot hold the conversation."""
        return stream(self, Request(messages, images, max_new_tokens))

    def answer(
        self, messages: Sequence[dict[str, Any]], images: ImageInputs | None, max_new_tokens: int = MAX_NEW_TOKENS
    ) -> Answer:
        """The whole answer to one conversation."""
        *_, last = self.stream(messages, images, max_new_tokens)
        return last
