"""How workers get runs of a schema of PostgreSQL, and how the runs of dead workers become free."""

from collections.abc import Collection, Sequence
from functools import partial
from typing import Any

from durable_core.model.run import RunRecord
from durable_core.stores.postgres.columns import RUN
from durable_core.stores.postgres.connection import Connection, in_transaction
from durable_core.stores.postgres.database import QUESTIONS, PostgresDatabase
from durable_core.stores.postgres.membership import Membership
from durable_core.stores.postgres.statements import CANDIDATES

CLAIMS = 5
"""How often a claim looks again if other workers hold all that it has found."""


class PostgresClaims:
    """``Claims`` of a schema of PostgreSQL."""

    def __init__(self, database: PostgresDatabase, membership: Membership) -> None:
        self._database = database
        self._membership = membership
        self._claiming: list[int] = []
        """Runs that a claim was about to take: ours perhaps, until it is known how that claim ended."""

    def entered(self) -> None:
        """The worker has entered under a new name, and owns nothing."""
        self._claiming = []

    async def claim(
        self, worker: str, served: Collection[tuple[str, int]], *, now_ns: int, limit: int
    ) -> list[RunRecord]:
        """See ``Claims.claim``. Takes its share of each function, the longest due first."""
        self._database.check_open()
        if not served or limit < 1:
            return []
        names, versions = [name for name, _ in served], [version for _, version in served]
        due = (names, versions, now_ns)
        any_due = self._database.statements["any_due"]
        for _ in range(CLAIMS):
            if not self._claiming and not await self._database.run(
                "look for work", lambda c: c.fetchval(any_due, *due, 1)
            ):
                return []
            claim = partial(self._claim, worker=worker, due=due, limit=limit)
            if taken := await self._database.run("take up work", claim):
                return taken
        return []

    async def _claim(
        self, connection: Connection, *, worker: str, due: tuple[object, ...], limit: int
    ) -> list[RunRecord]:
        statements = self._database.statements
        async with in_transaction(connection):
            if self._claiming:  # the connection was lost amid that claim: what it has taken is ours, and nobody knows
                rows = await connection.fetch(statements["claimed"], worker, self._claiming)
            else:
                await self._membership.check_alive(connection)
                rows = await connection.fetch(statements["due"], *due, limit * CANDIDATES, limit)
                self._claiming = [int(row[0]) for row in rows]
                if rows:
                    await connection.execute(statements["claim"], worker, self._claiming)
        self._claiming = []
        return _as_claimed(rows, worker)

    async def release_dead(self) -> int:
        """Free the runs of workers whose lease has ended; see ``Claims.release_dead``."""
        self._database.check_open()
        return await self._database.run("release dead workers", self._membership.release_dead)


def _as_claimed(rows: Sequence[Sequence[Any]], worker: str) -> list[RunRecord]:
    """The records of the runs just claimed, the longest due first."""
    found = [QUESTIONS.to_run(tuple(row)[: len(RUN)]) for row in rows]
    found.sort(key=lambda run: (run.wake_at_ns or run.updated_at_ns, run.num))
    return [run.claimed_by(worker) for run in found]
