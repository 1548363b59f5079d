"""Scores of answers: what free words are taken to say, what is right, what is the mirror image, what chance gives."""

import json

import pytest

from llava_pose.errors import UserError
from llava_pose.question_scores import read_answers, read_questions, score, told
from llava_pose.words import FACINGS, HEIGHTS, ROLLS, SHOWN_SIDES, SIDES


def closed(kind, choices, answer, question_id="q1", sided=True):
    return {
        "question_id": question_id,
        "image_id": "car/n1",
        "split": "val",
        "row": 0,
        "kind": kind,
        "question": "?",
        "answer": answer,
        "mirrored_question": "?",
        "mirrored_answer": answer,
        "sided": sided,
        "choices": list(choices),
        "object_ids": [0],
        "poses": [[0.0, 0.0, 0.0]],
    }


def numeric(degrees, question_id="q1", sided=True):
    line = closed("turn" if sided else "angle_between", ["-"], "The car <pose> must turn.", question_id, sided)
    del line["choices"]
    return {**line, "degrees": degrees, "tolerance": 30.0}


FACING = closed("facing", FACINGS, "The car <pose> faces away from the camera and to the left of the picture.")
SIDE = closed("side", SIDES, "The car <pose> is seen from its front-left, from slightly above.")
SHOWN = closed("sides_shown", SHOWN_SIDES, "The car <pose> shows its front, its own left side and its top.")
HEIGHT = closed("height", HEIGHTS, "The car <pose> is seen from slightly above.", sided=False)
ROLL = closed("roll", ROLLS, "In the picture, the car <pose> is tilted counterclockwise.")
YES = closed("arrow", ["yes", "no"], "Yes, the picture's left is the own right of the car <pose>.", sided=False)
NEARER = closed("nearer", ["left", "right"], "The left car <pose> is nearer to the camera.")
NAMES = closed("names", ["table", "dining table", "car", "left shoe"], "A car and a dining table.", sided=False)


def figures(line, answer, mirrored=None):
    given = {"answer": answer} if mirrored is None else {"answer": answer, "mirrored_answer": mirrored}
    return score([line], {line["question_id"]: given})["overall"]


@pytest.mark.parametrize(
    "line, answer",
    [
        (FACING, "The car <pose> faces away from the camera and to the left of the picture."),
        (FACING, "It is facing LEFT, away from us"),
        (SIDE, "front‑left"),
        (SIDE, "We see the car <pose> from the left and the front."),
        (SHOWN, "Its top, its front and its own left side."),
        (HEIGHT, "From slightly above."),
        (ROLL, "tilted counter-clockwise"),
        (ROLL, "It leans anticlockwise."),
        (YES, "Yes."),
        (YES, "yes, that is its own right"),
        (NEARER, "the left one"),
        (NAMES, "A dining table and a car."),
        (NAMES, "I see a car beside a Dining  Table <pose>"),
    ],
)
def test_an_answer_that_says_what_the_true_one_says_is_right_in_any_words(line, answer):
    assert figures(line, answer)["accuracy"] == 100


@pytest.mark.parametrize(
    "line, answer",
    [
        (FACING, "The car <pose> faces away from the camera."),
        (FACING, "The car <pose> faces towards the camera and to the left of the picture."),
        (FACING, "Away from the camera and to the left or to the right."),
        (SIDE, "The car is seen from its front."),
        (SIDE, "front-right"),
        (SHOWN, "Its front and its own left side."),
        (SHOWN, "Its front, its own left side, its top and its back."),
        (HEIGHT, "The car <pose> is seen from above."),
        (HEIGHT, "From slightly above, or from above."),
        (ROLL, "tilted clockwise"),
        (ROLL, "It is upright, or tilted counterclockwise."),
        (YES, "No, the picture's left is the own left of the car."),
        (YES, "Yes and no."),
        (NEARER, "The left car is nearer than the right car."),
        (NAMES, "A car and a table."),
        (NAMES, "A car, a dining table and a left shoe."),
    ],
)
def test_an_answer_that_says_less_more_or_something_else_is_wrong(line, answer):
    assert figures(line, answer) == {**figures(line, answer), "accuracy": 0, "unclear": 0}


@pytest.mark.parametrize("line", [FACING, SIDE, SHOWN, HEIGHT, ROLL, YES, NEARER, NAMES, numeric(40.0)])
@pytest.mark.parametrize("answer", ["", "The thing <pose>.", "I knowledgeably abstain; that is upsetting."])
def test_an_answer_that_says_nothing_is_wrong_and_counted_as_unclear(line, answer):
    found = figures(line, answer, answer)
    assert (found["accuracy"], found["unclear"], found["flip_consistency"]) == (0, 1, 0)


