"""A conversation about the object in a box: what the model sees, and where the axes are drawn."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from llava_pose.chat import Session, posed_answers, print_alternatives
from llava_pose.cli import main
from llava_pose.engine import Answer
from llava_pose.errors import UserError
from llava_pose.reading import Alternative, PoseReading

READING = PoseReading(np.array([0.5, 0.1, 0.0]), np.zeros(3), 0.9, np.full((3, 40), 1 / 40))


class Model:
    """Answers the same about every picture and remembers what it was shown."""

    def __init__(self) -> None:
        self.asked: list[list[dict[str, Any]]] = []

    def recent(self, messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return messages

    def stream(self, image: Image.Image, messages: list[dict[str, Any]], flip: bool = False) -> Any:
        assert image is None
        self.asked.append(messages)
        yield Answer("The car <pose> faces away.", [READING], complete=True)


@pytest.fixture
def pictures(tmp_path: Path) -> list[str]:
    paths = [str(tmp_path / f"{name}.png") for name in ("first", "second")]
    for width, path in zip((200, 50), paths, strict=True):
        Image.new("RGB", (width, 50), "red").save(path)
    return paths


def shown(messages: list[dict[str, Any]]) -> list[list[tuple[int, Any]]]:
    """Of every question, the widths and boxes of the pictures it shows."""
    contents = [message["content"] for message in messages if message["role"] == "user"]
    return [
        [] if isinstance(each, str) else [(part["image"].width, part.get("box")) for part in each[:-1]]
        for each in contents
    ]


def session_of(path: str, **more: Any) -> tuple[Session, Model]:
    model: Any = Model()
    session = Session(model, **more)
    session.open(path)
    return session, model


def test_a_picture_is_shown_with_the_first_question_and_never_again(pictures: list[str]) -> None:
    session, model = session_of(pictures[0])
    session.ask("Which way?")
    session.ask("And how far?")
    assert [shown(messages) for messages in model.asked] == [[[(200, None)]], [[(200, None)], []]]


def test_one_more_picture_comes_with_the_next_question(pictures: list[str]) -> None:
    session, model = session_of(pictures[0])
    session.ask("Which way?")
    session.add(pictures[1])
    session.ask("And here?")
    assert shown(model.asked[-1]) == [[(200, None)], [(50, None)]]


def test_a_box_begins_anew_with_the_object_in_it_and_without_one_with_the_whole(pictures: list[str]) -> None:
    session, model = session_of(pictures[0])
    session.ask("Which way?")
    session.look_at("40,20,80,40")
    session.ask("And this one?")
    session.look_at("")
    session.ask("And all?")
    assert [shown(messages) for messages in model.asked] == [
        [[(200, None)]],
        [[(200, (40.0, 20.0, 80.0, 40.0))]],
        [[(200, None)]],
    ]
    with pytest.raises(UserError, match="box: expected x1,y1,x2,y2 in pixels, got '1,2,3'"):
        session.look_at("1,2,3")
    with pytest.raises(UserError, match="lies outside the image of 200x50 pixels"):
        session.look_at("300,0,400,40")
    assert len(session.messages) == 2, "a mistake loses the conversation"


def test_a_conversation_is_exported_with_its_poses(pictures: list[str], tmp_path: Path) -> None:
    session, _ = session_of(pictures[0])
    with pytest.raises(UserError, match="/export: no answer yet"):
        session.export(tmp_path / "talk.json")
    session.look_at("40,20,80,40")
    session.ask("Which way?")
    session.add(pictures[1])
    session.ask("And here?")
    session.export(tmp_path / "talk.json")
    saved = json.loads((tmp_path / "talk.json").read_text())
    assert saved["pictures"] == [
        {"name": pictures[0], "width": 200, "height": 50, "box": [40, 20, 80, 40]},
        {"name": pictures[1], "width": 50, "height": 50, "box": None},
    ]
    assert [(each["content"], each.get("pictures")) for each in saved["messages"][::2]] == [
        ("Which way?", [0]),
        ("And here?", [1]),
    ]
    first, second = (each["poses"] for each in saved["messages"][1::2])
    assert (first[0]["category"], first[0]["box"], second[0]["box"]) == ("car", [40, 20, 80, 40], None)
    assert first[0]["azimuth"] == pytest.approx(0.5)
    assert len(first[0]["distributions"]["azimuth"]) == 40
    with pytest.raises(UserError, match=r"/export: .*cannot be written"):
        session.export("/proc/none/talk.json")


def test_a_lone_object_is_where_the_box_is_and_several_are_not_told_apart() -> None:
    box = (40.0, 20.0, 80.0, 60.0)
    assert [each.box for each in posed_answers(Answer("A car <pose>.", [READING]), box)] == [box]
    both = Answer("A car <pose> and a bus <pose>.", [READING, READING])
    assert [each.box for each in posed_answers(both, box)] == [None, None]


def test_a_pose_that_may_as_well_be_another_has_a_line_that_says_which(capsys: pytest.CaptureFixture[str]) -> None:
    other = Alternative(np.array([0.5 + np.pi, 0.1, 0.0]), 0.3, np.pi)
    unsure = dataclasses.replace(READING, confidence=0.6, alternative=other)
    print_alternatives(Answer("A car <pose> and a table <pose>.", [READING, unsure]))
    assert capsys.readouterr().out.splitlines() == [
        "  2. or azimuth 209°, elevation 6°, theta 0° · seen from its back-right, from slightly above  (30%)",
    ]


def test_another_picture_has_no_box_and_no_history(pictures: list[str]) -> None:
    session, model = session_of(pictures[0])
    session.look_at("40,20,80,40")
    session.ask("Which way?")
    session.open(pictures[1])
    session.ask("Which way?")
    assert shown(model.asked[-1]) == [[(50, None)]]


def test_a_box_outside_the_picture_is_refused_before_any_model_is_opened(tmp_path: Any) -> None:
    Image.new("RGB", (50, 50)).save(tmp_path / "a.png")
    with pytest.raises(UserError, match=r"box: 60,60,80,80 lies outside the image of 50x50 pixels"):
        main(["chat", str(tmp_path / "a.png"), "--box", "60,60,80,80", "--ask", "?", "--model", "nowhere"])
