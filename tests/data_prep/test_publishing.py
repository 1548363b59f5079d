"""A data folder on the hub: it goes there whole, by the commands the README names, and comes back the same."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from datasets import load_dataset
from huggingface_hub import DatasetCard

from data_prep import imagenet3d
from llava_pose import scene, taxonomy
from tests.fake_hub import FakeHub, fake_hub
from tests.small_release import add_image, annotation

NAME = "you/posed"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder as the script writes it, with a category of its own."""
    root = tmp_path_factory.mktemp("release")
    for number in range(3):
        add_image(root, "train", "robot_dog", f"n{number}", annotation(**{"class": "robot_dog"}))
    add_image(root, "val", "car", "n9", annotation())
    (root / "taxonomy.json").write_text(json.dumps({"categories": {"robot_dog": {"meta_class": "robots"}}}))
    out = tmp_path_factory.mktemp("data") / "posed"
    imagenet3d.main(["--root", str(root), "--out", str(out), "--size", "32", "--workers", "1"])
    return out


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    with fake_hub() as running:
        yield running


@pytest.fixture
def run(hub: FakeHub, tmp_path: Path) -> Callable[..., str]:
    """Runs Python with these arguments where the hub is ours; its output."""
    settings = {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "home"), "HF_TOKEN": "hf_anything"}
    settings |= {"HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
    # The tests may be told to stay offline; this hub is on this machine.
    env = {**os.environ, **settings, "HF_HUB_OFFLINE": "0", "HF_DATASETS_OFFLINE": "0"}

    def run(*words: object) -> str:
        command = [sys.executable, *map(str, words)]
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def test_the_card_says_where_the_splits_are_how_rows_were_cut_and_who_defines_their_categories(folder: Path) -> None:
    card = DatasetCard.load(folder / "README.md")
    (config,) = card.data.configs
    assert [(entry["split"], entry["path"]) for entry in config["data_files"]] == [
        ("train", "train-*.parquet"),
        ("val", "val-*.parquet"),
    ]
    assert card.data.to_dict()["crop"] == "object" and "`taxonomy.json`" in card.text


def test_uploaded_and_downloaded_the_folder_is_the_same_and_works_alike(
    folder: Path, hub: FakeHub, run: Callable[..., str], tmp_path: Path
) -> None:
    run("-m", "huggingface_hub.cli.hf", "upload", NAME, folder, "--repo-type", "dataset")
    assert hub.files[NAME] == contents(folder)
    assert {"README.md", "taxonomy.json"} < set(hub.files[NAME])
    back = tmp_path / "back"
    run("-m", "huggingface_hub.cli.hf", "download", NAME, "--repo-type", "dataset", "--local-dir", back)
    assert contents(back) == contents(folder)
    taxonomy.activate(None)
    assert scene.load_split(back, "train").num_rows == 3 and scene.crop_kind(back) == "object"
    assert taxonomy.meta_class("robot_dog") == "robots"
    sizes = "import datasets, json; print(json.dumps(datasets.load_dataset('you/posed').num_rows))"
    assert json.loads(run("-c", sizes)) == {"train": 3, "val": 1}


def test_push_to_hub_of_datasets_leaves_card_and_taxonomy_behind(
    folder: Path, hub: FakeHub, run: Callable[..., str]
) -> None:
    """Why the README names the other way: if this fails, that sentence can go."""
    assert {split: len(rows) for split, rows in load_dataset(str(folder)).items()} == {"train": 3, "val": 1}
    run("-c", f"import datasets; datasets.load_dataset({str(folder)!r}).push_to_hub({NAME!r})")
    assert "taxonomy.json" not in hub.files[NAME]
    card = DatasetCard(hub.files[NAME]["README.md"].decode())
    assert not card.text.strip() and "crop" not in card.data.to_dict()
    assert {name.split("/")[0] for name in hub.files[NAME]} == {"README.md", "data"}
