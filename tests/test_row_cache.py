"""Conversations that go on: from where they part, with the images that were looked at, and never with others."""

import copy
import threading
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from llava_pose import generation
from llava_pose.engine import Engine
from llava_pose.generation import Answer, Request
from llava_pose.image_inputs import ImageInputs
from llava_pose.processing import assistant_message, user_message
from llava_pose.row_cache import ImageSpan, Kept, KeptCaches, RowCache, common_beginning, image_digest, image_spans

Pair = tuple[Any, Any]
FIRST = [user_message("What is this, and which way does it face?", images=1)]
SYSTEM = {"role": "system", "content": [{"type": "text", "text": "A talk about a car and a train station."}]}


def images(count: int, seed: int = 0) -> ImageInputs:
    pixels = torch.randn(count, 3, 32, 32, generator=torch.Generator().manual_seed(seed))
    return ImageInputs({"pixel_values": pixels}, (16,) * count)


class Watched(Engine):
    """Counts the images that are looked at and the tokens that are run."""

    def __init__(self, model: Any, processor: Any):
        super().__init__(copy.deepcopy(model), processor)
        self.looked_at = self.tokens = 0
        look, run = self.model.model.get_image_features, self.model.backbone

        def watched_look(pixel_values: torch.Tensor, **options: Any) -> Any:
            self.looked_at += len(pixel_values)
            return look(pixel_values=pixel_values, **options)

        def watched_run(**inputs: Any) -> Any:
            self.tokens += inputs["input_ids"].numel()
            return run(**inputs)

        self.model.model.get_image_features, self.model.backbone = watched_look, watched_run

    def ask(self, messages: list[dict[str, Any]], own: ImageInputs | None, count: int = 6) -> Answer:
        """The answer, with the counts of this turn alone."""
        self.looked_at = self.tokens = 0
        return self.answer(messages, own, count)


def fresh(pair: Pair, messages: list[dict[str, Any]], own: ImageInputs | None, count: int = 6) -> Answer:
    return Engine(*pair).answer(messages, own, count)


def assert_same(found: Answer, expected: Answer) -> None:
    assert found.tokens == expected.tokens and found.text == expected.text


def follow_up(talk: list[dict[str, Any]], answer: str, question: str, pictures: int = 0) -> list[dict[str, Any]]:
    return [*talk, assistant_message(answer), user_message(question, images=pictures)]


@pytest.fixture
def engine(released_pair: Pair) -> Watched:
    return Watched(*released_pair)


@pytest.mark.parametrize("words", ["its own", "others"])
def test_a_later_turn_runs_its_new_words_alone_and_looks_at_no_image_again(
    released_pair: Pair, engine: Watched, words: str
) -> None:
    talk, own = FIRST, images(1)
    answer = engine.ask(talk, own)
    assert engine.looked_at == 1
    for question in ("And now?", "Is it a car or a train station?"):
        before = len(engine.processor.encode(talk)[0])
        talk = follow_up(talk, answer.text if words == "its own" else "A car <pose>, seen from its left.", question)
        answer = engine.ask(talk, own)
        assert engine.looked_at == 0
        # The turn before is there but for its end: a space and a word may make another token with what follows.
        assert engine.tokens <= len(engine.processor.encode(talk)[0]) - before + 6 + 2
        assert_same(answer, fresh(released_pair, talk, own))


def test_another_question_about_the_same_image_does_not_look_again(released_pair: Pair, engine: Watched) -> None:
    engine.ask(FIRST, images(1))
    other = [user_message("From which side?", images=1)]
    assert_same(engine.ask(other, images(1)), fresh(released_pair, other, images(1)))
    assert engine.looked_at == 0


