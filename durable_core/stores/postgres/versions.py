"""Versions in a schema of PostgreSQL: who serves which, which runs wait in vain for one, and how many there are.

Invariant: what a worker serves is forgotten in the transaction that forgets the worker.
"""

from collections.abc import Sequence
from itertools import groupby
from operator import itemgetter

from durable_core.model.run import RunRef, RunStatus
from durable_core.model.version import Announced, Offer, Tally
from durable_core.stores.postgres.connection import Connection
from durable_core.stores.postgres.nul import plain
from durable_core.stores.postgres.statements import Statements

IN_VAIN = """
ended_at_ns IS NULL AND owner IS NULL AND wake_at_ns <= {at}
    AND (paused = 0 OR EXISTS (SELECT 1 FROM {s}.signals AS g WHERE g.run = r.num))
    AND NOT EXISTS (SELECT 1 FROM {s}.serving AS v WHERE v.name = r.name AND v.version = r.version)
"""
"""The condition on a run ``r`` that could be claimed if any living worker served it."""

# ruff: noqa: S608 - every statement here is put together from our own column names; values are bound
TEMPLATES = {
    "serve": """
INSERT INTO {s}.served AS v (name, version, fingerprint, at_ns) VALUES ($1, $2, $3, $4)
ON CONFLICT (name, version) DO UPDATE SET fingerprint = excluded.fingerprint, at_ns = excluded.at_ns
WHERE excluded.fingerprint NOT IN ('', v.fingerprint)""",
    "serving": "INSERT INTO {s}.serving (name, version, worker) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING",
    "announced": """
SELECT name, version, fingerprint, at_ns, worker FROM {s}.served LEFT JOIN {s}.serving USING (name, version)
ORDER BY name, version, worker""",
    "unserved": f"SELECT num, id, name, version FROM {{s}}.runs AS r WHERE {IN_VAIN} ORDER BY wake_at_ns, num",
    "tally": """
SELECT name, version, status, phase, count(*) FROM {s}.runs WHERE $1::text IS NULL OR name = $1
GROUP BY 1, 2, 3, 4""",
}


class Versions:
    """Questions and the insides of transactions, in one schema."""

    def __init__(self, texts: Statements) -> None:
        self._texts = {
            name: text.replace("{s}", texts.schema).replace("{at}", "$1") for name, text in TEMPLATES.items()
        }

    async def announce(self, connection: Connection, worker: str, offers: Sequence[Offer], *, now_ns: int) -> None:
        """Note what ``worker`` serves."""
        for name, version, fingerprint in offers:
            await connection.execute(self._texts["serve"], name, version, fingerprint, now_ns)
            await connection.execute(self._texts["serving"], name, version, worker)

    async def announced(self, connection: Connection) -> list[Announced]:
        """What any worker has announced, and who serves it, in order."""
        rows = await connection.fetch(self._texts["announced"])
        found = [
            Announced(name, version, fingerprint, at_ns, tuple(sorted(row[4] for row in some if row[4] is not None)))
            for (name, version, fingerprint, at_ns), some in groupby(rows, key=itemgetter(0, 1, 2, 3))
        ]
        return sorted(found)  # by code point, whatever the order of the database's own

    async def unserved(self, connection: Connection, *, now_ns: int) -> list[RunRef]:
        """The runs that wait in vain, the longest due first."""
        rows = await connection.fetch(self._texts["unserved"], now_ns)
        return [RunRef(num, plain(id_), name, version) for num, id_, name, version in rows]

    async def tally(self, connection: Connection, name: str | None) -> list[Tally]:
        """How many runs stand how, by version."""
        rows = await connection.fetch(self._texts["tally"], name)
        return sorted(
            Tally(name, version, RunStatus(status), phase, runs) for name, version, status, phase, runs in rows
        )
