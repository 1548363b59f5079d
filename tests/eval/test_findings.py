"""What the page's graphs are made of, counted by hand."""

import math

import numpy as np
import pytest

from eval import findings
from eval.findings import Share
from tests.eval.made_up import ANGLES, made_up_lines


def line(azimuth, said, pose_error=0.0, correct=True, **more):
    target = {"azimuth": azimuth, "elevation": 0.0, "theta": 0.0}
    return {
        "category": "car",
        "azimuth": said,
        "elevation": 0.0,
        "theta": 0.0,
        "target": target,
        "pose_error": pose_error,
        "correct": correct,
        **more,
    }


LOST = {**line(0, 0, correct=False), **dict.fromkeys(ANGLES), "pose_error": None}


def test_errors_count_half_a_turn_where_there_is_no_pose_and_another_for_the_class():
    lines = [line(0, 0, 0.5), line(0, 0, 0.5, correct=False), LOST, line(0, 0, math.nan)]
    np.testing.assert_allclose(findings.pose_errors(lines), [0.5, 0.5, math.pi, math.pi])
    np.testing.assert_allclose(findings.joint_errors(lines), [0.5, 0.5 + math.pi, 2 * math.pi, math.pi])


def test_the_share_within_a_threshold_is_the_accuracy_of_the_metric_at_every_threshold():
    errors = np.array([0.1, 0.2, 0.2, math.pi])
    thresholds = np.array([0.0, 0.1, 0.2, 0.2001, 3.0, 4.0])
    expected = [100 * np.mean(errors < threshold) for threshold in thresholds]
    np.testing.assert_allclose(findings.within(errors, thresholds), expected)


def test_half_a_turn_is_told_from_a_quarter_and_among_all_from_among_misses():
    degrees = math.radians
    lines = [
        line(0.1, degrees(185)),
        line(0.1, degrees(168)),
        line(degrees(10), degrees(350)),
        line(degrees(90), 0.0, pose_error=degrees(90)),
        line(degrees(350), degrees(172), pose_error=degrees(178)),
        line(degrees(90), degrees(90) + math.pi - degrees(21), pose_error=degrees(159)),
        LOST,
    ]
    assert findings.half_turns(lines) == (Share(3, 6), Share(1, 3))
    assert findings.half_turns([]) == (Share(0, 0), Share(0, 0)) and Share(0, 0).percent == 0


def test_sides_are_counted_by_octant_the_true_ones_in_rows():
    counts = findings.side_confusion([line(0.1, math.pi), line(-0.1, 0.2), line(math.pi / 2, math.pi / 4)])
    expected = np.zeros((8, 8), int)
    expected[0, 4] = expected[0, 0] = expected[2, 1] = 1
    np.testing.assert_array_equal(counts, expected)


def test_azimuth_errors_are_signed_and_go_the_short_way_round():
    errors = findings.azimuth_errors([line(0.1, 6.2), line(6.2, 0.1), line(1.0, 1.5)])
    np.testing.assert_allclose(errors, [6.1 - 2 * math.pi, 2 * math.pi - 6.1, 0.5])


def test_alternatives_are_counted_and_those_that_would_have_been_right():
    back = {"azimuth": math.pi, "elevation": 0.0, "theta": 0.0, "probability": 0.3}
    lines = [
        line(math.pi, 0.0, math.pi, alternative=back),
        line(0.0, math.pi, math.pi, alternative=back),
        line(0.0, 0.0, alternative=back),
        line(0.0, 1.0, 1.0, alternative=None),
        line(0.0, 1.0, 1.0),
    ]
    assert findings.alternatives(lines) == (Share(3, 5), Share(1, 4))


def test_what_lines_do_not_tell_is_not_counted():
    confidence, hits = findings.confidences([line(0, 0, confidence=0.7), line(0, 0, 2.0, confidence=0.2), LOST])
    assert confidence.tolist() == [0.7, 0.2] and hits.tolist() == [True, False]
    both = [line(0, 0, joint_confidence=0.6), line(0, 0, correct=False, joint_confidence=0.5), LOST]
    confidence, hits = findings.confidences(both, joint=True)
    assert confidence.tolist() == [0.6, 0.5] and hits.tolist() == [True, False]
    expected, real = findings.expected_errors([line(0, 0, 0.3, expected_error=0.5), LOST])
    assert expected.tolist() == [0.5] and real.tolist() == [0.3]
    assert len(findings.readable([LOST, line(0, 0), line(0, math.nan)])) == 1


@pytest.mark.parametrize(("hits", "count"), [(0, 20), (20, 20), (17, 20), (450, 500)])
def test_the_interval_holds_the_shares_under_which_so_many_hits_are_no_surprise(hits, count):
    low, high = findings.wilson(hits / count, count)
    assert 0 <= low <= hits / count <= high <= 1
    for share in (low, high):
        if 0 < share < 1:  # the interval ends where the hits are 1.96 standard deviations from what is expected
            assert abs(hits - count * share) / math.sqrt(count * share * (1 - share)) == pytest.approx(1.96)


def test_made_up_lines_hold_all_kinds():
    turned, missed = findings.half_turns(made_up_lines(200))
    assert turned.percent > 10 and missed.percent > 90
