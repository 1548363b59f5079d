"""The comparison with TRL: what it counts, that both sides see the same, and what it prints."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from eval.random_llava import Size, build
from llava_pose.processing import assistant_message, user_message
from train import speed
from train.beside_trl import plain_llava

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def engine():
    return build(
        Size(hidden=128, layers=4, heads=2, vocabulary=256, image_side=112), torch.device("cpu"), torch.float32
    )


def batch_of(engine, images):
    talk = [user_message("What is this object, and how is it posed?", 1), assistant_message("car. " * 20)]
    ids, labels = engine.processor.encode(talk, (64,))
    batch = engine.processor.pad([ids] * images, "right", [labels] * images)
    return {**batch, "pixel_values": torch.randn(images, 3, 112, 112)}


@pytest.mark.parametrize("trained", [True, False])
def test_the_operations_of_a_step_are_those_that_torch_counts(engine, trained):
    model = engine.model
    model.requires_grad_(trained).model.vision_tower.requires_grad_(False)
    model.model.multi_modal_projector.requires_grad_(True)
    model.set_attn_implementation("eager")
    batch = batch_of(engine, 2)
    with FlopCounterMode(display=False) as counter:
        model(**batch, poses=torch.zeros(0, 3)).loss.backward()
    model.zero_grad()
    counted = counter.get_total_flops()
    own = speed.operations(model, float(batch["attention_mask"].sum()), 2)
    # Torch also counts the masked half of attention, the tower's attention and convolution, and the vocabulary.
    assert 0.8 * counted < own < counted


def test_trl_trains_a_model_that_computes_what_ours_does(engine):
    batch = batch_of(engine, 1)
    engine.model.set_attn_implementation("sdpa")
    plain = plain_llava(engine.model, None).eval()
    with torch.no_grad():
        ours = engine.model.eval()(**{k: v for k, v in batch.items() if k != "labels"}).logits
        theirs = plain(**{k: v for k, v in batch.items() if k != "labels"}).logits
    torch.testing.assert_close(theirs, ours)
    plain.lm_head.weight.data.zero_()
    assert engine.model.lm_head.weight.any(), "the two share their weights"


@pytest.mark.slow
def test_the_quick_comparison_runs_and_its_last_line_is_json():
    command = [sys.executable, str(ROOT / "train" / "speed.py"), "--quick"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=500, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr[-3000:]
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["mfu"] is None or torch.cuda.is_available()
    # How large the ratio is, two steps beside other work do not tell.
    for name in ("trl_ratio", "trl_ratio_with_tower", "samples_per_second", "tokens_per_second", "peak_memory_gib"):
        assert result[name] > 0
