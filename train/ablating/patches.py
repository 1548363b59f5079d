"""The product changed where it has no option, for as long as a variant is trained and scored.

Each is a context in which a class or a function of the library is another. It has to hold for both: a model that was
trained on one hidden state and read at another would say nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from typing import Any
from unittest import mock

import torch
from transformers.models.llava.modeling_llava import LlavaMultiModalProjector

from llava_pose import assembly, decoding
from llava_pose.modeling import PoseModelMixin
from llava_pose.vision import COARSE_CHANNELS, FINE_CHANNELS, MIDDLE_CHANNELS

Patch = Callable[[], AbstractContextManager[Any]]

CELLS = 4
"""Cells of the two finer maps in a token of 32 × 32 pixels."""


def unchanged() -> AbstractContextManager[None]:
    """The product as it is."""
    return nullcontext()


@contextmanager
def state_before_pose() -> Iterator[None]:
    """The pose is learnt and read at the token before ``<pose>``, whose state predicts it: a name's last token."""
    at_pose, name_states = PoseModelMixin.pose_positions, decoding.name_states

    def before(self: Any, input_ids: torch.Tensor) -> torch.Tensor:
        mask = torch.zeros_like(input_ids, dtype=torch.bool)
        mask[:, :-1] = at_pose(self, input_ids)[:, 1:]
        return mask

    def states_before(model: Any, prefill: Any, trie: Any, names: Any) -> torch.Tensor:
        return name_states(model, prefill, replace(trie, ends=trie.parents[trie.ends]), names)

    with (
        mock.patch.object(PoseModelMixin, "pose_positions", before),
        mock.patch.object(decoding, "name_states", states_before),
    ):
        yield


@contextmanager
def bins(count: int) -> Iterator[None]:
    """New models have ``count`` bins per angle. A saved one keeps them in its configuration."""
    with mock.patch.object(assembly, "assemble", partial(assembly.assemble, pose_bins=count)):
        yield


@contextmanager
def one_layer(stride: int) -> Iterator[None]:
    """The projector sees the channels of the tower's map of ``stride`` 8, 16 or 32 alone; the others are 0.

    A token of 32 × 32 pixels holds the finer maps' channels cell by cell behind each other, then the coarse map's.
    """
    sizes = {8: CELLS * FINE_CHANNELS, 16: CELLS * MIDDLE_CHANNELS, 32: COARSE_CHANNELS}
    seen = torch.cat([torch.full((size,), float(each == stride)) for each, size in sizes.items()])
    project = LlavaMultiModalProjector.forward

    def of_one_layer(self: Any, image_features: torch.Tensor) -> torch.Tensor:
        return project(self, image_features * seen.to(image_features))

    with mock.patch.object(LlavaMultiModalProjector, "forward", of_one_layer):
        yield
