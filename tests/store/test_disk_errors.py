"""A disk that is full or broken, from any call of SQLite on: an error that says so, and no false acknowledgement."""

import asyncio
import shutil
import sqlite3
from itertools import count
from pathlib import Path

import attrs
import pytest

from durable_core.errors import StoreError, StoreFull
from durable_core.stores.sqlite.store import SqliteStore
from durable_core.testing.store_rows import in_loop, new_batch, new_entry, new_run
from tests.store.disk import OK, below_sqlite


@attrs.define
class Trouble:
    """From the n-th call of a kind on, the disk refuses all of them; or only that one."""

    call: str
    code: int
    at: int
    lasting: bool
    calls: int = 0
    over: bool = False

    def refuse(self, call: str) -> int:
        if self.over or call != self.call:
            return OK
        self.calls += 1
        return self.code if self.calls == self.at or (self.lasting and self.calls > self.at) else OK


def left_by_a_kill(directory: Path) -> Path:
    """The file as the end of a process would leave it now: a copy, beside."""
    for name in ("x.db", "x.db-wal"):
        shutil.copy(directory / name, directory / f"left-{name}")
    return directory / "left-x.db"


async def work(path: Path, trouble: Trouble, seen: list[StoreError]) -> None:
    """Open the store and write batches that fill the log over and over; after an error it is asked again."""
    store = SqliteStore(str(path))
    await again(lambda: store.open(worker="w1"), trouble, seen)
    store._database.file.connection.execute("PRAGMA wal_autocheckpoint = 8")
    for num in range(1, 4):
        batch = new_batch(
            starts=[new_run(num, f"r{num}")], entries=[new_entry(num, seq, payload=b"x" * 3000) for seq in (1, 2)]
        )
        await again(lambda batch=batch: store.journal.commit(batch), trouble, seen)
        assert await again(lambda: store.runs.find([f"r{n}" for n in range(9)]), trouble, seen)
    await store.close()


async def again(ask, trouble: Trouble, seen: list[StoreError]):
    """Ask; where that fails, the trouble ends and it is asked again."""
    try:
        return await ask()
    except StoreError as error:
        seen.append(error)
        trouble.over = True
        return await ask()


@pytest.mark.parametrize(
    ("call", "code", "lasting"),
    [
        ("write", sqlite3.SQLITE_FULL, True),
        ("write", sqlite3.SQLITE_IOERR_WRITE, False),
        ("sync", sqlite3.SQLITE_IOERR_FSYNC, True),
        ("sync", sqlite3.SQLITE_IOERR_FSYNC, False),
        ("read", sqlite3.SQLITE_IOERR_READ, True),
        ("read", sqlite3.SQLITE_IOERR_READ, False),
        ("open", sqlite3.SQLITE_CANTOPEN, True),
        ("truncate", sqlite3.SQLITE_IOERR_TRUNCATE, True),
        ("delete", sqlite3.SQLITE_IOERR_DELETE, True),
    ],
)
def test_a_call_that_the_disk_refuses(tmp_path: Path, call: str, code: int, lasting: bool):  # noqa: FBT001
    """Whichever it is, the error is worth asking again and says what to do; then everything is there, once."""
    for at in count(1):
        trouble, seen, path = Trouble(call, code, at, lasting), list[StoreError](), tmp_path / f"{at}.db"
        with below_sqlite(refusing=trouble.refuse):
            asyncio.run(work(path, trouble, seen))
        for error in seen:
            assert error.transient, error
            assert error.advice
            assert isinstance(error, StoreFull) is (code == sqlite3.SQLITE_FULL)
        connection = sqlite3.connect(path)
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert connection.execute("SELECT num FROM runs ORDER BY num").fetchall() == [(num,) for num in range(1, 4)]
        assert connection.execute("SELECT count(*) FROM journal").fetchone() == (6,)
        connection.close()
        path.unlink()
        if trouble.calls < at:
            assert at > 1, "no such call was made"
            break


@in_loop
async def test_rows_whose_sync_failed_may_come_back_after_a_kill(tmp_path: Path):
    """They are in the log until a later commit overwrites them: the error says so, and asking again is harmless."""
    trouble = Trouble("sync", sqlite3.SQLITE_IOERR_FSYNC, at=1, lasting=False, over=True)
    with below_sqlite(refusing=trouble.refuse):
        store = SqliteStore(str(tmp_path / "x.db"))
        await store.open(worker="w1")
        batch = new_batch(starts=[new_run(1, "a")])
        trouble.over = False
        with pytest.raises(StoreError, match="may turn out to be written") as caught:
            await store.journal.commit(batch)
        assert caught.value.in_doubt
        assert caught.value.transient
        assert await store.runs.find(["a"]) == []
        left = left_by_a_kill(tmp_path)
        assert await store.journal.commit(batch) == frozenset()
        await store.close()
    connection = sqlite3.connect(left)
    assert connection.execute("SELECT id FROM runs").fetchall() == [("a",)]
    connection.close()
