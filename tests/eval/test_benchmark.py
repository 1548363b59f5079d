"""The benchmark command on a tiny model: the files it leaves, its protocols, and what it refuses before any work."""

import io
import json
import os
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from data_prep.conversion.shards import ShardWriter
from llava_pose import checkpoint, taxonomy
from llava_pose.engine import Engine
from llava_pose.errors import UserError
from llava_pose.evaluation import Place, read_lines, read_subjects
from llava_pose.geometry import pose_error
from llava_pose.images import crop_box
from llava_pose.scene import PosedImage, load_split
from tests.eval.conftest import Evaluate, write_crops
from tests.short_runs import posed_image, write_split

ANGLES = ("azimuth", "elevation", "theta")
LINE = {
    *("image_id", "object_id", "category", "predicted_category", "class_probability", *ANGLES),
    *("confidence", "target", "pose_error", "argmax_pose_error", "correct"),
    *("row", "crop", "meta_class", "expected_error", "alternative", "given_class_pose_error", "unexplored"),
    "joint_confidence",
}
TABLE = {"acc_pi_6", "acc_pi_18", "median_error_deg", "mean_error_deg", "classification_accuracy", "count"}


def metrics_in(out: Path) -> dict:
    return json.loads((out / "metrics.json").read_text())


def lines_in(out: Path) -> list[dict]:
    return read_lines(out / "predictions.jsonl")


def test_the_files_are_those_of_the_contract_and_agree(crops: Path, evaluate: Evaluate) -> None:
    out = evaluate(crops)
    assert sorted(path.name for path in out.iterdir()) == ["metrics.json", "predictions.jsonl", "report.html"]
    lines = lines_in(out)
    assert [line["image_id"] for line in lines] == load_split(crops, "val")["image_id"][:]
    for row, line in enumerate(lines):
        assert set(line) == LINE and line["row"] == row
        found, true = ([angles[name] for name in ANGLES] for angles in (line, line["target"]))
        assert abs(line["pose_error"] - float(pose_error(found, true))) < 1e-9
        assert line["correct"] == (line["category"] == line["predicted_category"])
        assert line["meta_class"] == taxonomy.meta_class(line["category"])
    metrics = metrics_in(out)
    assert {"joint", "pose_only", "settings", "confidence_intervals", "calibration", "failed"} <= set(metrics)
    assert set(metrics["joint"]) == {"average", "meta_classes", "categories"}
    average = metrics["joint"]["average"]
    assert set(average) == TABLE and average["count"] == 9
    for name, (low, high) in metrics["confidence_intervals"].items():
        assert low <= average[name] <= high
    assert sum(row["count"] for row in metrics["calibration"]["bins"]) == 9
    assert metrics["failed"] == 0
    assert {"versions", "protocol", "crop", "dtype", "reading", "split"} <= set(metrics["settings"])


def test_the_pose_at_the_true_class_is_that_of_a_plain_forward_pass(
    crops: Path, evaluate: Evaluate, tiny_model_dir: Path
) -> None:
    lines = lines_in(evaluate(crops))
    engine = Engine(*checkpoint.load(tiny_model_dir))
    data = load_split(crops, "val")
    names = sorted({line["category"] for line in lines})
    for line in lines[:3]:
        record = PosedImage.from_row(data[line["row"]])
        # With one candidate there is nothing but the true class to read the pose at.
        [naming] = engine.name([record.image], engine.name_trie([line["category"]]))
        expected = float(pose_error(naming.reading.pose, record.objects[0].pose))
        assert line["given_class_pose_error"] == pytest.approx(expected, abs=1e-4)
    wrong = [line for line in lines if not line["correct"]]
    assert wrong and any(line["given_class_pose_error"] != line["pose_error"] for line in wrong)
    assert len(names) == 3


