"""The facts of a checkup, asked of a SQLite connection that cannot write."""

import sqlite3
from collections.abc import Collection, Mapping, Sequence

from durable_core.model.checkup import GRACE_NS, SHOWN, Facts, Group, WorkerSeen
from durable_core.model.run import OPEN
from durable_core.stores.sqlite.locks import is_held, worker_path
from durable_core.stores.sqlite.reader import NEWEST

TABLES = ("runs", "journal", "signals", "tombstones", "workers", "served")

# ruff: noqa: S608 - every statement here is put together from our own column names; values are bound
OPEN_RUNS = "ended_at_ns IS NULL"
# A wake of 0 says "at once": then it is due since it was written, or since somebody signalled it.
SINCE = "max(wake_at_ns, updated_at_ns, coalesce((SELECT max(at_ns) FROM signals WHERE run = runs.num), 0))"
DUE = f"{OPEN_RUNS} AND owner IS NULL AND paused = 0 AND status <> 'stuck' AND {SINCE} <= ?"
# Once a run has a phase (it is being undone, or past its pivot), its deadline is void.
LATE = f"{OPEN_RUNS} AND phase = '' AND deadline_at_ns <= ? AND status <> 'stuck'"
OPEN_VERSIONS = f"SELECT name, version, count(*) FROM runs WHERE {OPEN_RUNS} GROUP BY name, version"


def facts_of(connection: sqlite3.Connection, path: str, *, now_ns: int) -> Facts:
    """How the runs of the store at ``path`` stand at ``now_ns``."""
    ask = connection.execute
    workers = _workers(connection, path)
    runnable = ask(f"SELECT id, {SINCE} FROM runs WHERE {DUE} ORDER BY 2, num LIMIT 1", (now_ns,)).fetchone()
    (newest_at_ns,) = ask(NEWEST).fetchone()
    (oldest_end_ns,) = ask("SELECT min(ended_at_ns) FROM runs WHERE ended_at_ns IS NOT NULL").fetchone()
    (unswept,) = ask("SELECT count(*) FROM tombstones WHERE unswept = 1").fetchone()
    return Facts(
        statuses=_statuses(connection),
        rows={table: int(ask(f"SELECT count(*) FROM {table}").fetchone()[0]) for table in TABLES},
        unswept=int(unswept),
        oldest_end_ns=oldest_end_ns,
        newest_at_ns=newest_at_ns,
        workers=workers,
        stuck=_group(connection, f"{OPEN_RUNS} AND status = 'stuck'", ()),
        runnable=None if runnable is None else (str(runnable[0]), int(runnable[1])),
        overdue=_group(connection, DUE, (now_ns - GRACE_NS,)),
        past_deadline=_group(connection, LATE, (now_ns - GRACE_NS,)),
        paused=_group(connection, f"{OPEN_RUNS} AND paused = 1", ()),
        unserved=unserved(connection, {worker.name for worker in workers if worker.alive}),
    )


def unserved(connection: sqlite3.Connection, alive: Collection[str]) -> Mapping[tuple[str, int], int]:
    """How many open runs there are of each function and version that no worker of those ``alive`` serves."""
    serving = connection.execute("SELECT name, version, worker FROM serving")
    served = {(name, version) for name, version, worker in serving if worker in alive}
    counted = {(str(name), int(version)): int(count) for name, version, count in connection.execute(OPEN_VERSIONS)}
    return {version: count for version, count in counted.items() if version not in served}


def _statuses(connection: sqlite3.Connection) -> Mapping[str, int]:
    rows = connection.execute(f"SELECT status, count(*) FROM runs WHERE {OPEN_RUNS} GROUP BY status")
    return {status.value: 0 for status in sorted(OPEN)} | {str(status): int(count) for status, count in rows}


def _group(connection: sqlite3.Connection, condition: str, values: Sequence[int]) -> Group:
    (count,) = connection.execute(f"SELECT count(*) FROM runs WHERE {condition}", values).fetchone()
    ids = connection.execute(f"SELECT id FROM runs WHERE {condition} ORDER BY num LIMIT {SHOWN}", values)
    return Group(int(count), tuple(str(id_) for (id_,) in ids))


def _workers(connection: sqlite3.Connection, path: str) -> tuple[WorkerSeen, ...]:
    rows = connection.execute("SELECT id, pid, host, started_at_ns FROM workers ORDER BY started_at_ns, id")
    return tuple(
        WorkerSeen(str(id_), int(pid), str(host), int(at_ns), alive=is_held(worker_path(path, str(id_))))
        for id_, pid, host, at_ns in rows
    )
