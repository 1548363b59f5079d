"""Every family by the commands themselves: finetuned whole, beside four bits and from an adapter; scored; merged."""

import json

import pytest
import torch
from transformers import AutoModelForImageTextToText

from llava_pose import checkpoint, merging
from llava_pose.evaluation import read_lines
from llava_pose.processing import assistant_message, user_message
from tests.families.test_families import TALK, lora_settings, outputs, tower, whole
from tests.released import assert_equal_outputs

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("options", [(), ("--flip",), ("--winner-only",)])
def test_the_benchmark_scores_a_finetuned_model_the_same_in_any_batch(family, run, crops, evaluate, options):
    model = run(family.name, **lora_settings(family.folder)) / "final"
    one = read_lines(evaluate(crops, *options, "--batch-size", 1, out="one", model=model) / "predictions.jsonl")
    many = read_lines(evaluate(crops, *options, "--batch-size", 4, out="many", model=model) / "predictions.jsonl")
    assert len(one) == len(many) == 9
    for first, second in zip(one, many, strict=True):
        assert first["predicted_category"] == second["predicted_category"]
        assert first["pose_error"] == pytest.approx(second["pose_error"], abs=1e-3)


def test_a_model_finetuned_whole_with_its_tower_comes_back_equal(family, run, pictures):
    settings = lora_settings(family.folder, lora=None, train_vision_tower=True)
    folder = run(family.name, **settings, gradient_checkpointing=True, micro_batch_size=2)
    model, processor = checkpoint.load(folder / "final")
    assert not torch.equal(tower(model), tower(family.model))
    checkpoint.save(model, processor, folder / "again")
    again, its_processor = checkpoint.load(folder / "again")
    assert_equal_outputs(outputs(again, its_processor, pictures), outputs(model, processor, pictures), rtol=0, atol=0)
    losses = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in losses if "loss" in line] == [1, 2]


def test_an_adapter_goes_on_from_an_adapter_and_merges_into_transformers_own_model(family, run, pictures, tmp_path):
    first = run("first", **lora_settings(family.folder)) / "final"
    second = run("second", **lora_settings(first)) / "final"
    model, processor = checkpoint.load(second)
    expected = outputs(model, processor, pictures)
    merging.merge(second, tmp_path / "plain", torch.float32)
    plain, info = AutoModelForImageTextToText.from_pretrained(tmp_path / "plain", output_loading_info=True)
    assert type(plain) is type(family.plain) and not info["missing_keys"] and not info["unexpected_keys"]
    images = dict(processor.pixels(pictures[1:2]).tensors)
    if family.name == "internvl":
        images = {"pixel_values": images["pixel_values"][0]}
    ids = torch.from_numpy(processor.encode(TALK, processor.pixels(pictures[1:2]).tokens)[0])[None]
    with torch.no_grad():
        logits = plain(input_ids=ids, **images).logits
    torch.testing.assert_close(logits, expected.logits, rtol=0, atol=1e-5)
    again, its_processor = checkpoint.load(tmp_path / "plain")
    assert_equal_outputs(outputs(again, its_processor, pictures), expected, rtol=0, atol=1e-5)


def test_a_base_in_four_bits_is_finetuned_and_opens_in_full(family, run, pictures):
    settings = lora_settings(family.folder, base_dtype="nf4")
    folder = run(family.name, **settings, precision="bf16") / "final"
    model, processor = checkpoint.load(folder)
    assert torch.isfinite(outputs(model, processor, pictures).logits).all()


@pytest.mark.parametrize("count", [0, 3])
def test_a_step_on_conversations_with_no_image_and_with_several(family, pictures, count):
    images = family.processor.pixels(pictures[:count]) if count else None
    talk = [user_message("Compare.", images=count), assistant_message("One <pose>, another <pose>.")]
    ids, labels = family.processor.encode(talk, () if images is None else images.tokens)
    batch = family.processor.pad([ids], "right", [labels])
    tensors = {} if images is None else images.tensors
    loss = family.model(**batch, **tensors, poses=torch.tensor([[0.1, 0.2, 0.3], [1.0, 0.0, 0.0]])).loss
    assert torch.isfinite(loss)
    if images is not None:
        # What is behind the images sees them.
        others = family.processor.pixels([picture.rotate(180) for picture in pictures])
        first, second = (whole(family.model, family.processor, talk, each) for each in (images, others))
        assert not torch.allclose(first.pose_logits, second.pose_logits, atol=1e-3)