def test_another_image_is_never_taken_for_the_one_before(released_pair: Pair, engine: Watched) -> None:
    talk = [SYSTEM, *FIRST]
    first = engine.ask(talk, images(1))
    second = engine.ask(talk, images(1, seed=1))
    assert engine.looked_at == 1
    assert engine.tokens < engine.prompt_length(talk), "the system's words are shared"
    assert_same(second, fresh(released_pair, talk, images(1, seed=1)))
    assert first.tokens != second.tokens
    near = images(1)
    near.tensors["pixel_values"][0, 0, 0, 0] += 1e-6
    engine.ask(talk, near)
    assert engine.looked_at == 1, "be it by the least"


def test_a_new_image_in_a_later_turn_is_the_only_one_looked_at(released_pair: Pair, engine: Watched) -> None:
    answer = engine.ask(FIRST, images(1))
    talk, own = follow_up(FIRST, answer.text, "And these?", pictures=2), images(3)
    own = ImageInputs.join([images(1), images(2, seed=5)])
    answer = engine.ask(talk, own)
    assert engine.looked_at == 2
    assert_same(answer, fresh(released_pair, talk, own))
    talk = follow_up(talk, answer.text, "Is the second one nearer?")
    assert_same(engine.ask(talk, own), fresh(released_pair, talk, own))
    assert engine.looked_at == 0


def test_of_several_images_those_before_the_first_other_one_are_taken_over(
    released_pair: Pair, engine: Watched
) -> None:
    talk = [user_message("Which of these three?", images=3)]
    engine.ask(talk, images(3))
    for changed, looked_at in ((2, 1), (1, 2), (0, 3)):
        own = images(3)
        own.tensors["pixel_values"][changed] = images(1, seed=9 + changed).tensors["pixel_values"][0]
        assert_same(engine.ask(talk, own), fresh(released_pair, talk, own))
        assert engine.looked_at == looked_at
    fewer = [user_message("Which of these two?", images=2)]
    assert_same(engine.ask(fewer, images(2)), fresh(released_pair, fewer, images(2)))
    assert engine.looked_at == 0


def test_the_same_turn_again_runs_one_token_of_the_prompt(released_pair: Pair, engine: Watched) -> None:
    first = engine.ask(FIRST, images(1), 1)
    again = engine.ask(FIRST, images(1), 1)
    assert (engine.looked_at, engine.tokens) == (0, 1)
    assert_same(again, first)


def test_turns_that_run_together_start_from_what_each_has_kept(released_pair: Pair, engine: Watched) -> None:
    talks = [(FIRST, images(1)), ([SYSTEM, *FIRST], images(1, seed=1)), ([user_message("Which?", images=2)], images(2))]
    nexts = []
    for talk, own in talks:
        nexts.append((follow_up(talk, engine.ask(talk, own).text, "And how is it posed?"), own))
    engine.looked_at = 0
    answering = generation.Answering(engine)
    requests = [Request(talk, own, 6) for talk, own in [*nexts, (FIRST, images(1, seed=7))]]
    for request in requests:
        answering.add(request)
    found: dict[Request, Answer] = {}
    while answering.running:
        found |= dict(answering.step())
    assert engine.looked_at == 1, "the new picture alone"
    for request in requests:
        assert_same(found[request], fresh(released_pair, list(request.messages), request.images))


def test_conversations_about_one_image_that_come_together_look_at_it_once(released_pair: Pair, engine: Watched) -> None:
    questions = ["What is it?", "Which way?", "How far must it turn?", "From which side is it seen?"]
    requests = [Request([user_message(question, images=1)], images(1), 8) for question in questions]
    answering = generation.Answering(engine)
    for request in [*requests, *requests]:
        answering.add(replace(request))
    found = []
    while answering.running:
        found += [(request, answer) for request, answer in answering.step() if answer.finished]
    assert engine.looked_at == 1 and len(found) == 8
    for request, answer in found:
        assert_same(answer, fresh(released_pair, list(request.messages), request.images, 8))


# What is kept


def conversation(ids: list[int], spans: list[ImageSpan] | None = None, size: int = 1) -> Kept:
    values = torch.zeros(2, len(ids), 4 * size)
    return Kept(np.array(ids), spans or [], [(values, values.clone())])


