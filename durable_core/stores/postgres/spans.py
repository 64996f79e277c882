"""What is owed of spans, in a schema of PostgreSQL: the rules of ``SpanLedger``, as questions on a connection.

Invariant: positions are those of the journal's own number, which is never given out again.
"""

from collections.abc import Collection

from durable_core.model.entry import Entry
from durable_core.model.run import RunRecord
from durable_core.stores.postgres.connection import Connection
from durable_core.stores.postgres.reader import to_run
from durable_core.stores.postgres.statements import ENTRY, RUN, Statements

# ruff: noqa: S608 - every statement here is put together from our own column names; values are bound
NEWEST = """
SELECT greatest(
    (SELECT updated_at_ns FROM {s}.runs ORDER BY num DESC LIMIT 1),
    (SELECT at_ns FROM {s}.journal ORDER BY pos DESC LIMIT 1)
)"""
"""The last time that was written: of the newest run or entry."""
TEMPLATES = {
    "owe": """
INSERT INTO {s}.traced (worker, pos) SELECT $1, coalesce(max(pos), 0) FROM {s}.journal ON CONFLICT DO NOTHING""",
    "since": "SELECT pos FROM {s}.traced WHERE worker = $1",
    "owed": "SELECT worker, pos FROM {s}.traced WHERE worker = $1 OR worker NOT IN (SELECT id FROM {s}.workers)",
    "adopt": """
UPDATE {s}.traced SET payer = $2
WHERE worker = $1 AND (payer IS NULL OR payer = $2 OR payer NOT IN (SELECT id FROM {s}.workers)) RETURNING 1""",
    "paid": "UPDATE {s}.traced SET pos = $2 WHERE worker = $1",
    "paid_in_full": "DELETE FROM {s}.traced WHERE worker = $1",
    "written": f"SELECT pos, {ENTRY} FROM {{s}}.journal WHERE pos > $2 AND worker = $1 ORDER BY pos LIMIT $3",
    "unbegun": """
SELECT min(created_at_ns) FROM {s}.runs AS r
WHERE ended_at_ns IS NULL AND owner IS NULL AND wake_at_ns = 0 AND paused = 0 AND status = 'pending'
    AND NOT EXISTS (SELECT 1 FROM {s}.journal WHERE run = r.num)""",
    "find_nums": f"SELECT {RUN} FROM {{s}}.runs WHERE num = ANY($1::int8[])",
}


class Spans:
    """Questions and single statements, in one schema."""

    def __init__(self, texts: Statements) -> None:
        self._texts = {name: text.replace("{s}", texts.schema) for name, text in TEMPLATES.items()}

    async def owe(self, connection: Connection, worker: str) -> int:
        """Let ``worker`` owe the spans of what it writes from now on; the position after which that begins."""
        await connection.execute(self._texts["owe"], worker)
        return int(await connection.fetchval(self._texts["since"], worker))

    async def owed(self, connection: Connection, worker: str) -> dict[str, int]:
        """What is owed by ``worker`` and by the dead."""
        return {str(name): int(pos) for name, pos in await connection.fetch(self._texts["owed"], worker)}

    async def adopt(self, connection: Connection, debtor: str, worker: str) -> bool:
        """Let ``worker`` alone pay for ``debtor``; False where another living one does."""
        return await connection.fetchval(self._texts["adopt"], debtor, worker) is not None

    async def pay(self, connection: Connection, worker: str, pos: int | None) -> None:
        """Note up to where the entries of ``worker`` have been exported; None: it owes no more."""
        if pos is None:
            await connection.execute(self._texts["paid_in_full"], worker)
        else:
            await connection.execute(self._texts["paid"], worker, pos)

    async def written(self, connection: Connection, worker: str, *, after: int, limit: int) -> list[tuple[int, Entry]]:
        """What ``worker`` has written after a position, each with its own."""
        rows = await connection.fetch(self._texts["written"], worker, after, limit)
        return [(int(row[0]), Entry._make(tuple(row)[1:])) for row in rows]

    async def unbegun_since_ns(self, connection: Connection) -> int | None:
        """When the oldest run was made that nobody has begun."""
        found = await connection.fetchval(self._texts["unbegun"])
        return None if found is None else int(found)

    async def find_nums(self, connection: Connection, nums: Collection[int]) -> list[RunRecord]:
        """The runs of these numbers."""
        return list(map(to_run, await connection.fetch(self._texts["find_nums"], list(nums))))
