"""The data sets of a run: opened and checked before any weight is loaded."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from llava_pose.errors import UserError
from llava_pose.scene import PosedImage, load_split

from .config import TrainConfig
from .features import FeatureCache
from .plain import PlainConversations, load_plain

NAMING_CHARACTERS, OBJECT_CHARACTERS, QUESTION_CHARACTERS = 60, 30, 100
"""About how long it is to ask for a name and be told it, what each further object adds, and what a 3D question does."""


class PosedRows:
    """A ``datasets`` split of posed images and, where the tower's features are cached, those."""

    def __init__(self, data: Any, weight: float = 1.0, cache: FeatureCache | None = None):
        self.data, self.weight, self.cache = data, weight, cache
        self.without_images = data.remove_columns("image")

    def __len__(self) -> int:
        return len(self.data)

    @cached_property
    def objects(self) -> Any:
        """The objects of every row, a pyarrow list array."""
        return self.data.with_format("arrow").select_columns(["objects"])[:]["objects"].combine_chunks()

    @property
    def categories(self) -> list[str]:
        """The categories of its objects."""
        return self.objects.flatten().field("category").unique().to_pylist()

    @cached_property
    def _characters(self) -> np.ndarray:
        """About how many characters (rows,) name or tell the objects of a row."""
        counts = np.diff(self.objects.offsets)
        captions = np.array([len(caption) for caption in self.without_images["caption"]])
        several = np.where(captions > 0, captions, OBJECT_CHARACTERS * counts)
        return NAMING_CHARACTERS + np.where(counts > 1, several - OBJECT_CHARACTERS, 0)

    def size(self, row: int, asked: bool) -> tuple[int, int]:
        """About how many characters are said of a row, with or without a 3D question, and how many images it has."""
        return int(self._characters[row]) + QUESTION_CHARACTERS * asked, 1

    @cached_property
    def _records(self) -> list[PosedImage]:
        return [PosedImage.from_row(row) for row in self.without_images]

    def record(self, row: int) -> PosedImage:
        """A row's record; without its image where cached features stand in: those are small and kept at hand."""
        return PosedImage.from_row(self.data[row]) if self.cache is None else self._records[row]


class PlainRows:
    """Plain conversations and, where the tower's features are cached, those of their pictures."""

    def __init__(self, conversations: PlainConversations, weight: float = 1.0, cache: FeatureCache | None = None):
        self.conversations, self.weight, self.cache = conversations, weight, cache

    def __len__(self) -> int:
        return len(self.conversations)

    def size(self, row: int, asked: bool) -> tuple[int, int]:
        """As for posed rows; nothing further is asked about a plain one."""
        return self.conversations.characters(row), len(self.conversations.pictures(row))


Rows = PosedRows | PlainRows


def load_data(config: TrainConfig) -> tuple[list[Rows], list[Any]]:
    """The data sets to train on and the posed ``val`` splits of those that have one. Those of weight 0 are left out.

    Raises:
        UserError: naming the file or folder: it is missing or damaged, a row has no object or a whole split no pose, a
            conversation is not in LLaVA's form or misses its picture, or so small a weight that an epoch has no row;
            or there are poses to learn and not one ``val`` split.
    """
    rows: list[Rows] = []
    folders = []
    for number, part in enumerate(config.data):
        if not part.weight:
            continue
        if part.plain:
            rows.append(PlainRows(load_plain(part.path, part.images), part.weight))
        elif Path(part.path).is_file():
            raise UserError(f"{part.path}: neither a folder of data_prep nor a .json file of conversations")
        else:
            posed = PosedRows(load_split(part.path, "train"), part.weight)
            _check_poses(posed, part.path)
            rows.append(posed)
            folders.append(part.path)
        if part.weight * len(rows[-1]) < 1:
            raise UserError(f"data.{number}.weight: {part.weight} of {len(rows[-1])} rows is less than one an epoch")
    scored = [folder for folder in folders if any(Path(folder).glob("val-*.parquet"))]
    return rows, [load_split(folder, "val") for folder in scored or folders[:1]]


def _check_poses(rows: PosedRows, path: str) -> None:
    counts = np.diff(rows.objects.offsets)
    if not counts.all():
        row = int(np.argmin(counts))
        name = rows.without_images[row]["image_id"]
        raise UserError(f"{path}: split 'train', row {row} ({name}), objects: none, so there is no pose to learn")
    items = rows.objects.flatten()
    angles = [items.field(name).to_numpy(zero_copy_only=False) for name in ("azimuth", "elevation", "theta")]
    if not np.isfinite(angles).all(0).any():
        raise UserError(f"{path}: split 'train', objects: not one has a pose (azimuth, elevation, theta)")
