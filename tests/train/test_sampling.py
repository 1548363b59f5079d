"""Which row is sample n: every row once an epoch, weights and balance as they say, and nothing but numbers decides."""

import itertools
import math
from collections import Counter

import numpy as np
import pyarrow
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from train.sampling import MOST_OFTEN, WINDOW, MicroBatches, Mixture, Share, Windows, row_probabilities


def mixture(*shares, seed=0):
    return Mixture(tuple(Share(*share) for share in shares), seed)


def places(mixed, first, last):
    return [mixed.place(number) for number in range(first, last)]


def micro(process=0, processes=1, first=0, last=3, batch=48, size=4):
    return MicroBatches(first, last, batch, size, process, processes)


# The rows of a mixture


def test_every_row_of_unweighted_data_sets_is_seen_once_an_epoch_in_an_order_of_its_own():
    mixed = mixture((7,), (4,))
    every = sorted([(0, row) for row in range(7)] + [(1, row) for row in range(4)])
    epochs = [places(mixed, 11 * epoch, 11 * (epoch + 1)) for epoch in range(5)]
    assert all(sorted(epoch) == every for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 5


def test_a_sample_is_a_function_of_seed_and_number_alone():
    numbers = np.random.default_rng(0).permutation(100).tolist()
    one, two = mixture((9, 1.5), (5, 0.4)), mixture((9, 1.5), (5, 0.4))
    assert [one.place(number) for number in numbers] == [two.place(number) for number in numbers]
    other = mixture((9, 1.5), (5, 0.4), seed=1)
    assert places(one, 0, 100) != places(other, 0, 100)


@pytest.mark.parametrize("weight, epochs, times", [(1.0, 1, 1), (3.0, 1, 3), (0.5, 2, 1), (0.25, 8, 2), (1.5, 2, 3)])
def test_a_weight_is_how_often_each_row_is_seen_in_an_epoch(weight, epochs, times):
    mixed = mixture((8, weight), (10,))
    assert len(mixed) == 8 * weight + 10
    seen = Counter(row for which, row in places(mixed, 0, epochs * len(mixed)) if which == 0)
    assert seen == dict.fromkeys(range(8), times)


def test_a_row_of_a_data_set_with_a_small_weight_comes_again_only_when_all_were_seen():
    mixed = mixture((10, 0.3), (20,))
    drawn = [row for which, row in places(mixed, 0, 23 * 10) if which == 0]
    assert len(drawn) == 30
    assert all(sorted(drawn[start : start + 10]) == list(range(10)) for start in (0, 10, 20))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 30), st.floats(0.05, 5)), min_size=1, max_size=4))
def test_shares_are_kept_whatever_the_weights(shares):
    shares = [(rows, max(weight, 1 / rows)) for rows, weight in shares]
    mixed = mixture(*shares)
    whole = sum(rows * weight for rows, weight in shares)
    assert whole - 1e-5 <= len(mixed) < whole + 1
    begun = [mixed.begun(epoch) for epoch in range(6)]
    for epoch, (before, after) in enumerate(itertools.pairwise(begun)):
        parts = [last - first for first, last in zip(before, after, strict=True)]
        assert sum(parts) == len(mixed) and min(parts) >= 0
        counted = Counter(which for which, _ in places(mixed, epoch * len(mixed), (epoch + 1) * len(mixed)))
        assert [counted[which] for which in range(len(shares))] == parts
        for (rows, weight), count in zip(shares, after, strict=True):
            assert abs(count - (epoch + 1) * len(mixed) * rows * weight / whole) <= 1 + 1e-6


def test_the_data_sets_are_mixed_throughout_an_epoch():
    which = np.array([which for which, _ in places(mixture((500,), (500,)), 0, 1000)])
    assert all(35 <= part.sum() <= 65 for part in which.reshape(10, 100)), "7 standard deviations"


def test_less_than_one_row_an_epoch_is_refused():
    with pytest.raises(ValueError, match=r"weight 0.1 of 5 rows is less than one row"):
        mixture((5, 0.1), (100,))


# Balance


def objects(*rows):
    """A list array of rows of objects, each a category and an azimuth in degrees."""
    return pyarrow.array(
        [[{"category": name, "azimuth": math.radians(azimuth)} for name, azimuth in row] for row in rows],
        pyarrow.list_(pyarrow.struct({"category": pyarrow.string(), "azimuth": pyarrow.float64()})),
    )


def drawn_for(rows, balance, cell):
    """How likely each cell is to be what a row is drawn for, computed from the objects one by one."""
    probabilities = row_probabilities(objects(*rows), balance)
    found = Counter()
    per_cell = Counter(cell(*item) for row in rows for item in row)
    for row, probability in zip(rows, probabilities, strict=True):
        # A row drawn is drawn for one of its objects, by how rare each is.
        rarity = [1 / per_cell[cell(*item)] for item in row]
        for item, rare in zip(row, rarity, strict=True):
            found[cell(*item)] += probability * rare / sum(rarity)
    return found


def side(azimuth):
    return math.floor((azimuth + 22.5) / 45) % 8


CELLS = {
    "class": lambda name, azimuth: name,
    "pose": lambda name, azimuth: side(azimuth),
    "class_and_pose": lambda name, azimuth: (name, side(azimuth)),
}


