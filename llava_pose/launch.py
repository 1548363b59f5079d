"""What both launched scripts, training and evaluation, start with."""

from __future__ import annotations

import os
from datetime import timedelta
from typing import Any

import torch
from accelerate import Accelerator, InitProcessGroupKwargs
from transformers.utils import logging


def make_accelerator(patience: timedelta | None = None, **kwargs: Any) -> Accelerator:
    """An accelerator for the processes ``accelerate launch`` started; ``patience``: how long they wait for each other
    before they give up, where the minutes that are usual in training are too few.

    Several processes without a GPU talk through gloo: left alone, accelerate picks no backend there and silently
    reports one process. A single process must name no backend at all.
    """
    # The scripts show bars of their own; the library's, one for each file read, would drown them.
    logging.disable_progress_bar()
    if not torch.cuda.is_available():
        # accelerate imports DeepSpeed where it is installed; told the device, it does not complain about its absence.
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    on_cpu = processes > 1 and not torch.cuda.is_available()
    group = InitProcessGroupKwargs(backend="gloo" if on_cpu else None, timeout=patience)
    handlers = [group] if on_cpu or (processes > 1 and patience is not None) else []
    # Without the word, several processes on a CPU would meet and yet each train a model of its own. DeepSpeed has its
    # own way to a CPU, and refuses the word.
    deepspeed = os.environ.get("ACCELERATE_USE_DEEPSPEED", "false").lower() == "true"
    accelerator = Accelerator(cpu=on_cpu and not deepspeed, kwargs_handlers=handlers, **kwargs)
    together = accelerator.reduce(torch.ones((), device=accelerator.device), "sum").item()
    if together != processes:
        raise RuntimeError(f"{processes} processes were launched, but {together:.0f} work together")
    return accelerator
