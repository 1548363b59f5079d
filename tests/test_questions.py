"""The words of questions and answers: a mark for each object, named before it, and the label as it is."""

import numpy as np
import pytest

from llava_pose.questions import KINDS
from tests.random_records import CATEGORIES, random_record


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_words_have_a_mark_for_each_object_and_name_it_before(kind):
    rng = np.random.default_rng(5)
    phrasings = set()
    for number in range(300):
        record = random_record(rng)
        for fact in kind.facts(record, CATEGORIES):
            phrasing = number % len(kind.questions)
            question, answer = kind.words(fact, phrasing)
            phrasings.add(phrasing)
            before = answer.split("<pose>")[:-1]
            assert len(before) == len(fact.objects)
            for text, item in zip(before, fact.objects, strict=True):
                assert text.rstrip().endswith(item.category)
            assert "<pose>" not in question and question[-1] in "?." and answer[-1] == "."
            assert "{" not in question + answer and "  " not in question + answer
            if fact.places:
                assert all(
                    f"{place} {item.category}" in answer for place, item in zip(fact.places, fact.objects, strict=True)
                )
    assert len(phrasings) >= 3


def test_every_closed_answer_says_its_label():
    rng = np.random.default_rng(6)
    for _ in range(300):
        record = random_record(rng)
        for kind in KINDS:
            for fact in kind.facts(record, CATEGORIES) if kind.choices else ():
                assert fact.label in kind.choices
                assert fact.label in kind.words(fact, 0)[1].lower()


def test_names_of_kinds_are_their_own():
    assert len({kind.name for kind in KINDS}) == len(KINDS) == 15
    texts = [text for kind in KINDS for text in kind.questions]
    assert len(set(texts)) == len(texts)
