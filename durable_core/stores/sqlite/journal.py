"""Commits to a SQLite file: what a batch writes, and the numbers of new runs."""

import sqlite3
from collections.abc import Sequence

from durable_core.errors import StoreError
from durable_core.model.entry import Entry
from durable_core.model.run import NewRun
from durable_core.ports import Batch
from durable_core.stores import sql
from durable_core.stores.numbers import RunNumbers
from durable_core.stores.sqlite import binding
from durable_core.stores.sqlite.database import SqliteDatabase
from durable_core.stores.sqlite.dialect import QUESTIONS, chunks, marks, rows_of
from durable_core.stores.sqlite.file import SqliteFile
from durable_core.stores.sqlite.signals import ANY_SIGNAL, SIGNALLED

ROW_CHUNKS = (64, 16, 4, 1)
"""Rows of one INSERT. Measured for journal rows: 2.8 µs a row with 64, 4.0 with executemany."""

_INSERT_RUNS = {n: sql.INSERT_RUNS + ", ".join([sql.RUN_MARKS] * n) for n in ROW_CHUNKS}
_INSERT_ENTRIES = {n: sql.INSERT_ENTRIES + ", ".join([sql.ENTRY_MARKS] * n) for n in ROW_CHUNKS}
# ruff: noqa: S608 - every statement here is put together from our own column names; values are bound
_SIGNALLED_OF = "SELECT num, run FROM signals WHERE run IN ({marks})"
WAKE_SIGNALLED = f"{SIGNALLED} AND EXISTS (SELECT 1 FROM signals WHERE run = runs.num)"
PURGED = "SELECT id FROM tombstones WHERE id IN ({marks})"


class SqliteJournal:
    """``Journal`` of a SQLite file."""

    def __init__(self, database: SqliteDatabase, numbers: RunNumbers) -> None:
        self._database = database
        self._numbers = numbers

    def next_num(self) -> int:
        """A run number that is this store's alone. Reserved ahead, by blocks; commits reserve the next block."""
        return self._numbers.take()

    async def commit(self, batch: Batch) -> frozenset[int]:
        """Write ``batch``; see ``Journal.commit``. With durability ``power`` it outlasts a power loss on return."""
        rows = len(batch)
        if not rows:
            return frozenset()
        low = self._numbers.low

        def work(file: SqliteFile) -> tuple[frozenset[int], range]:
            return write(file.connection, batch, path=file.path), file.reserve_numbers() if low else range(0)

        refused, numbers = await self._database.transact(f"write a batch of {rows} rows", work, rows)
        if low:
            self._numbers.add(numbers)
        return refused

    async def load(self, nums: Sequence[int]) -> dict[int, list[Entry]]:
        """See ``Journal.load``."""
        return await self._database.ask(QUESTIONS.load(nums))


def write(connection: sqlite3.Connection, batch: Batch, *, path: str) -> frozenset[int]:
    """Within a transaction: write ``batch``; return the numbers of the runs of which something was left out."""
    batch, overtaken = batch.yielding(_signalled(connection, batch))
    return _write(connection, batch, path=path) | overtaken


def _signalled(connection: sqlite3.Connection, batch: Batch) -> set[int]:
    """The runs that decide something with ``batch`` and for which a signal waits that it does not consume."""
    if connection.execute(ANY_SIGNAL).fetchone() is None:
        return set()
    found: set[int] = set()
    for some in chunks(sorted(batch.deciding())):
        for num, run in connection.execute(_SIGNALLED_OF.format(marks=marks(len(some))), some):
            if num not in batch.consumed:
                found.add(run)
    return found


def _write(connection: sqlite3.Connection, batch: Batch, *, path: str) -> frozenset[int]:
    refused = _purged(connection, batch.starts) if batch.starts else frozenset[int]()
    if refused:
        batch = batch.without(refused)
    try:
        _insert_runs(connection, batch.starts)
    except sqlite3.IntegrityError:
        # Rare, so nothing is looked up beforehand. Statements before the failed one have left rows: away with them.
        connection.execute("ROLLBACK")
        connection.execute("BEGIN IMMEDIATE")
        taken = _taken(connection, batch.starts)
        if not taken:
            raise
        refused |= taken
        batch = batch.without(taken)
        _insert_runs(connection, batch.starts)
    for some in chunks(batch.entries, ROW_CHUNKS):
        connection.execute(_INSERT_ENTRIES[len(some)], binding.entries(some))
    if batch.consumed:
        connection.executemany("DELETE FROM signals WHERE num = ?", [(num,) for num in batch.consumed])
    if batch.updates:
        _update(connection, batch, path=path)
    return refused


def _insert_runs(connection: sqlite3.Connection, starts: Sequence[NewRun]) -> None:
    for some in chunks(starts, ROW_CHUNKS):
        connection.execute(_INSERT_RUNS[len(some)], binding.runs(some))


def _purged(connection: sqlite3.Connection, starts: Sequence[NewRun]) -> frozenset[int]:
    """The numbers of the starts whose id has a tombstone. Two tables cannot share a unique index, so it is asked."""
    ids: set[str] = set()
    for some in chunks([start.id for start in starts]):
        ids.update(id_ for (id_,) in connection.execute(PURGED.format(marks=marks(len(some))), some))
    return frozenset(start.num for start in starts if start.id in ids) if ids else frozenset()


def _taken(connection: sqlite3.Connection, starts: Sequence[NewRun]) -> frozenset[int]:
    """The numbers of the starts whose id the store holds already, or an earlier one of them has."""
    question = QUESTIONS.find([start.id for start in starts])
    ids = {run.id for run in question.read(rows_of(connection, question))}
    refused: set[int] = set()
    for start in starts:
        if start.id in ids:
            refused.add(start.num)
        ids.add(start.id)
    return frozenset(refused)


def _update(connection: sqlite3.Connection, batch: Batch, *, path: str) -> None:
    updates = batch.updates
    changed = connection.executemany(sql.UPDATE_RUN, map(binding.update, updates.values())).rowcount
    if changed != len(updates):
        known = "SELECT 1 FROM runs WHERE num = ?"
        unknown = [num for num in updates if connection.execute(known, (num,)).fetchone() is None]
        raise StoreError(
            f"a batch of {len(batch)} rows updates rows that {path} does not hold (numbers {unknown}); nothing of "
            "it was written",
            "Report it as a bug",
        )
    if connection.execute(ANY_SIGNAL).fetchone() is not None:
        let_go = [(num,) for num, row in updates.items() if row.owner is None and row.ended_at_ns is None]
        connection.executemany(WAKE_SIGNALLED, let_go)
