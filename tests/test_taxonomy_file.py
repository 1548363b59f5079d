"""Taxonomy files: what they add and change, what they are refused for, and who hears of them."""

import json
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from types import SimpleNamespace

import pytest

from llava_pose import taxonomy
from llava_pose.errors import UserError

OWN = """\
categories:
  robot_dog:
    meta_class: robots
    spoken: robotic dog
    with_article: one robotic dog
    plural: a pack of robotic dogs
    aliases: [spot, Aibo]
    known: true
  ear_trumpet: {meta_class: music}
  car: {meta_class: road_vehicles, spoken: automobile, aliases: [motor car], known: false}
  scissors: {spoken: shears}
"""


@pytest.fixture
def write(tmp_path):
    """Writes a file and returns its path; what is not text is written as JSON."""

    def write(content, name="mine.yaml"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
        return path

    return write


def carried(write, name, **categories):
    """A folder that carries these categories."""
    return write({"categories": categories}, f"{name}/taxonomy.json").parent


# what a file says


def test_a_file_adds_categories_with_all_their_names(write):
    taxonomy.use_file(write(OWN))
    assert {"robot_dog", "ear_trumpet"} <= set(taxonomy.categories()) and len(taxonomy.categories()) == 211
    assert [taxonomy.resolve(name) for name in ("spot", "AIBO", "robotic dog", "Robot-Dog")] == ["robot_dog"] * 4
    assert (taxonomy.spoken_name("robot_dog"), taxonomy.with_article("robot_dog")) == ("robotic dog", "one robotic dog")
    assert taxonomy.plural("robot_dog") == "a pack of robotic dogs"
    assert taxonomy.meta_classes()["robots"] == ("robot_dog",)
    assert "robot_dog" in taxonomy.known()


def test_a_meta_class_is_all_that_a_new_category_needs(write):
    taxonomy.use_file(write("categories: {ear_trumpet: {meta_class: music}}"))
    assert (taxonomy.with_article("ear_trumpet"), taxonomy.plural("ear_trumpet")) == ("an ear trumpet", "ear trumpets")
    assert taxonomy.meta_class("ear_trumpet") == "music" == taxonomy.meta_class("violin")
    assert "ear_trumpet" not in taxonomy.known()


def test_of_a_built_in_category_only_what_is_said_changes(write):
    taxonomy.use_file(write(OWN))
    assert taxonomy.meta_class("car") == "road_vehicles" and "car" not in taxonomy.meta_classes()["vehicles"]
    assert taxonomy.with_article("car") == "an automobile"
    assert [taxonomy.resolve(name) for name in ("car", "automobile", "motor_car")] == ["car"] * 3
    assert "car" not in taxonomy.known() and "aeroplane" in taxonomy.known()
    assert taxonomy.with_article("scissors") == "a shears", "not the built-in pair of scissors"
    assert taxonomy.plural("car") == "automobiles"
    assert taxonomy.meta_class("scissors") == "household"
    taxonomy.use_file(write("categories: {cellphone: {spoken: mobile phone}}"))
    assert taxonomy.resolve("cell phone") == "cellphone", "the form that was replaced stays a spelling"


def test_json_says_the_same_as_yaml(write):
    import yaml

    taxonomy.use_file(write(OWN))
    from_yaml = taxonomy.active().categories
    taxonomy.use_file(write(yaml.safe_load(OWN), "mine.json"))
    assert taxonomy.active().categories == from_yaml


def test_the_environment_names_a_file_and_the_flag_another(write, monkeypatch):
    monkeypatch.setenv("LLAVA_POSE_TAXONOMY", str(write(OWN)))
    taxonomy.activate(None)
    assert taxonomy.resolve("spot") == "robot_dog"
    taxonomy.use_file(write("categories: {gizmo: {meta_class: tools}}", "other.yaml"))
    assert taxonomy.resolve("gizmo") == "gizmo"
    with pytest.raises(UserError, match="'spot'"):
        taxonomy.resolve("spot")


def test_a_wrong_file_in_the_environment_is_told_of_when_a_name_is_asked_for_and_not_on_import(tmp_path):
    code = (
        "import llava_pose.taxonomy as t\nprint('imported')\ntry: t.resolve('car')\nexcept t.UserError as e: print(e)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={"LLAVA_POSE_TAXONOMY": str(tmp_path / "none.yaml")},
        capture_output=True,
        text=True,
    )
    assert done.stdout == f"imported\n{tmp_path / 'none.yaml'}: cannot read taxonomy file: No such file or directory\n"


def test_a_wrong_file_in_the_environment_is_not_laid_to_another_file(write, tmp_path, monkeypatch):
    monkeypatch.setenv("LLAVA_POSE_TAXONOMY", str(tmp_path / "none.yaml"))
    names = write("car\n", "names.txt")
    for use in (
        lambda: taxonomy.read_category_file(names),
        lambda: taxonomy.check_canonical(["car"], "data"),
        lambda: taxonomy.use_folder(tmp_path),
    ):
        taxonomy.activate(None)
        with pytest.raises(UserError, match=f"^{tmp_path}/none.yaml: cannot read taxonomy file"):
            use()


# what it is refused for


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", r"mine.yaml: expected a mapping with the key 'categories', got None"),
        ("- car", r"mine.yaml: expected a mapping with the key 'categories', got \['car'\]"),
        ("category: {}", r"mine.yaml: unknown key 'category'; the one key is 'categories'"),
        ("categories: {}", r"mine.yaml: categories: expected categories by name, got \{\}"),
        ("categories: [a]", r"mine.yaml: categories: expected categories by name, got \['a'\]"),
        ("categories: {a: {meta_class: b}, a: {meta_class: c}}", r"mine.yaml:1: 'a' is there twice, first on line 1"),
        ("categories:\n  a: {meta_class: b,\n    meta_class: c}", r"mine.yaml:3: 'meta_class' is there twice"),
        ("categories: {a: {meta_class: b}", r"mine.yaml: not valid YAML: "),
        ("categories: {a: {meta_class: 2001-99-99}}", r"mine.yaml: not valid YAML: month must be in 1..12"),
        (
            "categories: {Robot Dog: {meta_class: b}}",
            r"categories: 'Robot Dog' is not a name in lower_snake_case \(such as robot_dog\)",
        ),
        ("categories: {no: {meta_class: b}}", r"categories: False is not a name in lower_snake_case$"),
        ("categories: {hund_für_alle: {meta_class: b}}", r"'hund_für_alle' is not a name in lower_snake_case$"),
        ("categories: {a__b: {meta_class: b}}", r"'a__b' is not a name in lower_snake_case \(such as a_b\)"),
        ("categories: {../a: {meta_class: b}}", r"'\.\./a' is not a name"),
        ("categories: {a: robots}", r"categories.a: expected fields \(meta_class, .*\), got 'robots'"),
        ("categories: {a: }", r"categories.a: expected fields .*, got None"),
        ("categories: {a: {metaclass: b}}", r"categories.a: unknown field 'metaclass'; the fields are meta_class, "),
        ("categories: {a: {meta_class: }}", r"categories.a.meta_class: expected a name in lower_snake_case, got None"),
        ("categories: {a: {meta_class: ''}}", r"categories.a.meta_class: expected a name in lower_snake_case, got ''"),
        ("categories: {a: {meta_class: My Robots}}", r"meta_class: .*got 'My Robots'"),
        ("categories: {a: {meta_class: b, known: 1}}", r"categories.a.known: expected true or false, got 1"),
        ("categories: {a: {meta_class: b, aliases: c}}", r"categories.a.aliases: expected a list of names, got 'c'"),
        ("categories: {a: {meta_class: b, aliases: [3]}}", r"categories.a.aliases: expected words .*, got 3"),
        ("categories: {a: {meta_class: b, aliases: ['']}}", r"categories.a.aliases: expected words .*, got ''"),
        ("categories: {a: {meta_class: b, spoken: 911}}", r"categories.a.spoken: expected words .*, got 911"),
        ("categories: {a: {meta_class: b, plural: ''}}", r"categories.a.plural: expected words .*, got ''"),
        ("categories: {a: {meta_class: b, spoken: ' '}}", r"categories.a.spoken: expected words"),
        ("categories: {a: {meta_class: b, spoken: '-'}}", r"categories.a.spoken: expected words"),
        ('categories: {a: {meta_class: b, spoken: "c\\nd"}}', r"categories.a.spoken: expected words on one line"),
        ('categories: {a: {meta_class: b, spoken: "c\\e[31m"}}', r"categories.a.spoken: expected words"),
        ("categories: {a: {meta_class: b, spoken: a <pose>}}", r"categories.a.spoken: .*without < and >"),
        (
            "categories: {a: {meta_class: b, spoken: cat, with_article: a dog}}",
            r"categories.a.with_article: 'a dog' does not end with the spoken form, 'cat'",
        ),
        ("categories: {a: {meta_class: b, with_article: a}}", r"with_article: 'a' does not end with the spoken form"),
        (
            "categories: {robot_dog: {spoken: dog}}",
            r"mine.yaml: categories.robot_dog.meta_class: missing, and 'robot_dog' is no built-in category$",
        ),
        ("categories: {carr: {known: true}}", r"'carr' is no built-in category; did you mean car"),
        (
            "categories: {a: {meta_class: b, aliases: [automobile, Car]}}",
            r"categories.a.aliases: 'car' already is a name of 'car'",
        ),
        ("categories: {a: {meta_class: b, spoken: Sofa}}", r"categories.a.spoken: 'Sofa' already is a name of 'sofa'"),
        ("categories: {couch: {meta_class: b}}", r"categories.couch: 'couch' already is a name of 'sofa'"),
        ("categories: {bus: {aliases: [train]}}", r"categories.bus.aliases: 'train' already is a name of 'train'"),
        (
            "categories: {a: {meta_class: b, spoken: thing}, c: {meta_class: b, aliases: [thing]}}",
            r"categories.c.aliases: 'thing' already is a name of 'a'",
        ),
    ],
)
def test_a_wrong_file_is_refused_by_file_field_and_value_and_changes_nothing(write, content, message):
    taxonomy.use_file(write("categories: {gizmo: {meta_class: tools}}", "right.yaml"))
    path = write(content)
    with pytest.raises(UserError, match=message) as refused:
        taxonomy.use_file(path)
    assert str(refused.value).startswith(str(path))
    assert taxonomy.resolve("gizmo") == "gizmo" and len(taxonomy.categories()) == 210


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\xff\xfe", r"taxonomy file is not UTF-8 text \(byte 0\)"),
        (b'{"categories": {"a": {}, "a": {}}}', "'a' is there twice"),
        (b"{", "not valid JSON: Expecting property name"),
        (b"[" * 100_000, "not valid JSON: maximum recursion depth"),
    ],
)
def test_a_damaged_json_file_is_refused(tmp_path, content, message):
    (tmp_path / "taxonomy.json").write_bytes(content)
    with pytest.raises(UserError, match=message):
        taxonomy.use_folder(tmp_path)


