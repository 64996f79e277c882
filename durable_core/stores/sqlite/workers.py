"""The workers of a SQLite file, and the runs that they own: each function is a part of one transaction.

Invariant: an unowned open run for which a signal waits is due at once. All that makes a run unowned, or stores a
signal, keeps it so; hence no signal is lost between a worker that lets go of a run and the next one.
"""

import os
import platform
import sqlite3

from durable_core.stores import sql

# A stuck run waits for a person, so it stays as it is, unless that person's signal waits already.
RELEASE = """
UPDATE runs SET owner = NULL,
    wake_at_ns = CASE
        WHEN status <> 'stuck' OR EXISTS (SELECT 1 FROM signals WHERE run = runs.num) THEN 0 ELSE wake_at_ns
    END
WHERE owner = ? AND ended_at_ns IS NULL
"""
_OTHERS = "SELECT id FROM workers WHERE id IS NOT ?"
_NOW_NS = "SELECT CAST(strftime('%s', 'now') AS INTEGER) * 1000000000"


def register(connection: sqlite3.Connection, worker: str) -> None:
    """Record that ``worker`` lives in this process."""
    (now_ns,) = connection.execute(_NOW_NS).fetchone()  # the database's clock, for people to read
    connection.execute(sql.INSERT_WORKER, (worker, os.getpid(), platform.node(), now_ns))


def release(connection: sqlite3.Connection, worker: str) -> int:
    """Free the open runs of ``worker``, and remove it and what it serves; return how many runs that are."""
    freed = connection.execute(RELEASE, (worker,)).rowcount
    connection.execute("DELETE FROM workers WHERE id = ?", (worker,))
    connection.execute("DELETE FROM serving WHERE worker = ?", (worker,))
    return freed


def others(connection: sqlite3.Connection, worker: str | None) -> list[str]:
    """The registered workers but ``worker``."""
    return [str(row[0]) for row in connection.execute(_OTHERS, (worker,))]
