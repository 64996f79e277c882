"""How much one transaction of a purge does in a SQLite file."""

import sqlite3
import types
from collections.abc import Iterator
from itertools import count

import pytest

from durable_core.model.run import RunStatus
from durable_core.model.tombstone import EndedRun
from durable_core.ports import Batch
from durable_core.stores import sql
from durable_core.stores.sqlite import retention
from durable_core.stores.sqlite.dialect import QUESTIONS, rows_of
from durable_core.stores.sqlite.journal import write
from durable_core.stores.sqlite.retention import ROWS, forget, purge, sweep
from durable_core.testing.store_rows import new_entry, new_run, new_update

RUNS = 30


@pytest.fixture
def connection(monkeypatch: pytest.MonkeyPatch) -> Iterator[sqlite3.Connection]:
    """To ended runs with 200 entries each, with a clock of which every look takes a millisecond."""
    connection = sqlite3.connect(":memory:", isolation_level=None)
    for definition in sql.CREATE:
        connection.execute(definition)
    batch = Batch()
    for num in range(1, RUNS + 1):
        batch.starts.append(new_run(num, f"r{num}"))
        batch.entries += [new_entry(num, seq) for seq in range(1, 201)]
        batch.updates[num] = new_update(num, status=RunStatus.COMPLETED, ended_at_ns=num)
    write(connection, batch, path="test.db")
    ticks = count()
    monkeypatch.setattr(retention, "time", types.SimpleNamespace(perf_counter=lambda: next(ticks) / 1000))
    yield connection
    connection.close()


def ended(connection: sqlite3.Connection) -> list[EndedRun]:
    """All runs that have ended."""
    question = QUESTIONS.ended(before_ns=RUNS + 1, name=None, after=None, limit=RUNS)
    return question.read(rows_of(connection, question))


def test_a_transaction_of_a_purge_ends_when_its_time_is_up(connection: sqlite3.Connection):
    """It stops within a few looks at the clock, says what it did, and the next ones do the rest."""
    found = ended(connection)
    assert len(found) == RUNS
    purged = purge(connection, found, now_ns=100, until_ns=100)
    assert purged == list(range(1, 1 + len(purged)))
    assert 0 < len(purged) <= 6
    piece = sweep(connection, limit=10**6)
    assert 0 < piece.entries <= 6 * ROWS
    assert piece.left
    removed = piece.entries
    while piece.left:
        piece = sweep(connection, limit=10**6)
        removed += piece.entries
    assert removed == 200 * len(purged)
    freed = forget(connection, now_ns=100, limit=10**6)
    assert 0 < freed <= 6
    while more := forget(connection, now_ns=100, limit=10**6):
        freed += more
    assert freed == len(purged)
    assert len(ended(connection)) == RUNS - len(purged)
