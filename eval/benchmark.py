"""Score a model on joint classification and pose.

    accelerate launch eval/benchmark.py --model runs/mine/final --data runs/demo/data --out runs/mine/eval

Reads the object (or box) crops that data_prep/imagenet3d.py wrote. For each the class is chosen among the given names
and the pose read at its <pose>. Leaves predictions.jsonl (a line an object), metrics.json and report.html, and prints
the table.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from tqdm import tqdm

from eval.baselines import chance_levels
from eval.report import format_table, write_report, write_text
from llava_pose import checkpoint, taxonomy
from llava_pose.arguments import CommandParser, whole_number
from llava_pose.engine import Engine
from llava_pose.errors import UserError, run_cli
from llava_pose.evaluation import predict_records, score
from llava_pose.folders import model_source, use_taxonomy_of
from llava_pose.launch import make_accelerator
from llava_pose.scene import PosedImage, crop_kind, load_split


def main() -> None:
    """Evaluate and write the results."""
    arguments = parse_arguments()
    use_taxonomy_of(model_source(arguments.model))
    data = load_split(arguments.data, arguments.split)
    present = sorted({item["category"] for row in data["objects"] for item in row})
    categories = taxonomy.read_category_file(arguments.categories) if arguments.categories else present
    missing = set(present) - set(categories)
    if missing:
        raise UserError(f"{arguments.categories}: {sorted(missing)[0]!r} is in the data but not among the names")
    # For the chance level: read before the work, so that a data set without it does not lose the predictions.
    train = [item for row in load_split(arguments.data, "train")["objects"] for item in row]
    out = Path(arguments.out)
    accelerator = make_accelerator()
    model, processor = checkpoint.load(arguments.model, getattr(torch, arguments.dtype))
    engine = Engine(model.to(accelerator.device), processor)
    out.mkdir(parents=True, exist_ok=True)
    lines = predict_all(accelerator, engine, data, categories, arguments.batch_size)
    if accelerator.is_main_process:
        settings = {
            "model": str(arguments.model),
            "data": str(arguments.data),
            "split": arguments.split,
            "crop": crop_kind(arguments.data),
            "categories": categories,
            "dtype": arguments.dtype,
        }
        write_results(out, lines, settings, chance_levels(lines, train, categories), data)
    accelerator.wait_for_everyone()


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = CommandParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=checkpoint.EMBEDDED, help="folder or hub name (default: the embedded model)")
    parser.add_argument("--data", required=True, metavar="DIR", help="a data set of data_prep/imagenet3d.py")
    parser.add_argument("--out", required=True, metavar="DIR", help="where the results go")
    parser.add_argument("--split", default="val", help="which split (default: val)")
    parser.add_argument("--categories", metavar="FILE", help="candidate names, one a line (default: those in the data)")
    parser.add_argument("--batch-size", type=whole_number, default=32, help="objects at a time (default: 32)")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32", help="the model's precision")
    return parser.parse_args()


def predict_all(
    accelerator: Accelerator, engine: Engine, data: Any, categories: Sequence[str], batch_size: int
) -> list[dict[str, Any]]:
    """Every row's prediction line, shared out over the processes, back in the data's order."""
    mine = range(accelerator.process_index, len(data), accelerator.num_processes)
    shown = tqdm(mine, desc="evaluate", unit="object", disable=not accelerator.is_local_main_process)
    lines = list(predict_records(engine, read_rows(data, shown), categories, batch_size))
    gathered = gather_object(list(zip(mine, lines, strict=True)))
    return [line for _, line in sorted(gathered, key=lambda pair: pair[0])]


def read_rows(data: Any, indices: Any) -> Iterator[PosedImage]:
    """The records of these rows, decoded one at a time."""
    for index in indices:
        yield PosedImage.from_row(data[index])


def write_results(
    out: Path, lines: list[dict[str, Any]], settings: dict[str, Any], chance: dict[str, Any], data: Any
) -> None:
    """Write the three files, each complete before it has its name, and print the table."""
    metrics = {**score(lines), "settings": settings}
    metrics["argmax"] = score(lines, "argmax_pose_error")["joint"]["average"]
    metrics["chance"] = chance
    write_text(out / "predictions.jsonl", "".join(json.dumps(line) + "\n" for line in lines))
    write_text(out / "metrics.json", json.dumps(metrics, indent=1, ensure_ascii=False) + "\n")
    write_report(out / "report.html", metrics, lines, data)
    print(format_table(metrics))


if __name__ == "__main__":
    run_cli(main)
