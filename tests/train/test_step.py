"""One optimizer step: what it refuses to do, and what it draws."""

import copy
import os
import re

import pytest
import torch

from llava_pose.errors import UserError
from tests import ranks
from tests.invariant.test_training import assert_equal_weights, lora
from train import finetune
from train.checkpointing import checkpoints
from train.step import seed_micro_batch

BAD_STEP = 2
"""From 0: two good steps come before it."""


def state_of(optimizers):
    """The tensors that a step would change: weights (under DeepSpeed this process's pieces of them) and moments."""
    inner = optimizers[0].optimizer
    inner = inner if isinstance(inner, torch.optim.Optimizer) else inner.optimizer
    weights = [value for group in inner.param_groups for value in group["params"]]
    return [*weights, *(value for state in inner.state.values() for value in state.values())]


def poison(what, rank=0):
    """Make the loss, or the head's gradient, of step ``BAD_STEP``'s second micro batch on one rank not finite; say
    whether anything was touched."""
    build, step = finetune.build_model, finetune.train_step
    now = {"step": 0, "micro": 0}

    def bad():
        return now["step"] == BAD_STEP and now["micro"] == 2 and int(os.environ.get("RANK", "0")) == rank

    def built(config):
        model, processor = build(config)

        def spoil(module, inputs, output):
            now["micro"] += module.training
            return output * float("inf") if bad() and what == "loss" else output

        head = [m for n, m in model.named_modules() if n.endswith("linear_2") and m.weight.requires_grad][-1]
        head.register_forward_hook(spoil)
        head.weight.register_hook(lambda gradient: gradient * float("nan") if bad() and what == "gradient" else None)
        return model, processor

    def stepped(accelerator, model, optimizers, reader, config, number, name):
        now["step"], now["micro"] = number, 0
        before = copy.deepcopy([value.detach() for value in state_of(optimizers)])
        try:
            return step(accelerator, model, optimizers, reader, config, number, name)
        except UserError:
            same = all(torch.equal(one, other) for one, other in zip(before, state_of(optimizers), strict=True))
            print(f"\nweights and moments: {'as they were' if same and before else 'changed'}", flush=True)
            raise

    return built, stepped


@pytest.mark.parametrize(
    "what, message",
    [
        ("loss", r"step 3: the loss is (inf|nan) on samples 10 to 11 \(\w+/n\d{4}, \w+/n\d{4}\)"),
        ("gradient", r"step 3: the gradient is not finite on samples 8 to 11 \((\w+/n\d{4}(, )?){4}\)"),
    ],
)
def test_what_is_not_finite_stops_the_run_before_the_optimizer_and_is_named(run, monkeypatch, capsys, what, message):
    built, stepped = poison(what)
    monkeypatch.setattr(finetune, "build_model", built)
    monkeypatch.setattr(finetune, "train_step", stepped)
    with pytest.raises(UserError, match=message):
        run("bad", steps=4, save_every=2, micro_batch_size=2)
    assert "weights and moments: as they were" in capsys.readouterr().out


def poison_loss():
    finetune.build_model, finetune.train_step = poison("loss", rank=1)


def poison_gradient():
    finetune.build_model, finetune.train_step = poison("gradient", rank=1)


@pytest.mark.slow
@pytest.mark.parametrize("zero", [None, 2, 3])
@pytest.mark.parametrize("first, what", [(poison_loss, "loss"), (poison_gradient, "gradient")])
def test_on_one_rank_it_stops_all_of_them(recipe, released, tmp_path, zero, first, what):
    settings = {"steps": 4, "save_every": 2, "batch_size": 8, "micro_batch_size": 2, **lora(released)}
    values = recipe(tmp_path / "bad", **settings)
    assert ranks.finish(values, ranks.start(values, processes=2, zero=zero, first=first)) == [2, 2], ranks.said(values)
    numbers = "22 to 23" if what == "loss" else "16 to 23"
    for rank in (0, 1):
        text = (tmp_path / f"bad.{rank}.txt").read_text()
        assert re.search(rf"error: step 3: the {what} is .* on samples {numbers} \(", text), text[-2000:]
        assert "weights and moments: as they were" in text
    assert [path.name for path in checkpoints(tmp_path / "bad")] == ["checkpoint-0000002"]


def test_what_a_micro_batch_draws_follows_from_seed_and_number():
    def drawn(*of):
        seed_micro_batch(*of)
        return torch.rand(4)

    assert torch.equal(drawn(0, 8), drawn(0, 8))
    others = [drawn(0, 8), drawn(0, 12), drawn(1, 8), drawn(8, 0)]
    assert all(not torch.equal(one, other) for index, one in enumerate(others) for other in others[:index])


def test_checkpointed_activations_change_nothing(run, released, monkeypatch):
    """With a frozen base and dropout in the adapters: both are where recomputing goes wrong."""
    build, calls = finetune.build_model, []

    def counted(config):
        model, processor = build(config)
        layer = next(module for name, module in model.named_modules() if name.endswith("layers.0.self_attn"))
        layer.register_forward_pre_hook(lambda module, inputs: calls.append(module.training))
        return model, processor

    monkeypatch.setattr(finetune, "build_model", counted)
    kept = run("kept", steps=3, **lora(released))
    once = sum(calls)
    recomputed = run("recomputed", steps=3, gradient_checkpointing=True, **lora(released))
    assert sum(calls) == 3 * once, "each layer runs a second time"
    assert_equal_weights(kept / "final", recomputed / "final", rtol=1e-5, atol=1e-7)
