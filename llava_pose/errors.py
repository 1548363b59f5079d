"""The one way a user's mistake reaches the user: a single clear line and exit code 2."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import NoReturn


class UserError(Exception):
    """A mistake of the caller's: the message is one line that names the file, the field and the value."""


def run_cli(main: Callable[[], object]) -> NoReturn:
    """Run a command's ``main`` and leave: 0 when it returns, 2 on a ``UserError``, 130 on Ctrl-C.

    A reader that closes the pipe early, as ``head`` does, ends it without a word. Any other exception is ours, and
    keeps its traceback.
    """
    try:
        main()
        sys.stdout.flush()
    except BrokenPipeError:
        # What is still buffered has nowhere to go; at exit it would be flushed, and fail, once more.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except UserError as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)
    sys.exit(0)
