"""Every recipe, made small, trains through the very command that it opens with."""

import json
import os
import re
import shlex
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.utils import DeepSpeedPlugin

from llava_pose import checkpoint
from tests.released import write_released
from train.config import load_config

ROOT = Path(__file__).parents[2]
RECIPES = sorted(ROOT.glob("train/recipes/*.yaml"))
LAUNCH = sorted(ROOT.glob("train/launch/*.yaml"))


def command_of(recipe):
    """The words of the command that a recipe opens with."""
    text = recipe.read_text()
    lines = re.match(r"# (accelerate launch .*?[^\\])\n", text, re.DOTALL)[1]
    return shlex.split(re.sub(r"\\\n#\s*", " ", lines))


def launch_file(words):
    return words[words.index("--config_file") + 1] if "--config_file" in words else None


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_opens_with_its_command_and_agrees_with_its_launch_file(recipe):
    words = command_of(recipe)
    assert words[:2] == ["accelerate", "launch"] and "train/finetune.py" in words
    assert words[words.index("--config") + 1] == str(recipe.relative_to(ROOT))
    config = load_config(recipe)
    processes = 1
    if launch_file(words):
        launch = yaml.safe_load((ROOT / launch_file(words)).read_text())
        processes = launch["num_processes"]
        assert launch.get("mixed_precision", "no") == "no", "half precision is the recipe's"
    assert config.batch_size % (processes * config.micro_batch_size) == 0


@pytest.mark.parametrize("recipe", [path for path in RECIPES if "llava" in path.stem], ids=lambda path: path.stem)
def test_a_recipe_for_gpus_says_why_of_all_that_is_not_the_usual(recipe):
    settings = [line for line in recipe.read_text().splitlines() if re.match(r"\s*\w+: \S", line)]
    told = {"output_dir", "base", "dropout", "steps", "batch_size", "schedule", "max_grad_norm", "log_every"}
    told |= {"eval_every", "keep_checkpoints"}
    for line in settings:
        assert "  # " in line or line.split(":")[0].strip() in told, line


@pytest.mark.parametrize("file", LAUNCH, ids=lambda path: path.stem)
def test_accelerate_reads_a_launch_file_and_deepspeed_its_settings(file, monkeypatch):
    found = load_config_from_file(str(file))
    assert found.num_processes == found.num_machines * min(found.num_processes, 8)
    assert str(found.num_processes) in file.stem
    if file.stem == "1gpu":
        return
    settings = ROOT / found.deepspeed_config["deepspeed_config_file"]
    stage = json.loads(settings.read_text())["zero_optimization"]["stage"]
    assert f"zero{stage}" in file.stem
    monkeypatch.setenv("DS_ACCELERATOR", "cpu")
    assert DeepSpeedPlugin(hf_ds_config=str(settings)).zero_stage == stage


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A released checkpoint as wide as bitsandbytes needs it, the kind all recipes with a base are for."""
    folder = tmp_path_factory.mktemp("base") / "llava-1.5-small"
    write_released(folder, width=64)
    return folder


def shrunken(recipe, base, data, out):
    """The settings that make a recipe small, everything else as it is."""
    config = load_config(recipe)
    settings = {"output_dir": out, "data": data, "steps": 2, "workers": 0, "eval_every": 1, "eval_rows": 2}
    settings |= {"save_every": 1, "log_every": 1, "warmup_steps": 1}
    if config.model.base:
        settings |= {"model.base": base, "model.projector": "null"}
    else:
        sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
        settings |= {f"model.text.{name}": value for name, value in sizes.items()}
    return [f"{name}={value}" for name, value in settings.items()]


def free_port():
    with socket.socket() as opened:
        opened.bind(("127.0.0.1", 0))
        return str(opened.getsockname()[1])


def started(words):
    """A command of a recipe, started here: accelerate as this Python's own."""
    return subprocess.Popen(
        [sys.executable, "-m", "accelerate.commands.launch", *words],
        cwd=ROOT,
        env={**os.environ, "DS_ACCELERATOR": "cpu", "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finished(*processes):
    said = [process.communicate(timeout=600)[0] for process in processes]
    for process, words in zip(processes, said, strict=True):
        assert process.returncode == 0, words[-4000:]


def assert_trained(run):
    steps = {json.loads(line)["step"] for line in (run / "log.jsonl").read_text().splitlines()}
    assert steps == {1, 2}
    model, _ = checkpoint.load(run / "final")
    assert model.config.pose_categories


@pytest.mark.slow
@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_made_small_trains_by_its_own_command(recipe, base, data_dir, tmp_path):
    """On two processes where it is for eight, with the batch of eight: what is shared out is the same."""
    words = command_of(recipe)[2:]
    where = words.index("train/finetune.py")
    launch, script = words[:where], words[where : words.index("--config") + 2]
    launch += ["--main_process_port", free_port()] if launch else ["--num_processes", "1"]
    config = load_config(recipe)
    small = shrunken(recipe, base, data_dir, tmp_path / "run")
    if "8gpu" in recipe.stem:
        launch += ["--num_processes", "2"]
        small += [f"batch_size={2 * config.batch_size // 8}"]
    elif config.batch_size == config.micro_batch_size:
        small += ["batch_size=8", "micro_batch_size=8"]
    finished(started([*launch, *script, *small]))
    assert_trained(tmp_path / "run")


@pytest.mark.slow
def test_several_machines_train_together_by_the_launch_file_for_them(base, data_dir, tmp_path):
    """Two machines of one process each, both this one."""
    recipe = ROOT / "train/recipes/llava-1.5-7b-lora-8gpu.yaml"
    port = free_port()
    machines = []
    for rank in range(2):
        launch = ["--config_file", "train/launch/64gpu-zero2.yaml", "--num_machines", "2", "--num_processes", "2"]
        launch += ["--machine_rank", str(rank), "--main_process_ip", "127.0.0.1", "--main_process_port", port]
        small = [*shrunken(recipe, base, data_dir, tmp_path / "run"), "batch_size=8"]
        machines.append(started([*launch, "train/finetune.py", "--config", str(recipe), *small]))
    finished(*machines)
    assert_trained(tmp_path / "run")
