"""A conversation about the object in a box: what the model sees, and where the axes are drawn."""

import dataclasses
from typing import Any

import numpy as np
import pytest
from PIL import Image

from llava_pose.chat import Session, posed_answers, print_poses
from llava_pose.cli import main
from llava_pose.engine import Answer
from llava_pose.errors import UserError
from llava_pose.reading import Alternative, PoseReading

READING = PoseReading(np.array([0.5, 0.1, 0.0]), np.zeros(3), 0.9, np.full((3, 40), 1 / 40))


class Model:
    """Answers the same about every picture and remembers what it was shown."""

    def __init__(self) -> None:
        self.seen: list[Image.Image] = []

    def recent(self, messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return messages

    def stream(self, image: Image.Image, messages: list[dict[str, Any]]) -> Any:
        self.seen.append(image)
        yield Answer("The car <pose> faces away.", [READING], complete=True)


def test_the_model_sees_the_square_around_the_box_and_nothing_else() -> None:
    picture = Image.new("RGB", (200, 100), "red")
    picture.paste("blue", (40, 20, 80, 60))
    model = Model()
    Session(model, picture, box=(40, 20, 80, 60)).ask("Which way?")  # type: ignore[arg-type]
    (seen,) = model.seen
    assert seen.size == (48, 48)
    colors = {color for _, color in seen.getcolors()}
    assert colors == {(255, 0, 0), (0, 0, 255)}
    assert seen.getpixel((4, 4)) == seen.getpixel((43, 43)) == (0, 0, 255)


def test_a_lone_object_is_where_the_box_is_and_several_are_not_told_apart() -> None:
    box = (40.0, 20.0, 80.0, 60.0)
    assert [each.box for each in posed_answers(Answer("A car <pose>.", [READING]), box)] == [box]
    both = Answer("A car <pose> and a bus <pose>.", [READING, READING])
    assert [each.box for each in posed_answers(both, box)] == [None, None]


def test_a_pose_that_may_as_well_be_another_has_a_line_that_says_which(capsys: pytest.CaptureFixture[str]) -> None:
    other = Alternative(np.array([0.5 + np.pi, 0.1, 0.0]), 0.3, np.pi)
    unsure = dataclasses.replace(READING, confidence=0.6, alternative=other)
    print_poses(Answer("A car <pose> and a table <pose>.", [READING, unsure]))
    assert capsys.readouterr().out.splitlines() == [
        "  1. azimuth 29°, elevation 6°, theta 0° · seen from its front-left, from slightly above  (90% sure)",
        "  2. azimuth 29°, elevation 6°, theta 0° · seen from its front-left, from slightly above  (60% sure)",
        "     or azimuth 209°, elevation 6°, theta 0° · seen from its back-right, from slightly above  (30%)",
    ]


def test_another_picture_has_no_box(tmp_path: Any) -> None:
    Image.new("RGB", (50, 50)).save(tmp_path / "other.png")
    session = Session(Model(), Image.new("RGB", (200, 100)), box=(40, 20, 80, 60))  # type: ignore[arg-type]
    session.open(str(tmp_path / "other.png"))
    assert session.box is None


def test_a_box_outside_the_picture_is_refused_before_any_model_is_opened(tmp_path: Any) -> None:
    Image.new("RGB", (50, 50)).save(tmp_path / "a.png")
    with pytest.raises(UserError, match=r"box: 60,60,80,80 lies outside the image of 50x50 pixels"):
        main(["chat", str(tmp_path / "a.png"), "--box", "60,60,80,80", "--ask", "?", "--model", "nowhere"])
