"""A run's checkpoints: what is needed to go on as if nothing had happened.

A checkpoint holds the trained weights (safetensors; frozen ones are in the base), the optimizer's state, every
process's random state, the step, and which evaluation was the best until then. The order of the data is a function of
the step (``train.data``) and so needs no saving. It is written under another name and renamed when complete, and older
ones go only after that: at any moment the newest ``checkpoint-*`` is whole.
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


def save_checkpoint(accelerator: Accelerator, run: Path, step: int, best: Best, config: TrainConfig) -> None:
    """Write ``checkpoint-{step}`` under the run's folder, then drop all but the newest ``keep_checkpoints`` and, with
    ``keep_best``, that of the best evaluation."""
    final = _folder(run, step)
    partial = run / f".partial-{final.name}"
    if accelerator.is_main_process:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
    accelerator.wait_for_everyone()
    accelerator.save_state(str(partial), **({"exclude_frozen_parameters": True} if _deepspeed(accelerator) else {}))
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        (partial / "progress.json").write_text(json.dumps({"step": step, "best": asdict(best)}), encoding="utf-8")
        _to_disk(partial)
        shutil.rmtree(final, ignore_errors=True)
        os.replace(partial, final)
        for old in checkpoints(run)[: -config.keep_checkpoints]:
            if not (config.keep_best and old == _folder(run, best.step)):
                shutil.rmtree(old)
    accelerator.wait_for_everyone()


def load_checkpoint(accelerator: Accelerator, run: Path) -> tuple[int, Best]:
    """Go back to the newest checkpoint of the run; the step it was taken after, 0 without one, and the best by then."""
    found = checkpoints(run)
    if not found:
        return 0, Best()
    _load(accelerator, found[-1])
    progress = json.loads((found[-1] / "progress.json").read_text(encoding="utf-8"))
    return int(progress["step"]), Best(**progress["best"])


def load_best(accelerator: Accelerator, run: Path, best: Best) -> None:
    """Go back to the weights of the best evaluation, whose checkpoint is kept."""
    _load(accelerator, _folder(run, best.step))


def _load(accelerator: Accelerator, folder: Path) -> None:
    # The frozen weights are not in it.
    accelerator.load_state(str(folder), **({"load_module_strict": False} if _deepspeed(accelerator) else {}))


def _folder(run: Path, step: int) -> Path:
    return run / f"checkpoint-{step:07d}"


def checkpoints(run: Path) -> list[Path]:
    """The run's complete checkpoints, oldest first."""
    return sorted(path for path in run.glob("checkpoint-*") if (path / "progress.json").is_file())


def _deepspeed(accelerator: Accelerator) -> bool:
    return accelerator.distributed_type.value == "DEEPSPEED"


def _to_disk(folder: Path) -> None:
    """Have the kernel write the files out: after a power cut a rename must not outlive its contents."""
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())
