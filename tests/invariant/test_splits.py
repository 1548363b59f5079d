"""However a batch is split, the run is the same: through the real commands, on rows of every kind."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from PIL import Image

from llava_pose import checkpoint
from tests.invariant.optimizer_state import first_gradients, trained_order
from tests.invariant.test_training import ROOT, weights_of
from tests.ranks import free_port
from tests.short_runs import write_split
from train.config import TrainConfig
from train.data import training_rows
from train.sets import load_data

pytestmark = pytest.mark.slow

STEPS = 20
ACCELERATE = ["-m", "accelerate.commands.launch", "--num_processes=2", "--num_machines=1", "--mixed_precision=no"]
ACCELERATE += ["--dynamo_backend=no", "--use_deepspeed"]
LAUNCHERS = {
    "8 × 1": (8, []),
    "1 × 8": (1, []),
    "two processes": (2, ["-m", "torch.distributed.run", "--nproc_per_node=2", "--master_port", "PORT"]),
    "ZeRO-2": (2, [*ACCELERATE, "--zero_stage=2", "--main_process_port", "PORT"]),
    "ZeRO-3": (2, [*ACCELERATE, "--zero_stage=3", "--main_process_port", "PORT"]),
}
"""Micro batch size and launcher; the batch is 8 rows, so two processes of 2 rows accumulate twice."""

LOSS, GRADIENT, NORM, WEIGHT = 1e-5, 1e-5, 1e-3, 1e-4
"""Tolerances, relative: of each step's losses; of the first step's gradient, its norm and each part by its norm; of the
norm in later steps, where weights already differ by rounding; of each weight after the last step, by its norm."""


@pytest.fixture(scope="module")
def settings(recipe, released, tmp_path_factory):
    """A run on rows with one, two and five poses, and on conversations without a pose, with a picture and without."""
    folder = tmp_path_factory.mktemp("mixed")
    (folder / "posed").mkdir()
    for split in ("train", "val"):
        write_split(folder / "posed", split, 12, seed=2, objects=(1, 5, 2))
    talks = [
        {"id": str(number), "conversations": [{"from": "human", "value": f"{mark}What is {number} + 1?"}, answer]}
        for number in range(8)
        for answer in [{"from": "gpt", "value": f"It is {number + 1}."}]
        for mark in ["<image>\n" if number % 4 == 0 else ""]
    ]
    for talk in talks[::4]:
        talk["image"] = "picture.png"
    Image.new("RGB", (40, 30), "orange").save(folder / "picture.png")
    (folder / "plain.json").write_text(json.dumps(talks))
    return {
        "data": [str(folder / "posed"), {"path": str(folder / "plain.json"), "weight": 2.0}],
        "model": {"base": str(released[1]), "lora": {"rank": 4, "alpha": 8, "dropout": 0.0}, "pose_hidden_size": 24},
        "sampling": {"group_by_length": False},  # or rows of a kind come together
        "cache_features": False,
        "steps": STEPS,
        "batch_size": 8,
        "max_grad_norm": 1.0,
        "save_every": 1,
        "keep_checkpoints": STEPS,
    }


@pytest.fixture(scope="module")
def run_of(recipe, settings, tmp_path_factory):
    """The folder of the run by a launcher of the table; each is run once."""
    folder, done = tmp_path_factory.mktemp("splits"), {}

    def launch(kind: str) -> Path:
        if kind not in done:
            micro, launcher = LAUNCHERS[kind]
            run = folder / kind.replace(" ", "_")
            path = run.with_suffix(".yaml")
            path.write_text(yaml.safe_dump(recipe(run, **settings, micro_batch_size=micro)))
            command = [free_port() if word == "PORT" else word for word in launcher]
            result = subprocess.run(
                [sys.executable, *command, "train/finetune.py", "--config", str(path)],
                cwd=ROOT,
                env={**os.environ, "DS_ACCELERATOR": "cpu", "CUDA_VISIBLE_DEVICES": ""},
                capture_output=True,
                text=True,
                timeout=600,
                check=False,
            )
            assert result.returncode == 0, result.stderr[-5000:]
            done[kind] = run
        return done[kind]

    return launch


def distance(first, second):
    return float((first - second).norm() / first.norm().clamp(min=1e-12))


def part_of(name):
    parts = {"pose_head": "head", "token_adapter": "token row", "lora_": "LoRA", "projector": "projector"}
    return next(part for word, part in parts.items() if word in name)


@pytest.mark.parametrize("kind", [kind for kind in LAUNCHERS if kind != "8 × 1"])
def test_a_split_changes_nothing(run_of, kind):
    reference, run = run_of("8 × 1"), run_of(kind)
    order = trained_order(run_of("ZeRO-2") / "checkpoint-0000001")
    lines = [
        [line for line in map(json.loads, (path / "log.jsonl").read_text().splitlines()) if "loss" in line]
        for path in (reference, run)
    ]
    found = {"loss": 0.0, "first norm": 0.0, "later norm": 0.0}
    for one, other in zip(*lines, strict=True):
        assert one["tokens"] == other["tokens"]
        for name in ("loss", "language_loss", "pose_loss"):
            found["loss"] = max(found["loss"], abs(other[name] - one[name]) / max(one[name], 1.0))
        norm = "later norm" if one["step"] > 1 else "first norm"
        found[norm] = max(found[norm], abs(other["gradient_norm"] / one["gradient_norm"] - 1))
    assert len(lines[0]) == STEPS and max(line["gradient_norm"] for line in lines[0]) > 1, "clipped"

    gradients = [first_gradients(path / "checkpoint-0000001", order_of(path, order)) for path in (reference, run)]
    assert gradients[0].keys() == gradients[1].keys()
    for part in ("head", "token row", "LoRA", "projector"):
        first, second = (
            torch.cat([value.flatten() for name, value in sorted(of.items()) if part_of(name) == part])
            for of in gradients
        )
        assert first.norm() > 1e-3
        found[part] = distance(first, second)
    weights = [weights_of(path / "final") for path in (reference, run)]
    found["weights"] = max(distance(value, weights[1][name]) for name, value in weights[0].items())
    print(kind, {name: f"{value:.1e}" for name, value in found.items()})
    assert found.pop("loss") < LOSS and found.pop("later norm") < NORM and found.pop("weights") < WEIGHT
    assert max(found.values()) < GRADIENT


def order_of(run, order):
    """Its own where DeepSpeed wrote it: ZeRO-3 cuts the optimizer's groups further."""
    first = run / "checkpoint-0000001"
    return trained_order(first) if (first / "pytorch_model").exists() else order


def test_these_runs_have_rows_without_pose_with_five_and_without_image_on_one_rank_only(recipe, settings, tmp_path):
    config = TrainConfig.model_validate(recipe(tmp_path, **settings, micro_batch_size=2))
    model, processor = checkpoint.load(settings["model"]["base"])
    rows = training_rows(config, load_data(config)[0], model, processor, None, tmp_path)
    samples = [rows[number] for number in range(STEPS * 8)]
    poses = torch.tensor([len(sample["poses"]) for sample in samples])
    images = torch.tensor(["images" in sample for sample in samples])
    assert (poses == 0).any() and (poses == 5).any() and not images.all()
    # (step, process, accumulation step): whether a micro batch has an image, a pose.
    with_image, with_pose = (value.view(STEPS, 2, 2, 2).any(-1) for value in (images, poses > 0))
    for have in (with_image, with_pose):
        assert (have[:, 0] & ~have[:, 1]).any() and (~have[:, 0] & have[:, 1]).any()
