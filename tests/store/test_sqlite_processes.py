"""The SQLite store between processes: creation, sharing, and death by SIGKILL."""

import asyncio
import itertools
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from durable_core.model.run import RunQuery
from durable_core.stores.sqlite.store import SqliteStore
from durable_core.testing.store_rows import add, claimed
from tests import forked

HEAD = """
import asyncio, sys
from durable_core.stores.sqlite.store import SqliteStore
from durable_core.testing.store_rows import add, claimed, new_batch, new_entry, new_run
path, worker = sys.argv[1:3]

async def main():
    store = SqliteStore(path)
    await store.open(worker=worker)
"""
TAIL = """
asyncio.run(main())
"""


@contextmanager
def processes(path: Path, body: str, *workers: str) -> Iterator[list["subprocess.Popen[str]"]]:
    """Child processes that open the store, each as one of ``workers``, and do ``body``."""
    code = HEAD + "".join(f"    {line}\n" for line in body.strip().splitlines()) + TAIL
    children = [
        forked.Process(
            [sys.executable, "-c", code, str(path), worker],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for worker in workers
    ]
    try:
        yield children
    finally:
        for child in children:
            child.kill()
            child.communicate()


def said(child: "subprocess.Popen[str]") -> str:
    """The next line that the child prints."""
    assert child.stdout is not None
    assert child.stderr is not None
    line = child.stdout.readline().strip()
    assert line, child.stderr.read()
    return line


def ended(child: "subprocess.Popen[str]") -> str:
    """All that the child prints until it ends well."""
    out, err = child.communicate(timeout=60)
    assert child.returncode == 0, err
    return out.strip()


def test_processes_that_create_one_file_at_once(tmp_path: Path):
    """All succeed, on one store: each has the same secret and its own numbers."""
    body = """
num = await add(store, worker)
print(store.secret.hex(), num)
await store.close()
"""
    with processes(tmp_path / "x.db", body, *(f"w{n}" for n in range(6))) as children:
        found = [ended(child).split() for child in children]
    assert len({secret for secret, _ in found}) == 1
    assert len({num for _, num in found}) == 6
    assert [path.name for path in tmp_path.iterdir()] == ["x.db"]


def test_writers_take_turns(tmp_path: Path):
    """Two processes that write all the time both come to write, lose nothing, and keep the file whole."""
    body = """
from pathlib import Path
num = await add(store, worker)
print("ready", flush=True)
seq = 0
while not Path(path + "-stop").exists():
    seq += 1
    await store.journal.commit(new_batch(entries=[new_entry(num, seq, payload=b"x" * 3000)] + [new_entry(-num, seq)]))
print(seq, flush=True)
await store.close()
"""
    with processes(tmp_path / "x.db", body, "w1", "w2") as children:
        for child in children:
            assert said(child) == "ready"
        connection = sqlite3.connect(tmp_path / "x.db")
        while turns(connection) < 100:  # a process that never comes to write lets the test run out of time
            time.sleep(0.05)
        (tmp_path / "x.db-stop").touch()
        written = sum(int(ended(child)) for child in children)
    assert connection.execute("SELECT count(*) FROM journal").fetchone() == (2 * written,)
    assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    connection.close()


def turns(connection: sqlite3.Connection) -> int:
    """How often another process wrote than the one before."""
    rows = connection.execute("SELECT run FROM journal WHERE run > 0 ORDER BY pos")
    return sum(before != after for before, after in itertools.pairwise(rows))


def test_a_killed_workers_runs_are_taken_at_once(tmp_path: Path):
    """After SIGKILL another process finds the worker dead without waiting, and every acknowledged row is there."""
    body = """
num = await add(store, "a", owner=worker)
print(num, flush=True)
seq = 0
while True:
    seq += 1
    await store.journal.commit(new_batch(entries=[new_entry(num, seq)]))
    print(seq, flush=True)
"""

    async def survive(child: "subprocess.Popen[str]") -> None:
        store = SqliteStore(str(tmp_path / "x.db"))
        await store.open(worker="w2")
        num = int(said(child))
        while (acknowledged := int(said(child))) < 100:
            assert await store.claims.release_dead() == 0
        child.send_signal(signal.SIGKILL)
        child.wait()
        assert child.stdout is not None
        acknowledged = max([acknowledged, *map(int, child.stdout.read().split())])
        assert await store.claims.release_dead() == 1
        assert await claimed(store, "w2") == ["a"]
        journal = (await store.journal.load([num]))[num]
        assert [entry.seq for entry in journal] == list(range(1, len(journal) + 1))
        assert len(journal) in {acknowledged, acknowledged + 1}
        assert await store.changed() is True
        await store.close()
        assert [path.name for path in tmp_path.iterdir()] == ["x.db"]

    with processes(tmp_path / "x.db", body, "w1") as (child,):
        asyncio.run(survive(child))


def test_a_store_left_by_a_killed_process_is_recovered_by_the_next(tmp_path: Path):
    """Nobody else was there: the next to open it replays the log, takes the runs, and clears the lock files."""
    body = """
await add(store, "a", owner=worker)
print("ready", flush=True)
sys.stdin.readline()
"""
    with processes(tmp_path / "x.db", body, "w1") as (child,):
        assert said(child) == "ready"
        child.send_signal(signal.SIGKILL)
        child.wait()

    async def recover() -> None:
        store = SqliteStore(str(tmp_path / "x.db"))
        await store.open(worker="w1")
        assert await claimed(store, "w1") == ["a"]
        await add(store, "b")
        assert await store.runs.count(RunQuery()) == 2
        await store.close()

    asyncio.run(recover())
    assert [path.name for path in tmp_path.iterdir()] == ["x.db"]


def test_a_forked_child_does_not_keep_its_parent_alive(tmp_path: Path):
    """A worker that forks and is killed is dead, although its child runs on."""
    body = """
import os
await add(store, "a", owner=worker)
if os.fork() == 0:
    print("ready", flush=True)
sys.stdin.readline()
os._exit(0)
"""

    async def recover() -> None:
        store = SqliteStore(str(tmp_path / "x.db"))
        await store.open(worker="w2")
        assert await claimed(store, "w2") == ["a"]
        await store.close()

    with processes(tmp_path / "x.db", body, "w1") as (child,):
        assert said(child) == "ready"
        child.send_signal(signal.SIGKILL)
        child.wait()
        asyncio.run(recover())
