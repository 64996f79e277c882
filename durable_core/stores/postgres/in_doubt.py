"""A commit whose connection was lost: whether it was written is found out before anything else is.

Invariant: once a doubt is settled, the commit that it is about can no longer happen later: the worker's count has moved
on, and a server that still works on that commit finds it so.
"""

from collections.abc import Sequence

import attrs

from durable_core.ports import Batch
from durable_core.stores.postgres.connection import Connection
from durable_core.stores.postgres.statements import COUNTED, Statements

# It waits for the row, should the lost commit hold it still, and is then judged on the row as that has left it.
# ruff: noqa: S608 - put together from a number of our own; values are bound
_FENCE = f"""
UPDATE {{s}}workers SET batch = batch + 2 WHERE id = $1 AND batch & {COUNTED} = $2 - 1 RETURNING batch & {COUNTED}"""
_COUNT = f"SELECT batch & {COUNTED} FROM {{s}}workers WHERE id = $1"
_BEGUN = "SELECT num FROM {s}runs WHERE num = ANY($1::int8[])"
_ENTRY = "SELECT EXISTS (SELECT 1 FROM {s}journal WHERE run = $1 AND seq = $2)"
_UPDATED = "SELECT EXISTS (SELECT 1 FROM {s}runs WHERE num = $1 AND updated_at_ns >= $2)"
_STRAY = """
UPDATE {s}runs SET owner = NULL, wake_at_ns = 0, status = 'pending'
WHERE num = ANY($1::int8[]) AND owner = $2 AND ended_at_ns IS NULL
"""


@attrs.frozen
class Outcome:
    """What became of a commit."""

    written: bool
    number: int | None = None
    """The worker's count now; None where the database knows the worker no more."""
    begun: frozenset[int] = frozenset()
    """The runs that it has started."""


@attrs.frozen
class InDoubtCommit:
    """A batch that may or may not have been written, as it was then."""

    batch: Batch
    number: int
    starts: tuple[int, ...]
    entry: tuple[int, int] | None
    """Run and sequence number of its first entry."""
    update: tuple[int, int] | None
    """Run and time of its first update."""

    @classmethod
    def about(cls, batch: Batch, number: int) -> "InDoubtCommit":
        """The doubt about ``batch``, sent under this number."""
        first = next(iter(batch.updates.values()), None)
        return cls(
            batch,
            number,
            tuple(start.num for start in batch.starts),
            (batch.entries[0].run, batch.entries[0].seq) if batch.entries else None,
            None if first is None else (first.num, first.updated_at_ns),
        )

    async def settle(self, connection: Connection, statements: Statements, worker: str | None) -> Outcome:
        """Find out."""
        if worker is None:
            begun = await self._begun(connection, statements)
            return Outcome(bool(begun) or await self._has_left_traces(connection, statements), 0, begun)
        number = await connection.fetchval(statements.of(_FENCE), worker, self.number)
        if number is not None:
            return Outcome(written=False, number=int(number))
        number = await connection.fetchval(statements.of(_COUNT), worker)
        if number is None:  # its runs were freed with it; those that it has started are there all the same
            begun = await self._begun(connection, statements)
            return Outcome(written=bool(begun), number=None, begun=begun)
        if number != self.number:  # a fence that was put up before, and whose answer was lost
            return Outcome(written=False, number=int(number))
        return Outcome(written=True, number=int(number), begun=await self._begun(connection, statements))

    async def _begun(self, connection: Connection, statements: Statements) -> frozenset[int]:
        if not self.starts:
            return frozenset()
        rows = await connection.fetch(statements.of(_BEGUN), list(self.starts))
        return frozenset(int(row[0]) for row in rows)

    async def _has_left_traces(self, connection: Connection, statements: Statements) -> bool:
        """For one that is no worker, and counts nothing."""
        if self.entry is not None:
            return bool(await connection.fetchval(statements.of(_ENTRY), *self.entry))
        if self.update is not None and not self.starts:
            return bool(await connection.fetchval(statements.of(_UPDATED), *self.update))
        return False


async def let_stray_go(connection: Connection, statements: Statements, nums: Sequence[int], worker: str) -> None:
    """Free runs whose starters got the answer that they had not begun: they did, so some worker shall drive them."""
    await connection.execute(statements.of(_STRAY), list(nums), worker)
