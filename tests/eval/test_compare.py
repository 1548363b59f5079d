"""Paired comparison: its tests against brute force and scipy's own, and what cannot be compared."""

import itertools
import json
import math
import re
import sys
from pathlib import Path

import numpy as np
import pytest

from eval import compare, published
from eval.compare import mcnemar, wilcoxon
from llava_pose.errors import UserError
from llava_pose.evaluation import score
from tests.eval.conftest import Evaluate


def test_mcnemar_is_the_share_of_all_ways_the_coins_could_fall() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        first, second = rng.random((2, 9)) < rng.random((2, 1))
        apart = [int(a) for a, b in zip(first, second, strict=True) if a != b]
        ways = [sum(coins) for coins in itertools.product((0, 1), repeat=len(apart))]
        least = abs(sum(apart) - len(apart) / 2)
        expected = sum(abs(way - len(apart) / 2) >= least for way in ways) / len(ways)
        assert mcnemar(first, second) == pytest.approx(expected)
    assert mcnemar(np.ones(40_000, bool), np.arange(40_000) % 2 == 0) < 1e-300


def test_wilcoxon_is_the_share_of_all_signs_that_are_as_far_from_even() -> None:
    rng = np.random.default_rng(0)
    for count in (4, 9):
        first, second = rng.random((2, count))
        ranks = np.argsort(np.argsort(np.abs(second - first))) + 1
        found = ranks[second > first].sum()
        sums = [ranks[np.array(signs, dtype=bool)].sum() for signs in itertools.product((0, 1), repeat=count)]
        middle = ranks.sum() / 2
        expected = np.mean([abs(each - middle) >= abs(found - middle) for each in sums])
        assert wilcoxon(first, second) == pytest.approx(expected)
    same = np.array([0.1, 0.2])
    assert wilcoxon(same, same) == 1.0


def run_of(errors: np.ndarray, correct: np.ndarray, name: str = "run", **more: object) -> compare.Run:
    lines = [
        {"image_id": f"car/n{i}", "object_id": 0, "category": "car", "pose_error": float(e), "correct": bool(c), **more}
        for i, (e, c) in enumerate(zip(errors, correct, strict=True))
    ]
    return compare.Run(name, {(line["image_id"], 0): line for line in lines}, {}, True)


def test_equal_runs_do_not_differ_and_a_better_one_does() -> None:
    rng = np.random.default_rng(0)
    errors, correct = rng.uniform(0, 1.5, 600), rng.random(600) < 0.8
    same = compare.compare(run_of(errors, correct), run_of(errors, correct))
    for table in ("joint", "pose_only"):
        for row in same[table].values():
            assert row["difference"] == 0 and row["interval"] == [0, 0] and row["p"] == 1.0
    better = compare.compare(run_of(errors, correct), run_of(errors * 0.8, correct))
    for name, row in better["pose_only"].items():
        sign = 1 if name.startswith("acc") else -1
        assert sign * row["difference"] > 0 and row["p"] < 1e-3
        assert row["interval"][0] * row["interval"][1] > 0
        low, high = row["interval"]
        assert low <= row["difference"] <= high
    assert better["joint"]["classification_accuracy"]["p"] == 1.0


def test_a_difference_of_chance_alone_is_rarely_significant() -> None:
    rng, found, outside = np.random.default_rng(0), [], 0
    for _ in range(40):
        runs = [run_of(rng.uniform(0, 1.5, 100), rng.random(100) < 0.8) for _ in range(2)]
        rows = compare.compare(*runs)["joint"]
        found += [rows[name]["p"] < 0.05 for name in ("acc_pi_6", "mean_error_deg")]
        low, high = rows["mean_error_deg"]["interval"]
        outside += not low <= 0 <= high
    assert np.mean(found) < 0.15 and outside <= 8


