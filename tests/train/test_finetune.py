"""Runs of a few steps through the script's own main: what they learn, what they leave, what they refuse."""

import copy
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file

from llava_pose import LlavaPose, assembly, checkpoint, taxonomy
from llava_pose.errors import UserError
from llava_pose.scene import load_split
from train import finetune
from train.config import TrainConfig, load_config
from train.model import build_model
from train.sets import load_data

ROOT = Path(__file__).parents[2]


def log_of(run, key="loss"):
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return {line["step"]: line[key] for line in lines if key in line}


def test_a_run_learns_and_leaves_everything_it_promises(run):
    folder = run("first", steps=30, eval_every=10, save_every=10, keep_checkpoints=1, learning_rate=0.01)
    losses = log_of(folder)
    assert list(losses) == list(range(1, 31))
    assert sum(losses[step] for step in range(26, 31)) < 0.6 * sum(losses[step] for step in range(1, 6))
    assert log_of(folder, "pose_loss")[30] < log_of(folder, "pose_loss")[1]
    assert list(log_of(folder, "val_acc_pi_6")) == [10, 20, 30]
    assert [path.name for path in sorted(folder.glob("checkpoint-*"))] == ["checkpoint-0000020"]
    assert not list(folder.glob(".partial*"))
    assert load_config(folder / "config.yaml").steps == 30
    assert list((folder / "logs").rglob("events*")), "TensorBoard"
    model = LlavaPose.from_pretrained(folder / "final")
    assert model.categories == ["bicycle", "boat", "car", "sofa"]
    (found,) = model.predict([Image.new("RGB", (60, 40), "red")])
    assert found.category in model.categories and 0 <= found.confidence <= 1
    assert model.engine.model.config.tower_source == "embedded"
    assert not [name for name in load_file(folder / "final" / "model.safetensors") if "vision_tower" in name]


def test_a_run_without_cached_features_learns_the_same(run):
    cached = log_of(run("cached", steps=3))
    direct = log_of(run("direct", steps=3, cache_features=False, workers=1))
    for step, loss in cached.items():
        assert direct[step] == pytest.approx(loss, rel=2e-3)


def test_lora_on_a_released_checkpoint_in_half_precision(run, released):
    model = {
        "base": str(released[1]),
        "base_dtype": "bf16",
        "lora": {"rank": 4, "alpha": 8},
        "pose_hidden_size": 24,
    }
    folder = run("lora", model=model, cache_features=False, precision="bf16", steps=8, learning_rate=0.01)
    losses = log_of(folder)
    assert losses[8] < losses[1]
    names = {path.name for path in (folder / "final").iterdir()}
    assert "adapter_model.safetensors" in names and "model.safetensors" not in names
    model, _ = checkpoint.load(folder / "final")
    assert model.pose_head.linear_1.out_features == 24
    assert model.config.pose_categories == ["bicycle", "boat", "car", "sofa"]


@pytest.mark.parametrize("settings", [{"lora": {"rank": 2, "alpha": 4}}, {}], ids=["adapter", "in full"])
def test_a_base_finetuned_on_new_categories_still_names_its_own(run, tiny_pair, tmp_path, settings):
    model, processor = copy.deepcopy(tiny_pair[0]), tiny_pair[1]
    model.config.pose_categories = ["aeroplane", "car"]
    checkpoint.save(model, processor, tmp_path / "base")
    folder = run("more", model={"base": str(tmp_path / "base"), **settings}, cache_features=False, steps=1)
    assert LlavaPose.from_pretrained(folder / "final").categories == ["aeroplane", "bicycle", "boat", "car", "sofa"]


@pytest.mark.parametrize(
    "settings, trained",
    [
        ({}, {"language_model", "multi_modal_projector", "lm_head", "pose_head"}),
        ({"train_projector": False}, {"language_model", "lm_head", "pose_head"}),
        (
            {"train_vision_tower": True},
            {"language_model", "multi_modal_projector", "lm_head", "pose_head", "vision_tower"},
        ),
    ],
)
def test_what_is_trained_is_what_the_configuration_says(recipe, tmp_path, settings, trained):
    values = recipe(tmp_path, cache_features=False)
    model, _ = build_model(TrainConfig.model_validate({**values, "model": {**values["model"], **settings}}))
    found = {
        part
        for name, value in model.named_parameters()
        for part in ("language_model", "multi_modal_projector", "lm_head", "pose_head", "vision_tower")
        if part in name and value.requires_grad
    }
    assert found == trained


def test_a_trained_tower_is_saved_with_the_model(run, recipe, tmp_path):
    values = recipe(tmp_path)["model"]
    folder = run("tower", model={**values, "train_vision_tower": True}, cache_features=False, steps=2)
    weights = load_file(folder / "final" / "model.safetensors")
    before = assembly.assemble(values["text"])[0].model.vision_tower.stem.weight
    model, _ = checkpoint.load(folder / "final")
    assert any("vision_tower" in name for name in weights)
    assert not torch.equal(model.model.vision_tower.stem.weight, before)


