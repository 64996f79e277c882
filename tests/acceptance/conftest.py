"""Every acceptance test runs on a store in memory and on a file, and all its sagas have sound traces."""

from pathlib import Path

import pytest

from durable_core.stores.memory import MemoryData
from tests.acceptance.parties import Place
from tests.traces import sound_traces

__all__ = ["place", "sound_traces"]


@pytest.fixture(params=["memory", "sqlite"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """Where the sagas of one test are kept; outlives each of its orchestrators."""
    if request.param == "memory":
        return Place("memory://", MemoryData())
    return Place(f"sqlite:///{tmp_path / 'sagas.db'}", None)
