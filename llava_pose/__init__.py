"""LLaVA-pose: a vision-language model whose ``<pose>`` token is read as a 3D rotation.

Names are imported when first used, so that ``import llava_pose`` costs no more than this file.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from llava_pose.api import LlavaPose
    from llava_pose.predictions import Prediction, draw

__version__ = "0.1.0"
__all__ = ["LlavaPose", "Prediction", "__version__", "draw"]

_MODULE_OF = {
    "LlavaPose": "llava_pose.api",
    "Prediction": "llava_pose.predictions",
    "draw": "llava_pose.predictions",
}


def __getattr__(name: str) -> object:
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'llava_pose' has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULE_OF[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULE_OF})
