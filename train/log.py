"""What a run tells: log.jsonl, the trackers, the progress bar."""

from __future__ import annotations

import importlib.util
import json
import resource
import sys
import time
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import ProjectConfiguration
from tqdm import tqdm

from llava_pose.errors import UserError

from .config import TrainConfig
from .optimizers import peak_learning_rates
from .schedule import learning_rate_factor

PROJECT = "llava-pose"
"""The project's name in the trackers."""


def tracking(config: TrainConfig, run: Path) -> dict[str, Any]:
    """What an accelerator is told of a run's trackers. Raises UserError where a package is missing, which accelerate
    would pass over in silence."""
    for name in config.trackers:
        if importlib.util.find_spec(name) is None:
            raise UserError(f"trackers: {name} is not installed; install it (pip install {name}) or leave it out")
    folders = ProjectConfiguration(project_dir=str(run), logging_dir=str(run / "logs"))
    return {"log_with": config.trackers or None, "project_config": folders}


def start_trackers(accelerator: Accelerator, config: TrainConfig, run: Path) -> None:
    """Begin the run in its trackers: TensorBoard's files go to ``logs``, W&B's to ``wandb`` in the run's folder.

    A resumed run goes on in W&B as the run it was. Raises UserError where W&B refuses, as it does without a login.
    """
    if "wandb" not in config.trackers:
        accelerator.init_trackers(PROJECT)
        return
    import wandb

    begun = sorted(run.glob("wandb/*run-*"), key=lambda folder: folder.stat().st_mtime)
    again = {"id": begun[-1].name.rpartition("-")[2], "resume": "allow"} if begun else {}
    settings = {"name": run.name, "dir": str(run), "config": config.model_dump(), **again}
    try:
        accelerator.init_trackers(PROJECT, init_kwargs={"wandb": settings})
    except wandb.Error as error:
        raise UserError(f"trackers: wandb: {error}") from error


class Log:
    """Losses and scores to log.jsonl, the trackers and the progress bar.

    A run that goes on from ``step`` first drops what an earlier one logged beyond it: those steps come again.
    """

    def __init__(self, accelerator: Accelerator, run: Path, config: TrainConfig, step: int):
        self.accelerator, self.config = accelerator, config
        self.file = run / "log.jsonl"
        if accelerator.is_main_process and self.file.exists():
            lines = self.file.read_text(encoding="utf-8").splitlines()
            # The last line of a killed run may be cut short, and is then beyond the checkpoint.
            kept = [line for line in lines if line.endswith("}") and json.loads(line)["step"] <= step]
            self.file.write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")
        self.sums: dict[str, float] = {}
        self.steps, self.since = 0, time.perf_counter()
        self.first_step, self.started = step, self.since

    def add(self, step: int, losses: dict[str, float], progress: Any) -> None:
        """Count one step's losses; every ``log_every`` steps write their means, and how the run gets on.

        ``eta_seconds`` counts evaluations and checkpoints in, as far as there were any; ``peak_memory_gib`` is the most
        that any process held so far, of the GPU's memory or, without one, of the machine's.
        """
        self.steps += 1
        for name, value in losses.items():
            self.sums[name] = self.sums.get(name, 0.0) + value
        if step % self.config.log_every == 0:
            now = time.perf_counter()
            means = {name: value / self.steps for name, value in self.sums.items()}
            means["samples_per_second"] = self.steps * self.config.batch_size / (now - self.since)
            means["tokens_per_second"] = self.sums["input_tokens"] / (now - self.since)
            factor = learning_rate_factor(step - 1, self.config)
            means.update({key: rate * factor for key, rate in peak_learning_rates(self.config).items()})
            device = self.accelerator.device
            held = torch.tensor([held_memory(device)], device=device)
            means["peak_memory_gib"] = float(self.accelerator.gather(held).max())
            means["eta_seconds"] = (self.config.steps - step) * (now - self.started) / (step - self.first_step)
            progress.set_postfix(language=f"{means['language_loss']:.3f}", pose=f"{means['pose_loss']:.3f}")
            self.write(step, means)
            self.sums, self.steps, self.since = {}, 0, time.perf_counter()

    def write(self, step: int, values: dict[str, float]) -> dict[str, float]:
        """Append one line to log.jsonl, hand the values to the trackers, and return them."""
        self.accelerator.log(values, step=step)
        if self.accelerator.is_main_process and values:
            with self.file.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"step": step, **values}) + "\n")
            if "val_acc_pi_6" in values:
                tqdm.write(
                    f"step {step}: val acc@π/6 {values['val_acc_pi_6']:.1f}  acc@π/18 {values['val_acc_pi_18']:.1f}  "
                    f"median {values['val_median_error_deg']:.1f}°  class {values['val_classification_accuracy']:.1f}  "
                    f"<pose> written {values['val_pose_emission']:.0f}%"
                )
        return values


def held_memory(device: torch.device) -> float:
    """The most GiB this process has held so far: of the GPU's memory, or, on the CPU, of the machine's."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    # Kilobytes, but on macOS bytes.
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30
