"""Many requests at once, their answers in order."""

from collections.abc import Iterator

from llava_pose.engine import Engine
from llava_pose.generation import Request, answer_all
from tests import test_generation
from tests.test_generation import Pair, alone, assert_same, short_requests

pair = test_generation.pair  # a model that now and then writes a <pose>


def test_all_answers_come_in_order_as_if_each_were_alone_and_few_requests_wait(pair: Pair) -> None:
    engine, taken = Engine(*pair), 0
    requests = short_requests(7)

    def coming() -> Iterator[Request]:
        nonlocal taken
        for request in requests:
            taken += 1
            yield request

    for done, answer in enumerate(answer_all(engine, coming(), together=3)):
        assert done or taken < 7
        assert_same(answer, alone(pair, requests[done]))
    assert done == 6
    assert len(engine.kept) == 0, "what the engine was asked before and after is another matter"
