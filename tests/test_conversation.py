"""Conversations about a record: every mark has its pose, every sentence is true, every kind of question appears."""

import dataclasses
import re
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from llava_pose import conversation, taxonomy
from llava_pose.conversation import (
    CAPTION_QUESTIONS,
    DIRECTION_QUESTIONS,
    NAMING_QUESTION,
    SIDE_QUESTIONS,
    TURN_QUESTIONS,
    naming_answer,
    training_conversation,
)
from llava_pose.geometry import mirror_pose
from llava_pose.scene import PosedImage, PosedObject
from llava_pose.words import FACINGS, SIDES, facing, seen_from, turn_words


def swap_sides(text):
    return re.sub("left|right", lambda match: {"left": "right", "right": "left"}[match[0]], text)


def posed(object_id, category, azimuth, elevation=0.2):
    return PosedObject(
        object_id=object_id,
        category=category,
        bbox=(10.0 * object_id, 5.0, 10.0 * object_id + 9.0, 40.0),
        azimuth=azimuth,
        elevation=elevation,
        theta=0.1 * object_id,
        distance=4.0,
        px=10.0 * object_id + 4.0,
        py=20.0,
        viewport=900.0,
        cad_index=0,
        status="status_good",
        dense="",
    )


def picture(*objects, caption="", marks=()):
    return PosedImage(Image.new("RGB", (64, 48)), "car/n1", 64, 48, tuple(objects), caption, tuple(marks))


CAR, SOFA, CAR_TOO = posed(0, "car", 1.0), posed(1, "sofa", 4.0), posed(2, "car", 2.5)
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


def kind(question):
    for name, templates in [("direction", DIRECTION_QUESTIONS), ("side", SIDE_QUESTIONS), ("turn", TURN_QUESTIONS)]:
        for template in templates:
            if re.fullmatch(re.escape(template).replace(r"\{name\}", ".+"), question):
                return name
    return "name" if question == NAMING_QUESTION else "caption" if question in CAPTION_QUESTIONS else "?"


@pytest.mark.parametrize("name", RECORDS)
def test_roles_alternate_and_the_image_comes_first_and_once(name):
    for talk in talks(RECORDS[name]):
        assert [message["role"] for message in talk.messages] == ["user", "assistant"] * (len(talk.messages) // 2)
        images = [sum(part["type"] == "image" for part in message["content"]) for message in talk.messages]
        assert images == [1] + [0] * (len(images) - 1)
        assert 1 <= len(turns_of(talk)) <= 2


@pytest.mark.parametrize("name", RECORDS)
@pytest.mark.parametrize("flip", [False, True])
def test_every_answer_has_marks_and_each_mark_is_the_pose_of_the_thing_named_before_it(name, flip):
    record = RECORDS[name].mirrored() if flip else RECORDS[name]
    poses_of = {}
    for item in record.objects:
        poses_of.setdefault(taxonomy.spoken_name(item.category), []).append(item.pose.tolist())
    for talk in talks(record):
        assert talk.poses.shape[1:] == (3,) and talk.poses.dtype == np.float64
        mentioned = []
        for _, answer in turns_of(talk):
            before = answer.split("<pose>")[:-1]
            assert before, answer
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


def test_every_kind_of_question_appears_before_and_after():
    orders = Counter(tuple(kind(question) for question, _ in turns_of(talk)) for talk in talks(ONE, 600))
    asked = ("direction", "side", "turn")
    openings = ("name", "caption")
    expected = {(opening,) for opening in openings}
    expected |= {pair for opening in openings for other in asked for pair in [(opening, other), (other, opening)]}
    assert set(orders) == expected
    assert min(orders.values()) >= 2


def test_one_object_is_mostly_named_and_several_are_captioned():
    named = sum(any(kind(question) == "name" for question, _ in turns_of(talk)) for talk in talks(ONE, 400))
    assert 0.7 < named / 400 < 0.9
    assert all("name" not in [kind(question) for question, _ in turns_of(talk)] for talk in talks(MANY, 50))
    assert all("name" in [kind(question) for question, _ in turns_of(talk)] for talk in talks(ONE_UNTOLD, 50))


def test_only_an_object_alone_in_its_category_is_asked_about():
    asked = {question for talk in talks(MANY) for question, _ in turns_of(talk) if kind(question) != "caption"}
    assert asked and all("sofa" in question for question in asked)
    assert {kind(question) for talk in talks(TWINS) for question, _ in turns_of(talk)} == {"caption"}


def test_answers_say_what_the_pose_says():
    said = {"direction": facing(CAR.pose), "side": seen_from(CAR.pose), "turn": turn_words(CAR.pose)}
    for talk in talks(ONE):
        for question, answer in turns_of(talk):
            if kind(question) in said:
                link = {"direction": "faces ", "side": "is ", "turn": ""}[kind(question)]
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
    for phrase in (*FACINGS, *SIDES, *CAPTION_QUESTIONS):
        assert phrase in joined
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
