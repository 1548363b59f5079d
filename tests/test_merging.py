"""Merged folders: plain transformers opens them without this package, and so does this package, with equal answers."""

import subprocess
import sys

import pytest
import torch
from PIL import Image

from llava_pose import checkpoint, merging
from tests.released import TALK, assert_equal_outputs, outputs_of
from tests.test_adapters import trained_adapter

PLAIN = """
import sys

class Refused:
    def find_spec(self, name, *rest):
        if name.split(".")[0] in ("llava_pose", "train"):
            raise ImportError(name)

sys.meta_path.insert(0, Refused())
sys.path = [path for path in sys.path if path]
import torch
from PIL import Image
from safetensors.torch import save_file
from transformers import AutoModelForImageTextToText, AutoProcessor, LlavaForConditionalGeneration, LlavaProcessor

folder, picture, out, dtype = sys.argv[1:]
dtype = getattr(torch, dtype)
model, info = LlavaForConditionalGeneration.from_pretrained(folder, dtype=dtype, output_loading_info=True)
assert not any(info.values()), info
assert type(AutoModelForImageTextToText.from_pretrained(folder)) is LlavaForConditionalGeneration
processor = AutoProcessor.from_pretrained(folder)
assert type(processor) is LlavaProcessor
talk = [
    {"role": "user", "content": [{"type": "image", "url": picture}, {"type": "text", "text": "Which way?"}]},
    {"role": "assistant", "content": [{"type": "text", "text": "The car <pose> faces the camera."}]},
]
inputs = processor.apply_chat_template(talk, tokenize=True, return_dict=True, return_tensors="pt").to(dtype)
with torch.no_grad():
    logits = model.eval()(**inputs).logits
save_file({name: inputs[name] for name in ("input_ids", "pixel_values")} | {"logits": logits}, out)
"""


@pytest.fixture(scope="module")
def adapter(released, tmp_path_factory):
    """A trained adapter of a released checkpoint, with its projector."""
    folder = tmp_path_factory.mktemp("merged") / "adapter"
    trained_adapter(released[1], folder)
    return folder


@pytest.fixture(scope="module", params=["float32", "bfloat16"])
def merged(request, adapter):
    folder = adapter.parent / request.param
    merging.merge(adapter, folder, getattr(torch, request.param))
    return folder


def test_plain_transformers_opens_a_merged_folder_and_gives_the_same_logits(merged, tmp_path):
    """In a process where this package cannot be imported: from the picture and the words, both ways."""
    from safetensors.torch import load_file

    dtype = getattr(torch, merged.name)
    picture = tmp_path / "square.png"
    Image.effect_mandelbrot((40, 40), (-2, -1.5, 1, 1.5), 20).convert("RGB").save(picture)
    command = [sys.executable, "-c", PLAIN, str(merged), str(picture), str(tmp_path / "out.safetensors"), merged.name]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    plain = load_file(tmp_path / "out.safetensors")
    model, processor = checkpoint.load(merged, dtype)
    ids = torch.from_numpy(processor.encode(TALK)[0])[None]
    pixels = processor.pixels([Image.open(picture)]).tensors["pixel_values"]
    assert torch.equal(plain["input_ids"], ids)
    assert torch.equal(plain["pixel_values"], pixels.to(dtype))
    with torch.no_grad():
        ours = model(input_ids=ids, pixel_values=pixels.to(dtype))
    assert plain["logits"].dtype == ours.logits.dtype == dtype
    torch.testing.assert_close(plain["logits"], ours.logits, rtol=0, atol=0)


def test_a_merged_folder_is_a_full_model_here_with_equal_poses(adapter, merged):
    expected = outputs_of(*checkpoint.load(adapter))
    model, processor = checkpoint.load(merged)
    found = outputs_of(model, processor)
    if merged.name == "float32":
        assert_equal_outputs(found, expected, rtol=1e-5, atol=1e-5)
    else:
        assert (found.logits - expected.logits).norm() < 0.03 * expected.logits.norm()
        assert (found.pose_logits - expected.pose_logits).norm() < 0.03 * expected.pose_logits.norm()
    checkpoint.check_has_head(merged)
    assert model.config.pose_categories == ["car", "sofa"]
    assert all(value.dtype == torch.float32 for value in model.pose_head.parameters())
