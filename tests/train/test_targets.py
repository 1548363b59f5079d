"""Where adapters may go is checked on the base's names alone; and a vision tower can be trained beside them."""

import pytest
import torch
from safetensors.torch import load_file

from llava_pose import checkpoint
from llava_pose.errors import UserError
from train import finetune, targets
from train.config import LoraSettings, TrainConfig


@pytest.fixture
def config(recipe, tmp_path, released):
    def make(pattern=None, base=None):
        lora = {} if pattern is None else {"target_modules": pattern}
        model = {"base": str(base or released[1]), "lora": lora}
        return TrainConfig.model_validate(recipe(tmp_path, model=model, cache_features=False))

    return make


def test_the_default_goes_to_every_layer_of_the_language_model_and_nowhere_else(released_pair):
    import re

    pattern = LoraSettings().target_modules
    found = [name for name, _ in released_pair[0].named_modules() if re.fullmatch(pattern, name)]
    assert len(found) == 2 * 7
    assert all(name.startswith("model.language_model.layers.") for name in found)


@pytest.mark.parametrize("base", ["released", "tiny", "embedded"])
def test_the_default_is_right_for_a_released_model_one_of_ours_and_the_embedded_one(config, base, tiny_model_dir):
    targets.check_targets(config(base={"tiny": tiny_model_dir, "embedded": "embedded"}.get(base)))


@pytest.mark.parametrize(
    "pattern, message",
    [
        (
            "q_proj",
            r"'q_proj' matches nothing in .*llava-1.5-tiny, .* model\.language_model\.layers\.0\.self_attn\.q_proj",
        ),
        ("all-linear", "matches nothing"),
        (r".*\.q_proj", r"matches model\.vision_tower\..*q_proj \(Linear\); adapters go to linear layers of the lang"),
        (r".*(vision_tower|language_model).*fc1", r"matches model\.vision_tower\..*\.fc1 \(Linear\)"),
        (".*linear_1", r"matches model\.multi_modal_projector\.linear_1"),
        (r".*layers\.\d+", r"matches model\.vision_tower\.\S+\.layers\.0 \(CLIPEncoderLayer\)"),
        (r".*language_model\.layers\.\d+", r"layers\.0 \(LlamaDecoderLayer\); adapters go to linear layers"),
        (r".*(q_proj", "not a regular expression: "),
    ],
)
def test_a_pattern_that_is_wrong_is_refused_with_what_it_matches(config, pattern, message):
    with pytest.raises(UserError, match=f"model.lora.target_modules: .*{message}"):
        targets.check_targets(config(pattern))


def test_a_wrong_pattern_is_refused_before_a_weight_or_a_row_is_read(run, released, monkeypatch, tmp_path):
    monkeypatch.setattr(checkpoint, "load", lambda *_, **__: pytest.fail("weights were loaded"))
    monkeypatch.setattr(finetune, "train", lambda *_, **__: pytest.fail("the run began"))
    model = {"base": str(released[1]), "lora": {"target_modules": ".*q_proj"}}
    with pytest.raises(UserError, match=r"matches model\.vision_tower"):
        run("wrong", model=model)
    assert not (tmp_path / "wrong").exists()


def test_a_base_that_is_no_vision_language_model_is_refused(config, tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(UserError, match=f"model.base: {tmp_path}: not a vision-language model"):
        targets.check_targets(config(base=tmp_path))


def test_a_tower_trained_beside_adapters_is_saved_with_them_and_comes_back(run, released, tmp_path):
    model = {"base": str(released[1]), "base_dtype": "bf16", "lora": {"rank": 4}, "train_vision_tower": True}
    settings = {"cache_features": False, "precision": "bf16", "steps": 4, "tower_learning_rate": 0.01}
    folder = run("tower", model=model, **settings)
    held = load_file(folder / "final" / "adapter_model.safetensors")
    name = "vision_tower.encoder.layers.0.mlp.fc1.weight"
    (trained,) = (value for key, value in held.items() if key.endswith(name))
    before = dict(released[0].named_parameters())[f"model.{name}"]
    assert (trained - before).abs().max() > 1e-3
    loaded, processor = checkpoint.load(folder / "final")
    again = dict(loaded.named_parameters())[f"model.{name}"]
    torch.testing.assert_close(again, trained)
    checkpoint.save(loaded, processor, tmp_path / "merged")
    merged, _ = checkpoint.load(tmp_path / "merged")
    assert torch.equal(dict(merged.named_parameters())[f"model.{name}"], again)


def test_the_embedded_tower_trained_beside_adapters_is_saved_and_stays_with_the_merged_model(
    run, tiny_model_dir, tmp_path
):
    model = {"base": str(tiny_model_dir), "lora": {"rank": 4}, "train_vision_tower": True}
    folder = run("tower", model=model, cache_features=False, steps=2, tower_learning_rate=0.01)
    loaded, processor = checkpoint.load(folder / "final")
    before = checkpoint.load(tiny_model_dir)[0].model.vision_tower.stem.weight
    assert not torch.equal(loaded.model.vision_tower.stem.weight, before)
    checkpoint.save(loaded, processor, tmp_path / "merged")
    merged, _ = checkpoint.load(tmp_path / "merged")
    assert torch.equal(merged.model.vision_tower.stem.weight, loaded.model.vision_tower.stem.weight)
