"""What a model with a pose head is configured by, in the manner of transformers, whatever its family."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeVar

POSE_TOKEN = "<pose>"

IGNORED_LABEL = -100
"""The label of a position that is not supervised."""


Config = TypeVar("Config", bound="PoseConfigMixin")


@dataclass
class PoseConfigMixin:
    """What the pose head needs beside a family's own configuration.

    pose_token_id: the id of ``<pose>`` in the tokenizer; pose_bins: bins per angle; pose_hidden_size: width of the
    head's MLP; pose_loss_weight: the pose loss's weight beside the language loss's 1; pose_target_deviation: the
    circular soft target's standard deviation in bins, 0 for the paper's hard cross-entropy; pose_geodesic_weight: of
    the expected 1 − cos of the geodesic error within the pose loss (see ``losses``); tower_source: where the frozen
    vision tower's weights are kept when a saved model leaves them out ("embedded": in this package), or None;
    pose_categories: the categories it was trained to name, or None; base_weights: of an adapter, a few weights of the
    base it was trained on (``bases``), or None.
    """

    pose_token_id: int | None = None
    pose_bins: int = 40
    pose_hidden_size: int = 512
    pose_loss_weight: float = 1.0
    pose_target_deviation: float = 1.0
    pose_geodesic_weight: float = 0.0
    tower_source: str | None = None
    pose_categories: list[str] | None = None
    base_weights: dict[str, Any] | None = None

    @classmethod
    def with_pose(cls: type[Config], config: Any, **pose: Any) -> Config:
        """The same model with a pose head: every field of the family's ``config``, and the ``pose`` fields given."""
        fields = {key: value for key, value in config.to_dict().items() if key not in ("model_type", "architectures")}
        return cls(**{**fields, **pose})
