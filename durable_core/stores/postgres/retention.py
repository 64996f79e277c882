"""Purges of a schema of PostgreSQL: each call is one short transaction.

Invariants: rows that another transaction holds are left to the next piece, so that only starts wait for a purge, for as
long as a piece takes. At every moment an id belongs to a run or to a tombstone: no start slips in between.
"""

from collections.abc import Sequence

from durable_core.model.tombstone import EndedRun, Swept, Tombstone
from durable_core.stores.postgres.connection import Connection, in_transaction
from durable_core.stores.postgres.database import QUESTIONS, PostgresDatabase

MOST = 100
"""Runs purged in one transaction, which takes some milliseconds; and tombstones that are looked at in one."""
WAIT = "250ms"
"""How long a piece waits for starts under way; other starts wait behind it meanwhile. It is tried again."""

STATEMENTS = {
    # A start looks at the tombstones as they were when its statement began, and may then wait at the unique index for
    # the run to be gone: it would begin a second one. With this lock a start either is over before a run is purged, or
    # begins to look after that: the locks of a statement are taken before it sees anything.
    "alone": f"SET LOCAL lock_timeout = '{WAIT}'; LOCK TABLE {{s}}tombstones IN ACCESS EXCLUSIVE MODE",
    "purge": """
WITH found AS (
    SELECT r.* FROM unnest($1::int8[], $2::int8[], $3::int8[]) AS f (num, at_ns, last)
    JOIN {s}runs AS r ON r.num = f.num
    WHERE NOT EXISTS (SELECT 1 FROM {s}workers AS w WHERE w.id = r.owner)
        AND r.ended_at_ns = f.at_ns AND coalesce((SELECT max(seq) FROM {s}journal WHERE run = r.num), 0) = f.last
    FOR UPDATE OF r SKIP LOCKED
), stones AS (
    INSERT INTO {s}tombstones
        (num, id, name, version, status, phase, created_at_ns, ended_at_ns, purged_at_ns, until_ns)
    SELECT num, id, name, version, status, phase, created_at_ns, ended_at_ns, $4, $5 FROM found
), gone AS (
    DELETE FROM {s}runs WHERE num IN (SELECT num FROM found)
), unsignalled AS (
    DELETE FROM {s}signals WHERE run IN (SELECT num FROM found)
)
SELECT num, pg_notify($6, $7) FROM found""",
    "unswept": "SELECT num FROM {s}tombstones WHERE unswept = 1 ORDER BY num LIMIT $1 FOR UPDATE SKIP LOCKED",
    "sweep": """
WITH gone AS (
    DELETE FROM {s}journal WHERE pos IN (
        SELECT j.pos FROM unnest($1::int8[]) AS t (num) JOIN {s}journal AS j ON j.run = t.num LIMIT $2
    ) RETURNING 1
)
SELECT count(*) FROM gone""",
    "swept": """
UPDATE {s}tombstones AS t SET unswept = 0
WHERE num = ANY($1::int8[]) AND NOT EXISTS (SELECT 1 FROM {s}journal WHERE run = t.num)""",
    "any_left": "SELECT EXISTS (SELECT 1 FROM {s}tombstones WHERE unswept = 1)",
    "expired": """
SELECT num FROM {s}tombstones WHERE until_ns <= $1 AND unswept = 0
ORDER BY until_ns LIMIT $2 FOR UPDATE SKIP LOCKED""",
    # Something late was noted since: it is swept once more first.
    "dirty": """
UPDATE {s}tombstones AS t SET unswept = 1
WHERE num = ANY($1::int8[]) AND EXISTS (SELECT 1 FROM {s}journal WHERE run = t.num)""",
    "forget": """
WITH gone AS (DELETE FROM {s}tombstones WHERE num = ANY($1::int8[]) AND unswept = 0 RETURNING 1)
SELECT count(*) FROM gone""",
}


class PostgresRetention:
    """``Retention`` of a schema of PostgreSQL."""

    def __init__(self, database: PostgresDatabase) -> None:
        self._database = database

    def _text(self, name: str) -> str:
        return self._database.statements.of(STATEMENTS[name])

    async def ended(
        self, *, before_ns: int, name: str | None = None, after: EndedRun | None = None, limit: int = 100
    ) -> list[EndedRun]:
        """See ``Retention.ended``."""
        return await self._database.ask(QUESTIONS.ended(before_ns=before_ns, name=name, after=after, limit=limit))

    async def tombstones(self, ids: Sequence[str]) -> list[Tombstone]:
        """See ``Retention.tombstones``."""
        return await self._database.ask(QUESTIONS.tombstones(ids))

    async def purge(self, runs: Sequence[EndedRun], *, now_ns: int, until_ns: int | None) -> list[int]:
        """See ``Retention.purge``."""
        self._database.check_open()
        some, listener = runs[:MOST], self._database.listener
        found = [run.num for run in some], [run.ended_at_ns for run in some], [run.last_seq for run in some]

        async def purge(connection: Connection) -> list[int]:
            async with in_transaction(connection):
                await connection.execute(self._text("alone"))
                rows = await connection.fetch(
                    self._text("purge"), *found, now_ns, until_ns, listener.channel, listener.token
                )
            return [int(row[0]) for row in rows]

        return await self._database.run("purge", purge, on=self._database.at_length) if runs else []

    async def sweep(self, *, limit: int) -> Swept:
        """See ``Retention.sweep``."""
        self._database.check_open()

        async def sweep(connection: Connection) -> Swept:
            removed = 0
            async with in_transaction(connection):
                nums = [int(row[0]) for row in await connection.fetch(self._text("unswept"), MOST)]
                if nums:
                    removed = int(await connection.fetchval(self._text("sweep"), nums, max(limit, 0)))
                    await connection.execute(self._text("swept"), nums)
            return Swept(removed, left=bool(await connection.fetchval(self._text("any_left"))))

        doing = "remove purged journals"
        return await self._database.run(doing, sweep, on=self._database.at_length)

    async def forget(self, *, now_ns: int, limit: int) -> int:
        """See ``Retention.forget``. A tombstone whose run got a late entry is swept once more first."""
        self._database.check_open()

        async def forget(connection: Connection) -> int:
            async with in_transaction(connection):
                rows = await connection.fetch(self._text("expired"), now_ns, max(limit, 0))
                nums = [int(row[0]) for row in rows]
                if not nums:
                    return 0
                await connection.execute(self._text("dirty"), nums)
                return int(await connection.fetchval(self._text("forget"), nums))

        return await self._database.run("forget purged ids", forget, on=self._database.at_length)
