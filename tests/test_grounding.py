"""Words never contradict the poses beside them, whatever the model said."""

import math
import re

import numpy as np
import pytest

from llava_pose.configuration import POSE_TOKEN
from llava_pose.geometry import rotation_matrix
from llava_pose.grounding import SIGHTS_DEGREES, TRUE, grounded
from llava_pose.question_scores import told
from llava_pose.questions import KIND, KINDS
from llava_pose.reading import PoseReading
from llava_pose.words import FACINGS
from tests.random_records import posed, random_pose, random_record, record_of


def reading(pose):
    return PoseReading(np.array(pose, dtype=float), np.zeros(3), 0.5, np.full((3, 40), 1 / 40))


def front(pose):
    """The object's front in the camera's frame: x to the picture's right, z towards the camera."""
    return rotation_matrix(np.array(pose)) @ [0.0, -1.0, 0.0]


def degrees_between(one, other):
    return math.degrees(math.acos(np.clip(front(one) @ front(other), -1, 1)))


def partial_texts(text):
    """The text as it grows token by token: a mark comes whole."""
    pieces = re.findall(rf"{POSE_TOKEN}|.", text)
    return ["".join(pieces[:count]) for count in range(len(pieces) + 1)]


def assert_streams(text, readings):
    """The text as it grows is grounded to ever longer beginnings of the whole."""
    whole, before = grounded(text, readings, True), ""
    for part in partial_texts(text):
        now = grounded(part, readings[: part.count(POSE_TOKEN)], False)
        assert now.startswith(before) and whole.startswith(now), (part, now, whole)
        before = now
    return whole


@pytest.mark.parametrize("seed", range(6))
def test_a_true_answer_about_its_own_pose_stays_as_it_is(seed):
    rng = np.random.default_rng(seed)
    seen = set()
    for _ in range(40):
        record = record_of(posed(pose=random_pose(rng)))
        for kind in KINDS:
            for fact in kind.facts(record, ("boat",)):
                _, answer = kind.words(fact, 0)
                assert grounded(answer, [reading(item.pose) for item in fact.objects], True) == answer
                seen.add(kind.name)
    assert seen >= {name for name in TRUE if name not in ("same_direction", "face_to_face", "angle_between")}


@pytest.mark.parametrize("seed", range(6))
def test_whatever_is_answered_about_another_pose_comes_out_as_this_pose_has_it(seed):
    rng = np.random.default_rng(100 + seed)
    for _ in range(40):
        said, pose = record_of(posed(pose=random_pose(rng))), random_pose(rng)
        own = record_of(posed(pose=pose))
        for name in ("facing", "side", "turn", "sides_shown", "height", "roll", "front_in_picture", "camera_side"):
            kind = KIND[name]
            for fact, true in zip(kind.facts(said, ()), kind.facts(own, ()), strict=False):
                text = assert_streams(kind.words(fact, 0)[1], [reading(pose)])
                assert text == kind.words(true, 0)[1]


@pytest.mark.parametrize("asked", ["left", "right"])
@pytest.mark.parametrize("wrong", [False, True])
def test_yes_turns_to_no_where_the_pose_says_so(asked, wrong):
    # Azimuth 180°: the object's own left is the picture's left.
    pose = (math.pi, 0.1, 0.0)
    true = "left" if not wrong else "right"
    label = "Yes" if asked == true else "No"
    text = f"{label}, the picture's left is the own {true} of the car <pose>."
    expected = f"{'Yes' if asked == 'left' else 'No'}, the picture's left is the own left of the car <pose>."
    assert assert_streams(text, [reading(pose)]) == expected


def test_two_poses_decide_what_is_said_of_both_where_they_are_clear():
    same, opposite = [reading((0.5, 0.1, 0)), reading((0.55, 0.1, 0))], [reading((0.5, 0, 0)), reading((3.6, 0, 0))]
    yes = "Yes, the car <pose> and the bus <pose> face the same direction."
    no = "No, the car <pose> and the bus <pose> face different directions."
    assert assert_streams(no, opposite) == no == assert_streams(yes, opposite)
    assert assert_streams(yes, same) == yes == assert_streams(no, same)
    for degrees, true in ((29, yes), (31, no)):
        near = [reading((0.5, 0, 0)), reading((0.5 + math.radians(degrees), 0, 0))]
        assert assert_streams(yes, near) == true == assert_streams(no, near)
    apart = "The car <pose> and the bus <pose> face about 30 degrees apart."
    assert "about 180 degrees" in assert_streams(apart, opposite)
    assert assert_streams(apart.replace("30", "165"), opposite) == apart.replace("30", "165")
    assert "about 180 degrees" in assert_streams(apart.replace("30", "150"), opposite)


