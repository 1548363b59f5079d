"""Samples for training: which row, mirrored or not, and what is said about it follow from the seed and the number.

Sample n of a run (``train.sampling``) always is the same record, flip and conversation, whatever ran before it and in
which process.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from PIL import Image

from llava_pose import taxonomy
from llava_pose.census import Census
from llava_pose.conversation import Conversation, training_conversation
from llava_pose.errors import UserError
from llava_pose.image_inputs import ImageInputs
from llava_pose.images import open_image
from llava_pose.processing import user_message
from llava_pose.scene import PosedImage

from .config import TrainConfig
from .features import FeatureCache, FilePictures, Pictures, RowPictures, build_feature_cache
from .sampling import Balance, MicroBatches, Mixture, Share, Windows, row_probabilities
from .sets import PlainRows, PosedRows, Rows

CENSUS_ROWS = 1000
"""Rows, spread over the data, from which it is known what can be asked about it and how often."""
CHARACTERS_A_TOKEN = 3.5
"""Of English with a usual tokenizer. Lengths are only compared: it decides how a sentence counts beside an image."""
KEPT_CONVERSATIONS = 4096
"""So many encoded conversations are kept: asking for a name alone, there is one for each category."""


class TrainingRows(torch.utils.data.Dataset):
    """Samples by their number in the run.

    A *draw* is a row with the chances of one sample; which of them is sample n is decided by length, where samples are
    grouped (``batch_size`` is given), and otherwise draw n is sample n.

    flip: posed images are mirrored at random, plain ones never: their text may speak of sides. question_share: of
    posed conversations, how many have a 3D question. max_text_tokens: of a plain conversation, beside its images.
    """

    def __init__(
        self,
        sets: Sequence[Rows],
        processor: Any,
        seed: int,
        flip: bool,
        question_share: float = 0.5,
        balance: Balance = "none",
        max_text_tokens: int = 2048,
        batch_size: int | None = None,
    ):
        self.sets, self.processor, self.seed, self.flip = list(sets), processor, seed, flip
        self.question_share, self.max_text_tokens = question_share, max_text_tokens
        self._taxonomy = taxonomy.active()
        shares = [
            Share(
                len(rows),
                rows.weight,
                row_probabilities(rows.objects, balance) if isinstance(rows, PosedRows) else None,
            )
            for rows in self.sets
        ]
        self.mixture = Mixture(tuple(shares), seed)
        self.windows = None if batch_size is None else Windows(batch_size, seed, self._length)
        self.census = Census.of(self._some_records())
        self._encoded: dict[Any, tuple[np.ndarray, np.ndarray]] = {}

    def _some_records(self) -> Iterator[PosedImage]:
        """Posed records as an epoch has them, without their images, and mirrored ones too where training flips."""
        for number in range(0, len(self), max(1, len(self) // CENSUS_ROWS)):
            which, row = self.mixture.place(number)
            rows = self.sets[which]
            if isinstance(rows, PosedRows):
                record = PosedImage.from_row(rows.without_images[row])
                yield from (record, record.mirrored()) if self.flip else (record,)

    def __len__(self) -> int:
        """Samples of an epoch."""
        return len(self.mixture)

    def _drawn(self, draw: int) -> tuple[Rows, int, np.random.Generator, bool, bool]:
        """A draw's data set, row and further chances, whether it is mirrored and whether it has a 3D question."""
        which, row = self.mixture.place(draw)
        rng = np.random.default_rng([self.seed, 2, draw])
        mirror, ask = rng.random(2)
        return self.sets[which], row, rng, bool(self.flip and mirror < 0.5), bool(ask < self.question_share)

    def _length(self, draw: int) -> float:
        """About how many tokens a draw has, without making its conversation."""
        rows, row, _, _, asked = self._drawn(draw)
        characters, images = rows.size(row, asked)
        return min(characters / CHARACTERS_A_TOKEN, self.max_text_tokens) + images * self.processor.image_tokens

    def _sampled(self, number: int) -> tuple[Rows, int, np.random.Generator, bool, bool]:
        return self._drawn(number if self.windows is None else self.windows.draw(number))

    def name(self, number: int) -> str:
        """What sample ``number`` is about: its image's id, or its place in a file of plain conversations."""
        rows, row, _, _, _ = self._sampled(number)
        if isinstance(rows, PlainRows):
            return f"{rows.conversations.path} entry {row}"
        return str(rows.without_images[row]["image_id"])

    def talk(self, number: int) -> tuple[PosedImage, Conversation]:
        """What posed sample ``number`` shows, without its image where cached features stand in, and says."""
        rows, row, rng, mirrored, asked = self._sampled(number)
        assert isinstance(rows, PosedRows)
        return self._talk(rows, row, rng, mirrored, asked)

    def _talk(
        self, rows: PosedRows, row: int, rng: np.random.Generator, mirrored: bool, asked: bool
    ) -> tuple[PosedImage, Conversation]:
        record = rows.record(row)
        record = record.mirrored() if mirrored else record
        return record, training_conversation(record, rng, asked, self.census)

    def __getitem__(self, number: int) -> dict[str, Any] | UserError:
        """A sample's ``ids`` and ``labels`` (S,), ``poses`` (P, 3), and of its images, if any, either ``images`` or
        cached ``vision_features`` (N, tokens, channels). What is wrong with it is returned, for ``read_batches`` to
        raise: raised in a worker it would arrive as a traceback."""
        rows, row, rng, mirrored, asked = self._sampled(number)
        try:
            if isinstance(rows, PlainRows):
                return self._plain(rows, row)
            return self._posed(rows, row, rng, mirrored, asked)
        except UserError as error:
            return error

    def _posed(
        self, rows: PosedRows, row: int, rng: np.random.Generator, mirrored: bool, asked: bool
    ) -> dict[str, Any]:
        record, talk = self._talk(rows, row, rng, mirrored, asked)
        ids, labels = self._encode(talk.messages)
        marks = int((ids == self.processor.pose_token_id).sum())
        if marks != len(talk.poses):
            raise ValueError(f"{record.image_id}: {marks} <pose> tokens for {len(talk.poses)} poses")
        features = None if rows.cache is None else [rows.cache.get(row, mirrored)]
        return self._sample(ids, labels, talk.poses, [record.image], features)

    def _encode(self, messages: list[dict[str, Any]]) -> tuple[np.ndarray, np.ndarray]:
        """Ids and labels of a conversation about one image, which is one token yet. Not to be written to."""
        said = tuple(part.get("text") for message in messages for part in message["content"])
        if said not in self._encoded:
            if len(self._encoded) >= KEPT_CONVERSATIONS:
                self._encoded.clear()
            self._encoded[said] = self.processor.encode(messages, [1])
        return self._encoded[said]

    def _plain(self, rows: PlainRows, row: int) -> dict[str, Any]:
        messages, pictures = rows.conversations.messages(row), rows.conversations.pictures(row)
        ids, labels = self.processor.encode(messages, [1] * len(pictures))
        ids, labels = cut_to_length(ids, labels, self.max_text_tokens)
        pictures = pictures[: int((ids == self.processor.image_token_id).sum())]
        poses = np.empty((0, 3))
        if rows.cache is not None:
            return self._sample(ids, labels, poses, [], [rows.cache.get(number, False) for number in pictures])
        images = [open_image(rows.conversations.files[number]) for number in pictures]
        return self._sample(ids, labels, poses, images, None)

    def _sample(
        self, ids: np.ndarray, labels: np.ndarray, poses: np.ndarray, images: list[Any], features: list[Any] | None
    ) -> dict[str, Any]:
        sample: dict[str, Any] = {"poses": poses}
        tokens = None
        if features:
            sample["vision_features"] = torch.stack(features)
        elif images:
            sample["images"] = self.processor.pixels(images)
            tokens = sample["images"].tokens
        sample["ids"], sample["labels"] = self.processor.expand(ids, labels, tokens)
        return sample

    @cached_property
    def _blank(self) -> dict[str, Any]:
        """One more row for a batch without images: a blank picture of which nothing is asked or said. Projector and
        trained tower then have a gradient, of 0, on every batch: processes with images wait for those without."""
        ids, labels = self.processor.encode([user_message("", images=1)], [1])
        caches = [rows.cache for rows in self.sets if rows.cache is not None]
        features = [torch.zeros_like(caches[0].get(0, False))] if caches else None
        return self._sample(ids, labels, np.empty((0, 3)), [Image.new("RGB", (8, 8))], features)

    def collate(self, samples: Sequence[dict[str, Any] | UserError]) -> dict[str, torch.Tensor] | UserError:
        """Batch samples for the model: padded on the right, poses and images of all rows in reading order."""
        rows = [sample for sample in samples if not isinstance(sample, UserError)]
        if len(rows) < len(samples):
            return next(sample for sample in samples if isinstance(sample, UserError))
        if not any("images" in row or "vision_features" in row for row in rows):
            rows.append(self._blank)
        batch = self.processor.pad([row["ids"] for row in rows], "right", [row["labels"] for row in rows])
        batch["poses"] = torch.from_numpy(np.concatenate([row["poses"] for row in rows]))
        features = [row["vision_features"] for row in rows if "vision_features" in row]
        images = [row["images"] for row in rows if "images" in row]
        if features:
            batch["vision_features"] = torch.cat(features)
        if images:
            batch.update(ImageInputs.join(images).tensors)
        return batch

    def start_worker(self, _: int) -> None:
        """Name things in a worker process as in this one, and leave an interrupt to the process that waits for it."""
        taxonomy.activate(self._taxonomy)
        signal.signal(signal.SIGINT, signal.SIG_IGN)