# What is refused


def test_a_folder_that_holds_a_run_is_left_alone_without_resume(run):
    folder = run("taken", steps=1)
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    with pytest.raises(UserError, match="taken: holds a run already; give --resume"):
        run("taken", steps=1)
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


@pytest.mark.parametrize(
    "settings, match",
    [
        (
            {"batch_size": 6, "micro_batch_size": 4},
            "batch_size: 6 does not divide into 1 processes of micro_batch_size 4",
        ),
        ({"data": ["nowhere"]}, "nowhere: data folder does not exist"),
        ({"model": {"base": "./nowhere"}}, "nowhere: no such model folder"),
        (
            {"model": {"text": {"hidden_size": 32}, "train_vision_tower": True}},
            "cache_features: a trained vision tower",
        ),
    ],
)
def test_mistakes_are_refused_before_anything_is_made(run, tmp_path, settings, match):
    with pytest.raises(UserError, match=match):
        run("wrong", **settings)
    assert not list(tmp_path.glob("wrong/*"))


def test_a_head_size_that_a_base_with_a_head_does_not_have_is_refused(run, tiny_model_dir):
    with pytest.raises(UserError, match="pose_hidden_size: 64, but the base's head has 512"):
        run("wrong", model={"base": str(tiny_model_dir), "pose_hidden_size": 64})


def test_data_without_a_val_split_is_refused_unless_other_data_has_one(run, recipe, data_dir, tmp_path):
    half = tmp_path / "half"
    half.mkdir()
    for shard in data_dir.glob("train-*"):
        shutil.copy(shard, half)
    with pytest.raises(UserError, match="half: no split 'val'"):
        run("wrong", data=[str(half)])
    both = TrainConfig.model_validate(recipe(tmp_path, data=[str(half), str(data_dir)]))
    sets, splits = load_data(both)
    assert [len(rows) for rows in sets] == [len(load_split(data_dir, "train"))] * 2
    assert [len(split) for split in splits] == [len(load_split(data_dir, "val"))]


def test_a_loss_that_is_not_finite_stops_the_run_and_names_its_samples(run, monkeypatch):
    build = finetune.build_model

    def broken(config):
        model, processor = build(config)
        with torch.no_grad():
            model.lm_head.weight.fill_(float("nan"))
        return model, processor

    monkeypatch.setattr(finetune, "build_model", broken)
    with pytest.raises(UserError, match=r"step 1: the loss is nan on samples 0 to 3 \(\w+/n\d+, .*\)"):
        run("nan")


def test_a_resumed_run_names_things_as_it_began_and_refuses_other_words(run, tmp_path, monkeypatch):
    own = tmp_path / "own.yaml"
    own.write_text("categories: {car: {spoken: automobile}}")
    monkeypatch.setenv(taxonomy.ENVIRONMENT, str(own))
    settings = {"save_every": 1, "schedule": "constant_with_warmup"}
    begun = run("named", steps=2, **settings)
    vocabulary = checkpoint.load(begun / "final")[1].tokenizer.get_vocab()
    shutil.rmtree(begun / "final")
    monkeypatch.delenv(taxonomy.ENVIRONMENT)
    taxonomy.activate(None)
    run("named", "--resume", steps=3, **settings)
    assert taxonomy.spoken_name("car") == "automobile"
    assert checkpoint.load(begun / "final")[1].tokenizer.get_vocab() == vocabulary
    shutil.rmtree(begun / "final")
    taxonomy.activate(None)
    own.write_text("categories: {car: {spoken: motor car}}")
    taxonomy.use_file(own)
    with pytest.raises(UserError, match=r"named/taxonomy.json: .*'automobile' contradicts 'motor car' in .*own.yaml"):
        run("named", "--resume", steps=4, **settings)


def test_a_checkpoint_with_other_weights_than_are_trained_is_refused(run, recipe, tmp_path):
    """The configuration is the same: the base under its name is another, or a checkpoint was put there by hand."""
    folder = run("changed", steps=2, save_every=1)
    progress = folder / "checkpoint-0000001" / "progress.json"
    said = json.loads(progress.read_text())
    said["origin"]["config"]["model"]["train_projector"] = False
    progress.write_text(json.dumps(said))
    values = recipe(tmp_path)["model"]
    with pytest.raises(UserError, match=r"trained\.safetensors holds other weights than this configuration trains"):
        run("changed", "--resume", steps=2, save_every=1, model={**values, "train_projector": False})


def test_a_mistake_on_the_command_line_is_one_line_and_exit_code_2(recipe, tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe(tmp_path / "run")))
    result = subprocess.run(
        [sys.executable, str(ROOT / "train" / "finetune.py"), "--config", str(path), "stepz=5"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert result.returncode == 2
    assert result.stderr.startswith(f"error: {path}: stepz: unknown key (got 5)") and result.stderr.count("\n") == 1
    assert not (tmp_path / "run").exists()