@pytest.mark.parametrize(
    "answer, degrees",
    [
        ("The car <pose> must turn about 45 degrees to its own left.", 45),
        ("The car must turn 45° to its own right.", -45),
        ("a 30-degree turn to its left", 30),
        ("The car <pose> already faces the camera.", 0),
        ("It does not need to turn.", 0),
        ("The car <pose> must turn about 180 degrees.", 180),
        ("The car must turn about 0 degrees", 0),
        ("270 degrees to its own left", -90),
        ("The car must turn about 45 degrees.", None),
        ("45 degrees to its left, or 60 degrees", None),
        ("45 degrees to its left or its right", None),
        ("It faces the front.", None),
    ],
)
def test_degrees_are_read_with_their_side(answer, degrees):
    assert told(numeric(0.0), answer) == degrees


def test_degrees_between_two_things_have_no_side():
    line = numeric(100.0, sided=False)
    assert told(line, "The left car <pose> and the right car <pose> face about 105 degrees apart.") == 105
    assert figures(line, "about 75 degrees apart")["accuracy"] == 100
    assert figures(line, "about 60 degrees apart")["accuracy"] == 0


@pytest.mark.parametrize(
    "true, answer, right",
    [
        (40.0, "about 60 degrees to its own left", True),
        (40.0, "about 75 degrees to its own left", False),
        (40.0, "about 45 degrees to its own right", False),
        (10.0, "about 15 degrees to its own right", True),
        (-20.0, "already faces the camera", True),
        (-31.0, "already faces the camera", False),
        (-170.0, "about 165 degrees to its own left", True),
        (-170.0, "about 180 degrees", True),
    ],
)
def test_degrees_are_right_within_the_tolerance_around_the_circle(true, answer, right):
    found = figures(numeric(true), answer)
    assert found["accuracy"] == (100 if right else 0)


@pytest.mark.parametrize(
    "line, answer, mirrored, consistent",
    [
        (FACING, "to the left of the picture", "to the right of the picture", True),
        (FACING, "to the left of the picture", "to the left of the picture", False),
        (FACING, "towards the camera", "towards the camera", True),
        (ROLL, "tilted clockwise", "tilted counterclockwise", True),
        (ROLL, "upright", "upright", True),
        (SHOWN, "its front and its own left side", "its front and its own right side", True),
        (YES, "yes", "yes", True),
        (YES, "yes", "no", False),
        (NAMES, "a left shoe", "a left shoe", True),
        (numeric(10.0), "about 45 degrees to its own left", "about 45 degrees to its own right", True),
        (numeric(10.0), "about 45 degrees to its own left", "about 45 degrees to its own left", False),
        (numeric(10.0), "about 45 degrees to its own left", "about 60 degrees to its own right", True),
        (numeric(10.0), "about 180 degrees", "about 180 degrees", True),
        (numeric(10.0, sided=False), "about 45 degrees", "about 45 degrees", True),
        (FACING, "to the left of the picture", "who knows", False),
    ],
)
def test_two_answers_are_consistent_when_they_mirror_each_other_right_or_wrong(line, answer, mirrored, consistent):
    assert figures(line, answer, mirrored)["flip_consistency"] == (100 if consistent else 0)


def test_without_mirrored_answers_there_is_no_consistency():
    assert figures(YES, "yes")["flip_consistency"] is None


def test_tables_count_by_kind_and_overall_with_missing_answers_as_wrong():
    lines = [
        {**YES, "question_id": "a1"},
        {**YES, "question_id": "a2", "answer": "No, the picture's left is the own left of the car <pose>."},
        {**YES, "question_id": "a3"},
        {**numeric(90.0), "question_id": "t1"},
        {**numeric(90.0), "question_id": "t2"},
    ]
    answers = {
        "a1": {"answer": "Yes <pose>."},
        "a2": {"answer": "Yes."},
        "t1": {"answer": "about 100 degrees to its own left", "mirrored_answer": "100 degrees to its own right"},
        "t2": {"answer": "about 30 degrees to its own left", "mirrored_answer": "100 degrees to its own right"},
    }
    found = score(lines, answers)
    assert list(found["kinds"]) == ["turn", "arrow"]
    arrow, turn, overall = found["kinds"]["arrow"], found["kinds"]["turn"], found["overall"]
    assert (arrow["count"], arrow["unclear"]) == (3, 1)
    assert arrow["accuracy"] == pytest.approx(100 / 3) and arrow["marks"] == pytest.approx(100 / 3)
    assert turn["median_error_deg"] == 35 and turn["flip_consistency"] == 50 and turn["accuracy"] == 50
    assert overall["count"] == 5 and overall["accuracy"] == 40
    assert overall["kind_average"] == pytest.approx((100 / 3 + 50) / 2)


