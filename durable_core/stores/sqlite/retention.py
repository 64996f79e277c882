"""Purges of a SQLite file: each function of a connection is the inside of one short transaction.

Invariant: whatever it is given, a function here stops after ``PIECE_S`` and leaves the rest for another transaction, so
that writers of this and other processes wait no longer for a purge than for a commit.
"""

import sqlite3
import time
from collections.abc import Sequence
from functools import partial

from durable_core.model.tombstone import EndedRun, Swept, Tombstone
from durable_core.stores import sql
from durable_core.stores.sqlite.database import SqliteDatabase
from durable_core.stores.sqlite.dialect import QUESTIONS

PIECE_S = 0.005
"""How long a transaction may work, in seconds, before it ends with what it has done. Its commit comes on top."""
ROWS = 32
"""Entries removed by one statement: with 1 MiB of payload each, already as much as fits into ``PIECE_S``."""

# ruff: noqa: S608 - every statement here is put together from our own column names; values are bound
PURGE = f"""
INSERT INTO tombstones ({sql.TOMBSTONE_COLUMNS})
SELECT num, id, name, version, status, phase, created_at_ns, ended_at_ns, ?, ? FROM runs
WHERE num = ? AND ended_at_ns = ? AND (owner IS NULL OR owner NOT IN (SELECT id FROM workers))
    AND coalesce((SELECT max(seq) FROM journal WHERE run = runs.num), 0) = ?
"""
UNSWEPT = "SELECT num FROM tombstones WHERE unswept = 1 LIMIT 1"
SWEEP = "DELETE FROM journal WHERE pos IN (SELECT pos FROM journal WHERE run = ? LIMIT ?)"
EXPIRED = "SELECT num FROM tombstones WHERE until_ns <= ? AND unswept = 0 ORDER BY until_ns LIMIT ?"


class SqliteRetention:
    """``Retention`` of a SQLite file."""

    def __init__(self, database: SqliteDatabase) -> None:
        self._database = database

    async def ended(
        self, *, before_ns: int, name: str | None = None, after: EndedRun | None = None, limit: int = 100
    ) -> list[EndedRun]:
        """See ``Retention.ended``."""
        return await self._database.ask(QUESTIONS.ended(before_ns=before_ns, name=name, after=after, limit=limit))

    async def purge(self, runs: Sequence[EndedRun], *, now_ns: int, until_ns: int | None) -> list[int]:
        """See ``Retention.purge``."""
        if not runs:
            return []
        return await self._database.transact(
            "purge",
            lambda file: purge(file.connection, runs, now_ns=now_ns, until_ns=until_ns),
            rows=len(runs),
            apart=True,
        )

    async def sweep(self, *, limit: int) -> Swept:
        """See ``Retention.sweep``. Writes nothing if nothing is left."""
        if self._database.read(_unswept) is None:
            return Swept(0, left=False)
        return await self._database.transact(
            "remove purged journals",
            lambda file: sweep(file.connection, limit=limit),
            rows=limit,
            apart=True,
        )

    async def tombstones(self, ids: Sequence[str]) -> list[Tombstone]:
        """See ``Retention.tombstones``."""
        return await self._database.ask(QUESTIONS.tombstones(ids))

    async def forget(self, *, now_ns: int, limit: int) -> int:
        """See ``Retention.forget``. Writes nothing if no tombstone has expired."""
        if not self._database.read(partial(_expired, now_ns=now_ns, limit=1)):
            return 0
        return await self._database.transact(
            "forget purged ids",
            lambda file: forget(file.connection, now_ns=now_ns, limit=limit),
            rows=limit,
            apart=True,
        )


def purge(connection: sqlite3.Connection, runs: Sequence[EndedRun], *, now_ns: int, until_ns: int | None) -> list[int]:
    """Replace the runs that stand as they were found with tombstones."""
    purged: list[int] = []
    until_s = time.perf_counter() + PIECE_S
    for num, _, ended_at_ns, last_seq in runs:
        if connection.execute(PURGE, (now_ns, until_ns, num, ended_at_ns, last_seq)).rowcount:
            connection.execute("DELETE FROM runs WHERE num = ?", (num,))
            connection.execute("DELETE FROM signals WHERE run = ?", (num,))
            purged.append(num)
        if time.perf_counter() > until_s:
            break
    return purged


def _unswept(connection: sqlite3.Connection) -> int | None:
    """A purged run whose journal is left to remove."""
    row = connection.execute(UNSWEPT).fetchone()
    return None if row is None else int(row[0])


def sweep(connection: sqlite3.Connection, *, limit: int) -> Swept:
    """Remove entries of purged runs, one run after the other."""
    removed = 0
    until_s = time.perf_counter() + PIECE_S
    while (num := _unswept(connection)) is not None and removed < limit and time.perf_counter() < until_s:
        rows = min(ROWS, limit - removed)
        gone = connection.execute(SWEEP, (num, rows)).rowcount
        removed += gone
        if gone < rows:
            connection.execute("UPDATE tombstones SET unswept = 0 WHERE num = ?", (num,))
    return Swept(removed, left=num is not None)


def _expired(connection: sqlite3.Connection, *, now_ns: int, limit: int) -> list[int]:
    """Tombstones that may be removed."""
    return [int(num) for (num,) in connection.execute(EXPIRED, (now_ns, limit))]


def forget(connection: sqlite3.Connection, *, now_ns: int, limit: int) -> int:
    """Remove expired tombstones. One whose run got a late entry is swept once more first."""
    dropped = 0
    until_s = time.perf_counter() + PIECE_S
    for num in _expired(connection, now_ns=now_ns, limit=limit):
        if connection.execute("SELECT 1 FROM journal WHERE run = ? LIMIT 1", (num,)).fetchone():
            connection.execute("UPDATE tombstones SET unswept = 1 WHERE num = ?", (num,))
        else:
            dropped += connection.execute("DELETE FROM tombstones WHERE num = ?", (num,)).rowcount
        if time.perf_counter() > until_s:
            break
    return dropped
