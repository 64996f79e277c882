"""A participant's own database: SQLite and PostgreSQL, each with and without asyncio."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.behaviour.participant.parties import KINDS, Base, opened
from tests.postgres_server import Server


@pytest.fixture(params=KINDS)
def base(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Base]:
    """A fresh database over each driver."""
    kind: str = request.param
    server: Server | None = None if "sqlite" in kind else request.getfixturevalue("server")
    with opened(kind, tmp_path / "participant.db", server) as base:
        yield base


@pytest.fixture(params=["sqlite", "psycopg"])
def plain(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Base]:
    """A fresh database without asyncio."""
    kind: str = request.param
    server: Server | None = None if "sqlite" in kind else request.getfixturevalue("server")
    with opened(kind, tmp_path / "participant.db", server) as base:
        yield base


@pytest.fixture
def file(tmp_path: Path) -> Iterator[Base]:
    """A fresh SQLite file."""
    with opened("sqlite", tmp_path / "participant.db", None) as base:
        yield base


@pytest.fixture
def postgres(server: Server, tmp_path: Path) -> Iterator[Base]:
    """A fresh schema on PostgreSQL."""
    with opened("psycopg", tmp_path, server) as base:
        yield base
