"""Each language model's turns, worded as it learnt them; the assistant's marked."""

import copy

import pytest

from llava_pose.processing import assistant_message, user_message
from llava_pose.wordings import CHATML, LLAMA_3, MISTRAL, VICUNA, with_images, wording

TALK = [
    {"role": "system", "content": [{"type": "text", "text": "Be brief."}]},
    user_message("This?", images=2),
    assistant_message("A car."),
    user_message("Its front?"),
]
EXPECTED = {
    VICUNA: "Be brief. USER: <image>\n<image>\nThis? ASSISTANT: A car.</s>USER: Its front? ASSISTANT:",
    MISTRAL: "Be brief.\n\n[INST] <image>\n<image>\nThis? [/INST] A car.</s>[INST] Its front? [/INST]",
    CHATML: (
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n<image>\n<image>\nThis?<|im_end|>\n"
        "<|im_start|>assistant\nA car.<|im_end|>\n<|im_start|>user\nIts front?<|im_end|>\n<|im_start|>assistant\n"
    ),
    LLAMA_3: (
        "<|start_header_id|>system<|end_header_id|>\n\nBe brief.<|eot_id|>"
        "<|start_header_id|>user<|end_header_id|>\n\n<image>\n<image>\nThis?<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\nA car.<|eot_id|>"
        "<|start_header_id|>user<|end_header_id|>\n\nIts front?<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n"
    ),
}


@pytest.fixture(params=EXPECTED, ids=["vicuna", "mistral", "chatml", "llama 3"])
def template(request):
    return request.param


@pytest.fixture
def processor(tiny_pair, template):
    own = copy.copy(tiny_pair[1])
    own.chat_template = with_images(template, own.image_mark)
    return own


def test_a_conversation_is_worded_as_the_model_learnt_it(processor, template):
    assert processor.render(TALK)[0] == EXPECTED[template]


def test_a_prompt_is_the_beginning_of_the_conversation_that_goes_on_from_it(processor):
    text = processor.render([*TALK, assistant_message("It faces left.")])[0]
    for count in (2, 4):
        assert text.startswith(processor.render(TALK[:count])[0])


def test_the_assistants_turns_are_marked_with_what_ends_them(processor, template):
    text, spans = processor.render(TALK)
    end = {VICUNA: "</s>", MISTRAL: "</s>", CHATML: "<|im_end|>", LLAMA_3: "<|eot_id|>"}[template]
    assert [text[start:stop].strip() for start, stop in spans] == [f"A car.{end}"]


class Vocabulary:
    def __init__(self, *marks):
        self.marks = marks

    def get_vocab(self):
        return dict.fromkeys(self.marks, 0)


@pytest.mark.parametrize(
    ("marks", "text_type", "expected"),
    [
        (("<|im_start|>", "<|im_end|>"), "qwen2", CHATML),
        (("<|im_start|>", "<|im_end|>"), "llama", CHATML),
        (("<|start_header_id|>", "<|eot_id|>"), "llama", LLAMA_3),
        (("</s>",), "mistral", MISTRAL),
        (("</s>",), "llama", VICUNA),
    ],
)
def test_the_wording_is_told_by_the_marks_that_the_tokenizer_knows(marks, text_type, expected):
    assert wording(Vocabulary(*marks), text_type, "<image>\n") == with_images(expected, "<image>\n")


def test_an_image_is_written_as_its_family_writes_it():
    assert "<img><IMG_CONTEXT></img>" in with_images(CHATML, "<img><IMG_CONTEXT></img>\n")
