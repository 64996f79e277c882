"""Each test of an outbox runs on every kind of database and session that it asks for by ``shop``."""

import os
from pathlib import Path

import pytest

from tests.outboxes import KINDS, address

FEW = ("sqlite", "asyncpg")
"""For tests whose claim does not depend on the driver; ``SAGAS_SOAK`` asks for all."""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """``url``: on each driver. ``any_url``: on a file with plain sessions and a server with asynchronous ones."""
    if "url" in metafunc.fixturenames:
        metafunc.parametrize("url", KINDS, indirect=True)
    if "any_url" in metafunc.fixturenames:
        metafunc.parametrize("any_url", KINDS if "SAGAS_SOAK" in os.environ else FEW, indirect=True)


@pytest.fixture
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The address of a database of the user's own."""
    return address(request.param, tmp_path, lambda: request.getfixturevalue("server"))


@pytest.fixture
def any_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The same."""
    return address(request.param, tmp_path, lambda: request.getfixturevalue("server"))
