"""Coroutine tests run on a loop of their own; every store of the contract's URLs is tried."""

import asyncio
import inspect
import itertools
from pathlib import Path

import pytest

NUMBERS = itertools.count(1)
PATIENCE = 30


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
