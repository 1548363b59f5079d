"""What a prediction says: as values, as JSON, in words, and as a picture."""

import io
import json
import math

import numpy as np
import pytest
from PIL import Image

from llava_pose import draw
from llava_pose.errors import UserError
from llava_pose.images import open_image
from llava_pose.overlay import PosedAnswer, answer_picture
from llava_pose.predictions import NOTEBOOK_PIXELS, Candidate, Prediction
from llava_pose.reading import Alternative, PoseReading

POSE = np.radians([312.0, 11.0, 2.0])
BACK = Alternative(np.radians([132.0, 11.0, 2.0]), 0.25, math.pi)
PICTURE = Image.new("RGB", (900, 600), (90, 120, 200))


def reading(pose=POSE, alternative=None):
    return PoseReading(pose, np.full(3, 0.1), 0.7, np.full((3, 40), 1 / 40), 0.2, alternative, True)


def prediction(pose=POSE, alternative=None, box=None, image=PICTURE, others=()):
    best = Candidate("diningtable", 0.8, reading(pose, alternative))
    return Prediction((best, *others), 0.6, box, 0, image)


def test_the_fields_are_those_of_the_best_candidate():
    found = prediction(alternative=BACK)
    assert (found.category, found.class_probability, found.confidence, found.expected_error) == (
        "diningtable",
        0.8,
        0.7,
        0.2,
    )
    assert (found.azimuth, found.elevation, found.theta) == tuple(POSE) == tuple(found.pose)
    assert found.alternative is BACK
    assert found.words == "azimuth 312°, elevation 11°, theta 2° · seen from its front-right, from slightly above"
    assert repr(found) == f"<dining table 80%, {found.words}, 70% sure>"


def test_as_json_a_prediction_has_the_fields_of_the_contract_and_what_else_is_known():
    found = json.loads(json.dumps(prediction(alternative=BACK, box=(1.0, 2.0, 30.0, 40.0)).to_dict(), allow_nan=False))
    assert found["category"] == "diningtable" and found["class_probability"] == 0.8
    assert [found[name] for name in ("azimuth", "elevation", "theta")] == POSE.tolist()
    assert (found["confidence"], found["expected_error"], found["calibrated"]) == (0.7, 0.2, True)
    assert found["joint_confidence"] == 0.6
    assert found["box"] == [1, 2, 30, 40]
    assert found["alternative"]["azimuth"] == math.radians(132) and found["alternative"]["probability"] == 0.25
    assert "candidates" not in found
    assert prediction().to_dict()["box"] is None and prediction().to_dict()["alternative"] is None


def test_several_candidates_are_told_best_first():
    found = prediction(others=[Candidate("car", 0.1, reading())]).to_dict()
    assert [(each["category"], each["class_probability"]) for each in found["candidates"]] == [
        ("diningtable", 0.8),
        ("car", 0.1),
    ]
    assert all(each["azimuth"] == POSE[0] for each in found["candidates"])


def test_a_pose_that_cannot_be_read_is_null_in_json_and_draws_no_axes():
    found = prediction(pose=np.array([math.nan, 0.1, 0.1]), box=(100, 100, 300, 300))
    text = json.dumps(found.to_dict(), allow_nan=False)
    assert json.loads(text)["azimuth"] is None
    assert found.words == "no readable pose" and "no readable pose" in repr(found)
    inside = np.asarray(found.draw())[110:290, 110:290]
    assert (inside == PICTURE.getpixel((0, 0))).all()


def test_drawing_shows_what_an_answers_picture_shows_and_leaves_the_image_alone():
    before = PICTURE.tobytes()
    found = prediction(box=(100, 100, 400, 300))
    expected = answer_picture(PICTURE, [PosedAnswer("dining table", POSE, (100, 100, 400, 300))])
    assert found.draw().tobytes() == expected.tobytes()
    assert PICTURE.tobytes() == before


def test_an_alternative_has_a_line_of_its_own_below_the_picture():
    plain, doubtful = prediction().draw(), prediction(alternative=BACK).draw()
    assert doubtful.width == plain.width and doubtful.height > plain.height


def test_all_objects_of_one_image_are_drawn_in_one_picture_at_any_size():
    boxes = [(30, 40, 300, 400), (500, 200, 880, 560)]
    both = draw([prediction(box=box) for box in boxes], longest=450)
    assert both.width == 560, "small pictures are enlarged, so that the words can be read"
    for box in boxes:
        part = np.asarray(both.crop(tuple(round(edge * 560 / 900) for edge in box)))
        assert (part != PICTURE.getpixel((0, 0))).any(-1).mean() > 0.05
    with pytest.raises(UserError, match="the predictions of one image"):
        draw([prediction(), prediction(image=PICTURE.copy())])
    with pytest.raises(UserError, match="the predictions of one image"):
        draw([])


def test_an_image_that_is_gone_by_now_is_told(tmp_path):
    path = tmp_path / "a.png"
    PICTURE.save(path)
    found = prediction(image=path)
    assert found.draw().size[0] == 900
    path.unlink()
    with pytest.raises(UserError, match=r"a\.png: no such image file"):
        found.draw()


def test_a_notebook_shows_a_small_picture():
    large = Image.new("RGB", (3000, 1000), (90, 120, 200))
    shown = open_image(io.BytesIO(prediction(image=large, box=(300, 100, 1200, 900))._repr_png_()))
    assert shown.width == NOTEBOOK_PIXELS and shown.height < NOTEBOOK_PIXELS
