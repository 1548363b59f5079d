"""What a model is given of images: the tensors its forward pass takes, and how many tokens each image takes.

Families differ in both. LLaVA-1.5 looks at one square of pixels; others at a number of tiles that depends on the
picture's shape, with its size besides. All that carries images about (reading ahead, batching, prefill, training)
knows this alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F


@dataclass(frozen=True, eq=False)
class ImageInputs:
    """N images, prepared for a model.

    tensors: its forward pass's arguments by name, each (N, …); where images have tiles these are the second dimension,
    filled up with zeros, and the model tells how many are real. tokens: how many tokens each image takes in a prompt.
    mirrored: the same images flipped left to right, where they were asked for.
    """

    tensors: dict[str, torch.Tensor]
    tokens: tuple[int, ...]
    mirrored: ImageInputs | None = None

    def __len__(self) -> int:
        return len(self.tokens)

    def select(self, indices: Sequence[int]) -> ImageInputs:
        """These images, in this order."""
        return ImageInputs(
            {name: value[list(indices)] for name, value in self.tensors.items()},
            tuple(self.tokens[index] for index in indices),
            self.mirrored and self.mirrored.select(indices),
        )

    def to(self, device: torch.device | str, dtype: torch.dtype) -> ImageInputs:
        """On a device, what is not a whole number in this precision; the mirror images stay where they are. From
        page-locked memory nothing waits."""

        def move(value: torch.Tensor) -> torch.Tensor:
            # Converted behind the transfer: before it, the transfer would wait.
            moved = value.to(device, non_blocking=True)
            return moved.to(dtype) if moved.is_floating_point() else moved

        return replace(self, tensors={name: move(value) for name, value in self.tensors.items()})

    def pin_memory(self) -> ImageInputs:
        """In page-locked memory, from which a GPU fetches while the program goes on."""
        pinned = {name: value.pin_memory() for name, value in self.tensors.items()}
        return ImageInputs(pinned, self.tokens, self.mirrored and self.mirrored.pin_memory())

    @classmethod
    def join(cls, parts: Sequence[ImageInputs]) -> ImageInputs:
        """The images of one or more parts, one after the other; those of fewer tiles are filled up with zeros.

        Mirror images are kept where every part has them. Raises ValueError for no parts and for images of two models.
        """
        if not parts:
            raise ValueError("no images to join")
        if any(part.tensors.keys() != parts[0].tensors.keys() for part in parts):
            raise ValueError(f"images of two models: {sorted({name for part in parts for name in part.tensors})}")
        mirrored = [part.mirrored for part in parts if part.mirrored is not None]
        return cls(
            {name: _stack([part.tensors[name] for part in parts]) for name in parts[0].tensors},
            tuple(count for part in parts for count in part.tokens),
            cls.join(mirrored) if len(mirrored) == len(parts) else None,
        )


def _stack(values: Sequence[torch.Tensor]) -> torch.Tensor:
    """The rows of all tensors, whose second dimensions may differ only where they are tiles (N, T, 3, H, W)."""
    if values[0].ndim == 5:
        most = max(value.shape[1] for value in values)
        values = [F.pad(value, (0, 0, 0, 0, 0, 0, 0, most - value.shape[1])) for value in values]
    return torch.cat(list(values))