def test_a_missing_file_or_a_folder_in_its_place_is_refused(tmp_path):
    for path in (tmp_path / "none.yaml", tmp_path):
        with pytest.raises(UserError, match=f"{path}: cannot read taxonomy file: "):
            taxonomy.use_file(path)


# what folders carry


def test_a_folder_hands_on_what_differs_and_nothing_where_nothing_does(write, tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    taxonomy.write_into(folder)
    assert list(folder.iterdir()) == []
    taxonomy.use_file(write(OWN))
    everything = taxonomy.active().categories
    taxonomy.write_into(folder)
    assert [path.name for path in folder.iterdir()] == ["taxonomy.json"]
    said = json.loads((folder / "taxonomy.json").read_text())["categories"]
    assert set(said) == {"robot_dog", "ear_trumpet", "car", "scissors"}
    assert set(said["ear_trumpet"]) == {"meta_class", "spoken", "with_article", "plural", "known"}, (
        "a new one is told in full"
    )
    assert set(said["scissors"]) == {"spoken", "with_article", "plural"}
    taxonomy.activate(None)
    taxonomy.use_folder(folder)
    assert taxonomy.active().categories == everything
    first = (folder / "taxonomy.json").read_bytes()
    taxonomy.write_into(folder)
    assert (folder / "taxonomy.json").read_bytes() == first
    taxonomy.activate(None)
    taxonomy.write_into(folder)
    assert list(folder.iterdir()) == [], "no earlier file is left where the built-in taxonomy will do"


def test_a_folder_without_a_file_changes_nothing(tmp_path):
    taxonomy.use_folder(tmp_path)
    assert taxonomy.active().categories == taxonomy.BUILT_IN.categories


def test_folders_add_up_and_agree_with_themselves(write):
    dog = carried(write, "a", robot_dog={"meta_class": "robots"})
    for folder in (dog, carried(write, "b", gizmo={"meta_class": "tools"}), dog):
        taxonomy.use_folder(folder)
    assert taxonomy.resolve("robot_dog") and taxonomy.resolve("gizmo")
    # Written anew, it is read anew.
    carried(write, "a", robot_dog={"meta_class": "machines"})
    taxonomy.use_folder(dog)
    assert taxonomy.meta_class("robot_dog") == "machines"


@pytest.mark.parametrize(
    ("field", "one", "other"),
    [("meta_class", "robots", "toys"), ("known", True, False), ("spoken", "metal dog", "robotic dog")],
)
def test_folders_that_contradict_each_other_are_refused_in_one_line_that_names_both(write, field, one, other):
    data = carried(write, "data", robot_dog={"meta_class": "robots", field: one})
    model = carried(write, "model", robot_dog={"meta_class": "robots", field: other})
    taxonomy.use_folder(data)
    with pytest.raises(UserError) as refused:
        taxonomy.use_folder(model)
    assert str(refused.value) == (
        f"{model}/taxonomy.json: categories.robot_dog.{field}: {other!r} contradicts {one!r} in {data}/taxonomy.json"
    )
    assert taxonomy.resolve("robot_dog") == "robot_dog"


def test_the_file_the_user_names_decides_the_grouping_of_what_folders_carry(write):
    data = carried(write, "data", robot_dog={"meta_class": "robots", "known": False, "spoken": "metal dog"})
    mine = write("categories: {robot_dog: {meta_class: pets, known: true}}")
    for first, second in ((taxonomy.use_folder, taxonomy.use_file), (taxonomy.use_file, taxonomy.use_folder)):
        taxonomy.activate(None)
        first(data if first is taxonomy.use_folder else mine)
        second(data if second is taxonomy.use_folder else mine)
        assert taxonomy.meta_class("robot_dog") == "pets" and "robot_dog" in taxonomy.known()
        assert taxonomy.spoken_name("robot_dog") == "metal dog"


def test_how_a_folder_speaks_of_a_category_is_not_overruled(write):
    taxonomy.use_folder(carried(write, "model", robot_dog={"meta_class": "robots", "spoken": "metal dog"}))
    with pytest.raises(UserError, match=r"spoken: 'metal dog' contradicts 'robotic dog' in .*mine.yaml"):
        taxonomy.use_file(write("categories: {robot_dog: {spoken: robotic dog}}"))
    assert taxonomy.spoken_name("robot_dog") == "metal dog"


# who hears of them


def spoken_here(name: str) -> str:
    return taxonomy.spoken_name(name)


def test_a_worker_process_that_starts_afresh_is_handed_the_taxonomy(write):
    taxonomy.use_file(write(OWN))
    taxonomy.use_folder(carried(write, "data", gizmo={"meta_class": "tools", "spoken": "contraption"}))
    spawn = get_context("spawn")
    with ProcessPoolExecutor(1, spawn, initializer=taxonomy.activate, initargs=(taxonomy.active(),)) as pool:
        assert [*pool.map(spoken_here, ["gizmo", "robot_dog"])] == ["contraption", "robotic dog"]


def test_a_model_on_the_hub_brings_its_file_and_one_without_brings_none(write, monkeypatch):
    import huggingface_hub
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    from llava_pose.folders import use_taxonomy_of

    there = carried(write, "snapshot", robot_dog={"meta_class": "robots"})

    def download(name, file):
        if name == "you/lost":
            raise HfHubHTTPError("500 Server Error", response=SimpleNamespace(headers={}, request=None))
        if name == "you/plain":
            raise LocalEntryNotFoundError("not cached")
        return str(there / file)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    use_taxonomy_of("you/plain")
    assert "robot_dog" not in taxonomy.categories()
    use_taxonomy_of("you/model")
    assert "robot_dog" in taxonomy.categories()
    with pytest.raises(UserError, match=r"you/lost: taxonomy.json cannot be fetched: 500 Server Error"):
        use_taxonomy_of("you/lost")


def test_data_with_a_category_that_nobody_defined_is_refused_by_its_file(tmp_path):
    from llava_pose.scene import load_split
    from tests.short_runs import write_split

    write_split(tmp_path, "train", 3, seed=0)
    load_split(tmp_path, "train")
    rename(tmp_path / "train-00000-of-00001.parquet", "sofa", "robot_dgo")
    message = r"train-00000-of-00001\.parquet: category: unknown name 'robot_dgo' \(categories of your own: "
    with pytest.raises(UserError, match=message):
        load_split(tmp_path, "train")
    (tmp_path / "taxonomy.json").write_text('{"categories": {"robot_dgo": {"meta_class": "robots"}}}')
    assert load_split(tmp_path, "train").num_rows == 3
    assert taxonomy.meta_class("robot_dgo") == "robots"


def rename(shard: Path, category: str, other: str) -> None:
    """Rename a category in a shard."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pq.read_table(shard)
    rows = table.to_pylist()
    for row in rows:
        for item in row["objects"]:
            item["category"] = other if item["category"] == category else item["category"]
    pq.write_table(pa.Table.from_pylist(rows, schema=table.schema), shard)
