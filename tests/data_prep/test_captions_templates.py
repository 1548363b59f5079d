"""Template captions: grammatical, varied, true to boxes and distances before and after a flip."""

import dataclasses
import random
import re
from itertools import pairwise

import pytest
from PIL import Image

from data_prep.captioning.caption_templates import MAX_MENTIONS, template_caption
from data_prep.captioning.caption_words import nth_mention, object_names
from llava_pose import taxonomy
from llava_pose.scene import PosedImage, PosedObject

CAR = PosedObject(
    0, "car", (10.0, 10.0, 50.0, 40.0), 0.5, 0.1, 0.0, 5.0, 30.0, 25.0, 900.0, 1, "status_good", "dense_yes"
)
WIDTH, HEIGHT = 640, 480


def thing(object_id, category, bbox=(10.0, 10.0, 50.0, 40.0), distance=5.0):
    return dataclasses.replace(CAR, object_id=object_id, category=category, bbox=bbox, distance=distance)


def phrasings(*objects, count=300):
    return [template_caption(objects, f"image{number}") for number in range(count)]


def random_scene(number):
    """One to eight objects of one to three categories, anywhere."""
    rng = random.Random(f"scene{number}")
    categories = rng.sample(taxonomy.categories(), 3)
    objects = []
    for object_id in rng.sample(range(20), rng.randint(1, 8)):
        x, y = rng.uniform(0, WIDTH - 20), rng.uniform(0, HEIGHT - 20)
        box = (x, y, rng.uniform(x + 5, min(x + 300, WIDTH)), rng.uniform(y + 5, min(y + 300, HEIGHT)))
        objects.append(thing(object_id, rng.choice(categories[: rng.randint(1, 3)]), box, rng.uniform(1, 20)))
    return objects


SCENES = [random_scene(number) for number in range(400)]


def all_captions():
    """Captions of every category, alone, with its like and with others."""
    categories = taxonomy.categories()
    for index, category in enumerate(categories):
        other = categories[(index * 7 + 3) % len(categories)]
        beside, far = (52.0, 12.0, 90.0, 44.0), (300.0, 200.0, 500.0, 420.0)
        for objects in (
            [thing(0, category)],
            [thing(0, category), thing(3, category, beside, 9.0)],
            [thing(0, category), thing(1, other, far)],
            [thing(0, category), thing(1, other, far), thing(2, category, beside)],
        ):
            for seed in range(12):
                yield objects, *template_caption(objects, f"{category}{seed}")
    for number, objects in enumerate(SCENES):
        yield objects, *template_caption(objects, f"{number}")


ALL = list(all_captions())


def an_is_right_before(word):
    """Heard with a vowel first: an independent list for the words that are not as they are written."""
    if word.startswith(("uni", "one", "eu", "use")):
        return False
    return word[0].lower() in "aeiou" or word.startswith("hour")


def as_numbers(text, objects, marks):
    """The text with every marked mention replaced by ``N`` and the object's id, articles and all."""
    by_id = {item.object_id: item for item in objects}
    for mark in marks:
        name = re.escape(taxonomy.with_article(by_id[mark].category).split(" ", 1)[1])
        start = r"(?:an?|another|an? (?:third|fourth|fifth|sixth)|one|the other)"
        text, found = re.subn(rf"\b{start} {name} <pose>", f"N{mark}", text, count=1, flags=re.IGNORECASE)
        assert found == 1, (text, mark)
    return text


def test_every_object_is_marked_once_right_after_its_name():
    for objects, text, marks in ALL:
        assert len(marks) == len(set(marks)) == min(len(objects), MAX_MENTIONS) == text.count("<pose>")
        by_id = {item.object_id: item for item in objects}
        for mark, before in zip(marks, text.split("<pose>"), strict=False):
            assert before.endswith(f"{taxonomy.with_article(by_id[mark].category).split(' ', 1)[1]} "), text
        assert "<pose>" not in as_numbers(text, objects, marks)


def test_captions_are_sentences():
    for _, text, _ in ALL:
        assert re.fullmatch(r"[A-Z][^.]*\.( [A-Z][^.]*\.)?", text), text
        assert not re.search(r"\s\s|\s[.,:;]|[,:][^\s]|<pose>[A-Za-z]|[{}]", text), text


def test_articles_are_right_in_every_category():
    for _, text, _ in ALL:
        for article, word in re.findall(r"\b(an?) ([\w-]+)", text, flags=re.IGNORECASE):
            assert (article.lower() == "an") == an_is_right_before(word), text


