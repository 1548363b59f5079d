"""Drawing one image of a rendered data set and writing its files, each whole or not at all."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from data_prep.rendering.catalog import Catalog, stream
from data_prep.rendering.raytrace import TracedShape
from data_prep.rendering.scenes import Member, Picture, draw_picture
from data_prep.rendering.shapes.mesh import off_text
from llava_pose.files import write_atomic

_KEPT_FACES = 300_000  # of the shapes that a process keeps for its next pictures, about half a kilobyte each
_NEAR = 4  # how many numbers around an image's own its other objects are drawn from


@dataclass(frozen=True)
class Job:
    """All that a process needs to draw any image of the set. ``size``: side of an image on average, pixels."""

    out: Path
    seed: int
    size: int
    catalog: Catalog


@dataclass(frozen=True, slots=True)
class Task:
    """One image: its primary object's category, its split, its number among those."""

    category: str
    split: str
    number: int

    @property
    def name(self) -> str:
        """File name without suffix."""
        return f"{self.category}_{self.split}_{self.number:05d}"


class Writer:
    """Draws and writes the images of a job, in any order and in any process with the same result."""

    def __init__(self, job: Job) -> None:
        cv2.setNumThreads(1)  # processes share out the images: threads would only be in one another's way
        self.job = job
        self._categories = list(job.catalog.counts)
        self._kept: dict[tuple[str, int], TracedShape] = {}  # the one used last at the end
        self._kept_faces = 0

    def image_path(self, task: Task) -> Path:
        """Where the image goes."""
        return self.job.out / "images" / task.category / f"{task.name}.JPEG"

    def annotation_path(self, task: Task) -> Path:
        """Where the annotations go. They are written last: an image that has them is complete."""
        return self.job.out / "annotations" / task.category / f"{task.name}.npz"

    def is_complete(self, task: Task) -> bool:
        """Whether all files of the image are there."""
        return self.annotation_path(task).is_file() and self.image_path(task).is_file()

    def draw(self, task: Task) -> tuple[Picture, int]:
        """The picture and the JPEG quality to save it with."""
        job, pool = self.job, self.job.catalog.cad_indices
        rng = stream(job.seed, "image", task.category, task.split, task.number)
        indices = pool(task.category, task.split)
        primary = self._member(task.category, indices[task.number % len(indices)])
        choices = [category for category in self._categories if pool(category, task.split)]

        def draw_other(rng: np.random.Generator) -> Member:
            category = choices[rng.integers(len(choices))]
            indices = pool(category, task.split)
            # A number near the primary's own: such shapes are likely to be traced already.
            return self._member(category, indices[(task.number + int(rng.integers(_NEAR))) % len(indices)])

        picture = draw_picture(rng, primary, draw_other, job.size)
        return picture, int(rng.integers(40, 96))

    def write(self, task: Task) -> bool:
        """Draw and write one image, its annotations and the CAD files it is the first to use. Always True."""
        picture, quality = self.draw(task)
        for annotation in picture.annotations:
            self._write_cad(str(annotation["class"]), int(str(annotation["cad_index"])))
        image = io.BytesIO()
        picture.image.save(image, "JPEG", quality=quality)
        write_atomic(self.image_path(task), image.getvalue())
        rows = np.empty(len(picture.annotations), dtype=object)
        rows[:] = picture.annotations
        archive = io.BytesIO()
        np.savez(archive, annotations=rows)
        write_atomic(self.annotation_path(task), archive.getvalue())
        return True

    def _write_cad(self, category: str, cad_index: int) -> None:
        path = self.job.out / "CAD" / category / f"{cad_index:02d}.off"
        if not path.exists():
            write_atomic(path, off_text(self._traced(category, cad_index).shape).encode())

    def _member(self, category: str, cad_index: int) -> Member:
        return Member(category, cad_index, self._traced(category, cad_index))

    def _traced(self, category: str, cad_index: int) -> TracedShape:
        traced = self._kept.pop((category, cad_index), None)
        if traced is None:
            traced = TracedShape(self.job.catalog.shape(category, cad_index))
            self._kept_faces += len(traced.shape.faces)
        self._kept[category, cad_index] = traced
        while self._kept_faces > _KEPT_FACES and len(self._kept) > 1:
            oldest = self._kept.pop(next(iter(self._kept)))
            self._kept_faces -= len(oldest.shape.faces)
        return traced
