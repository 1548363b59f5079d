"""Vision-language families: what differs from one to another, in one small file each.

To add a family of transformers that has ``model.language_model``, ``model.vision_tower``,
``model.multi_modal_projector`` and ``lm_head``, write a file with three classes and add its line to ``FAMILIES``:

- a configuration, ``class XPoseConfig(PoseConfigMixin, XConfig)`` with a ``model_type`` of its own;
- a model, ``class XPoseForConditionalGeneration(PoseModelMixin, XForConditionalGeneration)``, whose ``backbone`` hands
  over the images' tensors where transformers wants them in another shape;
- a processor, ``class XPoseProcessor(PoseProcessorMixin, XProcessor)``, which says how pictures become ``ImageInputs``
  and how many tokens each takes.

``register`` the first two. Its released checkpoints then open, train, save, name and chat as the others do; the tests
in ``tests/families`` take it in with one more small configuration.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..errors import UserError
from . import internvl, llava, llava_next, llava_onevision


@dataclass(frozen=True)
class Family:
    """The three classes of a family; ``released``: its ``model_type`` in transformers."""

    released: str
    config: Any
    model: Any
    processor: Any


FAMILIES = (
    Family("llava", llava.LlavaPoseConfig, llava.LlavaPoseForConditionalGeneration, llava.LlavaPoseProcessor),
    Family(
        "llava_next",
        llava_next.LlavaNextPoseConfig,
        llava_next.LlavaNextPoseForConditionalGeneration,
        llava_next.LlavaNextPoseProcessor,
    ),
    Family(
        "llava_onevision",
        llava_onevision.LlavaOnevisionPoseConfig,
        llava_onevision.LlavaOnevisionPoseForConditionalGeneration,
        llava_onevision.LlavaOnevisionPoseProcessor,
    ),
    Family(
        "internvl",
        internvl.InternVLPoseConfig,
        internvl.InternVLPoseForConditionalGeneration,
        internvl.InternVLPoseProcessor,
    ),
)

_BY_TYPE = {kind: family for family in FAMILIES for kind in (family.released, family.config.model_type)}


def family_of(config: Any, name: Any) -> Family:
    """The family of a configuration, released or ours, of the model ``name``. Raises UserError for any other."""
    try:
        return _BY_TYPE[config.model_type]
    except KeyError:
        known = ", ".join(family.released for family in FAMILIES)
        kind = config.model_type
        raise UserError(
            f"{name}: config.json: model_type is {kind!r}, expected one of {known}, or one with a pose head"
        ) from None


def has_head(config: Any) -> bool:
    """Whether a configuration is one of ours, rather than a released checkpoint's."""
    return any(config.model_type == family.config.model_type for family in FAMILIES)
