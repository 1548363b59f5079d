"""Asking the questions of a set: both mirror images, every answer kept, stopped and gone on with; and scoring them."""

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from data_prep.questions import write_questions
from eval import questions
from eval.questions import ask_all, main, open_rows
from llava_pose.api import LlavaPose
from llava_pose.errors import UserError
from llava_pose.question_scores import read_questions
from tests.random_records import random_record, write_records

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(9)
    write_records(folder, "val", (random_record(rng, most=1) for _ in range(40)), crop="object")
    return folder


@pytest.fixture(scope="module")
def asked(data):
    write_questions(data, data / "q.jsonl", "val", per_kind=4, seed=0, limit=None)
    return data / "q.jsonl"


class Knowing:
    """A model that knows the true answers, by the row and the side that an image shows; it may be stopped."""

    def __init__(self, lines, stop_after=None):
        self.seen, self.stop_after = [], stop_after
        self.truth = {
            (line["row"], bool(prefix), line[f"{prefix}question"]): line[f"{prefix}answer"]
            for line in lines
            for prefix in ("", "mirrored_")
        }

    def chat_all(self, conversations, flip=False):
        return (self.answer(image, *messages) for image, messages in conversations)

    def answer(self, image, message):
        if len(self.seen) == self.stop_after:
            raise KeyboardInterrupt
        pixels = np.asarray(image)
        key = (int(pixels[0, 0, 0]), bool(pixels[0, 0, 2] > pixels[0, -1, 2]), message["content"])
        self.seen.append(key)
        text = self.truth[key]
        reading = SimpleNamespace(pose=np.array([0.5, 0.25, 0.125]))
        return SimpleNamespace(text=text, readings=[reading] * text.count("<pose>"))


@pytest.fixture
def lines(asked):
    return read_questions(asked)


def test_image_and_mirrored_image_are_asked_each_its_own_question(data, lines, tmp_path):
    model = Knowing(lines)
    answers = ask_all(model, open_rows(data, lines), lines, tmp_path)
    assert len(model.seen) == 2 * len(lines)
    for line, answer in zip(lines, answers, strict=True):
        assert answer["question_id"] == line["question_id"]
        assert (answer["answer"], answer["mirrored_answer"]) == (line["answer"], line["mirrored_answer"])
        assert answer["poses"] == answer["mirrored_poses"] == [[0.5, 0.25, 0.125]] * len(line["poses"])
    kept = [json.loads(text) for text in (tmp_path / "answers.jsonl").read_text().splitlines()]
    assert kept == answers and [path.name for path in tmp_path.iterdir()] == ["answers.jsonl"]


