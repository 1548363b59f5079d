"""A disk that is full ends a run with one clear line; the checkpoint before is whole, and the run goes on from it."""

import os
import re
import resource
import shutil
import subprocess
from multiprocessing.connection import wait

import pytest

from llava_pose.errors import UserError
from tests import ranks
from tests.invariant.test_training import assert_equal_logs, assert_equal_weights, lora
from train import finetune
from train.checkpointing import checkpoints

LIMIT = 100_000
"""Bytes a file may have: less than a checkpoint's or a model's weights, more than logs and what tests capture."""


@pytest.fixture
def no_more():
    """Call it, and the system refuses whatever would make a file longer than ``LIMIT``."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (LIMIT, before[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("full_before, left", [(1, "there is no checkpoint yet"), (2, "checkpoint-0000002 is whole")])
def test_a_checkpoint_that_does_not_fit_leaves_the_one_before(run, monkeypatch, no_more, full_before, left):
    whole = run("whole", steps=5, save_every=2)
    save, saved = finetune.save_checkpoint, []

    def saving(*arguments):
        saved.append(arguments)
        if len(saved) == full_before:
            no_more()
        save(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(finetune, "save_checkpoint", saving)
        with pytest.raises(UserError, match=f"full: the disk is full, or a quota or limit is reached .*; .*{left}"):
            run("full", steps=5, save_every=2)
    folder = whole.parent / "full"
    assert [path.name for path in checkpoints(folder)] == ["checkpoint-0000002"][: full_before - 1]
    assert not (folder / "final").exists()
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
    run("full", "--resume", steps=5, save_every=2)
    assert_equal_weights(whole / "final", folder / "final")


def test_a_model_folder_that_does_not_fit_leaves_the_last_checkpoint(run, monkeypatch, no_more):
    whole = run("whole", steps=3, save_every=2)
    save = finetune.save_final

    def saving(*arguments):
        no_more()
        save(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(finetune, "save_final", saving)
        with pytest.raises(UserError, match=r"full: the disk is full.*checkpoint-0000002 is whole"):
            run("full", steps=3, save_every=2)
    folder = whole.parent / "full"
    assert not list(folder.glob("*final*")), "half a model"
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
    run("full", "--resume", steps=3, save_every=2)
    assert_equal_weights(whole / "final", folder / "final")


@pytest.fixture
def small_disk(tmp_path):
    """``disk(size)``: a file system of that many bytes, made or made larger. Skipped where none can be mounted."""
    folder = tmp_path / "disk"
    folder.mkdir()

    def mount(*arguments):
        return subprocess.run(["mount", *arguments, str(folder)], capture_output=True, check=False).returncode == 0

    if os.geteuid() != 0 or not mount("-t", "tmpfs", "-o", "size=1m", "none"):
        pytest.skip("no file system can be mounted here")
    yield lambda size: mount("-o", f"remount,size={size}") and folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.slow
@pytest.mark.parametrize("processes, zero", [(1, None), (2, None), (2, 3)])
def test_a_run_on_a_disk_of_any_size_ends_well_or_with_one_line(
    recipe, released, tmp_path, small_disk, processes, zero
):
    settings = {"steps": 8, "save_every": 2, "keep_checkpoints": 3, "micro_batch_size": 2, **lora(released)}
    whole = ranks.train(recipe(tmp_path / "whole", **settings), processes=processes, zero=zero)
    one = sum(path.stat().st_size for path in checkpoints(whole)[-1].rglob("*"))
    for parts in (0.5, 1.7, 2.6, 4.2):
        # The run's folder is the disk itself: what the processes say goes beside it, where there is room.
        disk = small_disk(int(one * parts))
        values = recipe(disk, **settings)
        for path in disk.parent.glob("disk.?.txt"):
            path.unlink()
        started = ranks.start(values, processes=processes, zero=zero)
        wait([process.sentinel for process in started], ranks.LIMIT)
        for process in started:
            # What a rank makes of losing the other is not looked at; one that waits on is ended.
            process.join(20)
            process.kill()
            process.join()
        codes = {process.exitcode for process in started}
        text = ranks.said(values)
        assert 2 in codes or codes == {0}, text
        told = re.findall(r"error: /.*", text)
        assert 0 in codes or (told and all(f"{disk}: the disk is full" in line for line in told)), text
        kept = [path.name for path in checkpoints(disk)]
        print(f"{parts} checkpoints: {codes}, {kept}")
        small_disk("100m")
        ranks.train(values, "--resume", processes=processes, zero=zero)
        assert_equal_weights(whole / "final", disk / "final")
        assert_equal_logs(whole, disk)
        for path in disk.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
