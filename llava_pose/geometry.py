"""Angles and rotations of a posed object, each convention stated once.

Conventions (those of PASCAL3D+ and ImageNet3D):

* World: z points up and the canonical object faces −y, so +x is the object's own left.
* A pose is ``(azimuth, elevation, theta)`` in radians, in the last axis of an array. The camera looks at the
  object's origin from ``C = distance · (cos e · sin a, −cos e · cos a, sin e)``: azimuth 0 sees the front,
  π/2 the object's own left side; a positive elevation looks down on it; theta turns the picture in its plane.
* Rotation, world to camera: ``R = Rz(theta) · Rx(elevation − π/2) · Rz(−azimuth)``. The camera looks along its
  own −z, x points right and y up.
* Projection: ``u = px + f · x / (−z)``, ``v = py − f · y / (−z)`` with ``(x, y, z) = R (X − C)``, ``f`` the
  viewport in pixels and (px, py) the principal point, image y pointing down.
* The same rotation has two names: (a, e, t) and (a + π, π − e, t + π).

Every function takes NumPy arrays (or anything that becomes one) or torch tensors, batched over leading axes,
computes in float64 and returns float64 of the same kind (a tensor stays on its device). Values that are not finite
make results that are not finite, without a warning.
"""

from __future__ import annotations

import math
import sys
from types import ModuleType
from typing import Any

import numpy as np

TWO_PI = 2.0 * math.pi


def _float64(*values: Any) -> tuple[ModuleType, list[Any]]:
    """The namespace (numpy or torch) for these values, and the values in it as float64, on one device."""
    torch = sys.modules.get("torch")
    tensors = [value for value in values if torch is not None and isinstance(value, torch.Tensor)]
    if torch is None or not tensors:
        return np, [np.asarray(value, dtype=np.float64) for value in values]
    device = tensors[0].device
    return torch, [torch.as_tensor(value, dtype=torch.float64, device=device) for value in values]


@np.errstate(invalid="ignore")
def wrap_angle(angle: Any) -> Any:
    """Angles (…) in radians brought to [0, 2π)."""
    xp, (angle,) = _float64(angle)
    wrapped = xp.remainder(angle, TWO_PI)
    # The remainder of a tiny negative angle rounds up to 2π itself, which would be one bin too many.
    return xp.where(wrapped >= TWO_PI, xp.zeros_like(wrapped), wrapped)


def angle_difference(a: Any, b: Any) -> Any:
    """The signed turn (…) from ``b`` to ``a`` in radians, in [−π, π)."""
    xp, (a, b) = _float64(a, b)
    return wrap_angle(a - b + math.pi) - math.pi


@np.errstate(invalid="ignore")
def rotation_matrix(pose: Any) -> Any:
    """World-to-camera rotations (…, 3, 3) of poses (…, 3): ``Rz(theta) · Rx(elevation − π/2) · Rz(−azimuth)``.

    Raises ValueError when the last axis is not 3.
    """
    xp, (pose,) = _float64(pose)
    _check_last_axis(pose, "pose")
    return expected_rotation(xp.cos(pose), xp.sin(pose))


def expected_rotation(cosines: Any, sines: Any) -> Any:
    """The mean (…, 3, 3) of the rotations of random poses whose three angles are independent, from the means (…, 3) of
    the angles' cosines and sines.

    Every entry of ``rotation_matrix`` is linear in the cosine and sine of each angle, so it is exact. The angles may
    lie anywhere on the circle, elevations too.
    """
    xp, (cosines, sines) = _float64(cosines, sines)
    # Of −azimuth, of elevation − π/2, and of theta.
    ca, sa = cosines[..., 0], -sines[..., 0]
    ce, se = sines[..., 1], -cosines[..., 1]
    ct, st = cosines[..., 2], sines[..., 2]
    rows = [
        [ct * ca - st * ce * sa, -ct * sa - st * ce * ca, st * se],
        [st * ca + ct * ce * sa, -st * sa + ct * ce * ca, -ct * se],
        [se * sa, se * ca, ce],
    ]
    return xp.stack([xp.stack(row, -1) for row in rows], -2)


@np.errstate(invalid="ignore")
def quaternion(pose: Any) -> Any:
    """The rotations of poses (…, 3) as unit quaternions (…, 4), w first; q and −q are one rotation.

    Of ``Rz(α) · Rx(β) · Rz(γ)`` the quaternion is ``(cos β/2 · cos (α+γ)/2, sin β/2 · cos (α−γ)/2,
    sin β/2 · sin (α−γ)/2, cos β/2 · sin (α+γ)/2)``. Two rotations are ``2 · arccos |q · q'|`` apart.
    Raises ValueError when the last axis is not 3.
    """
    xp, (pose,) = _float64(pose)
    _check_last_axis(pose, "pose")
    tilt = (pose[..., 1] - math.pi / 2) / 2
    half_sum = (pose[..., 2] - pose[..., 0]) / 2
    half_difference = (pose[..., 2] + pose[..., 0]) / 2
    cosine, sine = xp.cos(tilt), xp.sin(tilt)
    parts = [
        cosine * xp.cos(half_sum),
        sine * xp.cos(half_difference),
        sine * xp.sin(half_difference),
        cosine * xp.sin(half_sum),
    ]
    return xp.stack(parts, -1)


