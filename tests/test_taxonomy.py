"""The taxonomy: one canonical name per category, and every mistake in a category file named."""

import subprocess
import sys

import pytest

from llava_pose import taxonomy
from llava_pose.errors import UserError


def test_every_category_has_one_meta_class_and_known_ones_exist():
    members = [name for group in taxonomy.meta_classes().values() for name in group]
    assert len(members) == len(set(members)) == len(taxonomy.categories()) == 209
    assert len(taxonomy.meta_classes()) == 7
    assert len(taxonomy.known()) == 63 and set(members) >= taxonomy.known()


def test_every_category_resolves_from_its_own_and_its_spoken_name():
    for category in taxonomy.categories():
        assert taxonomy.resolve(category) == category
        assert taxonomy.resolve(taxonomy.spoken_name(category)) == category
        assert taxonomy.resolve(taxonomy.spoken_name(category).upper()) == category


def test_spoken_names_are_distinct():
    spoken = {taxonomy.spoken_name(category) for category in taxonomy.categories()}
    assert len(spoken) == len(taxonomy.categories())


@pytest.mark.parametrize(
    ("name", "canonical"),
    [
        ("babby_buggy", "baby_buggy"),
        ("billbard_table", "billiard_table"),
        ("trolley_bus", "trolleybus"),
        ("axe", "ax"),
        ("tennis table", "table_tennis_table"),
        ("  Dining   Table ", "diningtable"),
        ("go-kart", "go_kart"),
        ("TV monitor", "tvmonitor"),
    ],
)
def test_aliases_and_spellings_resolve(name, canonical):
    assert taxonomy.resolve(name) == canonical


@pytest.mark.parametrize(
    ("category", "spoken", "with_article"),
    [
        ("aeroplane", "aeroplane", "an aeroplane"),
        ("car", "car", "a car"),
        ("diningtable", "dining table", "a dining table"),
        ("tvmonitor", "TV monitor", "a TV monitor"),
        ("hourglass", "hourglass", "an hourglass"),
        ("unicycle", "unicycle", "a unicycle"),
        ("umbrella", "umbrella", "an umbrella"),
        ("scissors", "scissors", "a pair of scissors"),
        ("bicycle_built_for_two", "bicycle built for two", "a bicycle built for two"),
        ("my_own_gadget", "my own gadget", "a my own gadget"),
    ],
)
def test_names_are_spoken_as_people_say_them(category, spoken, with_article):
    assert taxonomy.spoken_name(category) == spoken
    assert taxonomy.with_article(category) == with_article


@pytest.mark.parametrize(
    ("category", "expected"),
    [
        ("bus", "buses"),
        ("knife", "knives"),
        ("mouse", "mice"),
        ("bookshelf", "bookshelves"),
        ("baby_buggy", "baby buggies"),
        ("ashtray", "ashtrays"),
        ("scissors", "pairs of scissors"),
        ("bicycle_built_for_two", "bicycles built for two"),
        ("wine_glass", "wine glasses"),
        ("hovercraft", "hovercraft"),
        ("go_kart", "go-karts"),
        ("robot_dog", "robot dogs"),
    ],
)
def test_plurals(category, expected):
    assert taxonomy.plural(category) == expected


def test_meta_class_is_that_of_the_file():
    assert taxonomy.meta_class("car") == "vehicles"
    assert taxonomy.meta_class("sax") == "music"
    with pytest.raises(UserError, match=r"'carr'.*car"):
        taxonomy.meta_class("carr")


def test_an_unknown_name_is_refused_with_close_matches():
    with pytest.raises(UserError, match="'aeroplan'; did you mean aeroplane"):
        taxonomy.resolve("aeroplan")
    with pytest.raises(
        UserError,
        match=r"unknown name 'zzqx' \(categories of your own: --taxonomy FILE, or LLAVA_POSE_TAXONOMY=FILE\)$",
    ):
        taxonomy.resolve("zzqx")


def test_a_category_file_gives_names_in_order(tmp_path):
    path = tmp_path / "names.txt"
    path.write_bytes("\ufeff# vehicles\ncar\n\n  Dining table  # spoken\r\naxe\n".encode())
    assert taxonomy.read_category_file(path) == ["car", "diningtable", "ax"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"car\nchiar\n", r"names.txt:2: category: unknown name 'chiar'; did you mean chair"),
        (b"ax\n# no\naxe\n", r"names.txt:3: category: 'axe' repeats line 1"),
        (b"# nothing\n\n", r"names.txt: category file holds no name"),
        (b"car\n\xff\xfe", r"names.txt: category file is not UTF-8 text \(byte 4\)"),
    ],
)
def test_a_wrong_category_file_is_refused_by_file_line_and_value(tmp_path, content, message):
    path = tmp_path / "names.txt"
    path.write_bytes(content)
    with pytest.raises(UserError, match=message):
        taxonomy.read_category_file(path)


def test_a_missing_category_file_or_a_folder_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"none\.txt: cannot read category file: No such file"):
        taxonomy.read_category_file(tmp_path / "none.txt")
    with pytest.raises(UserError, match="cannot read category file"):
        taxonomy.read_category_file(tmp_path)


def test_importing_the_taxonomy_needs_nothing_heavy():
    code = "import sys, llava_pose.taxonomy; sys.exit(bool({'numpy', 'yaml', 'torch'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
