"""Posed images and plain conversations in one run: batches of every kind, workers, refusals."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest
import torch
import yaml
from safetensors.torch import load_file

from llava_pose.errors import UserError
from llava_pose.processing import assistant_message, user_message
from llava_pose.scene import load_split
from tests.plain_talk import kinds, turns, write_plain
from train import finetune
from train.config import TrainConfig
from train.data import TrainingRows, cache_features, cut_to_length, read_batches
from train.features import tower_features
from train.plain import load_plain
from train.sampling import WINDOW, MicroBatches
from train.sets import PlainRows, PosedRows, load_data

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def plain_file(tmp_path_factory):
    return write_plain(tmp_path_factory.mktemp("plain"))


@pytest.fixture
def rows(data_dir, plain_file, tiny_pair):
    """Posed and plain rows in equal parts, from pictures or from cached features."""

    def make(cached=False, **more):
        both = [PosedRows(load_split(data_dir, "train")), PlainRows(load_plain(plain_file), weight=2.0)]
        if cached:
            cache_features(both, *tiny_pair, data_dir / "mixed-features", flip=True, show_progress=False)
        return TrainingRows(both, tiny_pair[1], **{"seed": 0, "flip": True, **more})

    return make


def losses(model, batch):
    """The summed losses over tokens and over poses."""
    with torch.inference_mode():
        output = model(**batch, num_items_in_batch=1, num_poses_in_batch=1)
    return float(output.language_loss), float(output.pose_loss)


@pytest.mark.parametrize("cached", [False, True])
def test_a_batch_of_all_kinds_is_what_its_rows_are_alone(rows, tiny_pair, cached):
    model, plain = tiny_pair[0].eval(), rows()
    mixed = rows(cached=cached)
    found = kinds(plain, 48)
    assert all(len(numbers) >= 3 for numbers in found.values())
    chosen = [number for pair in zip(*(numbers[:3] for numbers in found.values()), strict=True) for number in pair]
    batch = mixed.collate([mixed[number] for number in chosen])
    alone = [losses(model, mixed.collate([mixed[number]])) for number in chosen]
    together = losses(model, batch)
    assert together[0] == pytest.approx(sum(tokens for tokens, _ in alone), rel=1e-4)
    assert together[1] == pytest.approx(sum(poses for _, poses in alone), rel=1e-4)
    assert [poses > 0 for _, poses in alone] == [number in found["posed"] for number in chosen]
    images = sum(len(plain[number].get("images", ())) for number in chosen)
    assert len(batch["vision_features" if cached else "pixel_values"]) == images


@pytest.mark.parametrize("cached", [False, True])
def test_a_batch_without_any_image_has_a_loss_and_reaches_every_trained_part(rows, tiny_pair, cached):
    mixed = rows(cached=cached)
    text = kinds(rows(), 48)["text"][:2]
    batch = mixed.collate([mixed[number] for number in text])
    output = tiny_pair[0](**batch)
    assert torch.isfinite(output.loss) and output.loss > 0 and output.pose_loss == 0
    output.loss.backward()
    for part in ("pose_head", "multi_modal_projector", "lm_head"):
        gradients = [value.grad for name, value in tiny_pair[0].named_parameters() if part in name]
        assert gradients and all(gradient is not None and gradient.isfinite().all() for gradient in gradients), part
    tiny_pair[0].zero_grad()


def test_cached_features_of_plain_pictures_are_the_towers_own_and_never_mirrored(rows, tiny_pair):
    cached, direct = rows(cached=True), rows()
    assert cached.sets[0].cache._bits.shape[1] == 2 and cached.sets[1].cache._bits.shape[:2] == (3, 1)
    for number in kinds(direct, 48)["pictures"][:4]:
        expected = tower_features(tiny_pair[0], direct[number]["images"].tensors["pixel_values"])
        torch.testing.assert_close(cached[number]["vision_features"].float(), expected, rtol=0.01, atol=0.02)
        np.testing.assert_array_equal(cached[number]["ids"], direct[number]["ids"])


def test_without_flips_half_the_features_are_cached(data_dir, tiny_pair, tmp_path):
    posed = PosedRows(load_split(data_dir, "val"))
    cache_features([posed], *tiny_pair, tmp_path, flip=False, show_progress=False)
    assert posed.cache._bits.shape[:2] == (9, 1)


def test_plain_conversations_are_told_as_they_stand_and_nothing_is_asked_beside(rows, tiny_pair):
    mixed = rows(question_share=1.0)
    text = tiny_pair[1].tokenizer.decode(mixed[kinds(mixed, 48)["pictures"][0]]["ids"])
    assert text.count("USER:") == 1 and ("On the left?" in text or "Same?" in text)


def test_samples_are_told_by_image_or_by_entry(rows, plain_file):
    mixed = rows()
    names = {mixed.name(number) for number in range(48)}
    assert f"{plain_file} entry 3" in names and "car/n0000" in names and len(names) == 24 + 12


def test_the_census_asks_as_often_as_an_epoch_has_the_records(data_dir, plain_file, tiny_pair):
    alone = TrainingRows([PosedRows(load_split(data_dir, "train"))], tiny_pair[1], seed=0, flip=True)
    mixed = TrainingRows(
        [PosedRows(load_split(data_dir, "train")), PlainRows(load_plain(plain_file))], tiny_pair[1], seed=0, flip=True
    )
    assert mixed.census.categories == alone.census.categories
    assert mixed.census.weights == pytest.approx(alone.census.weights, rel=1e-6)


# Length


def padding(rows, size, count):
    """The share of padding in micro batches of so many samples."""
    real = longest = 0
    for first in range(0, count, size):
        lengths = [len(rows[number]["ids"]) for number in range(first, first + size)]
        real, longest = real + sum(lengths), longest + size * max(lengths)
    return 1 - real / longest


def test_steps_of_like_length_hold_less_padding_and_the_same_samples(rows):
    alone, grouped = rows(cached=True), rows(cached=True, batch_size=4)
    count = 4 * WINDOW
    assert padding(grouped, 4, count) < 0.5 * padding(alone, 4, count)
    first = sorted((alone[number]["ids"].tolist(), alone.name(number)) for number in range(count))
    assert sorted((grouped[number]["ids"].tolist(), grouped.name(number)) for number in range(count)) == first


@pytest.fixture(scope="module")
def long_talk(tiny_pair):
    processor = tiny_pair[1]
    messages = [
        user_message("Which?", images=1),
        assistant_message("This one."),
        user_message("And then?", images=1),
        assistant_message("That one, and so on and on."),
    ]
    return processor, *processor.encode(messages, [1, 1])


def test_turns_beyond_the_limit_are_left_out_whole_with_their_pictures(long_talk):
    processor, ids, labels = long_talk
    whole = cut_to_length(ids, labels, len(ids))
    assert whole[0] is ids and whole[1] is labels
    answers = np.flatnonzero(ids == processor.tokenizer.eos_token_id)
    for most in range(answers[0] + 1, len(ids)):
        short, supervised = cut_to_length(ids, labels, most)
        assert short.tolist() == ids[: answers[0] + 1].tolist()
        assert supervised[-1] == processor.tokenizer.eos_token_id
        assert (short == processor.image_token_id).sum() == 1


def test_an_answer_that_is_longer_than_the_limit_is_cut_there(long_talk):
    _, ids, labels = long_talk
    for most in (5, 8):
        short, supervised = cut_to_length(ids, labels, most)
        assert short.tolist() == ids[:most].tolist() and supervised.tolist() == labels[:most].tolist()


def test_posed_conversations_are_never_cut(data_dir, plain_file, tiny_pair):
    both = [PosedRows(load_split(data_dir, "train")), PlainRows(load_plain(plain_file))]
    free = TrainingRows(both, tiny_pair[1], seed=0, flip=False)
    cut = TrainingRows(both, tiny_pair[1], seed=0, flip=False, max_text_tokens=10)
    shortened = 0
    for number in range(36):
        one, other = free[number], cut[number]
        if len(one["poses"]):
            assert one["ids"].tolist() == other["ids"].tolist()
        else:
            shortened += len(other["ids"]) < len(one["ids"])
    assert shortened


# Workers


def micro_batches(first=0, last=3):
    return MicroBatches(first, last, batch_size=8, micro_batch_size=4, process=0, processes=1)


def assert_equal(first, second):
    assert len(first) == len(second)
    for one, other in zip(first, second, strict=True):
        assert one.keys() == other.keys()
        assert all(torch.equal(one[name], other[name]) for name in one if name != "poses")
        np.testing.assert_array_equal(one["poses"], other["poses"])


@pytest.mark.parametrize("cached", [False, True])
def test_workers_make_the_same_bits_and_a_later_start_the_same_rest(rows, cached):
    mixed = rows(cached=cached, batch_size=8)
    here = list(read_batches(mixed, micro_batches(), workers=0, pin_memory=False))
    assert len(here) == 6
    assert_equal(here, list(read_batches(rows(cached=cached, batch_size=8), micro_batches(), 2, False)))
    assert_equal(here[2:], list(read_batches(mixed, micro_batches(first=1), 2, False)))


@pytest.mark.parametrize("workers", [0, 1])
def test_a_picture_that_cannot_be_read_is_told_in_one_line(data_dir, plain_file, tiny_pair, tmp_path, workers):
    for file in plain_file.parent.iterdir():
        shutil.copy(file, tmp_path)
    (tmp_path / "1.png").write_bytes(b"no picture")
    both = [PosedRows(load_split(data_dir, "train")), PlainRows(load_plain(tmp_path / "talk.json"))]
    mixed = TrainingRows(both, tiny_pair[1], seed=0, flip=True)
    with pytest.raises(UserError, match=r"1.png") as caught:
        list(read_batches(mixed, MicroBatches(0, 9, 4, 4, 0, 1), workers, pin_memory=False))
    assert "Traceback" not in str(caught.value) and "\n" not in str(caught.value)


# Runs


def settings(data_dir, plain_file, **more):
    data = [str(data_dir), {"path": str(plain_file), "weight": 1.5}]
    return {"data": data, "steps": 4, "save_every": 2, "batch_size": 8, "micro_batch_size": 4, **more}


def test_a_mixed_balanced_run_resumes_to_the_same_bits_with_workers_or_without(run, data_dir, plain_file):
    values = settings(data_dir, plain_file, sampling={"balance": "class_and_pose"})
    whole = run("whole", **values)
    begun = run("begun", **{**values, "workers": 2})
    shutil.rmtree(begun / "final")
    shutil.rmtree(begun / "checkpoint-0000004", ignore_errors=True)
    run("begun", "--resume", **{**values, "workers": 2})
    first, second = (load_file(folder / "final" / "model.safetensors") for folder in (whole, begun))
    assert first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)
    lines = [json.loads(line) for line in (whole / "log.jsonl").read_text().splitlines()]
    assert all(np.isfinite(line["loss"]) for line in lines if "loss" in line)


@pytest.mark.slow
def test_ctrl_c_ends_a_run_with_workers_in_one_word(recipe, data_dir, plain_file, tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text(
        yaml.safe_dump(recipe(tmp_path / "run", **settings(data_dir, plain_file, steps=100_000, workers=2)))
    )
    with (tmp_path / "told").open("w") as told:
        process = subprocess.Popen(
            [sys.executable, "train/finetune.py", "--config", str(path)],
            cwd=ROOT,
            stderr=told,
            stdout=subprocess.DEVNULL,
            start_new_session=True,
        )
    log = tmp_path / "run" / "log.jsonl"
    deadline = time.monotonic() + 240
    while not log.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.1)
    # As a terminal does: to the workers too.
    os.killpg(process.pid, signal.SIGINT)
    assert process.wait(60) == 130
    text = (tmp_path / "told").read_text()
    assert "Traceback" not in text and text.count("interrupted") == 1
    with pytest.raises(ProcessLookupError):
        os.killpg(process.pid, 0)


# What is refused, before any weight is loaded


@pytest.fixture
def refused(run, monkeypatch, tmp_path):
    """The message with which a run on this data is refused."""

    def refused(*data):
        def build(config):
            raise AssertionError("the model was built")

        monkeypatch.setattr(finetune, "build_model", build)
        with pytest.raises(UserError) as caught:
            run("wrong", data=list(data))
        assert not (tmp_path / "wrong").exists(), "nothing is written"
        assert "\n" not in str(caught.value)
        return str(caught.value)

    return refused


@pytest.fixture
def changed(data_dir, tmp_path):
    """A copy of the data folder whose training table was changed."""

    def changed(change):
        folder = tmp_path / "changed"
        shutil.copytree(data_dir, folder, ignore=shutil.ignore_patterns("*features*"))
        (shard,) = folder.glob("train-*.parquet")
        table = pyarrow.parquet.read_table(shard)
        pyarrow.parquet.write_table(change(table), shard)
        return folder

    return changed


def with_objects(table, change):
    rows = [change(number, row) for number, row in enumerate(table["objects"].to_pylist())]
    place = table.schema.get_field_index("objects")
    return table.set_column(place, table.schema.field(place), pyarrow.array(rows, table.schema.field(place).type))


def test_data_without_poses_is_refused(refused, changed, tmp_path):
    folder = changed(lambda table: table.drop_columns(["objects"]))
    assert f"{folder}/train-" in refused(str(folder)) and "column 'objects' is missing" in refused(str(folder))
    shutil.rmtree(folder)

    def empty(table):
        bare = with_objects(table, lambda number, row: [] if number == 7 else row)
        place = bare.schema.get_field_index("caption")
        captions = ["" for _ in range(len(bare))]
        bare = bare.set_column(place, bare.schema.field(place), pyarrow.array(captions))
        place = bare.schema.get_field_index("caption_objects")
        none = pyarrow.array([[] for _ in range(len(bare))], bare.schema.field(place).type)
        return bare.set_column(place, bare.schema.field(place), none)

    folder = changed(empty)
    assert (
        refused(str(folder))
        == f"{folder}: split 'train', row 7 (sofa/n0007), objects: none, so there is no pose to learn"
    )
    shutil.rmtree(folder)

    def unknown(number, row):
        return [{**item, "azimuth": float("nan")} for item in row]

    folder = changed(lambda table: with_objects(table, unknown))
    assert "objects: not one has a pose (azimuth, elevation, theta)" in refused(str(folder))


def test_mistakes_in_the_list_of_data_are_refused(refused, data_dir, plain_file, tmp_path):
    good = str(data_dir)
    assert "nowhere: data folder does not exist" in refused(good, "nowhere")
    assert "nowhere.json: file of conversations does not exist" in refused(good, "nowhere.json")
    assert "images: folder nowhere does not exist" in refused(good, {"path": str(plain_file), "images": "nowhere"})
    assert refused(good, str(plain_file.parent / "0.png")).endswith(
        "neither a folder of data_prep nor a .json file of conversations"
    )
    assert refused(good, {"path": str(plain_file), "weight": 0.01}) == (
        "data.1.weight: 0.01 of 12 rows is less than one an epoch"
    )
    wrong = tmp_path / "wrong.json"
    wrong.write_text(json.dumps([{"conversations": turns("a", "b")}, {"conversations": turns("a")}]))
    assert f"{wrong}: entry 1, conversations: ends with a question: 'a'" in refused(good, str(wrong))


def test_data_of_weight_0_is_not_even_opened(data_dir, recipe, tmp_path):
    values = recipe(tmp_path, data=[str(data_dir), {"path": "nowhere", "weight": 0}, {"path": "no.json", "weight": 0}])
    opened, validation = load_data(TrainConfig.model_validate(values))
    assert [len(rows) for rows in opened] == [24] and [len(split) for split in validation] == [9]


def test_a_table_of_which_rows_were_selected_has_the_objects_of_those(data_dir):
    split = load_split(data_dir, "train")
    picked = PosedRows(split.select([7, 3, 4]))
    assert picked.objects.to_pylist() == [split[number]["objects"] for number in (7, 3, 4)]
    assert set(picked.categories) == {"sofa", "car", "boat"}