def test_the_pose_protocol_reads_at_the_true_class_and_names_nothing(crops: Path, evaluate: Evaluate) -> None:
    joint, pose = evaluate(crops), evaluate(crops, "--protocol", "pose", out="pose")
    for one, other in zip(lines_in(joint), lines_in(pose), strict=True):
        assert other["pose_error"] == pytest.approx(one["given_class_pose_error"], abs=1e-4)
        assert other["predicted_category"] == other["category"] and other["class_probability"] is None
    metrics = metrics_in(pose)
    assert metrics["settings"]["protocol"] == "pose"
    assert metrics["joint"]["average"]["classification_accuracy"] is None
    expected = metrics_in(joint)["given_class"]
    assert metrics["pose_only"]["average"]["median_error_deg"] == pytest.approx(expected["median_error_deg"], abs=0.01)


def test_options_change_what_they_say_and_nothing_else(crops: Path, evaluate: Evaluate) -> None:
    plain = lines_in(evaluate(crops))
    sooner = lines_in(evaluate(crops, "--winner-only", out="sooner"))
    for one, other in zip(plain, sooner, strict=True):
        assert one["predicted_category"] == other["predicted_category"]
        assert one["pose_error"] == pytest.approx(other["pose_error"], abs=1e-4)
        assert 0 <= one["class_probability"] - other["class_probability"] + 1e-6 <= other["unexplored"] + 2e-6
    by_tokens = evaluate(crops, "--max-batch-tokens", "500", out="tokens")
    assert metrics_in(by_tokens)["settings"]["batch"] < 9
    for one, other in zip(plain, lines_in(by_tokens), strict=True):
        assert one["class_probability"] == pytest.approx(other["class_probability"], abs=1e-5)
    flipped = lines_in(evaluate(crops, "--flip", out="flip"))
    assert [line["class_probability"] for line in flipped] == [line["class_probability"] for line in plain]
    assert [line["azimuth"] for line in flipped] != [line["azimuth"] for line in plain]
    least = lines_in(evaluate(crops, "--reading", "error", "--temperature", "5", out="error"))
    assert [line["azimuth"] for line in least] != [line["azimuth"] for line in plain]
    assert all(one["class_probability"] > other["class_probability"] for one, other in zip(plain, least, strict=True))


def test_objects_of_a_scene_are_cut_by_their_boxes_as_people_cut_them(
    scenes: Path, evaluate: Evaluate, tiny_model_dir: Path
) -> None:
    out = evaluate(scenes)
    lines, data = lines_in(out), load_split(scenes, "val")
    rows = data["objects"][:]
    assert [(line["row"], line["object_id"]) for line in lines] == [
        (row, item["object_id"]) for row, items in enumerate(rows) for item in items
    ]
    assert {line["crop"] for line in lines} == {metrics_in(out)["settings"]["crop"]} == {"box of scene"}
    engine = Engine(*checkpoint.load(tiny_model_dir))
    trie = engine.name_trie(sorted({line["category"] for line in lines}))
    for line in lines[-3:]:
        record = PosedImage.from_row(data[line["row"]])
        box = record.objects[line["object_id"]].bbox
        [naming] = engine.name([crop_box(record.image, box)], trie)
        assert [line[name] for name in ANGLES] == pytest.approx(list(naming.reading.pose), abs=1e-3)


def test_categories_stand_in_a_table_by_how_many_training_objects_they_have(tmp_path: Path, evaluate: Evaluate) -> None:
    write_crops(tmp_path / "data", "train", 32)
    write_crops(tmp_path / "data", "val", 6)
    tables = metrics_in(evaluate(tmp_path / "data"))["by_training_objects"]
    # Cars, sofas and bicycles by turns: eleven of the first two, ten of the last.
    assert {name: table["count"] for name, table in tables.items()} == {"1-10": 2, "11-100": 4}


def damaged(folder: Path) -> None:
    """Eight rows, four of which cannot be evaluated."""
    rng = np.random.default_rng(0)
    with ShardWriter(folder, "val") as writer:
        for number in range(8):
            record = posed_image(number, "car", 2 if number == 3 else 1, rng, 48)
            path = folder / "picture.png"
            record.image.save(path)
            row = {**record.to_row(), "image": {"bytes": path.read_bytes(), "path": None}}
            path.unlink()
            if number == 1:
                row["image"]["bytes"] = row["image"]["bytes"][:200]
            if number == 2:
                row |= {"objects": [], "caption": "", "caption_objects": []}
            if number == 5:
                row["width"] = 47
            if number == 6:
                row["image"] = None
            writer.add(row)


