"""Every acceptance test runs on a store in memory and on a file."""

from pathlib import Path

import pytest

from durable_core.stores.memory import MemoryData
from tests.acceptance.parties import Place


@pytest.fixture(params=["memory", "sqlite"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """Where the sagas of one test are kept; outlives each of its orchestrators."""
    if request.param == "memory":
        return Place("memory://", MemoryData())
    return Place(f"sqlite:///{tmp_path / 'sagas.db'}", None)
