"""Facts against where the rotation really sends an object's front, left and up; and that mirrors, borders, objects not
to be used and ambiguous names are kept to."""

import dataclasses
import math
from collections import Counter

import numpy as np
import pytest

from llava_pose import taxonomy
from llava_pose.facts import (
    FACE_TO_FACE,
    MARGIN,
    NEARER_RATIO,
    SAME_DIRECTION,
    TOLERANCE_DEGREES,
    alone,
    pairs,
    twins,
    usable,
)
from llava_pose.geometry import project, rotation_matrix
from llava_pose.questions import KINDS
from tests.random_records import CATEGORIES, posed, random_pose, random_record, record_of
from tests.test_relations import photographed

PI = math.pi
KIND = {kind.name: kind for kind in KINDS}
OF_ONE = ("facing", "side", "turn", "sides_shown", "height", "roll", "front_in_picture", "camera_side", "arrow")
AXES = {"front": (0, -1, 0), "back": (0, 1, 0), "left": (1, 0, 0), "right": (-1, 0, 0), "top": (0, 0, 1)}
AXES["bottom"] = (0, 0, -1)
MIRROR = np.diag([-1.0, 1.0, 1.0])


def facts_of(name, record, categories=CATEGORIES):
    return list(KIND[name].facts(record, categories))


def labels_of(name, pose):
    return [fact.label for fact in facts_of(name, record_of(posed(pose=tuple(pose))))]


def eighth(first, second):
    """The nearest eighth of a circle of a direction, counted from the first axis towards the second."""
    return round(math.atan2(second, first) / (PI / 4)) % 8


def compound(first, second, names):
    """The words of the eighth of a direction, from the names of both axes' ends (+first, −first, +second, −second)."""
    ahead, behind, left, right = names
    ring = ((ahead,), (ahead, left), (left,), (behind, left), (behind,), (behind, right), (right,), (ahead, right))
    return ring[eighth(first, second)]


def truth(name, rotation, fact):
    """What the kind's label must be, computed from the world-to-camera rotation (3, 3) alone."""
    camera = {side: rotation @ np.array(axis, dtype=float) for side, axis in AXES.items()}
    to_camera = rotation.T @ np.array([0.0, 0.0, 1.0])  # in the object's frame: x its own left, −y its front, z up
    heights = {side: float(np.dot(to_camera, axis)) for side, axis in AXES.items()}
    if name in ("facing", "front_in_picture"):
        right, _, towards = camera["front"]
        words = compound(towards, -right, ("towards the camera", "away from the camera", "to the left", "to the right"))
        if name == "front_in_picture":
            return next(word for word in words if word.startswith("to the"))
        return " and ".join(f"{word} of the picture" if word.startswith("to the") else word for word in words)
    if name in ("side", "camera_side"):
        words = compound(heights["front"], heights["left"], ("front", "back", "left", "right"))
        return "-".join(words) if name == "side" else f"on its own {words[-1]} side"
    if name == "sides_shown":
        spoken = {"left": "its own left side", "right": "its own right side"}
        shown = [spoken.get(side, f"its {side}") for side, height in heights.items() if math.asin(height) > PI / 18]
        return " and ".join([", ".join(shown[:-1]), shown[-1]] if len(shown) > 1 else shown)
    if name == "height":
        elevation = math.degrees(math.asin(heights["top"]))
        bands = ((5, "slightly "), (20, ""), (60, "almost straight "))
        near = [word for least, word in bands if abs(elevation) >= least]
        return f"from {near[-1]}{'above' if elevation > 0 else 'below'}" if near else "at its own height"
    if name == "roll":
        right, up, _ = camera["top"]
        lean = math.degrees(math.atan2(-right, up))  # counterclockwise from the picture's up
        if abs(lean) < 15:
            return "upright"
        return "upside down" if abs(lean) > 135 else f"tilted {'counter' if lean > 0 else ''}clockwise"
    if name == "arrow":
        picture, own, true = fact.arrow
        points = camera[own][0] * (1 if picture == "right" else -1)
        assert camera[true][0] * (1 if picture == "right" else -1) > math.sqrt(0.5)
        return "yes" if points > 0 else "no"
    raise AssertionError(name)


