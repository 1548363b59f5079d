"""Score a model on joint classification and pose.

    accelerate launch eval/benchmark.py --model runs/mine/final --data runs/demo/data --out runs/mine/eval

Reads a data set of data_prep, of object crops, box crops or whole scenes; of a scene each object is cut out by its box.
For each object the class is chosen among the given names and the pose read at its <pose>, and at that of the true
class. Leaves predictions.jsonl (a line an object), metrics.json and report.html, and prints the tables.

Any number of processes on any number of nodes that all see --out give the same files. What is finished is kept in
--out as it comes: the same command, with as many processes as you like, goes on where a run was stopped, and refuses
what was made with another model, data set or option. An image that cannot be read is a line with its error, and counts
as a miss. --questions asks the 3D questions of data_prep/questions.py too, and leaves answers.jsonl.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch

from eval.fingerprint import check_same, model_fingerprint
from eval.journal import Lines, read_journals
from eval.results import ANSWERS, METRICS, PREDICTIONS, REPORT, make_metrics, write_results
from eval.task import Task, open_task
from eval.work import Answering, Predicting, make_batches, on_main, share_out
from llava_pose import checkpoint
from llava_pose.arguments import CommandParser, positive_number, whole_number
from llava_pose.engine import Engine
from llava_pose.errors import UserError, run_cli
from llava_pose.evaluation import Asking, read_lines
from llava_pose.launch import make_accelerator
from llava_pose.trie import SCORINGS

JOURNAL = "journal"
KINDS = ("predictions", "questions")
OPTIONS = ("split", "protocol", "reading", "flip", "winner_only", "scoring", "dtype")
"""The options that predictions depend on, as the settings name them."""
PATIENCE = timedelta(hours=12)
"""How long the fastest process waits for the slowest."""


def main() -> None:
    """Evaluate and write the results."""
    arguments = parse_arguments()
    out, task = Path(arguments.out), open_task(arguments)
    accelerator = make_accelerator(PATIENCE)
    model, processor = checkpoint.load(arguments.model, getattr(torch, arguments.dtype))
    engine = Engine(model.to(accelerator.device), processor)
    trie = engine.name_trie(task.categories, arguments.scoring, arguments.temperature)
    batches = make_batches(task.places, engine, trie, arguments.batch_size, arguments.max_batch_tokens)
    options = {
        **{name: getattr(arguments, name) for name in OPTIONS},
        "crop": task.crop,
        "temperature": trie.temperature,
        "batch": max(map(len, batches)),
    }
    fingerprint = {"model": model_fingerprint(model, processor), **task.fingerprint, **options}
    counts = {"predictions": len(batches), "questions": len(task.questions)}
    left = on_main(accelerator, lambda: what_is_left(out, fingerprint, counts, arguments.overwrite))
    asking = Asking(arguments.protocol, not arguments.winner_only, arguments.flip, arguments.reading)
    stop = arguments.on_error == "stop"
    predict = Predicting(engine, trie, asking, task, batches, arguments.workers, stop)
    answer = Answering(engine, task, stop, asking.flip)
    for kind, work in (("predictions", predict), ("questions", answer)):
        share_out(accelerator, out / JOURNAL / kind, fingerprint, left[kind], work)
    if accelerator.is_main_process:
        about = {"model": str(arguments.model), "data": str(arguments.data), "categories": task.categories}
        settings = {**about, **options, "calibrated": model.calibration is not None, "fingerprint": fingerprint}
        finish(out, task, settings, arguments.protocol)
    accelerator.wait_for_everyone()


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = CommandParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=checkpoint.EMBEDDED, help="folder or hub name (default: the embedded model)")
    parser.add_argument("--data", required=True, metavar="DIR", help="a data set of data_prep")
    parser.add_argument("--out", required=True, metavar="DIR", help="where the results go")
    parser.add_argument("--overwrite", action="store_true", help="begin anew, whatever results lie in --out")
    parser.add_argument("--split", default="val", help="which split (default: val)")
    parser.add_argument("--categories", metavar="FILE", help="candidate names, one a line (default: those in the data)")
    parser.add_argument(
        "--protocol",
        choices=("joint", "pose"),
        default="joint",
        help="joint: name each object and read its pose (default); pose: read it at the true class, naming nothing",
    )
    parser.add_argument(
        "--crop",
        choices=("data", "box"),
        help="data: a row's picture shows its one object; box: cut each object out by its box (default for scenes)",
    )
    parser.add_argument(
        "--reading",
        choices=("mean", "mass", "error"),
        default="mean",
        help="each angle's mean (default), the most mass within 30°, or the least expected error",
    )
    parser.add_argument("--flip", action="store_true", help="read poses in the mirror image too, at twice the time")
    parser.add_argument("--winner-only", action="store_true", help="leave unlikely names out: the same names sooner")
    parser.add_argument("--scoring", choices=SCORINGS, default="sum", help="how names compare (default: sum)")
    parser.add_argument("--temperature", type=positive_number, help="over the names (default: the model's calibration)")
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--batch-size", type=whole_number, default=32, help="objects at a time (default: 32)")
    size.add_argument("--max-batch-tokens", type=whole_number, help="tokens at a time, in place of --batch-size")
    parser.add_argument("--workers", type=whole_number, default=4, help="threads that read ahead (default: 4)")
    parser.add_argument("--questions", metavar="FILE", help="3D questions about the same data, to be asked as well")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32", help="the model's precision")
    parser.add_argument(
        "--on-error",
        choices=("record", "stop"),
        default="record",
        help="a picture that cannot be read is a line with its error (default), or stops the run",
    )
    return parser.parse_args()


def what_is_left(
    out: Path, fingerprint: dict[str, Any], counts: dict[str, int], overwrite: bool
) -> dict[str, list[int]]:
    """The parts of each kind that are not done yet; makes the folder.

    Raises UserError where ``out`` holds something else, or cannot be written.
    """
    finished = out / METRICS
    try:
        if overwrite and out.is_dir():
            for name in (METRICS, PREDICTIONS, REPORT, ANSWERS):
                (out / name).unlink(missing_ok=True)
            if (out / JOURNAL).is_dir():
                shutil.rmtree(out / JOURNAL)
        if finished.is_file():
            check_same(finished_fingerprint(finished), fingerprint, str(out))
            print(f"{out}: finished already; tables and page are written anew (--overwrite begins anew)")
            return {kind: [] for kind in counts}
        (out / JOURNAL).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--out {out}: {error.filename}: {error.strerror}") from error
    left = {}
    for kind, count in counts.items():
        done = read_journals(out / JOURNAL / kind, fingerprint, out)
        left[kind] = [number for number in range(count) if number not in done]
        if done:
            print(f"{out}: {kind}: {len(done)} of {count} parts are there already")
    return left


def finished_fingerprint(path: Path) -> dict[str, Any]:
    """What the results of a finished run depend on."""
    try:
        return dict(json.loads(path.read_text(encoding="utf-8"))["settings"]["fingerprint"])
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: results of unknown origin; give another --out, or --overwrite") from error


def finish(out: Path, task: Task, settings: dict[str, Any], protocol: str) -> None:
    """Write the results from the journals, or anew from those that are there, and remove the journals."""
    lines, answers = (
        read_lines(out / name)
        if (out / METRICS).is_file() and (out / name).is_file()
        else in_order(out, kind, settings["fingerprint"])
        for kind, name in zip(KINDS, (PREDICTIONS, ANSWERS), strict=True)
    )
    metrics = make_metrics(lines, settings, task.train, protocol, task.questions, answers)
    write_results(out, lines, answers, metrics, task.data)
    if (out / JOURNAL).is_dir():
        shutil.rmtree(out / JOURNAL)
    failed = [line["error"] for line in [*lines, *answers] if "error" in line]
    if failed:
        total = len(lines) + len(answers)
        print(f"{len(failed)} of {total} could not be asked and count as misses, such as {failed[0]}", file=sys.stderr)


def in_order(out: Path, kind: str, fingerprint: dict[str, Any]) -> Lines:
    """The lines of all parts, in the order of the data."""
    parts = read_journals(out / JOURNAL / kind, fingerprint, out)
    return [line for number in sorted(parts) for line in parts[number]]


if __name__ == "__main__":
    run_cli(main)
