"""What a run tells of itself: in log.jsonl, in TensorBoard and in W&B."""

import importlib.util
import json
import struct
import time

import pytest
import torch
import wandb
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from wandb.proto import wandb_internal_pb2

from llava_pose.errors import UserError
from train import finetune


@pytest.fixture
def offline(monkeypatch):
    """W&B as it is without a network: everything is written below the run's folder."""
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    yield
    wandb.teardown()


def lines_of(run):
    return [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]


def wandb_history(folder):
    """The values that an offline W&B run holds, by step. Its file is LevelDB's log format after seven bytes: blocks of
    32 KiB of records, each with checksum, length, and whether it is whole, a beginning, a middle or an end."""
    (file,) = folder.glob("*.wandb")
    data, place, record, found = file.read_bytes(), 7, b"", {}
    while place + 7 <= len(data):
        if (left := 32768 - place % 32768) < 7:
            place += left
            continue
        _, length, kind = struct.unpack_from("<IHB", data, place)
        if place + 7 + length > len(data):
            break  # not written to its end yet
        record += data[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):
            parsed, record = wandb_internal_pb2.Record.FromString(record), b""
            if parsed.WhichOneof("record_type") == "history":
                items = parsed.history.item
                row = {item.key or item.nested_key[0]: json.loads(item.value_json) for item in items}
                found[row["_step"]] = row
    return found


def test_a_line_tells_everything_about_the_steps_since_the_one_before_and_tensorboard_too(run, recipe, tmp_path):
    rates = {"learning_rate": 0.002, "head_learning_rate": 0.004}
    model = {**recipe(tmp_path)["model"], "pose_geodesic_weight": 0.5}
    folder = run("told", steps=4, log_every=2, schedule="linear", model=model, **rates)
    first, second, last = lines_of(folder)
    assert [line["step"] for line in (first, second, last)] == [2, 4, 4]
    for line in (first, second):
        axes = [line[f"pose_loss_{axis}"] for axis in ("azimuth", "elevation", "theta")]
        assert line["pose_loss"] == pytest.approx(sum(axes) / 3 + 0.5 * line["pose_loss_geodesic"])
        assert line["loss"] == pytest.approx(line["language_loss"] + line["pose_loss"])
        assert 0 < line["pose_loss_geodesic"] <= 2
        assert line["gradient_norm"] > 0 and line["samples_per_second"] > 0
        # 16 image tokens a row at least, and what is asked.
        assert line["input_tokens"] > line["tokens"] + 4 * 16
        seconds = 4 / line["samples_per_second"]
        assert line["tokens_per_second"] == pytest.approx(line["input_tokens"] / seconds)
        assert 0.1 < line["peak_memory_gib"] < 64
    # Steps 2 and 4 of 4, counted from 0: three quarters and one quarter of the peak.
    assert [line["learning_rate"] for line in (first, second)] == pytest.approx([0.0015, 0.0005])
    assert [line["head_learning_rate"] for line in (first, second)] == pytest.approx([0.003, 0.001])
    assert first["projector_learning_rate"] == first["learning_rate"]
    assert first["eta_seconds"] > 0 and second["eta_seconds"] == 0
    assert last.keys() > {"val_acc_pi_6", "val_mean_error_deg", "val_pose_emission"}
    (file,) = (folder / "logs").rglob("events*")
    events = EventAccumulator(str(file)).Reload()
    assert [event.value for event in events.Scalars("loss")] == pytest.approx([first["loss"], second["loss"]])
    assert events.Scalars("val_pose_emission")


def test_no_tracker_leaves_log_jsonl_alone(run):
    folder = run("bare", steps=1, trackers=[])
    assert (folder / "log.jsonl").exists() and not (folder / "logs").exists()


def test_wandb_holds_what_the_log_does_and_a_resumed_run_goes_on_as_the_same(run, offline, monkeypatch):
    settings = {"steps": 3, "save_every": 2, "trackers": ["wandb", "tensorboard"]}
    with monkeypatch.context() as patch:
        patch.setattr(finetune, "save_final", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            run("watched", **settings)
    wandb.finish()
    folder = run("watched", "--resume", **settings)
    first, second = sorted(folder.glob("wandb/offline-run-*"), key=lambda path: path.stat().st_mtime)
    assert first.name.rpartition("-")[2] == second.name.rpartition("-")[2], "one run in W&B"
    deadline = time.monotonic() + 60  # W&B's own process may still be writing
    while not (wandb_history(first) and wandb_history(second)) and time.monotonic() < deadline:
        time.sleep(0.1)
    log = {line["step"]: line for line in lines_of(folder) if "loss" in line}
    for step, row in (wandb_history(first) | wandb_history(second)).items():
        assert row["loss"] == pytest.approx(log[step]["loss"])
    assert wandb_history(first).keys() == {1, 2, 3} and wandb_history(second).keys() == {3}
    assert "val_acc_pi_6" in wandb_history(second)[3]
    assert list((folder / "logs").rglob("events*"))


def test_a_tracker_that_is_not_installed_is_refused_before_anything_is_loaded(run, monkeypatch, tmp_path):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == "wandb" else find(name, *rest))
    monkeypatch.setattr(finetune, "build_model", lambda *_: pytest.fail("loaded"))
    with pytest.raises(UserError, match=r"trackers: wandb is not installed; install it \(pip install wandb\)"):
        run("unwatched", trackers=["wandb"])
    assert not (tmp_path / "unwatched").exists()


def test_what_wandb_refuses_is_told_in_its_words(run, monkeypatch):
    def refuse(**_):
        raise wandb.errors.UsageError("api_key not configured")

    monkeypatch.setattr(wandb, "init", refuse)
    with pytest.raises(UserError, match="trackers: wandb: api_key not configured"):
        run("unknown", steps=1, trackers=["wandb"])


def test_peak_memory_on_a_gpu_is_the_devices(monkeypatch):
    """No GPU is needed to see which figure is asked for."""
    asked = []
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: asked.append(device) or 3 * 2**30)
    from train.log import held_memory

    assert held_memory(torch.device("cuda", 0)) == 3.0 and asked == [torch.device("cuda", 0)]
    assert 0.05 < held_memory(torch.device("cpu")) < 64
