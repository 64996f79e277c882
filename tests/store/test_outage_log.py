"""What the log says while a store is away: a line when it goes, and a line when it is back."""

import logging

import pytest

from durable_core.layer import open_store
from durable_core.stores.postgres.connection import Connection
from durable_core.stores.postgres.store import PostgresStore
from durable_core.testing.faulty_store import FaultyStore
from durable_core.testing.store_rows import in_loop
from sagas import Orchestrator, Saga, lookup, saga
from tests.postgres_server import Server


@lookup
async def price_of(item: str) -> int:
    return len(item)


@saga("quote", version=1)
async def quote(s: Saga, item: str) -> int:
    return await s.run(price_of, item)


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    """The lines that a person sees."""
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


@in_loop
async def test_a_store_that_takes_nothing_for_a_while_is_said_in_two_lines(caplog: pytest.LogCaptureFixture):
    """However many commits fail in between; neither has a traceback."""
    store = FaultyStore(open_store("memory://"))
    async with Orchestrator(store=store, sagas=[quote]) as orchestrator:
        store.fail_commits(5)
        handle = await orchestrator.start(quote, "tea", id="quote-1")
        assert await handle.result() == 3
    lost, back = warnings(caplog)
    assert lost.startswith("the store does not take what is written; trying again until it does: ")
    assert back.startswith("the store takes what is written again, after ")


@in_loop
async def test_a_server_that_does_not_answer_for_a_while_is_said_in_two_lines(
    server: Server, caplog: pytest.LogCaptureFixture
):
    """The store says them, with the server's place and how long it was away; a failure that passes at once is none."""
    store = open_store(server.fresh())
    assert isinstance(store, PostgresStore)
    await store.open(worker=None)
    failures = 0

    async def asked(connection: Connection) -> None:
        nonlocal failures
        if failures:
            failures -= 1
            raise ConnectionRefusedError
        await connection.execute("SELECT 1")

    try:
        for failures in (1, 4):  # noqa: B007 - ``asked`` counts it down
            await store._database.run("ask", asked, outcome="")
    finally:
        await store.close()
    lost, back = warnings(caplog)
    assert f"127.0.0.1:{server.port}" in lost
    assert lost.endswith("Trying again until it answers")
    assert "answers again; it was away for " in back
