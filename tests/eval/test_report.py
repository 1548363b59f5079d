"""The report: the figures of metrics.json in words, and one self-contained page whatever the names hold."""

import base64
import dataclasses
import io
import json
import math
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data_prep.conversion.rows import encoded
from data_prep.conversion.shards import ShardWriter
from eval import report, sections, tables
from llava_pose import scene, taxonomy
from llava_pose.calibration import expected_calibration_error
from llava_pose.errors import UserError
from llava_pose.evaluation import score
from llava_pose.scene import PosedImage, PosedObject
from tests.eval.made_up import made_up_lines, made_up_metrics

ROOT = Path(__file__).parents[2]
CAR = PosedObject(
    0, "car", (10.0, 10.0, 50.0, 40.0), 0.5, 0.1, 0.0, 5.0, 30.0, 25.0, 900.0, 1, "status_good", "dense_yes"
)


def line(number, error=0.1, category="car", predicted="car", image_id=None):
    return {
        "image_id": image_id or f"{category}/n{number}",
        "object_id": 0,
        "category": category,
        "predicted_category": predicted,
        "class_probability": 0.75,
        "azimuth": 0.5 + error,
        "elevation": 0.1,
        "theta": 0.0,
        "confidence": 0.5,
        "target": {"azimuth": 0.5, "elevation": 0.1, "theta": 0.0},
        "pose_error": error,
        "correct": predicted == category,
    }


LINES = [
    *(line(number, error) for number, error in enumerate([0.05, 0.1, 0.2, 0.4, 1.5, 3.0])),
    line(6, 0.1, "chair", "sofa"),
    line(7, 0.2, "chair", "chair"),
]


def metrics_of(lines):
    chance = {"constant": score(lines[-2:])["joint"]["average"]}
    argmax = score(lines[:3])["joint"]["average"]
    settings = {"model": 'runs/<b>&"demo"', "categories": ["car", "chair"], "seed": 0}
    return {**score(lines), "settings": settings, "argmax": argmax, "chance": chance}


@pytest.fixture
def data(tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    writer = ShardWriter(folder, "val")
    pixels = np.random.default_rng(0).integers(0, 256, (50, 60, 3), dtype=np.uint8)
    for row in LINES:
        item = dataclasses.replace(CAR, category=row["category"])
        writer.add(encoded(PosedImage(Image.fromarray(pixels), row["image_id"], 60, 50, (item,), "", ())))
    writer.close()
    return scene.load_split(folder, "val")


class Page(HTMLParser):
    """What a browser would find: elements, their attributes, and the visible text."""

    def __init__(self, text):
        super().__init__()
        self.open, self.elements, self.text = [], [], ""
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag not in {"meta", "img", "br"}:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_startendtag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))

    def handle_data(self, data):
        self.text += data + " "


def test_the_terminal_table_holds_ours_chance_and_publication_side_by_side():
    text = report.format_table(metrics_of(LINES))
    rows = {row[:52].strip(): row[52:].split() for row in text.splitlines() if row.strip()}
    text_rows = text.splitlines()
    assert text_rows[0].split()[-1] == "objects"
    # Six of eight below nothing wrong: errors below π/6 with the right class are 0.05, 0.1, 0.2, 0.4 and 0.2.
    assert re.search(r"^this model +62\.5 +25\.0 ", text, re.MULTILINE)
    assert re.search(r"^this model, pose only +75\.0 +37\.5 ", text, re.MULTILINE)
    assert re.search(r"^chance: constant +50\.0 +0\.0 ", text, re.MULTILINE)
    published = "LLaVA-pose, published (other data set: ImageNet3D)"
    assert re.search(rf"^{re.escape(published)} +49\.1 +15\.2 +31\.2 +– +– +–$", text, re.MULTILINE)
    assert re.search(r"^furniture +50\.0 ", text, re.MULTILINE) and re.search(r"^vehicles ", text, re.MULTILINE)
    assert len({len(row) for row in text_rows[:6]}) == 1 and rows


def test_known_categories_stand_beside_novel_ones_where_there_are_both():
    known, novel = "car", "chair"
    assert known in taxonomy.known() and novel not in taxonomy.known()
    metrics = metrics_of([line(1, 0.1, known, known), line(2, 0.2, novel, novel), line(3, 0.3, novel, "bus")])
    assert {name: table["count"] for name, table in metrics["open_vocabulary"].items()} == {"known": 1, "novel": 2}
    assert metrics["open_vocabulary"]["novel"]["classification_accuracy"] == 50
    assert "known categories" in report.format_table(metrics) and "Open vocabulary" in report.render(metrics, [], None)
    metrics = metrics_of([line(1, 0.1, novel, novel)] * 2)
    assert "known" not in metrics["open_vocabulary"]
    assert "ocabulary" not in report.format_table(metrics) + report.render(metrics, [], None)


