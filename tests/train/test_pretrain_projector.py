"""A projector taught before the language model looks, and the run that begins with it."""

import copy
import sys

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from llava_pose import checkpoint
from llava_pose.errors import UserError
from train import pretrain_projector
from train.config import TrainConfig
from train.model import build_model


@pytest.fixture
def written(recipe, tiny_model_dir, tmp_path):
    """A recipe with adapters on the tiny model."""
    values = recipe(tmp_path / "run", cache_features=True, cache_dir=str(tmp_path / "features"))
    values["model"] = {"base": str(tiny_model_dir), "lora": {"rank": 2, "alpha": 4}}
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


def call(monkeypatch, *words):
    monkeypatch.setattr(sys, "argv", ["pretrain_projector.py", *map(str, words)])
    pretrain_projector.main()


def test_a_projector_learns_and_a_run_begins_with_it(written, tiny_model_dir, tmp_path, monkeypatch):
    losses = []
    real = pretrain_projector.pose_losses

    def kept(*given):
        found = real(*given)
        losses.append(float(found[:3].detach().sum()))
        return found

    monkeypatch.setattr(pretrain_projector, "pose_losses", kept)
    out = tmp_path / "projector.safetensors"
    call(monkeypatch, "--config", written, "--out", out, "--steps", 60, "--batch-size", 16)
    assert sum(losses[-10:]) < 0.9 * sum(losses[:10])
    config = TrainConfig.model_validate(yaml.safe_load(written.read_text()))
    config = config.model_copy(update={"model": config.model.model_copy(update={"projector": str(out)})})
    model = build_model(config)[0].get_base_model()
    projector = model.model.multi_modal_projector.modules_to_save["default"]
    for name, value in load_file(out).items():
        assert torch.equal(projector.get_parameter(name), value)
    before, _ = checkpoint.load(tiny_model_dir)
    assert not torch.equal(before.model.multi_modal_projector.linear_1.weight, load_file(out)["linear_1.weight"])


def test_a_projectors_tokens_become_as_large_as_the_vocabularys(tiny_pair):
    model = copy.deepcopy(tiny_pair[0]).requires_grad_(False)
    projector = model.model.multi_modal_projector
    features = torch.randn(4, 16, 288)
    before = projector(features)
    pretrain_projector.match_vocabulary(projector, model, features)
    usual = model.get_input_embeddings().weight.square().mean().sqrt()
    after = projector(features)
    torch.testing.assert_close(after.square().mean().sqrt(), usual)
    torch.testing.assert_close(after / after.norm(), before / before.norm())


def test_the_same_command_gives_the_same_projector(written, tmp_path, monkeypatch):
    for name in ("one", "two"):
        call(monkeypatch, "--config", written, "--out", tmp_path / name, "--steps", 2, "--batch-size", 4)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_what_is_no_projector_of_this_base_is_refused(written, tmp_path):
    values = yaml.safe_load(written.read_text())

    def refused(file, message):
        values["model"]["projector"] = str(tmp_path / file)
        with pytest.raises(UserError, match=message):
            build_model(TrainConfig.model_validate(values))

    save_file({"linear_1.weight": torch.zeros(2, 2)}, tmp_path / "other.safetensors")
    refused("other.safetensors", r"model\.projector: .*other\.safetensors: Error")
    refused("none.safetensors", r"model\.projector: .*none\.safetensors: ")


def test_a_recipe_without_a_base_is_refused(recipe, tmp_path, monkeypatch):
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe(tmp_path / "run")))
    with pytest.raises(UserError, match=r"recipe\.yaml: a projector is trained for model\.base"):
        call(monkeypatch, "--config", path, "--out", tmp_path / "projector.safetensors")
    with pytest.raises(UserError, match="projector goes with base"):
        call(monkeypatch, "--config", path, "--out", tmp_path / "projector.safetensors", "model.projector=x")
