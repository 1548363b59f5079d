"""Answers, token by token: any number of conversations side by side, each as if it were alone.

New conversations are prefilled together and join the running ones between two steps; one that has ended leaves at
once. What a conversation was prefilled with is kept, so that its next turn runs the new words alone, and no image is
looked at twice.
"""

from __future__ import annotations

import math
import random
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from .answer_text import AnswerText, before_stop
from .configuration import POSE_TOKEN
from .errors import UserError
from .grounding import grounded
from .image_inputs import ImageInputs
from .mirrored import mirrored_logits
from .reading import PoseReading, read_poses
from .row_cache import ImageSpan, Kept, KeptCaches, Layers, RowCache, common_beginning, image_spans

if TYPE_CHECKING:
    from .engine import Engine

MAX_NEW_TOKENS = 200

MOST_ROWS = 64
"""The most conversations that are answered side by side."""

RUNNING_BYTES = 2**32
"""How much their keys and values may take; one conversation is answered whatever it takes."""

PREFILL_TOKENS = 8192
"""The most tokens of a prefill, padding included: more would keep the running answers waiting."""

SHARED_PREFIX = 16
"""The shortest beginning that is taken over from another conversation: less does not pay for a mask."""

MASKED_ATTENTION = ("sdpa", "eager")
"""The attention implementations that honour a mask for each token; others answer one conversation at a time."""


@dataclass
class Answer:
    """An answer's text, with ``<pose>`` marks, and the reading of each mark in order.

    complete: whether the model ended the answer itself or a stop did, rather than the limit of tokens; finished:
    whether nothing more will come; tokens: the ids that the model wrote, without the one that ends an answer;
    prompt_tokens: how many the conversation before it takes.
    """

    text: str = ""
    readings: list[PoseReading] = field(default_factory=list)
    complete: bool = False
    finished: bool = False
    tokens: list[int] = field(default_factory=list)
    prompt_tokens: int = 0


@dataclass(frozen=True, eq=False)
class Request:
    """A conversation in transformers' message form that waits for an answer, with its images in reading order. Where
    these have their mirror images with them, each pose is read in those as well, and the logits are averaged.

    temperature: 0 for the likeliest token at each step, else of the drawing, among the likeliest that together have a
    probability of ``top_p``; stop: texts before the first of which the answer ends; seed: answers drawn by the same one
    are the same; growing: whether the answer is told at each step, rather than once at its end, which is less work.
    Raises UserError for a value out of range.
    """

    messages: Sequence[dict[str, Any]]
    images: ImageInputs | None = None
    max_new_tokens: int = MAX_NEW_TOKENS
    temperature: float = 0.0
    top_p: float = 1.0
    stop: tuple[str, ...] = ()
    seed: int | None = None
    growing: bool = True

    def __post_init__(self) -> None:
        if self.max_new_tokens < 1:
            raise UserError(f"max_new_tokens: {self.max_new_tokens}: at least 1 is needed")
        if not (math.isfinite(self.temperature) and self.temperature >= 0):
            raise UserError(f"temperature: {self.temperature}: a number from 0 on is needed")
        if not 0 < self.top_p <= 1:
            raise UserError(f"top_p: {self.top_p}: a number above 0 and up to 1 is needed")
        if "" in self.stop:
            raise UserError("stop: an empty text stops everything")


class _Row:
    """A conversation that waits or runs."""

    def __init__(self, request: Request, ids: np.ndarray, spans: list[ImageSpan], limit: int, processor: Any):
        self.request, self.ids, self.spans, self.limit = request, ids, spans, limit
        self.tokens: list[int] = []
        self.readings: list[PoseReading] = []
        self.pose_token_id = processor.pose_token_id
        self.pending: int | None = None
        self.finished = self.complete = False
        self._text = AnswerText(processor, request.stop)
        self._random = random.Random(request.seed)
        # What it starts from: the first tokens of another conversation.
        self.start: Layers | None = None
        self.shared = 0

    def common(self, other: _Row) -> int:
        """How many tokens of this conversation, but for the last, another one begins with."""
        return common_beginning(self.ids[:-1], self.spans, other.ids, other.spans)

    def draw(self) -> float:
        """A number from 0 to 1, of this row's own."""
        return self._random.random()

    def write(self, token: int, end: int) -> None:
        """The model's next token."""
        if token == end:
            self.pending, self.finished, self.complete = None, True, True
            return
        self.tokens.append(token)
        self.pending = token
        if token != self.pose_token_id:
            # A <pose> shows when it is read.
            self._text.add(token)
            self.finished = len(self.tokens) == self.limit

    def read(self, reading: PoseReading) -> None:
        """The pose at the token that was written last."""
        self.readings.append(reading)
        self._text.add(self.pose_token_id)
        self.finished = len(self.tokens) == self.limit

    def answer(self) -> Answer:
        """What can be said so far. A stop in the text finishes the row."""
        text, stopped = self._text.text(self.finished)
        ended = self.finished or stopped
        marks = text.count(POSE_TOKEN)
        text, cut = before_stop(grounded(text, self.readings[:marks], ended), self.request.stop, ended)
        if stopped or cut:
            self.finished = self.complete = True
        readings = self.readings[: text.count(POSE_TOKEN)]
        return Answer(text.rstrip(), readings, self.complete, self.finished, list(self.tokens), len(self.ids))


