"""What is asked of a SQLite file without changing it: each question is one or a few indexed queries.

Synchronous, and for one thread at a time: ``SqliteStore`` decides on which thread a question is asked.
"""

import sqlite3
from collections.abc import Collection, Iterator, Sequence
from itertools import groupby
from operator import itemgetter
from typing import Any, NamedTuple, TypeVar

import attrs

from durable_core.model.entry import Entry
from durable_core.model.run import OPEN, RunQuery, RunRecord, RunRef, RunStatus
from durable_core.model.tombstone import Tombstone
from durable_core.model.version import Announced, Tally
from durable_core.ports import Signal
from durable_core.stores import sql
from durable_core.stores.sqlite.purge import Purger

T = TypeVar("T")

_FIELDS = [field.name for field in attrs.fields(RunRecord)]
_STATUS, _PAUSED = _FIELDS.index("status"), _FIELDS.index("paused")

CHUNKS = (256, 16, 1)
"""Lengths of an IN list: few, so that few statements are prepared."""

# ruff: noqa: S608 - every statement here is put together from our own column names and marks; values are bound
LOAD_ONE = f"SELECT {sql.ENTRY_COLUMNS} FROM journal WHERE run = ? ORDER BY seq"
LOAD = f"SELECT {sql.ENTRY_COLUMNS} FROM journal WHERE run IN ({{marks}}) ORDER BY run, seq"
FIND = f"SELECT {sql.RUN_COLUMNS} FROM runs WHERE id IN ({{marks}})"
FIND_NUM = f"SELECT {sql.RUN_COLUMNS} FROM runs WHERE num = ?"
FIND_NUMS = f"SELECT {sql.RUN_COLUMNS} FROM runs WHERE num IN ({{marks}})"
OWED = "SELECT worker, pos FROM traced WHERE worker = ? OR worker NOT IN (SELECT id FROM workers)"
# From the cursor on by position: a worker that exports reads what it has just written, which is at the journal's end.
WRITTEN = f"SELECT pos, {sql.ENTRY_COLUMNS} FROM journal WHERE pos > ? AND worker = ? ORDER BY pos LIMIT ?"
WAITING = "SELECT num, run FROM signals LIMIT ?"
WAITING_FOR = "SELECT num FROM signals WHERE run IN ({marks})"
NEWEST = """
SELECT max(at_ns) FROM (
    SELECT max(updated_at_ns) AS at_ns FROM (SELECT updated_at_ns FROM runs ORDER BY num DESC LIMIT 1)
    UNION ALL SELECT at_ns FROM (SELECT at_ns FROM journal ORDER BY pos DESC LIMIT 1)
)
"""
"""The last time that was written: of the newest run or entry. Two looks at the ends of indexes."""
SIGNALS = "SELECT num, run, name, payload, at_ns FROM signals WHERE num IN ({marks})"
DUE = f"""
SELECT {sql.RUN_COLUMNS} FROM runs
WHERE ended_at_ns IS NULL AND owner IS NULL AND wake_at_ns <= ?
    AND (paused = 0 OR EXISTS (SELECT 1 FROM signals WHERE run = runs.num)) AND (name, version) IN (VALUES {{marks}})
ORDER BY wake_at_ns, num LIMIT ?
"""
NEXT_WAKE = """
SELECT wake_at_ns FROM runs
WHERE ended_at_ns IS NULL AND owner IS NULL AND wake_at_ns > ? AND paused = 0
ORDER BY wake_at_ns LIMIT 1
"""
UNBEGUN = """
SELECT created_at_ns FROM runs
WHERE ended_at_ns IS NULL AND owner IS NULL AND wake_at_ns = 0 AND paused = 0 AND status = 'pending'
    AND NOT EXISTS (SELECT 1 FROM journal WHERE run = runs.num)
ORDER BY num LIMIT 1
"""
UNSERVED = """
ended_at_ns IS NULL AND owner IS NULL AND wake_at_ns <= ?
    AND (paused = 0 OR EXISTS (SELECT 1 FROM signals WHERE run = runs.num))
    AND NOT EXISTS (SELECT 1 FROM serving WHERE serving.name = runs.name AND serving.version = runs.version)
"""
TALLY = (
    "SELECT name, version, status, phase, count(*) FROM runs WHERE {condition} GROUP BY 1, 2, 3, 4 ORDER BY 1, 2, 3, 4"
)
ANNOUNCED = """
SELECT name, version, fingerprint, at_ns, worker FROM served LEFT JOIN serving USING (name, version)
ORDER BY name, version, worker
"""
IN_VAIN = f"SELECT num, id, name, version FROM runs WHERE {UNSERVED} ORDER BY wake_at_ns, num"
TOMBSTONES = f"SELECT {sql.TOMBSTONE_COLUMNS} FROM tombstones WHERE id IN ({{marks}})"
OTHER_WORKERS = "SELECT id FROM workers WHERE id IS NOT ?"


