"""Ask a model the 3D questions that data_prep/questions.py wrote, or score answers that are already there.

    python eval/questions.py --model DIR --data DIR --questions FILE.jsonl --out DIR
    python eval/questions.py --questions FILE.jsonl --answers FILE.jsonl [--out DIR]

Each question is asked about its image and about the mirrored image. DIR then holds answers.jsonl (every answer, with
the poses read at its <pose> marks) and questions.json (the scores: of each kind and overall, beside chance). Stopped,
the same command goes on where it was. A file of answers has a line {"question_id": …, "answer": …} for each question,
and may have "mirrored_answer" in it.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from llava_pose.arguments import CommandParser
from llava_pose.errors import UserError, run_cli
from llava_pose.files import write_atomic
from llava_pose.folders import EMBEDDED
from llava_pose.question_scores import Line, read_answers, read_questions, score
from llava_pose.scene import PosedImage, load_split

if TYPE_CHECKING:
    from llava_pose.api import LlavaPose  # torch with it, which scoring does not need

TOGETHER = 16
"""Questions that are asked side by side, each with its mirror image."""

SIDES = ("", "mirrored_")
"""What a line's keys begin with: those about its image, and those about the mirror image."""

ANSWERS, PARTIAL, SCORES, SETTINGS = "answers.jsonl", "answers.partial.jsonl", "questions.json", "settings.json"
COLUMNS = (
    ("count", "questions", ".0f"),
    ("accuracy", "right %", ".1f"),
    ("chance_majority", "one answer %", ".1f"),
    ("chance_uniform", "random %", ".1f"),
    ("flip_consistency", "flip %", ".1f"),
    ("marks", "<pose> %", ".1f"),
    ("unclear", "unclear", ".0f"),
    ("median_error_deg", "median °", ".1f"),
)


# Asking ---------------------------------------------------------------------------------------------------------------


def ask(model: LlavaPose, asked: Sequence[tuple[PosedImage, Line]], flip: bool) -> Iterator[Line]:
    """The answers to lines about their records' images and the mirror images, with the poses (P, 3) read at their
    marks; with ``flip`` each of these in both images."""
    conversations = (
        (seen.image, [{"role": "user", "content": line[f"{prefix}question"]}])
        for record, line in asked
        for prefix, seen in zip(SIDES, (record, record.mirrored()), strict=True)
    )
    answers = model.chat_all(conversations, flip)
    for _, line in asked:
        answered: Line = {"question_id": line["question_id"]}
        for prefix in SIDES:
            answer = next(answers)
            answered[f"{prefix}answer"] = answer.text
            answered[f"{prefix}poses"] = [[float(angle) for angle in reading.pose] for reading in answer.readings]
        yield answered


def open_rows(data_dir: str | Path, lines: Sequence[Line]) -> Any:
    """The split that all the questions are about.

    Raises:
        UserError: the data folder is wrong, or it is not the one that the questions were written for.
    """
    splits = sorted({line["split"] for line in lines})
    if len(splits) > 1:
        raise UserError(f"split: the questions are about {' and '.join(splits)}; ask about one at a time")
    data = load_split(data_dir, splits[0])
    images = data["image_id"]
    for line in lines:
        found = images[line["row"]] if line["row"] < len(images) else None
        if found != line["image_id"]:
            raise UserError(
                f"{data_dir}: row {line['row']} of {splits[0]!r} is {found or 'missing'}, but {line['question_id']} "
                f"is about {line['image_id']}: the questions are of other data"
            )
    return data


def ask_all(model: LlavaPose, data: Any, lines: Sequence[Line], out: Path, flip: bool = False) -> list[Line]:
    """Ask every question; the answers as ``answers.jsonl`` will hold them.

    ``TOGETHER`` of them are worked on side by side, always the same ones, and then added to a partial file, after which
    a run that is stopped goes on. Raises UserError where the partial file is not that of these questions.
    """
    if (out / ANSWERS).is_file():
        return list(read_answers(out / ANSWERS).values())
    partial = out / PARTIAL
    answers = read_partial(partial, lines)
    write_atomic(partial, "".join(json.dumps(answer) + "\n" for answer in answers))
    left = range(len(answers), len(lines), TOGETHER)
    bar = tqdm(desc="ask", unit="question", initial=len(answers), total=len(lines), disable=None)
    with partial.open("a", encoding="utf-8") as file, bar:
        for start in left:
            block = []
            those = [(PosedImage.from_row(data[line["row"]]), line) for line in lines[start : start + TOGETHER]]
            for answer in ask(model, those, flip):
                block.append(answer)
                bar.update()
            answers += block
            file.write("".join(json.dumps(answer) + "\n" for answer in block))
            file.flush()
    partial.rename(out / ANSWERS)
    return answers


