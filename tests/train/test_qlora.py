"""QLoRA from end to end: trained on a base in four bits, saved, opened on that base and on the full one, and merged."""

import json
import logging

import pytest
import torch

from llava_pose import checkpoint, merging
from llava_pose.errors import UserError
from llava_pose.quantization import nf4
from tests.released import assert_equal_outputs, outputs_of, write_released
from train import finetune


@pytest.fixture(autouse=True)
def quiet():
    """bitsandbytes looks for faster kernels to fetch, and says so when there are none."""
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A released checkpoint whose matrices are as wide as bitsandbytes needs them on a CPU: multiples of 64."""
    folder = tmp_path_factory.mktemp("wide") / "llava-1.5-wide"
    write_released(folder, width=128)
    return folder


def qlora(base, **model):
    lora = {"rank": 4, "alpha": 8, "dropout": 0.0}
    return {
        "model": {"base": str(base), "base_dtype": "nf4", "lora": lora, "pose_hidden_size": 24, **model},
        "cache_features": False,
        "precision": "bf16",
        "steps": 6,
        "learning_rate": 0.01,
    }


def difference(found, expected):
    """Of the logits and of the pose's, relative."""
    pairs = ((found.logits, expected.logits), (found.pose_logits, expected.pose_logits))
    return max(float((one.float() - other.float()).norm() / other.float().norm()) for one, other in pairs)


def test_a_run_on_four_bits_learns_and_comes_back_equal(run, base, tmp_path, monkeypatch):
    kept = []
    save = finetune.save_final
    monkeypatch.setattr(finetune, "save_final", lambda *given: (kept.append(given[:3]), save(*given)))
    # Evaluated on the way too: see quantization.keep_exact.
    folder = run("qlora", eval_every=3, **qlora(base))
    losses = [json.loads(line)["loss"] for line in (folder / "log.jsonl").read_text().splitlines() if '"loss"' in line]
    assert losses[-1] < losses[0]
    accelerator, model, processor = kept[0]
    model = accelerator.unwrap_model(model)
    packed = {name for name, value in model.named_parameters() if value.dtype == torch.uint8}
    assert len(packed) == 2 * 7 and all("language_model.layers" in name for name in packed)
    assert {value.dtype for value in model.parameters() if value.requires_grad} == {torch.float32}

    beside, its_processor = checkpoint.load(folder / "final", torch.bfloat16, quantization_config=nf4())
    with torch.autocast("cpu", torch.bfloat16):  # as in training
        trained = outputs_of(model, processor)
        assert_equal_outputs(outputs_of(beside, its_processor), trained, rtol=0, atol=0)

    full, _ = checkpoint.load(folder / "final")
    assert not [name for name, _ in full.named_parameters() if "lora" in name]
    on_full = outputs_of(full, processor)
    bare = outputs_of(checkpoint.load(base, head={"pose_hidden_size": 24})[0], processor)
    # Four bits are coarse for random weights: what the adapter has learnt is there all the same.
    assert difference(on_full, trained) < 0.5 * difference(bare, trained)

    merging.merge(folder / "final", tmp_path / "full", torch.float32)
    assert_equal_outputs(outputs_of(*checkpoint.load(tmp_path / "full")), on_full, rtol=1e-5, atol=1e-5)
    merging.merge(folder / "final", tmp_path / "trained", torch.float32, as_trained=True)
    assert difference(outputs_of(*checkpoint.load(tmp_path / "trained")), trained) < 0.03  # of bfloat16
    assert difference(on_full, trained) > 0.06


def test_what_was_not_trained_on_four_bits_is_not_merged_so(run, base, tmp_path):
    folder = run("lora", **{**qlora(base, base_dtype="bf16"), "steps": 1})
    with pytest.raises(UserError, match="is no adapter that was trained on a base in four bits"):
        merging.merge(folder / "final", tmp_path / "merged", as_trained=True)
    with pytest.raises(UserError, match="is no adapter that was trained on a base in four bits"):
        merging.merge(base, tmp_path / "merged", as_trained=True)
    assert not (tmp_path / "merged").exists()


def test_four_bits_of_an_adapter_are_refused(run, base):
    folder = run("lora", **{**qlora(base, base_dtype="bf16"), "steps": 1})
    with pytest.raises(UserError, match=r"model\.base: .*final is an adapter; .* merge it first"):
        run("more", **qlora(folder / "final"))
