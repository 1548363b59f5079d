"""One model and one server for the tests of this room."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from llava_pose import LlavaPose
from tests.serving.running import Served, gate, serving

__all__ = ["gate"]


@pytest.fixture(scope="session")
def model() -> LlavaPose:
    """The embedded model: small, and it answers with poses. A test that changes anything works on its own server."""
    return LlavaPose.from_pretrained(device="cpu")


@pytest.fixture(scope="session")
def server(model: LlavaPose) -> Iterator[Served]:
    """A server with the limits it has unless told otherwise, shared by all tests."""
    with serving(model) as served:
        yield served
