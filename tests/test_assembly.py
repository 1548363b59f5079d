"""New models on a language model's file: as llama.cpp keeps it, with its own wording of turns."""

import pytest
import torch
from transformers import CLIPImageProcessorPil, Dinov2WithRegistersConfig, Dinov2WithRegistersModel

from llava_pose import assembly, checkpoint
from llava_pose.errors import UserError
from llava_pose.processing import assistant_message, user_message
from tests.released import assert_equal_outputs, outputs_of
from tests.small_gguf import SPECIALS, write_gguf

SIZES = {"image_size": 64, "patch_size": 32}
SIDE = 64


@pytest.fixture(scope="module")
def gguf_file(tmp_path_factory):
    return write_gguf(tmp_path_factory.mktemp("gguf") / "small.Q4_1.gguf")


@pytest.fixture(scope="module")
def pair(gguf_file):
    return assembly.assemble(str(gguf_file), tower_sizes=SIZES, pose_hidden_size=24)


def test_a_model_on_a_gguf_file_has_its_weights_and_is_saved_as_any_other(pair, gguf_file, tmp_path):
    from transformers import AutoModelForCausalLM

    model, processor = pair
    plain = AutoModelForCausalLM.from_pretrained(gguf_file.parent, gguf_file=gguf_file.name, dtype=torch.float32)
    known = plain.config.vocab_size
    assert torch.equal(model.get_input_embeddings().weight[:known], plain.get_input_embeddings().weight)
    name = "layers.1.self_attn.k_proj.weight"
    assert torch.equal(model.model.language_model.get_parameter(name), plain.model.get_parameter(name))
    checkpoint.save(model, processor, tmp_path / "saved")
    again, its_processor = checkpoint.load(tmp_path / "saved")
    assert_equal_outputs(
        outputs_of(again, its_processor, SIDE), outputs_of(model, processor, SIDE), rtol=1e-5, atol=1e-6
    )


def test_new_tokens_begin_as_the_mean_of_the_old_and_tied_matrices_stay_one(pair):
    model, processor = pair
    matrix = model.get_input_embeddings().weight
    assert matrix is model.get_output_embeddings().weight
    first = len(SPECIALS) + 256 + 2
    assert processor.pose_token_id >= first and processor.image_token_id >= first
    for token in (processor.pose_token_id, processor.image_token_id):
        torch.testing.assert_close(matrix[token], matrix[:first].mean(0))


def test_a_language_model_keeps_its_own_wording_of_turns(pair):
    _, processor = pair
    text, spans = processor.render([user_message("What is this?", images=1), assistant_message("A car <pose>.")])
    assert text == (
        "<|im_start|>user\n<image>\nWhat is this?<|im_end|>\n<|im_start|>assistant\nA car <pose>.<|im_end|>\n"
    )
    assert [text[start:end] for start, end in spans] == ["A car <pose>.<|im_end|>"]
    assert processor.tokenizer.convert_ids_to_tokens(processor.stop_token_id) == "<|im_end|>"


def test_a_model_from_nothing_speaks_the_small_tokenizers_wording(tiny_pair):
    assert tiny_pair[1].render([user_message("Hello?")])[0] == "USER: Hello? ASSISTANT:"


def test_what_is_no_language_model_is_refused_by_name(tmp_path, monkeypatch):
    def refused(source, message):
        with pytest.raises(UserError, match=message):
            assembly.assemble(str(source))

    (tmp_path / "broken.gguf").write_bytes(b"no such thing")
    (tmp_path / "empty").mkdir()
    refused(tmp_path / "none.gguf", r"none\.gguf: no such file")
    refused(tmp_path / "broken.gguf", r"broken\.gguf: cannot be opened as a language model: ")
    refused(tmp_path / "empty", "empty: cannot be opened as a language model: ")
    monkeypatch.setattr(assembly, "is_gguf_available", lambda: False)
    refused(tmp_path / "broken.gguf", r"broken\.gguf: .*pip install 'llava-pose\[gguf\]'")


def test_a_tower_with_registers_has_a_place_for_each_of_its_tokens(tmp_path):
    config = Dinov2WithRegistersConfig(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, image_size=56, patch_size=14, num_register_tokens=3
    )
    Dinov2WithRegistersModel(config).save_pretrained(tmp_path)
    CLIPImageProcessorPil(size={"height": 56, "width": 56}, do_center_crop=False).save_pretrained(tmp_path)
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    model, processor = assembly.assemble(sizes, str(tmp_path), pose_hidden_size=24)
    assert processor.image_tokens == 4 * 4 + 3
    outputs_of(model, processor, 56)  # raises where tokens and places differ in number