class Answering:
    """Requests to answers, a token a step. One thread drives it; ``kept``, the engine's if left out, is shared with
    others."""

    def __init__(self, engine: Engine, kept: KeptCaches | None = None):
        self._engine, self._kept = engine, engine.kept if kept is None else kept
        self._waiting: deque[_Row] = deque()
        self._rows: list[_Row] = []
        self._cache = RowCache()
        attention = engine.model.config.get_text_config()._attn_implementation
        self._most_rows = MOST_ROWS if attention in MASKED_ATTENTION else 1

    @property
    def running(self) -> int:
        """How many requests wait or run."""
        return len(self._waiting) + len(self._rows)

    def add(self, request: Request) -> None:
        """Put a request at the end of the queue. Raises UserError where the model cannot hold the conversation."""
        processor, context = self._engine.processor, self._engine.context
        ids = processor.encode(request.messages, () if request.images is None else request.images.tokens)[0]
        if len(ids) >= context:
            raise UserError(f"messages: {len(ids)} tokens, but this model holds {context}")
        spans = image_spans(ids, processor.image_token_id, request.images)
        limit = min(request.max_new_tokens, context - len(ids))
        self._waiting.append(_Row(request, ids, spans, limit, processor))

    @torch.inference_mode()
    def cancel(self, request: Request) -> None:
        """Answer this request no further; nothing happens where it is answered already."""
        self._waiting = deque(row for row in self._waiting if row.request is not request)
        for index, row in enumerate(self._rows):
            if row.request is request:
                self._leave(index)
                return

    @torch.inference_mode()
    def step(self) -> list[tuple[Request, Answer]]:
        """One more token for every running request and a first one for those that join: their answers so far. Those
        that are finished have left."""
        rows, states = list(self._rows), []
        if rows:
            tokens = [np.array([row.pending]) for row in rows]
            states.append(self._run(0, tokens, None))
            self._read_poses(rows, states[0])
        joining = self._next_group()
        if joining:
            states.append(self._prefill(joining))
        self._write(torch.cat(states) if states else None)
        told = [row for row in self._rows if row.finished or row.request.growing or row.request.stop]
        answers = [(row.request, row.answer()) for row in told]
        for index in reversed(range(len(self._rows))):
            if self._rows[index].finished:
                self._leave(index)
        return answers

    def _read_poses(self, rows: Sequence[_Row], states: torch.Tensor) -> None:
        """Read the poses of the rows that have just been fed one, from its own hidden state (B, H)."""
        model = self._engine.model
        at = [index for index, row in enumerate(rows) if row.pending == row.pose_token_id]
        if at:
            logits = model.pose_head(states[at])
            for place, row in enumerate(rows[index] for index in at):
                request = row.request
                if request.images is not None and request.images.mirrored is not None:
                    other = mirrored_logits(self._engine, request.messages, request.images.mirrored, row.tokens)
                    logits[place] = (logits[place] + other) / 2
            for index, reading in zip(at, read_poses(logits, model.calibration), strict=True):
                rows[index].read(reading)

    def _write(self, states: torch.Tensor | None) -> None:
        """Each unfinished row's next token, out of the states (B, H) of all rows."""
        going = [index for index, row in enumerate(self._rows) if not row.finished]
        if states is None or not going:
            return
        logits = self._engine.model.lm_head(states[going]).float()
        rows = [self._rows[index] for index in going]
        tokens = logits.argmax(-1)
        drawn = [index for index, row in enumerate(rows) if row.request.temperature > 0]
        if drawn:
            tokens[drawn] = _drawn(logits[drawn], [rows[index] for index in drawn])
        end = self._engine.stop_token_id
        for row, token in zip(rows, tokens.tolist(), strict=True):
            row.write(token, end)

    def _next_group(self) -> list[_Row]:
        """The waiting rows that are prefilled next: the first, and others of like length as far as there is room."""
        group: list[_Row] = []
        longest = shortest = 0
        columns = max((len(row.ids) + row.limit for row in self._rows), default=0)
        for row in list(self._waiting):
            wide = max(columns, len(row.ids) + row.limit)
            if len(self._rows) + len(group) >= self._allowed(wide):
                break
            self._find_start(row)
            if any((row.common(other) - row.shared) * 2 > len(row.ids) - row.shared for other in group):
                # Most of it will be there when the other one runs.
                continue
            rest = len(row.ids) - row.shared
            most, least = max(longest, rest), min(shortest or rest, rest)
            if group and ((len(group) + 1) * most > PREFILL_TOKENS or most > 2 * least):
                continue
            longest, shortest, columns = most, least, wide
            group.append(row)
            self._waiting.remove(row)
        return group

    def _find_start(self, row: _Row) -> None:
        """What a waiting row has most in common with: a conversation that was kept, or one that runs."""
        kept, row.shared = self._kept.longest(row.ids, row.spans)
        row.start = None if kept is None else kept.layers
        for index, other in enumerate(self._rows):
            if (shared := row.common(other)) > row.shared:
                row.start, row.shared = self._cache.view_of(index), shared
        if row.shared < SHARED_PREFIX:
            row.start, row.shared = None, 0

    def _allowed(self, columns: int) -> int:
        """How many rows of so many tokens may run side by side."""
        size = self._cache.bytes_per_token * columns
        # What a token takes is known when the first one is there.
        return 1 if not size else max(min(self._most_rows, RUNNING_BYTES // size), 1)

    def _prefill(self, rows: Sequence[_Row]) -> torch.Tensor:
        """Run the conversations of new rows, but for what they share with kept ones; the states (B, H) that predict
        their first tokens."""
        first, images = len(self._rows), []
        for row in rows:
            self._cache.add(row.start, row.shared)
            unseen = [index for index, span in enumerate(row.spans) if span.start >= row.shared]
            if unseen and row.request.images is not None:
                images.append(row.request.images.select(unseen))
            row.start = None
        self._rows += rows
        tokens = [row.ids[row.shared :] for row in rows]
        return self._run(first, tokens, ImageInputs.join(images) if images else None)

    def _run(self, first: int, tokens: Sequence[np.ndarray], images: ImageInputs | None) -> torch.Tensor:
        """Append tokens to the rows from ``first`` on; the states (B, H) of the last of each."""
        engine, counts = self._engine, [len(own) for own in tokens]
        model, device = engine.model, engine.device
        positions, seen = self._cache.place(first, counts, device)
        mask = None
        if seen is not None:
            mask = torch.zeros(seen.shape, dtype=model.dtype, device=device)
            mask.masked_fill_(~seen, torch.finfo(model.dtype).min)
        outputs = model.backbone(
            input_ids=engine.processor.pad(tokens, side="right")["input_ids"].to(device),
            position_ids=positions,
            attention_mask=mask,
            past_key_values=self._cache,
            use_cache=True,
            **({} if images is None else images.to(device, model.dtype).tensors),
        )
        return outputs.last_hidden_state[torch.arange(len(counts)), torch.tensor(counts) - 1]

    def _leave(self, index: int) -> None:
        """Take a row out, and keep what was run of it."""
        row, length = self._rows[index], self._cache.lengths[index]
        ids = np.concatenate([row.ids, np.array(row.tokens, dtype=row.ids.dtype)])[:length]
        self._kept.add(Kept(ids, row.spans, self._cache.copy_of(index)))
        self._cache.remove(index)
        last = self._rows.pop()
        if index < len(self._rows):
            self._rows[index] = last


def _drawn(logits: torch.Tensor, rows: Sequence[_Row]) -> torch.Tensor:
    """A token (B,) drawn from the logits (B, vocabulary) of each row, by its own numbers."""
    requests = [row.request for row in rows]
    temperature, top_p, drawn = (
        torch.tensor(values, dtype=torch.float64, device=logits.device)[:, None]
        for values in (
            [request.temperature for request in requests],
            [request.top_p for request in requests],
            [row.draw() for row in rows],
        )
    )
    probabilities, order = (logits.double() / temperature).softmax(-1).sort(dim=-1, descending=True, stable=True)
    until = probabilities.cumsum(-1)
    # The likeliest is always among them.
    until = until.where(until - probabilities < top_p, 0.0).cummax(-1).values
    place = (until <= drawn * until[:, -1:]).sum(-1, keepdim=True)
    return order.gather(-1, place.clamp(max=logits.shape[-1] - 1))[:, 0]


def stream(engine: Engine, request: Request) -> Iterator[Answer]:
    """The answer to one request as it grows. Raises UserError at once where the model cannot hold the conversation."""
    answering = Answering(engine)
    answering.add(request)
    return _until_finished(answering, request)


def _until_finished(answering: Answering, request: Request) -> Iterator[Answer]:
    try:
        while answering.running:
            for _, answer in answering.step():
                yield answer
    finally:
        answering.cancel(request)


def answer_all(engine: Engine, requests: Iterable[Request], together: int = MOST_ROWS) -> Iterator[Answer]:
    """The finished answers to the requests, in their order, up to ``together`` of them side by side; a request is taken
    when there is room. They depend on these requests alone, not on what the engine was asked before. Raises UserError
    where the model cannot hold a conversation."""
    answering = Answering(engine, KeptCaches())
    coming, asked, found = iter(requests), deque[Request](), dict[Request, Answer]()
    while True:
        for request in islice(coming, together - answering.running):
            answering.add(request)
            asked.append(request)
        if not asked:
            return
        found.update((request, answer) for request, answer in answering.step() if answer.finished)
        while asked and asked[0] in found:
            yield found.pop(asked.popleft())
