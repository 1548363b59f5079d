"""Answers side by side: each is what it would be alone, whoever joins, leaves or is cancelled around it."""

import copy
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch

from llava_pose import generation
from llava_pose.bins import PoseBins
from llava_pose.engine import Engine
from llava_pose.errors import UserError
from llava_pose.generation import Answer, Answering, Request
from llava_pose.image_inputs import ImageInputs
from llava_pose.processing import assistant_message, user_message
from llava_pose.sides import swapped_sides

Pair = tuple[Any, Any]

SYSTEM = {"role": "system", "content": [{"type": "text", "text": "A talk about a car and a train station."}]}


@pytest.fixture(scope="module")
def pair(released_pair: Pair) -> Pair:
    """A model that now and then writes a <pose>."""
    model, processor = copy.deepcopy(released_pair[0]), released_pair[1]
    with torch.no_grad():
        weight = model.lm_head.weight
        written = Engine(model, processor).answer(*TALKS[0], max_new_tokens=8).tokens
        weight[processor.pose_token_id] = weight[written[2]] * 1.3
    return model, processor


@pytest.fixture
def engine(pair: Pair) -> Engine:
    """With nothing kept yet."""
    return Engine(*pair)


def images(count: int, seed: int) -> ImageInputs:
    pixels = torch.randn(count, 3, 32, 32, generator=torch.Generator().manual_seed(seed))
    return ImageInputs({"pixel_values": pixels}, (16,) * count)


TALKS: list[tuple[list[dict[str, Any]], ImageInputs | None]] = [
    ([user_message("What is this?", images=1)], images(1, 0)),
    ([user_message("Which way does it face?")], None),
    (
        [
            SYSTEM,
            user_message("Which?", images=2),
            assistant_message("A car <pose>."),
            user_message("And this?", images=1),
        ],
        images(3, 1),
    ),
    ([SYSTEM, user_message("From which side is it seen, and how is it posed?", images=1)], images(1, 2)),
    ([user_message("?", images=1)], images(1, 3)),
    ([SYSTEM, user_message("Is it a train?")], None),
]
LIMITS = [24, 3, 17, 1, 9, 30]


def requests(**options: Any) -> list[Request]:
    return [
        Request(messages, own, limit, seed=number, **options)
        for number, ((messages, own), limit) in enumerate(zip(TALKS, LIMITS, strict=True))
    ]


def short_requests(count: int) -> list[Request]:
    """The same question about different images."""
    return [Request(TALKS[4][0], images(1, seed=20 + seed), 4) for seed in range(count)]


def answered(engine: Engine, arriving: list[list[Request]]) -> list[Answer]:
    """The answers to requests of which some come before each step, in the order in which they came."""
    answering, found = Answering(engine), dict[Request, Answer]()
    waves = iter(arriving)
    while (wave := next(waves, None)) is not None or answering.running:
        for request in wave or []:
            answering.add(request)
        for request, answer in answering.step():
            assert request not in found or not found[request].finished, "nothing comes after the end"
            found[request] = answer
    assert all(answer.finished for answer in found.values())
    return [found[request] for wave in arriving for request in wave]


def alone(pair: Pair, request: Request) -> Answer:
    """The answer of an engine that has seen nothing else."""
    *_, answer = generation.stream(Engine(*pair), request)
    return answer


def assert_same(found: Answer, expected: Answer) -> None:
    assert found.tokens == expected.tokens
    assert (found.text, found.complete, found.prompt_tokens) == (
        expected.text,
        expected.complete,
        expected.prompt_tokens,
    )
    assert len(found.readings) == len(expected.readings)
    for one, other in zip(found.readings, expected.readings, strict=True):
        np.testing.assert_allclose(one.distributions, other.distributions, atol=1e-5)


@pytest.mark.parametrize("options", [{}, {"temperature": 1.5, "top_p": 0.9}], ids=["greedy", "drawn"])
def test_answers_together_are_what_each_is_alone_whoever_joins_and_leaves(pair: Pair, options: dict[str, Any]) -> None:
    asked = requests(**options)
    expected = [alone(pair, request) for request in asked]
    assert [len(answer.tokens) for answer in expected] == LIMITS
    assert sum(len(answer.readings) for answer in expected) > 1
    orders = [
        [asked],
        [asked[:2], [], asked[2:3], asked[3:5], [], [], [], asked[5:]],
        [asked[4:], asked[2:4], [], asked[:2]],
    ]
    for order in orders:
        for wave in ([[*wave] for wave in order], [wave[::-1] for wave in order]):
            flat = [asked.index(request) for part in wave for request in part]
            for index, answer in zip(flat, answered(Engine(*pair), wave), strict=True):
                assert_same(answer, expected[index])


