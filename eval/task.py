"""What a benchmark run is about, opened and checked before a model is loaded."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datasets import Image as ImageFeature

from eval.fingerprint import data_fingerprint, file_fingerprint, names_fingerprint
from eval.questions import open_rows
from llava_pose import checkpoint, taxonomy
from llava_pose.errors import UserError
from llava_pose.evaluation import Place, places_of
from llava_pose.folders import model_source, use_taxonomy_of
from llava_pose.question_scores import read_questions
from llava_pose.scene import crop_kind, load_split

Line = dict[str, Any]


@dataclass(frozen=True)
class Task:
    """What is evaluated.

    data: a split, whose images stay bytes; places: of all objects in it; categories: the candidate names; crop: what
    lines call the way their pictures were cut; by_box: whether each object is cut out by its box; train: the objects
    of the training split; questions: 3D questions; fingerprint: what tells these from others.
    """

    data: Any
    places: list[Place]
    categories: list[str]
    crop: str | None
    by_box: bool
    train: list[Line]
    questions: list[Line]
    fingerprint: dict[str, Any]


def open_task(arguments: argparse.Namespace) -> Task:
    """Open and check what the command line names, before any work. Raises UserError."""
    out = Path(arguments.out)
    if out.exists() and not out.is_dir():
        raise UserError(f"--out {out}: a file, not a folder")
    checkpoint.check_has_head(arguments.model)
    use_taxonomy_of(model_source(arguments.model))
    data = load_split(arguments.data, arguments.split)
    rows = data["objects"]
    # For chance and counts: read before the work, so that a data set without it does not lose the predictions.
    train = [item for row in load_split(arguments.data, "train")["objects"] for item in row]
    cut = crop_kind(arguments.data)
    by_box = arguments.crop == "box" or (arguments.crop is None and cut == "scene")
    questions = read_questions(arguments.questions) if arguments.questions else []
    if questions:
        open_rows(arguments.data, questions)
        if questions[0]["split"] != arguments.split:
            raise UserError(f"{arguments.questions}: split: {questions[0]['split']!r}, but --split {arguments.split}")
    categories = read_categories(arguments.categories, {item["category"] for row in rows for item in row})
    return Task(
        data=data.cast_column("image", ImageFeature(decode=False)),
        places=places_of(rows),
        categories=categories,
        crop="box of scene" if by_box else cut,
        by_box=by_box,
        train=train,
        questions=questions,
        fingerprint={
            "data": data_fingerprint(arguments.data, arguments.split),
            "categories": names_fingerprint(categories),
            "questions": file_fingerprint(arguments.questions) if arguments.questions else None,
        },
    )


def read_categories(path: str | None, present: set[str]) -> list[str]:
    """The candidate names. Raises UserError where the data has a category that is not among them."""
    if path is None:
        return sorted(present)
    categories = taxonomy.read_category_file(path)
    missing = sorted(present - set(categories))
    if missing:
        raise UserError(f"{path}: {missing[0]!r} is in the data but not among the names")
    return categories