def test_a_failing_image_is_a_line_with_its_error_and_a_miss(
    tmp_path: Path, evaluate: Evaluate, capsys: pytest.CaptureFixture
) -> None:
    data = tmp_path / "data"
    write_crops(data, "train", 3)
    damaged(data)
    out = evaluate(data, "--batch-size", "3")
    lines = lines_in(out)
    assert [(line["row"], "error" in line) for line in lines] == [
        *((0, False), (1, True), (2, True), (3, True), (3, True), (4, False), (5, True), (6, True), (7, False))
    ]
    told = {line["row"]: line["error"] for line in lines if "error" in line}
    assert told[1].startswith("car/n0001: image: cannot be decoded")
    assert told[2] == "car/n0002: objects: 0 in a row, expected 1"
    assert told[3] == "car/n0003: objects: 2 in a row, expected 1"
    assert told[5] == "car/n0005: width, height: 47x48, but the image has 48x48"
    assert told[6] == "car/n0006: image: there is none in the row"
    for line in lines:
        if "error" in line:
            assert set(line) == LINE | {"error"}
            assert line["pose_error"] is line["azimuth"] is line["predicted_category"] is None
            assert line["correct"] is False
    assert lines[2]["object_id"] is None and lines[2]["target"] is None and lines[2]["category"] == "car"
    metrics = metrics_in(out)
    assert metrics["failed"] == 6
    assert metrics["joint"]["average"]["count"] == 9
    shown = [line["pose_error"] for line in lines if "error" not in line]
    assert metrics["pose_only"]["average"]["mean_error_deg"] == pytest.approx(np.degrees(sum(shown) + 6 * np.pi) / 9)
    assert "6 of 9 could not be asked and count as misses, such as car/n0001: image" in capsys.readouterr().err
    with pytest.raises(UserError, match=r"car/n0001: image: cannot be decoded"):
        evaluate(data, "--on-error", "stop", out="stopped")


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "WEBP", "TIFF"])
def test_bytes_damaged_anywhere_are_an_error_of_their_own_row(kind: str) -> None:
    stream, rng = io.BytesIO(), np.random.default_rng(0)
    record = posed_image(0, "car", 1, rng, 48)
    record.image.save(stream, kind)
    failed = 0
    for _ in range(150):
        content = bytearray(stream.getvalue())
        for place in rng.integers(len(content), size=3):
            content[place] = rng.integers(256)
        if rng.random() < 0.3:
            del content[int(rng.integers(len(content))) :]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's, on what it repairs
            row = {**record.to_row(), "image": {"bytes": bytes(content), "path": None}}
            [subject] = read_subjects([row], [Place(0, 0)], None, by_box=False)
        assert (subject.image is None) == bool(subject.error) and subject.target == record.objects[0]
        failed += bool(subject.error)
    assert failed > 5


def test_a_box_outside_its_image_fails_alone(tmp_path: Path, evaluate: Evaluate) -> None:
    data = tmp_path / "data"
    write_crops(data, "train", 3)
    write_split(data, "val", 5, seed=0)
    with ShardWriter(data, "val", 1, 2) as writer:
        row = load_split(data, "val").with_format("arrow")[4].to_pylist()[0]
        row["objects"][1]["bbox"] = [200.0, 200.0, 240.0, 240.0]
        writer.add(row)
    lines = lines_in(evaluate(data, "--crop", "box"))
    assert [line["error"] for line in lines if "error" in line] == [
        f"{row['image_id']}: object 1: box: 200,200,240,240 lies outside the image of 48x48 pixels"
    ]


