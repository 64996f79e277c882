"""The parts of a store that SQLite and PostgreSQL share, because all they do is ask questions."""

from collections.abc import Awaitable, Callable, Collection, Sequence

import attrs

from durable_core.errors import StoreError
from durable_core.model.entry import Entry
from durable_core.model.run import RunQuery, RunRecord, RunRef, RunStatus
from durable_core.model.version import Announced, Offer, Tally, news
from durable_core.stores import sql
from durable_core.stores.questions import (
    NEWEST,
    NO_WORKER_SERVES,
    Database,
    Question,
    Questions,
    Reads,
    Row,
    number,
    only,
    select,
    where,
)

# ruff: noqa: S608 - every statement here is put together from our own column names; values are bound
NEXT_WAKE = """
SELECT wake_at_ns FROM {s}runs
WHERE ended_at_ns IS NULL AND owner IS NULL AND wake_at_ns > ? AND paused = 0
ORDER BY wake_at_ns LIMIT 1"""
UNBEGUN = """
SELECT min(created_at_ns) FROM {s}runs
WHERE ended_at_ns IS NULL AND owner IS NULL AND wake_at_ns = 0 AND paused = 0 AND status = 'pending'
    AND NOT EXISTS (SELECT 1 FROM {s}journal WHERE run = runs.num AND kind <> 'noted')"""
UNSERVED = f"SELECT num, id, name, version FROM {{s}}runs WHERE {NO_WORKER_SERVES} ORDER BY wake_at_ns, num"
TALLY = "SELECT name, version, status, phase, count(*) FROM {s}runs WHERE"
CURSORS = "SELECT worker, pos FROM {s}traced WHERE worker = ? OR worker NOT IN (SELECT id FROM {s}workers)"
# An update that changes nothing, because only a row that was written is returned.
START_CURSOR = """
INSERT INTO {s}traced (worker, pos) SELECT ?, coalesce(max(pos), 0) FROM {s}journal WHERE true
ON CONFLICT (worker) DO UPDATE SET pos = traced.pos RETURNING pos"""
TAKE_OVER = """
UPDATE {s}traced SET payer = ?
WHERE worker = ? AND (payer IS NULL OR payer = ? OR payer NOT IN (SELECT id FROM {s}workers)) RETURNING 1"""
ADVANCE = "UPDATE {s}traced SET pos = ? WHERE worker = ? RETURNING 1"
CLOSE_CURSOR = "DELETE FROM {s}traced WHERE worker = ? RETURNING 1"
# From the cursor on by position: a worker that exports reads what it has just written, which is at the journal's end.
READ = f"SELECT pos, {sql.ENTRY_COLUMNS} FROM {{s}}journal WHERE pos > ? AND worker = ? ORDER BY pos LIMIT ?"

LARGEST = 2**63
"""The first whole number that a column cannot hold."""


class AskedRuns:
    """``Runs`` of a database."""

    def __init__(self, database: Database, questions: Questions) -> None:
        self._ask = database.ask
        self._questions = questions

    async def find(self, ids: Sequence[str]) -> list[RunRecord]:
        """See ``Runs.find``."""
        return await self._ask(self._questions.find(ids))

    async def find_num(self, num: int) -> RunRecord | None:
        """See ``Runs.find_num``."""
        return next(iter(await self.find_nums([num])), None)

    async def find_nums(self, nums: Sequence[int]) -> list[RunRecord]:
        """See ``Runs.find_nums``."""
        return await self._ask(self._questions.find_nums([num for num in nums if -LARGEST <= num < LARGEST]))

    async def select(self, query: RunQuery) -> list[RunRecord]:
        """See ``Runs.select``."""
        return await self._ask(Question("list what there is", *select(query), self._questions.to_runs, reads=Reads.ALL))

    async def count(self, query: RunQuery) -> int:
        """See ``Runs.count``."""
        asked = where(attrs.evolve(query, after=None))
        text = f"SELECT count(*) FROM {asked.rows} WHERE {asked.condition}"
        return await self._ask(Question("count what there is", text, asked.values, number, reads=Reads.ALL))

    async def restarts(self, ids: Sequence[str]) -> dict[str, list[str]]:
        """See ``Runs.restarts``."""
        return await self._ask(self._questions.restarts(ids))

    async def next_wake_ns(self, *, after_ns: int) -> int | None:
        """See ``Runs.next_wake_ns``."""
        return await self._ask(Question("look for the next wake", NEXT_WAKE, (after_ns,), only))

    async def unbegun_since_ns(self) -> int | None:
        """See ``Runs.unbegun_since_ns``."""
        return await self._ask(Question("look for what is to begin", UNBEGUN, (), only, reads=Reads.ALL))

    async def last_seen_ns(self) -> int | None:
        """See ``Runs.last_seen_ns``."""
        return await self._ask(Question("read the last time", NEWEST, (), only))


