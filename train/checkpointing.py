"""A run's checkpoints: what is needed to go on as if nothing had happened.

A checkpoint holds the trained weights (safetensors; frozen ones are in the base), the optimizer's state, the step,
which evaluation was the best until then, and what the run comes from (``train.resume``). The order of the data and the
dropout masks are functions of the step (``train.sampling``, ``train.step``) and so need no saving.

It is written under another name and renamed when complete, and older ones go only after that: at any moment the newest
``checkpoint-*`` is whole. ``progress.json`` names its files with their sizes, so that a copy cut short is none either.
"""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from safetensors.torch import load_file, save_file

from llava_pose.errors import UserError

from .best import Best
from .config import TrainConfig

WEIGHTS = "trained.safetensors"
PROGRESS = "progress.json"
PARTIAL = ".partial-"
"""What a checkpoint's name begins with while it is written or deleted."""


def handle_weights(accelerator: Accelerator, model: Any) -> None:
    """Make ``save_state`` and ``load_state`` keep the trained weights only. DeepSpeed keeps its own partitions."""
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}

    def save_weights(models: list[Any], weights: list[Any], folder: str) -> None:
        # Not what is handed in: on several processes its names begin with "module.".
        state = accelerator.unwrap_model(models[0]).state_dict() if weights else {}
        weights.clear()
        if state and accelerator.is_main_process:
            state = {name: value.contiguous() for name, value in state.items() if name in trained}
            save_file(state, os.path.join(folder, WEIGHTS))

    def load_weights(models: list[Any], folder: str) -> None:
        if not os.path.exists(os.path.join(folder, WEIGHTS)):
            return
        while models:
            state = load_file(os.path.join(folder, WEIGHTS))
            if set(state) != trained:
                raise UserError(f"{folder}: {WEIGHTS} holds other weights than this configuration trains")
            accelerator.unwrap_model(models.pop()).load_state_dict(state, strict=False)

    accelerator.register_save_state_pre_hook(save_weights)
    accelerator.register_load_state_pre_hook(load_weights)


def save_checkpoint(
    accelerator: Accelerator, run: Path, step: int, best: Best, config: TrainConfig, origin: dict[str, Any]
) -> None:
    """Write ``checkpoint-{step}`` under the run's folder, then drop all but the newest ``keep_checkpoints`` and, with
    ``keep_best``, that of the best evaluation. ``origin`` is what ``train.resume`` will compare."""
    final = _folder(run, step)
    partial = run / f"{PARTIAL}{final.name}"
    if accelerator.is_main_process:
        partial.mkdir(parents=True)
    accelerator.wait_for_everyone()
    accelerator.save_state(str(partial), **({"exclude_frozen_parameters": True} if _deepspeed(accelerator) else {}))
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        files = {str(path.relative_to(partial)): path.stat().st_size for path in _files(partial)}
        progress = {"step": step, "best": asdict(best), "origin": origin, "files": files}
        (partial / PROGRESS).write_text(json.dumps(progress), encoding="utf-8")
        for path in (*_files(partial), *(path for path in partial.rglob("*") if path.is_dir()), partial):
            _to_disk(path)
        _drop(final)  # an incomplete one: a complete one would have been gone on from
        os.replace(partial, final)
        _to_disk(run)
        for old in checkpoints(run)[: -config.keep_checkpoints]:
            if not (config.keep_best and old == _folder(run, best.step)):
                _drop(old)
    accelerator.wait_for_everyone()


def load_checkpoint(accelerator: Accelerator, run: Path) -> tuple[int, Best]:
    """Go back to the newest checkpoint of the run; the step it was taken after, 0 without one, and the best by then.

    What a killed run left half-written or half-deleted goes.
    """
    if accelerator.is_main_process:
        for path in run.glob(f"{PARTIAL}*"):
            shutil.rmtree(path)
    found = checkpoints(run)
    if not found:
        return 0, Best()
    _load(accelerator, found[-1])
    progress = read_progress(found[-1])
    return int(progress["step"]), Best(**progress["best"])


def load_best(accelerator: Accelerator, run: Path, best: Best) -> None:
    """Go back to the weights of the best evaluation, whose checkpoint is kept."""
    _load(accelerator, _folder(run, best.step))


def checkpoints(run: Path) -> list[Path]:
    """The run's complete checkpoints, oldest first."""
    return sorted(path for path in run.glob("checkpoint-*") if _complete(path))


def read_progress(checkpoint: Path) -> dict[str, Any]:
    """What a complete checkpoint says of itself: ``step``, ``best``, ``origin``, ``files``."""
    return json.loads((checkpoint / PROGRESS).read_text(encoding="utf-8"))


def _complete(checkpoint: Path) -> bool:
    try:
        files = read_progress(checkpoint)["files"]
        return all((checkpoint / name).stat().st_size == size for name, size in files.items())
    except (OSError, ValueError):
        return False


def _load(accelerator: Accelerator, folder: Path) -> None:
    # The frozen weights are not in it.
    accelerator.load_state(str(folder), **({"load_module_strict": False} if _deepspeed(accelerator) else {}))
    # accelerate's count of micro batches; in a step of another number of them it would end steps in the middle.
    accelerator.step = 0


def _folder(run: Path, step: int) -> Path:
    return run / f"checkpoint-{step:07d}"


def _deepspeed(accelerator: Accelerator) -> bool:
    return accelerator.distributed_type.value == "DEEPSPEED"


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def _drop(checkpoint: Path) -> None:
    """Delete a checkpoint that may not be there. Renamed first: half-deleted it must not look like one."""
    if checkpoint.exists():
        gone = checkpoint.with_name(f"{PARTIAL}old-{checkpoint.name}")
        os.replace(checkpoint, gone)
        shutil.rmtree(gone)


def _to_disk(path: Path) -> None:
    """Have the kernel write a file or a folder's entries out: after a power cut a rename must not outlive them."""
    opened = os.open(path, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)
