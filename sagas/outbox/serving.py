"""The relays of one orchestrator: each outbox has one, with its own threads and its listener.

Invariant: relays begin once the orchestrator takes calls, and have ended before it stops to.
"""

import asyncio
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import attrs
from sqlalchemy.exc import SQLAlchemyError

from durable_core import DefinitionError, StoreError
from durable_core.layer import Client, Measure, Runtime, SystemClock
from sagas.outbox import database as sql
from sagas.outbox.database import CREATE, Database, Glance
from sagas.outbox.entries import Entry, OutboxStats
from sagas.outbox.hand import ClientHand
from sagas.outbox.lease import Lease
from sagas.outbox.outbox import Outbox
from sagas.outbox.relay import Relay, log
from sagas.outbox.wake import listen

AnyOutbox = Outbox[Any]
ENTRY_S = 5.0
"""How long entering waits to be told whether the tables exist."""
THREADS = 2
"""A relay asks one thing at a time, and renews its lease meanwhile."""


def checked(outboxes: Sequence[object], *, worker: bool) -> list[AnyOutbox]:
    """The outboxes of an orchestrator.

    Raises:
        DefinitionError: they cannot be handed on, or one of them twice.
    """
    found: list[AnyOutbox] = []
    for outbox in outboxes:
        if not isinstance(outbox, Outbox):
            raise DefinitionError(
                f"outboxes= has {outbox!r}, which is no outbox", "Give objects of sagas.outbox.Outbox"
            )
        outbox.database.check_shared()  # pyright: ignore[reportUnknownMemberType]
        if any(outbox.database.sync is other.database.sync for other in found):  # pyright: ignore[reportUnknownMemberType]
            raise DefinitionError(f"outboxes= has {outbox!r} twice", "Give each database's outbox once")
        found.append(outbox)  # pyright: ignore[reportUnknownArgumentType]
    if found and not worker:
        raise DefinitionError(
            "outboxes= was given with worker=False, and only a worker hands entries on",
            "Leave it out here; a session can be added to without it. Or run `sagas relay`",
        )
    return found


@attrs.frozen
class DatabaseRows:
    """The outbox of a database."""

    database: Database
    threads: ThreadPoolExecutor
    clock: SystemClock

    @property
    def place(self) -> str:
        """Its address, without the password."""
        return self.database.place

    async def look(self) -> Glance:
        """The lease, and whether entries wait."""
        return await self.database.ask(self.threads, sql.look)

    async def take(self, expected: Lease, owner: str) -> Lease | None:
        """Write the lease where it still is as expected."""
        return await self.database.ask(self.threads, sql.take, expected, owner)

    async def read(self, limit: int) -> list[Entry]:
        """The first entries that wait."""
        return await self.database.ask(self.threads, sql.read, limit)

    async def settle(self, done: Sequence[int], refused: Sequence[tuple[int, str]]) -> list[int]:
        """Delete entries and mark others, in one commit."""
        return await self.database.ask(self.threads, sql.settle, done, refused, self.clock.now_ns())

    async def stats(self) -> OutboxStats:
        """How the outbox stands."""
        return await self.database.ask(self.threads, sql.stats, self.clock.now_ns())


class OutboxRelay:
    """One outbox, handed on to one orchestrator."""

    def __init__(self, outbox: AnyOutbox, client: Client[Any, Any]) -> None:
        self._outbox = outbox
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="sagas-outbox")
        runtime = client.runtime
        self.rows = DatabaseRows(outbox.database, self._threads, SystemClock())
        self.relay = Relay(
            self.rows, ClientHand(client), owner=f"{runtime.name}-{runtime.ids.name()}", gauge=gauge_of(runtime)
        )
        self._tasks: list[asyncio.Task[None]] = []

    async def check(self) -> None:
        """Refuse an outbox without tables. A database that cannot be reached is waited for, as a store is.

        Raises:
            DefinitionError: its tables do not exist.
        """
        try:
            async with asyncio.timeout(ENTRY_S):
                exist = await self._outbox.database.ask(self._threads, sql.exist)
        except Exception as error:  # noqa: BLE001 - a border: the user's driver may raise anything
            log.warning("the outbox of %s cannot be reached yet: %s", self.rows.place, str(error) or "no answer")
            return
        if not exist:
            raise DefinitionError(f"the tables of the outbox of {self.rows.place} do not exist", CREATE)

    async def once(self) -> None:
        """Hand on what is committed, and return.

        Raises:
            StoreError: one of the databases cannot be asked.
        """
        with reached(self.rows.place):
            await self.relay.once()

    def begin(self) -> None:
        """Hand on from now on."""
        self._outbox.listeners.add(self.relay.ring_from_thread)
        self._tasks = [
            asyncio.create_task(self.relay.run(), name="sagas-outbox-relay"),
            asyncio.create_task(listen(self._outbox.database, self._threads, self.relay.ring)),
        ]

    async def end(self, *, within_s: float) -> None:
        """Let what is being handed on end, for so long."""
        self._outbox.listeners.discard(self.relay.ring_from_thread)
        self.relay.stop()
        for listener in self._tasks[1:]:
            listener.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=within_s)
        for task in self._tasks:
            task.cancel()  # what it was about to do is done again by the next relay
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._threads.shutdown(wait=False, cancel_futures=True)


class Relays:
    """The relays of one orchestrator's outboxes."""

    def __init__(self, outboxes: Sequence[AnyOutbox], client: Client[Any, Any]) -> None:
        self._outboxes = outboxes
        self._client = client
        self._relays: list[OutboxRelay] = []

    async def enter(self) -> None:
        """Hand on from now on; where that cannot be, the orchestrator is left.

        Raises:
            DefinitionError: an outbox has no tables; nothing is handed on.
        """
        self._relays = [OutboxRelay(outbox, self._client) for outbox in self._outboxes]
        try:
            for relay in self._relays:
                await relay.check()
        except BaseException:
            await self.leave()
            await self._client.runtime.__aexit__(None, None, None)
            raise
        for relay in self._relays:
            relay.begin()

    async def leave(self) -> None:
        """Hand nothing on any more."""
        relays, self._relays = self._relays, []
        grace_s = self._client.runtime.settings.grace_s
        await asyncio.gather(*(relay.end(within_s=grace_s) for relay in relays))


@contextmanager
def reached(place: str) -> Generator[None]:
    """Within the block, what the user's database raises is a ``StoreError``."""
    try:
        yield
    except (SQLAlchemyError, OSError) as error:
        raise StoreError(
            f"the outbox of {place} cannot be asked: {error}", "See whether its database runs, and try again"
        ) from error


def gauge_of(runtime: Runtime) -> Callable[[OutboxStats], None] | None:
    """Where the state of an outbox is measured; None where nobody wants to know."""
    meters = None if runtime.tracing is None else runtime.tracing.meters
    if meters is None:
        return None

    def gauge(stats: OutboxStats) -> None:
        oldest_s = 0.0 if stats.oldest is None else stats.oldest.total_seconds()
        meters.record(Measure("outbox.waiting", stats.waiting, {}))
        meters.record(Measure("outbox.oldest.age", oldest_s, {}))
        meters.record(Measure("outbox.refused", stats.refused, {}))

    return gauge
