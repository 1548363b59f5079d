"""The scaling experiment: its sizes, what it counts, and that it goes on where it was."""

import csv
import sys

import pytest
import yaml

from train import scaling
from train.config import load_config
from train.model import build_model
from train.scaling import SIZES, Size, millions


@pytest.fixture
def tiny(recipe, tmp_path, monkeypatch):
    """The experiment at a size of a few steps, on the small data set."""
    path = tmp_path / "recipe.yaml"
    values = recipe(tmp_path / "unused", cache_features=True)
    path.write_text(yaml.safe_dump(values))
    monkeypatch.setattr(scaling, "RECIPE", path)
    monkeypatch.setattr(scaling, "SIZES", {"a": Size(64, 32, 1, 2, (8, 16)), "b": Size(96, 32, 2, 2, (8,))})
    return ["--data", values["data"][0], "--out", tmp_path / "out", "--eval-rows", 3]


def call(monkeypatch, words):
    monkeypatch.setattr(sys, "argv", ["scaling.py", *map(str, words)])
    scaling.main()
    out = words[words.index("--out") + 1]
    with (out / "scaling.csv").open() as file:
        return list(csv.DictReader(file)), out


def test_every_run_is_a_line_with_its_compute_and_its_score_and_none_is_run_twice(tiny, monkeypatch):
    lines, out = call(monkeypatch, tiny)
    assert [(line["size"], line["samples"], line["image_tokens"]) for line in lines] == [
        ("a", "8", "16"),
        ("b", "8", "36"),
        ("a", "16", "16"),
    ]
    compute = [float(line["petaflops"]) for line in lines]
    assert compute[2] == pytest.approx(2 * compute[0], rel=0.1) and compute[1] > compute[0] > 0
    for line in lines:
        assert 0 <= float(line["acc_pi_18"]) <= float(line["acc_pi_6"]) <= 100 and line["objects"] == "3"
    assert (out / "scaling.png").stat().st_size < 150_000
    monkeypatch.setattr(scaling, "measure", lambda *_: pytest.fail("a run that was there already"))
    assert call(monkeypatch, tiny)[0] == lines


def test_the_three_sizes_grow_in_tokens_and_weights():
    found = []
    for size in SIZES.values():
        config = load_config(scaling.RECIPE, [*size.overrides(), "data=unused", "output_dir=unused"])
        model, processor = build_model(config)
        found.append((processor.image_tokens, millions(model.model.language_model) + millions(model.lm_head)))
    assert [tokens for tokens, _ in found] == [16, 36, 64]
    assert [round(count) for _, count in found] == [1, 4, 12]