Announce = Callable[[str, Sequence[Offer], int], Awaitable[list[Offer]]]
"""Writes what a worker serves, at a time, in one transaction; returns what that has replaced."""


class AskedVersions:
    """``Versions`` of a database; ``worker`` says whose store this is, and ``announce`` writes its offers."""

    def __init__(
        self, database: Database, questions: Questions, *, worker: Callable[[], str | None], announce: Announce
    ) -> None:
        self._ask = database.ask
        self._questions = questions
        self._worker = worker
        self._announce = announce

    async def announce(self, offers: Collection[Offer], *, now_ns: int) -> list[Offer]:
        """See ``Versions.announce``. Writes nothing if all of it is recorded already."""
        known, worker = await self.announced(), self._worker()
        if worker is None:
            raise StoreError("the store was opened without a worker, so nothing is served", "Open it with one")
        new = news(known, worker, offers)
        return await self._announce(worker, new, now_ns) if new else []

    async def announced(self) -> list[Announced]:
        """See ``Versions.announced``."""
        return await self._ask(self._questions.announced())

    async def unserved(self, *, now_ns: int) -> list[RunRef]:
        """See ``Versions.unserved``."""

        def read(rows: Sequence[Row]) -> list[RunRef]:
            return [RunRef(num, self._questions.plain(id_), name, version) for num, id_, name, version in rows]

        doing = "look for what no worker serves"
        return await self._ask(Question(doing, UNSERVED, (now_ns,), read, reads=Reads.MANY))

    async def tally(self, name: str | None = None) -> list[Tally]:
        """See ``Versions.tally``."""

        def read(rows: Sequence[Row]) -> list[Tally]:
            return sorted(Tally(name, version, RunStatus(status), *rest) for name, version, status, *rest in rows)

        text = f"{TALLY} {'1 = 1' if name is None else 'name = ?'} GROUP BY 1, 2, 3, 4"
        return await self._ask(
            Question("count what there is", text, () if name is None else (name,), read, reads=Reads.ALL)
        )


class AskedSpans:
    """``SpanCursors`` of a database."""

    def __init__(self, database: Database) -> None:
        self._ask = database.ask

    async def start(self, worker: str) -> int:
        """See ``SpanCursors.start``."""
        return await self._ask(Question("open an export cursor", START_CURSOR, (worker,), number, writes=True))

    async def cursors(self, worker: str) -> dict[str, int]:
        """See ``SpanCursors.cursors``."""

        def read(rows: Sequence[Row]) -> dict[str, int]:
            return {str(name): int(pos) for name, pos in rows}

        return await self._ask(Question("read export cursors", CURSORS, (worker,), read))

    async def take_over(self, dead: str, *, worker: str) -> bool:
        """See ``SpanCursors.take_over``."""
        values = (worker, dead, worker)
        return await self._ask(Question("take over an export cursor", TAKE_OVER, values, bool, writes=True))

    async def advance(self, worker: str, pos: int | None) -> None:
        """See ``SpanCursors.advance``."""
        text, values = (CLOSE_CURSOR, (worker,)) if pos is None else (ADVANCE, (pos, worker))
        await self._ask(Question("move an export cursor", text, values, bool, writes=True))

    async def read(self, worker: str, *, after: int, limit: int) -> list[tuple[int, Entry]]:
        """See ``SpanCursors.read``."""

        def read(rows: Sequence[Row]) -> list[tuple[int, Entry]]:
            return [(int(pos), Entry._make(entry)) for pos, *entry in rows]

        return await self._ask(Question("read entries to export", READ, (after, worker, limit), read, reads=Reads.ALL))