def pose_of_quaternion(quaternion: Any) -> Any:
    """The canonical poses (…, 3) of quaternions (…, 4), w first, of any length but 0: undoes ``quaternion``.

    Straight above or below the object, azimuth and theta turn about one axis: any split of their turn is right.
    """
    xp, (q,) = _float64(quaternion)
    tilt = 2.0 * xp.arctan2(xp.hypot(q[..., 1], q[..., 2]), xp.hypot(q[..., 0], q[..., 3]))
    half_sum, half_difference = xp.arctan2(q[..., 3], q[..., 0]), xp.arctan2(q[..., 2], q[..., 1])
    return canonical_pose(xp.stack([half_difference - half_sum, tilt + math.pi / 2, half_sum + half_difference], -1))


def geodesic_error(rotation_a: Any, rotation_b: Any) -> Any:
    """The angle (…) in [0, π] of ``rotation_aᵀ rotation_b``, for rotations (…, 3, 3).

    ``atan2`` of the sine (half the norm of the skew part) and the cosine (from the trace) keeps full precision at
    0 and at π, where a clipped arccos loses half its digits and a matrix logarithm is unreliable. It equals the
    benchmark's ‖logm(RᵀR')‖_F / √2. Not finite in, not finite out.
    """
    xp, (a, b) = _float64(rotation_a, rotation_b)
    relative = xp.swapaxes(a, -1, -2) @ b
    skew = xp.stack(
        [
            relative[..., 2, 1] - relative[..., 1, 2],
            relative[..., 0, 2] - relative[..., 2, 0],
            relative[..., 1, 0] - relative[..., 0, 1],
        ],
        -1,
    )
    trace = relative[..., 0, 0] + relative[..., 1, 1] + relative[..., 2, 2]
    return xp.arctan2(xp.sqrt((skew * skew).sum(-1)), trace - 1.0)


def pose_error(pose_a: Any, pose_b: Any) -> Any:
    """The geodesic error (…) in radians, in [0, π], between poses (…, 3)."""
    return geodesic_error(rotation_matrix(pose_a), rotation_matrix(pose_b))


def mirror_pose(pose: Any) -> Any:
    """Poses (…, 3) as seen in the horizontally flipped image: azimuth → 2π − azimuth, theta → −theta, mod 2π.

    Exact for objects with left-right symmetry: ``rotation_matrix(mirror_pose(p)) = M R M`` with M = diag(−1, 1, 1).
    """
    xp, (pose,) = _float64(pose)
    _check_last_axis(pose, "pose")
    return xp.stack([wrap_angle(-pose[..., 0]), pose[..., 1], wrap_angle(-pose[..., 2])], -1)


def canonical_pose(pose: Any) -> Any:
    """The one name of each rotation: elevation in [−π/2, π/2], azimuth and theta in [0, 2π), for poses (…, 3).

    Uses (a, e, t) = (a + π, π − e, t + π) where the elevation lies beyond a pole.
    """
    xp, (pose,) = _float64(pose)
    _check_last_axis(pose, "pose")
    elevation = angle_difference(pose[..., 1], xp.zeros_like(pose[..., 1]))
    beyond = xp.abs(elevation) > math.pi / 2
    turn = xp.where(beyond, xp.full_like(elevation, math.pi), xp.zeros_like(elevation))
    flipped = angle_difference(math.pi - elevation, xp.zeros_like(elevation))
    elevation = xp.where(beyond, flipped, elevation)
    return xp.stack([wrap_angle(pose[..., 0] + turn), elevation, wrap_angle(pose[..., 2] + turn)], -1)


def camera_center(pose: Any, distance: Any) -> Any:
    """Camera positions (…, 3) in the object's frame, for poses (…, 3) and distances (…) in object units."""
    xp, (pose, distance) = _float64(pose, distance)
    azimuth, elevation = pose[..., 0], pose[..., 1]
    direction = xp.stack(
        [xp.cos(elevation) * xp.sin(azimuth), -xp.cos(elevation) * xp.cos(azimuth), xp.sin(elevation)], -1
    )
    return direction * distance[..., None]


@np.errstate(divide="ignore", invalid="ignore")
def project(points: Any, pose: Any, distance: Any, viewport: Any, principal: Any) -> Any:
    """Pixels (…, N, 2) of points (…, N, 3) given in the object's frame.

    pose (…, 3) in radians; distance (…) in object units; viewport (…), the focal length in pixels; principal
    (…, 2), the pixel where the object's origin lands. A point in the camera's own plane gives inf, one behind it
    the mirrored pixel: neither is clipped here.
    """
    xp, (points, pose, distance, viewport, principal) = _float64(points, pose, distance, viewport, principal)
    offset = points - camera_center(pose, distance)[..., None, :]
    camera = offset @ xp.swapaxes(rotation_matrix(pose), -1, -2)
    scale = viewport[..., None] / -camera[..., 2]
    u = principal[..., None, 0] + scale * camera[..., 0]
    v = principal[..., None, 1] - scale * camera[..., 1]
    return xp.stack([u, v], -1)


def _check_last_axis(pose: Any, name: str) -> None:
    if pose.ndim == 0 or pose.shape[-1] != 3:
        raise ValueError(f"{name} must have shape (..., 3), got {tuple(pose.shape)}")
