"""Turn ImageNet3D, or anything in its layout, into Parquet shards that datasets.load_dataset opens.

    python data_prep/imagenet3d.py --root DIR --out DIR [--crop object|box|scene] [--on-error stop|skip]

Reads lists/{category}_imagenet_{train|val}.txt with either images/ and annotations/ beside lists/, or each image next
to its npz in {category}/, and captions where they lie beside the data (see caption_files.py). Objects that the data
set's authors leave out are left out, and counted. With --crop object (the published protocol; it uses the true
distance) or box a row is one object, with scene a whole image. Images are used as stored: no EXIF rotation. CAD models
are not read.

A mistake in the data ends the conversion with a line that names it; with --on-error skip, what is wrong is left out,
counted and listed in skipped.jsonl. Started again after a stop, a conversion goes on where it was: it works in a hidden
folder beside --out, which appears whole.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from data_prep.captioning.caption_files import caption_places, released_caption
from data_prep.conversion.convert import argument_parser, convert, settings_from
from data_prep.conversion.layout import paths_of, read_lists
from data_prep.conversion.source import Problem, Reading, Source, Task
from llava_pose.annotations import FieldError, read_each, skip_reason
from llava_pose.errors import UserError, run_cli
from llava_pose.scene import PosedObject, posed_object


@dataclass(frozen=True)
class ImageNet3D(Source):
    """The release under ``root``, its lists restricted to ``categories`` if they are given."""

    root: Path
    categories: frozenset[str] | None = None

    name = "ImageNet3D"
    licence = "cc-by-nc-4.0"
    how = (
        "Read from the data set's images, annotations and official lists. What its authors leave out is left out: "
        "objects without a status, of status bad, marked to be ignored, or without a distance above 0. The images are "
        "ImageNet's."
    )

    def splits(self) -> dict[str, list[Task]]:
        """The images of the official lists."""
        return read_lists(self.root, self.categories)[0]

    def list_problems(self) -> list[Problem]:
        """Lists of unknown categories, and lines that are no file name or a second mention."""
        return read_lists(self.root, self.categories)[1]

    def files(self, task: Task) -> list[Path]:
        """The image, its npz and what may hold its caption."""
        files = list(paths_of(task, self.root))
        for place in caption_places(self.root):
            beside = [place / task.folder / f"{task.name}{suffix}" for suffix in (".txt", ".json")]
            files += beside if place.is_dir() else [place]
        return files

    def caption(self, task: Task, objects: Sequence[PosedObject]) -> tuple[str, tuple[int, ...]] | None:
        """The caption that lies beside the data."""
        return released_caption(self.root, task.folder, task.name, objects)

    def where(self, task: Task, object_id: int) -> str:
        """The npz and the object's index in it."""
        return f"{paths_of(task, self.root)[1]}: annotations[{object_id}]"

    def read(self, task: Task) -> Reading:
        """The objects of an npz by the authors' rules."""
        image, npz = paths_of(task, self.root)
        reading = Reading(image, [])
        for index, annotation in enumerate(read_each(npz)):
            if isinstance(annotation, FieldError):
                reading.problems.append(Problem(f"{annotation.field} in error", str(annotation)))
                continue
            reason = skip_reason(annotation)
            if reason is not None:
                reading.skipped[reason] += 1
                continue
            try:
                reading.objects.append(posed_object(annotation, index, task.folder))
            except UserError as error:
                reading.problems.append(Problem("unknown category", f"{self.where(task, index)}.class: {error}"))
        return reading


def main(argv: Sequence[str] | None = None) -> None:
    """Parse the command line and convert."""
    options = argument_parser(__doc__).parse_args(argv)
    settings = settings_from(options)
    convert(ImageNet3D(options.root, settings.categories), options.out, settings)


if __name__ == "__main__":
    run_cli(main)
