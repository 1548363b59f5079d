"""The engine against transformers' own generation and a plain forward pass over the finished answer."""

import copy
from itertools import pairwise

import numpy as np
import pytest
import torch
from PIL import Image

from llava_pose.bins import PoseBins
from llava_pose.engine import Engine
from llava_pose.image_inputs import ImageInputs
from llava_pose.processing import assistant_message, user_message
from tests.released import IMAGE_TOKENS

TALK = [
    user_message("What is this?", images=1),
    assistant_message("A car <pose>."),
    user_message("Which way does it face?"),
]


def pixels():
    values = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    return ImageInputs({"pixel_values": values}, (IMAGE_TOKENS,))


@pytest.fixture
def engine(released_pair):
    return Engine(copy.deepcopy(released_pair[0]), released_pair[1])


def generated(engine, messages, count):
    inputs = engine.processor.pad([engine.processor.encode(messages)[0]], "left")
    ids = engine.model.generate(**inputs, **pixels().tensors, max_new_tokens=count, do_sample=False)
    return ids[0, inputs["input_ids"].shape[1] :].tolist()


def say(engine, token, instead_of):
    """Let the model say one token where it would have said another."""
    with torch.no_grad():
        weight = engine.model.lm_head.weight
        weight[token] = weight[instead_of] * 1.5


@pytest.mark.parametrize("messages", [TALK, TALK[:1]])
def test_streaming_equals_transformers_greedy_generation(engine, messages):
    expected = generated(engine, messages, 20)
    assert engine.answer(messages, pixels(), max_new_tokens=20).tokens == expected
    assert len(expected) == 20


def test_readings_equal_the_pose_logits_of_a_whole_forward_pass(engine):
    pose_id = engine.processor.pose_token_id
    say(engine, pose_id, instead_of=generated(engine, TALK, 3)[1])
    answer = engine.answer(TALK, pixels(), max_new_tokens=12)
    marks = answer.tokens.count(pose_id)
    assert 1 <= marks == len(answer.readings) == answer.text.count("<pose>")
    prompt = engine.processor.encode(TALK)[0]
    ids = torch.tensor([[*prompt.tolist(), *answer.tokens]])
    with torch.no_grad():
        logits = engine.model(input_ids=ids, **pixels().tensors).pose_logits
    # The first is the history's own mark.
    assert len(logits) == 1 + marks
    for reading, row in zip(answer.readings, logits[1:].double().numpy(), strict=True):
        np.testing.assert_allclose(reading.distributions, PoseBins().probabilities(row), atol=1e-5)


def test_an_answer_ends_with_the_end_of_sequence_token_which_is_not_shown(engine):
    third = generated(engine, TALK, 3)[2]
    say(engine, engine.processor.tokenizer.eos_token_id, instead_of=third)
    assert generated(engine, TALK, 20)[-1] == engine.processor.tokenizer.eos_token_id
    answer = engine.answer(TALK, pixels(), max_new_tokens=20)
    assert answer.complete and len(answer.tokens) <= 2
    assert "</s>" not in answer.text


def test_an_answer_that_begins_with_the_end_is_empty_and_complete(engine):
    say(engine, engine.processor.tokenizer.eos_token_id, instead_of=generated(engine, TALK, 1)[0])
    answer = engine.answer(TALK, pixels())
    assert (answer.text, answer.readings, answer.complete) == ("", [], True)


def test_an_answer_cut_by_the_limit_is_not_complete(engine):
    answers = list(engine.stream(TALK, pixels(), max_new_tokens=5))
    assert not answers[-1].complete and len(answers[-1].tokens) == 5


def test_a_streamed_answer_only_grows(engine):
    say(engine, engine.processor.pose_token_id, instead_of=generated(engine, TALK, 3)[1])
    texts = []
    counts = []
    for answer in engine.stream(TALK, pixels(), max_new_tokens=12):
        texts.append(answer.text)
        counts.append((answer.text.count("<pose>"), len(answer.readings)))
    assert len(texts) >= 12
    assert all(len(later) >= len(earlier) for earlier, later in pairwise(texts))
    assert all(marks == readings for marks, readings in counts), "each mark comes with its reading"


def test_naming_a_batch_equals_naming_one_by_one(engine):
    rng = np.random.default_rng(0)
    images = [Image.fromarray(rng.integers(0, 256, (40 + 9 * i, 50, 3), dtype=np.uint8)) for i in range(4)]
    trie = engine.name_trie(["car", "sofa", "bicycle", "bicycle_built_for_two"])
    together = engine.name(images, trie)
    for image, naming in zip(images, together, strict=True):
        (alone,) = engine.name([image], trie)
        assert alone.index == naming.index == int(naming.probabilities.argmax())
        np.testing.assert_allclose(alone.probabilities, naming.probabilities, atol=1e-4)
        np.testing.assert_allclose(alone.reading.distributions, naming.reading.distributions, atol=1e-4)
        assert naming.probabilities.sum() == pytest.approx(1, abs=1e-5)
        assert 0 <= naming.reading.confidence <= 1
    assert engine.name([], trie) == []


def test_the_pose_is_read_at_the_chosen_name(engine):
    image = Image.fromarray(np.random.default_rng(1).integers(0, 256, (40, 40, 3), dtype=np.uint8))
    categories = ["car", "sofa", "bicycle"]
    (naming,) = engine.name([image], engine.name_trie(categories))
    talk = [
        user_message("What is this object, and how is it posed?", images=1),
        assistant_message(f"{categories[naming.index]} <pose>."),
    ]
    ids = torch.from_numpy(engine.processor.encode(talk)[0])[None]
    with torch.no_grad():
        (logits,) = engine.model(input_ids=ids, **engine.processor.pixels([image]).tensors).pose_logits
    np.testing.assert_allclose(
        naming.reading.distributions, PoseBins().probabilities(logits.double().numpy()), atol=1e-5
    )


def test_every_category_of_the_taxonomy_can_be_told_from_every_other(tiny_pair, released_pair):
    from llava_pose.taxonomy import categories

    for pair in (tiny_pair, released_pair):
        assert len(Engine(*pair).name_trie(categories()).ends) == len(categories())


def test_the_context_is_the_language_models(tiny_pair, released_pair):
    assert (Engine(*tiny_pair).context, Engine(*released_pair).context) == (1024, 512)
    assert Engine(*released_pair).prompt_length(TALK) == len(released_pair[1].encode(TALK)[0])


def test_history_that_speaks_of_images_takes_no_image_tokens(engine):
    from llava_pose.api import LlavaPose

    model = LlavaPose(engine)
    messages = [
        {"role": "user", "content": "Is <image> a word?"},
        {"role": "assistant", "content": "<image> is, and so is <pose>."},
        {"role": "user", "content": "And <pose>?"},
    ]
    answer = model.chat(Image.new("RGB", (40, 40)), messages)
    assert len(answer.readings) == answer.text.count("<pose>")
