"""What a data set's own script tells the machinery that turns it into Parquet: its images, and the objects in each."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import chain, zip_longest
from pathlib import Path

from llava_pose.scene import PosedObject

SPLITS = ("train", "val")


@dataclass(frozen=True)
class Task:
    """One image of a data set: the folder its files lie in (the category, where there is one) and their name without
    suffix."""

    folder: str
    name: str

    @property
    def image_id(self) -> str:
        """The name of the image in records."""
        return f"{self.folder}/{self.name}"


@dataclass(frozen=True)
class Problem:
    """A mistake in the data. ``reason``: a few words under which it is counted; ``message``: file, field and value."""

    reason: str
    message: str


@dataclass
class Reading:
    """What a data set says about one image.

    ``image``: its file. ``objects``: those that can be used, in pixels of the image as stored. ``skipped``: those that
    the data set's own rules leave out, by reason. ``problems``: a mistake for every further object, whose annotation
    is wrong; the objects beside it are still good.
    """

    image: Path
    objects: list[PosedObject]
    skipped: Counter[str] = field(default_factory=Counter)
    problems: list[Problem] = field(default_factory=list)


class Source(ABC):
    """A data set on disk: a frozen dataclass whose fields say what is to be read. It is sent to worker processes, so it
    holds paths and settings, no open files.

    ``name``, ``licence`` and ``how`` (a sentence on what was read and left out) go into the card of the data folder.
    """

    name: str
    licence: str
    how: str

    @abstractmethod
    def splits(self) -> dict[str, list[Task]]:
        """The images of ``train`` and ``val``, in the order of their rows.

        Raises:
            UserError: the lists are missing or wrong; the message names file, line and value.
        """

    def list_problems(self) -> list[Problem]:
        """What is wrong with the lists, and left out by ``splits``."""
        return []

    def caption(self, task: Task, objects: Sequence[PosedObject]) -> tuple[str, tuple[int, ...]] | None:
        """The caption that the data set has for an image, and the ``object_id`` of each of its ``<pose>`` marks.

        ``objects``: all that ``read`` returned. None where there is no caption.

        Raises:
            UserError: a caption is there and cannot be used; the message names its file and mark.
        """
        return None

    @abstractmethod
    def files(self, task: Task) -> list[Path]:
        """The files that an image's rows are made of: when one of them changes, the rows are made again."""

    @abstractmethod
    def where(self, task: Task, object_id: int) -> str:
        """The file and place of an object's annotation, as a message names it: ``n01.npz: annotations[2]``."""

    @abstractmethod
    def read(self, task: Task) -> Reading:
        """The image's file and objects. The image itself is not opened.

        Raises:
            UserError: nothing can be said about this image, because an annotation file is missing or damaged; the
                message names file, field and value.
        """


def limited(tasks: list[Task], limit: int | None) -> list[Task]:
    """The first images of every category in turn, ``limit`` in all, in their usual order."""
    if limit is None:
        return tasks
    folders: dict[str, list[Task]] = {}
    for task in tasks:
        folders.setdefault(task.folder, []).append(task)
    in_turn = chain.from_iterable(zip_longest(*folders.values()))
    chosen = set([task for task in in_turn if task is not None][:limit])
    return [task for task in tasks if task in chosen]
