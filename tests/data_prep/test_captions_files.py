"""Released captions: every natural file form read, every mark with its object, every mistake named."""

import dataclasses
import json
import os

import pytest

from data_prep.captioning.caption_align import aligned
from data_prep.captioning.caption_files import released_caption
from llava_pose.errors import UserError
from llava_pose.scene import PosedObject

CAR = PosedObject(
    0, "car", (10.0, 10.0, 50.0, 40.0), 0.5, 0.1, 0.0, 5.0, 30.0, 25.0, 900.0, 1, "status_good", "dense_yes"
)


def things(text):
    """Objects by category in the order of the annotation; a dash is one that is left out."""
    names = enumerate(text.split())
    return [dataclasses.replace(CAR, object_id=number, category=name) for number, name in names if name != "-"]


ALIGNED = {
    "the paper's, counted through": (
        "car bicycle",
        "A CAR1 with <pose6d> is parked next to BICYCLE2 with <pose6d>",
        ("A car <pose> is parked next to a bicycle <pose>", (0, 1)),
    ),
    "counted by category": (
        "bicycle car car",
        "CAR2 with <pose6D> is parked next to CAR1 with <pose6D>.",
        ("A car <pose> is parked next to another car <pose>.", (2, 1)),
    ),
    "counted by category, over what is left out": (
        "scissors - scissors",
        "SCISSORS1 with <pose6d> lies by SCISSORS2 with <pose6d>.",
        ("A pair of scissors <pose> lies by another pair of scissors <pose>.", (0, 2)),
    ),
    "counted through, with what is left out": (
        "scissors - scissors",
        "SCISSORS1 with <pose6d> lies by SCISSORS3 with <pose6d>.",
        ("A pair of scissors <pose> lies by another pair of scissors <pose>.", (0, 2)),
    ),
    "counted through, without what is left out": (
        "car - bus",
        "CAR1 with <pose6d> passes BUS2 with <pose6d>.",
        ("A car <pose> passes a bus <pose>.", (0, 2)),
    ),
    "the second of all rather than of its kind": (
        "car bicycle bicycle",
        "CAR1 with <pose6d> and BICYCLE2 with <pose6d>.",
        ("A car <pose> and a bicycle <pose>.", (0, 1)),
    ),
    "the second of its kind, the first being named": (
        "car bicycle bicycle",
        "BICYCLE1 with <pose6d> and BICYCLE2 with <pose6d>.",
        ("A bicycle <pose> and another bicycle <pose>.", (1, 2)),
    ),
    "names of several words": (
        "diningtable go_kart",
        "DINING_TABLE1 with <pose6d>, and GO-KART1 <pose6d>",
        ("A dining table <pose>, and a go-kart <pose>", (0, 1)),
    ),
    "aliases": (
        "aeroplane motorbike sofa",
        "An AIRPLANE1 with <pose6d> above the MOTORCYCLE1 <pose6d>. A couch <pose6d> too.",
        ("An aeroplane <pose> above the motorbike <pose>. A couch <pose> too.", (0, 1, 2)),
    ),
    "articles as the word asks": (
        "aeroplane unicycle hourglass scissors",
        "A AEROPLANE1 <pose>, an UNICYCLE2 <pose>, a HOURGLASS3 <pose> and a SCISSORS4 <pose>.",
        ("An aeroplane <pose>, a unicycle <pose>, an hourglass <pose> and a pair of scissors <pose>.", (0, 1, 2, 3)),
    ),
    "adjectives": (
        "car bus",
        "A shiny red CAR1 with <pose6d> follows the yellow BUS2 with <pose6d>.",
        ("A shiny red car <pose> follows the yellow bus <pose>.", (0, 1)),
    ),
    "names without a mark": (
        "car bus",
        "BUS2 hides CAR1 with <pose6d>. CAR1 is red, and the BUS2 is too.",
        ("A bus hides a car <pose>. The car is red, and the bus is too.", (0,)),
    ),
    "plain words": (
        "car bicycle",
        "A bicycle <pose6d> leans on a car <pose6d>.",
        ("A bicycle <pose> leans on a car <pose>.", (1, 0)),
    ),
    "plain words with with": ("car", "A car with <pose6d> by the sea.", ("A car <pose> by the sea.", (0,))),
    "the nearest mention": (
        "car bicycle",
        "A car behind a bicycle <pose6d>.",
        ("A car behind a bicycle <pose>.", (1,)),
    ),
    "the nearest mention of what is there": (
        "car",
        "A car you can see <pose6d>.",
        ("A car you can see <pose>.", (0,)),
    ),
    "plain words in their order": (
        "car bus car",
        "A car <pose6d>, a bus <pose6d> and a car <pose6d>.",
        ("A car <pose>, a bus <pose> and a car <pose>.", (0, 1, 2)),
    ),
    "plurals": (
        "car knife car",
        "Two cars <pose6d> and <pose6d>, and knives <pose6d>",
        ("Two cars <pose> and <pose>, and knives <pose>", (0, 2, 1)),
    ),
    "one of several and another": (
        "car bus car",
        "One of the cars <pose6d> and another <pose6d> by a bus <pose6d>",
        ("One of the cars <pose> and another <pose> by a bus <pose>", (0, 2, 1)),
    ),
    "names and plain words": (
        "car car",
        "A car <pose6d> passes CAR1 with <pose6d>.",
        ("A car <pose> passes a car <pose>.", (1, 0)),
    ),
    "the same again": (
        "car",
        "CAR1 with <pose6d> is red. The car <pose6d> is fast, and CAR1 <pose6d> is old.",
        ("A car <pose> is red. The car <pose> is fast, and the car <pose> is old.", (0, 0, 0)),
    ),
    "the one mark and the one object left": (
        "car bus",
        "A red Beetle <pose6d> beside a bus <pose6d>.",
        ("A red Beetle <pose> beside a bus <pose>.", (0, 1)),
    ),
    "names as words for other things": (
        "car",
        "An MP3 player in CAR1<pose6d>\n on  Route66.",
        ("An MP3 player in a car <pose> on Route66.", (0,)),
    ),
    "quotes": ("car", '"CAR1 with <pose6d>", he said.', ('"A car <pose>", he said.', (0,))),
}


