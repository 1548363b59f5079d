"""The best evaluation's model is kept, and training ends where nothing better comes: after a kill as well."""

import json

import pytest
import torch
from safetensors.torch import load_file

from train import finetune
from train.best import Best
from train.checkpointing import WEIGHTS

SCORES = {2: 10.0, 4: 30.0, 6: 20.0, 8: 30.0, 10: 5.0, 12: 40.0}


@pytest.fixture
def scripted(monkeypatch):
    """Evaluations after each step score as in ``SCORES``, whatever the model."""
    add = Best.add
    monkeypatch.setattr(Best, "add", lambda best, step, _: add(best, step, scores(SCORES[step])))


def scores(acc_pi_6, acc_pi_18=0.0):
    return {"val_acc_pi_6": acc_pi_6, "val_acc_pi_18": acc_pi_18}


def settings(**more):
    return {"steps": 10, "eval_every": 2, "save_every": 3, "keep_checkpoints": 1, "keep_best": True, **more}


def trained(folder):
    (file,) = (folder / name for name in ("model.safetensors", "adapter_model.safetensors") if (folder / name).exists())
    return load_file(file)


def assert_final_is(run, step):
    """The final model has the weights of the checkpoint after ``step``, and not those of another one."""
    kept = load_file(run / f"checkpoint-{step:07d}" / WEIGHTS)
    name = "pose_head.linear_2.weight"
    assert torch.equal(trained(run / "final")[name], kept[name])


def last_step(run):
    return json.loads((run / "log.jsonl").read_text().splitlines()[-1])["step"]


def test_better_is_a_higher_acc_pi_6_and_then_a_higher_acc_pi_18():
    best = Best()
    for step, pair in enumerate([(5, 1), (5, 1), (4, 9), (5, 2), (0, 0)], start=1):
        best.add(step, scores(*pair))
    assert best == Best(step=4, acc_pi_6=5, acc_pi_18=2, evaluated=5, no_better=1)
    assert best.stops(1) and not best.stops(2) and not best.stops(0)


def test_final_is_the_best_evaluations_model_and_its_checkpoint_outlives_the_newest_ones(run, scripted):
    folder = run("best", **settings())
    assert_final_is(folder, 4)
    # Step 8 was as good as step 4, and so no better; step 9 is the newest.
    assert sorted(path.name for path in folder.glob("checkpoint-*")) == ["checkpoint-0000004", "checkpoint-0000009"]
    assert last_step(folder) == 10


@pytest.mark.parametrize("keep_best", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_training_ends_after_so_many_evaluations_without_a_better_one(run, scripted, keep_best):
    folder = run("stopped", **settings(steps=12, early_stopping=2, keep_best=keep_best))
    assert last_step(folder) == 8
    if keep_best:
        assert_final_is(folder, 4)
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "val_acc_pi_6" in line] == [2, 4, 6, 8]


@pytest.mark.parametrize("killed_after", [5, *(pytest.param(step, marks=pytest.mark.slow) for step in (1, 4, 7, 8))])
def test_the_decisions_survive_a_kill(run, scripted, monkeypatch, killed_after):
    whole = run("whole", **settings(steps=12, early_stopping=2))
    step, done = finetune.train_step, []

    def dying(*arguments):
        if len(done) == killed_after:
            raise KeyboardInterrupt
        done.append(step(*arguments))
        return done[-1]

    with monkeypatch.context() as patch:
        patch.setattr(finetune, "train_step", dying)
        if killed_after == 8:  # after the last evaluation, which ends the training
            patch.setattr(finetune, "save_final", dying)
        with pytest.raises(KeyboardInterrupt):
            run("killed", **settings(steps=12, early_stopping=2))
    killed = whole.parent / "killed"
    run("killed", "--resume", **settings(steps=12, early_stopping=2))
    assert last_step(killed) == 8
    first, second = trained(whole / "final"), trained(killed / "final")
    assert first.keys() == second.keys() and all(torch.equal(second[name], first[name]) for name in first)
    assert sorted(path.name for path in killed.glob("checkpoint-*")) == sorted(
        path.name for path in whole.glob("checkpoint-*")
    )


def test_an_adapters_best_weights_are_kept_too(run, scripted, released):
    model = {"base": str(released[1]), "lora": {"rank": 4, "alpha": 8}, "pose_hidden_size": 24}
    folder = run("lora", **settings(model=model, cache_features=False, steps=6))
    kept = load_file(folder / "checkpoint-0000004" / WEIGHTS)
    final = trained(folder / "final")
    names = {name: name.replace(".default", "") for name in kept if "lora_" in name}
    assert names and all(torch.equal(final[short], kept[name]) for name, short in names.items())
