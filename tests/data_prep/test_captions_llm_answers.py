"""What a language model is asked, and which of its answers will do."""

import dataclasses
import re

import pytest

from data_prep.captioning.llm_answers import complaint, messages, question, read_caption
from llava_pose.scene import PosedObject

CAR = PosedObject(
    0, "car", (10.0, 10.0, 50.0, 40.0), 0.5, 0.1, 0.0, 5.0, 30.0, 25.0, 900.0, 1, "status_good", "dense_yes"
)


def things(text):
    names = enumerate(text.split())
    return [dataclasses.replace(CAR, object_id=10 + number, category=name) for number, name in names]


def asked(text="car bicycle car", **fields):
    return question(
        **{"image_id": "car/n1", "width": 100, "height": 80, "model": "m", **fields, "objects": things(text)}
    )


GOOD = {
    "plain": (
        "CAR1 is parked next to BICYCLE2, and CAR3 drives by.",
        ("A car <pose> is parked next to a bicycle <pose>, and another car <pose> drives by.", (10, 11, 12)),
    ),
    "in another order, with articles and adjectives": (
        "A red BICYCLE2 leans on the CAR3 while CAR1 waits to the right of it.",
        (
            "A red bicycle <pose> leans on the car <pose> while another car <pose> waits to the right of it.",
            (11, 12, 10),
        ),
    ),
    "with the paper's marks": (
        "CAR1 with <pose6d> is parked next to BICYCLE2 with <pose6D>, and CAR3 <pose> drives by.",
        ("A car <pose> is parked next to a bicycle <pose>, and another car <pose> drives by.", (10, 11, 12)),
    ),
    "in quotes, on lines, without a full stop": (
        '"CAR1 is parked.\nBICYCLE2 lies there.  CAR3 drives by"',
        ("A car <pose> is parked. A bicycle <pose> lies there. Another car <pose> drives by.", (10, 11, 12)),
    ),
    "announced, in small letters": (
        "Caption: car1 is parked next to bicycle2, and CAR3 drives by!",
        ("A car <pose> is parked next to a bicycle <pose>, and another car <pose> drives by!", (10, 11, 12)),
    ),
}


@pytest.mark.parametrize("name", GOOD)
def test_a_good_answer_becomes_a_caption(name):
    answer, expected = GOOD[name]
    assert complaint(asked(), answer) is None
    assert read_caption(asked(), answer) == expected


BAD = {
    "empty": (" \n", "The answer is empty."),
    "refusal": ("I'm sorry, I can't help with that.", "Mention CAR1, BICYCLE2, CAR3, by name."),
    "cut off": ("CAR1 stands by BICYCLE2 while CAR3…", "The answer is cut off: write less."),
    "missing": ("CAR1 stands by CAR3.", "Mention BICYCLE2, by name."),
    "twice": ("CAR1, BICYCLE2 and CAR3 by CAR1.", "Mention CAR1 once only."),
    "invented": ("CAR1, BICYCLE2 and CAR3 by BUS4.", "BUS4: no object has this name."),
    "bare": ("CAR1, BICYCLE2 and CAR3; the CAR is red.", "CAR: write names with their numbers"),
    "part of another name": ("CAR1, BICYCLE2 and CAR33 here.", "Mention CAR3, by name."),
    "box": ("CAR1 (0.10, 0.12) by BICYCLE2 and CAR3.", "Write no digits outside the names."),
    "angle": ("CAR1 by BICYCLE2 and CAR3, turned forty degrees.", "degrees: write nothing about boxes"),
    "bounding box": ("CAR1 by BICYCLE2 and CAR3 in its bounding box.", "bounding: write nothing about boxes"),
    "odd mark": ("CAR1 [pose] by BICYCLE2 and CAR3.", "Write no marks such as <pose>."),
    "half a mark": ("CAR1 <pose6d by BICYCLE2 and CAR3.", "Write no marks such as <pose>."),
    "mark elsewhere": ("CAR1 by BICYCLE2 and CAR3 <pose> <pose>.", "Write no marks such as <pose>."),
    "list": ("- CAR1 stands there\n- BICYCLE2 stands\n- CAR3", "Write plain sentences: no list and no markup."),
    "markup": ("**CAR1** by BICYCLE2 and CAR3.", "Write plain sentences: no list and no markup."),
    "too long": ("CAR1 by BICYCLE2 and CAR3" + " and more" * 40, "Write 70 words at most."),
    "names alone": ("CAR1, BICYCLE2, CAR3", "Write a whole sentence."),
    "possessive": ("CAR1's door hides BICYCLE2 and CAR3.", "CAR1's: write no possessive after a name."),
    "other right": ("CAR1 is right behind BICYCLE2 and CAR3.", 'Write "left" and "right" only for sides'),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_answer_is_complained_of(name):
    answer, wrong = BAD[name]
    assert wrong in complaint(asked(), answer)


def test_boxes_are_told_as_fractions_of_the_picture():
    told = asked("car diningtable").told
    assert told == "Named objects:\nCAR1: 0.100, 0.125, 0.500, 0.500\nDINING_TABLE2: 0.100, 0.125, 0.500, 0.500"


def test_the_talk_holds_every_answer_so_far_with_what_was_wrong():
    talk = messages(asked("car"), "data:image/jpeg;base64,xyz", ["BUS1 is here.", ""])
    assert [message["role"] for message in talk] == ["system", "user", "assistant", "user", "assistant", "user"]
    assert talk[1]["content"][1] == {"type": "image_url", "image_url": {"url": "data:image/jpeg;base64,xyz"}}
    assert talk[2]["content"] == "BUS1 is here." and talk[4]["content"]
    assert talk[3]["content"] == "Mention CAR1, by name. Write the whole caption again."
    assert talk[5]["content"] == "The answer is empty. Write the whole caption again."


def test_questions_are_the_same_only_if_all_that_is_sent_is():
    key = asked().key
    assert re.fullmatch("[0-9a-f]{64}", key) and key == asked().key
    others = [asked("car car bicycle"), asked(image_id="car/n2"), asked(model="n"), asked(width=99)]
    assert len({key, *(other.key for other in others)}) == 5


def test_a_crowd_is_asked_about_as_far_as_a_caption_tells_of_it():
    crowd = [dataclasses.replace(CAR, object_id=k, bbox=(0.0, 0.0, 1.0 + k, 10.0)) for k in range(20)]
    one = question("car/n1", 100, 80, crowd, "m")
    assert [item.object_id for item in one.objects] == [14, 15, 16, 17, 18, 19]
    assert one.told.count("CAR") == 6