def test_the_longest_common_beginning_is_found_and_a_token_is_left() -> None:
    kept = KeptCaches()
    assert kept.longest(np.array([1, 2]), []) == (None, 0)
    first, second = conversation([1, 2, 3, 4, 5]), conversation([1, 2, 7, 8])
    kept.add(first)
    kept.add(second)
    for ids, expected in (
        ([1, 2, 3, 9], (first, 3)),
        ([1, 2, 7, 8], (second, 3)),
        ([1, 2, 7, 8, 9, 9], (second, 4)),
        ([1, 2, 3, 4, 5], (first, 4)),
        ([1], (None, 0)),
        ([3, 2], (None, 0)),
    ):
        assert kept.longest(np.array(ids), []) == expected


def test_no_image_is_cut_or_mistaken() -> None:
    a, b = b"a", b"b"
    kept = conversation([1, 0, 0, 0, 2, 0, 0, 3], [ImageSpan(1, 4, a), ImageSpan(5, 7, b)])
    for ids, spans, expected in (
        ([1, 0, 0, 0, 2, 0, 0, 3], [ImageSpan(1, 4, a), ImageSpan(5, 7, b)], 8),
        ([1, 0, 0, 0, 2, 0, 0, 3], [ImageSpan(1, 4, a), ImageSpan(5, 7, a)], 5),
        ([1, 0, 0, 0, 2, 0, 0, 3], [ImageSpan(1, 4, b), ImageSpan(5, 7, b)], 1),
        # More tokens, or fewer, than the image at the same place has here.
        ([1, 0, 0, 0, 0, 2, 3], [ImageSpan(1, 5, a)], 1),
        ([1, 0, 0, 2, 3], [ImageSpan(1, 3, a)], 1),
        # The end of the prompt cuts the second image.
        ([1, 0, 0, 0, 2, 0], [ImageSpan(1, 4, a), ImageSpan(5, 7, b)], 5),
        ([1, 9, 9], [], 1),
    ):
        assert common_beginning(kept.ids, kept.spans, np.array(ids), spans) == expected
        assert common_beginning(np.array(ids), spans, kept.ids, kept.spans) == expected


def test_the_oldest_conversations_go_where_there_is_no_room_and_the_newest_stays() -> None:
    size = conversation([1, 2, 3]).nbytes
    kept = KeptCaches(max_bytes=2 * size)
    for first in (1, 2, 3):
        kept.add(conversation([first, 8, 9]))
        if first == 2:
            assert kept.longest(np.array([1, 8, 0]), [])[1] == 2  # used just now
    assert len(kept) == 2
    assert [kept.longest(np.array([first, 8, 0]), [])[1] for first in (1, 2, 3)] == [2, 0, 2]
    kept.add(conversation([4, 8, 9], size=100))
    assert len(kept) == 1 and kept.longest(np.array([4, 8, 0]), [])[1] == 2


def test_a_conversation_that_went_on_is_kept_once() -> None:
    kept = KeptCaches()
    for ids in ([1, 2, 3], [1, 2, 3, 4], [1, 2, 3, 4], [1, 2, 5]):
        kept.add(conversation(ids))
    assert len(kept) == 2


def test_no_more_are_kept_than_can_be_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llava_pose.row_cache.MOST_KEPT", 5)
    kept = KeptCaches()
    for first in range(9):
        kept.add(conversation([first, 8, 9]))
    assert len(kept) == 5


def test_threads_may_keep_and_look_side_by_side() -> None:
    kept, wrong = KeptCaches(max_bytes=5 * conversation([1, 2, 3]).nbytes), []

    def work(seed: int) -> None:
        rng = np.random.default_rng(seed)
        for _ in range(200):
            ids = rng.integers(0, 4, 3).tolist()
            kept.add(conversation(ids))
            found, length = kept.longest(np.array([*ids, 9]), [])
            if found is not None and found.ids[:length].tolist() != ids[:length]:
                wrong.append(ids)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong and 1 <= len(kept) <= 5


