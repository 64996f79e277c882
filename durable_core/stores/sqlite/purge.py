"""Purging a SQLite file: what is asked and written, each method the inside of one short transaction.

Invariant: whatever it is given, a method here stops after ``PIECE_S`` and leaves the rest for another transaction, so
that writers of this and other processes wait no longer for a purge than for a commit.
"""

import sqlite3
import time
from collections.abc import Sequence

from durable_core.model.tombstone import EndedRun, Swept
from durable_core.stores import sql

PIECE_S = 0.005
"""How long a transaction may work, in seconds, before it ends with what it has done. Its commit comes on top."""
ROWS = 32
"""Entries removed by one statement: with 1 MiB of payload each, already as much as fits into ``PIECE_S``."""

# ruff: noqa: S608 - every statement here is put together from our own column names; values are bound
ENDED = """
SELECT num, id, ended_at_ns, coalesce((SELECT max(seq) FROM journal WHERE run = runs.num), 0) FROM runs
WHERE (ended_at_ns, num) > (?, ?) AND ended_at_ns < ? {named}
    AND (owner IS NULL OR owner NOT IN (SELECT id FROM workers)) ORDER BY ended_at_ns, num LIMIT ?
"""
BURY = f"""
INSERT INTO tombstones ({sql.TOMBSTONE_COLUMNS})
SELECT num, id, name, version, status, phase, created_at_ns, ended_at_ns, ?, ? FROM runs
WHERE num = ? AND ended_at_ns = ? AND (owner IS NULL OR owner NOT IN (SELECT id FROM workers))
    AND coalesce((SELECT max(seq) FROM journal WHERE run = runs.num), 0) = ?
"""
UNSWEPT = "SELECT num FROM tombstones WHERE unswept = 1 LIMIT 1"
SWEEP = "DELETE FROM journal WHERE pos IN (SELECT pos FROM journal WHERE run = ? LIMIT ?)"
EXPIRED = "SELECT num FROM tombstones WHERE until_ns <= ? AND unswept = 0 ORDER BY until_ns LIMIT ?"


class Purger:
    """Questions and transactions' insides, on one connection: the writing one for whatever writes."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def ended(self, *, before_ns: int, name: str | None, after: EndedRun | None, limit: int) -> list[EndedRun]:
        """Runs that ended before that time, the longest ended first."""
        at_ns, num = (-1, -1) if after is None else (after.ended_at_ns, after.num)
        named = () if name is None else (name,)
        text = ENDED.format(named="AND name = ?" if named else "")
        return list(map(EndedRun._make, self._connection.execute(text, (at_ns, num, before_ns, *named, limit))))

    def bury(self, runs: Sequence[EndedRun], *, now_ns: int, until_ns: int | None) -> list[int]:
        """Put tombstones in the place of those that stand as they were found."""
        buried: list[int] = []
        until_s = time.perf_counter() + PIECE_S
        for num, _, ended_at_ns, last_seq in runs:
            if self._connection.execute(BURY, (now_ns, until_ns, num, ended_at_ns, last_seq)).rowcount:
                self._connection.execute("DELETE FROM runs WHERE num = ?", (num,))
                self._connection.execute("DELETE FROM signals WHERE run = ?", (num,))
                buried.append(num)
            if time.perf_counter() > until_s:
                break
        return buried

    def unswept(self) -> int | None:
        """A buried run whose journal is left to remove."""
        row = self._connection.execute(UNSWEPT).fetchone()
        return None if row is None else int(row[0])

    def sweep(self, *, limit: int) -> Swept:
        """Remove entries of buried runs, one run after the other."""
        removed = 0
        until_s = time.perf_counter() + PIECE_S
        while (num := self.unswept()) is not None and removed < limit and time.perf_counter() < until_s:
            rows = min(ROWS, limit - removed)
            gone = self._connection.execute(SWEEP, (num, rows)).rowcount
            removed += gone
            if gone < rows:
                self._connection.execute("UPDATE tombstones SET unswept = 0 WHERE num = ?", (num,))
        return Swept(removed, left=num is not None)

    def expired(self, *, now_ns: int, limit: int) -> list[int]:
        """Tombstones whose time has come."""
        return [int(num) for (num,) in self._connection.execute(EXPIRED, (now_ns, limit))]

    def forget(self, *, now_ns: int, limit: int) -> int:
        """Drop the tombstones whose time has come. One whose run was noted something late is swept once more first."""
        dropped = 0
        until_s = time.perf_counter() + PIECE_S
        for num in self.expired(now_ns=now_ns, limit=limit):
            if self._connection.execute("SELECT 1 FROM journal WHERE run = ? LIMIT 1", (num,)).fetchone():
                self._connection.execute("UPDATE tombstones SET unswept = 1 WHERE num = ?", (num,))
            else:
                dropped += self._connection.execute("DELETE FROM tombstones WHERE num = ?", (num,)).rowcount
            if time.perf_counter() > until_s:
                break
        return dropped
