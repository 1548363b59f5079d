"""Fitted probabilities and errors against data whose truth is known, and the file they are kept in."""

import json
import math

import numpy as np
import pytest

from llava_pose import calibration
from llava_pose.calibration import Calibration, Line, Outcomes, Powers
from llava_pose.errors import UserError

GOOD = Calibration(40, Line(1.5, -0.25), Powers(0.75, 0.25, 0.5), Line(1.0, 0.0), 1.25, 640, "data/val", "val")


def sigmoid(value):
    return 1 / (1 + np.exp(-value))


def overconfident(count, seed=0):
    """A model whose log-odds are twice what they should be, in all it says, and which expects half its errors."""
    rng = np.random.default_rng(seed)
    odds = rng.normal(1.0, 1.0, count)
    truly = sigmoid(odds)
    hits = rng.random(count) < truly
    risk = rng.uniform(0.05, 0.4, count)
    errors = np.where(hits, rng.uniform(0, math.pi / 6, count), rng.uniform(math.pi / 6, math.pi, count))
    scores = rng.normal(0, 3, (count, 5))
    shares = np.exp(scores / 2) / np.exp(scores / 2).sum(-1, keepdims=True)
    names = (rng.random(count)[:, None] > shares.cumsum(-1)).sum(-1)
    return Outcomes(mass=sigmoid(2 * odds), risk=risk, errors=errors, name_scores=scores, names=names)


def test_a_model_that_says_too_much_is_taken_at_its_worth():
    train, held_out = overconfident(4000), overconfident(4000, seed=1)
    found = calibration.fit(train, 40, "there", "val")
    assert found.pose.slope == pytest.approx(0.5, abs=0.05)
    assert found.pose.intercept == pytest.approx(0.0, abs=0.1)
    assert found.class_temperature == pytest.approx(2.0, abs=0.15)
    before = calibration.expected_calibration_error(held_out.mass, held_out.hits)
    after = calibration.expected_calibration_error(found.hit(held_out.mass), held_out.hits)
    assert before > 0.08 and after < 0.03
    assert (found.objects, found.data, found.split, found.num_bins) == (4000, "there", "val", 40)


def test_class_and_pose_together_are_calibrated_where_they_fail_together():
    train, held_out = overconfident(6000), overconfident(6000, seed=3)

    def wrong_together(outcomes):
        # The class is right exactly where the pose is: the product of the two probabilities is far too low.
        best = outcomes.name_scores.argmax(-1)
        return Outcomes(**{**vars(outcomes), "names": np.where(outcomes.hits, best, (best + 1) % 5)})

    train, held_out = wrong_together(train), wrong_together(held_out)
    found = calibration.fit(train, 40, "", "val")
    hit, named = found.hit(held_out.mass), held_out.class_probability(found.class_temperature)
    both = held_out.hits & held_out.named
    assert calibration.expected_calibration_error(hit * named, both) > 0.1
    assert calibration.expected_calibration_error(found.hit_and_class(hit, named), both) < 0.05


def test_the_expected_error_finds_its_powers():
    rng = np.random.default_rng(0)
    risk, mass = rng.uniform(0.05, 0.6, 20000), rng.uniform(0.2, 0.99, 20000)
    errors = rng.exponential(0.4 * risk**1.5 * (1 - mass) ** 0.5)
    powers = calibration.fit_error(risk, mass, errors)
    assert powers.risk == pytest.approx(1.5, abs=0.05) and powers.doubt == pytest.approx(0.5, abs=0.05)
    assert math.exp(powers.intercept) == pytest.approx(0.4, rel=0.05)
    # And the mean of what is predicted is the mean of what happened.
    found = Calibration(40, Line(1, 0), powers, Line(1, 0), 1.0, 1, "", "")
    assert found.error(risk, mass).mean() == pytest.approx(errors.mean(), rel=0.02)
    assert found.error([1e9, 0.0], [0.0, 1.0]) == pytest.approx([math.pi, 0.0], abs=1e-4)


def test_powers_that_change_nothing_change_nothing():
    found = Calibration(40, Line(1, 0), Powers(1, 0, 0), Line(1, 0), 1.0, 1, "", "")
    np.testing.assert_allclose(found.error([0.1, 2.0], [0.3, 1.0]), [0.1, 2.0])
    np.testing.assert_allclose(found.hit([0.1, 0.7]), [0.1, 0.7])


def test_a_temperature_is_found_from_either_side():
    rng = np.random.default_rng(0)
    scores = rng.normal(0, 2, (8000, 6))
    for temperature in (0.5, 1.0, 3.0):
        shares = np.exp(scores / temperature)
        shares /= shares.sum(-1, keepdims=True)
        names = (rng.random(8000)[:, None] > shares.cumsum(-1)).sum(-1)
        assert calibration.fit_temperature(scores, names) == pytest.approx(temperature, rel=0.08)


