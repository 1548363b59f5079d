"""LLaVA's JSON of plain conversations: read as its authors meant it, refused by entry, field and value where not."""

import json

import numpy as np
import pytest
from PIL import Image

from llava_pose.errors import UserError
from train.plain import load_plain


@pytest.fixture
def write(tmp_path):
    """Write entries as a file beside a folder of two pictures; both paths."""
    folder = tmp_path / "pictures"
    (folder / "coco").mkdir(parents=True)
    for name in ("coco/1.jpg", "2.png"):
        Image.new("RGB", (8, 6), "red").save(folder / name)

    def write(entries, **options):
        path = tmp_path / "talk.json"
        path.write_text(entries if isinstance(entries, str) else json.dumps(entries, **options), encoding="utf-8")
        return path, folder

    return write


def talk(*texts, **more):
    turns = [{"from": ("human", "gpt")[index % 2], "value": text} for index, text in enumerate(texts)]
    return {"id": "x", **more, "conversations": turns}


def said(conversations, row):
    """Each turn of a conversation: role, images, text."""
    return [
        (
            message["role"],
            sum(part["type"] == "image" for part in message["content"]),
            "".join(part["text"] for part in message["content"] if part["type"] == "text"),
        )
        for message in conversations.messages(row)
    ]


def test_conversations_with_and_without_a_picture_are_read(write):
    path, folder = write(
        [
            talk("<image>\nWhat is it?", "A square.", "Which colour?", "Red.", image="coco/1.jpg"),
            talk("Hello", "Hello! How can I help?", model="gpt-4"),
            talk("What is it?\n<image>", "Red.", image="2.png"),
            talk("<image>\nAgain?", "Yes.", image="coco/1.jpg"),
        ]
    )
    read = load_plain(path, folder)
    assert len(read) == 4
    assert said(read, 0) == [
        ("user", 1, "What is it?"),
        ("assistant", 0, "A square."),
        ("user", 0, "Which colour?"),
        ("assistant", 0, "Red."),
    ]
    assert said(read, 1) == [("user", 0, "Hello"), ("assistant", 0, "Hello! How can I help?")]
    assert said(read, 2)[0] == ("user", 1, "What is it?"), "the picture goes before the text, as LLaVA was trained"
    assert read.files == [folder / "coco/1.jpg", folder / "2.png"], "each picture once"
    assert [read.pictures(row) for row in range(4)] == [[0], [], [1], [0]]
    assert read.characters(0) > read.characters(1) > 0


def test_the_images_lie_beside_the_file_unless_told(write, tmp_path):
    Image.new("RGB", (4, 4)).save(tmp_path / "near.png")
    path, _ = write([talk("<image>\nWhat?", "Black.", image="near.png")])
    assert load_plain(path).files == [tmp_path / "near.png"]


def test_several_pictures_are_in_reading_order(write):
    first = talk("<image>\n<image>\nSame?", "No.", "And <image>?", "Yes.", image=["2.png", "coco/1.jpg", "2.png"])
    path, folder = write([first])
    read = load_plain(path, folder)
    assert read.pictures(0) == [0, 1, 0] and [path.name for path in read.files] == ["2.png", "1.jpg"]
    assert said(read, 0)[0] == ("user", 2, "Same?")
    assert said(read, 0)[2] == ("user", 1, "And ?")


def test_marks_in_text_are_words(write):
    path, folder = write(
        [
            talk("What is <image> in RSS, and <pose>?", "<image> holds a <pose>."),
            talk("<image>\nName it.", "<image> <pose>", image="2.png"),
        ]
    )
    read = load_plain(path, folder)
    assert said(read, 0) == [
        ("user", 0, "What is (image) in RSS, and (pose)?"),
        ("assistant", 0, "(image) holds a (pose)."),
    ]
    assert said(read, 1) == [("user", 1, "Name it."), ("assistant", 0, "(image) (pose)")]


@pytest.mark.parametrize("escaped", [True, False])
def test_every_letter_survives_and_half_a_letter_does_no_harm(write, escaped):
    path, folder = write([talk('π, 椅子, 🪑, "quotes" and \\', "é\n\ttab")], ensure_ascii=escaped)
    assert said(load_plain(path, folder), 0)[0][2] == 'π, 椅子, 🪑, "quotes" and \\'
    path, folder = write('[{"conversations": [{"from": "human", "value": "\\ud83d"}, {"from": "gpt", "value": "x"}]}]')
    said(load_plain(path, folder), 0)[0][2].encode("utf-8")


def test_a_file_begins_as_editors_write_it(write, tmp_path):
    path, folder = write("\ufeff \n[ " + json.dumps(talk("a", "b")) + " , " + json.dumps(talk("c", "d")) + "]")
    assert [said(load_plain(path, folder), row)[0][2] for row in range(2)] == ["a", "c"]


