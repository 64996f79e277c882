"""Every test of a behaviour runs in memory, on a file, and some on PostgreSQL (with ``SAGAS_SOAK`` all).

A test of many cases runs all of them in memory, and every third one elsewhere: that stores are alike is what `store`
proves. With ``SAGAS_SOAK`` all cases run on all stores. Coroutine tests run on a loop of their own.
"""

import asyncio
import inspect
import itertools
import os
from collections import Counter
from pathlib import Path

import pytest

from durable_core.stores.memory.data import MemoryData
from tests.compiled import read_once
from tests.kit import Place
from tests.postgres_server import Server
from tests.traces import sound

sound_traces = sound()
__all__ = ["read_once", "sound_traces"]

HERE = Path(__file__).parent
NUMBERS = itertools.count(1)
PATIENCE = 100
EVERY = 1 if "SAGAS_SOAK" in os.environ else 3

ON_POSTGRES = frozenset(("test_child_sagas", "test_crashing_workers", "test_operators_and_restarts", "test_trip"))
"""What is most unlike on a server: restarts, and whole trees."""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One test for each kind of store."""
    if "place" in metafunc.fixturenames:
        name = metafunc.module.__name__.rpartition(".")[2]
        more = ["postgres"] if name in ON_POSTGRES or "SAGAS_SOAK" in os.environ else []
        metafunc.parametrize("place", ["memory", "sqlite", *more], indirect=True)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Of a test's cases that are not in memory, keep every third."""
    seen, left_out = Counter[tuple[str, str]](), list[pytest.Item]()
    for item in items:
        parameters = item.callspec.params if isinstance(item, pytest.Function) and hasattr(item, "callspec") else {}
        kind = str(parameters.get("place", parameters.get("url")))
        if kind in ("sqlite", "postgres") and HERE in item.path.parents:
            test = item.nodeid.partition("[")[0], kind
            if seen[test] % EVERY:
                left_out.append(item)
            seen[test] += 1
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        out = set(left_out)
        items[:] = [item for item in items if item not in out]


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


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run a test that is a coroutine, with an end to its patience."""
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    wanted = inspect.signature(pyfuncitem.obj).parameters
    arguments = {name: pyfuncitem.funcargs[name] for name in wanted}
    asyncio.run(asyncio.wait_for(pyfuncitem.obj(**arguments), PATIENCE))
    return True


@pytest.fixture(params=["memory", "sqlite"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A new store, as a user writes it."""
    if request.param == "memory":
        return f"memory://outside-{next(NUMBERS)}"
    return f"sqlite:///{tmp_path}/sagas.db"


@pytest.fixture
def file(tmp_path: Path) -> str:
    """A new store in a file, for what only a file shows."""
    return f"sqlite:///{tmp_path}/sagas.db"


@pytest.fixture
def world() -> list[str]:
    """What has happened outside, in order: steps write here, the library never does."""
    return []
