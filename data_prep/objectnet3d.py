"""Turn ObjectNet3D into Parquet shards that datasets.load_dataset opens.

    python data_prep/objectnet3d.py --root ObjectNet3D --out DIR [--val test]

Reads Images/{name}.JPEG and Annotations/{name}.mat by Image_sets/{train|val|test}.txt. Objects without a viewpoint are
left out and counted. Where no anchor points were placed the annotated angles are the coarse ones, and a missing theta,
focal or viewport is 0, 1 or 2000, as in the authors' own toolbox.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from data_prep.conversion.convert import argument_parser, convert, settings_from
from data_prep.conversion.layout import read_list
from data_prep.conversion.matfiles import MatSource, Struct
from data_prep.conversion.source import Problem, Task
from llava_pose.errors import run_cli
from llava_pose.scene import DEFAULT_VIEWPORT

FOLDER = "objectnet3d"
"""Stands in image ids where other data sets have a category: here a file is of no single one."""


@dataclass(frozen=True)
class ObjectNet3D(MatSource):
    """The release under ``root``; ``val`` is the list that becomes the split val."""

    root: Path
    val: str = "val"

    name = "ObjectNet3D"
    licence = "other"
    how = "Objects without a viewpoint are left out."
    defaults = {"theta": 0.0, "focal": 1.0, "viewport": DEFAULT_VIEWPORT}
    coarse = True

    def splits(self) -> dict[str, list[Task]]:
        """The images of two of the official lists."""
        return self.lists()[0]

    def list_problems(self) -> list[Problem]:
        """Lines of the lists that are no file name or a second mention."""
        return self.lists()[1]

    def lists(self) -> tuple[dict[str, list[Task]], list[Problem]]:
        """The images of each split, and what is wrong with their lists."""
        problems: list[Problem] = []
        names = {"train": "train", "val": self.val}
        sets = self.root / "Image_sets"
        return {split: read_list(sets / f"{name}.txt", FOLDER, problems) for split, name in names.items()}, problems

    def paths(self, task: Task) -> tuple[Path, Path]:
        """The image and its annotations."""
        return self.root / "Images" / f"{task.name}.JPEG", self.root / "Annotations" / f"{task.name}.mat"

    def left_out(self, item: Struct, task: Task, where: str) -> str | None:
        """No object that has a viewpoint."""
        return None


def main(argv: Sequence[str] | None = None) -> None:
    """Parse the command line and convert."""
    parser = argument_parser(__doc__)
    parser.add_argument("--val", choices=["val", "test"], default="val", help="the list of the split val")
    options = parser.parse_args(argv)
    settings = settings_from(options, by_viewport=True)
    convert(ObjectNet3D(options.root, options.val), options.out, settings)


if __name__ == "__main__":
    run_cli(main)
