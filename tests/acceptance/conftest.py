"""Every acceptance test runs in memory, on a file, and some on PostgreSQL (with ``SAGAS_SOAK`` all)."""

import os
from pathlib import Path

import pytest

from durable_core.stores.memory.data import MemoryData
from tests.acceptance.parties import Place
from tests.postgres_server import Server
from tests.traces import sound

sound_traces = sound()

ON_POSTGRES = frozenset(("test_child_sagas", "test_operators_and_restarts", "test_trip"))
"""What is most unlike on a server: restarts, and whole trees."""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One test for each kind of store."""
    if "place" in metafunc.fixturenames:
        name = metafunc.module.__name__.rpartition(".")[2]
        more = ["postgres"] if name in ON_POSTGRES or "SAGAS_SOAK" in os.environ else []
        metafunc.parametrize("place", ["memory", "sqlite", *more], indirect=True)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Senders wait only a little for a worker to take their answer up: for tests in which there is none that could."""
    monkeypatch.setattr("durable_core.engine.callback_delivery.KEPT_AFTER_S", 0.05)


@pytest.fixture
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """Where the sagas of one test are kept; outlives each of its orchestrators."""
    if request.param == "memory":
        return Place("memory://", MemoryData())
    if request.param == "postgres":
        server: Server = request.getfixturevalue("server")
        return Place(server.fresh(), None)
    return Place(f"sqlite:///{tmp_path / 'sagas.db'}", None)
