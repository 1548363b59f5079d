"""Conversations about a record: every mark has its pose, every sentence is true, every kind of question appears."""

import dataclasses
import re
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from llava_pose import conversation, taxonomy
from llava_pose.conversation import CAPTION_QUESTIONS, NAMING_QUESTION, naming_answer, training_conversation
from llava_pose.geometry import mirror_pose
from llava_pose.questions import KINDS
from llava_pose.scene import PosedImage, PosedObject
from llava_pose.words import FACINGS, HEIGHTS, ROLLS, SHOWN_SIDES, SIDES, facing, seen_from, turn_words


def swap_sides(text):
    return re.sub(r"\b(left|right)\b", lambda match: {"left": "right", "right": "left"}[match[0]], text)


def posed(object_id, category, azimuth, elevation=0.25):
    return PosedObject(
        object_id=object_id,
        category=category,
        bbox=(10.0 * object_id, 5.0, 10.0 * object_id + 9.0, 40.0),
        azimuth=azimuth,
        elevation=elevation,
        theta=0.1 * object_id,
        distance=4.0 + object_id,
        px=10.0 * object_id + 4.0,
        py=20.0,
        viewport=900.0,
        cad_index=0,
        status="status_good",
        dense="",
    )


def picture(*objects, caption="", marks=()):
    return PosedImage(Image.new("RGB", (64, 48)), "car/n1", 64, 48, tuple(objects), caption, tuple(marks))


CAR, SOFA, CAR_TOO = posed(0, "car", 0.62), posed(1, "sofa", 4.0), posed(2, "car", 2.5)
ONE = picture(CAR, caption="A photo of a car <pose>.", marks=(0,))
ONE_UNTOLD = picture(CAR)
MANY = picture(CAR, SOFA, CAR_TOO, caption="A sofa <pose> beside a car <pose> and a car <pose>.", marks=(1, 2, 0))
TWINS = picture(CAR, CAR_TOO)
RECORDS = {"one": ONE, "one untold": ONE_UNTOLD, "many": MANY, "twins": TWINS}


def talks(record, count=300):
    return [training_conversation(record, np.random.default_rng(seed)) for seed in range(count)]


def text_of(message):
    return "".join(part["text"] for part in message["content"] if part["type"] == "text")


def turns_of(talk):
    texts = [text_of(message) for message in talk.messages]
    return list(zip(texts[::2], texts[1::2], strict=True))


TEMPLATES = {
    kind.name: [re.compile(re.sub(r"\\{\w+\\}", ".+", re.escape(text))) for text in kind.questions] for kind in KINDS
}


def kind(question):
    if question == NAMING_QUESTION or question in CAPTION_QUESTIONS:
        return "name" if question == NAMING_QUESTION else "caption"
    (found,) = [
        name for name, patterns in TEMPLATES.items() if any(pattern.fullmatch(question) for pattern in patterns)
    ]
    return found


def has_no_pose(question, answer):
    """Whether the answer speaks of no object of the picture, or is asked to leave the poses out."""
    return kind(question) == "names" or (kind(question) == "presence" and answer.startswith("No, "))


