"""The SQLite store in trouble: full disks, values it cannot hold, removed files, locks of others, cancelled callers."""

import asyncio
import os
import shutil
import sqlite3
import subprocess
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from durable_core.errors import StoreError, StoreFull
from durable_core.model.run import RunQuery
from durable_core.ports import Batch
from durable_core.stores.sqlite import database, refusals
from durable_core.stores.sqlite import file as sqlite_file
from durable_core.stores.sqlite.database import FEW_ROWS
from durable_core.stores.sqlite.locks import WriteLock, worker_lock
from durable_core.stores.sqlite.store import SqliteStore
from durable_core.testing.store_rows import add, in_loop, new_batch, new_entry, new_run, the


@asynccontextmanager
async def opened(path: Path, worker: str | None = "w1") -> AsyncIterator[SqliteStore]:
    """A store on ``path``, closed in the end."""
    store = SqliteStore(str(path))
    await store.open(worker=worker)
    try:
        yield store
    finally:
        await store.close()


async def fill(store: SqliteStore, num: int) -> StoreError:
    """Write entries until the store refuses; return its words. Then check that it kept what it acknowledged."""
    acknowledged = 0
    try:
        while True:
            rows = [new_entry(num, acknowledged + n, payload=b"x" * 5000) for n in range(1, 41)]
            await store.journal.commit(new_batch(entries=rows))
            acknowledged += len(rows)
    except StoreError as error:
        assert len((await store.journal.load([num]))[num]) == acknowledged
        return error


@in_loop
async def test_a_full_database(tmp_path: Path):
    """It says so, is worth asking again, has kept what it acknowledged, and goes on once there is room."""
    async with opened(tmp_path / "x.db") as store:
        num = await add(store, "a")
        store._database.file.connection.execute("PRAGMA max_page_count = 300")
        error = await fill(store, num)
        assert isinstance(error, StoreFull)
        assert error.transient
        assert "free space" in error.advice
        store._database.file.connection.execute("PRAGMA max_page_count = 100000")
        await add(store, "b")


def test_a_full_disk(tmp_path: Path):
    """The same on a small file system of its own, where the log and the checkpoint meet the limit too."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = shutil.which("mount")
    mounted = mount and subprocess.run(
        [mount, "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(disk)], capture_output=True, check=False
    )
    if not mounted or mounted.returncode:
        pytest.skip("this user may not mount a small disk")

    async def run() -> None:
        ballast = disk / "ballast"
        ballast.write_bytes(b"x" * (4 << 20))
        async with opened(disk / "x.db") as store:
            num = await add(store, "a")
            error = await fill(store, num)
            assert isinstance(error, StoreFull)
            assert error.transient
            ballast.unlink()
            await add(store, "b")
            left = len((await store.journal.load([num]))[num])
        async with opened(disk / "x.db") as store:
            assert (await the(store, "b")).id == "b"
            assert len((await store.journal.load([num]))[num]) == left

    try:
        asyncio.run(run())
    finally:
        subprocess.run(["umount", str(disk)], check=True)


@pytest.mark.parametrize(
    "wrong",
    [
        new_batch(starts=[new_run(1, "\udc80")]),
        new_batch(starts=[new_run(1 << 63, "a")]),
        new_batch(entries=[new_entry(1, 1)._replace(payload=object())]),  # type: ignore[arg-type]
        new_batch(entries=[new_entry(1, 1)._replace(label=None)]),  # type: ignore[arg-type]
        new_batch(starts=[new_run(1, "a"), new_run(1, "b")]),
        new_batch(entries=[new_entry(1, 1)[:5]]),  # type: ignore[list-item]
    ],
)
@in_loop
async def test_values_that_sqlite_cannot_hold(tmp_path: Path, wrong: Batch):
    """They are refused for good, with nothing written, and the store goes on."""
    async with opened(tmp_path / "x.db") as store:
        with pytest.raises(StoreError) as caught:
            await store.journal.commit(new_batch(starts=[new_run(7, "c"), *wrong.starts], entries=wrong.entries))
        assert not caught.value.transient
        assert caught.value.__cause__ is not None
        assert await store.runs.count(RunQuery()) == 0
        await add(store, "b")


@in_loop
async def test_a_read_that_cannot_be_asked(tmp_path: Path):
    """An id that no text can hold is a ``StoreError`` too, on both ways of reading."""
    async with opened(tmp_path / "x.db") as store:
        for ids in (["\udc80"], ["\udc80"] * 3 + ["a", "b", "c", "d", "e"]):
            with pytest.raises(StoreError):
                await store.runs.find(ids)


@pytest.mark.parametrize("replaced", [False, True])
@in_loop
async def test_a_removed_database_takes_no_more_commits(tmp_path: Path, replaced: bool):  # noqa: FBT001
    """Commits to a file without a name would be acknowledged and lost."""
    store = SqliteStore(str(tmp_path / "x.db"))
    await store.open(worker=None)
    await add(store, "a")
    (tmp_path / "x.db").rename(tmp_path / "old.db")
    if replaced:
        shutil.copy(tmp_path / "old.db", tmp_path / "x.db")
    with pytest.raises(StoreError, match="removed or replaced"):
        await add(store, "b")
    (tmp_path / "old.db").rename(tmp_path / "x.db")
    await add(store, "c")
    await store.close()


@in_loop
async def test_a_worker_whose_lock_file_is_gone_writes_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    """Others take it for dead and drive its runs: it must not."""
    async with opened(tmp_path / "x.db", "w2") as other:
        store = SqliteStore(str(tmp_path / "x.db"))
        await store.open(worker="w1")
        await add(store, "a", owner="w1")
        Path(worker_lock(str(tmp_path / "x.db"), "w1").path).unlink()
        assert await other.claims.release_dead() == 1
        with pytest.raises(StoreError, match="lock file"):
            await add(store, "b")
        await store.close()
        assert "lock file" in caplog.text
        await add(other, "c")


@in_loop
async def test_waiting_for_another_writer_leaves_the_loop_free(tmp_path: Path):
    """While another process writes, this one's tasks go on; the commit follows when the lock is free."""
    async with opened(tmp_path / "x.db") as store:
        lock = WriteLock(str(tmp_path / "x.db"))
        assert lock.try_acquire()
        commit = asyncio.create_task(add(store, "a"))
        for _ in range(20):
            await asyncio.sleep(0.001)  # the loop must turn while the thread waits
        assert not commit.done()
        assert await store.runs.find(["a"]) == []
        lock.close()
        await commit
        assert (await the(store, "a")).id == "a"


