"""What is written to a SQLite file: each method is the inside of one transaction, which its caller begins and ends.

Invariant: an unowned open run for which a signal waits is due at once. Every method that makes a run unowned, or
leaves a signal, keeps it so; hence no signal is lost between a worker that lets go of a run and the next one.
"""

import os
import platform
import sqlite3
from collections.abc import Collection, Iterable, Sequence

from durable_core.errors import StoreError
from durable_core.model.run import NewRun, RunRecord
from durable_core.model.version import Offer, replaced
from durable_core.ports import Batch
from durable_core.stores import sql
from durable_core.stores.sqlite import binding
from durable_core.stores.sqlite.reader import Reader, chunks, marks

ROW_CHUNKS = (64, 16, 4, 1)
"""Rows of one INSERT. Measured for journal rows: 2.8 µs a row with 64, 4.0 with executemany."""
NUMBERS = 1 << 20
"""How many run numbers are reserved at a time."""

_INSERT_RUNS = {n: sql.INSERT_RUNS + ", ".join([sql.RUN_MARKS] * n) for n in ROW_CHUNKS}
_INSERT_ENTRIES = {n: sql.INSERT_ENTRIES + ", ".join([sql.ENTRY_MARKS] * n) for n in ROW_CHUNKS}
# A stuck run that is claimed because a retry beside what it is stuck on fell due is stuck all the same.
_CLAIM = """
UPDATE runs SET owner = ?, status = CASE WHEN status = 'stuck' THEN status ELSE 'running' END,
    wake_at_ns = CASE WHEN status = 'stuck' THEN wake_at_ns END
WHERE num IN ({marks})
"""
_ANY_SIGNAL = "SELECT 1 FROM signals LIMIT 1"
_SIGNALLED_OF = "SELECT num, run FROM signals WHERE run IN ({marks})"
# An owner that lives may still have an attempt of it under way; else whoever claims it drives it.
_REOPEN = """
UPDATE runs SET status = 'pending', wake_at_ns = CASE WHEN owner IN (SELECT id FROM workers) THEN NULL ELSE 0 END,
    owner = CASE WHEN owner IN (SELECT id FROM workers) THEN owner END, paused = 0, output = NULL, error = NULL,
    reason = NULL, updated_at_ns = ?, ended_at_ns = NULL
WHERE num = ?
"""
# A stuck run that somebody has signalled is no longer stuck: it waits for a worker to take the signal up.
_SIGNALLED = """
UPDATE runs SET wake_at_ns = 0, status = CASE WHEN status = 'stuck' THEN 'pending' ELSE status END WHERE num = ?
"""
_WAKE_SIGNALLED = f"{_SIGNALLED} AND EXISTS (SELECT 1 FROM signals WHERE run = runs.num)"  # noqa: S608 - our own text
# A stuck run waits for a person, so it stays as it is, unless that person's signal waits already.
_RELEASE = """
UPDATE runs SET owner = NULL,
    wake_at_ns = CASE
        WHEN status <> 'stuck' OR EXISTS (SELECT 1 FROM signals WHERE run = runs.num) THEN 0 ELSE wake_at_ns
    END
WHERE owner = ? AND ended_at_ns IS NULL
"""
_OWE = "INSERT OR IGNORE INTO traced (worker, pos) SELECT ?, coalesce(max(pos), 0) FROM journal"
_ADOPT = """
UPDATE traced SET payer = ?
WHERE worker = ? AND (payer IS NULL OR payer = ? OR payer NOT IN (SELECT id FROM workers))
"""
_SERVE = """
INSERT INTO served (name, version, fingerprint, at_ns) VALUES (?, ?, ?, ?)
ON CONFLICT (name, version) DO UPDATE SET fingerprint = excluded.fingerprint, at_ns = excluded.at_ns
WHERE excluded.fingerprint NOT IN ('', fingerprint)
"""
_PURGED = "SELECT id FROM tombstones WHERE id IN ({marks})"
_NOW_NS = "SELECT CAST(strftime('%s', 'now') AS INTEGER) * 1000000000"


