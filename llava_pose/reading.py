"""Poses out of the pose head's logits, each with how sure it is."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from .bins import PoseBins


@dataclass(frozen=True)
class PoseReading:
    """A pose (3,) in radians read from three distributions (3, num_bins), its circular spread (3,) in radians, and
    the model's confidence in it: the probability mass around it, on all three angles at once."""

    pose: np.ndarray
    spread: np.ndarray
    confidence: float
    distributions: np.ndarray

    @property
    def argmax(self) -> np.ndarray:
        """The pose (3,) at the centres of the best bins, as the paper reads it."""
        # A softmax of log-probabilities gives them back.
        return PoseBins(self.distributions.shape[-1]).argmax(np.log(self.distributions + 1e-300))


def read_poses(logits: torch.Tensor) -> list[PoseReading]:
    """Readings of pose logits (P, 3, num_bins)."""
    bins = PoseBins(logits.shape[-1])
    values = logits.detach().double().cpu().numpy()
    if len(values) == 0:
        return []
    return [
        PoseReading(pose, spread, float(mass.prod()), distribution)
        for pose, spread, mass, distribution in zip(*bins.decode(values), bins.probabilities(values), strict=True)
    ]
