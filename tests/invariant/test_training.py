"""What must hold from run to run: the split of a batch, a kill, a resume, the number of processes change nothing."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests import ranks
from train import checkpointing, finetune

ROOT = Path(__file__).parents[2]


def weights_of(folder):
    (file,) = (folder / name for name in ("model.safetensors", "adapter_model.safetensors") if (folder / name).exists())
    return load_file(file)


def assert_equal_weights(first, second, **tolerance):
    first, second = weights_of(first), weights_of(second)
    assert first.keys() == second.keys()
    for name, value in first.items():
        if tolerance:
            torch.testing.assert_close(second[name], value, **tolerance, msg=name)
        else:
            assert torch.equal(second[name], value), name


def assert_close_weights(first, second, tolerance=1e-4):
    """By the norm of each: Adam makes a step of any gradient, however close to 0 and uncertain in its sign."""
    first, second = weights_of(first), weights_of(second)
    assert first.keys() == second.keys()
    for name, value in first.items():
        assert (second[name] - value).norm() <= tolerance * value.norm(), name


def assert_equal_logs(first, second):
    """But for what the clock and the memory say."""
    measured = {"samples_per_second", "tokens_per_second", "peak_memory_gib", "eta_seconds"}
    lines = [[json.loads(line) for line in (path / "log.jsonl").read_text().splitlines()] for path in (first, second)]
    for one, other in zip(*lines, strict=True):
        assert {k: v for k, v in one.items() if k not in measured} == {
            k: v for k, v in other.items() if k not in measured
        }


def lora(released):
    # Dropout, so that the random state counts.
    return {
        "model": {"base": str(released[1]), "lora": {"rank": 4, "alpha": 8, "dropout": 0.3}, "pose_hidden_size": 24},
        "cache_features": False,
        "precision": "fp32",
    }


def die_in_step(number):
    """A train_step that is killed in the step after ``number`` of them."""
    done = []
    step = finetune.train_step

    def dying(*arguments):
        if len(done) == number:
            raise KeyboardInterrupt
        done.append(step(*arguments))
        return done[-1]

    return dying


@pytest.mark.parametrize("kind, killed_after", [("full", 4), ("lora", 3), ("muon", 3)])
def test_a_run_that_was_killed_resumes_to_the_same_bits(run, released, monkeypatch, kind, killed_after):
    settings = {"steps": 6, "save_every": 2, "eval_every": 3, "warmup_steps": 2}
    settings |= lora(released) if kind == "lora" else {"precision": "bf16"}
    settings |= {"optimizer": "muon"} if kind == "muon" else {}
    whole = run("whole", **settings)
    with monkeypatch.context() as patch:
        patch.setattr(finetune, "train_step", die_in_step(killed_after))
        with pytest.raises(KeyboardInterrupt):
            run("killed", **settings)
    killed = whole.parent / "killed"
    assert not (killed / "final").exists()
    assert checkpointing.checkpoints(killed)[-1].name == f"checkpoint-000000{killed_after // 2 * 2}"
    run("killed", "--resume", **settings)
    assert_equal_weights(whole / "final", killed / "final")
    assert_equal_logs(whole, killed)


def test_a_run_that_was_killed_while_saving_resumes_from_the_checkpoint_before(run, monkeypatch):
    whole = run("whole", steps=5, save_every=2)

    def cut(path):
        if path.name == ".partial-checkpoint-0000004":
            (path / checkpointing.WEIGHTS).write_bytes(b"cut short")
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(checkpointing, "_to_disk", cut)
        with pytest.raises(KeyboardInterrupt):
            run("killed", steps=5, save_every=2)
    killed = whole.parent / "killed"
    assert [path.name for path in checkpointing.checkpoints(killed)] == ["checkpoint-0000002"]
    run("killed", "--resume", steps=5, save_every=2)
    assert_equal_weights(whole / "final", killed / "final")
    assert not list(killed.glob(".partial*"))


def test_a_run_killed_before_its_first_checkpoint_starts_over_with_resume(run, monkeypatch):
    whole = run("whole", steps=3)
    with monkeypatch.context() as patch:
        patch.setattr(finetune, "train_step", die_in_step(2))
        with pytest.raises(KeyboardInterrupt):
            run("killed", steps=3)
    run("killed", "--resume", steps=3)
    assert_equal_weights(whole / "final", whole.parent / "killed" / "final")
    assert len((whole.parent / "killed" / "log.jsonl").read_text().splitlines()) == 4


def test_two_runs_of_one_recipe_are_equal_and_another_seed_is_not(run):
    first, second, other = run("first", steps=2), run("second", steps=2), run("other", steps=2, seed=1)
    assert_equal_weights(first / "final", second / "final")
    assert not torch.equal(
        weights_of(first / "final")["pose_head.linear_2.weight"],
        weights_of(other / "final")["pose_head.linear_2.weight"],
    )


def test_a_run_goes_on_in_micro_batches_of_another_size(run, monkeypatch):
    settings = {"steps": 5, "save_every": 3, "batch_size": 8}
    whole = run("whole", micro_batch_size=8, **settings)
    with monkeypatch.context() as patch:
        patch.setattr(finetune, "train_step", die_in_step(4))
        with pytest.raises(KeyboardInterrupt):
            run("moved", micro_batch_size=4, **settings)
    run("moved", "--resume", micro_batch_size=2, **settings)
    assert_close_weights(whole / "final", whole.parent / "moved" / "final", tolerance=1e-3)


@pytest.mark.parametrize("size", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_accumulated_micro_batches_equal_one_batch_of_eight(run, size):
    # Without momentum's normalisation a wrong scale of the gradient would show; Adam would hide it, clipping would not.
    settings = {"steps": 5, "batch_size": 8, "max_grad_norm": 1.0, "weight_decay": 0.1}
    whole = run("whole", micro_batch_size=8, **settings)
    parts = run("parts", micro_batch_size=size, **settings)
    first, second = (
        [json.loads(line) for line in (path / "log.jsonl").read_text().splitlines()] for path in (whole, parts)
    )
    for one, other in zip(first[:5], second[:5], strict=True):
        assert other["tokens"] == one["tokens"]
        for name in ("loss", "language_loss", "pose_loss"):
            assert other[name] == pytest.approx(one[name], rel=1e-5)
    assert_equal_weights(whole / "final", parts / "final", rtol=1e-2, atol=1e-4)


@pytest.mark.parametrize("size", [1, pytest.param(4, marks=pytest.mark.slow)])
def test_accumulated_gradients_have_the_scale_of_one_batch(run, monkeypatch, size):
    """Plain gradient descent instead of Adam: the step is the gradient, so a factor cannot hide."""
    monkeypatch.setattr(torch.optim, "AdamW", lambda groups, **_: torch.optim.SGD(groups))
    settings = {"steps": 2, "batch_size": 8, "max_grad_norm": 1e9, "learning_rate": 0.1}
    whole = run("whole", micro_batch_size=8, **settings)
    parts = run("parts", micro_batch_size=size, **settings)
    assert_equal_weights(whole / "final", parts / "final", rtol=1e-4, atol=1e-6)


def test_two_processes_equal_one(run, recipe, tmp_path):
    settings = {"steps": 4, "batch_size": 8, "micro_batch_size": 2}
    alone, together = run("alone", **settings), ranks.train(recipe(tmp_path / "together", **settings), processes=2)
    assert_equal_weights(alone / "final", together / "final", rtol=1e-2, atol=1e-4)
    first, second = (
        [json.loads(line) for line in (path / "log.jsonl").read_text().splitlines()] for path in (alone, together)
    )
    for one, other in zip(first, second, strict=True):
        for name in set(one) & {"loss", "gradient_norm", "val_mean_error_deg"}:
            assert other[name] == pytest.approx(one[name], rel=1e-4 if name == "loss" else 1e-3)
    assert first[-1]["val_count"] == second[-1]["val_count"] == 3


@pytest.mark.slow
@pytest.mark.parametrize("zero", [2, 3])
def test_deepspeed_in_half_precision_equals_one_process_and_resumes_to_the_same_bits(
    run, recipe, tmp_path, released, zero
):
    model = {"base": str(released[1]), "base_dtype": "bf16", "lora": {"rank": 4, "alpha": 8, "dropout": 0.0}}
    settings = {"steps": 4, "save_every": 2, "batch_size": 8, "micro_batch_size": 2, "gradient_checkpointing": True}
    settings |= {"model": model, "cache_features": False, "precision": "bf16"}
    alone = run("alone", **settings)
    together = ranks.train(recipe(tmp_path / "together", **settings), processes=2, zero=zero)
    (together / "final").rename(together / "uninterrupted")
    ranks.train(recipe(together, **settings), "--resume", processes=2, zero=zero)
    assert_equal_weights(together / "uninterrupted", together / "final")
    first, second = weights_of(alone / "final"), weights_of(together / "final")
    for name, value in first.items():
        assert (second[name] - value).norm() <= 0.05 * value.norm() + 1e-3, name


@pytest.mark.slow
def test_another_number_of_processes_goes_on_to_the_same_weights(recipe, tmp_path, released):
    """Without DeepSpeed, with dropout: its masks follow the samples, not the processes."""
    settings = {"steps": 6, "save_every": 3, "batch_size": 8, "micro_batch_size": 2, **lora(released)}
    alone = ranks.train(recipe(tmp_path / "alone", **settings))
    moved = ranks.train(recipe(tmp_path / "moved", **settings), processes=2)
    assert_close_weights(alone / "final", moved / "final")
    shutil.rmtree(moved / "final")
    ranks.train(recipe(tmp_path / "moved", **settings), "--resume")
    assert_close_weights(alone / "final", moved / "final")
