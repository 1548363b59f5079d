"""Keys and values of conversations: of those that are being answered, and of those that may go on.

A language model's cache here has a row for each conversation, whose tokens lie in the columns from 0 on. Rows are of
different lengths and grow in place; what lies behind a row's end is never seen, and is written over.
"""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from transformers.cache_utils import Cache

from .image_inputs import ImageInputs

COLUMNS = 128
"""Buffers are longer than their rows by up to so many columns, so that they seldom have to be made anew."""

KEPT_BYTES = 2**30
"""How much is kept of conversations that may go on. The newest one is kept whatever it takes."""

MOST_KEPT = 128
"""The most of them: each is compared with every new conversation."""

Layers = list[tuple[torch.Tensor, torch.Tensor]]
"""The keys and values (heads, tokens, channels) of one conversation in every layer."""


class RowCache(Cache):
    """The rows that are being answered, in buffers with room to grow: nothing is copied from step to step.

    ``place`` says where the next forward pass writes, then the model does so through ``update``.
    """

    def __init__(self) -> None:
        super().__init__(layers=[])
        self._buffers: list[list[torch.Tensor]] = []
        self.lengths: list[int] = []
        self._rows = slice(0)
        self._starts: list[int] = []
        self._at: tuple[torch.Tensor, torch.Tensor] | None = None
        self._room = (0, 0)

    @property
    def bytes_per_token(self) -> int:
        """What a token takes; 0 until a first one was there."""
        buffers = [buffer for layer in self._buffers for buffer in layer]
        return sum(buffer.shape[1] * buffer.shape[3] * buffer.element_size() for buffer in buffers)

    def add(self, kept: Layers | None = None, length: int = 0) -> None:
        """A row behind the others, which begins with the first ``length`` tokens of ``kept``."""
        row = len(self.lengths)
        self.lengths.append(length)
        if kept is None or not length:
            return
        if not self._buffers:
            self._buffers = [[value.new_empty(0, value.shape[0], 0, value.shape[2]) for value in own] for own in kept]
        self._make_room(row + 1, length)
        for buffers, values in zip(self._buffers, kept, strict=True):
            for buffer, value in zip(buffers, values, strict=True):
                buffer[row, :, :length] = value[:, :length]

    def remove(self, row: int) -> None:
        """Take a row away; the last one moves into its place."""
        last = self.lengths.pop()
        if row < len(self.lengths):
            for buffer in (buffer for layer in self._buffers for buffer in layer):
                buffer[row, :, :last] = buffer[len(self.lengths), :, :last]
            self.lengths[row] = last
        if not self.lengths:
            self._room = (0, 0)
            for buffers in self._buffers:
                buffers[:] = [buffer.new_zeros(0, buffer.shape[1], 0, buffer.shape[3]) for buffer in buffers]

    def view_of(self, row: int) -> Layers:
        """A row's keys and values as they are now."""
        length = self.lengths[row]
        return [(keys[row, :, :length], values[row, :, :length]) for keys, values in self._buffers]

    def copy_of(self, row: int) -> Layers:
        """A row's keys and values, apart from the buffers."""
        return [(keys.clone(), values.clone()) for keys, values in self.view_of(row)]

    def place(
        self, first: int, counts: Sequence[int], device: torch.device
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Let the next pass append ``counts`` (B,) tokens, padded on the right, to the B rows from ``first`` on.

        Returns their positions (B, Q), and for rows of different lengths the mask (B, 1, Q, columns) of what each token
        sees, boolean; None where every row sees what comes before its token and all begin at one column.
        """
        self._rows = slice(first, first + len(counts))
        self._starts = self.lengths[self._rows]
        width = max(counts)
        self._make_room(self._rows.stop, max(self._starts) + width)
        starts = torch.tensor(self._starts, device=device)
        positions = starts[:, None] + torch.arange(width, device=device)
        for row, count in enumerate(counts, start=first):
            self.lengths[row] += count
        self._at = None
        if len(set(self._starts)) == 1:
            return positions, None
        self._at = (torch.arange(first, self._rows.stop, device=device)[:, None], positions)
        columns = torch.arange(max(self._starts) + width, device=device)
        return positions, (columns <= positions[..., None])[:, None]

    def _make_room(self, rows: int, columns: int) -> None:
        had_rows, had_columns = self._room
        if rows <= had_rows and columns <= had_columns:
            return
        rows = had_rows if rows <= had_rows else max(rows, min(2 * had_rows, had_rows + 8))
        columns = had_columns if columns <= had_columns else -(-columns // COLUMNS) * COLUMNS
        self._room = (rows, columns)
        for buffers in self._buffers:
            buffers[:] = [_grown(buffer, rows, columns) for buffer in buffers]

    # What transformers asks of a cache

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Write a layer's keys and values (B, heads, Q, channels) of the pass that ``place`` announced; returns all
        that its rows hold."""
        states = (key_states, value_states)
        if layer_idx == len(self._buffers):
            empty = [value.new_empty(0, value.shape[1], 0, value.shape[3]) for value in states]
            self._buffers.append([_grown(buffer, *self._room) for buffer in empty])
        end = max(self._starts) + key_states.shape[2]
        for buffer, value in zip(self._buffers[layer_idx], states, strict=True):
            if self._at is None:
                buffer[self._rows, :, self._starts[0] : end] = value
            else:
                # A model may be spread over several devices.
                rows, columns = (place.to(buffer.device) for place in self._at)
                buffer[rows, :, columns] = value.transpose(1, 2)
        keys, values = (buffer[self._rows, :, :end] for buffer in self._buffers[layer_idx])
        return keys, values

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """The column at which the rows of a pass without a mask begin."""
        return self._starts[0]

    def get_mask_sizes(self, query_length: int, layer_idx: int) -> tuple[int, int]:
        """How many columns a pass of so many tokens sees, from the first on."""
        return self._starts[0] + query_length, 0


def _grown(buffer: torch.Tensor, rows: int, columns: int) -> torch.Tensor:
    """A buffer of that size with the same contents. Zeros elsewhere: what is masked counts for nothing, unless it is
    not finite."""
    grown = buffer.new_zeros(rows, buffer.shape[1], columns, buffer.shape[3])
    grown[: len(buffer), :, : buffer.shape[2]] = buffer
    return grown


class ImageSpan(NamedTuple):
    """Where an image's tokens are in a conversation, and what tells the image from others."""

    start: int
    end: int
    digest: bytes


def image_spans(ids: np.ndarray, image_token_id: int, images: ImageInputs | None) -> list[ImageSpan]:
    """The spans of a conversation's images in reading order, out of its token ids (S,)."""
    if images is None:
        return []
    places = np.split(np.flatnonzero(ids == image_token_id), np.cumsum(images.tokens)[:-1])
    return [
        ImageSpan(int(place[0]), int(place[-1]) + 1, image_digest(images.select([index])))
        for index, place in enumerate(places)
    ]


def image_digest(image: ImageInputs) -> bytes:
    """What tells a prepared image from every other, whatever it was joined with."""
    digest = hashlib.blake2b(digest_size=16)
    for name, value in sorted(image.tensors.items()):
        tensor = value[0].cpu()
        if tensor.ndim == 4:
            # Tiles are filled up with zeros to as many as the images beside it have.
            tensor = tensor[: int(tensor.flatten(1).any(1).sum())]
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)} ".encode())
        digest.update(tensor.contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.digest()


@dataclass(frozen=True)
class Kept:
    """A conversation that may go on: its token ids (S,), its images, and its keys and values."""

    ids: np.ndarray
    spans: Sequence[ImageSpan]
    layers: Layers

    @property
    def nbytes(self) -> int:
        return sum(value.nbytes for layer in self.layers for value in layer)


def common_beginning(
    ids: np.ndarray, spans: Sequence[ImageSpan], other_ids: np.ndarray, other_spans: Sequence[ImageSpan]
) -> int:
    """How many tokens two conversations have in common from the beginning, with equal images and none of them cut."""
    shorter = min(len(ids), len(other_ids))
    same = ids[:shorter] == other_ids[:shorter]
    length = shorter if same.all() else int(same.argmin())
    for own, other in zip(spans, other_spans, strict=False):
        if own.start < length and (own != other or own.end > length):
            return own.start
    return length


class KeptCaches:
    """The newest conversations, bounded by bytes and ``MOST_KEPT``. Threads may share one."""

    def __init__(self, max_bytes: int = KEPT_BYTES):
        self.max_bytes = max_bytes
        self._entries: OrderedDict[int, Kept] = OrderedDict()
        self._bytes = self._number = 0
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._entries)

    def add(self, kept: Kept) -> None:
        """Keep a conversation, and forget the oldest and what it continues."""
        with self._lock:
            for number, entry in list(self._entries.items()):
                if common_beginning(entry.ids, entry.spans, kept.ids, kept.spans) == len(entry.ids):
                    self._drop(number)
            self._number += 1
            self._entries[self._number] = kept
            self._bytes += kept.nbytes
            while len(self._entries) > 1 and (self._bytes > self.max_bytes or len(self._entries) > MOST_KEPT):
                self._drop(next(iter(self._entries)))

    def longest(self, ids: np.ndarray, spans: Sequence[ImageSpan]) -> tuple[Kept | None, int]:
        """The conversation that has most in common with the beginning of this one, and how many tokens; at least one
        token of this one is left to be run."""
        with self._lock:
            found = [
                (common_beginning(entry.ids, entry.spans, ids[:-1], spans), number)
                for number, entry in self._entries.items()
            ]
            length, number = max(found, default=(0, 0))
            if not length:
                return None, 0
            self._entries.move_to_end(number)
            return self._entries[number], length

    def _drop(self, number: int) -> None:
        self._bytes -= self._entries.pop(number).nbytes