def test_what_is_kept_is_bounded_by_bytes(released_pair: Pair) -> None:
    engine = Engine(*released_pair)
    engine.answer(FIRST, images(1), 2)
    [one] = engine.kept._entries.values()
    engine.kept.max_bytes = 3 * one.nbytes
    for seed in range(1, 6):
        engine.answer(FIRST, images(1, seed), 2)
        assert len(engine.kept) <= 3 and sum(each.nbytes for each in engine.kept._entries.values()) <= 3 * one.nbytes


# Images and rows


def test_an_image_is_known_again_whatever_it_was_joined_with() -> None:
    """Tiles are filled up with zeros beside an image of more tiles."""
    rng = torch.Generator().manual_seed(0)

    def tiled(count: int) -> ImageInputs:
        values = torch.randn(1, count, 3, 4, 4, generator=rng)
        return ImageInputs({"pixel_values": values, "image_sizes": torch.tensor([[4 * count, 4]])}, (count,))

    few, many = tiled(2), tiled(5)
    both = ImageInputs.join([few, many])
    assert both.tensors["pixel_values"].shape[1] == 5
    assert [image_digest(both.select([index])) for index in range(2)] == [image_digest(few), image_digest(many)]
    assert image_digest(few) != image_digest(many)
    other = ImageInputs({**few.tensors, "image_sizes": torch.tensor([[4, 8]])}, few.tokens)
    assert image_digest(other) != image_digest(few)


def test_spans_are_where_each_images_tokens_are() -> None:
    ids = np.array([1, 0, 0, 0, 0, 2, 0, 0, 0, 3])
    own = ImageInputs({"pixel_values": torch.arange(3.0).reshape(3, 1, 1, 1)}, (3, 1, 3))
    assert [(span.start, span.end) for span in image_spans(ids, 0, own)] == [(1, 4), (4, 5), (6, 9)]
    assert len({span.digest for span in image_spans(ids, 0, own)}) == 3
    assert image_spans(ids, 0, None) == []


def test_rows_hold_what_was_written_to_them_whoever_comes_and_goes() -> None:
    """Against a list of what each row should hold, over random turns of events."""
    rng = np.random.default_rng(0)
    cache, rows = RowCache(), []
    cpu = torch.device("cpu")

    def states(counts: list[int]) -> torch.Tensor:
        return torch.from_numpy(rng.normal(size=(len(counts), 2, max(counts), 3)))

    def append(first: int, counts: list[int]) -> None:
        positions, seen = cache.place(first, counts, cpu)
        keys, values = states(counts), states(counts)
        found, _ = cache.update(keys, values, 0)
        for index, count in enumerate(counts):
            row = rows[first + index]
            start = row.shape[1]
            assert positions[index, :count].tolist() == list(range(start, start + count))
            rows[first + index] = torch.cat([row, keys[index, :, :count]], 1)
            if seen is not None:
                expected = torch.arange(found.shape[2]) <= positions[index, :, None]
                assert torch.equal(seen[index, 0], expected)
            torch.testing.assert_close(found[index, :, : start + count], rows[first + index])

    for _ in range(300):
        event = rng.random()
        if event < 0.2 or not rows:
            count = int(rng.integers(1, 4))
            first = len(rows)
            for _ in range(count):
                length = int(rng.integers(0, 150)) if rng.random() < 0.5 and cache._buffers else 0
                kept = torch.from_numpy(rng.normal(size=(2, 160, 3)))
                cache.add([(kept, kept)], length)
                rows.append(kept[:, :length])
            append(first, rng.integers(1, 40, count).tolist())
        elif event < 0.4:
            index = int(rng.integers(len(rows)))
            torch.testing.assert_close(cache.copy_of(index)[0][0], rows[index])
            cache.remove(index)
            last = rows.pop()
            if index < len(rows):
                rows[index] = last
        else:
            append(0, [1] * len(rows))
        assert cache.lengths == [row.shape[1] for row in rows]