class Where(NamedTuple):
    """A condition and the values it binds."""

    text: str
    values: list[object]


def chunks(values: Sequence[T], lengths: Sequence[int] = CHUNKS) -> Iterator[Sequence[T]]:
    """``values`` in pieces of the given lengths, the longest first."""
    start = 0
    for length in lengths:
        while len(values) - start >= length:
            yield values[start : start + length]
            start += length


def marks(count: int) -> str:
    """``count`` question marks, for an IN list."""
    return ", ".join("?" * count)


def to_run(row: Sequence[object]) -> RunRecord:
    """The record of a row of ``sql.RUN_COLUMNS``."""
    values: list[Any] = list(row)  # SQLite's values have no types; the table's columns follow the record's fields
    values[_STATUS] = RunStatus(values[_STATUS])
    values[_PAUSED] = bool(values[_PAUSED])
    return RunRecord(*values)


def where(query: RunQuery) -> Where:
    """What ``query`` asks, as a condition on ``runs``."""
    parts: list[str] = ["1"]
    values: list[object] = []
    if query.statuses is not None:
        parts.append(f"status IN ({marks(len(query.statuses))})")
        values.extend(sorted(query.statuses))
        if query.statuses <= OPEN:
            parts.append("ended_at_ns IS NULL")  # nothing new, but it lets the index of open runs serve
    if query.phases is not None:
        parts.append(f"phase IN ({marks(len(query.phases))})")
        values.extend(sorted(query.phases))
    if query.attention:
        asked = "SELECT num FROM runs WHERE reason IS NOT NULL AND ended_at_ns IS NULL"
        if query.at_ns is not None:
            asked = f"{asked} UNION ALL SELECT num FROM runs WHERE {UNSERVED}"
            values.append(query.at_ns)
        parts.append(f"num IN ({asked})")
    for text, value in (
        ("name = ?", query.name),
        ("version = ?", query.version),
        ("created_at_ns >= ?", query.since_ns),
        ("ended_at_ns < ?", query.ended_before_ns),
        ("num < ?", query.before_num),
        ("parent = ?", query.parent),
    ):
        if value is not None:
            parts.append(text)
            values.append(value)
    return Where(" AND ".join(parts), values)


