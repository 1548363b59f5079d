"""Questions drawn in training: their answers come out balanced whatever the data's poses are."""

import math
import pickle
from collections import Counter, defaultdict

import numpy as np
import pytest

from llava_pose.census import Census, draw
from llava_pose.questions import KINDS
from tests.random_records import CATEGORIES, posed, random_record, record_of

PI = math.pi


def usual_pose(rng):
    """As people take pictures: mostly from the front corners, from slightly above, upright."""
    azimuth = rng.choice([0.0, 0.6, -0.6, PI], p=[0.2, 0.35, 0.35, 0.1]) + rng.normal(0, 0.5)
    return azimuth % (2 * PI), float(np.clip(rng.normal(0.15, 0.2), -1.5, 1.5)), float(rng.normal(0, 0.12))


def usual_record(rng):
    """One to three objects with such poses; a vehicle three times as often as anything else."""
    count = int(rng.choice([1, 2, 3]))
    names = rng.choice(CATEGORIES, size=count, p=[0.4, 0.2, 0.15, 0.15, 0.1])
    columns = np.linspace(70, 330, count)
    items = [
        posed(index, str(name), usual_pose(rng), (float(x), 150.0), float(rng.uniform(2, 9)))
        for index, (name, x) in enumerate(zip(names, columns, strict=True))
    ]
    return record_of(*items)


def drawn(census, count=2500):
    """The facts asked for by kind, over as many records."""
    asked = defaultdict(list)
    for seed in range(count):
        rng = np.random.default_rng([1, seed])
        found = draw(usual_record(rng), rng, census)
        if found is not None:
            asked[found[0].name].append(found[1])
    return asked


@pytest.fixture(scope="module")
def census():
    rng = np.random.default_rng(0)
    return Census.of(usual_record(rng) for _ in range(1500))


@pytest.fixture(scope="module")
def asked(census):
    return drawn(census)


def unevenness(facts, labels):
    """The most frequent label over the mean of all."""
    counts = Counter(fact.label for fact in facts)
    return max(counts.values()) * len(labels) / counts.total()


def test_labels_are_asked_evenly_though_the_poses_are_not_even(asked):
    without = drawn(Census())
    for name in ("facing", "side", "turn", "height", "roll", "same_direction", "face_to_face", "angle_between"):
        labels = {fact.label for fact in asked[name]}
        even, as_met = unevenness(asked[name], labels), unevenness(without[name], labels)
        assert even < 1.75 and even < as_met - 0.3, (name, Counter(fact.label for fact in asked[name]))
    for name in ("front_in_picture", "camera_side", "arrow", "nearer", "presence"):
        assert unevenness(asked[name], "ab") < 1.25, Counter(fact.label for fact in asked[name])


def test_the_kinds_there_were_first_stay_a_good_part_though_their_rarest_labels_hold_them_back(asked):
    first = sum(len(asked[name]) for name in ("facing", "side", "turn"))
    assert 0.25 < first / sum(map(len, asked.values())) < 0.6


def test_things_of_each_category_are_as_often_absent_as_present(asked):
    answers = defaultdict(Counter)
    for fact in asked["presence"]:
        answers[fact.things][fact.label] += 1
    assert len(answers) == len(CATEGORIES)
    for things, labels in answers.items():
        assert 0.35 < labels["no"] / labels.total() < 0.65, (things, labels)


def test_the_census_weighs_every_case_it_met(census):
    assert set(census.categories) == set(CATEGORIES)
    assert {name for name, _, _ in census.weights} == {kind.name for kind in KINDS}
    assert all(weight > 0 for weight in census.weights.values())


def test_what_has_one_answer_in_all_the_data_is_not_asked():
    cars = [record_of(posed(pose=(azimuth, 0.25, 0.0))) for azimuth in (0.0, PI)]
    census = Census.of(cars * 10)
    asked = {name for (name, _, _), weight in census.weights.items() if weight}
    assert asked == {"facing", "side", "turn", "arrow", "sides_shown", "names"}
    drawn_kinds = {draw(cars[0], np.random.default_rng(seed), census)[0].name for seed in range(100)}
    assert drawn_kinds == asked


def test_a_census_of_nothing_leaves_the_kinds_their_shares():
    assert Census.of([]) == Census()
    assert Census.of([record_of(posed(status="status_bad"))]) == Census(("car",))


def test_nothing_is_asked_where_nothing_has_two_answers():
    record = record_of(posed(pose=(PI / 2, 1.5, 0.0)), posed(1, "bus", status="status_bad"))
    census = Census.of([record] * 3)
    assert draw(record, np.random.default_rng(0), Census(("car", "bus"))) is not None
    assert set(census.weights.values()) == {0.0} and draw(record, np.random.default_rng(0), census) is None


def test_a_census_reaches_the_processes_that_prepare_rows(census):
    assert pickle.loads(pickle.dumps(census)) == census


def test_a_draw_is_a_function_of_the_generator(census):
    for seed in range(30):
        record = random_record(np.random.default_rng(seed))
        first, second = (draw(record, np.random.default_rng(seed), census) for _ in range(2))
        assert first == second


def test_nothing_is_asked_of_what_cannot_be_spoken_of(census):
    bad = record_of(posed(status="status_bad"))
    for seed in range(20):
        kind, fact = draw(bad, np.random.default_rng(seed), census)
        assert (kind.name, fact.label, fact.objects) == ("presence", "no", ())
    assert draw(bad, np.random.default_rng(0), Census(("bus",))) is None


def test_without_a_census_present_and_absent_things_are_drawn_alike():
    record = record_of(posed(pose=(1.0, 0.25, 0.0)))
    found = [draw(record, np.random.default_rng(seed), Census()) for seed in range(1500)]
    labels = Counter(fact.label for kind, fact in found if kind.name == "presence")
    assert labels.total() > 80 and 0.35 < labels["yes"] / labels.total() < 0.65
