"""The held-out set of questions: balanced, true of both mirror images, the same from the same data."""

import dataclasses
import json
import subprocess
import sys
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest

from data_prep.questions import main, write_questions
from llava_pose.errors import UserError
from llava_pose.question_scores import read_questions, score, truth
from llava_pose.questions import KIND, KINDS, offered_facts
from llava_pose.scene import PosedImage, load_split
from tests.random_records import posed, random_record, record_of, write_records

ROOT = Path(__file__).parents[2]
OF_TWO = {"same_direction", "face_to_face", "angle_between", "nearer"}


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data sets") / "scènes"
    rng = np.random.default_rng(7)
    mixed = [random_record(rng) for _ in range(240)]
    # By chance two hardly ever face each other: ten pairs do, nearly.
    facing = [
        record_of(*(posed(n, pose=(azimuth + rng.normal(0, 0.1), 0.0, 0.0), center=(x, 150)) for n, azimuth, x in pair))
        for pair in [((0, 1.5 * np.pi, 150), (1, 0.5 * np.pi, 250))] * 10
    ]
    write_records(folder, "val", mixed + facing)
    return folder


@pytest.fixture(scope="module")
def crops(tmp_path_factory):
    folder = tmp_path_factory.mktemp("crops")
    rng = np.random.default_rng(8)
    write_records(folder, "val", (random_record(rng, most=1) for _ in range(60)), crop="object")
    return folder


@pytest.fixture(scope="module")
def lines(scenes):
    write_questions(scenes, scenes / "q.jsonl", "val", per_kind=40, seed=0, limit=None)
    return read_questions(scenes / "q.jsonl")


@pytest.fixture(scope="module")
def records(scenes):
    return [PosedImage.from_row(row) for row in load_split(scenes, "val").remove_columns("image")]


