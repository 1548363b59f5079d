"""A disk that takes no more: one clear line in place of whatever the writer of the moment makes of it."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from llava_pose.errors import UserError

from .checkpointing import checkpoints

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextmanager
def disk_errors(run: Path) -> Iterator[None]:
    """Raises UserError where something cannot be written for want of space: it names what there is to go on from."""
    try:
        yield
    except (OSError, SafetensorError, RuntimeError) as error:
        if not _is_full(error):
            raise
        found = checkpoints(run)
        rest = f"{found[-1]} is whole: free some space and give --resume" if found else "there is no checkpoint yet"
        raise UserError(f"{run}: the disk is full, or a quota or limit is reached ({error}); {rest}") from error


def _is_full(error: OSError | SafetensorError | RuntimeError) -> bool:
    if isinstance(error, OSError):
        return error.errno in FULL
    # safetensors tells it in words, torch.save that its file is not as long as it should be.
    return any(words in str(error) for words in ("os error 28", "os error 122", "os error 27", "inline_container"))
