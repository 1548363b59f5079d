"""The model inside the package, on the sample pictures: held-out renders whose poses their annotations give."""

import re
from pathlib import Path

import numpy as np
import pytest

import llava_pose
from llava_pose.api import LlavaPose
from llava_pose.geometry import pose_error
from llava_pose.words import TURN_STEP_DEGREES, facing, turn_to_face

SAMPLES = Path(llava_pose.__file__).parent / "assets" / "samples"
POSES = {
    "car": (5.631, 0.161, 6.265),
    "chair": (0.667, 0.333, 6.268),
    "motorbike": (3.760, 0.211, 6.164),
    "teapot": (1.560, 6.152, 6.279),
}
BOXES = {"car": (57, 68, 240, 171), "motorbike": (55, 53, 196, 198)}


@pytest.fixture(scope="module")
def model() -> LlavaPose:
    return LlavaPose.from_pretrained()


def test_each_sample_is_named_and_its_pose_lies_within_30_degrees(model: LlavaPose) -> None:
    found = model.predict([SAMPLES / f"{name}.jpg" for name in POSES])
    assert [each.category for each in found] == list(POSES)
    errors = [float(pose_error(each.pose, POSES[each.category])) for each in found]
    assert np.degrees(errors).max() < 30


def test_a_box_serves_as_well_as_the_whole_picture(model: LlavaPose) -> None:
    names = list(BOXES)
    found = model.predict([SAMPLES / f"{name}.jpg" for name in names], boxes=[BOXES[name] for name in names])
    assert [each.category for each in found] == names
    assert max(np.degrees(float(pose_error(each.pose, POSES[each.category]))) for each in found) < 30


def test_an_answer_says_where_the_car_really_faces(model: LlavaPose) -> None:
    answer = model.chat(SAMPLES / "car.jpg", [{"role": "user", "content": "Which way is the car facing?"}])
    (reading,) = answer.readings
    assert answer.complete
    assert facing(POSES["car"]) in answer.text
    assert float(pose_error(reading.pose, POSES["car"])) < np.radians(30)


def test_the_turn_an_answer_tells_is_within_a_step_of_the_true_one(model: LlavaPose) -> None:
    answer = model.chat(SAMPLES / "car.jpg", [{"role": "user", "content": "How far must the car turn to face me?"}])
    told = re.search(r"about (\d+) degrees to its own (left|right)", answer.text)
    assert told is not None
    # Positive is to its own left; the true turn, 37 degrees to its right, lies between two steps.
    turn = float(told[1]) * (1 if told[2] == "left" else -1)
    assert abs(turn - np.degrees(turn_to_face(POSES["car"]))) <= TURN_STEP_DEGREES


def test_the_embedded_model_names_rendered_categories_only_and_takes_a_few_megabytes(model: LlavaPose) -> None:
    from data_prep.rendering.shapes import CATEGORIES

    assert set(model.categories) <= set(CATEGORIES)
    folder = SAMPLES.parent / "model"
    assert (folder / "model.safetensors").stat().st_size < 12e6