def test_scenes_give_every_kind_with_as_many_questions_of_one_answer_as_of_any_other(lines):
    answers = defaultdict(Counter)
    for line in lines:
        if "choices" in line and line["kind"] != "names":
            answers[line["kind"]][truth(line)] += 1
    assert {line["kind"] for line in lines} == {kind.name for kind in KINDS}
    for kind, labels in answers.items():
        assert len(labels) >= 2 and len(set(labels.values())) == 1, (kind, labels)
        assert labels.total() <= 40
    turns = Counter(round(line["degrees"] / 45) % 8 for line in lines if line["kind"] == "turn")
    assert turns == dict.fromkeys(range(8), 5)
    bands = Counter(min(int(line["degrees"] // 45), 3) for line in lines if line["kind"] == "angle_between")
    assert bands == dict.fromkeys(range(4), 10)


def test_each_thing_is_asked_for_as_often_where_it_is_as_where_it_is_not(lines):
    asked = defaultdict(Counter)
    for line in lines:
        if line["kind"] == "presence":
            asked[line["answer"].split(" a ")[1].removesuffix(".").removesuffix(" <pose>")][line["answer"][:2]] += 1
    assert len(asked) >= 4
    assert all(answers["Ye"] == answers["No"] > 0 for answers in asked.values())


def test_every_line_is_true_of_its_row_and_its_mirror_of_the_mirrored_row(lines, records):
    categories = sorted({item.category for record in records for item in record.objects})
    for line in lines:
        record, kind = records[line["row"]], KIND[line["kind"]]
        assert line["image_id"] == record.image_id and line["split"] == "val"
        for seen, prefix in ((record, ""), (record.mirrored(), "mirrored_")):
            offered = offered_facts(seen, categories)
            told = [
                kind.words(fact, phrasing)
                for (name, _, _), facts in offered.items()
                for fact in facts
                if name == kind.name
                for phrasing in range(len(kind.questions))
            ]
            assert (line[f"{prefix}question"], line[f"{prefix}answer"]) in told


def test_marks_objects_and_poses_belong_together_and_no_object_is_one_to_leave_out(lines, records):
    for line in lines:
        objects = {item.object_id: item for item in records[line["row"]].objects}
        assert line["answer"].count("<pose>") == len(line["object_ids"]) == len(line["poses"])
        for object_id, pose in zip(line["object_ids"], line["poses"], strict=True):
            assert objects[object_id].status in ("status_good", "status_barely")
            np.testing.assert_array_equal(objects[object_id].pose, pose)


def test_the_true_answers_score_full_marks_and_mirror_each_other(lines):
    answers = {
        line["question_id"]: {"answer": line["answer"], "mirrored_answer": line["mirrored_answer"]} for line in lines
    }
    for kind, table in score(lines, answers)["kinds"].items():
        assert (table["accuracy"], table["flip_consistency"], table["marks"]) == (100, 100, 100), kind
    # Who does not notice the mirror is found out wherever the answer has sides.
    same = {name: {**answer, "mirrored_answer": answer["answer"]} for name, answer in answers.items()}
    consistent = {kind: table["flip_consistency"] for kind, table in score(lines, same)["kinds"].items()}
    assert all((consistent[kind.name] < 60) == kind.sided for kind in KINDS), consistent


def test_ids_are_unique_every_phrasing_is_used_and_lines_follow_the_rows(lines):
    assert len({line["question_id"] for line in lines}) == len(lines)
    assert [line["row"] for line in lines] == sorted(line["row"] for line in lines)
    for kind in KINDS:
        asked = {line["question"] for line in lines if line["kind"] == kind.name}
        beginnings = {text.split("{")[0] for text in kind.questions}
        assert all(any(question.startswith(beginning) for question in asked) for beginning in beginnings)


def test_crops_give_the_kinds_about_one_object(crops):
    write_questions(crops, crops / "q.jsonl", "val", per_kind=20, seed=0, limit=None)
    kinds = {line["kind"] for line in read_questions(crops / "q.jsonl")}
    assert kinds and not kinds & (OF_TWO | {"presence", "names"})
    assert {"facing", "side", "turn", "height", "arrow", "camera_side", "front_in_picture"} <= kinds


def test_the_same_data_and_seed_give_the_same_file_and_another_seed_another(scenes, lines, tmp_path):
    first = (scenes / "q.jsonl").read_bytes()
    for seed, out in ((0, tmp_path / "same.jsonl"), (1, tmp_path / "other.jsonl")):
        write_questions(scenes, out, "val", per_kind=40, seed=seed, limit=None)
    assert (tmp_path / "same.jsonl").read_bytes() == first
    assert (tmp_path / "other.jsonl").read_bytes() != first


def test_a_limit_looks_at_rows_from_all_over_the_data(scenes, tmp_path):
    write_questions(scenes, tmp_path / "q.jsonl", "val", per_kind=40, seed=0, limit=30)
    rows = {line["row"] for line in read_questions(tmp_path / "q.jsonl")}
    assert len(rows) <= 30 and max(rows) > 150 and min(rows) < 100


def test_an_answer_too_rare_to_keep_up_is_left_out_and_told(tmp_path, capsys):
    # Twelve cars from the front, twelve from the back, one from the left.
    azimuths = [0.0] * 12 + [np.pi] * 12 + [np.pi / 2]
    write_records(tmp_path, "val", (record_of(posed(pose=(azimuth, 0.25, 0.0))) for azimuth in azimuths))
    write_questions(tmp_path, tmp_path / "q.jsonl", "val", per_kind=40, seed=0, limit=None)
    facing = Counter(line["answer"] for line in read_questions(tmp_path / "q.jsonl") if line["kind"] == "facing")
    assert sorted(facing.values()) == [12, 12]
    told = capsys.readouterr().out
    assert "facing: 24 questions, 12 of each of 2 answers; left out, too uneven: 'to the left of the picture'" in told
    assert "height: 0 questions; left out, too uneven: 'from slightly above' (25 found)" in told


def test_objects_without_a_status_give_no_question(tmp_path):
    items = [dataclasses.replace(posed(pose=(azimuth, 0.25, 0.0)), status="") for azimuth in (0.0, 1.5, 3.1)]
    write_records(tmp_path, "val", map(record_of, items))
    with pytest.raises(UserError, match=f"{tmp_path}: split 'val': no question"):
        write_questions(tmp_path, tmp_path / "q.jsonl", "val", per_kind=40, seed=0, limit=None)
    assert not list(tmp_path.glob("*.jsonl*"))


@pytest.mark.parametrize(
    "options, message",
    [
        (["--out", "q.parquet"], r"q\.parquet: .* ends in \.jsonl"),
        (["--out", "folder.jsonl"], r"folder\.jsonl: a folder"),
        (["--out", "file/q.jsonl"], r"file/q\.jsonl: cannot be written"),
        (["--split", "test"], "no split 'test'"),
        (["--seed", "-1"], "--seed: .* got -1"),
        (["--per-kind", "0"], "--per-kind: .* got '0'"),
        (["--limit", "x"], "--limit: .* got 'x'"),
        (["--data", "none"], "none: data folder does not exist"),
    ],
)
def test_mistakes_are_refused_by_name_and_nothing_is_written(crops, tmp_path, monkeypatch, options, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder.jsonl").mkdir()
    (tmp_path / "file").write_text("kept")
    with pytest.raises(UserError, match=message):
        main(["--data", str(crops), "--out", "q.jsonl", *options])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder.jsonl"]
    assert (tmp_path / "file").read_text() == "kept"


def test_the_command_writes_the_set_and_says_what_it_holds(crops, tmp_path):
    command = [sys.executable, "data_prep/questions.py", "--data", str(crops), "--per-kind", "8", "--out"]
    done = subprocess.run([*command, str(tmp_path / "q.jsonl")], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    count = len((tmp_path / "q.jsonl").read_text().splitlines())
    assert done.stdout.splitlines()[-1] == f"{tmp_path / 'q.jsonl'}: {count} questions"
    assert done.stdout.splitlines()[0] == "facing: 8 questions, 1 of each of 8 answers"
    assert json.loads((tmp_path / "q.jsonl").read_text().splitlines()[0])["split"] == "val"
    refused = subprocess.run([*command, str(tmp_path / "q.txt")], cwd=ROOT, capture_output=True, text=True)
    assert refused.returncode == 2 and len(refused.stderr.splitlines()) == 1