def matches_turn(fact, rotation):
    """After the turn about its own up axis the object's front points at the camera, as far as it can."""
    turn = math.radians(fact.degrees)
    turned = rotation @ np.array([math.sin(turn), -math.cos(turn), 0.0])
    # In the plane of front and up, the camera has nothing to the object's left or right.
    sideways = rotation @ np.array([math.cos(turn), math.sin(turn), 0.0])
    return turned[2] > 0 and abs(sideways[2]) < 1e-9


@pytest.mark.parametrize("name", OF_ONE)
def test_facts_about_one_object_are_those_of_its_rotation(name):
    rng = np.random.default_rng(1)
    told = Counter()
    for _ in range(1500):
        pose = random_pose(rng)
        for fact in facts_of(name, record_of(posed(pose=pose))):
            rotation = rotation_matrix(pose)
            if name == "turn":
                assert matches_turn(fact, rotation)
                assert fact.label == truth("side", rotation, fact)
            else:
                assert fact.label == truth(name, rotation, fact), np.degrees(pose)
            told[fact.label] += 1
    # Every answer comes up, and most objects can be asked about.
    assert set(KIND[name].choices) - set(told) <= {"from almost straight below", "its bottom"}
    assert sum(told.values()) > 500


def test_the_front_and_the_own_left_land_where_projection_puts_them():
    rng = np.random.default_rng(2)
    for _ in range(300):
        pose = random_pose(rng)
        ends = {"front": [0, -0.1, 0], "left": [0.1, 0, 0]}
        columns = dict(zip(ends, project(list(ends.values()), pose, 5.0, 900.0, [0.0, 0.0])[:, 0], strict=True))
        record = record_of(posed(pose=pose))
        for fact in facts_of("front_in_picture", record):
            assert fact.label == ("to the left" if columns["front"] < 0 else "to the right")
        for fact in facts_of("arrow", record):
            assert (fact.label == "yes") == ((columns["left"] < 0) == (fact.arrow[0] == fact.arrow[1]))


@pytest.mark.parametrize(
    "name, axis, borders",
    [
        ("facing", 0, [22.5, 67.5, 112.5, 157.5, 202.5, 337.5]),
        ("side", 0, [22.5, 67.5, 112.5, 157.5, 202.5, 337.5]),
        ("front_in_picture", 0, [22.5, 157.5, 202.5, 337.5]),
        ("camera_side", 0, [22.5, 157.5, 202.5, 337.5]),
        ("arrow", 0, [45, 135, 225, 315]),
        ("sides_shown", 0, [10, 80, 100, 190, 350]),
        ("height", 1, [-60, -20, -5, 5, 20, 60]),
        ("sides_shown", 1, [-10, 10]),
        ("roll", 2, [-135, -15, 15, 135]),
    ],
)
def test_an_answer_within_the_margin_of_a_border_is_left_out_and_one_beyond_it_is_not(name, axis, borders):
    margin = math.degrees(MARGIN)
    for border in borders:
        for side in (-1, 1):
            angles = np.array([0.0, 0.0, 0.0])
            angles[axis] = border + side * (margin - 0.1)
            assert labels_of(name, np.radians(angles)) == [], (name, border, side)
            angles[axis] = border + side * (margin + 0.1)
            # Beside one border only "left" or "right" can be told, beyond the other there is nothing to tell.
            between = name in ("front_in_picture", "camera_side") and abs(math.remainder(angles[0], 180)) < 22.5
            assert (labels_of(name, np.radians(angles)) == []) == (
                between or (name == "arrow" and _sideways(angles[0]))
            )


def _sideways(azimuth):
    return abs(math.sin(math.radians(azimuth))) > math.sqrt(0.5)


def test_words_of_a_side_need_their_height_to_be_clear_too():
    assert labels_of("side", (0.0, math.radians(7), 0.0)) == []
    assert labels_of("side", (0.0, math.radians(12), 0.0)) == ["front"]
    (fact,) = facts_of("side", record_of(posed(pose=(0.8, math.radians(12), 0.0))))
    assert fact.said == "seen from its front-left, from slightly above"


@pytest.mark.parametrize("name", ["side", "camera_side", "roll", "turn"])
def test_from_almost_straight_above_no_side_is_told(name):
    pose = (1.5, math.radians(70), 0.0)
    assert labels_of(name, pose) == []
    assert labels_of("height", pose) == ["from almost straight above"]


