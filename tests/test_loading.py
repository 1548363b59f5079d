"""Batches of like length within a number of tokens, and values made ahead of need."""

import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llava_pose.errors import UserError
from llava_pose.loading import batches_by_tokens, read_ahead


@given(st.lists(st.integers(1, 50), max_size=60), st.integers(0, 30), st.integers(80, 300))
def test_batches_hold_every_index_once_within_the_tokens(lengths, extra, limit):
    batches = batches_by_tokens(lengths, limit, extra)
    assert sorted(index for batch in batches for index in batch) == list(range(len(lengths)))
    for batch in batches:
        assert len(batch) * (max(lengths[index] for index in batch) + extra) <= limit
    in_order = [lengths[index] for batch in batches for index in batch]
    assert in_order == sorted(lengths, reverse=True), "neighbours in length share a batch"


def test_batches_are_as_full_as_they_may_be():
    assert batches_by_tokens([10] * 7, 60, extra=10) == [[0, 1, 2], [3, 4, 5], [6]]


def test_a_prompt_that_alone_is_too_long_is_refused():
    with pytest.raises(
        UserError, match="--max-batch-tokens: 50 is less than one image needs: 40 tokens of prompt and 20"
    ):
        batches_by_tokens([10, 40], 50, extra=20)


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_values_come_in_order_and_are_not_made_far_ahead(workers):
    made = []

    def read(item):
        made.append(item)
        time.sleep(0.002 * (item % 3))
        return item * item

    for number, value in enumerate(read_ahead(read, iter(range(12)), workers)):
        assert value == number**2
        assert len(made) <= number + 1 + workers + 1


def test_values_are_made_while_the_caller_works_on_another():
    begun = [threading.Event(), threading.Event()]
    values = read_ahead(lambda item: begun[item].set(), [0, 1], workers=1)
    next(values)
    assert begun[1].wait(5), "the second is under way while the first is in use"
    list(values)


def test_an_error_is_raised_in_its_turn_and_ends_the_work():
    made = []

    def read(item):
        made.append(item)
        if item == 2:
            raise ValueError("no image")
        return item

    values = read_ahead(read, range(100), workers=2)
    assert [next(values), next(values)] == [0, 1]
    with pytest.raises(ValueError, match="no image"):
        next(values)
    assert len(made) < 10


def test_a_caller_that_leaves_early_stops_the_work():
    made = []
    values = read_ahead(lambda item: made.append(item), range(1000), workers=2)
    next(values)
    values.close()
    count = len(made)
    time.sleep(0.02)
    assert len(made) == count < 10
