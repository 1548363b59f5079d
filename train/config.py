"""A run's configuration: typed, nested once, validated before any expensive work."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from llava_pose import taxonomy
from llava_pose.errors import UserError


class Section(BaseModel):
    """A part of the configuration: an unknown key or a value of another type is refused by name."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class LoraSettings(Section):
    """Low-rank adapters on the language model (PEFT)."""

    rank: int = Field(64, ge=1)
    alpha: int = Field(128, ge=1)
    dropout: float = Field(0.05, ge=0, lt=1)
    # Spelled out to the language model: plain suffixes would hit the vision tower too.
    target_modules: str = r".*language_model\.layers\.\d+\.(self_attn\.[qkvo]_proj|mlp\.(gate|up|down)_proj)"


class ModelSettings(Section):
    """Where the model comes from and what of it is trained. Exactly one of ``base`` and ``text`` is given."""

    base: str | None = None  # a model folder, a hub name, or "embedded"
    # Of the base's weights; adapters and head stay fp32. nf4: its language model's layers in four bits (QLoRA).
    base_dtype: Literal["bf16", "fp32", "nf4"] = "fp32"
    text: dict[str, int | float] | str | None = None  # a new language model's sizes, or a checkpoint to build on
    vision_tower: str = "embedded"  # the tower beside ``text``
    tower_sizes: dict[str, int] | None = None  # image_size, patch_size of the embedded tower
    projector: str | None = None  # a file that the base's projector begins with (train/pretrain_projector.py)
    lora: LoraSettings | None = None  # adapters and the <pose> rows; otherwise the language model in full
    attention: Literal["sdpa", "eager", "flash_attention_2"] = "sdpa"  # how attention is computed while training
    train_projector: bool = True
    train_vision_tower: bool = False  # in full, with lora too: the adapter's folder then holds the tower
    pose_hidden_size: int | None = Field(None, ge=1)  # of a new head; None: 512, or that of a base that has a head
    pose_loss_weight: float = Field(1.0, ge=0)
    pose_target_deviation: float = Field(1.0, ge=0)  # bins; 0 is the paper's hard cross-entropy
    pose_geodesic_weight: float = Field(0.0, ge=0)  # of the expected 1 − cos of the geodesic error, beside it

    @model_validator(mode="after")
    def _one_origin(self) -> ModelSettings:
        if (self.base is None) == (self.text is None):
            raise ValueError("give either base (a model to finetune) or text (a language model to build on)")
        if self.lora is not None and self.base is None:
            raise ValueError("lora needs base: an adapter names the model it belongs to, and that must be on disk")
        if self.projector is not None and self.base is None:
            raise ValueError("projector goes with base")
        if self.lora is None and self.base_dtype != "fp32":
            raise ValueError(f"base_dtype {self.base_dtype} needs lora: updates of such weights are rounded away")
        return self


def _named_path(value: Any) -> Any:
    return {"path": value} if isinstance(value, str) else value


class DataSettings(Section):
    """A data set: a folder that data_prep wrote, or a .json file of plain conversations in LLaVA's form."""

    path: str
    weight: float = Field(1.0, ge=0)  # how many times each of its rows is seen in an epoch
    images: str | None = None  # the folder that a .json file's image names start from; None: where the file lies

    @property
    def plain(self) -> bool:
        """Whether it is a file of plain conversations."""
        return self.path.endswith(".json")

    @model_validator(mode="after")
    def _images_of_a_file(self) -> DataSettings:
        if self.images is not None and not self.plain:
            raise ValueError("images goes with a .json file; a folder of data_prep holds its own")
        return self


class SamplingSettings(Section):
    """Which rows are drawn, and which share a batch (train/sampling.py)."""

    # What is made equally likely within each posed data set: categories, sides seen (eighths of azimuth), or both.
    balance: Literal["none", "class", "pose", "class_and_pose"] = "none"
    group_by_length: bool = True  # steps of rows of like length: less padding
    max_text_tokens: Annotated[int, Field(ge=64)] = 2048  # of a plain conversation; what is beyond is left out