@pytest.mark.parametrize("name", RECORDS)
def test_roles_alternate_and_the_image_comes_first_and_once(name):
    for talk in talks(RECORDS[name]):
        assert [message["role"] for message in talk.messages] == ["user", "assistant"] * (len(talk.messages) // 2)
        images = [sum(part["type"] == "image" for part in message["content"]) for message in talk.messages]
        assert images == [1] + [0] * (len(images) - 1)
        assert 1 <= len(turns_of(talk)) <= 2


@pytest.mark.parametrize("name", RECORDS)
@pytest.mark.parametrize("flip", [False, True])
def test_answers_have_marks_and_each_mark_is_the_pose_of_the_thing_named_before_it(name, flip):
    record = RECORDS[name].mirrored() if flip else RECORDS[name]
    poses_of = {}
    for item in record.objects:
        poses_of.setdefault(taxonomy.spoken_name(item.category), []).append(item.pose.tolist())
    for talk in talks(record):
        assert talk.poses.shape[1:] == (3,) and talk.poses.dtype == np.float64
        mentioned = []
        for question, answer in turns_of(talk):
            before = answer.split("<pose>")[:-1]
            assert bool(before) != has_no_pose(question, answer), answer
            mentioned += [next(thing for thing in poses_of if text.rstrip().endswith(thing)) for text in before]
        assert len(mentioned) == len(talk.poses)
        for thing, pose in zip(mentioned, talk.poses.tolist(), strict=True):
            assert pose in poses_of[thing]


def test_the_captions_marks_keep_the_captions_order():
    for talk in talks(MANY, 40):
        (index,) = [i for i, (_, answer) in enumerate(turns_of(talk)) if answer == MANY.caption]
        first = sum(answer.count("<pose>") for _, answer in turns_of(talk)[:index])
        expected = [SOFA.pose, CAR_TOO.pose, CAR.pose]
        np.testing.assert_array_equal(talk.poses[first : first + 3], expected)


def test_a_caption_that_a_flip_made_untrue_is_replaced_by_one_with_every_object():
    sided = dataclasses.replace(MANY, caption="A sofa <pose> left of a car <pose> and a car <pose>.")
    assert sided.mirrored().caption == ""
    answers = {
        answer
        for talk in talks(sided.mirrored(), 40)
        for question, answer in turns_of(talk)
        if kind(question) == "caption"
    }
    assert answers == {"A car <pose>, a sofa <pose> and a car <pose>."}


OF_ONE = {"facing", "side", "turn", "sides_shown", "height", "roll", "front_in_picture", "camera_side", "arrow"}
OF_TWO = {"same_direction", "face_to_face", "angle_between", "nearer"}


def test_every_kind_of_question_appears_before_and_after():
    orders = Counter(tuple(kind(question) for question, _ in turns_of(talk)) for talk in talks(ONE, 2500))
    asked = {*OF_ONE, "presence", "names"}
    openings = ("name", "caption")
    expected = {(opening,) for opening in openings}
    expected |= {pair for opening in openings for other in asked for pair in [(opening, other), (other, opening)]}
    assert set(orders) == expected
    assert min(orders.values()) >= 2


def test_the_kinds_there_were_first_are_still_more_than_half_of_what_is_asked_of_one_object():
    asked = Counter(kind(question) for talk in talks(ONE, 1500) for question, _ in turns_of(talk))
    others = asked.total() - asked["name"] - asked["caption"]
    first = asked["facing"] + asked["side"] + asked["turn"]
    assert 0.5 < first / others < 0.65


def test_two_objects_are_asked_about_together():
    asked = Counter(kind(question) for talk in talks(TWINS, 600) for question, _ in turns_of(talk))
    assert set(asked) - {"caption", "presence"} == OF_TWO
    told = {answer for talk in talks(TWINS, 600) for question, answer in turns_of(talk) if kind(question) in OF_TWO}
    assert {"The left car <pose> is nearer to the camera."} < told


def test_one_object_is_mostly_named_and_several_are_captioned():
    named = sum(any(kind(question) == "name" for question, _ in turns_of(talk)) for talk in talks(ONE, 400))
    assert 0.7 < named / 400 < 0.9
    assert all("name" not in [kind(question) for question, _ in turns_of(talk)] for talk in talks(MANY, 50))
    assert all("name" in [kind(question) for question, _ in turns_of(talk)] for talk in talks(ONE_UNTOLD, 50))


def test_only_an_object_alone_in_its_category_is_asked_about_by_its_name():
    asked = {question for talk in talks(MANY) for question, _ in turns_of(talk) if kind(question) in OF_ONE}
    assert asked and all("sofa" in question and "car" not in question for question in asked)
    named = {question for talk in talks(MANY) for question, _ in turns_of(talk) if kind(question) in OF_TWO}
    assert named and all("left" in question and "right" in question for question in named)
    assert not OF_ONE & {kind(question) for talk in talks(TWINS) for question, _ in turns_of(talk)}


def test_answers_say_what_the_pose_says():
    said = {"facing": facing(CAR.pose), "side": seen_from(CAR.pose), "turn": turn_words(CAR.pose)}
    for talk in talks(ONE):
        for question, answer in turns_of(talk):
            if kind(question) in said:
                link = {"facing": "faces ", "side": "is ", "turn": ""}[kind(question)]
                assert answer == f"The car <pose> {link}{said[kind(question)]}."


def test_answers_about_a_mirrored_record_are_the_mirrored_answers():
    for talk, mirrored in zip(talks(ONE), talks(ONE.mirrored()), strict=True):
        assert [swap_sides(answer) for _, answer in turns_of(talk)] == [answer for _, answer in turns_of(mirrored)]
        np.testing.assert_allclose(mirrored.poses, mirror_pose(talk.poses))


def test_the_same_random_state_gives_the_same_conversation():
    for first, second in zip(talks(MANY, 20), talks(MANY, 20), strict=True):
        assert first.messages == second.messages
        np.testing.assert_array_equal(first.poses, second.poses)
    assert len({str(talk.messages) for talk in talks(MANY, 20)}) > 5


def test_a_record_without_objects_is_refused_by_name():
    with pytest.raises(ValueError, match="car/n1: no object"):
        training_conversation(picture(), np.random.default_rng(0))


def test_the_naming_answer_is_the_spoken_name_and_the_mark():
    assert naming_answer("diningtable") == "dining table <pose>."
    answers = [naming_answer(category) for category in taxonomy.categories()]
    assert len(set(answers)) == len(answers)


def test_example_texts_hold_every_name_and_every_phrasing():
    texts = list(conversation.example_texts())
    joined = "\n".join(texts)
    for category in taxonomy.categories():
        assert f"ASSISTANT: {naming_answer(category)}" in joined
    for phrase in (*FACINGS, *SIDES, *HEIGHTS, *ROLLS, *SHOWN_SIDES, *CAPTION_QUESTIONS):
        assert phrase in joined
    asked = {kind(text[6:].split(" ASSISTANT:")[0].strip()) for text in texts}
    assert asked == {"name", "caption", *(kind.name for kind in KINDS)}
    for patterns in TEMPLATES.values():
        assert all(pattern.search(joined) for pattern in patterns)
    for answer in ("Yes, ", "No, there is not ", "do not face each other", "face each other.", "face about 90 degrees"):
        assert answer in joined
    for height in (
        "from slightly above",
        "from above",
        "from below",
        "from slightly below",
        "at its own height",
        "straight above",
        "straight below",
    ):
        assert height in joined
