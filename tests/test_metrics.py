"""The joint metric to the letter, on tables worked out by hand."""

import math

import numpy as np
import pytest

from llava_pose.errors import UserError
from llava_pose.metrics import average_distance, joint_metrics, pose_only_metrics

PI = math.pi


def degrees(*values):
    return np.radians(values)


def test_a_table_by_hand():
    errors = degrees(5, 20, 40, 3, 100)
    correct = [True, True, True, False, False]
    categories = ["car", "car", "chair", "chair", "car"]
    result = joint_metrics(errors, correct, categories)
    # With 180 added for the wrong classes: 5, 20, 40, 183, 280.
    assert result["average"] == {
        "acc_pi_6": pytest.approx(40.0),
        "acc_pi_18": pytest.approx(20.0),
        "median_error_deg": pytest.approx(40.0),
        "mean_error_deg": pytest.approx((5 + 20 + 40 + 183 + 280) / 5),
        "classification_accuracy": pytest.approx(60.0),
        "count": 5,
    }
    car, chair = result["categories"]["car"], result["categories"]["chair"]
    assert (car["count"], chair["count"]) == (3, 2)
    assert car["acc_pi_6"] == pytest.approx(200 / 3)
    assert car["median_error_deg"] == pytest.approx(20.0)
    assert car["mean_error_deg"] == pytest.approx((5 + 20 + 280) / 3)
    assert chair["median_error_deg"] == pytest.approx((40 + 183) / 2)
    assert chair["acc_pi_18"] == 0.0


def test_pose_alone_adds_nothing_for_a_wrong_class():
    result = pose_only_metrics(degrees(5, 20, 3), [True, False, False], ["car"] * 3)["average"]
    assert result["acc_pi_18"] == pytest.approx(200 / 3)
    assert result["mean_error_deg"] == pytest.approx(28 / 3)
    assert result["classification_accuracy"] == pytest.approx(100 / 3)


@pytest.mark.parametrize("threshold, name", [(PI / 6, "acc_pi_6"), (PI / 18, "acc_pi_18")])
def test_an_error_of_exactly_the_threshold_is_not_below_it(threshold, name):
    def accuracy(error):
        return joint_metrics([error], [True], ["car"])["average"][name]

    assert accuracy(threshold) == 0.0
    assert accuracy(np.nextafter(threshold, 0)) == 100.0


@pytest.mark.parametrize("function, expected", [(joint_metrics, 360.0), (pose_only_metrics, 180.0)])
def test_the_largest_error_of_a_wrong_class(function, expected):
    table = function([PI], [False], ["car"])["average"]
    assert table["median_error_deg"] == table["mean_error_deg"] == pytest.approx(expected)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_an_error_that_is_not_finite_counts_as_half_a_turn(bad):
    right = joint_metrics([bad, 0.0], [True, True], ["car", "car"])["average"]
    assert right["mean_error_deg"] == pytest.approx(90.0)
    assert right["acc_pi_6"] == 50.0
    wrong = joint_metrics([bad], [False], ["car"])["average"]
    assert wrong["mean_error_deg"] == pytest.approx(360.0)


def test_the_median_is_over_all_samples_and_not_a_mean_of_medians():
    errors = degrees(1, 1, 1, 1, 50, 60)
    categories = ["car"] * 4 + ["chair"] * 2
    result = joint_metrics(errors, [True] * 6, categories)
    assert result["average"]["median_error_deg"] == pytest.approx(1.0)
    assert result["average"]["acc_pi_18"] == pytest.approx(400 / 6)


def test_meta_classes_gather_their_categories_by_the_taxonomy():
    categories = ["car", "bus", "sofa", "bus"]
    result = joint_metrics(degrees(0, 30, 60, 90), [True] * 4, categories)
    by_meta = {name: table["count"] for name, table in result["meta_classes"].items()}
    assert sorted(by_meta.values()) == [1, 3]
    vehicles = next(table for table in result["meta_classes"].values() if table["count"] == 3)
    assert vehicles["mean_error_deg"] == pytest.approx(40.0)


def test_meta_classes_of_the_callers_own():
    groups = {"thing": "known", "gadget": "novel"}
    result = joint_metrics(degrees(0, 90, 60), [True] * 3, ["thing", "gadget", "gadget"], meta_classes=groups)
    assert result["meta_classes"]["known"]["mean_error_deg"] == pytest.approx(0.0)
    assert result["meta_classes"]["novel"]["mean_error_deg"] == pytest.approx(75.0)
    assert set(result["meta_classes"]) == {"known", "novel"}


def test_an_unknown_category_without_own_meta_classes_is_refused_by_name():
    with pytest.raises(UserError, match="zeppelinn"):
        joint_metrics([0.1], [True], ["zeppelinn"])


def test_tables_hold_plain_numbers_for_json():
    table = joint_metrics(np.array([0.1, 0.2], dtype=np.float32), np.array([True, False]), ["car", "bus"])["average"]
    assert {type(value) for value in table.values()} == {float, int}


def test_no_samples_are_refused():
    with pytest.raises(ValueError, match="no samples"):
        joint_metrics([], [], [])


@pytest.mark.parametrize(
    "errors, correct, categories",
    [([0.1], [True, False], ["car"]), ([0.1, 0.2], [True, True], ["car"]), ([[0.1]], [[True]], ["car"])],
)
def test_lengths_that_differ_are_refused(errors, correct, categories):
    with pytest.raises(ValueError, match="one length"):
        joint_metrics(errors, correct, categories)


@pytest.mark.parametrize("error", [-0.1, 3.2, 180.0])
def test_errors_out_of_range_such_as_degrees_are_refused(error):
    with pytest.raises(ValueError, match=r"lie in \[0, π\]"):
        joint_metrics([0.1, error], [True, True], ["car", "car"])


def test_average_distance_of_a_turned_picture_is_the_mean_chord_over_the_diagonal():
    # Points in a plane across the view, seen from the front: theta turns the picture, so each runs along a circle.
    points = np.array([[0.3, 0, 0.4], [-0.5, 0, 0.0], [0, 0, 0.2]])
    radii = 800 / 4 * np.array([0.5, 0.5, 0.2])
    found = average_distance(points, [0, 0, 0.3], [0, 0, -0.2], 4.0, 800.0, [50.0, 60.0], [10.0, 20.0, 40.0, 60.0])
    assert found == pytest.approx(np.mean(2 * math.sin(0.25) * radii) / 50)


def test_average_distance_is_batched_and_0_for_both_names_of_a_pose():
    points = np.random.default_rng(0).uniform(-0.5, 0.5, (20, 3))
    target = np.array([[0.4, 0.1, 0.0], [2.0, 0.3, 0.2], [1.0, 0.2, 0.1]])
    predicted = np.array([[0.4 + PI, PI - 0.1, PI], [2.1, 0.3, 0.2], [math.nan, 0.2, 0.1]])
    distance, viewport = np.array([3.0, 5.0, 4.0]), np.array([500.0, 900.0, 700.0])
    principal, box = np.full((3, 2), 100.0), np.array([[0.0, 0, 60, 80]] * 3)
    found = average_distance(points, predicted, target, distance, viewport, principal, box)
    assert found.shape == (3,) and found[0] < 1e-9 and math.isnan(found[2])
    alone = average_distance(points, predicted[1], target[1], 5.0, 900.0, principal[1], box[1])
    assert 0 < found[1] < 0.1 and found[1] == pytest.approx(alone)
