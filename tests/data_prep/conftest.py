"""A local endpoint for the tests of captions."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest


@pytest.fixture
def endpoint(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A server that speaks OpenAI's API; the key is set, and pauses between attempts are short."""
    # Imported here: the client takes a second, which the other tests of this folder are spared.
    from data_prep.captioning import llm_endpoint
    from tests.data_prep.captioned import KEY
    from tests.data_prep.endpoint import serving

    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    monkeypatch.setattr(llm_endpoint, "FIRST_PAUSE", 0.01)
    with serving() as server:
        yield server
