"""A folder of ours whose tokenizer lost ``<pose>``, or has another, is refused by name before any weight is read."""

import json
import shutil

import pytest

from llava_pose import checkpoint
from llava_pose.errors import UserError


@pytest.fixture
def folder(tiny_model_dir, tmp_path):
    """A copy without weights: reading them would be another mistake."""
    return shutil.copytree(tiny_model_dir, tmp_path / "model", ignore=shutil.ignore_patterns("*.safetensors"))


def change_tokenizer(folder, change):
    path = folder / "tokenizer.json"
    values = json.loads(path.read_text())
    change(values["added_tokens"])
    path.write_text(json.dumps(values))


def drop(tokens):
    tokens[:] = [token for token in tokens if token["content"] != "<pose>"]


def test_a_tokenizer_without_pose_is_refused(folder):
    change_tokenizer(folder, drop)
    with pytest.raises(UserError, match=r"model: the tokenizer has no <pose> token, though the model was trained with"):
        checkpoint.load(folder)


def test_a_tokenizer_with_another_pose_is_refused(folder):
    config = json.loads((folder / "config.json").read_text())
    token = config["pose_token_id"]
    (folder / "config.json").write_text(json.dumps({**config, "pose_token_id": token - 5}))
    with pytest.raises(UserError, match=rf"model: <pose> is the tokenizer's {token}, but the model's {token - 5}"):
        checkpoint.load(folder)


def test_an_adapter_with_a_tokenizer_without_pose_is_refused(folder, tmp_path):
    change_tokenizer(folder, drop)
    settings = {"peft_type": "LORA", "base_model_name_or_path": str(tmp_path / "not there")}
    (folder / "adapter_config.json").write_text(json.dumps(settings))
    with pytest.raises(UserError, match="model: the tokenizer has no <pose> token"):
        checkpoint.load(folder)


def test_a_released_checkpoint_gains_the_token(released, released_pair):
    tokenizer = json.loads((released[1] / "tokenizer.json").read_text())
    assert "<pose>" not in {token["content"] for token in tokenizer["added_tokens"]}
    model, processor = released_pair
    assert processor.pose_token_id == model.config.pose_token_id