def test_the_published_figures_are_those_of_the_paper():
    joint = tables.PUBLISHED["joint"]
    assert set(joint) == {"ResNet50-General", "SwinTrans-T-General", "LLaVA-pose", "NOVUM", "NMM-Sphere"}
    assert joint["NMM-Sphere"]["average"] == {"acc_pi_6": 57.4, "acc_pi_18": 22.8, "median_error_deg": 23.7}
    assert joint["LLaVA-pose"]["meta_classes"]["sports"] == {
        "acc_pi_6": 26.1,
        "acc_pi_18": 9.0,
        "median_error_deg": 90.3,
    }


def test_a_result_over_all_its_categories_is_not_called_another_data_set():
    metrics = {"joint": {"categories": dict.fromkeys(range(189))}}
    assert tables.published_on(metrics) == "published (ImageNet3D)"


def test_the_page_is_well_formed_self_contained_and_shows_the_figures(tmp_path, data):
    path = tmp_path / "report.html"
    report.write_report(path, metrics_of(LINES), LINES, data)
    assert [item.name for item in tmp_path.iterdir() if item.name.startswith(".")] == []
    text = path.read_text(encoding="utf-8")
    shown = Page(text)
    assert shown.open == []
    for tag, attributes in shown.elements:
        assert tag not in {"script", "link", "iframe"}
        for name, value in attributes.items():
            assert name != "onload" and not (name == "src" and not value.startswith("data:image/jpeg"))
            assert not (name == "href" and f'id="{value[1:]}"' not in text), "links lead to sections of the page"
    assert "url(" not in text and "@import" not in text and "://" not in text
    for words in ["62.5", "49.1", "published (other data set: ImageNet3D)", "furniture", "sofa", "car/n5"]:
        assert words in shown.text, words
    pictures = [attributes for tag, attributes in shown.elements if tag == "img"]
    # Two galleries of six and the three misses, a prediction and a truth each.
    assert len(pictures) == 30
    assert all(len(picture["alt"]) > 20 for picture in pictures)


def test_every_text_is_escaped(tmp_path):
    evil = '<script>alert("1")</script>&'
    lines = [
        line(0, 0.1, "car", "chair"),
        {**line(1), "image_id": evil, "predicted_category": evil, "correct": False},
    ]
    metrics = metrics_of([line(0), line(1)])
    metrics["joint"]["categories"][evil] = metrics["joint"]["average"]
    metrics["settings"][evil] = [evil]
    shown = report.render(metrics, lines, lambda line: None)
    assert "<script" not in shown and shown.count("&lt;script&gt;") >= 4
    assert Page(shown).open == []


def test_predictions_without_a_finite_pose_are_shown_as_such_and_rank_last(data):
    lost = {**line(0), "azimuth": math.nan, "pose_error": math.nan, "correct": True}
    assert sections.joint_error(lost) == math.pi
    assert sections.joint_error({**lost, "correct": False}) == 2 * math.pi
    assert sections.joint_error(line(0, 0.2, "chair", "sofa")) == math.pi + 0.2
    shown = " ".join(Page(report.render(metrics_of(LINES), [lost], report.record_finder(data))).text.split())
    assert "error: no pose" in shown and "predicted none" in shown


def headings(text):
    return re.findall(r"<h2>(.*?)</h2>", text) + re.findall(r"<h3>(.*?)</h3>", text)


def test_results_of_an_earlier_version_lack_sections_and_break_nothing():
    old = [{name: value for name, value in row.items() if name != "confidence"} for row in LINES]
    metrics = {name: metrics_of(LINES)[name] for name in ("joint", "pose_only", "settings")}
    text = report.render(metrics, old, lambda row: None)
    assert Page(text).open == []
    assert "Surest misses" not in text and "Confidence" not in text and "Expected" not in text and "failed" not in text
    assert {"Scores", "Which side is seen", "By category", "Worst predictions"} <= set(headings(text))


def joint_gap(lines):
    told = [line for line in lines if "error" not in line]
    hits = np.array([line["correct"] and line["pose_error"] < math.pi / 6 for line in told])
    return 100 * expected_calibration_error(np.array([line["joint_confidence"] for line in told]), hits)


