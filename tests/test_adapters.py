"""Adapters on a base: small on disk, merged and equal when they come back, wherever they are opened."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from llava_pose import checkpoint
from llava_pose.bases import sample_weights
from llava_pose.errors import UserError
from tests.released import assert_equal_outputs, outputs_of
from train.config import TrainConfig
from train.model import add_lora


def lora_config(base, **model):
    return TrainConfig(
        output_dir="unused",
        data=["unused"],
        model={"base": str(base), "lora": {"rank": 4, "alpha": 8}, **model},
        steps=1,
        batch_size=1,
        micro_batch_size=1,
        learning_rate=0.1,
    )


def trained_adapter(base, folder, dtype=None, **settings):
    """An adapter whose every trained weight has moved, saved; and the model it was saved from."""
    model, processor = checkpoint.load(base, dtype)
    model.config.pose_categories = ["car", "sofa"]
    model.config.base_weights = sample_weights(str(base), "fp32")
    model.requires_grad_(False)
    adapted = add_lora(model, lora_config(base, **settings))
    torch.manual_seed(1)
    with torch.no_grad():
        for value in adapted.parameters():
            if value.requires_grad:
                value += 0.1 * torch.randn_like(value)
    checkpoint.save(adapted, processor, folder)
    return adapted, processor


@pytest.mark.parametrize("base, side", [("released", 32), ("tiny_model_dir", 128)])
@pytest.mark.parametrize("train_projector", [True, False])
def test_an_adapter_comes_back_merged_and_equal(request, tmp_path, base, side, train_projector):
    base = request.getfixturevalue(base)
    base = base[1] if isinstance(base, tuple) else base
    adapted, processor = trained_adapter(base, tmp_path / "adapter", train_projector=train_projector)
    merged, its_processor = checkpoint.load(tmp_path / "adapter")
    expected = outputs_of(adapted, processor, side)
    assert_equal_outputs(outputs_of(merged, its_processor, side), expected, rtol=1e-4, atol=1e-4)
    untouched = outputs_of(checkpoint.load(base)[0], processor, side)
    assert not torch.allclose(untouched.logits, expected.logits, atol=0.05), "the adapter does something"
    assert merged.config.pose_categories == ["car", "sofa"]
    assert not [name for name, _ in merged.named_parameters() if "lora" in name]


def test_an_adapter_of_the_embedded_model_is_saved_without_asking_anybody_and_opens_again(tmp_path):
    """PEFT would look for a repository of that name, and warn of not finding it: warnings are errors here."""
    adapted, processor = trained_adapter("embedded", tmp_path / "adapter")
    assert (
        json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())["base_model_name_or_path"] == "embedded"
    )
    saved = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    assert {value.shape[0] for name, value in saved.items() if "token" in name} == {1}, "of the vocabulary <pose> alone"
    merged, its_processor = checkpoint.load(tmp_path / "adapter")
    side = merged.config.vision_config.image_size
    expected = outputs_of(adapted, processor, side)
    assert_equal_outputs(outputs_of(merged, its_processor, side), expected, rtol=1e-3, atol=1e-3)


def test_an_adapter_trains_the_language_model_the_head_the_projector_and_the_row_of_pose(released):
    model, _ = checkpoint.load(released[1])
    model.requires_grad_(False)
    adapted = add_lora(model, lora_config(released[1]))
    names = [name for name, value in adapted.named_parameters() if value.requires_grad]
    kinds = {
        kind
        for name in names
        for kind in ("lora_A", "lora_B", "trainable_tokens", "pose_head", "multi_modal_projector")
        if kind in name
    }
    assert len(kinds) == 5
    assert not [name for name in names if "vision_tower" in name]
    assert sum("lora_A" in name for name in names) == 2 * 7, "seven matrices in each of two layers"
    tokens = [value for name, value in adapted.named_parameters() if "trainable_tokens" in name and value.requires_grad]
    assert [value.shape for value in tokens] == [(1, 32), (1, 32)]


def test_what_is_trained_on_a_base_in_half_precision_is_float32(released):
    model, _ = checkpoint.load(released[1], torch.bfloat16)
    adapted = add_lora(model.requires_grad_(False), lora_config(released[1]))
    trained = {value.dtype for value in adapted.parameters() if value.requires_grad}
    frozen = {value.dtype for name, value in adapted.named_parameters() if not value.requires_grad}
    assert trained == {torch.float32} and torch.bfloat16 in frozen


def test_an_adapter_file_is_small_and_holds_no_vocabulary(released, tmp_path):
    trained_adapter(released[1], tmp_path / "adapter")
    weights = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    assert not [name for name in weights if "vision_tower" in name or "base_layer" in name]
    assert max(value.shape[0] for name, value in weights.items() if "token" in name) == 1


def test_an_adapter_loads_in_half_precision_with_its_head_in_float32(released, tmp_path):
    adapted, processor = trained_adapter(released[1], tmp_path / "adapter")
    merged, _ = checkpoint.load(tmp_path / "adapter", dtype=torch.bfloat16)
    assert {value.dtype for value in merged.pose_head.parameters()} == {torch.float32}
    others = {value.dtype for name, value in merged.named_parameters() if "pose_head" not in name}
    assert others == {torch.bfloat16}
    close = outputs_of(merged, processor)
    expected = outputs_of(adapted, processor)
    assert (close.logits.float() - expected.logits).norm() < 0.1 * expected.logits.norm()


def test_an_adapter_merged_and_saved_is_a_full_model(released, tmp_path):
    adapted, processor = trained_adapter(released[1], tmp_path / "adapter")
    checkpoint.save(*checkpoint.load(tmp_path / "adapter"), tmp_path / "full")
    shutil.rmtree(tmp_path / "adapter")
    full, its_processor = checkpoint.load(tmp_path / "full")
    assert_equal_outputs(outputs_of(full, its_processor), outputs_of(adapted, processor), rtol=1e-4, atol=1e-4)


def test_an_adapter_trained_on_an_adapter_keeps_both(released, tmp_path):
    trained_adapter(released[1], tmp_path / "first")
    second, processor = trained_adapter(tmp_path / "first", tmp_path / "second")
    merged, its_processor = checkpoint.load(tmp_path / "second")
    assert_equal_outputs(outputs_of(merged, its_processor), outputs_of(second, processor), rtol=1e-4, atol=1e-4)


def test_an_adapter_finds_its_base_from_any_working_directory(released, tmp_path, monkeypatch):
    shutil.copytree(released[1], tmp_path / "base")
    monkeypatch.chdir(tmp_path)
    trained_adapter("base", "adapter")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    checkpoint.load(tmp_path / "adapter")


def test_an_adapter_keeps_the_size_of_the_head_that_its_base_gained(released, tmp_path):
    model, processor = checkpoint.load(released[1], head={"pose_hidden_size": 24, "pose_bins": 36})
    model.requires_grad_(False)
    checkpoint.save(add_lora(model, lora_config(released[1])), processor, tmp_path / "adapter")
    merged, _ = checkpoint.load(tmp_path / "adapter")
    assert (merged.pose_head.linear_1.out_features, merged.pose_head.num_bins) == (24, 36)
    assert torch.equal(merged.pose_head.linear_2.weight, model.pose_head.linear_2.weight)


def test_an_adapter_whose_base_is_gone_is_refused_by_name(released, tmp_path):
    shutil.copytree(released[1], tmp_path / "base")
    trained_adapter(tmp_path / "base", tmp_path / "adapter")
    shutil.rmtree(tmp_path / "base")
    with pytest.raises(UserError, match=str(tmp_path / "base")):
        checkpoint.load(tmp_path / "adapter")


def test_an_adapter_without_the_name_of_its_base_is_refused(released, tmp_path):
    trained_adapter(released[1], tmp_path / "adapter")
    file = tmp_path / "adapter" / "adapter_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "base_model_name_or_path": None}))
    with pytest.raises(UserError, match="base_model_name_or_path is missing"):
        checkpoint.load(tmp_path / "adapter")


def rename_base(adapter, name):
    file = adapter / "adapter_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "base_model_name_or_path": str(name)}))


def change(folder, name, change, dtype=None):
    """Write a folder's weights anew, one of them changed; all of them in another precision."""
    weights = load_file(folder / "model.safetensors")
    weights[name] = change(weights[name])
    save_file({key: value.to(dtype or value.dtype) for key, value in weights.items()}, folder / "model.safetensors")


