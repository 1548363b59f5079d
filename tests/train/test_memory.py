"""The sums of train/memory.py against what is known of the released models and what a real model holds."""

import re
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from transformers import LlamaConfig

from llava_pose.errors import UserError
from train import memory
from train.config import TrainConfig, load_config
from train.memory import NF4, count, kept_by_layer
from train.model import build_model
from train.optimizers import build_optimizers

RECIPES = "train/recipes/llava-1.5-{}.yaml"


@pytest.fixture(scope="module")
def counts():
    return {
        name: count(load_config(RECIPES.format(name))) for name in ("7b-lora-8gpu", "13b-lora-8gpu", "7b-qlora-1gpu")
    }


def test_weights_are_counted_as_the_released_models_have_them(counts):
    """7.06 and 13.35 billion: CLIP ViT-L/14 at 336 pixels without its own text half, projector, Vicuna."""
    for name, billions in (("7b-lora-8gpu", 7.06), ("13b-lora-8gpu", 13.35)):
        own_head = counts[name].text.hidden_size * 1030 * 2  # PEFT keeps the head as it began, beside the trained one
        assert (counts[name].frozen - own_head) / 1e9 == pytest.approx(billions, abs=0.01)
    hidden, mlp, layers, rank = 4096, 11008, 32, 64
    adapters = layers * rank * (4 * 2 * hidden + 3 * (hidden + mlp))
    projector = 1024 * hidden + hidden + hidden * hidden + hidden
    head = 2 * hidden + hidden * 1024 + 1024 + 1024 * 120 + 120
    assert counts["7b-lora-8gpu"].trained == adapters + projector + head + 2 * hidden


def test_eight_gpus_of_24_gb_suffice_and_one_of_16_for_four_bits(counts):
    def total(name, gpus, zero):
        return memory.memory(load_config(RECIPES.format(name)), counts[name], gpus, zero, text_tokens=128).total

    assert total("7b-lora-8gpu", 8, 2) < 0.85 * 24e9
    assert total("7b-lora-8gpu", 1, 0) > total("7b-lora-8gpu", 8, 2)
    assert total("13b-lora-8gpu", 8, 3) < 0.6 * 24e9 < 24e9 < total("13b-lora-8gpu", 8, 2)
    assert total("7b-qlora-1gpu", 1, 0) < 0.75 * 16e9


@pytest.mark.parametrize("base_dtype", ["bf16", "fp32"])
def test_weights_gradients_and_optimizer_are_those_of_a_real_model(released, base_dtype):
    config = TrainConfig(
        output_dir="unused",
        data=[{"path": "unused"}],
        model={"base": str(released[1]), "base_dtype": base_dtype, "lora": {"rank": 4, "alpha": 8}},
        steps=1,
        batch_size=1,
        micro_batch_size=1,
        learning_rate=0.1,
    )
    model, _ = build_model(config)
    (optimizer,) = build_optimizers(model, config)
    trained = [value for value in model.parameters() if value.requires_grad]
    for value in trained:
        value.grad = torch.ones_like(value)
    optimizer.step()
    state = [value for one in optimizer.state.values() for value in one.values() if value.ndim]

    def size(values):
        return sum(value.numel() * value.element_size() for value in values)

    found = memory.memory(config, count(config), gpus=1, zero=0, text_tokens=8)
    assert found.trained_weights == size(trained)
    assert found.gradients == size(value.grad for value in trained)
    assert found.optimizer == size(state)
    frozen = [value for name, value in model.named_parameters() if not value.requires_grad]
    kept_head = size(value for name, value in model.named_parameters() if "pose_head.original" in name)
    # The head as it began stays in float32 whatever the base is.
    assert size(frozen) - kept_head == pytest.approx(found.frozen_weights - kept_head / 4 * memory.bytes_of(config))


