"""Write a held-out set of 3D questions about a data folder, each with its true answer and that of the mirrored image.

    python data_prep/questions.py --data DIR --out FILE.jsonl [--split val] [--per-kind N] [--seed S] [--limit ROWS]

Of each kind at most N questions, as many of one answer as of any other; an answer too rare to keep up is left out, and
told. Whole scenes give all kinds; object and box crops those about one object, because what else a crop shows is not in
its row. The same data and seed give the same file. eval/questions.py asks a model and scores its answers.
"""

from __future__ import annotations

import argparse
import heapq
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from llava_pose import taxonomy
from llava_pose.arguments import CommandParser, whole_number
from llava_pose.errors import UserError, run_cli
from llava_pose.facts import TOLERANCE_DEGREES, Fact
from llava_pose.files import write_atomic
from llava_pose.questions import KINDS, Kind, offered_facts
from llava_pose.scene import PosedImage, crop_kind, load_split

WHOLE_PICTURE = ("presence", "names")
"""Kinds that need to know all that a picture shows."""


@dataclass(frozen=True, order=True)
class Candidate:
    """A fact that may be asked for; those with the highest ``rank``, a random number, are."""

    rank: float
    row: int
    number: int  # of the row's facts
    fact: Fact


@dataclass
class Pool:
    """What can be asked of a kind: how often each label was found, and the best candidates of each, by the thing asked
    for (presence alone has more than one)."""

    found: Counter[str] = field(default_factory=Counter)
    candidates: dict[str, dict[str, list[Candidate]]] = field(default_factory=dict)

    def add(self, candidate: Candidate, most: int) -> None:
        """Count a candidate, and keep it where it is among the best ``most`` of its label."""
        fact = candidate.fact
        self.found[fact.label] += 1
        kept = self.candidates.setdefault(fact.things, {}).setdefault(fact.label, [])
        heapq.heappush(kept, candidate)
        if len(kept) > most:
            heapq.heappop(kept)


def collect(rows: Any, numbers: Sequence[int], categories: Sequence[str], per_kind: int, seed: int) -> dict[str, Pool]:
    """The pool of each kind from the rows of these numbers, without their images."""
    pools = {kind.name: Pool() for kind in KINDS}
    for row in tqdm(numbers, desc="questions", unit="row", disable=None):
        rng = np.random.default_rng([seed, row])
        offered = offered_facts(PosedImage.from_row(rows[row]), categories)
        for number, ((name, _, _), facts) in enumerate(offered.items()):
            for fact, rank in zip(facts, rng.random(len(facts)).tolist(), strict=True):
                pools[name].add(Candidate(rank, row, number, fact), per_kind)
    return pools