def test_an_adapter_of_another_base_is_refused_and_both_are_named(released, tiny_model_dir, tmp_path):
    trained_adapter(released[1], tmp_path / "adapter")
    rename_base(tmp_path / "adapter", tiny_model_dir)
    with pytest.raises(UserError, match=rf"adapter: an adapter of {released[1]}, not of {tiny_model_dir}: \S+ is "):
        checkpoint.load(tmp_path / "adapter")


@pytest.mark.parametrize(
    "altered, told",
    [
        (lambda weight: weight * 1.001, "holds other values"),
        (lambda weight: torch.cat([weight, weight]), r"is \[96, 32\], expected \[48, 32\]"),
    ],
)
def test_an_adapter_whose_base_was_replaced_by_another_of_its_name_is_refused(released, tmp_path, altered, told):
    """A fine-tuning of the same base has the same names and shapes: only the values tell."""
    shutil.copytree(released[1], tmp_path / "base")
    trained_adapter(tmp_path / "base", tmp_path / "adapter")
    sampled = json.loads((tmp_path / "adapter" / "config.json").read_text())["base_weights"]["tensors"]
    name = next(name for name in sampled if "mlp.up_proj" in name or "mlp.gate_proj" in name)
    change(tmp_path / "base", name, altered)
    with pytest.raises(UserError, match=f"an adapter of {tmp_path}/base as it was then, not of .*/base: {name} {told}"):
        checkpoint.load(tmp_path / "adapter")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_copy_of_the_base_in_half_precision_is_the_same_base(released, tmp_path, dtype):
    """But not if it was trained on, however little."""
    trained_adapter(released[1], tmp_path / "adapter")
    shutil.copytree(released[1], tmp_path / "half")
    change(tmp_path / "half", "language_model.model.norm.weight", lambda weight: weight, dtype)
    rename_base(tmp_path / "adapter", tmp_path / "half")
    checkpoint.load(tmp_path / "adapter")
    sampled = json.loads((tmp_path / "adapter" / "config.json").read_text())["base_weights"]["tensors"]
    name = next(name for name in sampled if "mlp." in name)
    change(tmp_path / "half", name, lambda weight: weight * 1.02)
    with pytest.raises(UserError, match=f"{name} holds other values"):
        checkpoint.load(tmp_path / "adapter")


def test_a_base_is_recognised_in_shards_too(released, tmp_path):
    trained_adapter(released[1], tmp_path / "adapter")
    shutil.copytree(released[1], tmp_path / "shards")
    (tmp_path / "shards" / "model.safetensors").unlink()
    released[0].save_pretrained(tmp_path / "shards", max_shard_size="50KB")
    assert len(list((tmp_path / "shards").glob("model-*.safetensors"))) > 2
    shards, whole = (sample_weights(str(folder), "fp32")["tensors"] for folder in (tmp_path / "shards", released[1]))
    assert shards == whole
    rename_base(tmp_path / "adapter", tmp_path / "shards")
    checkpoint.load(tmp_path / "adapter")


def test_an_adapter_without_a_sample_of_its_base_must_still_fit_it(released, tiny_model_dir, tmp_path):
    trained_adapter(released[1], tmp_path / "adapter")
    file = tmp_path / "adapter" / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "base_weights": None}))
    checkpoint.load(tmp_path / "adapter")
    rename_base(tmp_path / "adapter", tiny_model_dir)
    with pytest.raises(UserError, match="does not fit its base"):
        checkpoint.load(tmp_path / "adapter")
