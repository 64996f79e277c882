"""The clock of PostgreSQL is set by an hour, forward or back: what that does to leases and to the time of a process.

A function of our own is found before the server's ``clock_timestamp()``, for a role with such a search path.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager

import pytest

from durable_core.testing.store_rows import add, claimed, in_loop, the
from tests.postgres_server import Server, execute
from tests.store.test_postgres_lease import opened

HOUR_S = 3600
SETUP = (
    "CREATE SCHEMA {clock}",
    "CREATE TABLE {clock}.ahead (by interval)",
    "INSERT INTO {clock}.ahead VALUES ('0 s')",
    """
CREATE FUNCTION {clock}.clock_timestamp() RETURNS timestamptz LANGUAGE sql VOLATILE
AS $$ SELECT pg_catalog.clock_timestamp() + by FROM {clock}.ahead $$""",
    "CREATE ROLE {clock} LOGIN SUPERUSER",
    "ALTER ROLE {clock} SET search_path = {clock}, pg_catalog",
)


@asynccontextmanager
async def settable(server: Server) -> AsyncGenerator[tuple[str, Callable[[int], None]]]:
    """The address of a fresh schema, and what sets the clock that its stores see, in seconds from the true time."""
    url = server.fresh()
    clock = f"clock_{url.rpartition('=')[2]}"
    for text in SETUP:
        execute(server.url(), text.format(clock=clock))

    def put(by_s: int) -> None:
        execute(server.url(), f"UPDATE {clock}.ahead SET by = make_interval(secs => {by_s})")

    yield url.replace("//sagas@", f"//{clock}@"), put


@pytest.mark.parametrize("by_s", [HOUR_S, -HOUR_S])
@in_loop
async def test_the_living_keep_their_runs(server: Server, by_s: int):
    """Nobody takes them for dead, however often it looks; those who come later do not either."""
    async with settable(server) as (url, put), opened(url, "w1", "w2", leases={"w1": 3, "w2": 3}) as (one, other):
        await add(one, "a", owner="w1", wake_at_ns=None)
        assert await other.claims.release_dead() == 0
        put(by_s)
        for look in range(20):
            assert await other.claims.release_dead() == 0
            if look % 5 == 0:
                async with opened(url, None, "w3") as (observer, late):
                    assert await observer.claims.release_dead() == await late.claims.release_dead() == 0
            await asyncio.sleep(0.1)
        assert (await the(one, "a")).owner == "w1"
        assert one.lease_is_safe()
        assert other.lease_is_safe()
        await one.changed()  # which raises where its lease is lost


@pytest.mark.parametrize("by_s", [HOUR_S, -HOUR_S])
@in_loop
async def test_the_dead_are_found_in_time(server: Server, by_s: int):
    """A worker that died right before leaves its runs to others within its lease, and not an hour later."""
    leases = {"w1": 2, "w2": 2}
    async with settable(server) as (url, put), opened(url, "w1", "w2", leases=leases) as (dying, other):
        await add(dying, "a", owner="w1", wake_at_ns=None)
        assert await other.claims.release_dead() == 0
        dying.crash()
        put(by_s)
        async with asyncio.timeout(20):
            while not await other.claims.release_dead():  # noqa: ASYNC110 - it is the time that is waited for
                await asyncio.sleep(0.05)
        assert await claimed(other, "w2") == ["a"]


@pytest.mark.parametrize("by_s", [HOUR_S, -HOUR_S])
@in_loop
async def test_time_goes_on_in_a_process(server: Server, by_s: int):
    """Its sleeps and deadlines keep their length; a process that begins afterwards tells the new time."""
    async with settable(server) as (url, put), opened(url, "w1") as (store,):
        before_ns = store.ahead_ns()
        put(by_s)
        for _ in range(5):
            await store.changed()
        assert abs(store.ahead_ns() - before_ns) < 1_000_000_000
        async with opened(url, None) as (later,):
            assert abs(later.ahead_ns() - before_ns - by_s * 1_000_000_000) < 60_000_000_000
