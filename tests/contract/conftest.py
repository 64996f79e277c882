"""The suites live in the package, so pytest is told to explain their asserts too; and the server that some need."""

from collections.abc import Iterator

import pytest

from tests.postgres_server import QUICK, Server

pytest.register_assert_rewrite(
    "durable_core.testing.store_claim_rules",
    "durable_core.testing.store_commit_rules",
    "durable_core.testing.store_contract",
    "durable_core.testing.store_rows",
)


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    """A PostgreSQL for all tests of this session; each test takes a schema of its own in it."""
    with Server(**QUICK) as running:
        yield running
