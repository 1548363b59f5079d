"""A family's released checkpoint opens with every weight, and nothing new but the pose head."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from llava_pose import checkpoint
from llava_pose.errors import UserError
from tests.families.test_families import TALK


def test_a_released_checkpoint_gives_transformers_own_logits(family, pictures):
    processor = family.processor
    for picture in pictures:
        images = processor.pixels([picture])
        ids = torch.from_numpy(processor.encode(TALK[:1], images.tokens)[0])[None]
        tensors = dict(images.tensors)
        if family.name == "internvl":
            # There transformers' own model takes the tiles of all images as one row.
            tensors = {"pixel_values": tensors["pixel_values"][0]}
        with torch.no_grad():
            theirs = family.plain(input_ids=ids, **tensors).logits
            ours = family.model(input_ids=ids, **images.tensors).logits
        known = processor.pose_token_id
        torch.testing.assert_close(ours[..., :known], theirs[..., :known], rtol=0, atol=0)
        assert theirs.std() > 0.05, "logits that could tell a wrong weight"


def test_only_the_pose_head_is_new(family):
    plain, ours = family.plain.state_dict(), family.model.state_dict()
    assert {name.split(".")[0] for name in ours if name not in plain} == {"pose_head"}
    token = family.processor.pose_token_id
    for name, value in plain.items():
        mine = ours[name]
        if name in ("lm_head.weight", "model.language_model.embed_tokens.weight"):
            mine, value = mine[:token], value[:token]
        assert torch.equal(mine, value), name


def test_a_checkpoint_with_a_weight_missing_is_refused(family, tmp_path):
    family.plain.save_pretrained(tmp_path)
    family.processor.save_pretrained(tmp_path)
    file = next(tmp_path.glob("*.safetensors"))
    weights = load_file(file)
    name = next(name for name in weights if "multi_modal_projector" in name)
    del weights[name]
    save_file(weights, file, metadata={"format": "pt"})
    with pytest.raises(UserError, match=r"weights do not fit the model: .*multi_modal_projector"):
        checkpoint.load(tmp_path)


def test_pose_has_a_row_of_its_own_and_the_vocabulary_only_grows(family):
    token, model = family.processor.pose_token_id, family.model
    rows = model.get_input_embeddings().num_embeddings
    assert token == model.config.pose_token_id < rows
    assert rows == model.get_output_embeddings().out_features == model.config.get_text_config().vocab_size
    before = family.plain.get_input_embeddings().num_embeddings
    assert rows == (before if token < before else -(-(token + 1) // 64) * 64) >= before
    matrix = model.get_input_embeddings().weight
    torch.testing.assert_close(matrix[token], matrix[:token].mean(0))
    again, _ = checkpoint.load(family.folder)
    assert torch.equal(again.lm_head.weight, model.lm_head.weight), "no row is drawn anew, used or not"
    tied = family.name == "llava_onevision"
    assert (model.lm_head.weight.data_ptr() == matrix.data_ptr()) == tied


@pytest.mark.parametrize("kind", ["", "Fast"])
def test_an_image_processor_of_any_name_becomes_the_one_that_needs_no_torchvision(family, tmp_path, pictures, kind):
    """As the released ones lie on the hub: in a file of its own, under the name of another implementation."""
    family.processor.save_pretrained(tmp_path)
    settings = json.loads((tmp_path / "processor_config.json").read_text())
    images = settings.pop("image_processor")
    images["image_processor_type"] = images["image_processor_type"].removesuffix("Pil") + kind
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(images))
    (tmp_path / "processor_config.json").write_text(json.dumps(settings))
    (tmp_path / "config.json").write_text((family.folder / "config.json").read_text())
    processor = type(family.processor).from_pretrained(tmp_path)
    assert type(processor.image_processor).__name__.endswith("Pil")
    found, expected = processor.pixels(pictures), family.processor.pixels(pictures)
    assert found.tokens == expected.tokens
    for name, value in expected.tensors.items():
        assert torch.equal(found.tensors[name], value)