def cut_to_length(ids: np.ndarray, labels: np.ndarray, most: int) -> tuple[np.ndarray, np.ndarray]:
    """A conversation's ids and labels (S,), each image still one token, without the later turns that reach beyond
    ``most`` tokens; a single turn that does is cut there."""
    if len(ids) <= most:
        return ids, labels
    supervised = labels != -100
    ends = np.flatnonzero(supervised[:most] & ~supervised[1 : most + 1]) + 1
    end = int(ends[-1]) if len(ends) else most
    return ids[:end], labels[:end]


def training_rows(
    config: TrainConfig, sets: Sequence[Rows], model: Any, processor: Any, accelerator: Accelerator, run: Path
) -> TrainingRows:
    """The samples of a run, with the frozen tower's features cached if the configuration says so.

    Raises UserError where those features would change, or where a picture's are not one block of one size.
    """
    if config.cache_features:
        if config.model.train_vision_tower:
            raise UserError("cache_features: a trained vision tower's features change; set it to false")
        folder = Path(config.cache_dir) if config.cache_dir else run / "features"
        model.to(accelerator.device)
        with accelerator.main_process_first():
            bare = model.get_base_model() if config.model.lora else model
            half = config.precision == "bf16"
            cache_features(sets, bare, processor, folder, config.flip, accelerator.is_local_main_process, half)
    sampling = config.sampling
    return TrainingRows(
        sets,
        processor,
        config.seed,
        config.flip,
        config.question_share,
        sampling.balance,
        sampling.max_text_tokens,
        config.batch_size if sampling.group_by_length else None,
    )


