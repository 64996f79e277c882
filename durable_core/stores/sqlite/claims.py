"""How workers get runs of a SQLite file, and how the runs of dead workers become free."""

import sqlite3
from collections.abc import Collection

from durable_core.model.run import RunRecord
from durable_core.stores import sql
from durable_core.stores.sqlite.database import SqliteDatabase
from durable_core.stores.sqlite.dialect import QUESTIONS, chunks, marks
from durable_core.stores.sqlite.file import SqliteFile
from durable_core.stores.sqlite.workers import others

# ruff: noqa: S608 - every statement here is put together from our own column names and marks; values are bound
DUE = f"""
SELECT {sql.RUN_COLUMNS} FROM runs
WHERE ended_at_ns IS NULL AND owner IS NULL AND wake_at_ns <= ?
    AND (paused = 0 OR EXISTS (SELECT 1 FROM signals WHERE run = runs.num)) AND (name, version) IN (VALUES {{marks}})
ORDER BY wake_at_ns, num LIMIT ?
"""
# A stuck run that is claimed because a retry beside what it is stuck on fell due is stuck all the same.
CLAIM = """
UPDATE runs SET owner = ?, status = CASE WHEN status = 'stuck' THEN status ELSE 'running' END,
    wake_at_ns = CASE WHEN status = 'stuck' THEN wake_at_ns END
WHERE num IN ({marks})
"""


class SqliteClaims:
    """``Claims`` of a SQLite file."""

    def __init__(self, database: SqliteDatabase) -> None:
        self._database = database

    async def claim(
        self, worker: str, served: Collection[tuple[str, int]], *, now_ns: int, limit: int
    ) -> list[RunRecord]:
        """See ``Claims.claim``. Writes nothing if no run is due."""

        def work(file: SqliteFile) -> list[RunRecord]:
            due = _due(file.connection, served, now_ns=now_ns, limit=limit)
            for some in chunks([run.num for run in due]):
                file.connection.execute(CLAIM.format(marks=marks(len(some))), (worker, *some))
            return [run.claimed_by(worker) for run in due]

        if not served or limit < 1:
            return []
        if not self._database.read(lambda connection: _due(connection, served, now_ns=now_ns, limit=1)):
            return []
        return await self._database.transact("take up work", work, limit)

    async def release_dead(self) -> int:
        """Free the runs of workers whose lock file nobody holds; see ``Claims.release_dead``."""
        worker = self._database.file.worker
        if not self._database.read(lambda connection: others(connection, worker)):
            return 0
        return await self._database.transact("release dead workers", SqliteFile.release_dead, 1)


def _due(
    connection: sqlite3.Connection, served: Collection[tuple[str, int]], *, now_ns: int, limit: int
) -> list[RunRecord]:
    """Up to ``limit`` runs that a worker serving ``served`` may claim, the longest due first."""
    values = [value for pair in sorted(served) for value in pair]
    text = DUE.format(marks=", ".join(["(?, ?)"] * len(served)))
    return list(map(QUESTIONS.to_run, connection.execute(text, (now_ns, *values, limit))))