def select(kind: Kind, pool: Pool, per_kind: int) -> list[Candidate]:
    """At most ``per_kind`` candidates, as many of one label as of another.

    The rarest labels are left out where there are twice as many questions without them. Where a kind asks for many
    things, each is asked for as often with one label as with another. A closed kind with one label has no questions.
    """
    found = pool.found.most_common()
    totals = {
        count: count * min(found[count - 1][1], per_kind // count)
        for count in range(2 if kind.choices else 1, len(found) + 1)
    }
    most = max(totals.values(), default=0)
    if not most:
        return []
    labels = [label for label, _ in found[: max(count for count, total in totals.items() if total >= most / 2)]]
    queues = [[sorted(by_label.get(label, ())) for label in labels] for _, by_label in sorted(pool.candidates.items())]
    chosen: list[Candidate] = []
    while True:
        before = len(chosen)
        for queue in queues:
            if all(queue) and len(chosen) + len(labels) <= per_kind:
                chosen += [candidates.pop() for candidates in queue]
        if len(chosen) == before:
            return chosen


def question_line(kind: Kind, fact: Fact, number: int, record: PosedImage, names: Sequence[str]) -> dict[str, Any]:
    """A line of the file but for its place in the data. ``names``: those an answer to a question for names may hold."""
    phrasing = number % len(kind.questions)
    question, answer = kind.words(fact, phrasing)
    mirrored_question, mirrored_answer = kind.words(fact.mirrored(record.width, kind.sided), phrasing)
    line = {
        "question_id": f"{kind.name}-{number:05d}",
        "image_id": record.image_id,
        "kind": kind.name,
        "question": question,
        "answer": answer,
        "mirrored_question": mirrored_question,
        "mirrored_answer": mirrored_answer,
        "sided": kind.sided,
        "object_ids": [item.object_id for item in fact.objects],
        "poses": [item.pose.tolist() for item in fact.objects],
    }
    if fact.degrees is not None:
        return {**line, "degrees": round(fact.degrees, 6), "tolerance": TOLERANCE_DEGREES}
    return {**line, "choices": list(kind.choices or names)}


def question_lines(data: Any, split: str, whole: bool, per_kind: int, seed: int, limit: int | None) -> Iterator[Any]:
    """The lines of a set, in the order of the data's rows, after printing what was found and what was left out."""
    rows = data.remove_columns("image")
    categories = sorted({item["category"] for objects in rows["objects"] for item in objects})
    numbers = sorted(np.random.default_rng(seed).permutation(len(rows))[:limit].tolist())
    pools = collect(rows, numbers, categories, per_kind, seed)
    chosen: list[tuple[Candidate, Kind]] = []
    for kind in KINDS:
        if whole or kind.name not in WHOLE_PICTURE:
            candidates = select(kind, pools[kind.name], per_kind)
            report(kind, candidates, pools[kind.name].found)
            chosen += [(candidate, kind) for candidate in candidates]
    of_kind: Counter[str] = Counter()
    names = [taxonomy.spoken_name(category) for category in categories]
    for candidate, kind in sorted(chosen, key=lambda pair: (pair[0].row, pair[0].number, pair[0].rank)):
        record = PosedImage.from_row(rows[candidate.row])
        line = question_line(kind, candidate.fact, of_kind[kind.name], record, names)
        yield {**line, "split": split, "row": candidate.row}
        of_kind[kind.name] += 1


def report(kind: Kind, candidates: Sequence[Candidate], found: Counter[str]) -> None:
    """Print how many questions of a kind there are, of each answer, and what was left out."""
    labels = Counter(candidate.fact.label for candidate in candidates)
    text = f"{kind.name}: {len(candidates)} questions"
    if len(labels) > 1:
        text += f", {min(labels.values())} of each of {len(labels)} answers"
    rest = [f"{label!r} ({count} found)" for label, count in sorted(found.items()) if label not in labels]
    print(text + (f"; left out, too uneven: {', '.join(rest)}" if rest else ""))


def write_questions(data_dir: Path, out: Path, split: str, per_kind: int, seed: int, limit: int | None) -> int:
    """Write the set and return its number of questions.

    Raises:
        UserError: the data or the name of the file is wrong, or nothing can be asked; nothing is written.
    """
    if out.suffix != ".jsonl":
        raise UserError(f"{out}: a set of questions is JSON lines: give a name that ends in .jsonl")
    if out.is_dir():
        raise UserError(f"{out}: a folder, not a file to write questions in")
    data = load_split(data_dir, split)
    whole = crop_kind(data_dir) not in ("object", "box")
    lines = list(question_lines(data, split, whole, per_kind, seed, limit))
    if not lines:
        raise UserError(f"{data_dir}: split {split!r}: no question has two answers that are about as frequent")
    try:
        write_atomic(out, "".join(json.dumps(line) + "\n" for line in lines).encode())
    except OSError as error:
        raise UserError(f"{out}: cannot be written: {error.strerror}") from error
    return len(lines)


def main(argv: Sequence[str] | None = None) -> None:
    """Parse the command line, write the set and say how many questions it holds."""
    parser = CommandParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="a folder that a data_prep script wrote")
    parser.add_argument("--out", type=Path, required=True, help="the file to write, FILE.jsonl")
    parser.add_argument("--split", default="val", help="the split asked about (default val)")
    parser.add_argument("--per-kind", type=whole_number, default=200, help="questions of a kind at most (default 200)")
    parser.add_argument("--seed", type=int, default=0, help="which questions are drawn (default 0)")
    parser.add_argument("--limit", type=whole_number, help="look at this many random rows")
    options = parser.parse_args(argv)
    if options.seed < 0:
        raise UserError(f"--seed: must be 0 or above, got {options.seed}")
    count = write_questions(options.data, options.out, options.split, options.per_kind, options.seed, options.limit)
    print(f"{options.out}: {count} questions")


if __name__ == "__main__":
    run_cli(main)
