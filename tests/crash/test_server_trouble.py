"""Every kind of call on PostgreSQL, in every kind of trouble with its server: it waits, and gives up in time."""

import asyncio
import itertools
import signal
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import pytest

from durable_core import StoreError
from durable_core.layer import RunQuery, open_store
from durable_core.model.version import Offer
from durable_core.stores.postgres.store import PostgresStore
from durable_core.testing.store_rows import SERVED, add, new_batch, new_entry, new_run
from tests.crash.proxy import Proxy, proxy
from tests.crash.test_cut_connections import DIRECTIONS, MOST
from tests.postgres_server import QUICK, Server, execute

pytestmark = pytest.mark.slow

Call = Callable[[PostgresStore], Awaitable[Any]]
END_ALL = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND usename IS NOT NULL"
_numbers = itertools.count()
SOON_S = 25.0
"""More than any of these calls takes once the server answers."""


@pytest.fixture
def mortal() -> Iterator[Server]:
    """A server of the test's own, for it to stop."""
    with Server(**QUICK) as running:
        yield running


async def open_another(store: PostgresStore, *, worker: bool) -> None:
    """Open a store of the same place, and close it."""
    other = PostgresStore(store.place, patience_s=store._database.patience_s)
    await other.open(worker=f"another {next(_numbers)}" if worker else None)
    await other.close()


async def write(store: PostgresStore, batch: Callable[[int], Any]) -> None:
    """Commit as the writer does: again, for as long as the store itself waits for what it asks."""
    made = batch(store.journal.next_num())
    async with asyncio.timeout(SOON_S):
        until_s = asyncio.get_running_loop().time() + store._database.patience_s
        while True:
            try:
                await store.journal.commit(made)
            except StoreError as error:
                if not error.transient or asyncio.get_running_loop().time() > until_s:
                    raise
                await asyncio.sleep(0.02)
            else:
                return


async def send(store: PostgresStore) -> None:
    """Leave a signal: it is there on return."""
    before = len(await store.signals.waiting([1]))
    assert await store.signals.send(1, "pause", b"{}", now_ns=1)
    assert len(await store.signals.waiting([1])) == before + 1


QUESTIONS: Mapping[str, Call] = {
    "count": lambda store: store.runs.count(RunQuery()),
    "list": lambda store: store.runs.select(RunQuery()),
    "info": lambda store: store.runs.find(["first"]),
    "info by number": lambda store: store.runs.find_num(1),
    "history": lambda store: store.journal.load([1]),
    "announced": lambda store: store.versions.announced(),
    "unserved": lambda store: store.versions.unserved(now_ns=1),
    "tally": lambda store: store.versions.tally(),
    "signals": lambda store: store.signals.waiting([1]),
    "tombstones": lambda store: store.retention.tombstones(["first"]),
    "ended": lambda store: store.retention.ended(before_ns=1),
    "cursors": lambda store: store.spans.cursors("w1"),
    "next wake": lambda store: store.runs.next_wake_ns(after_ns=0),
    "look around": lambda store: store.changed(),
}
ACTS: Mapping[str, Call] = {
    "start": partial(write, batch=lambda num: new_batch(starts=[new_run(num, f"r{num}")])),
    "checkpoint": partial(write, batch=lambda num: new_batch(entries=[new_entry(1, num + 10)])),
    "verb": send,
    "announce": lambda store: store.versions.announce([Offer("order", 1, f"body {next(_numbers)}")], now_ns=1),
    "claim": lambda store: store.claims.claim("w1", SERVED, now_ns=1, limit=1),
    "release the dead": lambda store: store.claims.release_dead(),
    "start cursor": lambda store: store.spans.start("w1"),
    "open": partial(open_another, worker=False),
    "open as a worker": partial(open_another, worker=True),
    "rejoin": lambda store: store.rejoin("w1"),
}
CALLS = {**QUESTIONS, **ACTS}


@asynccontextmanager
async def opened(url: str) -> AsyncGenerator[PostgresStore]:
    """A worker's store at ``url`` with one run in it, of number 1 as far as these calls go."""
    store = open_store(url, lease_s=600, patience_s=20)
    assert isinstance(store, PostgresStore)
    await store.open(worker="w1")
    try:
        await add(store, "first", owner="w1", wake_at_ns=None)
        yield store
    finally:
        await store.close()


async def all_work(store: PostgresStore) -> None:
    """Each call does what it should."""
    for name, call in CALLS.items():
        try:
            async with asyncio.timeout(SOON_S):
                await call(store)
        except Exception as error:
            raise AssertionError(f"{name}: {error!r}") from error


def addresses(server: Server) -> list[str]:
    """Of a fresh schema: by the loopback, and by the server's socket."""
    url = server.fresh()
    return [url, server.local_url(schema=url.rpartition("=")[2])]


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGQUIT])
@pytest.mark.parametrize("place", [0, 1])
def test_each_call_gives_up_on_a_server_that_is_down_after_its_time(mortal: Server, place: int, how: int):
    """It says so as something that may pass, and works again once the server is back; by a socket that is gone too."""

    async def run() -> None:
        async with opened(addresses(mortal)[place]) as store:
            await asyncio.to_thread(mortal.stop, how)
            store._database.patience_s = 0.05
            for name, call in CALLS.items():
                if name == "start":
                    store.journal._numbers.add(range(10**6, 10**6 + 1000))
                began_s = asyncio.get_running_loop().time()
                with pytest.raises(StoreError) as caught:
                    await call(store)
                assert caught.value.transient, (name, caught.value)
                assert asyncio.get_running_loop().time() - began_s >= 0.05, name
            await asyncio.to_thread(mortal.start)
            store._database.patience_s = 20
            await all_work(store)

    asyncio.run(run())