class TrainConfig(Section):
    """Everything a run depends on; saved with it as ``config.yaml``."""

    output_dir: str
    data: list[Annotated[DataSettings, BeforeValidator(_named_path)]] = Field(min_length=1)  # paths, or with settings
    sampling: SamplingSettings = SamplingSettings()
    model: ModelSettings
    seed: int = Field(0, ge=0)
    steps: int = Field(ge=1)
    batch_size: int = Field(ge=1)  # rows per optimizer step, over all processes and accumulation steps
    micro_batch_size: int = Field(ge=1)  # rows a process holds at once
    optimizer: Literal["adamw", "muon"] = "adamw"  # muon: for a language model trained in full (train/optimizers.py)
    learning_rate: float = Field(gt=0)  # of the language model, or of its adapters and <pose> rows
    head_learning_rate: float | None = Field(None, gt=0)  # of the pose head; None: learning_rate
    projector_learning_rate: float | None = Field(None, gt=0)
    tower_learning_rate: float | None = Field(None, gt=0)
    weight_decay: float = Field(0.0, ge=0)
    adam_beta2: float = Field(0.999, gt=0, lt=1)
    warmup_steps: int = Field(0, ge=0)
    schedule: Literal["cosine", "linear", "constant_with_warmup"] = "cosine"
    max_grad_norm: float = Field(1.0, gt=0)
    precision: Literal["bf16", "fp32"] = "bf16"
    gradient_checkpointing: bool = False
    compile: bool = False  # torch.compile each layer of the language model; the first steps then take minutes
    flip: bool = True  # random horizontal flip; all text is written after it
    question_share: float = Field(0.5, ge=0, le=1)  # conversations with a 3D question beside name or caption
    cache_features: bool = False  # the frozen tower runs once per image and mirror image
    cache_dir: str | None = None  # None: a folder "features" beside the run's
    workers: int = Field(0, ge=0)  # processes that prepare rows
    log_every: int = Field(10, ge=1)
    trackers: list[Literal["tensorboard", "wandb"]] = ["tensorboard"]  # beside log.jsonl
    eval_every: int = Field(0, ge=0)  # 0: only at the end
    eval_rows: int = Field(256, ge=1)  # as even over the categories as they allow, the same every time
    keep_best: bool = False  # final/ is the best evaluation's model, by joint acc@π/6, then acc@π/18; not the last's
    early_stopping: int = Field(0, ge=0)  # ends after so many evaluations in a row without a better one; 0: never
    save_every: int = Field(500, ge=1)
    keep_checkpoints: int = Field(2, ge=1)
    save_dtype: Literal["bf16", "fp32"] = "fp32"  # of the final model folder's weights

    @model_validator(mode="after")
    def _data_with_poses(self) -> TrainConfig:
        if not any(part.weight for part in self.data):
            raise ValueError("data: every weight is 0")
        if not any(part.weight for part in self.data if not part.plain):
            raise ValueError("data: no data set with poses has a weight above 0")
        return self

    @model_validator(mode="after")
    def _evaluations_to_decide_by(self) -> TrainConfig:
        if (self.keep_best or self.early_stopping) and not self.eval_every:
            raise ValueError("keep_best and early_stopping need eval_every: they decide by evaluations")
        return self

    @model_validator(mode="after")
    def _fitting_precision(self) -> TrainConfig:
        if self.precision == "fp32" and self.model.base_dtype != "fp32":
            raise ValueError(
                f"precision: fp32, but model.base_dtype {self.model.base_dtype} holds half the model in bfloat16; "
                "with it take bf16"
            )
        return self

    @model_validator(mode="after")
    def _fitting_optimizer(self) -> TrainConfig:
        if self.optimizer == "muon" and self.model.lora is not None:
            raise ValueError("optimizer: muon is for a language model trained in full; with lora take adamw")
        return self


class _Loader(yaml.SafeLoader):
    """YAML 1.1 reads 1e-3 as a word; people mean a number."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)$"),
    list("-+0123456789."),
)


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> TrainConfig:
    """The configuration in a YAML file with ``key=value`` overrides (``model.lora.rank=16``) laid over it.

    An override's value is read as YAML; a single value for a list is taken as a list of one. Raises UserError naming
    the file, the key and the value.
    """
    try:
        values = yaml.load(Path(path).read_text(encoding="utf-8"), _Loader)
    except OSError as error:
        raise UserError(f"{path}: cannot read the configuration: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not valid YAML: {error}") from error
    if not isinstance(values, dict):
        raise UserError(f"{path}: a configuration is a mapping of keys to values")
    for override in overrides:
        _apply(values, override)
    try:
        return TrainConfig.model_validate(values)
    except ValidationError as error:
        raise UserError(f"{path}: {_describe(error)}") from error


def save_config(config: TrainConfig, run: Path) -> None:
    """Write what a run depends on into its folder: ``config.yaml``, which ``load_config`` reads back equal, and the
    taxonomy where it is not the built-in one."""
    text = yaml.safe_dump(config.model_dump(), sort_keys=False, allow_unicode=True)
    (run / "config.yaml").write_text(text, encoding="utf-8")
    taxonomy.write_into(run)


def _apply(values: dict[str, Any], override: str) -> None:
    key, separator, text = override.partition("=")
    if not separator or not key:
        raise UserError(f"{override!r}: an override has the form key=value")
    *sections, last = key.split(".")
    for section in sections:
        inner = values.setdefault(section, {})
        if inner is None:
            inner = values[section] = {}
        if not isinstance(inner, dict):
            raise UserError(f"{override!r}: {section} is not a section")
        values = inner
    try:
        value = yaml.load(text, _Loader)
    except yaml.YAMLError as error:
        raise UserError(f"{override!r}: the value is not valid YAML") from error
    values[last] = [value] if last in ("data", "trackers") and isinstance(value, str | dict) else value


def _describe(error: ValidationError) -> str:
    first = error.errors()[0]
    key = ".".join(str(part) for part in first["loc"])
    known = ""
    if first["type"] == "extra_forbidden":
        sections: dict[str, type[Section]] = {
            "data": DataSettings,
            "sampling": SamplingSettings,
            "model": ModelSettings,
            "lora": LoraSettings,
        }
        outer = [part for part in first["loc"][:-1] if isinstance(part, str)]
        section = sections[outer[-1]] if outer else TrainConfig
        known = f"; known keys: {', '.join(section.model_fields)}"
    # A check of our own says which of its keys it is about; what it was given may be the whole configuration.
    own = first["type"] == "value_error"
    value = "" if own or first["type"] == "missing" else f" (got {first['input']!r})"
    message = "unknown key" if known else str(first["ctx"]["error"]) if own else first["msg"]
    more = f"; and {error.error_count() - 1} more" if error.error_count() > 1 else ""
    return f"{f'{key}: ' if key else ''}{message}{value}{known}{more}"