def test_where_the_ground_and_the_camera_disagree_no_direction_is_told():
    # Seen steeply from above, a front 50° off the line of sight lies mostly across the picture.
    assert labels_of("facing", np.radians([50, 0, 0])) == ["towards the camera and to the left of the picture"]
    assert labels_of("facing", np.radians([50, 70, 0])) == []
    # A front that points left, in a picture that lies on its side.
    assert labels_of("facing", np.radians([90, 0, 90])) == []


# Mirror images --------------------------------------------------------------------------------------------------------


def content(fact):
    ids = tuple(item.object_id for item in fact.objects)
    # Half a turn to the left is one to the right.
    degrees = None if fact.degrees is None else round(fact.degrees % 360, 6) % 360
    return fact.label, ids, fact.places, fact.said, fact.arrow, fact.things, degrees


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_the_mirrored_record_has_the_mirrored_facts(kind):
    rng = np.random.default_rng(3)
    seen = 0
    for _ in range(400):
        record = random_record(rng)
        facts = facts_of(kind.name, record)
        expected = [fact.mirrored(record.width, kind.sided) for fact in facts]
        found = facts_of(kind.name, record.mirrored())
        assert Counter(map(content, found)) == Counter(map(content, expected))
        for fact in expected:
            assert all(item in record.mirrored().objects for item in fact.objects)
        seen += len(facts)
    assert seen > 20


@pytest.mark.parametrize("name", OF_ONE)
def test_facts_of_the_mirrored_record_are_those_of_the_reflected_rotation(name):
    rng = np.random.default_rng(4)
    for _ in range(300):
        pose = random_pose(rng)
        # A mirror turns the picture's x round, and the object's own for an object with two like sides.
        reflected = MIRROR @ rotation_matrix(pose) @ MIRROR
        for fact in facts_of(name, record_of(posed(pose=pose)).mirrored()):
            if name == "turn":
                assert matches_turn(fact, reflected)
            else:
                assert fact.label == truth(name, reflected, fact)


# Two objects ----------------------------------------------------------------------------------------------------------


def parked(yaws, **camera):
    """Two cars beside each other on the ground, photographed at the annotated focal length, boxes apart."""
    return photographed([(-0.9, 0.0), (0.9, 0.0)], yaws, focal=2000.0, back=40.0, **camera)[0]


@pytest.mark.parametrize("seed", range(40))
def test_what_is_said_of_two_cars_is_what_their_yaws_make_true(seed):
    yaws = np.random.default_rng(seed).uniform(-PI, PI, 2)
    apart = abs(math.remainder(yaws[0] - yaws[1], math.tau))
    record = parked(yaws)
    for fact in facts_of("same_direction", record):
        assert fact.label == ("yes" if apart < SAME_DIRECTION else "no")
    for fact in facts_of("angle_between", record):
        assert fact.degrees == pytest.approx(math.degrees(apart), abs=1e-6)
        low, high = map(int, fact.label.split(" to "))
        assert low <= fact.degrees <= high
        assert abs(int(fact.said.split()[1]) - fact.degrees) <= 7.5
    # At yaw +90° the left car faces the right one, at −90° the right car faces the left one.
    off = max(abs(math.remainder(yaw - aim, math.tau)) for yaw, aim in zip(yaws, (PI / 2, -PI / 2), strict=True))
    for fact in facts_of("face_to_face", record):
        assert fact.label == ("yes" if off < FACE_TO_FACE else "no")


def test_each_answer_about_two_comes_up():
    asked = {name: Counter() for name in ("same_direction", "face_to_face", "angle_between")}
    for seed in range(300):
        record = parked(np.random.default_rng(seed).uniform(-PI, PI, 2))
        for name, labels in asked.items():
            labels.update(fact.label for fact in facts_of(name, record))
    assert set(asked["same_direction"]) == set(asked["face_to_face"]) == {"yes", "no"}
    assert set(asked["angle_between"]) == {"0 to 45", "45 to 90", "90 to 135", "135 to 180"}
    assert all(sum(labels.values()) > 200 for labels in asked.values())


def test_what_depends_on_the_unknown_focal_length_is_not_told():
    # 300 pixels apart at a focal length of 2000 the lines of sight differ by 9°, at a quarter of it by 33°.
    far_apart = record_of(posed(0, center=(50, 150)), posed(1, center=(350, 150)))
    near_by = record_of(posed(0, center=(160, 150)), posed(1, center=(240, 150)))
    for name in ("same_direction", "angle_between"):
        assert facts_of(name, far_apart) == []
        assert len(facts_of(name, near_by)) == 1


