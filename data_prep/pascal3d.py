"""Turn PASCAL3D+ (release 1.1) into Parquet shards that datasets.load_dataset opens.

    python data_prep/pascal3d.py --root PASCAL3D+_release1.1 --out DIR [--part imagenet|pascal] [--clear]

Reads Images/ and Annotations/{category}_{imagenet|pascal}. The ImageNet part is split by Image_sets/, the annotated
images of the PASCAL part by PASCAL/VOCdevkit/VOC2012/ImageSets/Main/. Of an image only objects of its folder's category
are used: a picture with several has a file in each folder. Objects without a full viewpoint are left out and counted.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from data_prep.conversion.convert import argument_parser, convert, settings_from
from data_prep.conversion.layout import read_list
from data_prep.conversion.matfiles import MatSource, Struct, flagged, text
from data_prep.conversion.source import SPLITS, Problem, Task
from llava_pose.errors import UserError, run_cli
from llava_pose.taxonomy import resolve

PARTS = {"imagenet": ".JPEG", "pascal": ".jpg"}
"""The parts of the release and how their images' names end."""
_FOLDER = re.compile(rf"(.+)_({'|'.join(PARTS)})")


@dataclass(frozen=True)
class Pascal3D(MatSource):
    """The release under ``root``: one part of it or, without ``part``, those that are there.

    ``clear``: without objects marked as truncated, occluded or difficult. ``categories``: of these only.
    """

    root: Path
    part: str | None = None
    clear: bool = False
    categories: frozenset[str] | None = None

    name = "PASCAL3D+"
    licence = "other"
    how = "Objects without a full viewpoint, and those of another category than their folder's, are left out."

    def splits(self) -> dict[str, list[Task]]:
        """The images of the official lists, by folder."""
        return self.lists()[0]

    def list_problems(self) -> list[Problem]:
        """Folders of unknown categories, lists that are missing, and lines that are wrong."""
        return self.lists()[1]

    def lists(self) -> tuple[dict[str, list[Task]], list[Problem]]:
        """The images of each split, and what is wrong with their lists."""
        splits: dict[str, list[Task]] = {split: [] for split in SPLITS}
        problems: list[Problem] = []
        for category, part in self.folders(problems):
            images = self.imagenet_images if part == "imagenet" else self.pascal_images
            for split, tasks in splits.items():
                try:
                    tasks += images(category, split, problems)
                except UserError as error:
                    problems.append(Problem("list in error", str(error)))
        return splits, problems

    def folders(self, problems: list[Problem]) -> list[tuple[str, str]]:
        """The category and the part of every folder of annotations that is asked for."""
        annotations = self.root / "Annotations"
        if not annotations.is_dir():
            raise UserError(f"{annotations}: folder does not exist")
        found = []
        for path in sorted(annotations.iterdir()):
            match = _FOLDER.fullmatch(path.name)
            if match is None or self.part not in (None, match[2]):
                continue
            try:
                category = resolve(match[1])
            except UserError as error:
                problems.append(Problem("unknown category", f"{path}: {error}"))
                continue
            if self.categories is None or category in self.categories:
                found.append((match[1], match[2]))
        if not found and not problems:
            raise UserError(f"{annotations}: no folder {{category}}_{self.part or 'imagenet'} of a category asked for")
        return found

    def imagenet_images(self, category: str, split: str, problems: list[Problem]) -> list[Task]:
        """The images of a list of the ImageNet part."""
        path = self.root / "Image_sets" / f"{category}_imagenet_{split}.txt"
        return read_list(path, f"{category}_imagenet", problems)

    def pascal_images(self, category: str, split: str, problems: list[Problem]) -> list[Task]:
        """The annotated images of the PASCAL part in a list of PASCAL VOC, which names all its images."""
        main = self.root / "PASCAL" / "VOCdevkit" / "VOC2012" / "ImageSets" / "Main"
        path = main / f"{category}_{split}.txt"
        try:
            words = [line.split() for line in path.read_text(encoding="utf-8").splitlines()]
        except UnicodeDecodeError as error:
            raise UserError(f"{path}: list cannot be read: not UTF-8 text (byte {error.start})") from error
        except OSError as error:
            raise UserError(f"{path}: list cannot be read: {error.strerror}") from error
        folder = f"{category}_pascal"
        annotated = {file.stem for file in (self.root / "Annotations" / folder).glob("*.mat")}
        return [Task(folder, line[0]) for line in words if line and line[0] in annotated]

    def paths(self, task: Task) -> tuple[Path, Path]:
        """The image and its annotations."""
        match = _FOLDER.fullmatch(task.folder)
        assert match is not None
        image = self.root / "Images" / task.folder / f"{task.name}{PARTS[match[2]]}"
        return image, self.root / "Annotations" / task.folder / f"{task.name}.mat"

    def left_out(self, item: Struct, task: Task, where: str) -> str | None:
        """Why an object is not used: it is of another category or not clear."""
        if text(item, "class", where) != task.folder.rsplit("_", 1)[0]:
            return "another category than the folder's"
        if self.clear and flagged(item, ("truncated", "occluded", "difficult"), where):
            return "truncated, occluded or difficult"
        return None


def main(argv: Sequence[str] | None = None) -> None:
    """Parse the command line and convert."""
    parser = argument_parser(__doc__)
    parser.add_argument("--part", choices=list(PARTS), help="one part of the release (default: those that are there)")
    parser.add_argument("--clear", action="store_true", help="leave out what is truncated, occluded or difficult")
    options = parser.parse_args(argv)
    settings = settings_from(options, by_viewport=True)
    convert(Pascal3D(options.root, options.part, options.clear, settings.categories), options.out, settings)


if __name__ == "__main__":
    run_cli(main)
