"""Model folders: a released llava-1.5 opens with nothing missing but the head; what is saved comes back equal."""

import copy
import json
import math
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from llava_pose import assembly, checkpoint
from llava_pose.errors import UserError
from llava_pose.families.llava import LlavaPoseConfig, LlavaPoseProcessor
from tests.released import IMAGE_TOKENS, assert_equal_outputs, inputs_for, outputs_of, write_released

# A released checkpoint


@pytest.mark.parametrize("old_processor", [False, True])
def test_a_released_checkpoint_gives_plain_transformers_logits(tmp_path, old_processor):
    plain = write_released(tmp_path, old_processor)
    model, processor = checkpoint.load(tmp_path)
    inputs = inputs_for(processor, 32)
    # <pose> has a row of its own now; any other token must be the checkpoint's.
    inputs["input_ids"][inputs["input_ids"] == processor.pose_token_id] = 300
    with torch.no_grad():
        theirs, ours = plain(**inputs).logits, model(**inputs).logits
    known = processor.pose_token_id
    torch.testing.assert_close(ours[..., :known], theirs[..., :known], rtol=0, atol=0)
    assert theirs.std() > 0.05, "logits that could tell a wrong weight"


def test_every_weight_of_a_released_checkpoint_is_read_and_only_the_head_is_new(released, released_pair):
    plain, model = released[0].state_dict(), released_pair[0].state_dict()
    assert {name for name in model if name not in plain} == {
        f"pose_head.{part}" for part in ("norm.weight", "norm.bias", "linear_1.weight", "linear_1.bias")
    } | {"pose_head.linear_2.weight", "pose_head.linear_2.bias"}
    token = released_pair[1].pose_token_id
    for name, value in plain.items():
        mine = model[name]
        if name in ("lm_head.weight", "model.language_model.embed_tokens.weight"):
            mine, value = (torch.cat([matrix[:token], matrix[token + 1 :]]) for matrix in (mine, value))
        assert torch.equal(mine, value), name


def test_pose_takes_the_first_spare_row_and_the_vocabulary_keeps_its_size(released, released_pair):
    plain, (model, processor) = released[0], released_pair
    rows = plain.get_input_embeddings().num_embeddings
    assert processor.pose_token_id == 402 < rows
    assert model.get_input_embeddings().num_embeddings == model.get_output_embeddings().out_features == rows
    assert model.config.text_config.vocab_size == rows
    assert model.config.pose_token_id == processor.pose_token_id
    assert processor.image_tokens == IMAGE_TOKENS


def test_the_row_of_pose_is_the_mean_of_the_rows_before_it(released, released_pair):
    token = released_pair[1].pose_token_id
    for theirs, ours in [
        (released[0].get_input_embeddings().weight, released_pair[0].get_input_embeddings().weight),
        (released[0].lm_head.weight, released_pair[0].lm_head.weight),
    ]:
        torch.testing.assert_close(ours[token], theirs[:token].mean(0))


def test_without_a_spare_row_the_vocabulary_grows_and_keeps_its_rows(tmp_path):
    plain = write_released(tmp_path)
    tokens = len(LlavaPoseProcessor.from_pretrained(tmp_path).tokenizer)
    plain.resize_token_embeddings(tokens)
    plain.save_pretrained(tmp_path)
    model, processor = checkpoint.load(tmp_path)
    assert processor.pose_token_id == tokens < model.get_input_embeddings().num_embeddings
    assert model.lm_head.out_features == model.config.text_config.vocab_size >= tokens + 1
    assert torch.equal(model.get_input_embeddings().weight[:tokens], plain.get_input_embeddings().weight)
    assert torch.equal(model.lm_head.weight[:tokens], plain.lm_head.weight)
    assert torch.isfinite(outputs_of(model, processor).pose_logits).all()


def test_the_head_is_float32_in_a_model_of_half_precision(released):
    model, processor = checkpoint.load(released[1], dtype=torch.bfloat16)
    assert {value.dtype for value in model.pose_head.parameters()} == {torch.float32}
    assert model.lm_head.weight.dtype == model.model.vision_tower.dtype == torch.bfloat16
    assert outputs_of(model, processor).pose_logits.dtype == torch.float32


