"""Model folders: load one, save one.

``load`` opens four kinds, by what the folder holds and never by words in its path: one of our full models, one of our
adapters (its base is loaded first, then merged in), a released checkpoint of one of the ``families`` (which gains
``<pose>`` and a newly initialised pose head, and nothing else; one that ``merging`` wrote brings its own), and
``"embedded"``, the small model in this package. Only safetensors are read, and no code from a checkpoint is ever run.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from transformers import AutoConfig
from transformers.utils import cached_file

from . import calibration, taxonomy, vision
from .bases import check_base
from .configuration import POSE_TOKEN
from .errors import UserError
from .families import Family, family_of, has_head
from .folders import EMBEDDED, model_source, optional_file, use_taxonomy_of
from .processing import add_pose_token
from .quantization import keep_exact

# PEFT imports bitsandbytes where it is installed, which warns, on some CPUs, that it lacks a kernel nobody asked for.
logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)

ADAPTER_CONFIG = "adapter_config.json"

HEAD_FILE = "pose_head.safetensors"
"""The pose head of a model that was merged into a plain folder of its family (``merging``)."""

# A family's model and its processor: what is of transformers in them has no type of its own.
Pair = tuple[Any, Any]


def load(
    path: str | Path,
    dtype: torch.dtype | None = None,
    head: Mapping[str, int] | None = None,
    dequantize: bool = False,
    **kwargs: Any,
) -> Pair:
    """The model (evaluation mode, on the CPU unless ``device_map`` says otherwise) and its processor.

    Where the model names categories of its own, they are in the taxonomy from then on. ``model.calibration`` is what
    its folder holds in ``calibration.json``, or None; ``save`` leaves it behind, as it belongs to these weights alone.

    ``path``: a folder, a hub name, or "embedded". ``dtype``: float32 when left out; the pose head stays float32
    whatever it is. ``head``: ``pose_bins`` and ``pose_hidden_size`` of the head that a released checkpoint gains (ours
    have their own). ``kwargs`` go to ``from_pretrained`` (``device_map``, ``quantization_config`` …).

    An adapter is merged into its base. With a ``quantization_config`` the base stays quantised, and the adapter beside
    it, which gives the very answers of a training run in four bits; with ``dequantize`` too, the weights that the
    quantised base stands for are taken back to float32, and the adapter is merged into these.

    Raises:
        UserError: the folder does not exist, is no model folder, holds a model of another kind, or its taxonomy is
            wrong, missing or contradicts one in use, its calibration is wrong or for another number of bins, or it is
            an adapter of another base than the one there now.
    """
    name = model_source(path)
    folder = Path(name)
    try:
        config = AutoConfig.from_pretrained(name, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: not a model folder or reachable hub name: {_first_line(error)}") from error
    family = family_of(config, path)
    use_taxonomy_of(name)
    adapter = optional_file(name, ADAPTER_CONFIG)
    if adapter is not None:
        model, processor = _load_adapter(name, adapter, family, config, dtype, dequantize, **kwargs)
    elif has_head(config):
        model, processor = _load_ours(name, family, config, dtype, **kwargs)
    else:
        model, processor = _load_released(name, family, config, dtype, head or {}, **kwargs)
    if "quantization_config" in kwargs:
        keep_exact(model)
    taxonomy.check_canonical(model.config.pose_categories or (), path)
    model.calibration = _calibration(name, model.config.pose_bins)
    # Loaded in half precision with the rest, the head goes back to float32: see PoseHead.
    model.pose_head.float()
    # What an adapter trained on this model will name as its base.
    model.name_or_path = EMBEDDED if str(path) == EMBEDDED else str(folder.resolve()) if folder.is_dir() else name
    return model.eval(), processor


def check_has_head(path: str | Path) -> None:
    """Raises UserError where ``path`` is a checkpoint as released: ``load`` would give it a pose head that knows
    nothing."""
    name = model_source(path)
    if optional_file(name, ADAPTER_CONFIG) is None:
        config = _from_pretrained(AutoConfig, name, trust_remote_code=False)
        family_of(config, path)
        if not has_head(config) and optional_file(name, HEAD_FILE) is None:
            raise UserError(f"{path}: a model without a pose head; finetune it first (train/finetune.py)")


def _own_processor(name: str, family: Family, config: Any) -> Any:
    """The processor of a folder of ours, whose tokenizer must have the ``<pose>`` that the model was trained with."""
    processor = _from_pretrained(family.processor, name)
    try:
        token_id = processor.pose_token_id
    except ValueError as error:
        raise UserError(f"{name}: {error}, though the model was trained with one") from error
    if token_id != config.pose_token_id:
        raise UserError(f"{name}: {POSE_TOKEN} is the tokenizer's {token_id}, but the model's {config.pose_token_id}")
    return processor


def _load_ours(name: str, family: Family, config: Any, dtype: torch.dtype | None, **kwargs: Any) -> Pair:
    processor = _own_processor(name, family, config)
    extra = {}
    if config.tower_source == EMBEDDED:
        # Kept once in this package, and left out of every model folder that uses it unchanged.
        extra["state_dict"] = {**_weights(name), **_tower_weights()}
    target = None if extra else name
    model, info = _from_pretrained(
        family.model,
        target,
        config=config,
        dtype=dtype or torch.float32,
        output_loading_info=True,
        ignore_mismatched_sizes=True,  # refused by _check_complete, by name
        **extra,
        **kwargs,
    )
    _check_complete(name, info, allowed=())
    return model, processor


def _load_released(
    name: str, family: Family, config: Any, dtype: torch.dtype | None, head: Mapping[str, int], **kwargs: Any
) -> Pair:
    processor = _from_pretrained(family.processor, name)
    processor.complete(config)
    token_id = add_pose_token(processor.tokenizer)
    model, info = _from_pretrained(
        family.model,
        name,
        config=family.config.with_pose(config, pose_token_id=token_id, **head),
        dtype=dtype or torch.float32,
        output_loading_info=True,
        ignore_mismatched_sizes=True,  # refused by _check_complete, by name
        **kwargs,
    )
    _check_complete(name, info, allowed=("pose_head.",))
    merged_head = optional_file(name, HEAD_FILE)
    if merged_head is None:
        _init_token_row(model, token_id)
    else:
        _load_head(model, merged_head)
    return model, processor


def _load_head(model: Any, file: Path) -> None:
    try:
        model.pose_head.float().load_state_dict(load_file(file))
    except (OSError, SafetensorError, RuntimeError) as error:
        raise UserError(f"{file}: does not hold this model's pose head: {_first_line(error)}") from error


def _load_adapter(
    name: str,
    adapter: Path,
    family: Family,
    config: Any,
    dtype: torch.dtype | None,
    dequantize: bool,
    **kwargs: Any,
) -> Pair:
    from peft import PeftModel

    base = json.loads(adapter.read_text(encoding="utf-8")).get("base_model_name_or_path")
    if not base:
        raise UserError(f"{adapter}: base_model_name_or_path is missing")
    if config.base_weights is not None:
        check_base(name, base, config.base_weights)
    processor = _own_processor(name, family, config)
    head = {field: getattr(config, field) for field in ("pose_bins", "pose_hidden_size")}
    model, _ = load(base, dtype, head, **kwargs)
    if dequantize:
        model.dequantize(torch.float32)
        model.float()
    losses = ("pose_loss_weight", "pose_target_deviation", "pose_geodesic_weight")
    for field in ("pose_token_id", *losses, "pose_categories", "tower_source"):
        setattr(model.config, field, getattr(config, field))
    try:
        adapted = PeftModel.from_pretrained(model, name)
        # Merged into four bits it would be rounded to them.
        beside = "quantization_config" in kwargs and not dequantize
        return (adapted.get_base_model() if beside else adapted.merge_and_unload()), processor
    except (RuntimeError, ValueError, KeyError) as error:
        raise UserError(f"{name}: the adapter does not fit its base {base}: {_first_line(error)}") from error


def save(
    model: Any,
    processor: Any,
    path: str | Path,
    dtype: torch.dtype | None = None,
    state: Mapping[str, torch.Tensor] | None = None,
    card: str | None = None,
) -> None:
    """Write a folder that ``load`` opens: a full model, or the adapter of a PEFT model.

    ``dtype`` casts the weights on the way (the pose head too; ``load`` brings it back to float32); ``state`` stands in
    for the model's own weights, where those are sharded; ``card`` is the folder's README.md. The taxonomy
    goes with it where it is not the built-in one. The folder appears under its name only when it is complete; an older
    one of that name is replaced.
    """
    from peft import PeftModel

    path = Path(path)
    partial = path.with_name(f".{path.name}.partial-{os.getpid()}")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        weights = dict(model.state_dict() if state is None else state)
        if dtype is not None:
            weights = {name: value.to(dtype) if value.is_floating_point() else value for name, value in weights.items()}
        # PEFT would ask the hub whether the vocabulary has grown; all that has, the row of <pose>, is in the adapter.
        adapter = {"save_embedding_layers": False} if isinstance(model, PeftModel) else {}
        model.save_pretrained(partial, state_dict=weights, **adapter)
        model.config.save_pretrained(partial)
        processor.save_pretrained(partial)
        taxonomy.write_into(partial)
        if card is not None:
            (partial / "README.md").write_text(card, encoding="utf-8")
        make_readable(partial)
        if path.exists():
            shutil.rmtree(path)
        os.replace(partial, path)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def make_readable(folder: Path) -> None:
    """safetensors writes for its owner alone; a model folder is read by whoever may read its other files."""
    for file in folder.iterdir():
        file.chmod(0o666 & ~_umask())


def _calibration(name: str, pose_bins: int) -> calibration.Calibration | None:
    file = optional_file(name, calibration.FILE_NAME)
    if file is None:
        return None
    found = calibration.read(file)
    if found.num_bins != pose_bins:
        raise UserError(f"{file}: num_bins: {found.num_bins}, but the model has {pose_bins}")
    return found


def _weights(name: str) -> dict[str, torch.Tensor]:
    try:
        return load_file(str(cached_file(name, "model.safetensors")))
    except (OSError, SafetensorError) as error:
        raise UserError(f"{name}: model.safetensors cannot be read: {_first_line(error)}") from error


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _tower_weights() -> dict[str, torch.Tensor]:
    state = vision.load_embedded_tower().state_dict()
    return {f"model.vision_tower.{name}": value for name, value in state.items()}


def _init_token_row(model: Any, token_id: int) -> None:
    """Give ``<pose>`` a row in both vocabulary matrices: the mean of the rows before it.

    Most released checkpoints have padded rows to spare, and resizing to the tokenizer would cut them off; the matrices
    only ever grow. Where they are tied, they are one. Rows that padding adds get the same mean, and not numbers drawn
    anew with every loading: they belong to no token, but every probability is a share beside theirs.
    """
    rows = model.get_input_embeddings().num_embeddings
    if token_id >= rows:
        model.resize_token_embeddings(token_id + 1, pad_to_multiple_of=64, mean_resizing=False)
    for matrix in (model.get_input_embeddings().weight, model.get_output_embeddings().weight):
        with torch.no_grad():
            mean = matrix[:token_id].float().mean(0).to(matrix.dtype)
            matrix[token_id] = mean
            matrix[rows:] = mean


def _from_pretrained(kind: Any, *args: Any, **kwargs: Any) -> Any:
    try:
        return kind.from_pretrained(*args, **kwargs)
    except (OSError, ValueError, SafetensorError) as error:
        raise UserError(f"{args[0]}: cannot load {kind.__name__}: {_first_line(error)}") from error


def _check_complete(name: str, info: Mapping[str, Any], allowed: tuple[str, ...]) -> None:
    missing = [key for key in info["missing_keys"] if not key.startswith(allowed or ("\0",))]
    wrong = [*missing, *info["mismatched_keys"], *info["unexpected_keys"]]
    if wrong:
        raise UserError(f"{name}: weights do not fit the model: {wrong[0]} and {len(wrong) - 1} more")


def _first_line(error: BaseException) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
