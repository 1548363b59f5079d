"""Rows for training: a pure function of the seed and the row's number in the run.

Sample ``n`` of a run (``n`` counts over all steps, processes and accumulation steps) always is the same record, flip
and conversation. A resumed run therefore needs no saved data order, and splitting a batch over processes or
accumulation steps changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch

from llava_pose import taxonomy
from llava_pose.census import Census
from llava_pose.conversation import training_conversation
from llava_pose.image_inputs import ImageInputs
from llava_pose.scene import PosedImage

from .features import FeatureCache

NEIGHBOURS = 16
"""Samples in a row that have as many turns as each other."""
CENSUS_ROWS = 1000
"""Rows, spread over the data, from which it is known what can be asked about it and how often."""


@dataclass(frozen=True)
class Split:
    """A ``datasets`` split and, where the tower's features are cached, those."""

    data: Any
    cache: FeatureCache | None


class TrainingRows(torch.utils.data.Dataset):
    """Samples by their number in the run, over the given splits laid end to end, shuffled anew each epoch."""

    def __init__(self, splits: Sequence[Split], processor: Any, seed: int, flip: bool, question_share: float = 0.5):
        self.processor, self.seed, self.flip, self.question_share = processor, seed, flip, question_share
        self.splits = list(splits)
        self._taxonomy = taxonomy.active()
        self._places = [(which, row) for which, split in enumerate(splits) for row in range(len(split.data))]
        # With cached features a row's image is never looked at: the records are small and kept at hand.
        self._records = [
            [PosedImage.from_row(row) for row in split.data.remove_columns("image")] if split.cache else []
            for split in splits
        ]
        self.census = Census.of(self._some_records())

    def _some_records(self) -> Iterator[PosedImage]:
        """Records from all of the data, without their images, and mirrored ones too where training flips."""
        without_images = [split.data.remove_columns("image") for split in self.splits]
        for which, row in self._places[:: max(1, len(self._places) // CENSUS_ROWS)]:
            record = PosedImage.from_row(without_images[which][row])
            yield from (record, record.mirrored()) if self.flip else (record,)

    def __len__(self) -> int:
        return len(self._places)

    def start_worker(self, _: int) -> None:
        """Name things in a worker process as in this one."""
        taxonomy.activate(self._taxonomy)

    def __getitem__(self, number: int) -> dict[str, Any]:
        which, row = self._place(number)
        split = self.splits[which]
        rng = np.random.default_rng([self.seed, 1, number])
        mirrored = self.flip and rng.random() < 0.5
        record = self._records[which][row] if split.cache else PosedImage.from_row(split.data[row])
        record = record.mirrored() if mirrored else record
        # Neighbours have as many turns as each other: a batch of them holds little padding.
        neighbours = np.random.default_rng([self.seed, 2, number // NEIGHBOURS])
        talk = training_conversation(record, rng, bool(neighbours.random() < self.question_share), self.census)
        pixels = None if split.cache else self.processor.pixels([record.image])
        ids, labels = self.processor.encode(talk.messages, None if pixels is None else pixels.tokens)
        marks = int((ids == self.processor.pose_token_id).sum())
        if marks != len(talk.poses):
            raise ValueError(f"{record.image_id}: {marks} <pose> tokens for {len(talk.poses)} poses")
        sample = {"ids": ids, "labels": labels, "poses": talk.poses}
        if split.cache is not None:
            sample["vision_features"] = split.cache.get(row, mirrored)
        else:
            sample["images"] = pixels
        return sample

    def name(self, number: int) -> str:
        """The id of the image that sample ``number`` is about."""
        which, row = self._place(number)
        return str(self.splits[which].data.select_columns(["image_id"])[row]["image_id"])

    def _place(self, number: int) -> tuple[int, int]:
        epoch, position = divmod(number, len(self._places))
        return self._places[_permutation(self.seed, epoch, len(self._places))[position]]

    def collate(self, samples: Sequence[dict[str, Any]]) -> dict[str, torch.Tensor]:
        """Batch samples for the model: padded on the right, the poses of all rows in reading order."""
        batch = self.processor.pad(
            [sample["ids"] for sample in samples], "right", [sample["labels"] for sample in samples]
        )
        batch["poses"] = torch.from_numpy(np.concatenate([sample["poses"] for sample in samples]))
        if "vision_features" in samples[0]:
            batch["vision_features"] = torch.stack([sample["vision_features"] for sample in samples])
        else:
            batch.update(ImageInputs.join([sample["images"] for sample in samples]).tensors)
        return batch


@lru_cache(maxsize=2)
def _permutation(seed: int, epoch: int, size: int) -> np.ndarray:
    return np.random.default_rng([seed, 0, epoch]).permutation(size)


@dataclass(frozen=True)
class MicroBatches:
    """The sample numbers of each micro batch of one process, from a step on: a ``batch_sampler``.

    Step s takes samples s·batch_size to (s+1)·batch_size − 1; process r of R and accumulation step a take their
    consecutive share.
    """

    first_step: int
    last_step: int
    batch_size: int
    micro_batch_size: int
    process: int
    processes: int

    def __len__(self) -> int:
        return (self.last_step - self.first_step) * self.accumulation

    @property
    def accumulation(self) -> int:
        """Micro batches of a process in a step."""
        return self.batch_size // (self.micro_batch_size * self.processes)

    def __iter__(self) -> Iterator[list[int]]:
        share = self.batch_size // self.processes
        for step in range(self.first_step, self.last_step):
            first = step * self.batch_size + self.process * share
            for offset in range(0, share, self.micro_batch_size):
                yield list(range(first + offset, first + offset + self.micro_batch_size))