@pytest.mark.parametrize("balance", list(CELLS))
def test_what_is_balanced_is_equally_likely(balance):
    rng = np.random.default_rng(3)
    # Of three kinds, the rarest a tenth of the commonest, seen mostly from the front, some with others beside them.
    rows = [
        [
            (str(rng.choice(["car", "sofa", "boat"], p=[0.6, 0.32, 0.08])), float(rng.normal(0, 70) % 360))
            for _ in range(1 + rng.integers(0, 3) // 2)
        ]
        for _ in range(2000)
    ]
    found = drawn_for(rows, balance, CELLS[balance])
    assert len(found) == {"class": 3, "pose": 8, "class_and_pose": 24}[balance]
    for probability in found.values():
        # Cells so rare that the limit holds them back are fewer than the others.
        assert probability <= 1 / len(found) * 1.2
    if balance != "class_and_pose":
        assert np.allclose(list(found.values()), 1 / len(found))


def test_balanced_samples_have_the_counts_that_their_probabilities_say():
    rows = [[("car", 10.0 * number)] for number in range(80)] + [[("sofa", 0.0)]] * 20
    probabilities = row_probabilities(objects(*rows), "class")
    mixed = mixture((100, 1.0, probabilities))
    for epoch in range(3):
        counted = Counter(row for _, row in places(mixed, 100 * epoch, 100 * (epoch + 1)))
        assert sum(counted[row] for row in range(80)) == pytest.approx(50, abs=1)
        for row, probability in enumerate(probabilities):
            assert abs(counted[row] - 100 * probability) < 1
    assert places(mixed, 0, 100) != places(mixed, 100, 200)


def test_the_only_row_of_a_rare_category_is_not_learnt_by_heart():
    rows = [[("car", 0.0)]] * 600 + [[("sofa", 0.0)]] * 399 + [[("boat", 0.0)]]
    probabilities = row_probabilities(objects(*rows), "class")
    assert probabilities.sum() == pytest.approx(1)
    assert probabilities[-1] == probabilities.max() == pytest.approx(MOST_OFTEN / 1000)
    # What it may not have the others share as they share the rest.
    assert probabilities[:600].sum() == pytest.approx(probabilities[600:999].sum()) == pytest.approx(0.495)


def test_the_limit_holds_where_sharing_the_rest_lifts_others_over_it():
    rows = [[("car", 0.0)]] * 980 + [[("sofa", 0.0)]] * 19 + [[("boat", 0.0)]]
    probabilities = row_probabilities(objects(*rows), "class")
    assert probabilities.sum() == pytest.approx(1)
    assert probabilities.max() <= MOST_OFTEN / 1000 * (1 + 1e-9)
    assert probabilities[980] == probabilities[-1] == pytest.approx(MOST_OFTEN / 1000)


def test_the_sides_are_centred_on_the_front_and_a_mirrored_set_is_as_balanced():
    azimuths = [0, 20, -20, 24, 90, 110, 180, 200, 340]
    probabilities = row_probabilities(objects(*[[("car", azimuth)] for azimuth in azimuths]), "pose")
    mirrored = row_probabilities(objects(*[[("car", -azimuth)] for azimuth in azimuths]), "pose")
    assert np.allclose(probabilities, mirrored)
    front = [index for index, azimuth in enumerate(azimuths) if azimuth in (0, 20, -20, 340)]
    assert np.allclose(probabilities[front], 1 / 4 / 4), "four sides seen, of which the front four times"


def test_a_pose_that_is_not_known_is_a_side_of_its_own():
    probabilities = row_probabilities(objects([("car", 0.0)], [("car", math.nan)], [("car", math.nan)]), "pose")
    assert np.allclose(probabilities, [1 / 2, 1 / 4, 1 / 4])


def test_without_balancing_there_are_no_probabilities():
    assert row_probabilities(objects([("car", 0.0)]), "none") is None


# The samples of a step


def lengths(number):
    return float(np.random.default_rng([9, number]).integers(20, 600))


def test_windows_hold_each_draw_once_and_batches_of_like_length():
    windows = Windows(8, seed=0, length=lengths)
    size = 8 * WINDOW
    for window in (0, 3):
        drawn = [windows.draw(number) for number in range(window * size, (window + 1) * size)]
        assert sorted(drawn) == list(range(window * size, (window + 1) * size))
        batches = np.array([lengths(draw) for draw in drawn]).reshape(WINDOW, 8)
        ordered = batches[np.argsort(batches[:, 0])]
        assert (ordered[:-1].max(1) <= ordered[1:].min(1)).all(), "no batch reaches into another's lengths"
        assert not np.array_equal(ordered, batches), "but they do not come by length"


def test_the_order_in_a_window_is_a_function_of_seed_and_number_alone():
    one, two = Windows(4, 0, lengths), Windows(4, 0, lengths)
    numbers = np.random.default_rng(0).permutation(4 * WINDOW * 3).tolist()
    assert [one.draw(number) for number in numbers] == [two.draw(number) for number in numbers]
    other = Windows(4, 1, lengths)
    assert [one.draw(number) for number in sorted(numbers)] != [other.draw(number) for number in sorted(numbers)]


@pytest.mark.parametrize("processes", [1, 2, 3])
@pytest.mark.parametrize("size", [1, 2, 4, 8])
def test_every_split_of_a_step_takes_the_same_samples_once(processes, size):
    taken = [list(micro(process, processes, size=size)) for process in range(processes)]
    accumulation = 48 // (processes * size)
    assert {len(batches) for batches in taken} == {3 * accumulation} == {len(micro(0, processes, size=size))}
    for step in range(3):
        numbers = [n for batches in taken for group in batches[step * accumulation :][:accumulation] for n in group]
        assert sorted(numbers) == list(range(48 * step, 48 * (step + 1)))
    assert {len(group) for batches in taken for group in batches} == {size}


def test_a_run_that_starts_later_takes_what_is_left():
    assert list(micro(1, 2, first=2)) == list(micro(1, 2))[-micro(1, 2).accumulation :]
    assert list(micro(first=3)) == []