@pytest.mark.parametrize("stop_after", [0, 1, 6, 11])
def test_a_stopped_run_goes_on_after_its_last_block_and_ends_with_the_same_bytes(
    data, lines, tmp_path, monkeypatch, stop_after
):
    monkeypatch.setattr(questions, "TOGETHER", 2)
    rows = open_rows(data, lines)
    (tmp_path / "whole").mkdir()
    ask_all(Knowing(lines), rows, lines, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        ask_all(Knowing(lines, stop_after), rows, lines, tmp_path)
    with (tmp_path / "answers.partial.jsonl").open("a") as file:
        # Half a block and half a line, as a killed process may leave them.
        done = stop_after // 4 * 2
        file.write(json.dumps({"question_id": lines[done]["question_id"]}) + '\n{"question_id": "fac')
    model = Knowing(lines)
    ask_all(model, rows, lines, tmp_path)
    assert len(model.seen) == 2 * (len(lines) - done)
    assert (tmp_path / "answers.jsonl").read_bytes() == (tmp_path / "whole" / "answers.jsonl").read_bytes()
    again = Knowing(lines)
    assert len(ask_all(again, rows, lines, tmp_path)) == len(lines) and again.seen == []


def test_partial_answers_to_other_questions_are_refused(data, lines, tmp_path, monkeypatch):
    monkeypatch.setattr(questions, "TOGETHER", 2)
    with pytest.raises(KeyboardInterrupt):
        ask_all(Knowing(lines, 6), open_rows(data, lines), lines, tmp_path)
    with pytest.raises(UserError, match=rf"partial\.jsonl:1: question_id: '{lines[0]['question_id']}', expected"):
        ask_all(Knowing(lines), open_rows(data, lines), lines[1:], tmp_path)


def test_questions_about_other_data_are_refused_before_anyone_is_asked(data, asked, lines, tmp_path):
    rng = np.random.default_rng(9)
    write_records(tmp_path / "fewer", "val", (random_record(rng) for _ in range(2)))
    with pytest.raises(UserError, match=r"fewer: row .* is missing, but .* is about car/n"):
        open_rows(tmp_path / "fewer", lines)
    with pytest.raises(UserError, match=r"row 0 of 'val' is car/n000, but .* is about car/other"):
        open_rows(data, [{**lines[0], "row": 0, "image_id": "car/other"}])
    with pytest.raises(UserError, match="split: the questions are about train and val"):
        open_rows(data, [lines[0], {**lines[1], "split": "train"}])


@pytest.fixture
def knowing(monkeypatch, lines):
    models = []

    def open_model(path, dtype):
        models.append(Knowing(lines))
        return models[-1]

    monkeypatch.setattr(LlavaPose, "from_pretrained", open_model)
    monkeypatch.setattr(questions, "on_device", lambda model: model)
    return models


def test_the_whole_command_asks_scores_and_keeps_all_of_it(data, asked, lines, knowing, tmp_path, capsys):
    out = tmp_path / "out"
    main(["--data", str(data), "--questions", str(asked), "--out", str(out)])
    scores = json.loads((out / "questions.json").read_text())
    assert scores["overall"]["accuracy"] == scores["overall"]["flip_consistency"] == 100
    assert scores["overall"]["count"] == len(lines)
    assert scores["settings"]["model"] == "embedded" and scores["settings"]["data"] == str(data)
    table = capsys.readouterr().out.splitlines()
    assert len(table) == 3 + len(scores["kinds"]) and table[-1].startswith(f"| all | {len(lines)} | 100.0 |")
    assert sorted(path.name for path in out.iterdir()) == ["answers.jsonl", "questions.json", "settings.json"]


def test_going_on_with_another_model_or_other_questions_is_refused(data, asked, knowing, tmp_path):
    command = ["--data", str(data), "--questions", str(asked), "--out", str(tmp_path / "out")]
    main(command)
    with pytest.raises(UserError, match=r"out: holds answers of another run: model is 'embedded', not 'other'"):
        main([*command, "--model", "other"])
    fewer = tmp_path / "fewer.jsonl"
    fewer.write_text("".join(asked.read_text().splitlines(keepends=True)[:3]))
    with pytest.raises(UserError, match="holds answers of another run: questions is"):
        main(["--data", str(data), "--questions", str(fewer), "--out", str(tmp_path / "out")])
    assert len(knowing) == 1


def test_given_answers_are_scored_without_a_model(asked, lines, tmp_path):
    given = tmp_path / "given.jsonl"
    texts = [json.dumps({"question_id": line["question_id"], "answer": line["answer"]}) for line in lines[:-2]]
    given.write_text("\n".join(texts) + "\n")
    command = [sys.executable, "eval/questions.py", "--questions", str(asked), "--answers", str(given)]
    done = subprocess.run([*command, "--out", str(tmp_path)], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "2 questions have no answer and count as wrong"
    scores = json.loads((tmp_path / "questions.json").read_text())
    assert scores["overall"]["accuracy"] == pytest.approx(100 * (len(lines) - 2) / len(lines))
    assert scores["overall"]["flip_consistency"] is None
    given.write_text('{"question_id": "none", "answer": ""}\n')
    refused = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert refused.returncode == 2 and refused.stderr.splitlines() == [
        f"error: {given}: question_id: 'none' is not among the questions"
    ]


@pytest.mark.parametrize(
    "options, message",
    [
        (["--out", "o"], "--data: is needed to ask a model"),
        (["--data", "d"], "--out: is needed to ask a model"),
        (["--answers", "a", "--model", "m"], "--model: with --answers nobody is asked"),
        (["--answers", "a", "--data", "d"], "--data: with --answers nobody is asked"),
        (["--answers", "a.jsonl"], r"a\.jsonl: cannot be read"),
        (["--data", "none", "--out", "o"], "none: data folder does not exist"),
    ],
)
def test_a_command_line_that_asks_for_too_little_or_too_much_is_refused(asked, tmp_path, monkeypatch, options, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=message):
        main(["--questions", str(asked), *options])
    assert list(tmp_path.iterdir()) == []


def test_a_real_model_is_asked_and_its_answers_kept(data, asked, tiny_model_dir, tmp_path):
    few = tmp_path / "few.jsonl"
    few.write_text("".join(asked.read_text().splitlines(keepends=True)[:2]))
    main(["--model", str(tiny_model_dir), "--data", str(data), "--questions", str(few), "--out", str(tmp_path / "out")])
    answers = [json.loads(text) for text in (tmp_path / "out" / "answers.jsonl").read_text().splitlines()]
    assert len(answers) == 2
    for answer in answers:
        assert len(answer["poses"]) == answer["answer"].count("<pose>")
        assert len(answer["mirrored_poses"]) == answer["mirrored_answer"].count("<pose>")
