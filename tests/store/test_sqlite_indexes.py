"""What the SQLite store asks is answered from indexes, whatever SQLite knows of the data and however much there is."""

import re
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from durable_core.model.run import Place, RunQuery
from durable_core.ports import Batch
from durable_core.stores.sqlite.store import SqliteStore
from durable_core.stores.sqlite.workers import release
from durable_core.testing.store_rows import SERVED, in_loop, new_batch, new_entry, new_run, new_update

RUNS = 20_000
TABLES = ("runs", "journal", "signals")
# Owned by the dying worker: each 200th. Ended: each tenth. The others wait, and fall due one by one.
FILL = (
    f"""
WITH RECURSIVE n(i) AS (SELECT 1000 UNION ALL SELECT i + 1 FROM n WHERE i < {RUNS + 999})
INSERT INTO runs (num, id, uid, name, version, status, owner, wake_at_ns, input, created_at_ns, updated_at_ns,
    ended_at_ns)
SELECT i, 'r' || i, x'00', 'order', 1, CASE WHEN i % 10 = 0 THEN 'completed' ELSE 'waiting' END,
    CASE WHEN i % 200 = 1 THEN 'dead' END, i, x'7b7d', 1, 1, CASE WHEN i % 10 = 0 THEN 1 END FROM n
""",
    """
INSERT INTO journal (run, seq, kind, key, attempt, label, at_ns, worker)
SELECT num, 1, 'armed', 'sleep', 0, 'sleep', 1, 'w' FROM runs
""",
    "INSERT INTO signals (run, name, payload, at_ns) SELECT num, 'cancel', x'7b7d', 1 FROM runs WHERE num % 4 = 0",
    "INSERT INTO workers (id, pid, host, started_at_ns) VALUES ('dead', 1, 'h', 1)",
)
FIRST_ROWS = {"SELECT num, run FROM signals LIMIT", "SELECT 1 FROM signals LIMIT 1"}
"""Statements that walk a table, and stop after as many rows as were asked about."""


@contextmanager
def traced(*connections: sqlite3.Connection) -> Iterator[list[str]]:
    """The statements that these connections run, with their values."""
    seen: list[str] = []
    for connection in connections:
        connection.set_trace_callback(seen.append)
    yield seen
    for connection in connections:
        connection.set_trace_callback(None)


def plans(connection: sqlite3.Connection, statement: str) -> list[str]:
    """How SQLite goes about a statement."""
    return [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {statement}")]


@pytest.mark.parametrize("analyzed", [False, True], ids=["without statistics", "with statistics"])
@in_loop
async def test_nothing_walks_a_table(tmp_path: Path, analyzed: bool):  # noqa: FBT001
    """Claims, wakes, signals, finds, loads, releases and commits touch the rows that they are about, and no others."""
    path = str(tmp_path / "many.db")

    maker = SqliteStore(path)
    await maker.open(worker=None)
    await maker.close()
    filling = sqlite3.connect(path)
    for statement in (*FILL, *(["ANALYZE"] if analyzed else [])):
        filling.execute(statement)
    filling.commit()
    filling.close()
    store = SqliteStore(path)
    await store.open(worker="w1")  # this removes the dead worker; what it ran is asked of the next one, below
    file = store._database.file
    connections = [file.connection, file.reader, file.bulk_reader]
    with traced(*connections) as seen:
        await everything(store)
        file.begin_waiting()
        release(file.connection, "w1")
        file.commit()
    walked = [
        (statement, plan)
        for statement in dict.fromkeys(seen)
        if re.match(r"\s*(SELECT|UPDATE|DELETE|INSERT)", statement)
        and not any(statement.startswith(first) for first in FIRST_ROWS)
        for plan in plans(connections[0], statement)
        if re.match(rf"SCAN (TABLE )?({'|'.join(TABLES)})\b", plan) or "USE TEMP B-TREE" in plan
    ]
    assert walked == []
    asked = " ".join(seen)
    assert all(f"FROM {table}" in asked for table in TABLES)
    assert "UPDATE runs SET owner = NULL" in asked
    await store.close()


async def everything(store: SqliteStore) -> None:
    """Each method that a worker calls while it works, on few rows and on many."""
    soon = [run.num for run in await store.claims.claim("w1", SERVED, now_ns=2000, limit=500)]
    assert len(soon) == 500
    await store.runs.next_wake_ns(after_ns=RUNS // 2)
    await store.journal.load(soon[:1])
    await store.journal.load(soon)
    await store.signals.waiting(soon[:1])
    assert await store.signals.waiting(soon)
    await store.signals.waiting(range(1, RUNS))
    await store.runs.find([f"r{num}" for num in soon])
    await store.runs.find_num(soon[0])
    await store.runs.select(RunQuery(name="order", after=Place(1, 5000)))
    num = store.journal.next_num()
    await store.journal.commit(
        new_batch(
            starts=[new_run(num, "one")],
            entries=[new_entry(num, 1)],
            updates=[new_update(soon[0], wake_at_ns=5), new_update(num, owner="w1")],
        )
    )
    await store.journal.commit(Batch(consumed=[1, 2]))
    await store.signals.send(soon[0], "cancel", b"{}", now_ns=1)
