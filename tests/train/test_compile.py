"""Compiled layers compute what they compute uncompiled."""

import json
import shutil

import pytest


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # those of the compiler, about its own doings
@pytest.mark.skipif(shutil.which("c++") is None and shutil.which("g++") is None, reason="no C++ compiler is installed")
@pytest.mark.parametrize("kind", ["full", "lora"])
def test_a_run_with_compiled_layers_has_the_same_losses(run, released, kind):
    settings = {"steps": 3, "batch_size": 4}
    if kind == "lora":
        settings["model"] = {"base": str(released[1]), "lora": {"rank": 4, "alpha": 8, "dropout": 0.0}}
        settings |= {"cache_features": False, "gradient_checkpointing": True}
    plain, compiled = run("plain", **settings), run("compiled", compile=True, **settings)
    lines = [
        [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()] for folder in (plain, compiled)
    ]
    for first, second in list(zip(*lines, strict=True))[:3]:
        for name in ("language_loss", "pose_loss", "gradient_norm"):
            assert second[name] == pytest.approx(first[name], rel=1e-3)
