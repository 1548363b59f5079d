"""A finetuned model as a folder of its family's own: one that plain transformers opens, without this package.

The adapter is merged into the base. What transformers' own class knows is saved by that class, under its name; beside
it lie the pose head (``pose_head.safetensors``) and, in ``config.json``, the ``pose_…`` fields, which transformers
ignores and ``checkpoint.load`` reads: here the folder is a full model, there a LLaVA that writes ``<pose>``.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from transformers import AutoConfig

from . import calibration, checkpoint, taxonomy
from .configuration import PoseConfigMixin
from .errors import UserError
from .folders import model_source, optional_file
from .quantization import nf4

CARD = "README.md"


def merge(path: str | Path, out: str | Path, dtype: torch.dtype = torch.bfloat16, as_trained: bool = False) -> None:
    """Write the model in ``path`` (a folder, a hub name) as a plain folder ``out``, its weights in ``dtype``.

    Adapters are merged in float32 and rounded once; the pose head stays float32. The folder appears under its name
    only when it is complete. A calibration, a taxonomy and the model card go with it.

    An adapter trained beside a base in four bits is merged into that base in full, which is what ``checkpoint.load``
    does and evaluation measures; with ``as_trained`` into the weights that the four bits stand for, which gives the
    answers of training.

    Raises:
        UserError: ``out`` is there already; the model's vision tower is this package's own, which transformers lacks;
            ``as_trained`` is asked of another than an adapter trained on four bits; or ``path`` cannot be loaded.
    """
    out = Path(out)
    if out.exists():
        raise UserError(f"{out}: is there already; name a folder that is not")
    source = model_source(path)
    if as_trained:
        model, processor = _load_as_trained(path, source)
    else:
        checkpoint.check_has_head(path)
        model, processor = checkpoint.load(path)
    _check_plain(model, path)
    partial = out.with_name(f".{out.name}.partial-{os.getpid()}")
    partial.mkdir(parents=True)
    try:
        save_file(_state(model.pose_head, torch.float32), partial / checkpoint.HEAD_FILE)
        _plain_model(model, dtype).save_pretrained(partial)
        _save_processor(processor, partial)
        taxonomy.write_into(partial)
        for name in (calibration.FILE_NAME, CARD):
            file = optional_file(source, name)
            if file is not None:
                shutil.copy(file, partial / name)
        checkpoint.make_readable(partial)
        os.replace(partial, out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _load_as_trained(path: str | Path, source: str) -> Any:
    config = AutoConfig.from_pretrained(source, trust_remote_code=False)
    record = config.base_weights if isinstance(config, PoseConfigMixin) else None
    if record is None or record["loaded_as"] != "nf4":
        raise UserError(f"{path}: is no adapter that was trained on a base in four bits (nf4)")
    # As in training: what was quantised was in bfloat16.
    return checkpoint.load(path, torch.bfloat16, dequantize=True, quantization_config=nf4())


def _check_plain(model: Any, path: str | Path) -> None:
    tower = model.config.vision_config
    if not type(tower).__module__.startswith("transformers."):
        raise UserError(
            f"{path}: its vision tower ({tower.model_type}) is part of llava_pose and unknown to transformers: "
            "there is no plain form of it"
        )


def _plain_model(model: Any, dtype: torch.dtype) -> Any:
    """The same weights, but for the head's, in transformers' own class."""
    kind = _transformers_class(type(model))
    fields = {key: value for key, value in model.config.to_dict().items() if key != "model_type"}
    config = kind.config_class(**fields)
    config.architectures = [kind.__name__]
    # Without memory of its own: it takes over these tensors, and complains of any that is missing or left.
    with torch.device("meta"):
        plain = kind(config)
    state = {name: value for name, value in _state(model, dtype).items() if not name.startswith("pose_head.")}
    plain.load_state_dict(state, assign=True)
    plain.tie_weights()
    plain.generation_config = model.generation_config
    plain.config.dtype = dtype
    return plain


def _save_processor(processor: Any, folder: Path) -> None:
    """Save it under transformers' own name of it."""
    processor.save_pretrained(folder)
    for name in ("processor_config.json", "tokenizer_config.json"):
        fields = json.loads((folder / name).read_text(encoding="utf-8"))
        fields["processor_class"] = _transformers_class(type(processor)).__name__
        (folder / name).write_text(json.dumps(fields, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _transformers_class(kind: type) -> Any:
    return next(parent for parent in kind.__mro__ if parent.__module__.startswith("transformers.models."))


def _state(module: Any, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    return {
        name: value.to(dtype) if value.is_floating_point() else value for name, value in module.state_dict().items()
    }