def cache_features(
    sets: Sequence[Rows], model: Any, processor: Any, folder: Path, flip: bool, show_progress: bool, half: bool = False
) -> None:
    """Give every data set its pictures' features by the frozen tower, computed where they are not yet in ``folder``;
    ``half``: in bfloat16."""
    for rows in sets:
        if isinstance(rows, PosedRows):
            pictures: Pictures = RowPictures(rows.data, 2 if flip else 1)
        elif rows.conversations.files:
            pictures = FilePictures(rows.conversations.files)
        else:
            continue
        rows.cache = FeatureCache(build_feature_cache(model, processor, pictures, folder, show_progress, half))


def read_batches(rows: TrainingRows, numbers: MicroBatches, workers: int, pin_memory: bool) -> Iterator[dict[str, Any]]:
    """The micro batches of one process, made by worker processes ahead of need.

    Raises UserError in its place where a sample cannot be made.
    """
    loader = torch.utils.data.DataLoader(
        rows,
        batch_sampler=numbers,
        collate_fn=rows.collate,
        num_workers=workers,
        worker_init_fn=rows.start_worker,
        # Its own, or making the loader would draw from the random state that a checkpoint has just restored.
        generator=torch.Generator(),
        pin_memory=pin_memory,
    )
    for batch in loader:
        if isinstance(batch, UserError):
            raise batch
        yield batch
