"""A model folder onto the hub, with its card."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from .errors import UserError
from .files import write_atomic
from .folders import EMBEDDED, model_source

CARD = "README.md"
BEGIN, END = "<!-- benchmark -->", "<!-- /benchmark -->"
TABLE_ROWS = {
    "acc_pi_6": "acc@π/6",
    "acc_pi_18": "acc@π/18",
    "median_error_deg": "median error (°)",
    "classification_accuracy": "classification accuracy",
    "count": "objects",
}


def push_to_hub(model: str | Path, name: str, metrics: str | Path | None = None, private: bool = False) -> str:
    """Upload a model folder as the repository ``name`` (owner/name), made if it is not there, and return its address.

    metrics: a metrics.json of eval/benchmark.py, whose table goes into the folder's card first.

    Raises:
        UserError: ``model`` is no folder, has no card, or is an adapter whose base only this machine has; the metrics
            cannot be read; or the hub refuses.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalTokenNotFoundError

    folder = Path(model_source(model))
    if not folder.is_dir():
        raise UserError(f"{model}: not a folder; what is on the hub need not be uploaded")
    _check_base(folder)
    card = folder / CARD
    if not card.is_file():
        raise UserError(f"{card}: missing; training writes a card, with recipe, data and scores")
    if metrics is not None:
        write_atomic(card, with_metrics(card.read_text(encoding="utf-8"), Path(metrics)))
    api = HfApi()
    try:
        created = api.create_repo(name, private=private, exist_ok=True)
        api.upload_folder(repo_id=created.repo_id, folder_path=folder)
    except (HfHubHTTPError, HFValidationError, LocalTokenNotFoundError, OSError) as error:
        raise UserError(f"{name}: the hub refuses: {str(error).strip().splitlines()[0]}") from error
    return str(created)


def with_metrics(card: str, file: Path) -> str:
    """A card with the joint table of a metrics.json in it, in place of an earlier one. Raises UserError."""
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
        joint, settings = found["joint"]["average"], found["settings"]
        rows = [f"| {label} | {joint[key]:.{0 if key == 'count' else 1}f} |" for key, label in TABLE_ROWS.items()]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{file}: is no metrics.json of eval/benchmark.py: {error}") from error
    where = f"`{Path(str(settings.get('data', ''))).name}`, split `{settings.get('split', 'val')}`"
    section = "\n".join([BEGIN, "## Benchmark", "", f"On {where}:", "", "| | joint |", "|---|---|", *rows, END])
    without = re.sub(rf"\n*{re.escape(BEGIN)}.*?{re.escape(END)}", "", card, flags=re.DOTALL)
    before, recipe, after = without.partition("\n## Recipe")
    return f"{before.rstrip()}\n\n{section}\n{recipe}{after}"


def _check_base(folder: Path) -> None:
    file = folder / "adapter_config.json"
    if not file.is_file():
        return
    base: Any = json.loads(file.read_text(encoding="utf-8")).get("base_model_name_or_path")
    if base != EMBEDDED and Path(str(base)).is_dir():
        raise UserError(
            f"{folder}: an adapter of {base}, a folder that others do not have; publish the merged model "
            "(llava-pose merge), or name the base on the hub in adapter_config.json"
        )
