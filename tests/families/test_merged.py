"""Every family's finetuned model, merged: transformers' own class opens it, and so do we, with equal answers."""

import torch
from transformers import AutoModelForImageTextToText

from llava_pose import checkpoint, merging
from llava_pose.processing import assistant_message, user_message
from tests.families.test_families import whole
from tests.test_adapters import trained_adapter

TALK = [user_message("Which way?", images=1), assistant_message("The car <pose> faces the camera.")]


def test_a_merged_folder_is_a_plain_checkpoint_of_its_family(family, pictures, tmp_path):
    trained_adapter(family.folder, tmp_path / "adapter")
    merging.merge(tmp_path / "adapter", tmp_path / "merged", torch.float32)
    plain, info = AutoModelForImageTextToText.from_pretrained(tmp_path / "merged", output_loading_info=True)
    assert not any(info.values()), info
    assert type(plain).__module__.startswith("transformers.models.")
    adapted, processor = checkpoint.load(tmp_path / "adapter")
    merged, its_processor = checkpoint.load(tmp_path / "merged")
    images = processor.pixels(pictures[:1])
    expected = whole(adapted, processor, TALK, images)
    found = whole(merged, its_processor, TALK, images)
    torch.testing.assert_close(found.logits, expected.logits, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found.pose_logits, expected.pose_logits, rtol=1e-5, atol=1e-5)
    ours, theirs = merged.state_dict(), plain.state_dict()
    assert set(ours) - set(theirs) == {name for name in ours if name.startswith("pose_head.")}
    assert all(torch.equal(ours[name], value) for name, value in theirs.items())
