"""Conversations as people write them: their turns, their pictures in order, and what is refused by name."""

from typing import Any

import pytest
from PIL import Image

from llava_pose import LlavaPose
from llava_pose.engine import Engine
from llava_pose.errors import UserError
from llava_pose.generation import MAX_NEW_TOKENS
from llava_pose.processing import assistant_message, image_count, user_message
from llava_pose.turns import read_turns, without_oldest


def image(name: str, **more: Any) -> dict[str, Any]:
    return {"type": "image", "image": name, **more}


def text(words: str) -> dict[str, str]:
    return {"type": "text", "text": words}


def user(*parts: Any) -> dict[str, Any]:
    return {"role": "user", "content": list(parts)}


def assistant(words: str) -> dict[str, Any]:
    return {"role": "assistant", "content": words}


def test_pictures_come_in_reading_order_each_turns_before_its_words() -> None:
    turns, pictures = read_turns(
        [
            {"role": "system", "content": "Be brief, <image>."},
            user(text("One"), image("a.jpg"), text("and <pose> two"), image("b.jpg", box=[1, 2, 3, 4])),
            assistant("A car <pose> and <image>."),
            user(image("c.jpg"), text("And this?")),
        ],
        "first.jpg",
    )
    assert turns == [
        {"role": "system", "content": [{"type": "text", "text": "Be brief, (image)."}]},
        user_message("One\nand (pose) two", images=3),
        assistant_message("A car <pose> and (image)."),
        user_message("And this?", images=1),
    ]
    assert [(each.image, each.box, each.name) for each in pictures] == [
        ("first.jpg", None, "image"),
        ("a.jpg", None, "messages[1].content[1].image"),
        ("b.jpg", (1.0, 2.0, 3.0, 4.0), "messages[1].content[3].image"),
        ("c.jpg", None, "messages[3].content[0].image"),
    ]
    assert image_count(turns) == len(pictures)


def test_a_conversation_may_do_without_pictures() -> None:
    assert read_turns([{"role": "user", "content": "Hello"}]) == ([user_message("Hello")], [])


@pytest.mark.parametrize(
    ("messages", "told"),
    [
        ([], "messages: the last must be the user's"),
        ([assistant("Hello")], "messages: the last must be the user's"),
        (["Hello"], r"messages\[0\]: each needs a role \(system, user, assistant\) and a content, got 'Hello'"),
        ([{"role": "tool", "content": ""}], r"messages\[0\]: each needs a role .*'tool'"),
        ([{"role": "user"}], r"messages\[0\]\.content: None: expected a text or a list of parts"),
        ([user("Hello")], r"messages\[0\]\.content\[0\]: expected .*'Hello'"),
        ([user({"type": "audio"})], r"messages\[0\]\.content\[0\]: expected .*'audio'"),
        ([user({"type": "image"})], r"messages\[0\]\.content\[0\]: expected .*'image'"),
        ([user(image("a", box=[1, 2]))], r"messages\[0\]\.content\[0\]\.box: \[1, 2\]: expected x1, y1, x2, y2"),
        ([user(image("a", box="left"))], r"messages\[0\]\.content\[0\]\.box: 'left': expected"),
        (
            [user(text("a")), {"role": "assistant", "content": [image("a")]}, user(text("b"))],
            r"messages\[1\]\.content: the assistant's turn has a picture",
        ),
        (
            [user(text("a")), {"role": "system", "content": "b"}, user(text("c"))],
            r"messages\[1\]: the system's turn must be the first",
        ),
    ],
)
def test_what_is_no_conversation_is_refused_by_name(messages: list[Any], told: str) -> None:
    with pytest.raises(UserError, match=told):
        read_turns(messages)


def test_a_picture_that_cannot_be_opened_is_told_by_its_place(tiny_pair: tuple[Any, Any]) -> None:
    model = LlavaPose(Engine(*tiny_pair))
    small = Image.new("RGB", (20, 20))
    with pytest.raises(UserError, match=r"messages\[0\]\.content\[1\]\.image: box: 30,30,40,40 lies outside"):
        model.stream(None, [user(text("a"), image(small, box=[30, 30, 40, 40]))])  # type: ignore[arg-type]
    with pytest.raises(UserError, match=r"none\.jpg: no such image file"):
        model.stream(None, [user(image("none.jpg"))])


def test_the_oldest_question_goes_first_and_its_pictures_stay() -> None:
    system = {"role": "system", "content": "Be brief."}
    talk = [system, user(image("a"), text("1")), assistant("one"), {"role": "user", "content": "2"}, assistant("two")]
    talk += [user(image("b"), text("3"))]
    once = without_oldest(talk)
    assert once == [system, user(image("a"), text("2")), assistant("two"), talk[-1]]
    twice = without_oldest(once)
    assert twice == [system, user(image("a"), image("b"), text("3"))]
    thrice = without_oldest(twice)
    assert thrice == [system, user(image("b"), text("3"))]
    assert without_oldest(thrice) is None
    assert talk[1] == user(image("a"), text("1")), "what was handed in stays as it was"


def test_recent_keeps_what_leaves_room_for_an_answer(
    tiny_pair: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = Engine(*tiny_pair)
    model = LlavaPose(engine)
    talk: list[Any] = [user(image("a"), text("What is it?"))]
    for number in range(3):
        talk += [assistant("A car."), user(image(str(number)), text("And this?"))]
    assert model.recent(talk) == talk
    config = engine.model.config.get_text_config()
    # Room for the last question with three of the four pictures.
    last = user_message("And this?", images=3)
    monkeypatch.setattr(config, "max_position_embeddings", engine.prompt_length([last]) + MAX_NEW_TOKENS)
    assert model.recent(talk) == [user(image("0"), image("1"), image("2"), text("And this?"))]
    # One picture handed in besides is counted where the messages have none.
    alone = [{"role": "user", "content": "And this?"}]
    both = [{"role": "user", "content": "What?"}, assistant("A car."), *alone]
    room = engine.prompt_length([user_message("And this?", images=1)]) + MAX_NEW_TOKENS
    monkeypatch.setattr(config, "max_position_embeddings", room)
    assert model.recent(both) == alone
    monkeypatch.setattr(config, "max_position_embeddings", 10)
    assert model.recent(both) == alone, "what cannot fit is left for stream to refuse"