class Writer:
    """The transactions' insides, on the connection that does all of this store's writes."""

    def __init__(self, connection: sqlite3.Connection, path: str) -> None:
        self._connection = connection
        self._path = path
        self._reader = Reader(connection)

    def write(self, batch: Batch) -> frozenset[int]:
        """Write the rows of ``batch``; return the numbers of the runs of which something was left out."""
        batch, overtaken = batch.yielding(self._signalled(batch))
        return self._write(batch) | overtaken

    def _signalled(self, batch: Batch) -> set[int]:
        """The runs that decide something with ``batch`` and for which a signal waits that it does not consume."""
        if self._connection.execute(_ANY_SIGNAL).fetchone() is None:
            return set()
        found: set[int] = set()
        for some in chunks(sorted(batch.deciding())):
            for num, run in self._connection.execute(_SIGNALLED_OF.format(marks=marks(len(some))), some):
                if num not in batch.consumed:
                    found.add(run)
        return found

    def _write(self, batch: Batch) -> frozenset[int]:
        refused = self._purged(batch.starts) if batch.starts else frozenset[int]()
        if refused:
            batch = batch.without(refused)
        try:
            self._insert_runs(batch.starts)
        except sqlite3.IntegrityError:
            # Rare, so nothing is looked up beforehand. Statements before the failed one have left rows: away with them.
            self._connection.execute("ROLLBACK")
            self._connection.execute("BEGIN IMMEDIATE")
            taken = self._taken(batch.starts)
            if not taken:
                raise
            refused |= taken
            batch = batch.without(taken)
            self._insert_runs(batch.starts)
        for some in chunks(batch.entries, ROW_CHUNKS):
            self._connection.execute(_INSERT_ENTRIES[len(some)], binding.entries(some))
        if batch.consumed:
            self._connection.executemany("DELETE FROM signals WHERE num = ?", [(num,) for num in batch.consumed])
        if batch.updates:
            self._update(batch)
        return refused

    def _insert_runs(self, starts: Sequence[NewRun]) -> None:
        for some in chunks(starts, ROW_CHUNKS):
            self._connection.execute(_INSERT_RUNS[len(some)], binding.runs(some))

    def _purged(self, starts: Sequence[NewRun]) -> frozenset[int]:
        """The numbers of those whose id has a tombstone. Two tables cannot share one unique index, so it is asked."""
        ids: set[str] = set()
        for some in chunks([start.id for start in starts]):
            ids.update(id_ for (id_,) in self._connection.execute(_PURGED.format(marks=marks(len(some))), some))
        return frozenset(start.num for start in starts if start.id in ids) if ids else frozenset()

    def _taken(self, starts: Sequence[NewRun]) -> frozenset[int]:
        """The numbers of those whose id the store holds already, or an earlier one of them has."""
        ids = {run.id for run in self._reader.find([start.id for start in starts])}
        refused: set[int] = set()
        for start in starts:
            if start.id in ids:
                refused.add(start.num)
            ids.add(start.id)
        return frozenset(refused)

    def _update(self, batch: Batch) -> None:
        updates = batch.updates
        changed = self._connection.executemany(sql.UPDATE_RUN, map(binding.update, updates.values())).rowcount
        if changed != len(updates):
            known = "SELECT 1 FROM runs WHERE num = ?"
            unknown = [num for num in updates if self._connection.execute(known, (num,)).fetchone() is None]
            raise StoreError(
                f"a batch of {len(batch)} rows updates runs that {self._path} does not hold (numbers {unknown}); "
                "nothing of it was written. Report it as a bug"
            )
        if self._connection.execute(_ANY_SIGNAL).fetchone() is not None:
            let_go = [(num,) for num, row in updates.items() if row.owner is None and row.ended_at_ns is None]
            self._connection.executemany(_WAKE_SIGNALLED, let_go)

    def claim(self, worker: str, served: Collection[tuple[str, int]], *, now_ns: int, limit: int) -> list[RunRecord]:
        """Make up to ``limit`` due runs ``worker``'s; return them, the longest due first."""
        due = self._reader.due(served, now_ns=now_ns, limit=limit)
        for some in chunks([run.num for run in due]):
            self._connection.execute(_CLAIM.format(marks=marks(len(some))), (worker, *some))
        return [run.claimed_by(worker) for run in due]

    def release(self, workers: Iterable[str]) -> int:
        """Free the open runs of ``workers`` and forget them; return how many runs that are."""
        freed = 0
        for worker in workers:
            freed += self._connection.execute(_RELEASE, (worker,)).rowcount
            self.forget(worker)
        return freed

    def announce(self, worker: str) -> None:
        """Note that ``worker`` lives in this process."""
        (now_ns,) = self._connection.execute(_NOW_NS).fetchone()  # the database's clock, for people to read
        self._connection.execute(sql.INSERT_WORKER, (worker, os.getpid(), platform.node(), now_ns))

    def announce_offers(self, worker: str, offers: Sequence[Offer], *, now_ns: int) -> list[Offer]:
        """Note what ``worker`` serves; return the offers of another fingerprint that these have replaced."""
        known = self._reader.announced()
        self._connection.executemany(_SERVE, [(*offer, now_ns) for offer in offers])
        self._connection.executemany(
            "INSERT OR IGNORE INTO serving (name, version, worker) VALUES (?, ?, ?)",
            [(offer.name, offer.version, worker) for offer in offers],
        )
        return replaced(known, offers)

    def forget(self, worker: str) -> None:
        """Note that ``worker`` lives no more."""
        self._connection.execute("DELETE FROM workers WHERE id = ?", (worker,))
        self._connection.execute("DELETE FROM serving WHERE worker = ?", (worker,))

    def signal(self, run: int, name: str, payload: bytes, *, now_ns: int, ended: bool) -> bool:
        """Leave a signal, and make the run due where nobody owns it; False where it has ended."""
        row = self._connection.execute("SELECT owner, ended_at_ns FROM runs WHERE num = ?", (run,)).fetchone()
        if row is None and self._connection.execute("SELECT 1 FROM tombstones WHERE num = ?", (run,)).fetchone():
            return False
        if row is None:
            raise StoreError(
                f"there is no run of number {run} in {self._path}, so the signal {name!r} was not stored; "
                "look the run up by its id first"
            )
        if row[1] is not None and not ended:
            return False
        self._connection.execute(sql.INSERT_SIGNAL, (run, name, payload, now_ns))
        if row[1] is not None:
            self._connection.execute(_REOPEN, (now_ns, run))
        elif row[0] is None:
            self._connection.execute(_SIGNALLED, (run,))
        return True

    def owe(self, worker: str) -> int:
        """Let ``worker`` owe the spans of what it writes from now on; the position after which that begins."""
        self._connection.execute(_OWE, (worker,))
        (pos,) = self._connection.execute("SELECT pos FROM traced WHERE worker = ?", (worker,)).fetchone()
        return int(pos)

    def adopt(self, debtor: str, *, worker: str) -> bool:
        """Let ``worker`` alone pay for ``debtor``; False where another living one does."""
        return self._connection.execute(_ADOPT, (worker, debtor, worker)).rowcount > 0

    def pay(self, worker: str, pos: int | None) -> None:
        """Note up to where the entries of ``worker`` have been exported; None: it owes no more."""
        if pos is None:
            self._connection.execute("DELETE FROM traced WHERE worker = ?", (worker,))
        else:
            self._connection.execute("UPDATE traced SET pos = ? WHERE worker = ?", (pos, worker))

    def reserve_numbers(self) -> range:
        """The next ``NUMBERS`` run numbers; they are this store's once the transaction is committed."""
        text = "UPDATE meta SET value = value + ? WHERE key = 'next_num' RETURNING value"
        (end,) = self._connection.execute(text, (NUMBERS,)).fetchone()
        return range(int(end) - NUMBERS, int(end))

    def secret(self) -> bytes:
        """The random bytes made with the store."""
        (value,) = self._connection.execute("SELECT value FROM meta WHERE key = 'secret'").fetchone()
        return bytes(value)
