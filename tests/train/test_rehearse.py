"""A base's own answers, as plain conversations that a recipe can name."""

import json
import sys

import pytest

from llava_pose import LlavaPose
from llava_pose.errors import UserError
from train import rehearse
from train.plain import load_plain

QUESTIONS = (
    "Do you see a bed?",
    "Is there a train in the picture?",
    "Which way is the car facing?",
    "A car or a chair?",
)


def call(*words):
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(sys, "argv", ["rehearse.py", *map(str, words)])
        rehearse.main()


def test_what_a_model_says_without_a_pose_is_kept_word_for_word(tmp_path, capsys):
    file, out = tmp_path / "questions.txt", tmp_path / "rehearsal.json"
    file.write_text("\n\n".join(QUESTIONS))
    call("--model", "embedded", "--questions", file, "--out", out, "--dtype", "float32", "--tokens", "200")
    model = LlavaPose.from_pretrained("embedded")
    answers = [model.chat(None, [{"role": "user", "content": text}]) for text in QUESTIONS]
    wanted = [
        [{"from": "human", "value": question}, {"from": "gpt", "value": answer.text}]
        for question, answer in zip(QUESTIONS, answers, strict=True)
        if answer.complete and "<pose>" not in answer.text
    ]
    assert 0 < len(wanted) < len(QUESTIONS)
    assert [entry["conversations"] for entry in json.loads(out.read_text())] == wanted
    assert f"{len(wanted)} conversations; {len(QUESTIONS) - len(wanted)} questions" in capsys.readouterr().out
    plain = load_plain(out)
    assert len(plain) == len(wanted) and plain.files == []


def test_a_model_that_says_nothing_whole_leaves_no_file(tmp_path):
    questions, out = tmp_path / "questions.txt", tmp_path / "rehearsal.json"
    questions.write_text("Which way is the car facing?")
    with pytest.raises(UserError, match="none of its answers has a whole sentence"):
        call("--model", "embedded", "--questions", questions, "--out", out)
    assert not out.exists()


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("Bees carry pollen. They also make honey, which", "Bees carry pollen."),
        ("Is it? Yes! No", "Is it? Yes!"),
        ("1. Boil water. 2. Take a", "1. Boil water."),
        ("It weighs 3.5 kg and", ""),
        ("no end", ""),
    ],
)
def test_an_answer_that_breaks_off_is_kept_up_to_its_last_whole_sentence(text, kept):
    assert rehearse.whole_sentences(text) == kept


def test_the_questions_that_come_with_it_are_each_asked_once():
    questions = rehearse.read_questions(rehearse.QUESTIONS)
    assert len(questions) == len(set(questions)) > 100


def test_a_file_without_a_question_is_refused(tmp_path):
    empty = tmp_path / "empty.txt"
    empty.write_text("\n \n")
    with pytest.raises(UserError, match=r"empty.txt: holds no question"):
        rehearse.read_questions(empty)
    with pytest.raises(UserError, match=r"absent.txt: cannot be read"):
        rehearse.read_questions(tmp_path / "absent.txt")
