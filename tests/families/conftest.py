"""Each family's small released checkpoint and pictures of several shapes, made once for all tests here."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from PIL import Image

from llava_pose import checkpoint
from tests.eval.conftest import crops, evaluate  # noqa: F401  fixtures
from tests.families.released import WRITERS
from tests.short_runs import data_dir, recipe, run  # noqa: F401  fixtures


class Small(NamedTuple):
    """A family: its name, transformers' own model as it was saved, the folder, and that folder opened as ours."""

    name: str
    plain: Any
    folder: Path
    model: Any
    processor: Any


@pytest.fixture(scope="session", params=list(WRITERS))
def family(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Small]:
    """Read only: a test that changes weights works on a copy."""
    folder = tmp_path_factory.mktemp("released") / request.param
    plain = WRITERS[request.param](folder)
    yield Small(request.param, plain, folder, *checkpoint.load(folder))


@pytest.fixture(scope="session")
def pictures() -> list[Image.Image]:
    """Square, wide and tall, so that tiled families see them in different numbers of tiles."""
    rng = np.random.default_rng(0)
    sizes = [(40, 40), (20, 50), (60, 30)]
    return [Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8)) for height, width in sizes]
