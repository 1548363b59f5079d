"""The speed command on a model too small to be worth timing: its figures are there, and its ways agree."""

import json
import math
import sys

import pytest
import torch

from eval import speed
from eval.random_llava import Size, build, say_names
from llava_pose.engine import Engine
from tests.released import noise

TINY = Size(hidden=64, layers=2, heads=4, vocabulary=1024, image_side=28, images=2, repetitions=1, names_timed=2)
RATIOS = {
    *("generate_ratio", "per_name_ratio", "per_name_cached_ratio", "prefill_ratio", "prefill_ratio_flat"),
    "full_distribution_ratio",
}


@pytest.mark.slow
def test_the_last_line_is_one_object_with_every_ratio(monkeypatch, capsys):
    monkeypatch.setattr(speed, "QUICK", TINY)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(sys, "argv", ["speed.py", "--quick"])
    speed.main()
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert set(result) >= RATIOS
    assert all(math.isfinite(result[name]) and result[name] > 0 for name in RATIOS)
    assert result["names"] == 200 and result["generated_poses"] == result["images"] == 2
    assert result["largest_score_difference"] < 1e-3
    assert result["nodes_computed"] < result["nodes_computed_flat"] <= result["trie_nodes"]


def test_the_fitted_head_says_one_name_for_each_image_as_surely_as_it_should():
    engine = build(TINY, torch.device("cpu"), torch.float32)
    pixels = noise(engine.processor, 2, side=28)
    names = ["car", "sofa", "bicycle", "bus", "boat", "chair", "teapot"]
    before = engine.name(pixels, engine.name_trie(names))
    engine.model.lm_head = say_names(engine, pixels, names)
    after = engine.name(pixels, engine.name_trie(names))
    assert max(before[0].probabilities) < 0.9
    for naming, sure in zip(after, (0.9, 0.5), strict=True):
        assert naming.probabilities[naming.index] == pytest.approx(sure, abs=0.05)
        assert naming.log_probabilities[naming.index] == pytest.approx(math.log(sure), abs=0.1), (
            "and says no other text"
        )


def test_methods_take_turns_and_the_first_does_not_count():
    calls = []
    methods = {name: (lambda name=name: calls.append(name)) for name in "ab"}
    times, _ = speed.interleaved(methods, 3, torch.device("cpu"))
    assert "".join(calls) == "abababab"
    assert [len(values) for values in times.values()] == [3, 3]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_measures_in_half_precision():
    result = speed.measure(TINY, torch.device("cuda"), torch.bfloat16)
    assert result["dtype"] == "bfloat16" and all(result[name] > 0 for name in RATIOS)
    assert isinstance(build(TINY, torch.device("cuda"), torch.bfloat16), Engine)
