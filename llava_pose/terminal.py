"""What the commands share at a terminal: notes beside the output, colour, silence, and opening a model."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from .folders import model_source

if TYPE_CHECKING:
    from .api import LlavaPose


def note(text: str) -> None:
    """Say something beside the output, on stderr."""
    print(text, file=sys.stderr, flush=True)


def styled(text: str, code: str) -> str:
    """The text in an ANSI style when stdout is a terminal that wants colour, else as it is."""
    plain = "NO_COLOR" in os.environ or os.environ.get("TERM") == "dumb" or not sys.stdout.isatty()
    return text if plain else f"\x1b[{code}m{text}\x1b[0m"


def open_model(name: str) -> LlavaPose:
    """The model under a name of ``folders.model_source``, where and as precise as ``LlavaPose.from_pretrained`` has it.

    Nothing of the libraries' own talk reaches the terminal, but the progress of a download does, on a keyboard's
    stderr. Raises UserError when it is no model.
    """
    source = model_source(name)
    keyboard = sys.stderr.isatty()
    downloads = not os.path.isdir(source)
    if keyboard:
        print("loading the model …", end="", file=sys.stderr, flush=True)
    try:
        with _no_garbage_collection():
            _silence_libraries(progress=downloads and keyboard)
            from .api import LlavaPose
        return LlavaPose.from_pretrained(source)
    finally:
        if keyboard:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """Imports make many objects and no garbage: searching for it takes a fifth of their time."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        gc.freeze()


def _silence_libraries(progress: bool) -> None:
    # Read when the libraries are imported; whoever sets one keeps it.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("HF_HUB_VERBOSITY", "error")
    from transformers.utils import logging

    logging.set_verbosity_error()
    if not progress:
        logging.disable_progress_bar()
