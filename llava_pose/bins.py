"""Angles to bins and back.

An angle in [0, 2π) falls into bin ``floor(angle / 2π · num_bins) mod num_bins``; the centre of bin i is
``(i + ½) · 2π / num_bins`` (ImageNet3D). 0 is therefore a border between two bins, and the most frequent elevation
and theta lie on it: with 40 bins a perfect argmax still errs by 4.4° in the median. ``decode`` reads below the bin
width instead, from the probability mass around the mode.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from .geometry import TWO_PI, _float64, angle_difference, canonical_pose, wrap_angle

WINDOW_BINS = 3
"""Bins on either side of the mode that ``decode`` averages over: wide enough for a soft target of one bin's
deviation, too narrow to reach a second mode (an object that looks alike from behind is 20 bins away)."""


class DecodedPose(NamedTuple):
    """What ``PoseBins.decode`` reads: ``pose`` (…, 3) in radians; ``spread`` (…, 3), the circular standard deviation
    in radians of each angle's whole distribution (large when there is a second mode); and ``mass`` (…, 3), the
    probability of the bins around the mode that the angle was read from."""

    pose: Any
    spread: Any
    mass: Any


@dataclass(frozen=True)
class PoseBins:
    """The bins of one angle, used alike for azimuth, elevation and theta.

    Takes NumPy arrays or torch tensors and returns the same kind, in float64. Raises ValueError on a wrong shape.
    """

    num_bins: int = 40

    def __post_init__(self) -> None:
        if self.num_bins < 4:
            raise ValueError(f"num_bins must be at least 4, got {self.num_bins}")

    @property
    def width(self) -> float:
        """The width of a bin in radians."""
        return TWO_PI / self.num_bins

    @property
    def centers(self) -> np.ndarray:
        """The bin centres (num_bins,) in radians."""
        return (np.arange(self.num_bins) + 0.5) * self.width

    def encode(self, pose: Any) -> Any:
        """Bin indices (…, 3), integers, of poses (…, 3), after bringing the elevation to [−π/2, π/2]."""
        xp, (angles,) = _float64(wrap_angle(canonical_pose(pose)))
        index = xp.floor(angles / TWO_PI * self.num_bins)
        index = index.astype(np.int64) if xp is np else index.long()
        return index % self.num_bins

    def soft_targets(self, pose: Any, deviation: float = 1.0) -> Any:
        """Target distributions (…, 3, num_bins) of poses (…, 3): a circular normal around the exact angle.

        ``deviation`` is in bins. It is centred on the angle and not on its bin, so it carries where in the bin the
        angle lies, and ``decode`` reads that back.
        """
        if deviation <= 0:
            raise ValueError(f"deviation must be positive, got {deviation}")
        xp, (angles, centers) = _float64(canonical_pose(pose), self._centers_like(pose))
        distance = angle_difference(centers, angles[..., None]) / (deviation * self.width)
        weights = xp.exp(-0.5 * distance * distance)
        return weights / weights.sum(-1)[..., None]

    def decode(self, logits: Any) -> DecodedPose:
        """The pose below bin width, its spread and its mass, from logits (…, 3, num_bins).

        The mode is the bin with the most mass in itself and its two neighbours; the angle is the circular mean over
        ``WINDOW_BINS`` on either side. A mean over the whole circle would be drawn away by a second mode. Logits that
        are not finite give a pose that is not finite.
        """
        xp, (probabilities,) = _float64(self.probabilities(logits))
        centers = self._centers_like(probabilities)
        mode = centers[self.peaks(probabilities).argmax(-1)]
        offset = angle_difference(centers, mode[..., None])
        inside = xp.abs(offset) <= (WINDOW_BINS + 0.25) * self.width
        weights = xp.where(inside, probabilities, xp.zeros_like(probabilities))
        # Inside the narrow window the offsets are plain numbers: the circular mean is their mean.
        mass = weights.sum(-1)
        angle = mode + (weights * offset).sum(-1) / mass
        return DecodedPose(canonical_pose(angle), self.spread(probabilities), mass)

    def spread(self, probabilities: Any) -> Any:
        """The circular standard deviation (…) in radians of distributions (…, num_bins)."""
        xp, (probabilities,) = _float64(probabilities)
        centers = self._centers_like(probabilities)
        sine = (probabilities * xp.sin(centers)).sum(-1)
        cosine = (probabilities * xp.cos(centers)).sum(-1)
        # Rounding may put the resultant a hair above 1, whose logarithm has the wrong sign.
        length = xp.minimum(xp.sqrt(sine * sine + cosine * cosine), xp.ones_like(sine))
        return xp.sqrt(-2.0 * xp.log(xp.maximum(length, xp.full_like(length, 1e-12))))

    def peaks(self, probabilities: Any) -> Any:
        """The mass (…, num_bins) of each bin with its two neighbours, whose best bin is the mode: a peak on a border is
        split between two bins."""
        xp, (probabilities,) = _float64(probabilities)
        # A hair less of the neighbours, or the bin beside a lone peak would tie with it.
        return probabilities + 0.999 * (xp.roll(probabilities, 1, -1) + xp.roll(probabilities, -1, -1))

    def mirror(self, values: Any) -> Any:
        """Logits or distributions (…, 3, num_bins) of the horizontally flipped image, as ones of the image itself.

        Azimuth and theta are negated, which takes bin i to bin num_bins − 1 − i exactly; the elevation stays.
        """
        xp, (values,) = _float64(values)
        backwards = np.arange(self.num_bins)[::-1].copy()
        return xp.stack([values[..., 0, backwards], values[..., 1, :], values[..., 2, backwards]], -2)

    def argmax(self, logits: Any) -> Any:
        """The centre of each angle's best bin, poses (…, 3): the paper's reading, kept for comparison."""
        xp, (probabilities,) = _float64(self.probabilities(logits))
        angle = self._centers_like(probabilities)[probabilities.argmax(-1)]
        finite = xp.isfinite(probabilities).all(-1)
        return canonical_pose(xp.where(finite, angle, xp.full_like(angle, float("nan"))))

    @np.errstate(invalid="ignore")
    def probabilities(self, logits: Any) -> Any:
        """Softmax of logits (…, 3, num_bins) over the bins."""
        xp, (logits,) = _float64(logits)
        if logits.ndim < 2 or tuple(logits.shape[-2:]) != (3, self.num_bins):
            raise ValueError(f"logits must have shape (..., 3, {self.num_bins}), got {tuple(logits.shape)}")
        peak = logits.max(-1, keepdims=True) if xp is np else logits.amax(-1, keepdim=True)
        weights = xp.exp(logits - peak)
        return weights / weights.sum(-1)[..., None]

    def _centers_like(self, values: Any) -> Any:
        # Computed at each call: a module's buffer that is not saved would be garbage after from_pretrained.
        xp, (values,) = _float64(values)
        return self.centers if xp is np else xp.as_tensor(self.centers, device=values.device)
