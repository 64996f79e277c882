"""How much one transaction of a purge does in a SQLite file."""

import sqlite3
import types
from collections.abc import Iterator
from itertools import count

import pytest

from durable_core.model.run import RunStatus
from durable_core.ports import Batch
from durable_core.stores import sql
from durable_core.stores.sqlite import purge
from durable_core.stores.sqlite.purge import ROWS, Purger
from durable_core.stores.sqlite.writer import Writer
from durable_core.testing.store_rows import new_entry, new_run, new_update

RUNS = 30


@pytest.fixture
def purger(monkeypatch: pytest.MonkeyPatch) -> Iterator[Purger]:
    """On ended runs with 200 entries each, with a clock of which every look takes a millisecond."""
    connection = sqlite3.connect(":memory:", isolation_level=None)
    for definition in sql.CREATE:
        connection.execute(definition)
    batch = Batch()
    for num in range(1, RUNS + 1):
        batch.starts.append(new_run(num, f"r{num}"))
        batch.entries += [new_entry(num, seq) for seq in range(1, 201)]
        batch.updates[num] = new_update(num, status=RunStatus.COMPLETED, ended_at_ns=num)
    Writer(connection, "test.db").write(batch)
    ticks = count()
    monkeypatch.setattr(purge, "time", types.SimpleNamespace(perf_counter=lambda: next(ticks) / 1000))
    yield Purger(connection)
    connection.close()


def test_a_transaction_of_a_purge_ends_when_its_time_is_up(purger: Purger):
    """It stops within a few looks at the clock, says what it did, and the next ones do the rest."""
    found = purger.ended(before_ns=RUNS + 1, name=None, after=None, limit=RUNS)
    assert len(found) == RUNS
    buried = purger.bury(found, now_ns=100, until_ns=100)
    assert buried == list(range(1, 1 + len(buried)))
    assert 0 < len(buried) <= 6
    piece = purger.sweep(limit=10**6)
    assert 0 < piece.entries <= 6 * ROWS
    assert piece.left
    removed = piece.entries
    while piece.left:
        piece = purger.sweep(limit=10**6)
        removed += piece.entries
    assert removed == 200 * len(buried)
    freed = purger.forget(now_ns=100, limit=10**6)
    assert 0 < freed <= 6
    while more := purger.forget(now_ns=100, limit=10**6):
        freed += more
    assert freed == len(buried)
    assert len(purger.ended(before_ns=RUNS + 1, name=None, after=None, limit=RUNS)) == RUNS - len(buried)