def test_chance_is_the_best_single_answer_and_a_random_one():
    lines = [{**YES, "question_id": str(number)} for number in range(3)]
    lines.append({**YES, "question_id": "no", "answer": "No, it is not."})
    arrow = score(lines, {})["kinds"]["arrow"]
    assert (arrow["chance_majority"], arrow["chance_uniform"]) == (75, 50)
    facing = score([FACING], {})["kinds"]["facing"]
    assert (facing["chance_majority"], facing["chance_uniform"]) == (100, 12.5)
    # Any of the 24 turns told in steps of 15° is right for five (within 30°) of them.
    turns = score([numeric(float(degrees), str(degrees)) for degrees in range(-165, 181, 15)], {})["kinds"]["turn"]
    assert turns["chance_uniform"] == pytest.approx(100 * 5 / 24)
    assert turns["chance_majority"] == pytest.approx(100 * 5 / 24)
    # Between 0 and 180 the guess in the middle reaches both.
    apart = score([numeric(60.0, "a", sided=False), numeric(120.0, "b", sided=False)], {})["kinds"]["angle_between"]
    assert apart["chance_majority"] == 100 and apart["chance_uniform"] == pytest.approx(100 * 5 / 13)


# Files ----------------------------------------------------------------------------------------------------------------


def written(path, *lines):
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def test_a_set_is_read_as_it_was_written(tmp_path):
    lines = [YES, {**numeric(3.0), "question_id": "q2"}]
    assert read_questions(written(tmp_path / "q.jsonl", *lines)) == lines


@pytest.mark.parametrize(
    "change, message",
    [
        ({"kind": None}, "q.jsonl:2: kind: .* found None"),
        ({"row": -1}, "q.jsonl:2: row: .* found -1"),
        ({"row": True}, "q.jsonl:2: row: .* found True"),
        ({"sided": "yes"}, "q.jsonl:2: sided: "),
        ({"choices": []}, r"q.jsonl:2: choices: .* found \[\]"),
        ({"choices": [1]}, "q.jsonl:2: choices: "),
        ({"answer": "Perhaps."}, "q.jsonl:2: answer: .* found 'Perhaps.'"),
        ({"degrees": float("nan"), "tolerance": 30.0}, "q.jsonl:2: degrees: .* found nan"),
        ({"degrees": 3.0}, "q.jsonl:2: tolerance: .* the field is missing"),
        ({"question_id": "q0"}, "q.jsonl:2: question_id: 'q0' repeats line 1"),
    ],
)
def test_a_wrong_line_of_a_set_is_refused_by_line_and_field(tmp_path, change, message):
    path = written(tmp_path / "q.jsonl", {**YES, "question_id": "q0"}, {**YES, **change})
    with pytest.raises(UserError, match=message):
        read_questions(path)


@pytest.mark.parametrize(
    "text, message",
    [
        ("", "holds no lines"),
        ("{", ":1: not a JSON line"),
        ("[]\n", ":1: expected an object"),
        ('{"question_id": "a"}\n', ":1: answer: .* missing"),
        ('{"question_id": "a", "answer": 3}\n', ":1: answer: .* found 3"),
        ('{"question_id": "a", "answer": "", "mirrored_answer": null}\n', ":1: mirrored_answer: "),
        ('{"question_id": "a", "answer": ""}\n{"question_id": "a", "answer": ""}\n', ":2: question_id: 'a' repeats"),
    ],
)
def test_a_wrong_file_of_answers_is_refused_by_line_and_field(tmp_path, text, message):
    path = tmp_path / "answers.jsonl"
    path.write_text(text)
    with pytest.raises(UserError, match=f"answers.jsonl.*{message}"):
        read_answers(path)


def test_a_missing_file_and_one_that_is_no_text_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"none\.jsonl: cannot be read"):
        read_answers(tmp_path / "none.jsonl")
    (tmp_path / "bytes.jsonl").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match=r"bytes\.jsonl: cannot be read"):
        read_questions(tmp_path / "bytes.jsonl")