@pytest.mark.parametrize("name", ALIGNED)
def test_marks_find_their_objects_and_names_become_words(name):
    objects, text, expected = ALIGNED[name]
    assert aligned(text, things(objects), "f.txt") == expected


MISFITS = {
    "another category": ("car", "A car <pose6d> by a bus <pose6d>.", "mark 2 ('by a bus <pose>') fits no object"),
    "another category, further off": ("car", "A bus parked here <pose6d>.", "mark 1 ('A bus parked here <pose>')"),
    "another category's name": ("car", "BUS1 with <pose6d>.", "mark 1 ('BUS1 with <pose>') fits no object"),
    "too many of a name": ("car car", "CAR1 <pose>, CAR2 <pose>, CAR3 <pose>", "mark 3 (', CAR3 <pose>') fits no"),
    "number nought": ("car", "CAR0 with <pose6d>.", "mark 1 ('CAR0 with <pose>') fits no object"),
    "too many plain words": ("car", "A car <pose6d> by a car <pose6d>.", "mark 2 ('by a car <pose>') fits no"),
    "one more than there are": (
        "car bus car",
        "Two cars <pose6d> and <pose6d>, and another <pose6d>",
        "mark 3 (', and another <pose>') fits no object",
    ),
    "no words": ("car bus", "Here <pose6d>.", "mark 1 ('Here <pose>') fits no object; the image has: car (0), bus (1)"),
    "no mark": ("car", "A car.", "no <pose6d> or <pose> in 'A car.'"),
    "half a mark": ("car", "A car <pose6d.", "not a mark that can be read (<pose6d> or <pose>) in 'A car <pose6d.'"),
    "another mark": ("car", "A car [pose6d].", "not a mark that can be read"),
}


@pytest.mark.parametrize("name", MISFITS)
def test_a_mark_that_fits_no_object_is_named(name):
    objects, text, message = MISFITS[name]
    with pytest.raises(UserError) as error:
        aligned(text, things(objects), "captions/car/n1.txt")
    assert str(error.value).startswith("captions/car/n1.txt: caption: ") and message in str(error.value)


def test_a_category_outside_the_taxonomy_is_found_by_its_own_name():
    found = aligned("A robot dog <pose6d> chases ROBOT_DOG2 with <pose6d>.", things("robot_dog robot_dog"), "f")
    assert found == ("A robot dog <pose> chases a robot dog <pose>.", (0, 1))


