"""The commands about model folders, ``merge`` and ``push``: their options, and what is checked before they load."""

from __future__ import annotations

import argparse
from pathlib import Path

from .errors import UserError
from .folders import model_source

MERGE_SUMMARY = "Write a finetuned model as a plain transformers folder, its adapter merged into its base."
MERGE_EXAMPLES = """\
examples:
  llava-pose merge --model runs/llava-7b/final --out runs/llava-7b/merged
  llava-pose merge --model runs/llava-7b/final --out merged --dtype float16

The folder opens with transformers alone (AutoModelForImageTextToText, AutoProcessor): text with <pose> marks. What
reads the poses lies beside it in pose_head.safetensors, so llava-pose --model opens it too, with equal poses.

Merging takes four bytes of memory a weight (28 GB for 7B) and rounds once, to --dtype."""
PUSH_SUMMARY = "Upload a model folder to the hub, with its card."
PUSH_EXAMPLES = """\
examples:
  llava-pose push owner/name --model runs/llava-7b/final
  llava-pose push owner/name --model runs/llava-7b/merged --metrics runs/llava-7b/eval/metrics.json --private

The card (README.md in the folder) holds the recipe, the data and the scores of training; --metrics puts the table of
eval/benchmark.py into it. The hub's token is that of `hf auth login`, or HF_TOKEN."""


def add_merge_options(parser: argparse.ArgumentParser) -> None:
    """Everything the command takes besides --model."""
    parser.add_argument("--out", metavar="DIR", required=True, help="the folder to write; it must not be there yet")
    parser.add_argument(
        "--dtype", choices=["bfloat16", "float16", "float32"], default="bfloat16", help="of the weights (bfloat16)"
    )
    parser.add_argument(
        "--as-trained",
        action="store_true",
        help="an adapter trained on four bits (nf4): merge it into what these stand for, not into the full base",
    )


def merge(arguments: argparse.Namespace) -> None:
    """``llava-pose merge``."""
    if Path(arguments.out).exists():
        raise UserError(f"{arguments.out}: is there already; name a folder that is not")
    model_source(arguments.model)

    import torch
    from transformers.utils import logging

    from . import merging
    from .terminal import note

    logging.set_verbosity_error()
    merging.merge(arguments.model, arguments.out, getattr(torch, arguments.dtype), arguments.as_trained)
    note(f"saved {arguments.out}")


def add_push_options(parser: argparse.ArgumentParser) -> None:
    """Everything the command takes besides --model."""
    parser.add_argument("name", metavar="OWNER/NAME", help="the repository; it is made if it is not there")
    parser.add_argument("--metrics", metavar="JSON", help="a metrics.json of eval/benchmark.py, for the card")
    parser.add_argument("--private", action="store_true", help="if it is made: for you alone")


def push(arguments: argparse.Namespace) -> None:
    """``llava-pose push``."""
    from .publishing import push_to_hub
    from .terminal import note

    note(f"uploaded to {push_to_hub(arguments.model, arguments.name, arguments.metrics, arguments.private)}")
