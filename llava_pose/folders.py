"""Where models are found, without loading anything: a mistyped name is answered at once."""

from __future__ import annotations

import re
from pathlib import Path

from . import taxonomy
from .errors import UserError

EMBEDDED = "embedded"
POSED = "posed"
"""The embedded model's own vision tower, by name."""
EMBEDDED_MODEL = Path(__file__).parent / "assets" / "model"
EMBEDDED_TOWER = Path(__file__).parent / "assets" / "vision_tower"

_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


def model_source(model: str | Path) -> str:
    """What transformers opens for "embedded", a folder or a hub name (owner/name): a folder's path or the hub name.

    Raises UserError when it is "embedded" and this installation has none, a folder that holds no model, or neither a
    folder nor a possible hub name. Whether the hub has that name is found out by loading.
    """
    folder = EMBEDDED_MODEL if str(model) == EMBEDDED else Path(model)
    if folder.is_dir():
        if not any((folder / name).is_file() for name in ("config.json", "adapter_config.json")):
            raise UserError(f"{model}: not a model folder: it holds neither config.json nor adapter_config.json")
        return str(folder)
    if str(model) == EMBEDDED:
        raise UserError("model: this installation holds no embedded model; name a folder with --model")
    # Where the first part is a folder here, a mistyped path is meant: the hub would be asked for it for half a minute.
    if folder.exists() or folder.parent.is_dir() or not _HUB_NAME.fullmatch(str(model)):
        raise UserError(f"{model}: no such model folder (a hub name has the form owner/name)")
    return str(model)


def use_taxonomy_of(source: str) -> None:
    """Put into effect the taxonomy that a model of ``model_source`` carries, if it names categories of its own.

    Raises UserError when its file is wrong or contradicts one in use.
    """
    file = optional_file(source, taxonomy.FILE_NAME)
    if file is not None:
        taxonomy.use_folder(file.parent)


def optional_file(source: str, name: str) -> Path | None:
    """A file that a model of ``model_source`` may carry, fetched from the hub if it lies there; None where it does not.

    Raises UserError when the hub cannot tell.
    """
    folder = Path(source)
    if folder.is_dir():
        return folder / name if (folder / name).is_file() else None
    from huggingface_hub import hf_hub_download  # here: folders need none of it
    from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError

    try:
        return Path(hf_hub_download(source, name))
    except EntryNotFoundError:
        return None
    except HfHubHTTPError as error:
        raise UserError(f"{source}: {name} cannot be fetched: {error}") from error
