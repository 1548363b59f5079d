"""How commands read their command line: a complaint is one line, like every other mistake."""

from __future__ import annotations

import argparse
import math
from typing import NoReturn

from llava_pose.errors import UserError


class CommandParser(argparse.ArgumentParser):
    """A parser that raises UserError instead of printing its usage."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message} ({self.prog} --help explains)")


def whole_number(text: str) -> int:
    """A whole number above 0: the type of an argument."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number above 0, got {text!r}")
    return int(text)


def positive_number(text: str) -> float:
    """A finite number above 0: the type of an argument."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"must be a number above 0, got {text!r}")
    return value
