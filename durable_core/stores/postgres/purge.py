"""Purging a schema of PostgreSQL: what is asked and written, each method the inside of one short transaction.

Invariants: rows that another transaction holds are left to the next piece, so that only starts wait for a purge, for as
long as a piece takes. An id is at every moment that of a run or of a tombstone: no start slips in between.
"""

from collections.abc import Sequence

from durable_core.model.tombstone import EndedRun, Swept, Tombstone
from durable_core.stores.postgres.connection import Connection, in_transaction
from durable_core.stores.postgres.nul import escaped, plain
from durable_core.stores.postgres.statements import Statements

MOST = 100
"""Runs buried in one transaction, which takes some milliseconds; and tombstones that are looked at in one."""
WAIT = "250ms"
"""How long a piece waits for starts under way; other starts wait behind it meanwhile. It is tried again."""

TEMPLATES = {
    # A start looks at the tombstones as they were when its statement began, and may then wait at the unique index for
    # the run to be gone: it would begin a second one. With this lock a start either is over before a run is buried, or
    # begins to look after that: the locks of a statement are taken before it sees anything.
    "alone": "SET LOCAL lock_timeout = '{wait}'; LOCK TABLE {s}.tombstones IN ACCESS EXCLUSIVE MODE",
    "ended": """
SELECT num, id, ended_at_ns, coalesce((SELECT max(seq) FROM {s}.journal WHERE run = r.num), 0) FROM {s}.runs AS r
WHERE ended_at_ns IS NOT NULL AND (ended_at_ns, num) > ($1, $2) AND ended_at_ns < $3 AND ($4::text IS NULL OR name = $4)
    AND NOT EXISTS (SELECT 1 FROM {s}.workers AS w WHERE w.id = r.owner)
ORDER BY ended_at_ns, num LIMIT $5""",
    "bury": """
WITH found AS (
    SELECT r.* FROM unnest($1::int8[], $2::int8[], $3::int8[]) AS f (num, at_ns, last)
    JOIN {s}.runs AS r ON r.num = f.num
    WHERE NOT EXISTS (SELECT 1 FROM {s}.workers AS w WHERE w.id = r.owner)
        AND r.ended_at_ns = f.at_ns AND coalesce((SELECT max(seq) FROM {s}.journal WHERE run = r.num), 0) = f.last
    FOR UPDATE OF r SKIP LOCKED
), stones AS (
    INSERT INTO {s}.tombstones
        (num, id, name, version, status, phase, created_at_ns, ended_at_ns, purged_at_ns, until_ns)
    SELECT num, id, name, version, status, phase, created_at_ns, ended_at_ns, $4, $5 FROM found
), gone AS (
    DELETE FROM {s}.runs WHERE num IN (SELECT num FROM found)
), unsignalled AS (
    DELETE FROM {s}.signals WHERE run IN (SELECT num FROM found)
)
SELECT num, pg_notify($6, $7) FROM found""",
    "unswept": "SELECT num FROM {s}.tombstones WHERE unswept = 1 ORDER BY num LIMIT $1 FOR UPDATE SKIP LOCKED",
    "sweep": """
WITH gone AS (
    DELETE FROM {s}.journal WHERE pos IN (
        SELECT j.pos FROM unnest($1::int8[]) AS t (num) JOIN {s}.journal AS j ON j.run = t.num LIMIT $2
    ) RETURNING 1
)
SELECT count(*) FROM gone""",
    "swept": """
UPDATE {s}.tombstones AS t SET unswept = 0
WHERE num = ANY($1::int8[]) AND NOT EXISTS (SELECT 1 FROM {s}.journal WHERE run = t.num)""",
    "any_left": "SELECT EXISTS (SELECT 1 FROM {s}.tombstones WHERE unswept = 1)",
    "tombstones": """
SELECT num, id, name, version, status, phase, created_at_ns, ended_at_ns, purged_at_ns, until_ns
FROM {s}.tombstones WHERE id = ANY($1::text[])""",
    "expired": """
SELECT num FROM {s}.tombstones WHERE until_ns <= $1 AND unswept = 0
ORDER BY until_ns LIMIT $2 FOR UPDATE SKIP LOCKED""",
    # Something late was noted since: it is swept once more first.
    "dirty": """
UPDATE {s}.tombstones AS t SET unswept = 1
WHERE num = ANY($1::int8[]) AND EXISTS (SELECT 1 FROM {s}.journal WHERE run = t.num)""",
    "forget": """
WITH gone AS (DELETE FROM {s}.tombstones WHERE num = ANY($1::int8[]) AND unswept = 0 RETURNING 1)
SELECT count(*) FROM gone""",
    "is_buried": "SELECT EXISTS (SELECT 1 FROM {s}.tombstones WHERE num = $1)",
}


class Purger:
    """Questions and transactions' insides, in one schema."""

    def __init__(self, texts: Statements) -> None:
        self._texts = {
            name: text.replace("{s}", texts.schema).replace("{wait}", WAIT) for name, text in TEMPLATES.items()
        }

    async def ended(
        self, connection: Connection, *, before_ns: int, name: str | None, after: EndedRun | None, limit: int
    ) -> list[EndedRun]:
        """Runs that ended before that time, the longest ended first."""
        at_ns, num = (-1, -1) if after is None else (after.ended_at_ns, after.num)
        rows = await connection.fetch(self._texts["ended"], at_ns, num, before_ns, name, max(limit, 0))
        return [EndedRun(num, plain(id_), at_ns, last) for num, id_, at_ns, last in rows]

    async def bury(
        self,
        connection: Connection,
        runs: Sequence[EndedRun],
        *,
        now_ns: int,
        until_ns: int | None,
        channel: str,
        token: str,
    ) -> list[int]:
        """Put tombstones in the place of those that stand as they were found."""
        some = runs[:MOST]
        found = [run.num for run in some], [run.ended_at_ns for run in some], [run.last_seq for run in some]
        async with in_transaction(connection):
            await connection.execute(self._texts["alone"])
            rows = await connection.fetch(self._texts["bury"], *found, now_ns, until_ns, channel, token)
        return [int(row[0]) for row in rows]

    async def sweep(self, connection: Connection, *, limit: int) -> Swept:
        """Remove entries of buried runs."""
        removed = 0
        async with in_transaction(connection):
            nums = [int(row[0]) for row in await connection.fetch(self._texts["unswept"], MOST)]
            if nums:
                removed = int(await connection.fetchval(self._texts["sweep"], nums, max(limit, 0)))
                await connection.execute(self._texts["swept"], nums)
        return Swept(removed, left=bool(await connection.fetchval(self._texts["any_left"])))

    async def tombstones(self, connection: Connection, ids: Sequence[str]) -> list[Tombstone]:
        """The tombstones of ``ids`` that exist."""
        asked = [escaped(id_) for id_ in dict.fromkeys(ids)]
        found = map(Tombstone._make, await connection.fetch(self._texts["tombstones"], asked))
        return [stone._replace(id=plain(stone.id)) for stone in found]

    async def forget(self, connection: Connection, *, now_ns: int, limit: int) -> int:
        """Drop the tombstones whose time has come, but for those whose run was noted something late."""
        async with in_transaction(connection):
            nums = [int(row[0]) for row in await connection.fetch(self._texts["expired"], now_ns, max(limit, 0))]
            if not nums:
                return 0
            await connection.execute(self._texts["dirty"], nums)
            return int(await connection.fetchval(self._texts["forget"], nums))

    async def is_buried(self, connection: Connection, num: int) -> bool:
        """Whether the run of this number was purged."""
        return bool(await connection.fetchval(self._texts["is_buried"], num))