TEXT, EXPECTED = "CAR1 with <pose6d> – schön.", ("A car <pose> – schön.", (0,))
FORMS = {
    "captions/car/n 1.txt": f"\ufeff{TEXT}\n",
    "captions/car/n 1.json": json.dumps({"caption": TEXT, "model": "x"}),
    "captions/car/n 1.json ": json.dumps(TEXT),
    "captions.json": json.dumps({"car/n 1": TEXT, "car/n2": "CAR1 <pose>"}),
    "captions.json ": json.dumps({"images/car/n 1.JPEG": {"caption": TEXT}}),
    "captions.json  ": json.dumps({"n 1": TEXT}),
    "captions.json   ": json.dumps([{"image": "car/n 1.JPEG", "caption": TEXT}]),
    "captions.jsonl": json.dumps({"image_id": "car/n 1", "caption": TEXT}) + "\n\n",
    "captions.jsonl ": json.dumps({"name": "n 1", "caption": TEXT}, ensure_ascii=False),
}


@pytest.mark.parametrize("name", FORMS)
def test_every_natural_file_form_is_read(tmp_path, name):
    path = tmp_path / "a release – ü" / name.rstrip()
    path.parent.mkdir(parents=True)
    path.write_text(FORMS[name], encoding="utf-8")
    assert released_caption(tmp_path / "a release – ü", "car", "n 1", things("car")) == EXPECTED
    assert released_caption(tmp_path / "a release – ü", "car", "n3", things("car")) is None
    assert released_caption(tmp_path / "a release – ü", "bus", "n 2", things("bus")) is None


def test_without_captions_there_is_none(tmp_path):
    assert released_caption(tmp_path, "car", "n1", things("car")) is None


def test_a_file_written_anew_is_read_anew(tmp_path):
    path = tmp_path / "captions.json"
    for number, text in enumerate(["A car <pose>.", "The car <pose>."]):
        path.write_text(json.dumps({"car/n1": text}))
        os.utime(path, ns=(number, number))
        assert released_caption(tmp_path, "car", "n1", things("car")) == (text, (0,))


BROKEN = {
    "not UTF-8": ("captions/car/n1.txt", b"\xff\xfe", "captions/car/n1.txt: captions are not UTF-8 text (byte 0)"),
    "empty": ("captions/car/n1.txt", b" \n", "captions/car/n1.txt: caption: expected a text, got ''"),
    "not JSON": ("captions/car/n1.json", b"{", "captions/car/n1.json: not valid JSON"),
    "no caption": ("captions/car/n1.json", b'{"text": "x"}', "n1.json: caption: expected a text, got None"),
    "a number": ("captions.json", b'{"car/n1": 3}', "captions.json: 'car/n1': caption: expected a text, got 3"),
    "a number in all": ("captions.json", b"3", "captions.json: expected captions by image, got 3"),
    "nested too deeply": ("captions.json", b"[" * 100_000, "captions.json: not valid JSON"),
    "no name": ("captions.jsonl", b'{"caption": "x"}', "captions.jsonl:1: expected image_id and caption, got"),
    "no such name": ("captions.jsonl", b'\n{"id": 7, "caption": "x"}', "captions.jsonl:2: image_id: expected the name"),
    "not lines": ("captions.jsonl", b'{"id": "n1",\n "caption": "x"}', "captions.jsonl:1: not valid JSON"),
    "twice": (
        "captions.jsonl",
        b'{"id": "n1", "caption": "x"}\n{"id": "n1.JPEG", "caption": "y"}',
        "captions.jsonl:2: image_id: 'n1.JPEG' was there before, at",
    ),
    "twice in one": ("captions.json", b'{"n1": "x", "n1": "y"}', "captions.json: 'n1' is there twice"),
    "misfit": ("captions.json", b'{"n1": "A bus <pose>"}', "captions.json: 'n1': caption: mark 1 ('A bus <pose>')"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_file_is_named_with_its_place(tmp_path, name):
    path, content, message = BROKEN[name]
    (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / path).write_bytes(content)
    with pytest.raises(UserError) as error:
        released_caption(tmp_path, "car", "n1", things("car"))
    assert str(tmp_path) in str(error.value) and message in str(error.value)