def test_two_of_a_category_are_told_apart_by_place_where_their_boxes_lie_beside_each_other():
    left, right = posed(3, center=(100, 150)), posed(1, center=(170, 120))
    assert list(twins(record_of(right, left))) == [((right, left), ("right", "left"))]
    overlapping = dataclasses.replace(right, bbox=(120.0, 0.0, 200.0, 90.0))
    assert list(twins(record_of(left, overlapping))) == []
    assert list(twins(record_of(left, right, posed(2, center=(250, 150))))) == []
    bad = dataclasses.replace(right, status="status_bad")
    assert list(pairs(record_of(left, bad))) == []


def test_objects_alone_in_their_categories_make_pairs_without_places():
    car, bus, sofa, other_sofa = posed(0), posed(1, "bus"), posed(2, "sofa"), posed(3, "sofa")
    assert list(pairs(record_of(car, bus, sofa, other_sofa))) == [((car, bus), ())]


def test_the_nearer_of_two_is_told_only_within_a_category_and_when_it_plainly_is():
    def told(farther, category="car"):
        record = record_of(posed(0, center=(100, 150)), posed(1, category, center=(300, 150), distance=farther))
        return [(fact.label, fact.objects[0].object_id) for fact in facts_of("nearer", record)]

    assert told(4.0 * NEARER_RATIO + 0.01) == [("left", 0)]
    assert told(4.0 / NEARER_RATIO - 0.01) == [("right", 1)]
    assert told(4.0 * NEARER_RATIO - 0.01) == told(4.0 / NEARER_RATIO + 0.01) == []
    assert told(40.0, "bus") == []
    assert told(0.0) == []  # a distance that nobody measured
    unknown = record_of(posed(0, center=(100, 150), distance=0.0), posed(1, center=(200, 150), distance=0.0))
    assert facts_of("face_to_face", unknown) == [] != facts_of("same_direction", unknown)


# Which objects --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "status, used",
    [("status_good", True), ("status_partially", True), ("status_barely", True), ("status_bad", False), ("", False)],
)
def test_only_objects_that_the_authors_use_are_spoken_of(status, used):
    item = posed(status=status, pose=(1.0, 0.2, 0.0))
    assert usable(item) == used
    record = record_of(item, posed(1, "sofa", status=status))
    spoken = {fact.objects for kind in KINDS for fact in facts_of(kind.name, record) if fact.objects}
    assert bool(spoken) == used
    assert bool(facts_of("names", record)) == used


def test_an_object_that_is_not_used_still_makes_a_name_ambiguous():
    car, bad_car = posed(0), posed(1, status="status_bad", center=(300, 150))
    assert alone(record_of(car, bad_car)) == []
    assert alone(record_of(car, posed(1, "bus", status="status_bad"))) == [car]


# What is there --------------------------------------------------------------------------------------------------------


def test_absent_things_are_those_of_the_data_set_whose_meta_class_is_not_in_the_record():
    record = record_of(posed(0, "car"), posed(1, "car", center=(300, 150)))
    facts = facts_of("presence", record, ("sofa", "teapot", "bus", "car"))
    assert [(fact.label, fact.things, fact.objects) for fact in facts] == [("no", "a sofa", ()), ("no", "a teapot", ())]
    vehicles = {taxonomy.with_article(name) for name in taxonomy.meta_classes()["vehicles"]}
    everything = facts_of("presence", record, taxonomy.categories())
    assert {fact.things for fact in everything} == {*map(taxonomy.with_article, taxonomy.categories())} - vehicles


def test_what_is_present_is_what_is_alone_in_its_category():
    record = record_of(posed(0, "car"), posed(1, "sofa"), posed(2, "sofa"))
    there = [fact for fact in facts_of("presence", record) if fact.label == "yes"]
    assert [(fact.things, fact.objects[0].object_id) for fact in there] == [("a car", 0)]


def test_names_are_told_where_each_is_the_only_one():
    (fact,) = facts_of("names", record_of(posed(0, "sofa"), posed(1, "car"), posed(2, "diningtable")))
    assert fact.said == "a sofa, a car and a dining table" and fact.objects == ()
    assert facts_of("names", record_of(posed(0), posed(1))) == []


def test_numbers_have_a_tolerance_wider_than_the_step_in_which_they_are_told():
    assert TOLERANCE_DEGREES > 2 * 7.5
