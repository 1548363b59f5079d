"""The model: one that answers about images, whose last hidden state at ``<pose>`` is decoded into bins of three angles.

``PoseModelMixin`` holds everything that is about poses and knows no vision-language family: it needs ``self.model``
(returning ``last_hidden_state``), ``self.lm_head`` and ``get_image_features``, as transformers' families have them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from transformers import AutoConfig, AutoModelForImageTextToText
from transformers.conversion_mapping import (
    get_checkpoint_conversion_mapping,
    register_checkpoint_conversion_mapping,
)
from transformers.models.llava.modeling_llava import LlavaCausalLMOutputWithPast

from .calibration import Calibration
from .configuration import IGNORED_LABEL
from .losses import pose_losses


@dataclass
class LlavaPoseOutput(LlavaCausalLMOutputWithPast):
    """A LLaVA's output, and: ``pose_logits`` (P, 3, pose_bins) float32 at the batch's ``<pose>`` tokens in reading
    order, ``last_hidden_state`` (B, S, H), the two parts of the loss before weighting, and the pose loss's own parts
    (4,), detached (``losses.POSE_LOSS_PARTS``). With ``labels`` there are the losses, ``pose_logits``, and ``logits``
    (N, vocabulary) of the supervised positions, and nothing else."""

    pose_logits: torch.Tensor | None = None
    last_hidden_state: torch.Tensor | None = None
    language_loss: torch.Tensor | None = None
    pose_loss: torch.Tensor | None = None
    pose_loss_parts: torch.Tensor | None = None


class PoseHead(nn.Module):
    """Hidden states (…, hidden_size) to logits (…, 3, num_bins), always in float32.

    Forty bins per angle differ by little: half precision would blur them, so the head casts its input up and leaves
    any autocast. ``to_float32`` brings the weights back after a model was loaded in half precision.
    """

    def __init__(self, hidden_size: int, mlp_size: int, num_bins: int):
        super().__init__()
        self.num_bins = num_bins
        self.norm = nn.LayerNorm(hidden_size)
        self.linear_1 = nn.Linear(hidden_size, mlp_size)
        self.act = nn.GELU()
        self.linear_2 = nn.Linear(mlp_size, 3 * num_bins)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        with torch.autocast(hidden.device.type, enabled=False):
            logits = self.linear_2(self.act(self.linear_1(self.norm(hidden.float()))))
        return logits.unflatten(-1, (3, self.num_bins))


class PoseModelMixin:
    """Pose head, losses and feature input for a transformers vision-language model."""

    config: Any
    model: Any
    lm_head: nn.Module
    pose_head: PoseHead
    calibration: Calibration | None = None
    """What makes its confidence mean what it says; None where it was never fitted."""

    # Trainer then hands in the number of supervised tokens of the whole batch and leaves the division to forward.
    accepts_loss_kwargs = True

    def __init__(self, config: Any):
        super().__init__(config)  # type: ignore[call-arg]  # the family's class comes next
        self.pose_head = PoseHead(config.get_text_config().hidden_size, config.pose_hidden_size, config.pose_bins)
        self.post_init()

    def post_init(self) -> None:
        """transformers' own last step of making a model."""
        super().post_init()  # type: ignore[misc]

    def pose_positions(self, input_ids: torch.Tensor) -> torch.Tensor:
        """The mask (B, S) of the ``<pose>`` tokens: located by id, after any expansion of the image."""
        return input_ids == self.config.pose_token_id

    def backbone(self, **kwargs: Any) -> Any:
        """Run everything but the two heads, on token ids, masks, a cache and the tensors of ``ImageInputs``; returns
        the output with ``last_hidden_state`` and the cache."""
        return self.model(**kwargs)

    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        pixel_values: torch.FloatTensor | None = None,  # by name, or generate() would refuse it
        labels: torch.LongTensor | None = None,
        poses: torch.Tensor | None = None,
        num_items_in_batch: torch.Tensor | int | None = None,
        num_poses_in_batch: torch.Tensor | int | None = None,
        logits_to_keep: int | torch.Tensor = 0,
        **kwargs: Any,
    ) -> LlavaPoseOutput:
        """The model's forward pass.

        poses (P, 3): the true pose in radians of every ``<pose>`` of the batch in reading order, NaN where unknown.
        num_items_in_batch, num_poses_in_batch: supervised tokens and known poses of the global batch (all ranks, all
        accumulation steps), by which the sums are divided; counted here when left out.

        Raises ValueError when ``poses`` and the ``<pose>`` tokens differ in number.
        """
        outputs = self.backbone(input_ids=input_ids, pixel_values=pixel_values, **kwargs)
        hidden = outputs.last_hidden_state
        if labels is not None:
            assert input_ids is not None, "training needs input_ids"
            return self._losses(hidden, input_ids, labels, poses, num_items_in_batch, num_poses_in_batch)
        kept = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
        at_pose = None if input_ids is None else self.pose_positions(input_ids)
        return LlavaPoseOutput(
            logits=self.lm_head(hidden[:, kept, :]),
            pose_logits=None if at_pose is None else self.pose_head(hidden[at_pose]),
            last_hidden_state=hidden,
            past_key_values=outputs.past_key_values,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )

    def _losses(
        self,
        hidden: torch.Tensor,
        input_ids: torch.Tensor,
        labels: torch.Tensor,
        poses: torch.Tensor | None,
        num_tokens: torch.Tensor | int | None,
        num_poses: torch.Tensor | int | None,
    ) -> LlavaPoseOutput:
        result = LlavaPoseOutput()
        # The state before a token predicts it; the vocabulary matrix meets the supervised positions alone.
        supervised = labels[:, 1:] != IGNORED_LABEL
        result.logits = self.lm_head(hidden[:, :-1][supervised])
        targets = labels[:, 1:][supervised]
        tokens = F.cross_entropy(result.logits.float(), targets, reduction="sum")
        result.language_loss = tokens / _at_least_one(num_tokens, targets.numel())

        at_pose = self.pose_positions(input_ids)
        count = int(at_pose.sum())
        given = 0 if poses is None else len(poses)
        if count != given:
            raise ValueError(f"the batch has {count} <pose> tokens but {given} poses")
        # A rank without any <pose> still runs the head: under ZeRO-3 and DDP its weights must be met on every rank.
        states = hidden[at_pose] if count else hidden[:1, 0]
        result.pose_logits = self.pose_head(states)
        given_poses = poses if count and poses is not None else states.new_full((1, 3), math.nan)
        config = self.config
        summed = pose_losses(result.pose_logits, given_poses, config.pose_target_deviation, config.pose_bins)
        known = int(torch.isfinite(given_poses).all(-1).sum())
        parts = summed / _at_least_one(num_poses, known)
        result.pose_loss = parts[:3].mean() + config.pose_geodesic_weight * parts[3]
        result.pose_loss_parts = parts.detach()
        result.loss = result.language_loss + self.config.pose_loss_weight * result.pose_loss
        return result


def _at_least_one(given: torch.Tensor | int | None, counted: int) -> torch.Tensor | int:
    count = counted if given is None else given
    return count.clamp(min=1) if isinstance(count, torch.Tensor) else max(count, 1)


def register(config: Any, model: Any) -> None:
    """Let transformers' Auto classes open a family's model with a pose head, under its ``config.model_type``."""
    family = config.__mro__[2].model_type
    # transformers looks the conversion of key names up by class and skips classes outside itself: without this line
    # lm_head.weight of a released checkpoint would silently be newly initialised.
    register_checkpoint_conversion_mapping(model.__name__, get_checkpoint_conversion_mapping(family), overwrite=True)
    AutoConfig.register(config.model_type, config)
    AutoModelForImageTextToText.register(config, model)
