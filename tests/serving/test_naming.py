"""``/v1/pose``, against what ``LlavaPose.predict`` answers and an independent sum."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from llava_pose import LlavaPose
from llava_pose.reading import PoseReading
from llava_pose.serving.poses import chip, pose_json
from tests.serving.running import CAR, SAMPLES, Served, data_url, refusal

CONTRACT = {"category", "class_probability", "azimuth", "elevation", "theta", "confidence", "box"}


def test_boxes_and_names_are_answered_as_predict_answers(server: Served, model: LlavaPose) -> None:
    boxes, names = [[10, 10, 200, 180], [50.5, 40, 220, 170]], ["car", "Dining Table"]
    found = server.post("/v1/pose", {"image": CAR, "boxes": boxes, "categories": names}).json()["objects"]
    expected = model.predict(SAMPLES / "car.jpg", names, boxes)
    assert [each["box"] for each in found] == boxes
    for one, other in zip(found, expected, strict=True):
        assert set(one) >= CONTRACT
        assert one["category"] == other.category
        for field in ("class_probability", "azimuth", "elevation", "theta", "confidence", "joint_confidence"):
            assert one[field] == pytest.approx(getattr(other, field), abs=1e-4)


def test_a_whole_picture_is_named_among_all_the_model_knows(server: Served, model: LlavaPose) -> None:
    [found] = server.post("/v1/pose", {"image": data_url(SAMPLES / "teapot.jpg")}).json()["objects"]
    [expected] = model.predict(SAMPLES / "teapot.jpg")
    assert (found["category"], found["box"]) == (expected.category, None) == ("teapot", None)
    assert found["chip"].startswith(found["text"] + " · ") and found["chip"].endswith("% sure")
    assert found["words"] in expected.words


def test_distributions_are_the_readings_and_the_rotation_is_the_products_of_the_three_turns(server: Served) -> None:
    [found] = server.post("/v1/pose", {"image": CAR}).json()["objects"]
    for axis in ("azimuth", "elevation", "theta"):
        shares = np.array(found["distributions"][axis])
        assert shares.shape == (40,) and shares.min() >= 0 and shares.sum() == pytest.approx(1, abs=1e-4)
        mode = (shares.argmax() + 0.5) * 2 * np.pi / 40
        assert abs((found[axis] - mode + np.pi) % (2 * np.pi) - np.pi) < 2 * 2 * np.pi / 40

    def about(axis: str, angle: float) -> np.ndarray:
        c, s = np.cos(angle), np.sin(angle)
        return np.array([[1, 0, 0], [0, c, -s], [0, s, c]] if axis == "x" else [[c, -s, 0], [s, c, 0], [0, 0, 1]])

    turns = about("z", found["theta"]) @ about("x", found["elevation"] - np.pi / 2) @ about("z", -found["azimuth"])
    np.testing.assert_allclose(found["rotation"], turns, atol=1e-9)


def test_a_pose_that_could_not_be_read_is_null_and_still_json() -> None:
    reading = PoseReading(np.full(3, np.nan), np.full(3, np.nan), 0.0, np.full((3, 40), np.nan))
    found = json.loads(json.dumps(pose_json(reading, "car"), allow_nan=False))
    assert (found["azimuth"], found["rotation"], found["alternative"]) == (None, None, None)
    assert found["text"] == found["chip"] == found["words"] == "no readable pose"


def test_a_chip_tells_degrees_side_height_and_how_sure() -> None:
    uniform = np.full((3, 40), 1 / 40)
    reading = PoseReading(np.radians([312.0, 11.0, 2.0]), np.zeros(3), 0.83, uniform)
    assert chip(reading) == "azimuth 312°, elevation 11°, theta 2° · front-right, slightly above · 83% sure"


@pytest.mark.parametrize(
    ("change", "param", "told"),
    [
        ({"image": None}, "image", "required"),
        ({"image": 7}, "image", "string"),
        ({"image": "car.jpg"}, "image", "expected data:image/"),
        ({"image": "data:image/png;base64,%%%"}, "image", "not valid base64"),
        ({"image": "data:image/png;base64,aGVsbG8="}, "image", "not a picture that can be read"),
        ({"image": "data:text/html;base64,aGVsbG8="}, "image", "expected data:image/"),
        ({"boxes": []}, "boxes", "at least 1"),
        ({"boxes": [[1, 2, 3]]}, "boxes[0]", "at least 4"),
        ({"boxes": [[1, 2, 3, "4"]]}, "boxes[0][3]", "number"),
        ({"boxes": [[9, 9, 5, 20]]}, "boxes", "9,9,5,20 has no area"),
        ({"boxes": [[999, 9, 1005, 20]]}, "boxes", "lies outside the image of 240x208 pixels"),
        ({"boxes": [[0, 0, 9, 9]] * 33}, "boxes", "at most 32"),
        ({"categories": []}, "categories", "at least 1"),
        ({"categories": ["carr"]}, "categories", "unknown name 'carr'; did you mean car"),
        ({"categories": ["car", "car"]}, "categories", "the same category"),
        ({"categories": ["x" * 101]}, "categories[0]", "at most 100"),
        ({"model": "llava-pose"}, "model", "not permitted"),
    ],
)  # fmt: skip
def test_a_mistake_is_refused_with_its_field_named(
    server: Served, change: dict[str, Any], param: str, told: str
) -> None:
    status, named, message = refusal(server.post("/v1/pose", {"image": CAR, **change}))
    assert (status, named) == (400, param)
    assert told in message


def test_curl_sends_a_picture_as_the_help_says(server: Served, tmp_path: Path) -> None:
    body = '{"image": "data:image/jpeg;base64,\'"$(base64 -w0 car.jpg)"\'"}'
    command = f"curl -sS {server.url}/v1/pose -H 'Content-Type: application/json' -d '{body}'"
    told = subprocess.run(["sh", "-c", command], cwd=SAMPLES, capture_output=True, text=True, check=True).stdout
    assert json.loads(told)["objects"][0]["category"] == "car"