def test_a_released_checkpoint_with_a_weight_missing_is_refused(tmp_path):
    write_released(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    del weights["language_model.lm_head.weight"]
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match=r"weights do not fit the model: .*lm_head"):
        checkpoint.load(tmp_path)


# Our own folders


@pytest.mark.parametrize("pair, side", [("released_pair", 32), ("tiny_pair", 128)])
def test_a_saved_model_comes_back_equal(request, tmp_path, pair, side):
    model, processor = request.getfixturevalue(pair)
    checkpoint.save(model, processor, tmp_path / "saved")
    again, its_processor = checkpoint.load(tmp_path / "saved")
    assert_equal_outputs(
        outputs_of(again, its_processor, side), outputs_of(model, processor, side), rtol=1e-5, atol=1e-6
    )
    assert again.config.pose_token_id == its_processor.pose_token_id
    names = {path.name for path in (tmp_path / "saved").iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json", "processor_config.json"} <= names
    assert not [name for name in names if name.endswith((".bin", ".pt", ".pkl"))]
    assert not [path for path in tmp_path.iterdir() if path.name != "saved"], "nothing half-written is left"


def test_the_embedded_tower_is_left_out_of_the_file_and_comes_back(tiny_model_dir, tiny_pair):
    names = load_file(tiny_model_dir / "model.safetensors").keys()
    assert not [name for name in names if "vision_tower" in name]
    again, _ = checkpoint.load(tiny_model_dir)
    for name, value in tiny_pair[0].model.vision_tower.state_dict().items():
        assert torch.equal(again.model.vision_tower.state_dict()[name], value), name


def test_a_tower_that_was_trained_is_kept_in_the_file(tiny_pair, tmp_path):
    model, processor = copy.deepcopy(tiny_pair[0]), tiny_pair[1]
    model.config.tower_source = None
    with torch.no_grad():
        model.model.vision_tower.stem.weight += 0.1
    checkpoint.save(model, processor, tmp_path / "saved")
    again, _ = checkpoint.load(tmp_path / "saved")
    assert torch.equal(again.model.vision_tower.stem.weight, model.model.vision_tower.stem.weight)


def test_saving_in_half_precision_costs_only_precision(tiny_pair, tmp_path):
    checkpoint.save(*tiny_pair, tmp_path / "saved", dtype=torch.bfloat16)
    weights = load_file(tmp_path / "saved" / "model.safetensors")
    assert {value.dtype for value in weights.values()} == {torch.bfloat16}
    again, processor = checkpoint.load(tmp_path / "saved")
    assert {value.dtype for value in again.parameters()} == {torch.float32}
    assert_equal_outputs(outputs_of(again, processor, 128), outputs_of(*tiny_pair, 128), rtol=0.1, atol=0.02)


def test_saving_replaces_an_older_folder_and_leaves_it_when_it_fails(tiny_pair, tmp_path, monkeypatch):
    target = tmp_path / "saved"
    target.mkdir()
    (target / "old").write_text("old")
    model, processor = tiny_pair

    def fail(*args, **kwargs):
        raise OSError("disk full")

    monkeypatch.setattr(processor, "save_pretrained", fail, raising=False)
    with pytest.raises(OSError, match="disk full"):
        checkpoint.save(model, processor, target)
    assert [path.name for path in tmp_path.iterdir()] == ["saved"]
    assert (target / "old").read_text() == "old"
    monkeypatch.undo()
    checkpoint.save(model, processor, target)
    assert not (target / "old").exists() and (target / "config.json").exists()


def test_the_configuration_keeps_every_field(tmp_path):
    config = LlavaPoseConfig(
        pose_token_id=7,
        pose_bins=36,
        pose_hidden_size=99,
        pose_loss_weight=0.5,
        pose_target_deviation=0.0,
        pose_categories=["car", "bus"],
    )
    config.save_pretrained(tmp_path)
    again = LlavaPoseConfig.from_pretrained(tmp_path)
    for field in ("token_id", "bins", "hidden_size", "loss_weight", "target_deviation", "categories"):
        assert getattr(again, f"pose_{field}") == getattr(config, f"pose_{field}")


# Folders that are none


def test_folders_that_hold_no_model_are_refused_in_one_line(tiny_model_dir, tmp_path):
    def refused(path, match):
        with pytest.raises(UserError, match=match) as caught:
            checkpoint.load(path)
        assert "\n" not in str(caught.value)

    refused(tmp_path / "missing", "missing: no such model folder")
    refused(tmp_path, "not a model folder")
    for name in ("broken", "other", "empty", "cut", "changed", "tokenless"):
        shutil.copytree(tiny_model_dir, tmp_path / name)
    (tmp_path / "broken" / "config.json").write_text("{")
    refused(tmp_path / "broken", "broken: ")
    (tmp_path / "other" / "config.json").write_text(json.dumps({"model_type": "bert"}))
    refused(tmp_path / "other", "model_type is 'bert', expected one of llava, llava_next")
    (tmp_path / "empty" / "model.safetensors").unlink()
    refused(tmp_path / "empty", "empty: .*model.safetensors")
    whole = (tiny_model_dir / "model.safetensors").read_bytes()
    (tmp_path / "cut" / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    refused(tmp_path / "cut", "cut: ")
    weights = load_file(tiny_model_dir / "model.safetensors")
    weights["pose_head.linear_2.weight"] = torch.zeros(9, 9)
    save_file(weights, tmp_path / "changed" / "model.safetensors", metadata={"format": "pt"})
    refused(tmp_path / "changed", "changed: weights do not fit the model: .*pose_head")
    (tmp_path / "tokenless" / "tokenizer.json").unlink()
    (tmp_path / "tokenless" / "tokenizer_config.json").unlink()
    refused(tmp_path / "tokenless", "tokenless: ")


# Assembling


def test_assembling_twice_with_one_seed_gives_one_model(tiny_pair):
    from tests.conftest import TINY_SIZES

    again, _ = assembly.assemble(TINY_SIZES)
    other, _ = assembly.assemble(TINY_SIZES, seed=1)
    assert torch.equal(again.lm_head.weight, tiny_pair[0].lm_head.weight)
    assert not torch.equal(other.lm_head.weight, tiny_pair[0].lm_head.weight)


def test_assembling_on_a_text_checkpoint_keeps_its_weights_and_its_tokenizer(released, tmp_path):
    from transformers import LlamaForCausalLM

    from tests.released import llama_tokenizer

    plain = released[0]
    text = LlamaForCausalLM(plain.config.text_config)
    text.model.load_state_dict(plain.model.language_model.state_dict())
    text.lm_head.load_state_dict(plain.lm_head.state_dict())
    text.save_pretrained(tmp_path / "text")
    llama_tokenizer().save_pretrained(tmp_path / "text")
    model, processor = assembly.assemble(str(tmp_path / "text"), pose_hidden_size=20)
    rows = len(llama_tokenizer())
    assert torch.equal(model.get_input_embeddings().weight[:rows], plain.get_input_embeddings().weight[:rows])
    assert torch.equal(model.lm_head.weight[:rows], plain.lm_head.weight[:rows])
    assert model.pose_head.linear_1.out_features == 20
    assert torch.isfinite(outputs_of(model, processor, 128).pose_logits).all()
    checkpoint.save(model, processor, tmp_path / "saved")
    again, its_processor = checkpoint.load(tmp_path / "saved")
    assert_equal_outputs(outputs_of(again, its_processor, 128), outputs_of(model, processor, 128), rtol=1e-5, atol=1e-6)


def test_assembling_on_a_clip_tower_reads_its_weights(released, tmp_path):
    from transformers import CLIPVisionModel

    from tests.conftest import TINY_SIZES

    plain, folder = released
    tower = CLIPVisionModel(plain.config.vision_config)
    torch.manual_seed(3)
    with torch.no_grad():
        for value in tower.parameters():
            value += 0.1 * torch.randn_like(value)
    tower.save_pretrained(tmp_path / "tower")
    LlavaPoseProcessor.from_pretrained(folder).image_processor.save_pretrained(tmp_path / "tower")
    model, processor = assembly.assemble(TINY_SIZES, vision_tower=str(tmp_path / "tower"))
    for name, value in tower.state_dict().items():
        assert torch.equal(model.model.vision_tower.state_dict()[name], value), name
    assert processor.image_tokens == 16
    assert math.isfinite(outputs_of(model, processor, 32).pose_logits.sum())
