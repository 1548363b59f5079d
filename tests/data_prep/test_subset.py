"""Parts of a training split: how many of which objects, drawn by the seed, with all else as it was."""

import json
import sys
from collections import Counter
from pathlib import Path

import pytest

from data_prep import subset
from llava_pose import scene, taxonomy
from llava_pose.errors import UserError
from tests.short_runs import write_split


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    write_split(folder, "train", 30, seed=0)
    write_split(folder, "val", 6, seed=1)
    (folder / "README.md").write_text("---\ncrop: scene\n---\n# All of it\n\nRows.\n", encoding="utf-8")
    return folder


def run(monkeypatch: pytest.MonkeyPatch, data: Path, out: Path, *options: object) -> None:
    command = ["subset.py", "--data", data, "--out", out, *options]
    monkeypatch.setattr(sys, "argv", [*map(str, command)])
    subset.main()


def counts(folder: Path, split: str = "train") -> Counter[str]:
    return Counter(item["category"] for row in scene.load_split(folder, split)["objects"] for item in row)


@pytest.mark.parametrize("shots", [1, 4, 1000])
def test_no_category_has_more_objects_than_asked_for(data, tmp_path, monkeypatch, capsys, shots) -> None:
    out = tmp_path / "part"
    run(monkeypatch, data, out, "--per-category", shots)
    before, after = counts(data), counts(out)
    assert all(after[name] <= shots for name in before)
    # Cars, bicycles and the like stand alone in most rows: nothing keeps them from their full number.
    alone = [row[0]["category"] for row in scene.load_split(data, "train")["objects"] if len(row) == 1]
    for name, rows in Counter(alone).items():
        assert after[name] >= min(shots, rows)
    assert f"part: {after.total()} training objects of {len(after)} categories" in capsys.readouterr().out


def test_rows_come_whole_in_their_order_and_the_rest_stays(data, tmp_path, monkeypatch) -> None:
    out = tmp_path / "part"
    run(monkeypatch, data, out, "--per-category", "3")
    whole = {row["image_id"]: row for row in scene.load_split(data, "train").with_format("arrow")[:].to_pylist()}
    part = scene.load_split(out, "train").with_format("arrow")[:].to_pylist()
    assert [row["image_id"] for row in part] == [name for name in whole if name in {row["image_id"] for row in part}]
    for row in part:
        assert row == whole[row["image_id"]]
    assert (out / "val-00000-of-00001.parquet").read_bytes() == (data / "val-00000-of-00001.parquet").read_bytes()
    assert scene.crop_kind(out) == "scene"
    text = (out / "README.md").read_text(encoding="utf-8")
    assert text.startswith("---\ncrop: scene\n---\n# All of it\n\nThe training split is a part, ")
    assert text.endswith("\n\nRows.\n")


def test_the_seed_decides_which(data, tmp_path, monkeypatch) -> None:
    for name, seed in (("one", 0), ("same", 0), ("other", 1)):
        run(monkeypatch, data, tmp_path / name, "--per-category", "3", "--seed", seed)
    one, same, other = (
        (tmp_path / name / "train-00000-of-00001.parquet").read_bytes() for name in ("one", "same", "other")
    )
    assert one == same != other


def test_open_vocabulary_training_sees_known_categories_alone(data, tmp_path, monkeypatch) -> None:
    run(monkeypatch, data, tmp_path / "known", "--vocabulary", "known")
    assert set(counts(tmp_path / "known")) <= taxonomy.known() < set(counts(data)) | taxonomy.known()
    assert counts(tmp_path / "known", "val") == counts(data, "val")
    (tmp_path / "names.txt").write_text("Car\n")
    run(monkeypatch, data, tmp_path / "cars", "--categories", tmp_path / "names.txt")
    assert set(counts(tmp_path / "cars")) == {"car"}


def test_wrong_input_is_refused_and_leaves_nothing(data, tmp_path, monkeypatch) -> None:
    (tmp_path / "names.txt").write_text("piano\n")
    (tmp_path / "full").mkdir()
    for out, options, told in (
        ("part", [], "--per-category, --vocabulary or --categories: say which part is wanted"),
        ("part", ["--per-category", "1", "--seed", "-1"], "--seed: must be 0 or above, got -1"),
        ("part", ["--categories", tmp_path / "names.txt"], f"{data}: split 'train': no row of these categories"),
        ("full", ["--per-category", "1"], f"{tmp_path / 'full'}: is there already; name a new folder"),
        ("no/part", ["--per-category", "1"], f"{tmp_path / 'no/part'}: cannot be written: No such file or directory"),
    ):
        with pytest.raises(UserError) as refused:
            run(monkeypatch, data, tmp_path / out, *options)
        assert str(refused.value) == told
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "full", "names.txt"]
    for path in data.glob("train-*"):
        path.unlink()
    with pytest.raises(UserError, match="no split 'train'"):
        run(monkeypatch, data, tmp_path / "part", "--per-category", "1")


def test_categories_of_ones_own_are_known_and_come_along(data, tmp_path, monkeypatch) -> None:
    (data / "taxonomy.json").write_text(json.dumps({"categories": {"robot_dog": {"meta_class": "robots"}}}))
    (tmp_path / "names.txt").write_text("robot dog\ncar\n")
    run(monkeypatch, data, tmp_path / "part", "--categories", tmp_path / "names.txt", "--per-category", "2")
    assert counts(tmp_path / "part") == {"car": 2}
    assert (tmp_path / "part" / "taxonomy.json").read_bytes() == (data / "taxonomy.json").read_bytes()