def test_two_that_face_alike_never_face_each_other():
    alike, opposite = [reading((0.5, 0, 0)), reading((0.9, 0, 0))], [reading((0.5, 0, 0)), reading((3.6, 0, 0))]
    no = "No, the left car <pose> and the right car <pose> do not face each other."
    yes = "Yes, the left car <pose> and the right car <pose> face each other."
    assert assert_streams(yes, alike) == no == assert_streams(no, alike)
    # Where they stand, their poses do not tell.
    assert (assert_streams(yes, opposite), assert_streams(no, opposite)) == (yes, no)


FREE = (
    "A photo of a car <pose> {claim}.",
    "The red car <pose> is {claim}, beside a tree.",
    "A car <pose> {claim} and a bus <pose> stand here.",
    "The car <pose> is parked. It is {claim}.",
)
CLAIMS = (
    "facing {side}",
    "pointing to the {side}",
    "turned to the {side} of the road",
    "heading to the {side}",
    "looking straight to the {side}",
    "not facing {side}",
    "seen from the {side}",
    "rotated 40 degrees to the {side}",
)


@pytest.mark.parametrize("sentence", FREE)
@pytest.mark.parametrize("claim", CLAIMS)
@pytest.mark.parametrize("side", ["left", "right"])
def test_claims_in_free_sentences_are_the_poses(sentence, claim, side):
    # Seen from its front, it faces the camera: neither left nor right.
    text = sentence.format(claim=claim.format(side=side))
    count = text.count(POSE_TOKEN)
    whole = assert_streams(text, [reading((0.0, 0.1, 0.0))] * count)
    assert "left" not in whole and "right" not in whole and "not" not in whole
    assert "towards the camera" in whole or "from its front" in whole


@pytest.mark.parametrize(
    "text",
    [
        "A white car <pose> parked to the left of a bench.",
        "The left car <pose> is nearer to the camera.",
        "Yes, there is a car <pose>.",
        "No, there is not a boat.",
        "The car <pose> has four doors. The lights are on.",
        "A car and a dining table.",
    ],
)
def test_what_the_poses_do_not_decide_stays(text):
    assert assert_streams(text, [reading((0.3, 0.1, 0.0))] * text.count(POSE_TOKEN)) == text


def test_numbers_in_words_are_the_readings_own():
    text = "The car <pose> has an azimuth of 45 degrees, an elevation of 3° and a theta of -7 degrees."
    whole = assert_streams(text, [reading(np.radians((312.0, 11.0, -2.0)))])
    assert whole == "The car <pose> has an azimuth of 312°, an elevation of 11° and a theta of -2°."


def test_a_pose_that_cannot_be_read_decides_nothing():
    text = "The car <pose> faces away from the camera."
    assert grounded(text, [reading((math.nan,) * 3)], True) == text


@pytest.mark.parametrize("seed", range(4))
def test_every_closed_answer_agrees_with_the_rotation_drawn(seed):
    """From any words to any pose; judged by the words' own parser against the front's place in the camera's frame."""
    rng = np.random.default_rng(seed)
    for _ in range(100):
        pose = random_pose(rng)
        x, _, z = front(pose)
        label = FACINGS[rng.integers(8)]
        text = grounded(f"The sofa <pose> faces {label}.", [reading(pose)], True)
        words = told({"choices": FACINGS, "kind": "facing", "sided": True}, text)
        # Where the front plainly leans to one side, the words never name the other.
        if abs(x) > 0.5:
            assert ("right" if x < 0 else "left") not in words
        if abs(z) > 0.5:
            assert ("away" if z > 0 else "towards") not in words


@pytest.mark.parametrize("seed", range(3))
def test_records_of_several_objects_keep_their_true_answers(seed):
    rng = np.random.default_rng(seed)
    for _ in range(30):
        record = random_record(rng)
        for kind in KINDS:
            for fact in kind.facts(record, ("boat",)):
                answer = kind.words(fact, 0)[1]
                poses = [item.pose for item in fact.objects]
                # Near the border lines of sight may decide, which poses leave out.
                if kind.name != "same_direction" or abs(degrees_between(*poses) - 30) > SIGHTS_DEGREES:
                    assert grounded(answer, [reading(pose) for pose in poses], True) == answer, (kind.name, answer)


def test_every_kind_of_question_is_decided_by_poses_or_known_not_to_be():
    assert set(TRUE) | {"nearer", "presence", "names"} == {kind.name for kind in KINDS}
