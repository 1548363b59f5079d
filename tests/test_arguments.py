"""Command lines: complaints in one line that name option and value."""

import pytest

from llava_pose.arguments import CommandParser, positive_number, whole_number
from llava_pose.errors import UserError


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--count 0", r"argument --count: must be a whole number above 0, got '0' \(x.py --help explains\)"),
        ("--count -3", "--count"),
        ("--count 2.5", "must be a whole number above 0, got '2.5'"),
        ("--count ²", "must be a whole number above 0, got '²'"),
        ("--size nan", r"argument --size: must be a number above 0, got 'nan' \(x.py --help explains\)"),
        ("--size inf", "must be a number above 0, got 'inf'"),
        ("--size much", "must be a number above 0, got 'much'"),
        ("--kind c", r"argument --kind: invalid choice: 'c' \(choose from "),
        ("--colour red", r"unrecognized arguments: --colour red"),
    ],
)
def test_a_wrong_command_line_is_one_line(words, message):
    parser = CommandParser(prog="x.py")
    parser.add_argument("--count", type=whole_number)
    parser.add_argument("--size", type=positive_number)
    parser.add_argument("--kind", choices=["a", "b"])
    with pytest.raises(UserError, match=message) as error:
        parser.parse_args(words.split())
    assert "\n" not in str(error.value)
    good = parser.parse_args(["--count", "12", "--size", "2.5e3"])
    assert (good.count, good.size) == (12, 2500.0)
