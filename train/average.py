"""Average the weights of models that one was finetuned from the other, or both from a third: often better than each.

    python train/average.py runs/base/train-3/final runs/base/train-4/final --out runs/base/average

Every weight becomes the mean of the models' own, each counting as much (Wortsman et al. 2022, "Model soups").
Tokenizer, processor and configuration are the last model's; a calibration, which belongs to its weights, stays behind.
The models are whole folders in safetensors, no adapters: merge those first.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from llava_pose import calibration
from llava_pose.arguments import CommandParser
from llava_pose.errors import UserError, run_cli

WEIGHTS = "model.safetensors"


def main() -> None:
    """Read, average, write."""
    parser = CommandParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", type=Path, nargs="+", metavar="DIR", help="two model folders or more")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="the folder to write")
    arguments = parser.parse_args()
    models, out = list(arguments.models), arguments.out
    if len(models) < 2:
        raise UserError(f"{models[0]}: one model alone has no average; name two or more")
    if out.exists():
        raise UserError(f"--out {out}: is there already; name a folder that is not")
    weights = average(models)
    partial = out.with_name(f".{out.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    shutil.copytree(models[-1], partial, ignore=shutil.ignore_patterns(WEIGHTS, calibration.FILE_NAME))
    save_file(weights, partial / WEIGHTS, metadata={"format": "pt"})
    partial.rename(out)
    print(f"{out}: the average of {len(models)} models")


def average(models: list[Path]) -> dict[str, torch.Tensor]:
    """The mean of each weight, computed in float32, in the precision in which it is stored.

    Raises UserError where a folder has no weights in one file, or weights of other names or shapes than the first's.
    """
    first = read_weights(models[0])
    sums = {name: value.float() for name, value in first.items()}
    for folder in models[1:]:
        other = read_weights(folder)
        for name in sorted(first.keys() ^ other.keys()):
            raise UserError(f"{models[0]}, {folder}: {name}: only one of them has this weight")
        for name, value in other.items():
            if value.shape != sums[name].shape:
                raise UserError(
                    f"{folder}: {name}: shape {tuple(value.shape)}, in {models[0]} {tuple(sums[name].shape)}"
                )
            sums[name] += value.float()
    return {name: (value / len(models)).to(first[name].dtype) for name, value in sums.items()}


def read_weights(folder: Path) -> dict[str, torch.Tensor]:
    """A model folder's weights. Raises UserError."""
    if (folder / "adapter_config.json").is_file():
        raise UserError(f"{folder}: an adapter; llava-pose merge makes a whole model of it")
    try:
        return load_file(folder / WEIGHTS)
    except (OSError, SafetensorError) as error:
        raise UserError(f"{folder}: {WEIGHTS} cannot be read: {error}") from error


if __name__ == "__main__":
    run_cli(main)