def test_a_paired_interval_is_narrower_than_one_of_unpaired_runs() -> None:
    rng = np.random.default_rng(0)
    errors, correct = rng.uniform(0, 3.0, 500), np.ones(500, dtype=bool)
    close = compare.compare(run_of(errors, correct), run_of(errors * 0.99, correct))
    shuffled = compare.compare(run_of(errors, correct), run_of(rng.permutation(errors * 0.99), correct))
    widths = [np.diff(each["pose_only"]["mean_error_deg"]["interval"])[0] for each in (close, shuffled)]
    assert widths[0] < widths[1] / 10


def test_runs_on_other_objects_are_refused() -> None:
    errors, correct = np.full(3, 0.1), np.ones(3, dtype=bool)
    with pytest.raises(UserError, match=r"^b: 1 of the 3 objects of a are missing, such as car/n2, object 0$"):
        compare.compare(run_of(errors, correct, "a"), run_of(errors[:2], correct[:2], "b"))
    with pytest.raises(UserError, match=r"^a, b: car/n0, object 0: target: 1 and 2: the runs are on other data$"):
        compare.compare(run_of(errors, correct, "a", target=1), run_of(errors, correct, "b", target=2))
    with pytest.raises(UserError, match=r"one names classes and the other does not"):
        compare.compare(run_of(errors, correct, "a"), run_of(errors, correct, "b")._replace(classified=False))


def test_what_a_run_learnt_stands_apart_from_what_it_forgot() -> None:
    rng = np.random.default_rng(0)
    errors, new = rng.uniform(0, 0.4, 40), np.arange(40) < 10
    before, after = run_of(errors, ~new, "before"), run_of(errors, new | (rng.random(40) < 0.5), "after")
    for run in (before, after):
        for line, is_new in zip(run.lines.values(), new, strict=True):
            line["category"] = "forklift" if is_new else "car"
    result = compare.compare(before, after, ["forklift"])
    parts = result["apart"]
    assert [part["objects"] for part in parts.values()] == [10, 30] and list(parts) == ["forklift", "all others"]
    classes = [part["joint"]["classification_accuracy"] for part in parts.values()]
    assert classes[0]["values"] == [0, 100] and classes[0]["p"] < 0.01
    assert classes[1]["values"][0] == 100 and classes[1]["interval"][1] < 0
    printed = compare.format_comparison(result)
    assert re.match(r"forklift +0\.0 → 100\.0 .* 10$", printed[-2]) and printed[-1].startswith("all others  ")
    every = compare.compare(before, after, ["car", "forklift"])["apart"]
    assert list(every) == ["car forklift"]
    with pytest.raises(UserError, match=r"^--apart sofa: before holds no object of it$"):
        compare.compare(before, after, ["car", "sofa"])


def command(monkeypatch: pytest.MonkeyPatch, script: object, *options: object) -> None:
    monkeypatch.setattr(sys, "argv", ["script.py", *map(str, options)])
    script.main()  # type: ignore[attr-defined]