@in_loop
async def test_a_shell_with_an_open_transaction(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A program that knows only SQLite's locks delays a commit, or fails it if it keeps them: worth asking again."""
    monkeypatch.setattr("durable_core.stores.sqlite.schema.BUSY_S", 0.05)

    async with opened(tmp_path / "x.db") as store:
        shell = sqlite3.connect(tmp_path / "x.db", isolation_level=None, check_same_thread=False)
        shell.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreError, match="locked") as caught:
            await add(store, "a")
        assert caught.value.transient
        monkeypatch.setattr("durable_core.stores.sqlite.schema.BUSY_S", 5)
        commit = asyncio.create_task(add(store, "a"))
        await asyncio.sleep(0.005)  # by then it waits; were it not to, it would simply succeed at once
        shell.execute("ROLLBACK")
        await commit
        shell.close()
        await add(store, "b")


@in_loop
async def test_a_lock_that_is_never_released(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A stopped process that holds the lock fails commits and openings after a while, with its file's name."""
    async with opened(tmp_path / "x.db") as store:
        monkeypatch.setattr(sqlite_file, "LOCK_S", 0.02)
        lock = WriteLock(str(tmp_path / "x.db"))
        assert lock.try_acquire()
        for call in (add(store, "a"), SqliteStore(store.path).open(worker=None)):
            with pytest.raises(StoreError, match=r"x\.db-lock") as caught:
                await call
            assert caught.value.transient
        lock.close()
        await add(store, "a")


@in_loop
async def test_a_cancelled_commit_leaves_the_store_usable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Whether it waits for the lock or for the disk: the thread's work ends before the next call begins."""
    async with opened(tmp_path / "x.db") as store:
        num = await add(store, "a")
        lock = WriteLock(str(tmp_path / "x.db"))
        assert lock.try_acquire()
        waiting = asyncio.create_task(store.journal.commit(new_batch(entries=[new_entry(num, 1)])))
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.sleep(0)
        waiting.cancel()
        threading.Timer(0.02, lock.close).start()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert await store.journal.load([num]) == {num: []}
        monkeypatch.setattr(database, "QUICK_S", -1)
        committing = asyncio.create_task(store.journal.commit(new_batch(entries=[new_entry(num, 1)])))
        await asyncio.sleep(0)
        committing.cancel()  # too late: whoever asked must know that it was written
        assert await committing == frozenset()
        assert len((await store.journal.load([num]))[num]) == 1
        await store.journal.commit(new_batch(entries=[new_entry(num, 2)]))


@in_loop
async def test_slow_commits_move_to_a_thread_and_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Small commits are made on the loop's thread while they are quick, elsewhere while they are not."""
    threads: list[bool] = []
    commit = sqlite_file.SqliteFile.commit

    def spy(file: sqlite_file.SqliteFile) -> None:
        threads.append(threading.current_thread() is threading.main_thread())
        commit(file)

    monkeypatch.setattr(sqlite_file.SqliteFile, "commit", spy)

    async with opened(tmp_path / "x.db") as store:
        store._database._commit_s = 0.0
        threads.clear()
        await add(store, "quick")
        store._database._commit_s = 1.0
        while not threads[-1] or len(threads) < 3:
            await add(store, f"slow {len(threads)}")
        await store.journal.commit(new_batch(entries=[new_entry(1, seq) for seq in range(FEW_ROWS + 1)]))
        assert threads[:2] == [True, False]
        assert threads[-1] is False


@in_loop
async def test_numbers_are_reserved_ahead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A commit reserves the next block in time; without commits the block ends with an error worth asking again."""
    monkeypatch.setattr(sqlite_file, "NUMBERS", 10)

    async with opened(tmp_path / "x.db") as one, opened(tmp_path / "x.db", None) as two:
        seen = [await add(store, f"{store.path} {turn} {id(store)}") for turn in range(60) for store in (one, two)]
        assert len(set(seen)) == 120
        seen.extend(one.journal.next_num() for _ in range(one._numbers.left))
        with pytest.raises(StoreError, match="handed out") as caught:
            one.journal.next_num()
        assert caught.value.transient
        assert len(seen) >= 125
        await one.journal.commit(new_batch(starts=[new_run(seen[-1], "more")]))
        seen.append(one.journal.next_num())
        assert len(set(seen)) == len(seen)


@in_loop
async def test_a_refused_commit_does_not_use_up_numbers_it_reserved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A block counts once its transaction is committed: otherwise another store would get the same numbers."""
    monkeypatch.setattr(sqlite_file, "NUMBERS", 4)

    async def add_as(store: SqliteStore, num: int) -> None:
        await store.journal.commit(new_batch(starts=[new_run(num, str(num))]))

    async with opened(tmp_path / "x.db") as store:
        nums = [store.journal.next_num() for _ in range(4)]
        bad = new_batch(starts=[new_run(nums[0], "a")], entries=[new_entry(nums[0], 1)] * 2)
        with pytest.raises(StoreError):
            await store.journal.commit(bad)
        with pytest.raises(StoreError, match="handed out"):
            store.journal.next_num()
        await add_as(store, nums[1])
        async with opened(tmp_path / "x.db", None) as other:
            assert store.journal.next_num() != other.journal.next_num()


def test_every_error_of_sqlite_has_advice():
    """Each message names the file and what to do; what may pass is marked so."""
    for code, advice in refusals.ADVICE.items():
        error = sqlite3.OperationalError("words of SQLite")
        error.sqlite_errorcode = code | (3 << 8)  # an extended code of it
        said = refusals.explain(error, path="/data/x.db", doing="write a batch of 3 rows")
        assert "/data/x.db" in str(said)
        assert said.advice == advice.then
        assert "words of SQLite" in str(said)
        assert said.transient is advice.transient
        assert isinstance(said, StoreFull) is (code == sqlite3.SQLITE_FULL)
    unlisted = refusals.explain(sqlite3.DatabaseError("odd"), path="x.db", doing="read")
    assert not unlisted.transient
    assert refusals.explain(OSError(24, os.strerror(24)), path="x.db", doing="read").transient


@in_loop
async def test_checkpoints_keep_the_log_small(tmp_path: Path):
    """The log is copied back as commits go on, under the write lock, and is not left behind at the end."""
    async with opened(tmp_path / "x.db") as store:
        for turn in range(60):
            rows = [new_entry(1, turn * 100 + n, payload=b"x" * 2000) for n in range(100)]
            await store.journal.commit(new_batch(entries=rows))
        assert (tmp_path / "x.db-wal").stat().st_size < 8 << 20
        assert (tmp_path / "x.db").stat().st_size > 4 << 20
    assert [path.name for path in tmp_path.iterdir()] == ["x.db"]
