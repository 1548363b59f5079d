"""Bootstrap intervals against resampling the obvious way, and against what statistics says they must be."""

import math
import time

import numpy as np
import pytest

from eval import intervals
from eval.intervals import accuracy, bootstrap, figures_of, mean_degrees, median_degrees
from llava_pose.metrics import joint_metrics


def drawn(count: int, pictures: np.ndarray) -> list[np.ndarray]:
    """The objects of each of the first resamples, one index for each time it is in one."""
    [counts] = list(intervals._resamples(pictures, count, seed=0))
    return [np.repeat(np.arange(len(pictures)), row.astype(int)) for row in counts]


@pytest.mark.parametrize("number", [1, 2, 7, 30])
@pytest.mark.parametrize("shared", [False, True])
def test_figures_of_a_resample_are_those_of_its_objects(number: int, shared: bool) -> None:
    rng = np.random.default_rng(number)
    errors = np.round(rng.uniform(0, 2 * math.pi, number), 1)  # some are equal
    correct = rng.random(number) < 0.5
    pictures = np.arange(number) // 3 if shared else np.arange(number)
    found = bootstrap(figures_of(errors, correct), pictures, resamples=20)
    for index, objects in enumerate(drawn(20, pictures)):
        some, degrees = errors[objects], np.degrees(errors[objects])
        assert found["acc_pi_6"][index] == pytest.approx(100 * np.mean(some < math.pi / 6))
        assert found["acc_pi_18"][index] == pytest.approx(100 * np.mean(some < math.pi / 18))
        assert found["median_error_deg"][index] == pytest.approx(np.median(degrees))
        assert found["mean_error_deg"][index] == pytest.approx(np.mean(degrees))
        assert found["classification_accuracy"][index] == pytest.approx(100 * np.mean(correct[objects]))


def test_objects_of_a_picture_are_drawn_together() -> None:
    pictures = ["a", "b", "a", "c", "b", "a"]
    for objects in drawn(30, np.array(pictures)):
        times = np.bincount(objects, minlength=6)
        assert times[0] == times[2] == times[5] and times[1] == times[4]
        assert times[0] + times[1] + times[3] == 3


def test_figures_of_all_objects_are_those_of_the_table() -> None:
    rng = np.random.default_rng(0)
    errors, correct = rng.uniform(0, math.pi, 101), rng.random(101) < 0.7
    table = joint_metrics(errors, correct, ["car"] * 101)["average"]
    for name, figure in figures_of(errors + np.where(correct, 0, math.pi), correct).items():
        assert figure(np.ones((1, 101)))[0] == pytest.approx(table[name])


def test_an_interval_of_an_accuracy_is_as_wide_as_its_standard_error_says() -> None:
    hits = np.arange(4000) % 10 < 3
    found = intervals.intervals({"acc": accuracy(hits)}, np.arange(4000), resamples=4000)["acc"]
    margin = 1.96 * 100 * math.sqrt(0.3 * 0.7 / 4000)
    assert found == pytest.approx([30 - margin, 30 + margin], abs=0.12)


def test_an_interval_holds_the_truth_about_as_often_as_it_says() -> None:
    rng, held = np.random.default_rng(0), 0
    for trial in range(200):
        errors = rng.exponential(1.0, 80)
        figures = {"mean": mean_degrees(errors), "median": median_degrees(errors)}
        found = intervals.intervals(figures, np.arange(80), resamples=300, seed=trial)
        held += found["mean"][0] <= math.degrees(1.0) <= found["mean"][1]
        held += found["median"][0] <= math.degrees(math.log(2)) <= found["median"][1]
    assert 0.89 <= held / 400 <= 0.98


def test_the_same_seed_gives_the_same_interval_and_another_another() -> None:
    figures = {"mean": mean_degrees(np.random.default_rng(0).random(50))}
    first, again = (intervals.intervals(figures, np.arange(50)) for _ in range(2))
    assert first == again != intervals.intervals(figures, np.arange(50), seed=1)


def test_a_thousand_resamples_of_forty_thousand_objects_take_seconds() -> None:
    rng = np.random.default_rng(0)
    started = time.process_time()
    intervals.intervals(figures_of(rng.exponential(0.5, 40_000), rng.random(40_000) < 0.9), np.arange(40_000))
    assert time.process_time() - started < 20