class Reader:
    """The questions, on one connection."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self.purger = Purger(connection)

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def load(self, nums: Sequence[int]) -> dict[int, list[Entry]]:
        """The journals of ``nums``, each by ``seq``."""
        if len(nums) == 1:
            return {nums[0]: list(map(Entry._make, self._connection.execute(LOAD_ONE, nums)))}
        journals: dict[int, list[Entry]] = {num: [] for num in nums}
        for some in chunks(tuple(journals)):
            for row in self._connection.execute(LOAD.format(marks=marks(len(some))), some):
                journals[row[0]].append(Entry._make(row))
        return journals

    def announced(self) -> list[Announced]:
        """What any worker has announced, and who serves it, in order."""
        rows = self._connection.execute(ANNOUNCED)
        return [
            Announced(name, version, fingerprint, at_ns, tuple(worker for *_, worker in some if worker is not None))
            for (name, version, fingerprint, at_ns), some in groupby(rows, key=itemgetter(0, 1, 2, 3))
        ]

    def unserved(self, *, now_ns: int) -> list[RunRef]:
        """The runs that wait in vain, the longest due first."""
        return list(map(RunRef._make, self._connection.execute(IN_VAIN, (now_ns,))))

    def tally(self, name: str | None) -> list[Tally]:
        """How many runs stand how, by version."""
        text = TALLY.format(condition="1" if name is None else "name = ?")
        rows = self._connection.execute(text, () if name is None else (name,))
        return [Tally(name, version, RunStatus(status), phase, runs) for name, version, status, phase, runs in rows]

    def find(self, ids: Sequence[str]) -> list[RunRecord]:
        """The runs of ``ids`` that exist."""
        found: list[RunRecord] = []
        for some in chunks(tuple(dict.fromkeys(ids))):
            found += map(to_run, self._connection.execute(FIND.format(marks=marks(len(some))), some))
        return found

    def tombstones(self, ids: Sequence[str]) -> list[Tombstone]:
        """The tombstones of ``ids`` that exist."""
        found: list[Tombstone] = []
        for some in chunks(tuple(dict.fromkeys(ids))):
            found += map(Tombstone._make, self._connection.execute(TOMBSTONES.format(marks=marks(len(some))), some))
        return found

    def last_seen_ns(self) -> int | None:
        """The last time that was written."""
        found: int | None = self._connection.execute(NEWEST).fetchone()[0]
        return found

    def find_num(self, num: int) -> RunRecord | None:
        """The run of this number."""
        if not -(2**63) <= num < 2**63:  # no number of ours, and none that SQLite could bind
            return None
        row = self._connection.execute(FIND_NUM, (num,)).fetchone()
        return None if row is None else to_run(row)

    def find_nums(self, nums: Sequence[int]) -> list[RunRecord]:
        """The runs of ``nums`` that exist."""
        found: list[RunRecord] = []
        for some in chunks(tuple(dict.fromkeys(nums))):
            found += map(to_run, self._connection.execute(FIND_NUMS.format(marks=marks(len(some))), some))
        return found

    def owed(self, worker: str) -> dict[str, int]:
        """How far the entries of ``worker``, and of debtors that live no more, have been exported."""
        return {str(name): int(pos) for name, pos in self._connection.execute(OWED, (worker,))}

    def written(self, worker: str, *, after: int, limit: int) -> list[tuple[int, Entry]]:
        """The first entries of ``worker`` after a position, each with its own."""
        rows = self._connection.execute(WRITTEN, (after, worker, limit))
        return [(row[0], Entry._make(row[1:])) for row in rows]

    def select(self, query: RunQuery) -> list[RunRecord]:
        """The runs that ``query`` describes, the largest number first."""
        condition = where(query)
        limit = -1 if query.limit is None else query.limit
        text = f"SELECT {sql.RUN_COLUMNS} FROM runs WHERE {condition.text} ORDER BY num DESC LIMIT ?"
        return list(map(to_run, self._connection.execute(text, (*condition.values, limit))))

    def count(self, query: RunQuery) -> int:
        """How many runs ``query`` describes."""
        condition = where(query)
        text = f"SELECT count(*) FROM runs WHERE {condition.text}"
        (number,) = self._connection.execute(text, condition.values).fetchone()
        return int(number)

    def signals(self, runs: Collection[int]) -> list[Signal]:
        """The signals that wait for ``runs``, the oldest first."""
        # A worker asks for all its runs, which may be thousands, while few signals wait; or the other way round.
        asked = frozenset(runs)
        waiting = self._connection.execute(WAITING, (len(asked) + 1,)).fetchall()
        if len(waiting) <= len(asked):
            nums = [int(num) for num, run in waiting if run in asked]
        else:
            nums = [
                int(num)
                for some in chunks(tuple(asked))
                for (num,) in self._connection.execute(WAITING_FOR.format(marks=marks(len(some))), some)
            ]
        found: list[Signal] = []
        for some in chunks(nums):
            rows = self._connection.execute(SIGNALS.format(marks=marks(len(some))), some)
            found += (Signal(*row) for row in rows)
        found.sort(key=lambda signal: signal.num)
        return found

    def due(self, served: Collection[tuple[str, int]], *, now_ns: int, limit: int) -> list[RunRecord]:
        """Up to ``limit`` runs that a worker serving ``served`` may claim, the longest due first."""
        values = [value for pair in sorted(served) for value in pair]
        text = DUE.format(marks=", ".join(["(?, ?)"] * len(served)))
        return list(map(to_run, self._connection.execute(text, (now_ns, *values, limit))))

    def next_wake_ns(self, *, after_ns: int) -> int | None:
        """When the next run after that time could be claimed."""
        row = self._connection.execute(NEXT_WAKE, (after_ns,)).fetchone()
        return None if row is None else int(row[0])

    def unbegun_since_ns(self) -> int | None:
        """When the oldest run was made that nobody has begun."""
        row = self._connection.execute(UNBEGUN).fetchone()
        return None if row is None else int(row[0])

    def other_workers(self, worker: str | None) -> list[str]:
        """The announced workers but ``worker``."""
        return [str(row[0]) for row in self._connection.execute(OTHER_WORKERS, (worker,))]

    def data_version(self) -> int:
        """A number that changes when another connection has committed."""
        (version,) = self._connection.execute("PRAGMA data_version").fetchone()
        return int(version)
