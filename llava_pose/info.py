"""What ``llava-pose info`` tells: versions, devices, the embedded model, and what is missing."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from . import __version__, calibration
from .errors import UserError
from .folders import EMBEDDED, EMBEDDED_MODEL, EMBEDDED_TOWER, model_source

LIBRARIES = ("torch", "transformers", "tokenizers", "safetensors", "numpy", "pillow", "peft", "accelerate", "datasets")
OPTIONAL = {
    "fastapi": "serve",
    "uvicorn": "serve",
    "opencv-python-headless": "data",
    "openai": "data",
    "trimesh": "render",
    "embreex": "render",
    "deepspeed": "deepspeed",
    "bitsandbytes": "qlora",
    "wandb": "wandb",
}
"""Packages that only some need, and the extra that brings each."""


def report(model: str) -> Iterator[str]:
    """Lines about this installation, and about a model if another than the embedded one is named.

    Raises UserError when that is no model folder.
    """
    described = None if model == EMBEDDED else _model_lines(model_source(model))
    yield f"llava-pose {__version__} · Python {platform.python_version()} · {platform.system()} {platform.machine()}"
    yield "libraries: " + ", ".join(f"{name} {_version(name) or 'MISSING'}" for name in LIBRARIES)
    yield "optional:  " + ", ".join(_optional(name, extra) for name, extra in OPTIONAL.items())
    yield from _device_lines()
    yield from _file_lines("vision tower", EMBEDDED_TOWER, "reinstall the package")
    help_with_model = "train one (make demo) and name its folder with --model"
    yield from _file_lines("embedded model", EMBEDDED_MODEL, help_with_model)
    if described is None and EMBEDDED_MODEL.is_dir():
        described = _model_lines(str(EMBEDDED_MODEL))
    yield from described or []


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _optional(package: str, extra: str) -> str:
    found = _version(package)
    return f"{package} {found}" if found else f"{package} not installed (pip install 'llava-pose[{extra}]')"


def _device_lines() -> Iterator[str]:
    import torch

    yield f"device: CPU, {os.cpu_count()} cores, {torch.get_num_threads()} used by torch"
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        yield f"device: GPU {index}, {properties.name}, {properties.total_memory / 2**30:.0f} GiB"
    if not torch.cuda.is_available():
        yield "device: no GPU that torch can use"


def _file_lines(what: str, folder: Path, remedy: str) -> Iterator[str]:
    missing = [name for name in ("config.json", "model.safetensors") if not (folder / name).is_file()]
    if missing:
        yield f"{what}: {folder}: MISSING {', '.join(missing)}: {remedy}"
    else:
        size = sum(file.stat().st_size for file in folder.iterdir() if file.is_file())
        yield f"{what}: {folder} ({size / 1e6:.1f} MB)"


def _model_lines(source: str) -> list[str]:
    """What a model folder's own files say of it. Raises UserError when its configuration cannot be read."""
    folder = Path(source)
    if not folder.is_dir():
        return [f"model: {source}: a hub name; nothing of it is fetched to tell about it"]
    adapter = folder / "adapter_config.json"
    if adapter.is_file():
        base = _read_json(adapter).get("base_model_name_or_path")
        return [f"model: {folder}: an adapter of {base}", _calibration_line(folder)]
    config = _read_json(folder / "config.json")
    text = config.get("text_config") or {}
    sizes = f"{text.get('num_hidden_layers')} layers of {text.get('hidden_size')}"
    lines = [f"model: {folder}: {config.get('model_type')}, language model {text.get('model_type')} with {sizes}"]
    categories = config.get("pose_categories")
    if categories:
        lines.append(f"model: trained to name {len(categories)} categories: {', '.join(categories)}")
    return [*lines, _calibration_line(folder)]


def _calibration_line(folder: Path) -> str:
    if not (folder / calibration.FILE_NAME).is_file():
        return "model: not calibrated: how sure it says it is, is its own word (eval/calibrate.py fits that to data)"
    found = calibration.read(folder / calibration.FILE_NAME)
    return f"model: how sure it says it is was fitted to {found.objects} objects of {found.data} ({found.split})"


def _read_json(path: Path) -> dict[str, Any]:
    try:
        loaded = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read as JSON: {error}") from error
    if not isinstance(loaded, dict):
        raise UserError(f"{path}: expected an object, got {type(loaded).__name__}")
    return loaded
