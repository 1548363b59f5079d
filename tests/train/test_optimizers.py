"""What moves which weight, how fast at each step, and how far at most."""

import json

import pytest
import torch

from llava_pose import checkpoint
from train.config import TrainConfig
from train.model import build_model
from train.optimizers import build_optimizers
from train.schedule import learning_rate_factor

RATES = {"head_learning_rate": 0.1, "projector_learning_rate": 0.2, "tower_learning_rate": 0.3}


def rates_of(model, config):
    """The peak learning rate that each weight is given, by its id; every weight once."""
    groups = [group for optimizer in build_optimizers(model, config) for group in optimizer.param_groups]
    found = [(id(value), group["peak_lr"]) for group in groups for value in group["params"]]
    assert len(dict(found)) == len(found)
    return dict(found)


def expected_rates(model, rates):
    own = {"pose_head": "head", "multi_modal_projector": "projector", "vision_tower": "tower"}
    return {
        id(value): next((rates.get(f"{own[part]}_learning_rate", 0.001) for part in own if part in name), 0.001)
        for name, value in model.named_parameters()
        if value.requires_grad
    }


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
@pytest.mark.parametrize("rates", [{}, RATES])
def test_every_trained_weight_has_one_optimizer_and_head_projector_and_tower_their_own_learning_rate(
    recipe, tmp_path, optimizer, rates
):
    values = recipe(tmp_path, cache_features=False, learning_rate=0.001, optimizer=optimizer, **rates)
    config = TrainConfig.model_validate({**values, "model": {**values["model"], "train_vision_tower": True}})
    model, _ = build_model(config)
    assert rates_of(model, config) == expected_rates(model, rates)
    assert all(value.requires_grad for value in model.parameters())


def test_adapters_have_the_learning_rate_and_what_is_trained_in_full_beside_them_its_own(recipe, tmp_path, released):
    settings = {"base": str(released[1]), "lora": {"rank": 2}, "train_vision_tower": True}
    values = recipe(tmp_path, cache_features=False, learning_rate=0.001, model=settings, **RATES)
    config = TrainConfig.model_validate(values)
    model, _ = build_model(config)
    found = rates_of(model, config)
    assert found == expected_rates(model, RATES)
    by_name = {name: found[id(value)] for name, value in model.named_parameters() if value.requires_grad}
    assert {rate for name, rate in by_name.items() if "lora_" in name or "trainable_tokens" in name} == {0.001}
    assert set(by_name.values()) == {0.001, 0.1, 0.2, 0.3}


def test_the_learning_rate_warms_up_and_falls(recipe, tmp_path):
    def factors(schedule):
        config = TrainConfig.model_validate(recipe(tmp_path, steps=10, warmup_steps=2, schedule=schedule))
        return [round(learning_rate_factor(step, config), 4) for step in range(10)]

    assert factors("linear") == [0.5, 1.0, 1.0, 0.875, 0.75, 0.625, 0.5, 0.375, 0.25, 0.125]
    assert factors("constant_with_warmup") == [0.5] + [1.0] * 9
    assert factors("cosine")[:7:2] == [0.5, 1.0, 0.8536, 0.5]


@pytest.mark.parametrize("most", [0.02, 1e9])
def test_a_step_is_as_long_as_the_gradient_and_no_longer_than_it_may_be(run, recipe, tmp_path, monkeypatch, most):
    """Plain gradient descent: the weights move by the learning rate times the gradient."""
    monkeypatch.setattr(torch.optim, "AdamW", lambda groups, **_: torch.optim.SGD(groups))
    settings = {"steps": 1, "learning_rate": 0.5, "max_grad_norm": most}
    before, _ = build_model(TrainConfig.model_validate(recipe(tmp_path / "first", **settings)))
    folder = run("first", **settings)
    after = dict(checkpoint.load(folder / "final")[0].named_parameters())
    moved = [(after[name] - value).detach().norm() for name, value in before.named_parameters()]
    norm = json.loads((folder / "log.jsonl").read_text().splitlines()[0])["gradient_norm"]
    assert norm > 1
    assert float(torch.stack(moved).norm()) == pytest.approx(0.5 * min(norm, most), rel=1e-3)