@pytest.mark.parametrize("place", [0, 1])
def test_each_call_waits_for_a_server_that_is_restarted(mortal: Server, place: int):
    """Asked while it is down, all of them succeed once it is up."""

    async def run() -> None:
        async with opened(addresses(mortal)[place]) as store:
            await asyncio.to_thread(mortal.stop, signal.SIGINT)
            together = {
                name: call for name, call in CALLS.items() if name != "rejoin"
            }  # it ends the name of the others
            asked = {name: asyncio.ensure_future(call(store)) for name, call in together.items()}
            await asyncio.sleep(0.3)
            assert [name for name, task in asked.items() if task.done()] == []
            await asyncio.to_thread(mortal.start)
            async with asyncio.timeout(SOON_S):
                await asyncio.wait(asked.values())
            assert {name: repr(task.exception()) for name, task in asked.items() if task.exception()} == {}

    asyncio.run(run())


@pytest.mark.parametrize("name", CALLS)
def test_each_call_survives_that_its_connection_has_ended_while_idle(server: Server, name: str):
    """The server ended it, or the way to it did: neither the driver's complaint nor the loss reaches the caller."""

    async def behind(between: Proxy) -> None:
        url = server.url(schema=server.fresh().rpartition("=")[2], port=between.port)
        async with opened(url) as store:
            call = CALLS[name]
            await call(store)
            await between.end_all()  # the driver is told, and does not close its connection
            await call(store)
            await asyncio.to_thread(execute, server.url(), END_ALL)
            await call(store)
            between.cut_all()
            await call(store)

    async def run() -> None:
        async with proxy(server.port) as between:
            await behind(between)

    asyncio.run(run())


@pytest.mark.parametrize(
    "name", [*QUESTIONS, "announce", "release the dead", "start cursor", "open", "open as a worker"]
)
def test_each_call_is_answered_wherever_its_connection_is_cut(server: Server, name: str):
    """At each message that it takes, in both directions; what it says is what it says without a cut."""

    async def behind(between: Proxy) -> None:
        url = server.url(schema=server.fresh().rpartition("=")[2], port=between.port)
        async with opened(url) as store:
            await asyncio.to_thread(_renewed, store)
            for direction in DIRECTIONS:
                for after in range(
                    0, MOST * 6, 7 if name.startswith("open") else 1
                ):  # opening takes 150 messages and more
                    between.cut(direction, after)
                    await CALLS[name](store)
                    if between.armed:
                        between.disarm()
                        break
                else:
                    raise AssertionError("it takes more messages than expected")
            assert between.cuts

    async def run() -> None:
        async with proxy(server.port) as between:
            await behind(between)

    asyncio.run(run())


def _renewed(store: PostgresStore) -> None:
    """Wait until the lease's own connection is there, so that it takes none of the messages."""
    assert store._membership.lease is not None
    while not store._membership.lease.renewed:
        store._membership.lease._stopped.wait(0.01)


def test_a_lease_is_renewed_over_a_connection_that_has_ended_while_idle(server: Server):
    """The worker's heartbeat is on a connection of its own: it connects anew, and keeps its name."""

    async def run() -> None:
        async with proxy(server.port) as between:
            url = server.url(schema=server.fresh().rpartition("=")[2], port=between.port)
            store = open_store(url, lease_s=1.5)
            assert isinstance(store, PostgresStore)
            await store.open(worker="w1")
            lease = store._membership.lease
            assert lease is not None
            for end in (between.end_all, between.cut_all, partial(execute, server.url(), END_ALL)):
                ended = end()
                if asyncio.iscoroutine(ended):
                    await ended
                before = lease.renewed
                async with asyncio.timeout(SOON_S):
                    while lease.renewed < before + 2:  # noqa: ASYNC110 - its thread says nothing
                        await asyncio.sleep(0.02)
                assert not lease.lost
            await store.close()

    asyncio.run(run())


def test_a_socket_that_is_gone_is_waited_for(mortal: Server):
    """The server lives, and its socket is removed: calls wait and say so; a start afterwards makes all of them work."""

    async def run() -> None:
        async with opened(addresses(mortal)[1]) as store:
            await asyncio.to_thread(execute, mortal.url(), END_ALL)
            mortal.socket.unlink()
            store._database.patience_s = 0.05
            for name, call in CALLS.items():
                with pytest.raises(StoreError, match="cannot be reached") as caught:
                    await call(store)
                assert caught.value.transient, name
            await asyncio.to_thread(mortal.stop)
            await asyncio.to_thread(mortal.start)
            store._database.patience_s = 20
            await all_work(store)

    asyncio.run(run())


def test_a_store_is_opened_once_its_server_is_up(mortal: Server):
    """It waits; a server that refuses for good, or a file that is not there, is told of at once."""

    async def run() -> None:
        url = mortal.fresh()
        await asyncio.to_thread(mortal.stop)
        store = open_store(url, patience_s=20)
        opening = asyncio.create_task(store.open(worker="w1"))
        await asyncio.sleep(0.2)
        assert not opening.done()
        wrong = open_store(f"{url}&sslrootcert=/nowhere/root.pem&sslmode=verify-ca", patience_s=600)
        await asyncio.to_thread(mortal.start)
        await opening
        with pytest.raises(StoreError, match="sslrootcert"):
            await wrong.open(worker=None)
        await store.close()

    asyncio.run(run())
