"""The one way a user's mistake reaches the user: a single clear line and exit code 2."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import NoReturn


class UserError(Exception):
    """A mistake of the caller's: the message is one line that names the file, the field and the value."""


def run_cli(main: Callable[[], object]) -> NoReturn:
    """Run a command's ``main`` and leave: 0 when it returns, 2 on a ``UserError``, 130 on Ctrl-C.

    Any other exception is ours, and keeps its traceback.
    """
    try:
        main()
    except UserError as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)
    sys.exit(0)
