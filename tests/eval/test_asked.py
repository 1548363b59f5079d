"""3D questions as part of the benchmark: asked by any number of processes, kept, scored and resumed like the rest."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from data_prep import questions
from eval import work
from llava_pose.api import LlavaPose
from llava_pose.errors import UserError
from llava_pose.question_scores import read_questions, score
from tests.eval.conftest import Evaluate
from tests.eval.test_resume import ROOT, launch


@pytest.fixture(scope="session")
def asked(scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four questions about the scenes. Read only."""
    path = tmp_path_factory.mktemp("questions") / "questions.jsonl"
    questions.write_questions(scenes, path, "val", 4, 0, None)
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:4]))
    return path


def answers_in(out: Path) -> dict[str, dict]:
    answers = [json.loads(line) for line in (out / "answers.jsonl").read_text().splitlines()]
    return {answer["question_id"]: answer for answer in answers}


@pytest.fixture
def brief(monkeypatch: pytest.MonkeyPatch) -> None:
    """A model that has learnt nothing babbles on: a few words of it are enough."""
    monkeypatch.setattr("llava_pose.api.MAX_NEW_TOKENS", 8)


@pytest.mark.usefixtures("brief")
def test_questions_are_answered_scored_and_kept(
    scenes: Path, asked: Path, evaluate: Evaluate, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = evaluate(scenes, "--questions", asked)
    lines = read_questions(asked)
    answers = answers_in(out)
    assert list(answers) == [line["question_id"] for line in lines]
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["questions"] == json.loads(json.dumps(score(lines, answers)))
    assert metrics["questions"]["overall"]["count"] == 4
    plain = evaluate(scenes, out="plain")
    assert (plain / "predictions.jsonl").read_bytes() == (out / "predictions.jsonl").read_bytes()
    assert not (plain / "answers.jsonl").exists()
    monkeypatch.setattr(work, "ask", None)
    assert json.loads((evaluate(scenes, "--questions", asked) / "metrics.json").read_text()) == metrics
    with pytest.raises(UserError, match=r"questions: holds predictions with None, this run has"):
        evaluate(scenes, "--questions", asked, out="plain")


@pytest.mark.usefixtures("brief")
def test_a_stopped_run_asks_only_what_is_left(
    scenes: Path, asked: Path, evaluate: Evaluate, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = evaluate(scenes, "--questions", asked)
    ask, done = work.ask, []

    def stopping(model: LlavaPose, pairs: list, flip: bool) -> Iterator[dict]:
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(pairs)
        return ask(model, pairs, flip)

    with monkeypatch.context() as patch:
        patch.setattr(work, "ask", stopping)
        with pytest.raises(KeyboardInterrupt):
            evaluate(scenes, "--questions", asked, out="stopped")
    done.clear()
    monkeypatch.setattr(work, "ask", lambda *given: (done.append(1), ask(*given))[1])
    out = evaluate(scenes, "--questions", asked, out="stopped")
    assert len(done) == 2
    for name in ("answers.jsonl", "predictions.jsonl", "metrics.json"):
        assert (out / name).read_bytes() == (whole / name).read_bytes()


@pytest.mark.slow
def test_two_processes_give_the_same_answers(
    scenes: Path, asked: Path, evaluate: Evaluate, tiny_model_dir: Path, tmp_path: Path
) -> None:
    alone, together = evaluate(scenes, "--questions", asked), tmp_path / "together"
    options = ("--model", tiny_model_dir, "--data", scenes, "--out", together, "--questions", asked)
    done = launch(2, ROOT / "eval" / "benchmark.py", *options)
    assert done.returncode == 0, done.stderr
    assert (together / "answers.jsonl").read_bytes() == (alone / "answers.jsonl").read_bytes()


def test_a_question_about_an_image_that_cannot_be_read_counts_as_wrong(
    scenes: Path, asked: Path, evaluate: Evaluate, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(work, "read_record", lambda row: (None, "car/n1: image: cannot be decoded"))
    out = evaluate(scenes, "--questions", asked)
    assert {answer["error"] for answer in answers_in(out).values()} == {"car/n1: image: cannot be decoded"}
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["questions"]["overall"]["accuracy"] == 0 and metrics["failed"] == 4
    with pytest.raises(UserError, match=r"^car/n1: image: cannot be decoded$"):
        evaluate(scenes, "--questions", asked, "--on-error", "stop", out="stopped")
    assert "4 of 16 could not be asked and count as misses, such as car/n1" in capsys.readouterr().err


def test_questions_that_cannot_be_asked_are_refused_before_any_work(
    scenes: Path, asked: Path, evaluate: Evaluate, tmp_path: Path
) -> None:
    (tmp_path / "broken.jsonl").write_text("{")
    (tmp_path / "empty.jsonl").write_text("")
    (tmp_path / "other.jsonl").write_text(asked.read_text().replace('"image_id": "', '"image_id": "other/'))
    for file, told in {
        "none.jsonl": "none.jsonl: cannot be read",
        "broken.jsonl": "broken.jsonl:1: not a JSON line",
        "empty.jsonl": "empty.jsonl: ",
        "other.jsonl": "the questions are of other data",
    }.items():
        with pytest.raises(UserError) as refused:
            evaluate(scenes, "--questions", tmp_path / file)
        assert told in str(refused.value)
    with pytest.raises(UserError, match=r"questions.jsonl: split: 'val', but --split train"):
        evaluate(scenes, "--questions", asked, "--split", "train")
    assert not (tmp_path / "out").exists()
