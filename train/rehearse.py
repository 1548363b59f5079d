"""Let a base answer everyday questions, so that it does not forget to talk while it learns poses.

    python train/rehearse.py --model runs/smollm2/base --out runs/smollm2/rehearsal.json

What a language model says already is what it is not to lose: its own likeliest answers to the questions of
rehearsal.txt, or of a file of yours, a question a line, become plain conversations in LLaVA's form. Named among a
recipe's data, with a weight, they are trained on beside the posed pictures. An answer that is too long is kept up to
its last whole sentence, so that what is learnt from it ends.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from llava_pose import checkpoint
from llava_pose.arguments import CommandParser, whole_number
from llava_pose.configuration import POSE_TOKEN
from llava_pose.engine import Engine
from llava_pose.errors import UserError, run_cli
from llava_pose.files import write_atomic
from llava_pose.generation import Request, answer_all
from llava_pose.processing import user_message

QUESTIONS = Path(__file__).parent / "rehearsal.txt"


def main() -> None:
    """Ask, and write the file."""
    parser = CommandParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, metavar="DIR", help="the base, as train/assemble.py writes it")
    parser.add_argument("--out", required=True, type=Path, metavar="FILE", help="the .json file to write")
    parser.add_argument("--questions", type=Path, default=QUESTIONS, metavar="FILE", help="a question a line")
    parser.add_argument("--tokens", type=whole_number, default=96, help="of an answer at most (96)")
    parser.add_argument("--dtype", choices=("bfloat16", "float32"), default="bfloat16", help="to compute in (bfloat16)")
    arguments = parser.parse_args()
    questions = read_questions(arguments.questions)
    model, processor = checkpoint.load(arguments.model, getattr(torch, arguments.dtype))
    model.to("cuda" if torch.cuda.is_available() else "cpu")
    pairs = rehearsal(model, processor, questions, arguments.tokens)
    entries = [
        {
            "id": f"rehearsal-{number:05d}",
            "conversations": [{"from": "human", "value": question}, {"from": "gpt", "value": answer}],
        }
        for number, (question, answer) in enumerate(pairs)
    ]
    if not entries:
        raise UserError(f"--model {arguments.model}: none of its answers has a whole sentence")
    write_atomic(arguments.out, json.dumps(entries, indent=1, ensure_ascii=False) + "\n")
    print(f"{arguments.out}: {len(entries)} conversations; {len(questions) - len(entries)} questions without an answer")


def read_questions(path: Path) -> list[str]:
    """The lines of a file, without empty ones. Raises UserError where it cannot be read or has none."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"--questions {path}: cannot be read: {error}") from error
    questions = [line.strip() for line in lines if line.strip()]
    if not questions:
        raise UserError(f"--questions {path}: holds no question")
    return questions


def rehearsal(model: Any, processor: Any, questions: list[str], tokens: int) -> Iterator[tuple[str, str]]:
    """The questions that the model answers, with its answers, in their order."""
    requests = (Request([user_message(text)], max_new_tokens=tokens, growing=False) for text in questions)
    answers = answer_all(Engine(model, processor), requests)
    for question, answer in tqdm(zip(questions, answers, strict=True), total=len(questions), unit="question"):
        text = answer.text if answer.complete else whole_sentences(answer.text)
        if text and POSE_TOKEN not in text:
            yield question, text


def whole_sentences(text: str) -> str:
    """A text that breaks off, up to the end of its last whole sentence. The number of a list's item ends none.

    >>> whole_sentences("Bees carry pollen. They also make honey, which")
    'Bees carry pollen.'
    """
    ends = [found.end() for found in re.finditer(r"(?<!\d)[.!?](?=\s|$)", text)]
    return text[: ends[-1]] if ends else ""


if __name__ == "__main__":
    run_cli(main)