@pytest.mark.parametrize(
    ("size", "mode"),
    [((1, 1), "L"), ((1, 1), "RGBA"), ((3, 3), "LA"), ((3, 1), "P"), ((9, 9), "I;16"), ((8000, 6000), "L")],
)
def test_images_of_any_size_and_mode_are_evaluated(tmp_path: Path, evaluate: Evaluate, size, mode) -> None:
    data = tmp_path / "data"
    write_crops(data, "train", 3)
    record = posed_image(0, "car", 1, np.random.default_rng(0), 48)
    path = tmp_path / "picture.png"
    Image.new(mode, size).save(path)
    row = {**record.to_row(), "image": {"bytes": path.read_bytes(), "path": None}}
    with ShardWriter(data, "val") as writer:
        writer.add({**row, "width": size[0], "height": size[1]})
    [line] = lines_in(evaluate(data))
    assert "error" not in line and line["pose_error"] is not None


def test_ten_thousand_names_are_told_apart(tmp_path: Path, crops: Path, evaluate: Evaluate) -> None:
    own = {f"gadget_{number}": {"meta_class": "gadgets"} for number in range(10_000)}
    (tmp_path / "taxonomy.json").write_text(json.dumps({"categories": own}))
    taxonomy.use_file(tmp_path / "taxonomy.json")
    (tmp_path / "names.txt").write_text("\n".join([*own, "car", "sofa", "bicycle"]))
    out = evaluate(crops, "--categories", tmp_path / "names.txt", "--winner-only", "--batch-size", "3")
    assert len(lines_in(out)) == 9 and len(metrics_in(out)["settings"]["categories"]) == 10_003


def refused(evaluate: Evaluate, *arguments: object, **more: object) -> str:
    with pytest.raises(UserError) as caught:
        evaluate(*arguments, **more)
    return str(caught.value)


def test_wrong_input_is_refused_before_any_work(
    tmp_path: Path, crops: Path, evaluate: Evaluate, released: tuple, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    assert refused(evaluate, crops, out="file") == f"--out {tmp_path / 'file'}: a file, not a folder"
    assert refused(evaluate, crops, "--split", "test") == f"{crops}: no split 'test' (found: train, val)"
    for text, told in {
        "": "category file holds no name",
        "car\nCar\n": ":2: category: 'Car' repeats line 1",
        "car\nsofa\n": "'bicycle' is in the data but not among the names",
    }.items():
        (tmp_path / "names.txt").write_text(text)
        assert told in refused(evaluate, crops, "--categories", tmp_path / "names.txt")
    only_val = tmp_path / "only val"
    write_crops(only_val, "val", 3)
    assert refused(evaluate, only_val) == f"{only_val}: no split 'train' (found: val)"
    monkeypatch.setattr(torch.nn.Module, "to", None)
    assert refused(evaluate, crops, model=released[1]) == (
        f"{released[1]}: a model without a pose head; finetune it first (train/finetune.py)"
    )
    assert not (tmp_path / "out").exists()


def test_a_name_without_tokens_is_refused(tmp_path: Path, crops: Path, evaluate: Evaluate) -> None:
    (tmp_path / "taxonomy.json").write_text(
        json.dumps({"categories": {"nothing": {"meta_class": "none", "spoken": "\u200b"}}})
    )
    (tmp_path / "names.txt").write_text("car\nsofa\nbicycle\nnothing\n")
    with pytest.raises(UserError, match=r"categories.nothing.spoken: expected words on one line, .*u200b"):
        taxonomy.use_file(tmp_path / "taxonomy.json")
        evaluate(crops, "--categories", tmp_path / "names.txt")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written_is_refused(tmp_path: Path, crops: Path, evaluate: Evaluate) -> None:
    (tmp_path / "locked").mkdir(mode=0o500)
    assert "Permission denied" in refused(evaluate, crops, out="locked/out")


def test_data_whose_every_image_fails_is_scored_as_missed(tmp_path: Path, evaluate: Evaluate) -> None:
    data = tmp_path / "data"
    write_crops(data, "train", 3)
    record = posed_image(0, "car", 1, np.random.default_rng(0), 48)
    with ShardWriter(data, "val") as writer:
        for _ in range(2):
            writer.add({**record.to_row(), "image": {"bytes": b"no image", "path": None}})
    metrics = metrics_in(evaluate(data))
    assert metrics["failed"] == metrics["joint"]["average"]["count"] == 2
    assert metrics["joint"]["average"]["mean_error_deg"] == pytest.approx(360)
    assert metrics["calibration"]["bins"] == []