def test_a_temperature_is_bounded_where_every_name_is_right_or_all_are_alike():
    scores = np.eye(3)[[0, 1, 2] * 5]
    assert 0.04 < calibration.fit_temperature(scores, scores.argmax(-1)) < 0.1
    assert math.isfinite(calibration.fit_temperature(np.zeros((9, 1)), np.zeros(9, dtype=int)))


def test_where_all_were_right_the_answer_is_sure_and_finite():
    line = calibration.fit_probability(np.linspace(0.6, 0.9, 200), np.ones(200, dtype=bool))
    found = Calibration(40, line, Powers(1, 0, 0), Line(1, 0), 1.0, 200, "", "")
    assert math.isfinite(line.slope) and math.isfinite(line.intercept)
    assert 0.9 < found.hit([0.6])[0] <= 1


def test_confidence_that_goes_the_wrong_way_becomes_the_same_for_all():
    rng = np.random.default_rng(0)
    mass = rng.uniform(0, 1, 3000)
    happened = rng.random(3000) < 0.7 * (1 - mass)
    found = Calibration(40, calibration.fit_probability(mass, happened), Powers(1, 0, 0), Line(1, 0), 1.0, 1, "", "")
    assert found.pose.slope == 0
    np.testing.assert_allclose(found.hit(mass), happened.mean(), atol=0.01)


def test_poses_that_are_not_finite_count_as_wrong_by_half_a_turn():
    outcomes = overconfident(100)
    outcomes.errors[:60] = np.nan
    assert not outcomes.hits[:60].any()
    found = calibration.fit(outcomes, 40, "", "val")
    assert found.error([0.2], [0.7])[0] > 1.0


def test_calibration_error_by_hand():
    # Four objects in two bins of two: |0.15 − 0.5| and |0.85 − 1|, each half of the mass.
    predicted, observed = [0.9, 0.1, 0.2, 0.8], [1, 0, 1, 1]
    assert calibration.reliability(predicted, observed, bins=2) == [
        {"predicted": pytest.approx(0.15), "observed": 0.5, "count": 2},
        {"predicted": pytest.approx(0.85), "observed": 1.0, "count": 2},
    ]
    assert calibration.expected_calibration_error(predicted, observed, bins=2) == pytest.approx(0.25)


@pytest.mark.parametrize("count, bins", [(1, 15), (7, 3), (100, 15)])
def test_reliability_bins_hold_as_many_objects_each_and_every_object_once(count, bins):
    rng = np.random.default_rng(0)
    table = calibration.reliability(rng.random(count), rng.random(count) < 0.5, bins)
    counts = [row["count"] for row in table]
    assert sum(counts) == count and max(counts) - min(counts) <= 1 and len(table) == min(bins, count)
    assert [row["predicted"] for row in table] == sorted(row["predicted"] for row in table)


def test_nothing_to_judge_has_no_calibration_error():
    assert calibration.reliability([], []) == []
    assert calibration.expected_calibration_error([], []) == 0


def test_too_few_objects_are_refused():
    with pytest.raises(UserError, match=r"some/data: 49 objects to fit to; calibration needs at least 50"):
        calibration.fit(overconfident(49), 40, "some/data", "val")


def test_a_file_gives_back_what_was_written(tmp_path):
    path = tmp_path / "calibration.json"
    path.write_text(calibration.to_text(GOOD), encoding="utf-8")
    assert calibration.read(path) == GOOD


def changed(**fields):
    values = json.loads(calibration.to_text(GOOD))
    values.update(fields)
    return json.dumps({name: value for name, value in values.items() if value != "left out"})


@pytest.mark.parametrize(
    "text, message",
    [
        ("", "cannot be read"),
        ("[]", "holds list"),
        (changed(split="left out"), "expected"),
        (changed(more=1), "expected"),
        (changed(format="another"), "format"),
        (changed(class_temperature=0), "class_temperature: 0 "),
        (changed(class_temperature=math.nan), "class_temperature: nan"),
        (changed(class_temperature="1"), "class_temperature: '1'"),
        (changed(class_temperature=True), "class_temperature: True"),
        (changed(num_bins=40.0), "num_bins: 40.0"),
        (changed(objects=-1), "objects: -1"),
        (changed(data=None), "data: None"),
        (changed(pose=[1, 2]), r"pose: \[1, 2\]"),
        (changed(pose={"slope": 1}), "pose: "),
        (changed(pose={"slope": -1.0, "intercept": 0}), "pose.slope: -1.0"),
        (changed(pose_error={"slope": 1.0, "intercept": 0.0}), "pose_error: "),
        (changed(pose_error={"risk": 1.0, "doubt": 0.0, "intercept": math.inf}), "pose_error.intercept: inf"),
    ],
)
def test_a_file_that_cannot_be_right_is_refused_by_field_and_value(tmp_path, text, message):
    path = tmp_path / "calibration.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=message) as refused:
        calibration.read(path)
    assert str(path) in str(refused.value)
