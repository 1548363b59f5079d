"""The best evaluation's model on several processes, however DeepSpeed shares things out."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from safetensors.torch import load_file

ROOT = Path(__file__).parents[2]
LAUNCHERS = {
    "one": ["torch.distributed.run", "--nproc_per_node=1", "--master_port"],
    "two": ["torch.distributed.run", "--nproc_per_node=2", "--master_port"],
    **{
        f"zero-{stage}": [
            "accelerate.commands.launch",
            *("--num_processes=2", "--num_machines=1", "--mixed_precision=no", "--use_deepspeed"),
            *(f"--zero_stage={stage}", "--main_process_port"),
        ]
        for stage in (2, 3)
    },
}


def free_port():
    with socket.socket() as opened:
        opened.bind(("127.0.0.1", 0))
        return str(opened.getsockname()[1])


def launch(values, path, scores, how):
    path.write_text(yaml.safe_dump(values))
    environment = {"DS_ACCELERATOR": "cpu", "CUDA_VISIBLE_DEVICES": "", "SCORES": scores, "PYTHONPATH": str(ROOT)}
    result = subprocess.run(
        [sys.executable, "-m", *LAUNCHERS[how], free_port(), "tests/train/scripted.py", "--config", str(path)],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    return load_file(Path(values["output_dir"]) / "final" / "adapter_model.safetensors")


def distance(first, second):
    """How far apart two sets of weights are, relative to their size."""
    squares = [(float((first[name] - second[name]).norm() ** 2), float(first[name].norm() ** 2)) for name in first]
    return (sum(far for far, _ in squares) / sum(size for _, size in squares)) ** 0.5


@pytest.fixture(scope="module")
def train(recipe, released, tmp_path_factory):
    folder = tmp_path_factory.mktemp("several")

    def run(name, scores, how="one"):
        model = {"base": str(released[1]), "lora": {"rank": 4, "alpha": 8, "dropout": 0.0}, "pose_hidden_size": 24}
        settings = {"steps": 4, "eval_every": 1, "keep_best": True, "batch_size": 8, "micro_batch_size": 2}
        settings |= {"model": model, "cache_features": False, "learning_rate": 0.01, "trackers": []}
        return launch(recipe(folder / name, **settings), folder / f"{name}.yaml", scores, how)

    return run


@pytest.fixture(scope="module")
def alone(train):
    """The weights of a single process's run whose second evaluation is the best, and of one whose last is."""
    return train("second", "1:10 2:30 3:20 4:20"), train("last", "1:10 2:20 3:30 4:40")


@pytest.mark.slow
@pytest.mark.parametrize("how", ["two", "zero-2", "zero-3"])
def test_several_processes_keep_the_same_best_model_as_one(train, alone, how):
    second, last = alone
    assert distance(second, last) > 0.02
    assert distance(second, train(how, "1:10 2:30 3:20 4:20", how)) < 0.002
