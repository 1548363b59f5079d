"""The card of a finetuned model: what it is, what data it saw, its scores and recipe, under a header for the hub."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import yaml
from huggingface_hub import EvalResult, ModelCardData

from llava_pose import __version__
from llava_pose.scene import crop_kind

from .config import DataSettings, TrainConfig

CARD = """\
---
{header}
---
# {name}

{what} It writes `<pose>` where an answer mentions an object, and the hidden state there is read as the object's
azimuth, elevation and in-plane rotation. Trained by LLaVA-pose {version}, {steps} steps of {batch} rows.

```python
from llava_pose import LlavaPose

model = LlavaPose.from_pretrained("FOLDER")  # or the name under which it is published
print(model.predict("photo.jpg")[0].words)
```

## Data

| data | rows | weight | crop |
|---|---|---|---|
{data}

## Scores in training

On {count} held-out objects, after step {step}, as `eval/benchmark.py` measures on all of them:

| | joint |
|---|---|
{scores}

## Recipe

```yaml
{recipe}```

Angles are radians in files, degrees where people read. Azimuth 0° sees an object's front, 90° its own left side; a
positive elevation looks down on it; theta turns the picture in its plane.
"""
SCORES = {
    "val_acc_pi_6": "acc@π/6",
    "val_acc_pi_18": "acc@π/18",
    "val_median_error_deg": "median error (°)",
    "val_classification_accuracy": "classification accuracy",
    "val_pose_emission": "`<pose>` written by itself (%)",
}


def model_card(config: TrainConfig, rows: Sequence[int], step: int, scores: dict[str, float]) -> str:
    """The card of a run's final model. ``rows``: of each data set; ``scores``: of the evaluation after ``step`` ({}
    where there was none). Of paths it tells the last part alone."""
    name = Path(config.output_dir).name
    base = config.model.base
    what = (
        f"Adapters on {_last(base)}" if config.model.lora is not None
        else f"{_last(base)}, finetuned" if base is not None
        else "A small LLaVA, trained from a new language model"
    )  # fmt: skip
    named = {SCORES[key]: round(value, 2) for key, value in scores.items() if key in SCORES}
    recipe = config.model_dump(exclude={"output_dir", "cache_dir"})
    for part in recipe["data"]:
        part["path"] = _last(part["path"])
    recipe["model"]["base"] = _last(base) if base is not None else None
    return CARD.format(
        header=_header(config, name, named),
        name=name,
        what=f"{what}.",
        version=__version__,
        steps=step,
        batch=config.batch_size,
        data="\n".join(_data_row(part, count) for part, count in zip(config.data, rows, strict=True)),
        count=int(scores.get("val_count", 0)),
        step=step,
        scores="\n".join(f"| {label} | {value:g} |" for label, value in named.items()) or "| none | – |",
        recipe=yaml.safe_dump(recipe, sort_keys=False, allow_unicode=True),
    )


def last_scores(log: Path, step: int) -> dict[str, float]:
    """The evaluation after ``step`` in a run's log.jsonl; {} where there is none."""
    lines = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    found = [line for line in lines if line["step"] == step and "val_acc_pi_6" in line]
    return found[-1] if found else {}


def _data_row(part: DataSettings, rows: int) -> str:
    crop = "plain conversations" if part.plain else crop_kind(part.path) or "not told"
    return f"| {_last(part.path)} | {rows:,} | {part.weight:g} | {crop} |"


def _header(config: TrainConfig, name: str, named: dict[str, float]) -> str:
    base = config.model.base
    results = [
        EvalResult("image-text-to-text", "posed-images", _last(config.data[0].path), label, value, dataset_split="val")
        for label, value in named.items()
    ]
    return ModelCardData(
        model_name=name,
        # Only a hub name: a folder of this machine is none of the hub's business.
        base_model=base if base is not None and _is_hub_name(base) else None,
        library_name="llava-pose",
        pipeline_tag="image-text-to-text",
        tags=["3d", "pose-estimation", "orientation", "llava"],
        eval_results=results or None,
    ).to_yaml()


def _last(path: str | None) -> str:
    return str(path) if path is None or _is_hub_name(path) else Path(path).name


def _is_hub_name(path: str) -> bool:
    return path.count("/") == 1 and not path.startswith((".", "/")) and not Path(path).exists()
