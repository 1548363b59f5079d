"""The command that puts a base together, and a run with adapters on what it wrote."""

import json
import sys

import pytest
import torch
from safetensors.torch import load_file

from llava_pose import checkpoint
from llava_pose.errors import UserError
from llava_pose.folders import EMBEDDED_MODEL
from llava_pose.processing import user_message
from llava_pose.vision import load_embedded_tower
from tests.small_gguf import write_gguf
from train import assemble


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    folder = tmp_path_factory.mktemp("assembled")
    write_gguf(folder / "small.gguf")
    call("--text", folder / "small.gguf", "--out", folder / "base", "--image-size", "64", "--pose-hidden-size", "24")
    return folder / "base"


def call(*words):
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(sys, "argv", ["assemble.py", *map(str, words)])
        assemble.main()


def test_a_base_opens_as_a_model_folder_with_its_language_models_wording(base):
    model, processor = checkpoint.load(base)
    assert processor.image_tokens == 4 and model.pose_head.linear_1.out_features == 24
    assert processor.render([user_message("Hello?")])[0].startswith("<|im_start|>user\nHello?<|im_end|>")
    stored = load_file(base / "model.safetensors")
    assert {value.dtype for value in stored.values()} == {torch.bfloat16}
    assert torch.equal(tower_of(stored), tower_of(load_file(EMBEDDED_MODEL / "model.safetensors"))), "posed"
    assert sum(value.shape[0] == model.config.text_config.vocab_size for value in stored.values()) == 1, "tied"
    assert "quantization_config" not in json.loads((base / "config.json").read_text())["text_config"]


def tower_of(weights):
    return torch.cat([weights[name].flatten() for name in sorted(weights) if "vision_tower" in name])


def test_the_tower_as_imagenet_taught_it_stays_in_the_package(tmp_path):
    write_gguf(tmp_path / "small.gguf")
    call("--text", tmp_path / "small.gguf", "--out", tmp_path / "base", "--image-size", "64", "--tower", "embedded")
    stored = load_file(tmp_path / "base" / "model.safetensors")
    assert not any("vision_tower" in name for name in stored)
    model, _ = checkpoint.load(tmp_path / "base")
    expected = load_embedded_tower().state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in model.model.vision_tower.state_dict().items())


def test_an_adapter_trained_on_a_base_opens_beside_it_with_its_projector_and_head(base, run):
    lora = {"rank": 2, "alpha": 4, "dropout": 0.0}
    model = {"base": str(base), "lora": lora, "base_dtype": "bf16"}
    folder = run("on-gguf", model=model, steps=3, cache_features=True, learning_rate=0.01, precision="bf16")
    kept = load_file(folder / "final" / "adapter_model.safetensors")
    assert any("lora_A" in name for name in kept)
    assert any("multi_modal_projector" in name for name in kept) and any("pose_head" in name for name in kept)
    largest = max(value.numel() for value in kept.values())
    assert largest < 672 * 64 + 1, "no vocabulary matrix is among them"
    trained, _ = checkpoint.load(folder / "final")
    before, _ = checkpoint.load(base)
    assert not torch.equal(trained.pose_head.linear_2.weight, before.pose_head.linear_2.weight)


def test_a_folder_that_is_there_and_sizes_that_cannot_be_are_refused(base, tmp_path):
    with pytest.raises(UserError, match="base: is there already"):
        call("--text", "anything", "--out", base)
    with pytest.raises(UserError, match="image_size must be a positive multiple of 32, got 100"):
        call("--text", "anything", "--out", tmp_path / "new", "--image-size", "100")
    assert not (tmp_path / "new").exists()
