"""Tiny untrained models, made once per session for every test that needs one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

# Before torch is imported anywhere: on tensors this small, threads cost more than they bring.
os.environ["OMP_NUM_THREADS"] = "1"

TINY_SIZES = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "max_position_embeddings": 1024,
}


@pytest.fixture(autouse=True)
def built_in_taxonomy(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No test sees the taxonomy file of another one, or of whoever runs the tests."""
    from llava_pose import taxonomy

    monkeypatch.delenv(taxonomy.ENVIRONMENT, raising=False)
    taxonomy.activate(None)
    yield
    taxonomy.activate(None)


@pytest.fixture(scope="session")
def tiny_pair() -> tuple[Any, Any]:
    """A model and its processor: the real vision tower, a language model too small to have learnt anything.

    Shared by the whole session: a test that changes weights works on a copy.
    """
    from llava_pose import assembly

    return assembly.assemble(TINY_SIZES)


@pytest.fixture(scope="session")
def tiny_model_dir(tiny_pair: tuple[Any, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same model as a saved folder. Read it; never write into it."""
    from llava_pose import checkpoint

    folder = tmp_path_factory.mktemp("tiny") / "model"
    checkpoint.save(*tiny_pair, folder)
    return folder


@pytest.fixture(scope="session")
def released(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    """A plain transformers model in the form of a released llava-1.5, and the folder it was saved in. Read only."""
    from tests.released import write_released

    folder = tmp_path_factory.mktemp("released") / "llava-1.5-tiny"
    return write_released(folder), folder


@pytest.fixture(scope="session")
def released_pair(released: tuple[Any, Path]) -> tuple[Any, Any]:
    """That folder opened as ours, with ``<pose>`` and a new pose head. A test that changes weights works on a copy."""
    from llava_pose import checkpoint

    return checkpoint.load(released[1])
