"""What the pose head is trained for: each angle's cross-entropy, and the expected error of the rotation as a whole."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F

from .bins import PoseBins
from .geometry import expected_rotation, rotation_matrix

POSE_LOSS_PARTS = ("azimuth", "elevation", "theta", "geodesic")


def pose_losses(logits: torch.Tensor, poses: torch.Tensor, deviation: float, num_bins: int) -> torch.Tensor:
    """The losses (4,) ``POSE_LOSS_PARTS`` of logits (P, 3, num_bins) for poses (P, 3) in radians, each summed over P.

    The first three are the angles' cross-entropies. ``deviation`` 0 takes the hard bins; otherwise circular soft
    targets of that many bins, from which their entropy is not subtracted (it is a constant). The fourth is
    ``expected_geodesic``. A pose that is not finite is unsupervised and adds nothing.
    """
    known = torch.isfinite(poses).all(-1)
    bins = PoseBins(num_bins)
    poses = torch.where(known[:, None], poses.double(), 0.0)
    log_probabilities = F.log_softmax(logits.float(), dim=-1)
    if deviation > 0:
        each = -(bins.soft_targets(poses, deviation).float() * log_probabilities).sum(-1)
    else:
        each = -log_probabilities.gather(-1, bins.encode(poses)[..., None]).squeeze(-1)
    geodesic = expected_geodesic(log_probabilities.exp(), poses).float()
    return (torch.cat([each, geodesic[:, None]], -1) * known[:, None]).sum(0)


def expected_geodesic(probabilities: torch.Tensor, poses: torch.Tensor) -> torch.Tensor:
    """The expectation (P,) of 1 − cos δ, δ the geodesic error, float64 in [0, 2], of the bins' probabilities
    (P, 3, num_bins) for poses (P, 3).

    As cos δ = (tr(Rᵀ R') − 1) / 2 and the head's three distributions are independent, it is exact from the mean
    rotation, without a sum over the cells. 1 − cos δ is half the squared error near 0 and, unlike it, smooth at π.
    """
    centers: Any = torch.as_tensor(PoseBins(probabilities.shape[-1]).centers, device=probabilities.device)
    shares = probabilities.double()
    mean = expected_rotation((shares * centers.cos()).sum(-1), (shares * centers.sin()).sum(-1))
    return (3.0 - (rotation_matrix(poses) * mean).sum((-2, -1))) / 2.0