def read_partial(path: Path, lines: Sequence[Line]) -> list[Line]:
    """The whole blocks of a partial file of answers. Raises UserError where they do not answer the first questions."""
    if not path.is_file():
        return []
    # A killed run may have left half a line, or half a block.
    text = path.read_bytes().rpartition(b"\n")[0].decode("utf-8")
    answers = [json.loads(answer) for answer in text.splitlines()]
    for number, (answer, line) in enumerate(zip(answers, lines, strict=False), start=1):
        if answer["question_id"] != line["question_id"]:
            raise UserError(
                f"{path}:{number}: question_id: {answer['question_id']!r}, expected {line['question_id']!r}"
            )
    return answers[: len(answers) // TOGETHER * TOGETHER]


def check_settings(out: Path, settings: Line) -> None:
    """Note what is asked of whom, for whoever goes on. Raises UserError where answers of another run are there."""
    path = out / SETTINGS
    if not path.is_file():
        write_atomic(path, json.dumps(settings, indent=1) + "\n")
        return
    there = json.loads(path.read_text(encoding="utf-8"))
    for name, value in settings.items():
        if there.get(name) != value:
            raise UserError(f"{out}: holds answers of another run: {name} is {there.get(name)!r}, not {value!r}")


# Scoring --------------------------------------------------------------------------------------------------------------


def given_answers(path: str | Path, lines: Sequence[Line]) -> dict[str, Line]:
    """The answers of a file. Raises UserError where one is to no question of the set."""
    answers = read_answers(path)
    unknown = set(answers) - {line["question_id"] for line in lines}
    if unknown:
        raise UserError(f"{path}: question_id: {min(unknown)!r} is not among the questions")
    return answers


def format_table(scores: Line) -> str:
    """The scores as a Markdown table."""
    rows = [*scores["kinds"].items(), ("all", scores["overall"])]
    lines = [["kind", *(title for _, title, _ in COLUMNS)], ["---"] * (len(COLUMNS) + 1)]
    for name, table in rows:
        figures = [(table.get(column), shape) for column, _, shape in COLUMNS]
        lines.append([name, *("–" if value is None else format(value, shape) for value, shape in figures)])
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def main(argv: Sequence[str] | None = None) -> None:
    """Ask, or read what was answered; score, print the table and write the files."""
    options = parse_arguments(argv)
    lines = read_questions(options.questions)
    digest = hashlib.sha256(options.questions.read_bytes()).hexdigest()
    settings: Line = {"questions": f"{options.questions.name}, sha256 {digest}"}
    if options.answers is not None:
        answers = given_answers(options.answers, lines)
        settings["answers"] = str(options.answers)
    else:
        settings |= {"model": str(options.model), "data": str(options.data)}
        settings |= {name: vars(options)[name] for name in ("dtype", "flip")}
        answers = {answer["question_id"]: answer for answer in asked(options, lines, settings)}
    scores = {**score(lines, answers), "settings": settings}
    if options.out is not None:
        options.out.mkdir(parents=True, exist_ok=True)
        write_atomic(options.out / SCORES, json.dumps(scores, indent=1, ensure_ascii=False) + "\n")
    print(format_table(scores))
    missing = sum(line["question_id"] not in answers for line in lines)
    if missing:
        print(f"{missing} questions have no answer and count as wrong")


def asked(options: argparse.Namespace, lines: Sequence[Line], settings: Line) -> list[Line]:
    """The model's answers; everything that can be wrong is looked at before it is loaded."""
    data = open_rows(options.data, lines)
    options.out.mkdir(parents=True, exist_ok=True)
    check_settings(options.out, settings)
    import torch
    from transformers.utils import logging

    from llava_pose.api import LlavaPose

    logging.disable_progress_bar()
    model = LlavaPose.from_pretrained(options.model, dtype=getattr(torch, options.dtype))
    return ask_all(on_device(model), data, lines, options.out, options.flip)


def on_device(model: LlavaPose) -> LlavaPose:
    """The model on a GPU, if there is one."""
    import torch

    model.engine.model.to("cuda" if torch.cuda.is_available() else "cpu")
    return model


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line. Raises UserError where it asks for neither one thing nor the other."""
    parser = CommandParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--questions", required=True, type=Path, metavar="FILE", help="what data_prep/questions.py wrote"
    )
    parser.add_argument("--answers", type=Path, metavar="FILE", help="answers to score, instead of asking a model")
    parser.add_argument("--model", help="folder or hub name to ask (default: the embedded model)")
    parser.add_argument("--data", metavar="DIR", help="the data that the questions are about")
    parser.add_argument("--out", type=Path, metavar="DIR", help="where answers and scores go")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32", help="the model's precision")
    parser.add_argument(
        "--flip", action="store_true", help="read each pose in the mirror image as well and average: slower and better"
    )
    options = parser.parse_args(argv)
    if options.answers is not None:
        for name in ("model", "data"):
            if vars(options)[name] is not None:
                raise UserError(f"--{name}: with --answers nobody is asked")
    for name in ("data", "out") if options.answers is None else ():
        if vars(options)[name] is None:
            raise UserError(f"--{name}: is needed to ask a model (or score given answers with --answers FILE)")
    options.model = options.model or EMBEDDED
    return options


if __name__ == "__main__":
    run_cli(main)
