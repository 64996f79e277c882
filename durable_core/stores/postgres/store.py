"""The PostgreSQL store: many workers on many machines.

Invariant: what a method has returned, every later read sees.
"""

import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from durable_core.errors import StoreError
from durable_core.model.version import Offer, replaced
from durable_core.stores.asked import AskedRuns, AskedSpans, AskedVersions
from durable_core.stores.postgres import refusals
from durable_core.stores.postgres.address import Place
from durable_core.stores.postgres.claims import PostgresClaims
from durable_core.stores.postgres.connection import CAUGHT, Connection, in_transaction
from durable_core.stores.postgres.database import QUESTIONS, PostgresDatabase
from durable_core.stores.postgres.journal import PostgresJournal
from durable_core.stores.postgres.membership import LEASE_S, Membership
from durable_core.stores.postgres.retention import PostgresRetention
from durable_core.stores.postgres.signals import PostgresSignals

if TYPE_CHECKING:
    from durable_core.model.checkup import Checkup

log = logging.getLogger("durable_core")

PATIENCE_S = 30.0
"""How long a question waits for a database that cannot be reached."""


class PostgresStore:
    """A ``Store`` in a schema of a PostgreSQL database; ``open`` makes its tables if there are none.

    Args:
        place: its address.
        lease_s: how long a silent worker keeps its runs.
        patience_s: how long a question waits while the database cannot be reached.
    """

    def __init__(self, place: Place, *, lease_s: float = LEASE_S, patience_s: float = PATIENCE_S) -> None:
        self.place = place
        self.create = True
        """Whether opening it may make its tables if there are none."""
        self._database = database = PostgresDatabase(place, patience_s=patience_s)
        self._membership = membership = Membership(database, lease_s=lease_s)
        self.journal = PostgresJournal(database, membership)
        self.runs = AskedRuns(database, QUESTIONS)
        self.claims = PostgresClaims(database, membership)
        self.signals = PostgresSignals(database, self.journal.remember)
        self.versions = AskedVersions(database, QUESTIONS, worker=lambda: membership.worker, announce=self._announce)
        self.retention = PostgresRetention(database)
        self.spans = AskedSpans(database)

    @property
    def secret(self) -> bytes:
        """32 random bytes, made with the store."""
        return self._database.check_open().secret

    async def open(self, *, worker: str | None) -> None:
        """Make or check the tables, register ``worker`` and release the runs of the dead. See ``Store.open``."""
        database = self._database
        if database.ready is not None:
            raise StoreError(f"the store {self.place.shown} is open already", "Close it first, or make another one")
        try:
            ready = await database.connect(create=self.create)
            await database.run("release dead workers", self._membership.release_dead)
            await self.journal.begin()
            await database.run("ask for the time", self._membership.measure)
            if worker is not None:
                await self._membership.enter(worker)
                self._entered()
                # The driver looks up on each connection how arrays of these are sent: 10 ms, now and not amid a burst.
                for on in (database.commits, database.questions):
                    await database.run(
                        "look up types", lambda c: c.fetchval("SELECT $1::int8[], $2::bytea[]", [], []), on=on
                    )
            database.ready = ready
        except BaseException:
            await self._shut()
            raise

    def _entered(self) -> None:
        self.journal.entered()
        self.claims.entered()

    async def rejoin(self, worker: str) -> None:
        """See ``Store.rejoin``."""
        async with self._membership.turn:
            self._database.check_open()
            await self._membership.enter_again(worker)
            self._entered()

    async def close(self) -> None:
        """Free this worker's runs, remove it and close the connections. Safe to call twice."""
        async with self._membership.turn:
            if self._database.ready is None:
                return
            await self._membership.end_lease()
            try:
                await self._membership.leave()
            except CAUGHT as error:
                # Nothing is lost, and the caller can do nothing: a worker that did not sign off is found dead.
                log.warning(
                    "%s: this worker could not sign off, so others release its work when its lease ends: %s",
                    self.place.shown,
                    refusals.explain(error, place=self.place.shown, doing="sign off"),
                )
            await self._shut()

    async def _shut(self) -> None:
        await self._membership.end_lease()
        self._membership.worker = None
        await self._database.close()

    def crash(self) -> None:
        """For tests: let go of everything as the end of the process would. The lease runs on to its end."""
        self._membership.crash()
        self._database.drop()

    def lease_is_safe(self) -> bool:
        """See ``Store.lease_is_safe``."""
        return self._membership.lease_is_safe()

    def ahead_ns(self) -> int:
        """How far the database's clock is ahead of this machine's, as last measured."""
        return self._membership.offset.ahead_of_wall_ns()

    def on_change(self, call: Callable[[], None]) -> None:
        """See ``Store.on_change``."""
        self._database.on_change = call

    async def changed(self) -> bool:
        """Whether another store has written; see ``Store.changed``. Now and then yes without a reason.

        Raises:
            LeaseLost: this worker was taken for dead.
        """
        self._database.check_open()
        self._membership.check()
        # A notification that was sent before the answer has arrived with it.
        await self._database.run("ask for the time", self._membership.measure)
        return self._database.listener.changed()

    async def check_up(self, *, now_ns: int, deep: bool) -> "Checkup":
        """See ``Store.check_up``."""
        from durable_core.stores.postgres.checkup import check_up  # noqa: PLC0415 - workers do without it

        return await check_up(self.place, now_ns=now_ns, deep=deep)

    async def _announce(self, worker: str, offers: Sequence[Offer], now_ns: int) -> list[Offer]:
        statements = self._database.statements

        async def write(connection: Connection) -> list[Offer]:
            async with in_transaction(connection):
                await self._membership.check_alive(connection)
                known = QUESTIONS.announced()
                former = known.read(await connection.fetch(statements.of(known.text)))
                for name, version, fingerprint in offers:
                    await connection.execute(statements["serve"], name, version, fingerprint, now_ns)
                    await connection.execute(statements["serving"], name, version, worker)
            return replaced(former, offers)

        return await self._database.run("announce what is served", write)