def is_plural(phrase):
    return " and " in phrase or re.match(r"(?:two|three|four|five|six) ", phrase.lower()) is not None


def test_verbs_agree_with_their_subjects():
    verbs = {"is": False, "are": True, "appears": False, "appear": True, "looks": False}
    checked = 0
    for objects, text, marks in ALL:
        for sentence in as_numbers(text, objects, marks).rstrip(".").split(". "):
            head = re.split(r": |, which ", sentence)[0]
            after = re.match(r"(?:.*\b)?(?:[Tt]here|[Hh]ere) (is|are)(?: also)?,? (?:from .*?, )?(.*)", head)
            before = re.match(r"((?:N\d|Two |Three |Four |Five |Six ).*?) (is|are|appears?|looks)\b", head)
            if after:
                verb, subject = after[1], re.sub(r" in (this|the) \w+$", "", after[2])
            elif before:
                subject, verb = before[1], before[2]
            else:
                continue
            assert is_plural(subject) == verbs[verb], text
            checked += 1
    assert checked > 3000


# Truth, by other means than the code's own: each wording with a test of boxes and distances alone.
def centre(item):
    return (item.bbox[0] + item.bbox[2]) / 2, (item.bbox[1] + item.bbox[3]) / 2


def area(item):
    return (item.bbox[2] - item.bbox[0]) * (item.bbox[3] - item.bbox[1])


def gap(a, b):
    """Pixels of empty picture between two boxes."""
    over = max(b.bbox[0] - a.bbox[2], a.bbox[0] - b.bbox[2]), max(b.bbox[1] - a.bbox[3], a.bbox[1] - b.bbox[3])
    return max(0.0, *over)


def is_near(a, b):
    return gap(a, b) < 0.3 * max(area(a), area(b)) ** 0.5


def like(a, b):
    return a.category == b.category


TRUE = {
    "to the left of": lambda a, b: centre(a)[0] < centre(b)[0],
    "just to the left of": lambda a, b: centre(a)[0] < centre(b)[0] and is_near(a, b),
    "to the right of": lambda a, b: centre(a)[0] > centre(b)[0],
    "just to the right of": lambda a, b: centre(a)[0] > centre(b)[0] and is_near(a, b),
    "next to": lambda a, b: is_near(a, b),
    "beside": lambda a, b: is_near(a, b),
    "close to": lambda a, b: is_near(a, b),
    "near": lambda a, b: is_near(a, b),
    "higher in the frame than": lambda a, b: centre(a)[1] < centre(b)[1],
    "farther up in the frame than": lambda a, b: centre(a)[1] < centre(b)[1],
    "lower in the frame than": lambda a, b: centre(a)[1] > centre(b)[1],
    "farther down in the frame than": lambda a, b: centre(a)[1] > centre(b)[1],
    "larger in the frame than": lambda a, b: area(a) > 1.9 * area(b),
    "smaller in the frame than": lambda a, b: area(b) > 1.9 * area(a),
    "farther from the camera than": lambda a, b: like(a, b) and a.distance > b.distance,
    "farther away than": lambda a, b: like(a, b) and a.distance > b.distance,
    "nearer to the camera than": lambda a, b: like(a, b) and a.distance < b.distance,
    "closer to the camera than": lambda a, b: like(a, b) and a.distance < b.distance,
}
WORDS = "|".join(sorted(TRUE, key=len, reverse=True))
ORDERS = {
    "from left to right": lambda a, b: centre(a)[0] < centre(b)[0],
    "from right to left": lambda a, b: centre(a)[0] > centre(b)[0],
    "from top to bottom": lambda a, b: centre(a)[1] < centre(b)[1],
    "from the top down": lambda a, b: centre(a)[1] < centre(b)[1],
}


def claims(text, objects, marks):
    """Every relation that the text states: its words, and the objects on their two sides."""
    by_id = {item.object_id: item for item in objects}
    text = as_numbers(text, objects, marks)
    for order in ORDERS:
        if order in text.lower():
            told = [by_id[int(number)] for number in re.findall(r"N(\d+)", text)]
            yield from ((order, a, b) for a, b in pairwise(told))
    verb = r"(?:(?:is|are|can be|appears|looks)(?: shown| seen)? )?"
    for a, words, b in re.findall(rf"(?=N(\d+)(?:, which)? {verb}({WORDS}) N(\d+))", text):
        yield words, by_id[int(a)], by_id[int(b)]
    for words, b, a in re.findall(rf"\b({WORDS.capitalize()}) N(\d+) \D*N(\d+)", text, flags=re.IGNORECASE):
        if re.search(rf"(^|\. ){words} N{b} ", text):
            yield words.lower(), by_id[int(a)], by_id[int(b)]


