"""What a resumed run may change, and what is a checkpoint."""

import json
from types import SimpleNamespace

import pytest

from llava_pose.errors import UserError
from train.checkpointing import checkpoints
from train.config import TrainConfig
from train.resume import check_resumable, origin_of

ALONE = SimpleNamespace(state=SimpleNamespace(deepspeed_plugin=None), num_processes=1)


def zero(stage, processes):
    return SimpleNamespace(
        state=SimpleNamespace(deepspeed_plugin=SimpleNamespace(zero_stage=stage)), num_processes=processes
    )


@pytest.fixture
def resume(recipe, tmp_path):
    """``resume(begun_by, goes_on, **changes)``: a checkpoint of the first accelerator's run before the second's."""

    def attempt(begun_by=ALONE, goes_on=ALONE, rows=(24,), before=None, **changes):
        def origin(accelerator, rows, settings):
            config = TrainConfig.model_validate(recipe(tmp_path / "run", **settings))
            return origin_of(accelerator, config, rows)

        folder = tmp_path / "run" / "checkpoint-0000002"
        folder.mkdir(parents=True)
        progress = {"step": 2, "origin": origin(begun_by, [24], before or {}), "files": {}}
        (folder / "progress.json").write_text(json.dumps(progress))
        check_resumable(tmp_path / "run", origin(goes_on, rows, {**(before or {}), **changes}))

    return attempt


@pytest.mark.parametrize(
    "changes, named",
    [
        ({"seed": 1}, "seed: 1, but .*checkpoint-0000002 was trained with 0"),
        ({"batch_size": 8}, "batch_size: 8, but .* with 4"),
        ({"data": ["elsewhere"]}, "data: .*elsewhere"),
        ({"flip": False}, "flip: False"),
        ({"question_share": 0.25}, "question_share: 0.25"),
        ({"learning_rate": 0.5}, "learning_rate: 0.5"),
        ({"precision": "bf16"}, "precision: bf16"),
        ({"model": {"base": "embedded", "lora": {"rank": 7}}}, "model.base: embedded"),
        ({"steps": 12}, "steps: 12, but .* with 6; with this schedule the learning rate of the steps done"),
    ],
)
def test_a_resume_that_would_be_another_run_is_refused_by_name(resume, changes, named):
    with pytest.raises(UserError, match=named):
        resume(**changes)


def test_other_data_under_the_same_name_is_refused(resume):
    with pytest.raises(UserError, match=r"data: \[25\] rows, but .*checkpoint-0000002 was trained on \[24\]"):
        resume(rows=[25])


@pytest.mark.parametrize(
    "begun_by, goes_on",
    [(zero(2, 2), zero(2, 4)), (zero(2, 2), zero(3, 2)), (zero(2, 2), ALONE), (ALONE, zero(3, 2))],
)
def test_an_optimizer_state_that_cannot_be_shared_out_anew_is_refused(resume, begun_by, goes_on):
    with pytest.raises(UserError, match=r"checkpoint-0000002: its optimizer state is .*launch the run as it was"):
        resume(begun_by, goes_on)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"workers": 2, "log_every": 3, "eval_every": 7, "save_every": 11, "keep_checkpoints": 5, "save_dtype": "bf16"},
        {"micro_batch_size": 2, "gradient_checkpointing": True},
    ],
)
def test_what_only_decides_how_a_run_is_computed_shown_and_kept_may_change(resume, changes):
    resume(**changes)


def test_a_run_whose_rate_stays_constant_may_go_on_for_longer(resume):
    resume(before={"schedule": "constant_with_warmup"}, steps=60)


def test_without_deepspeed_another_number_of_processes_may_go_on(resume):
    resume(goes_on=SimpleNamespace(state=ALONE.state, num_processes=8))


def test_a_checkpoint_of_another_version_is_refused(resume, tmp_path):
    resume()
    file = tmp_path / "run" / "checkpoint-0000002" / "progress.json"
    file.write_text(file.read_text().replace('"flip"', '"flop"'))
    with pytest.raises(UserError, match=r"checkpoint-0000002: its configuration is of another version: .*flop"):
        check_resumable(tmp_path / "run", {"config": {}, "rows": [24], "sharing": None})


@pytest.mark.parametrize("damage", ["missing", "short", "unread", "unnamed"])
def test_a_checkpoint_that_is_not_whole_is_none(tmp_path, damage):
    for step in (2, 4):
        folder = tmp_path / f"checkpoint-000000{step}"
        (folder / "part").mkdir(parents=True)
        (folder / "part" / "state.bin").write_bytes(b"0123456789")
        (folder / "progress.json").write_text(json.dumps({"step": step, "files": {"part/state.bin": 10}}))
    assert [path.name for path in checkpoints(tmp_path)] == ["checkpoint-0000002", "checkpoint-0000004"]
    if damage == "missing":
        (folder / "part" / "state.bin").unlink()
    elif damage == "short":
        (folder / "part" / "state.bin").write_bytes(b"01234")
    elif damage == "unread":
        (folder / "progress.json").write_text('{"step": 4, "fil')
    else:
        (folder / "progress.json").unlink()
    assert [path.name for path in checkpoints(tmp_path)] == ["checkpoint-0000002"]
