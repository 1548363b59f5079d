"""The command that times turns, on a model too small to be worth timing: its figures are there."""

import json
import math
import sys

import pytest
import torch

from eval import turns
from eval.random_llava import Size

TINY = Size(hidden=64, layers=2, heads=4, vocabulary=1024, image_side=28, images=2)


@pytest.mark.slow
def test_the_last_line_is_one_object_with_every_ratio(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(turns, "QUICK", TINY)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(sys, "argv", ["turns.py", "--quick"])
    turns.main()
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    for name in ("follow_up_ratio", "throughput_ratio", "tokens_per_second"):
        assert math.isfinite(result[name]) and result[name] > 0
    assert result["follow_up_prompt_tokens"] > result["first_prompt_tokens"] + 10
    assert result["conversations"] == 4