@pytest.mark.parametrize("flip", [False, True])
def test_every_relation_is_true_of_the_boxes_and_stays_so_in_the_mirror(flip):
    seen = set()
    for objects, text, marks in ALL:
        record = PosedImage(None, "car/x", WIDTH, HEIGHT, tuple(objects), text, marks)
        record = record.mirrored() if flip else record
        assert record.caption_objects == marks
        if not re.search(rf"{WORDS}|{'|'.join(ORDERS)}", record.caption, flags=re.IGNORECASE):
            continue
        found = list(claims(record.caption, record.objects, marks))
        assert found, record.caption
        for words, a, b in found:
            assert {**TRUE, **ORDERS}[words](a, b), (record.caption, a.bbox, b.bbox)
            seen.add(words)
    assert seen == {*TRUE, *ORDERS}


def test_objects_that_neither_boxes_nor_distances_relate_are_only_named_together():
    # One box within the other, of like size, and different categories.
    pair = thing(0, "car", (0, 0, 100, 100)), thing(1, "chair", (10, 10, 90, 90))
    for text, _ in phrasings(*pair):
        assert not re.search(r"left|right|higher|lower|up|down|larger|smaller|camera|away|next|beside", text), text


def test_sides_are_told_often_enough_to_be_learnt():
    scenes = [thing(0, "car", (0, 0, 40, 40)), thing(1, "chair", (60, 0, 100, 40))]
    sided = sum(bool(re.search("left|right", text)) for text, _ in phrasings(*scenes, count=1000))
    assert 300 < sided < 800


def test_there_are_hundreds_of_phrasings():
    one, two = [thing(0, "car")], [thing(0, "car"), thing(1, "chair", (52.0, 12.0, 90.0, 44.0))]
    assert len({text for text, _ in phrasings(*one, count=3000)}) > 250
    assert len({text for text, _ in phrasings(*two, count=3000)}) > 1000
    assert {marks for _, marks in phrasings(*two)} == {(0, 1), (1, 0)}


def test_numbers_of_things_are_told_in_the_plural():
    texts = {text for text, _ in phrasings(thing(0, "scissors"), thing(1, "scissors", (52.0, 12.0, 90.0, 44.0)))}
    assert any(re.search(r"[Tt]wo pairs of scissors", text) for text in texts)
    assert all("pair of scissors <pose>" in text for text in texts)


def test_a_crowd_is_captioned_by_its_largest_objects_and_not_counted():
    crowd = [thing(index, "chair", (0.0, 0.0, 1.0 + index, 10.0)) for index in range(20)]
    for text, marks in phrasings(*crowd):
        assert text.count("<pose>") == MAX_MENTIONS == 6
        assert sorted(marks) == [14, 15, 16, 17, 18, 19]
        assert "chairs" not in text


def test_one_after_another_of_a_category():
    told = [nth_mention("umbrella", earlier) for earlier in range(4)]
    assert told == ["an umbrella", "another umbrella", "a third umbrella", "a fourth umbrella"]
    assert nth_mention("eyeglasses", 7) == "an eighth pair of eyeglasses"


def test_names_for_a_language_model_are_capitals_counted_through():
    objects = [thing(4, "car"), thing(7, "diningtable"), thing(9, "car"), thing(11, "go_kart"), thing(12, "7")]
    assert object_names(objects) == ["CAR1", "DINING_TABLE2", "CAR3", "GO_KART4", "OBJECT5"]


def test_the_same_seed_gives_the_same_words():
    assert template_caption([CAR], "car/n1#0") == template_caption([CAR], "car/n1#0")
    assert template_caption([CAR], "car/n1#0")[0] == "This photograph captures a car <pose>."


def test_nothing_is_told_of_no_objects():
    assert template_caption([], "car/n1") == ("", ())


def test_the_mirror_keeps_the_pixels_words_in_step():
    objects = (thing(0, "car", (0, 0, 10, 10)), thing(1, "chair", (30, 0, 40, 10)))
    text = "A car <pose> is to the left of a chair <pose>."
    record = PosedImage(Image.new("RGB", (60, 50)), "car/x", 60, 50, objects, text, (0, 1))
    assert record.mirrored().caption == "A car <pose> is to the right of a chair <pose>."
