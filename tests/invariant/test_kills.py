"""A run that is killed at any moment ends, resumed, in the weights it would have had."""

import os
import random
import shutil
import time
from pathlib import Path

import pytest

from tests import ranks
from tests.invariant.test_training import assert_equal_logs, assert_equal_weights, lora
from train.checkpointing import checkpoints

KILLS = 20


def steps_logged(folder):
    path = folder / "log.jsonl"
    return path.read_bytes().count(b'"loss"') if path.exists() else 0


def kill_at_random(processes, folder, chance):
    """Kill -9 all of a run's processes some steps after it began to log, and some moments after that. Whether it was
    still running, and what it was in the middle of."""
    steps, moment = chance.randint(0, 3), chance.uniform(0, 0.15)
    begin, deadline = steps_logged(folder), time.monotonic() + ranks.LIMIT
    while steps_logged(folder) < begin + steps and all(process.is_alive() for process in processes):
        assert time.monotonic() < deadline
        time.sleep(0.002)
    time.sleep(moment)
    alive = all(process.is_alive() for process in processes)
    for process in processes:
        process.kill()
        process.join()
    print(f"killed {steps} steps and {moment:.3f} s on: {steps_logged(folder)} steps logged,", end=" ")
    print("while writing" if list(folder.glob(".*")) else "", "" if alive else "too late")
    return alive


@pytest.mark.slow
def test_a_run_killed_at_twenty_random_moments_ends_in_the_same_bits(recipe, tmp_path, released):
    seed = int(os.environ.get("LLAVA_POSE_KILL_SEED", "0"))
    chance = random.Random(seed)
    print(f"seed {seed}")
    settings = {"steps": 24, "save_every": 1, "eval_every": 5, "warmup_steps": 2, **lora(released)}
    whole = ranks.train(recipe(tmp_path / "whole", **settings))
    kills, number = 0, 0
    while kills < KILLS:
        values = recipe(tmp_path / f"killed-{number}", **settings)
        number += 1
        folder = Path(values["output_dir"])
        while not (folder / "final").exists():
            process = ranks.start(values, *(["--resume"] if folder.exists() else []))
            if kills == KILLS:
                assert ranks.finish(values, process) == [0], ranks.said(values)
            else:
                kills += kill_at_random(process, folder, chance)
        assert_equal_weights(whole / "final", folder / "final")
        assert_equal_logs(whole, folder)
        assert not list(folder.glob(".partial*"))
        shutil.rmtree(folder)


@pytest.mark.slow
@pytest.mark.parametrize("zero", [None, 2, 3])
def test_two_processes_killed_at_random_end_in_the_same_bits(recipe, tmp_path, released, zero):
    chance = random.Random(zero)
    settings = {"steps": 12, "save_every": 2, "micro_batch_size": 1, **lora(released)}
    whole = ranks.train(recipe(tmp_path / "whole", **settings), processes=2, zero=zero)
    values = recipe(tmp_path / "killed", **settings)
    folder = tmp_path / "killed"
    for _ in range(2):
        kill_at_random(ranks.start(values, *["--resume"] * folder.exists(), processes=2, zero=zero), folder, chance)
    assert checkpoints(folder) or not (folder / "final").exists()
    ranks.train(values, "--resume", processes=2, zero=zero)
    assert_equal_weights(whole / "final", folder / "final")