@pytest.mark.parametrize("keys", [4, 2])
def test_what_a_layer_keeps_for_the_backward_pass_is_what_autograd_keeps(keys):
    """Counted on a real model of two sizes: what a further layer adds."""
    from peft import LoraConfig, get_peft_model
    from transformers import LlamaModel

    def kept(layers):
        text = LlamaConfig(
            hidden_size=64,
            intermediate_size=176,
            num_hidden_layers=layers,
            num_attention_heads=4,
            num_key_value_heads=keys,
            vocab_size=100,
        )
        lora = LoraConfig(
            r=4, lora_dropout=0.05, target_modules=r".*layers\.\d+\.(self_attn\.[qkvo]_proj|mlp\.(gate|up|down)_proj)"
        )
        model = get_peft_model(LlamaModel(text).to(torch.bfloat16).requires_grad_(False), lora).train()
        for value in model.parameters():
            if value.requires_grad:
                value.data = value.data.float()
        weights = {value.untyped_storage().data_ptr() for value in (*model.parameters(), *model.buffers())}
        held = {}

        def pack(value):
            storage = value.untyped_storage()
            # The tensor is held, so that no other takes its place in memory.
            held[storage.data_ptr()] = (storage.nbytes(), value)
            return value

        inputs = torch.randn(2, 50, 64, dtype=torch.bfloat16, requires_grad=True)
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda value: value), torch.autocast("cpu", torch.bfloat16):
            output = model(inputs_embeds=inputs, use_cache=False).last_hidden_state
        assert output.requires_grad
        copies = 2 * sum(value.numel() for value in model.parameters() if value.requires_grad)  # bf16, of the adapters
        return sum(size for place, (size, _) in held.items() if place not in weights) - copies, text

    (first, _), (second, text) = kept(1), kept(2)
    # On a CPU a dropout mask is made of float32 numbers.
    assert (second - first) / (2 * 50) == pytest.approx(kept_by_layer(text, rank=4, mask=4), rel=0.02)


def test_four_bits_are_counted_as_bitsandbytes_stores_them():
    from bitsandbytes.functional import quantize_4bit

    packed, state = quantize_4bit(torch.randn(512, 512), quant_type="nf4", compress_statistics=True)
    stored = packed.nbytes + state.absmax.nbytes + state.state2.absmax.nbytes
    assert stored == NF4 * 512 * 512


def test_zero2_sends_adapters_alone_and_zero3_all_weights(counts):
    options = SimpleNamespace(link=20, network=25, text_tokens=128, tflops=60)

    def sent(name, gpus, zero):
        return memory.traffic(load_config(RECIPES.format(name)), counts[name], gpus, zero, options)

    small, count7 = sent("7b-lora-8gpu", 8, 2), counts["7b-lora-8gpu"]
    # Two micro batches' gradients and one gathering, of which an eighth is its own.
    assert small.received == pytest.approx(3 * 4 * count7.trained * 7 / 8)
    assert sent("7b-lora-8gpu", 512, 2).received == pytest.approx(2 * 4 * count7.trained * 511 / 512)
    large, count13 = sent("13b-lora-8gpu", 8, 3), counts["13b-lora-8gpu"]
    weights = 2 * count13.frozen + 4 * count13.trained
    assert large.received == pytest.approx((3 * weights + 4 * count13.trained) * 7 / 8)
    assert large.seconds > 20 * small.seconds


def test_the_command_prints_both_tables(monkeypatch, capsys):
    words = ["--config", RECIPES.format("7b-lora-8gpu"), "--gpus", "8,64", "--zero", "2", "micro_batch_size=2"]
    monkeypatch.setattr(sys, "argv", ["memory.py", *words])
    memory.main()
    printed = capsys.readouterr().out
    assert "2 rows of 576 + 128 tokens" in printed
    assert "| GiB on each GPU | 8 GPUs, ZeRO-2 | 64 GPUs, ZeRO-2 |" in printed
    assert "| **total** |" in printed and "GB that each GPU receives" in printed


def test_what_has_no_sum_is_refused():
    with pytest.raises(UserError, match="the sums are for adapters on a base"):
        count(load_config("train/recipes/from-nothing.yaml"))


def test_the_pages_sums_are_the_commands(monkeypatch, capsys):
    """train/README.md shows every table below the command that prints it."""
    page = Path("train/README.md").read_text()
    commands = re.findall(r"^    python train/memory.py (.*)$", page, re.MULTILINE)
    assert len(commands) == 3 and any("8,64,512" in words for words in commands)
    for words in commands:
        monkeypatch.setattr(sys, "argv", ["memory.py", *words.split()])
        memory.main()
        assert capsys.readouterr().out.strip() in page, words