def test_everything_that_is_known_is_shown():
    lines = made_up_lines(180)
    metrics = made_up_metrics(lines)
    table = {"count": 9, "accuracy": 75.0, "chance_majority": 30.0, "chance_uniform": 12.5, "flip_consistency": None}
    metrics["questions"] = {"overall": table, "kinds": {"facing": table}}
    text = report.render(metrics, lines, lambda line: None)
    shown = Page(text)
    assert shown.open == []
    assert headings(text) == [
        "Scores",
        "Graphs",
        "By meta-class",
        "Open vocabulary",
        "By training objects",
        "3D questions",
        "By category",
        "Most frequent confusions",
        "Typical predictions",
        "Worst predictions",
        "Surest misses",
        "Failed images",
        "Settings",
        "Pose errors",
        "Accuracy at every threshold",
        "Which side is seen",
        "Azimuth errors",
        "Confidence and truth",
        "Expected and real error",
    ]
    words = " ".join(shown.text.split())
    low, high = metrics["confidence_intervals"]["acc_pi_6"]
    assert f"{low:.1f} – {high:.1f}" in words and "95 % confidence interval" in words
    assert f"(ECE): {joint_gap(lines):.1f} for class and pose, {metrics['calibration']['ece']:.1f} for pose" in words
    assert "runs/model · runs/data · val · crops: object · 180 objects · 2 failed and count as misses" in words
    assert "teapot/n0003: image: cannot be decoded: truncated" in words
    assert "of 178 objects" in words and "dining table" in words and "which is right" in words
    assert re.search(r"versions .*llava-pose \S+ · python 3\.\d+\.\d+ · torch .* transformers ", words)


def test_poses_given_the_class_have_no_class_figures():
    nothing_named = dict.fromkeys(("class_probability", "joint_confidence", "unexplored"))
    lines = [{**row, **nothing_named} for row in made_up_lines(60)]
    text = report.render(made_up_metrics(lines, "pose"), lines, lambda line: None)
    assert Page(text).open == []
    assert "class %" in text and "None" not in text


def test_only_failed_images_make_a_page_too():
    lines = [row for row in made_up_lines(9) if "error" in row]
    text = report.render(made_up_metrics(lines), lines, lambda line: None)
    assert Page(text).open == [] and "Failed images" in text and "2 failed" in text


def test_an_object_of_a_scene_is_shown_close_up(data):
    item = dataclasses.replace(CAR, bbox=(300.0, 200.0, 340.0, 230.0))
    scene_picture = Image.new("RGB", (800, 600), (10, 20, 30))
    scene_picture.paste((250, 250, 250), (300, 200, 340, 230))
    record = PosedImage(scene_picture, "car/n0", 800, 600, (item,), "", ())
    text = report.render(metrics_of(LINES), [line(0)], lambda row: record)
    source = re.search(r'src="data:image/jpeg;base64,([^"]+)"', text)[1]
    picture = np.asarray(Image.open(io.BytesIO(base64.b64decode(source))))
    assert picture.shape[1] == 224
    assert 0.15 < (picture.min(-1) > 200).mean() < 0.45, "the object fills a good part of it"


def test_few_or_no_samples_make_a_page_too(data):
    finder = report.record_finder(data)
    assert Page(report.render(metrics_of(LINES), LINES[:1], finder)).open == []
    assert "None: every class is right." in report.render(metrics_of(LINES), LINES[:1], finder)


def run_report(*options):
    return subprocess.run(
        [sys.executable, "eval/report.py", *map(str, options)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )


def test_the_command_writes_the_page_anew_and_refuses_folders_without_results(tmp_path, data):
    out = tmp_path / "results"
    out.mkdir()
    (out / "metrics.json").write_text(json.dumps(metrics_of(LINES)))
    refused = run_report("--out", out, "--data", tmp_path / "data")
    assert refused.returncode == 2
    assert refused.stderr == f"error: {out}: predictions.jsonl is missing\n"
    (out / "predictions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in LINES))
    assert run_report("--out", out, "--data", tmp_path / "data").returncode == 0
    assert "car/n5" in (out / "report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("file", "text", "told"),
    [
        ("metrics.json", "{", "metrics.json: not JSON: "),
        ("metrics.json", "[]", "metrics.json: joint is missing: not the metrics of an evaluation"),
        (
            "predictions.jsonl",
            '{"image_id": "car/n0"}\n',
            "predictions.jsonl:1: azimuth is missing: not a prediction line",
        ),
        ("predictions.jsonl", "7\n", "predictions.jsonl:1: image_id is missing"),
        ("predictions.jsonl", json.dumps({**LINES[0], "image_id": "car/other"}), "data: has no car/other: the predic"),
    ],
)
def test_results_that_are_none_or_of_other_data_are_refused(tmp_path, data, monkeypatch, file, text, told):
    out = tmp_path / "results"
    out.mkdir()
    (out / "metrics.json").write_text(json.dumps(metrics_of(LINES)))
    (out / "predictions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in LINES))
    (out / file).write_text(text)
    monkeypatch.setattr(sys, "argv", ["report.py", "--out", str(out), "--data", str(tmp_path / "data")])
    with pytest.raises(UserError, match=told):
        report.main()
    assert not (out / "report.html").exists()
