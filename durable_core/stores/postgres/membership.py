"""A store's worker in PostgreSQL: its row and lease, the leases of others, and the database's clock.

Invariant: a worker that has left, or was found dead, is removed in the transaction that frees its runs.
"""

import asyncio
import os
import platform
from collections.abc import Sequence

from durable_core.errors import LeaseLost, StoreError
from durable_core.stores.postgres.connection import Connection, in_transaction
from durable_core.stores.postgres.database import PostgresDatabase
from durable_core.stores.postgres.lease import RENEWALS, Lease
from durable_core.stores.postgres.offset import Offset, steady_s
from durable_core.stores.postgres.watch import Answered, Leased, Watch

LEASE_S = 15.0
MARGIN = 0.2
"""The part of a lease that must be left when a step begins."""


class Membership:
    """The worker of the store on ``database``, if it has one; a silent worker keeps its runs for ``lease_s``."""

    def __init__(self, database: PostgresDatabase, *, lease_s: float) -> None:
        self.worker: str | None = None
        self.lease: Lease | None = None
        self.offset = Offset(shown=database.place.shown)
        self.turn = asyncio.Lock()
        """Held by each commit, and by all that changes who the worker is."""
        self._database = database
        self._lease_s = lease_s
        self._watch = Watch(lease_s, theirs_ns=self.offset.local_ns(), at_s=steady_s())

    async def enter(self, worker: str) -> None:
        """Register ``worker`` with a lease that a thread renews from here on."""
        statements = self._database.statements
        facts = (worker, os.getpid(), platform.node(), round(self._lease_s * 1e9))
        began_s: float | None = None

        async def enter(connection: Connection) -> bool:
            nonlocal began_s
            repeated, began_s = began_s is not None, steady_s()
            if await connection.fetchval(statements["enter"], *facts):
                return True
            # An attempt whose answer was lost may have entered.
            return repeated and bool(await connection.fetchval(statements["entered"], *facts))

        if not await self._database.run("announce the worker", enter) or began_s is None:
            raise StoreError(
                f"a worker named {worker!r} already runs on {self._database.place.shown}",
                "Give this one another name, or end that one",
            )
        self.worker = worker
        self.lease = Lease(
            self._database.place.dsn,
            statements["renew"],
            worker=worker,
            lease_s=self._lease_s,
            granted_at_s=began_s,
            offset=self.offset,
        )

    async def enter_again(self, worker: str) -> None:
        """Register under a new name, which nobody else has; what the old one still owns is free at once."""
        await self.end_lease()
        await self._database.run("leave", self._leave, on=self._database.commits)
        # An earlier attempt to enter under this name may have succeeded, and its answer was lost.
        await self._database.run("leave", lambda c: c.execute(self._database.statements["leave"], worker))
        await self.enter(worker)

    async def leave(self) -> None:
        """Remove the worker and free its runs, in one transaction."""
        async with self._database.commits.use() as connection:
            await self._leave(connection)

    async def _leave(self, connection: Connection) -> None:
        if self.worker is not None:
            async with in_transaction(connection):
                await connection.execute(self._database.statements["leave"], self.worker)
                await self._free(connection, [self.worker])

    async def end_lease(self) -> None:
        """Renew the lease no more."""
        lease, self.lease = self.lease, None
        if lease is not None:
            await asyncio.get_running_loop().run_in_executor(None, lease.stop)

    def crash(self) -> None:
        """For tests: let go of everything as the end of the process would. The lease runs on to its end."""
        self.worker = None
        if self.lease is not None:
            self.lease.stop()

    def lease_is_safe(self) -> bool:
        """Whether the lease has a margin left; see ``Store.lease_is_safe``."""
        return self.lease is None or self.lease.left_s() > self._lease_s * MARGIN

    def check(self) -> None:
        """Raise ``LeaseLost`` if the thread has found that the lease is lost."""
        if self.lease is not None and self.lease.lost:
            raise self.lost()

    async def check_alive(self, connection: Connection) -> None:
        """Within a transaction: raise ``LeaseLost`` if the worker was taken for dead; until its end it will not be."""
        alive = self._database.statements["alive"]
        if self.worker is not None and not await connection.fetchval(alive, self.worker):
            raise self.lost()

    def lost(self) -> LeaseLost:
        """The error for a worker that was taken for dead."""
        if self.lease is not None:
            self.lease.lost = True
        return LeaseLost(
            f"worker {self.worker} was silent for longer than its lease of {self._lease_s:g} s, so others drive its "
            "work now; nothing of what it wrote late was kept. It takes another name and goes on; where this happens "
            "often, give it more processor time or a longer lease=",
            worker=self.worker or "",
        )

    async def measure(self, connection: Connection) -> None:
        """Compare the database's clock with this process's."""
        sent_ns = self.offset.local_ns()
        theirs_ns = int(await connection.fetchval(self._database.statements["clock"]))
        self.offset.measured(theirs_ns, sent_ns=sent_ns, got_ns=self.offset.local_ns())

    async def release_dead(self, connection: Connection) -> int:
        """Remove the workers whose lease has ended, and free their runs; return how many runs.

        Not right after the database was away: the others could not renew either, and are about to.
        """
        sent_s = steady_s()
        calm = sent_s - self._database.away_s > self._lease_s / RENEWALS and (self.lease is None or self.lease.calm())
        rows = await connection.fetch(self._database.statements["leases"], self.worker)
        if not rows:
            return 0
        leased = [Leased(str(row[0]), int(row[1])) for row in rows]
        answer = Answered(int(rows[0][2]), up_since_ns=int(rows[0][3]), sent_s=sent_s, got_s=steady_s())
        dead = self._watch.dead(leased, answer)
        if not dead or not calm:
            return 0
        async with in_transaction(connection):
            found = [each.worker for each in dead], [each.until_ns for each in dead]
            removed = await connection.fetch(self._database.statements["remove_dead"], *found)
            return await self._free(connection, [str(row[0]) for row in removed])

    async def _free(self, connection: Connection, workers: Sequence[str]) -> int:
        statements, listener = self._database.statements, self._database.listener
        await connection.execute(statements["serves_no_more"], list(workers))
        nums = [int(row[0]) for row in await connection.fetch(statements["release"], list(workers))]
        if nums:
            await connection.execute(statements["wake"], nums)
            await connection.execute(statements["notify"], listener.channel, listener.token)
        return len(nums)