def test_many_conversations_are_what_they_were(write):
    rng = np.random.default_rng(0)
    entries = [
        talk(*("".join(chr(rng.integers(32, 1000)) for _ in range(rng.integers(0, 40))) for _ in range(2 * turns)))
        for turns in rng.integers(1, 5, 200)
    ]
    read = load_plain(*write(entries, indent=1))
    for row, entry in enumerate(entries):
        expected = [turn["value"].replace("<image>", "(image)") for turn in entry["conversations"]]
        assert [text for _, _, text in said(read, row)] == expected


GOOD = talk("a", "b")


@pytest.mark.parametrize(
    "wrong, parts",
    [
        (5, ["5 is no conversation"]),
        ({"id": "x"}, ["conversations: None is no list of turns"]),
        ({"conversations": []}, ["conversations: [] is no list of turns"]),
        ({"conversations": ["a"]}, ["conversations[0]: 'a' is no turn"]),
        (
            {"conversations": [{"from": "user", "value": "a"}, {"from": "gpt", "value": "b"}]},
            ["conversations[0].from: 'user', expected 'human'"],
        ),
        (
            {"conversations": [{"from": "gpt", "value": "a"}, {"from": "human", "value": "b"}]},
            ["conversations[0].from: 'gpt', expected 'human'"],
        ),
        (
            {"conversations": [{"from": "human", "value": "a"}, {"from": "human", "value": "b"}]},
            ["conversations[1].from: 'human', expected 'gpt'"],
        ),
        ({"conversations": [{"value": "a"}]}, ["conversations[0].from: None"]),
        ({"conversations": [{"from": "human"}]}, ["conversations[0].value: None is no text"]),
        ({"conversations": [{"from": "human", "value": ["a"]}]}, ["conversations[0].value: ['a'] is no text"]),
        (talk("a", "b", "And then?"), ["conversations: ends with a question: 'And then?'"]),
        (talk("<image>\na", "b", image="gone.jpg"), ["image: 'gone.jpg' is not in", "pictures"]),
        (talk("<image>\na", "b", image="lost/1.jpg"), ["image: 'lost/1.jpg' is not in"]),
        (talk("a", "b", image="2.png"), ["image: ['2.png'], but 0 <image> marks"]),
        (talk("<image>a", "b", "<image>c", "d", image="2.png"), ["image: ['2.png'], but 2 <image> marks"]),
        (talk("<image>\na", "b", image=7), ["image: 7 is no file's name"]),
        (talk("<image>\na", "b", image=""), ["image: '' is no file's name"]),
        (
            talk("Left <image> right <image> which?", "b", image=["2.png", "2.png"]),
            ["conversations[0].value: several <image> marks stand at its beginning or its end: 'Left "],
        ),
    ],
)
def test_what_is_wrong_is_told_by_entry_field_and_value(write, wrong, parts):
    path, folder = write([GOOD, wrong, GOOD])
    with pytest.raises(UserError) as caught:
        load_plain(path, folder)
    message = str(caught.value)
    assert message.startswith(f"{path}: entry 1") and "\n" not in message
    for part in parts:
        assert part in message


def test_missing_pictures_are_counted(write):
    path, folder = write([talk("<image>\na", "b", image=f"{number}.png") for number in range(5)])
    with pytest.raises(UserError, match=r"entry 0, image: '0.png' is not in .*; and 3 more pictures are missing"):
        load_plain(path, folder)


def test_a_long_value_is_not_told_whole(write):
    path, folder = write([{"conversations": [{"from": "x" * 5000, "value": "a"}]}])
    with pytest.raises(UserError) as caught:
        load_plain(path, folder)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize(
    "content, part",
    [
        ("", "not a list of conversations"),
        ("{}", "not a list of conversations"),
        ('{"id": 1}\n{"id": 2}', "not a list of conversations"),
        ("[]", "holds no conversation"),
        ('[{"id": "x"', "not valid JSON"),
        ("[1, ", "entry 0: 1 is no conversation"),
        ("[" * 100_000, "nested too deeply"),
    ],
)
def test_files_that_hold_no_list_of_conversations_are_refused(write, content, part):
    path, folder = write(content)
    with pytest.raises(UserError) as caught:
        load_plain(path, folder)
    assert str(caught.value).startswith(str(path)) and part in str(caught.value)


def test_missing_files_and_folders_and_what_is_no_text_are_refused(write, tmp_path):
    with pytest.raises(UserError, match=r"no.json: file of conversations does not exist"):
        load_plain(tmp_path / "no.json")
    path, folder = write([GOOD])
    with pytest.raises(UserError, match=r"talk.json: images: folder .*nowhere does not exist"):
        load_plain(path, tmp_path / "nowhere")
    path.write_bytes(b"[\xff]")
    with pytest.raises(UserError, match=r"talk.json: cannot be read"):
        load_plain(path, folder)
