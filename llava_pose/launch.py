"""What both launched scripts, training and evaluation, start with."""

from __future__ import annotations

import os
from typing import Any

import torch
from accelerate import Accelerator, InitProcessGroupKwargs
from transformers.utils import logging


def make_accelerator(**kwargs: Any) -> Accelerator:
    """An accelerator for the processes ``accelerate launch`` started.

    Several processes without a GPU talk through gloo: left alone, accelerate picks no backend there and silently
    reports one process. A single process must name no backend at all.
    """
    # The scripts show bars of their own; the library's, one for each file read, would drown them.
    logging.disable_progress_bar()
    if not torch.cuda.is_available():
        # accelerate imports DeepSpeed where it is installed; told the device, it does not complain about its absence.
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    several = int(os.environ.get("WORLD_SIZE", "1")) > 1
    handlers = [InitProcessGroupKwargs(backend="gloo")] if several and not torch.cuda.is_available() else []
    accelerator = Accelerator(kwargs_handlers=handlers, **kwargs)
    if several and accelerator.num_processes != int(os.environ["WORLD_SIZE"]):
        raise RuntimeError(f"{os.environ['WORLD_SIZE']} processes were launched, {accelerator.num_processes} met")
    return accelerator