def test_rows_are_prefilled_together_and_run_together(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    answering, asked = Answering(engine), short_requests(4)
    shapes = watch(engine, monkeypatch)
    for requests in (asked[:1], asked[1:]):
        for request in requests:
            answering.add(request)
        while answering.running:
            answering.step()
    assert [rows for rows, tokens in shapes if tokens > 1] == [1, 3]
    start = next(index for index, shape in enumerate(shapes) if shape[0] == 3)
    # The last token of an answer is run only where it is a <pose>.
    assert {rows for rows, _ in shapes[:start]} == {1} and [rows for rows, _ in shapes[start : start + 4]] == [3] * 4
    assert len(shapes) <= start + 5


def watch(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """The shapes of the token ids of every pass to come."""
    shapes: list[tuple[int, ...]] = []
    backbone = engine.model.backbone

    def watched(**inputs: Any) -> Any:
        shapes.append(tuple(inputs["input_ids"].shape))
        return backbone(**inputs)

    monkeypatch.setattr(engine.model, "backbone", watched)
    return shapes


def test_no_step_copies_what_was_there_before(engine: Engine) -> None:
    answering = Answering(engine)
    for request in requests():
        answering.add(replace(request, max_new_tokens=40))
    for _ in range(3):
        answering.step()
    buffers = [buffer.data_ptr() for layer in answering._cache._buffers for buffer in layer]
    for _ in range(20):
        answering.step()
    assert buffers == [buffer.data_ptr() for layer in answering._cache._buffers for buffer in layer]


def test_one_row_at_a_time_where_attention_knows_no_mask_or_memory_has_no_room(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = [alone(pair, request) for request in requests()]
    for name, value in (("MASKED_ATTENTION", ()), ("RUNNING_BYTES", 1), ("MOST_ROWS", 1)):
        with monkeypatch.context() as patch:
            patch.setattr(generation, name, value)
            engine = Engine(*pair)
            shapes = watch(engine, patch)
            for answer, other in zip(answered(engine, [requests()]), expected, strict=True):
                assert_same(answer, other)
            assert {shape[0] for shape in shapes} == {1}


def test_memory_bounds_how_many_run_and_tokens_how_many_are_prefilled(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = short_requests(8)
    expected = [alone(pair, request) for request in asked]
    engine = Engine(*pair)
    length = engine.prompt_length(asked[0].messages)
    answered(engine, [asked[:1]])
    bytes_per_token = sum(value[:, 0].nbytes for layer in kept_layers(engine) for value in layer)
    for name, value in (("RUNNING_BYTES", 3 * (length + 4) * bytes_per_token), ("PREFILL_TOKENS", 3 * length)):
        with monkeypatch.context() as patch:
            patch.setattr(generation, name, value)
            engine = Engine(*pair)
            shapes = watch(engine, patch)
            for answer, other in zip(answered(engine, [asked]), expected, strict=True):
                assert_same(answer, other)
            prefills = [shape for shape in shapes if shape[1] > 1]
            assert sum(rows for rows, _ in prefills) == 8
            assert max(rows for rows, _ in (prefills if name == "PREFILL_TOKENS" else shapes)) == 3


def kept_layers(engine: Engine) -> Any:
    [kept] = engine.kept._entries.values()
    return kept.layers


def test_short_prompts_do_not_wait_for_the_padding_of_long_ones(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    long = Request([user_message("Which way does it face? " * 20)], None, 2)
    short = [Request([user_message(words)], None, 2) for words in ("Which?", "A train?")]
    engine = Engine(*pair)
    answered(engine, [[Request([user_message("A")], None, 1)]])
    answering = Answering(engine)
    monkeypatch.setattr(answering, "_allowed", lambda columns: 8)
    shapes = watch(engine, monkeypatch)
    for request in (short[0], long, short[1]):
        answering.add(request)
    answering.step()
    assert shapes[0][0] == 2 and shapes[0][1] < 40, "the two short ones"
    answering.step()
    assert shapes[-1][0] == 1 and shapes[-1][1] > 100, "then the long one"


def test_a_cancelled_request_is_answered_no_further_and_changes_nothing_for_others(pair: Pair) -> None:
    engine, asked = Engine(*pair), requests()
    answering, found = Answering(engine), dict[Request, Answer]()
    for request in asked:
        answering.add(request)
    answering.cancel(asked[5])  # before it began
    for _ in range(4):
        found |= dict(answering.step())
    answering.cancel(asked[0])
    while answering.running:
        answers = dict(answering.step())
        assert asked[0] not in answers
        found |= answers
    assert asked[5] not in found and not found[asked[0]].finished
    for request in (asked[1], asked[2], asked[3], asked[4]):
        assert_same(found[request], alone(pair, request))
    answering.cancel(asked[2])  # nothing happens
    assert answering.step() == []


def test_a_stream_that_is_left_early_stops_the_work(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    shapes = watch(engine, monkeypatch)
    answers: Iterator[Answer] = generation.stream(engine, requests()[0])
    next(answers)
    answers.close()  # type: ignore[attr-defined]
    assert len(shapes) == 1 and len(engine.kept) == 1


def test_a_conversation_that_does_not_fit_is_refused_with_both_numbers(engine: Engine) -> None:
    long = [user_message("Which way does it face? " * 100)]
    length = engine.prompt_length(long)
    assert length > engine.context
    with pytest.raises(UserError, match=rf"^messages: {length} tokens, but this model holds {engine.context}$"):
        generation.stream(engine, Request(long))
    answering = Answering(engine)
    with pytest.raises(UserError, match=rf"messages: {length} tokens"):
        answering.add(Request(long))
    assert answering.running == 0 and answering.step() == []


def test_an_answer_ends_where_the_context_does(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Engine(*pair)
    messages, own = TALKS[0]
    monkeypatch.setattr(
        engine.model.config.get_text_config(), "max_position_embeddings", engine.prompt_length(messages) + 5
    )
    answer = engine.answer(messages, own)
    assert len(answer.tokens) == 5 and answer.finished and not answer.complete


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"max_new_tokens": 0}, "max_new_tokens: 0: at least 1 is needed"),
        ({"temperature": -1.0}, r"temperature: -1\.0: a number from 0 on is needed"),
        ({"temperature": float("nan")}, "temperature: nan"),
        ({"top_p": 0.0}, r"top_p: 0\.0: a number above 0 and up to 1 is needed"),
        ({"top_p": 1.5}, r"top_p: 1\.5"),
        ({"stop": ("a", "")}, "stop: an empty text stops everything"),
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, Any], told: str) -> None:
    with pytest.raises(UserError, match=told):
        Request([], None, **options)


def test_text_only_grows_and_its_words_are_those_of_its_poses(tiny_pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """The model is made to say one sentence whose words its pose contradicts, and then another one."""
    engine = Engine(*tiny_pair)
    processor, said = engine.processor, []
    talk = [user_message("Which way?"), assistant_message("The car <pose> faces away from the camera. It is a car.")]
    script = processor.encode(talk)[0][len(processor.encode(talk[:1])[0]) :].tolist()
    assert script[-1] == processor.tokenizer.eos_token_id
    steps = iter(script)

    def scripted(states: torch.Tensor) -> torch.Tensor:
        token = next(steps)
        said.append(token)
        return torch.nn.functional.one_hot(torch.tensor([token]), 1 + max(script)).float()

    monkeypatch.setattr(engine.model.lm_head, "forward", scripted)
    towards = PoseBins().soft_targets(torch.zeros(3)).float().clamp(min=1e-6).log()
    monkeypatch.setattr(engine.model.pose_head, "forward", lambda states: towards.expand(len(states), 3, 40))
    answers = list(generation.stream(engine, Request(talk[:1])))
    assert said == script
    for earlier, later in pairwise(answers):
        assert later.text.startswith(earlier.text)
        assert len(earlier.readings) == earlier.text.count("<pose>")
    assert answers[-1].text == "The car <pose> faces towards the camera. It is a car."
    assert answers[-1].complete and answers[-1].finished and len(answers[-1].tokens) == len(script) - 1
    first = next(index for index, answer in enumerate(answers) if answer.text)
    assert first < 4, "words that no pose can change are there at once"


def test_a_stop_ends_an_answer_before_it_and_the_rest_is_not_run(pair: Pair) -> None:
    request = requests()[0]
    whole = alone(pair, request).text
    words = [word for word in whole.split() if word != "<pose>" and whole.find(word) > 0]
    stop = words[len(words) // 2]
    answer = alone(pair, replace(request, stop=(stop, "never said")))
    assert answer.text == whole[: whole.find(stop)].rstrip()
    assert answer.complete and answer.finished and len(answer.tokens) < request.max_new_tokens
    assert len(answer.readings) == answer.text.count("<pose>")


# Drawing


def test_an_answer_is_drawn_by_its_own_seed(pair: Pair) -> None:
    request = replace(requests(temperature=1.5)[0], max_new_tokens=12)
    first, again = alone(pair, request), alone(pair, request)
    assert first.tokens == again.tokens
    others = [alone(pair, replace(request, seed=seed)).tokens for seed in range(1, 5)]
    assert any(tokens != first.tokens for tokens in others)
    unseeded = [alone(pair, replace(request, seed=None)).tokens for _ in range(5)]
    assert any(tokens != unseeded[0] for tokens in unseeded)


def test_among_the_likeliest_alone_drawing_is_choosing(pair: Pair) -> None:
    request = requests()[0]
    expected = alone(pair, request)
    for options in ({"temperature": 1.0, "top_p": 1e-9}, {"temperature": 1e-4}):
        assert alone(pair, replace(request, **options)).tokens == expected.tokens  # type: ignore[arg-type]


@pytest.mark.parametrize(("temperature", "top_p"), [(1.0, 1.0), (0.5, 1.0), (2.0, 0.8), (1.0, 0.5)])
def test_tokens_are_drawn_as_often_as_they_are_likely(temperature: float, top_p: float) -> None:
    """Over evenly spread numbers each token comes as often as its share among the likeliest that reach top_p."""
    logits = torch.tensor([0.3, 2.0, -1.0, 1.5, 0.0, 1.9])

    class Row:
        def __init__(self, number: float):
            self.request = Request([], temperature=temperature, top_p=top_p)
            self.number = number

        def draw(self) -> float:
            return self.number

    rows: Any = [Row((index + 0.5) / 1000) for index in range(1000)]
    counts = np.bincount(generation._drawn(logits.expand(1000, -1), rows).numpy(), minlength=6) / 1000
    probabilities = np.exp(logits.double().numpy() / temperature)
    probabilities /= probabilities.sum()
    order = np.argsort(-probabilities)
    needed = int(np.searchsorted(np.cumsum(probabilities[order]), top_p)) + 1
    expected = np.zeros(6)
    expected[order[:needed]] = probabilities[order[:needed]]
    np.testing.assert_allclose(counts, expected / expected.sum(), atol=2e-3)


# The mirror image


def test_poses_are_the_mean_of_both_readings_where_mirror_images_are_there(pair: Pair, engine: Engine) -> None:
    model, processor = pair
    pixels = images(1, 0)
    both = replace(pixels, mirrored=ImageInputs({"pixel_values": pixels.tensors["pixel_values"].flip(-1)}, (16,)))
    question = "Is its left side to the right?"
    plain = engine.answer([user_message(question, images=1)], pixels)
    read = engine.answer([user_message(question, images=1)], both)
    assert read.tokens == plain.tokens and len(read.readings) == len(plain.readings) > 0
    assert both.mirrored is not None
    other_question = user_message("Is its right side to the left?", images=1)
    for place, (alone, reading) in enumerate(zip(plain.readings, read.readings, strict=True)):
        at = [k for k, token in enumerate(read.tokens) if token == processor.pose_token_id][place]
        said = swapped_sides(processor.tokenizer.decode(read.tokens[: at + 1]))
        ids = processor.encode([other_question, assistant_message(said)], (16,))[0]
        with torch.no_grad():
            output = model(input_ids=torch.from_numpy(ids)[None], pixel_values=both.mirrored.tensors["pixel_values"])
        mirrored = output.pose_logits[-1].softmax(-1).numpy()
        # By hand: azimuth and theta run backwards in a mirror.
        mirrored[[0, 2]] = mirrored[[0, 2], ::-1]
        mean = np.sqrt(alone.distributions * mirrored)
        np.testing.assert_allclose(reading.distributions, mean / mean.sum(-1, keepdims=True), atol=1e-5)