def test_the_commands_on_real_runs(
    crops: Path, evaluate: Evaluate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    one, two = evaluate(crops), evaluate(crops, "--flip", out="two")
    command(monkeypatch, compare, one, two, "--out", tmp_path / "comparison.json")
    result = json.loads((tmp_path / "comparison.json").read_text())
    assert result["settings_that_differ"] == {"flip": [False, True]} and result["objects"] == 9
    for run, which in ((one, 0), (two, 1)):
        metrics = json.loads((run / "metrics.json").read_text())
        for table in ("joint", "pose_only"):
            for name, row in result[table].items():
                assert row["values"][which] == pytest.approx(metrics[table]["average"][name])
    command(monkeypatch, published, "--run", one, "--out", tmp_path / "lists.json")
    capsys.readouterr()
    command(monkeypatch, compare, tmp_path / "lists.json", one)
    assert "+0.00" in capsys.readouterr().out
    (one / "metrics.json").unlink()
    with pytest.raises(UserError, match=r"out: metrics.json is missing: no finished run of eval/benchmark.py"):
        command(monkeypatch, compare, one, two)


LISTS = {
    "sample_names": ["n01_5_00", "n01_5_01", "n02_12"],
    "categories": ["car", "car", "diningtable"],
    "pose_errors": [0.25, math.pi + 1e-9, 0.5],
    "classifications": [1, 0, True],
}


def test_the_published_lists_come_back_as_they_went(tmp_path: Path, crops: Path, evaluate: Evaluate) -> None:
    lines = [json.loads(line) for line in (evaluate(crops) / "predictions.jsonl").read_text().splitlines()]
    lines[3] |= {"pose_error": None, "correct": False}
    path = tmp_path / "evaluate.json"
    path.write_text(json.dumps(published.to_lists(lines)))
    back, classified = published.read_published(path)
    assert classified
    for line, again in zip(lines, back, strict=True):
        assert again["pose_error"] == (math.pi if line["pose_error"] is None else line["pose_error"])
        assert {name: again[name] for name in again if name != "pose_error"} == {
            name: line[name] for name in again if name != "pose_error"
        }
    assert score(back) == score(lines)
    assert published.to_lists(back) == json.loads(path.read_text())


def test_published_lists_are_scored_as_their_authors_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    path = tmp_path / "evaluate.json"
    path.write_text(json.dumps(LISTS))
    lines, _ = published.read_published(path)
    assert [(line["image_id"], line["object_id"]) for line in lines] == [
        ("car/n01_5", 0),
        ("car/n01_5", 1),
        ("diningtable/n02", 12),
    ]
    command(monkeypatch, published, "--file", path, "--out", tmp_path / "metrics.json")
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    joint = np.array(LISTS["pose_errors"]) + (1 - np.array(LISTS["classifications"])) * np.pi
    assert metrics["joint"]["average"]["acc_pi_6"] == pytest.approx(100 * np.mean(joint < np.pi / 6))
    assert metrics["joint"]["average"]["mean_error_deg"] == pytest.approx(np.degrees(joint.mean()))
    path.write_text(json.dumps({name: values for name, values in LISTS.items() if name != "classifications"}))
    command(monkeypatch, published, "--file", path, "--out", tmp_path / "metrics.json")
    average = json.loads((tmp_path / "metrics.json").read_text())["joint"]["average"]
    assert average["classification_accuracy"] is None
    assert average["acc_pi_6"] == pytest.approx(100 * 2 / 3)
    assert capsys.readouterr().out.split("pose_only:")[1].split()[:4] == ["acc_pi_6", "66.7", "acc_pi_18", "0.0"]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"categories": ["car"]}, "categories: 1 for 3 sample_names"),
        ({"pose_errors": {"block1": []}}, "pose_errors: no list of that name"),
        ({"pose_errors": [0.25, 7, 0.5]}, "pose_errors[1]: 7 is not in [0, π]"),
        ({"pose_errors": [0.25, "x", 0.5]}, "pose_errors[1]: 'x' is not in [0, π]"),
        ({"classifications": [1, 4, 0]}, "classifications[1]: 4 is neither 0 nor 1"),
        ({"sample_names": ["a_00", "b", "c_01"]}, "sample_names[1]: 'b' does not end in an object's index (_00)"),
        ({"categories": ["car", "carr", "car"]}, "categories[1]: category: unknown name 'carr'"),
        ({name: [] for name in LISTS}, "sample_names: an empty list"),
    ],
)
def test_wrong_published_lists_are_refused_by_name(tmp_path: Path, change: dict, told: str) -> None:
    path = tmp_path / "evaluate.json"
    path.write_text(json.dumps({**LISTS, **change}))
    with pytest.raises(UserError) as refused:
        published.read_published(path)
    assert str(refused.value).startswith(f"{path}: {told}")


def test_a_file_that_is_not_json_is_refused(tmp_path: Path) -> None:
    (tmp_path / "evaluate.json").write_text("{")
    with pytest.raises(UserError, match=r"evaluate.json: cannot be read: "):
        published.read_published(tmp_path / "evaluate.json")
