"""A purge that dies at any moment: each saga is whole, or archived and known as purged; the next purge ends it."""

import asyncio
import contextlib
import os
import signal
import sqlite3
import sys
import time
from pathlib import Path

import pytest

from durable_core import PayloadError, RunNotFound, StoreError, read_line
from durable_core.engine import retention
from durable_core.engine.retention import ArchiveFile
from durable_core.layer import JournalEntry, RunRecord
from durable_core.stores.sqlite.file import SqliteFile
from sagas import Orchestrator, Saga, retriable, saga
from tests import forked

ROOT = Path(__file__).parents[2]
Whole = tuple[RunRecord, list[JournalEntry]]


class Died(BaseException):
    """The process ends here."""


@retriable
def count_up(number: int) -> int:
    return number


@saga("count", version=1)
async def counting(s: Saga, upto: int) -> None:
    for number in range(upto):
        await s.run(count_up, number)


async def filled(url: str, *, sagas: int, steps: int) -> dict[str, Whole]:
    """A store of ended sagas, as it is."""
    async with Orchestrator(url, sagas=[counting]) as running:
        handles = [await running.start(counting, steps, id=f"s-{number}") for number in range(sagas)]
        await asyncio.gather(*(handle.result() for handle in handles))
        return {handle.id: await whole(running, handle.id) for handle in handles}


async def whole(running: Orchestrator, id: str) -> Whole:
    record = await running.engine.find(id)
    return record, await running.engine.journal(record.num)


def archived(file: Path) -> dict[str, Whole]:
    """What can be read of an archive."""
    found: dict[str, Whole] = {}
    for line in file.read_bytes().splitlines() if file.exists() else ():
        try:
            record, entries = read_line(line)
        except PayloadError:
            continue  # cut short by the crash
        found[record.id] = record, entries
    return found


async def audit(url: str, file: Path, before: dict[str, Whole]) -> None:
    """Nothing is lost or half there; then the purge is ended, and nothing is left."""
    async with Orchestrator(url, worker=False) as observer:
        kept = archived(file)
        for id, was in before.items():
            if await observer.engine.store.retention.tombstones([id]):
                with pytest.raises(RunNotFound, match="was purged"):
                    await whole(observer, id)
                assert kept[id] == was
            else:
                assert await whole(observer, id) == was
        await observer.purge(older_than=0, archive=file)
        assert archived(file) == before
        assert await observer.count() == 0
        assert len(await observer.engine.store.retention.tombstones(list(before))) == len(before)
        left = await observer.engine.journals([record.num for record, _ in before.values()])
        assert not any(left.values())


@pytest.mark.parametrize("side", ["before", "after"])
def test_a_purge_that_dies_at_any_commit_is_ended_by_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, side: str
):
    """At each of its transactions, just before and just after it is on disk."""
    monkeypatch.setattr(retention, "PAGE", 2)
    monkeypatch.setattr(retention, "ENTRIES", 9)
    commit = SqliteFile.commit

    async def main() -> int:
        for point in range(1, 100):
            url, file = f"sqlite:///{tmp_path}/{point}.db", tmp_path / f"{point}.jsonl"
            before = await filled(url, sagas=3, steps=6)
            left = point

            def dying(self: SqliteFile) -> None:
                nonlocal left
                left -= 1
                if left == 0 and side == "before":
                    raise Died
                commit(self)
                if left == 0:
                    raise Died

            observer = Orchestrator(url, worker=False)
            await observer.__aenter__()
            monkeypatch.setattr(SqliteFile, "commit", dying)
            try:
                await observer.purge(older_than=0, archive=file)
            except Died:
                pass
            else:
                monkeypatch.setattr(SqliteFile, "commit", commit)
                await observer.__aexit__(None, None, None)
                return point
            monkeypatch.setattr(SqliteFile, "commit", commit)
            observer.engine.store.crash()  # type: ignore[attr-defined]
            await observer.__aexit__(None, None, None)
            await audit(url, file, before)
        return 0

    assert asyncio.run(main()) > 6


@pytest.mark.slow
def test_a_purge_that_is_killed_loses_nothing(tmp_path: Path):
    """SIGKILL as soon as the first saga is gone."""
    url, file = f"sqlite:///{tmp_path}/sagas.db", tmp_path / "archive.jsonl"
    before = asyncio.run(filled(url, sagas=400, steps=20))
    command = [sys.executable, "-c", "from sagas.cli import main; main()", "purge", "--older-than", "0"]
    purge = forked.Process(
        [*command, "--archive", str(file), "--store", url], cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}
    )
    give_up_at = time.monotonic() + 60
    connection = sqlite3.connect(f"file:{tmp_path}/sagas.db?mode=ro", uri=True)
    while not connection.execute("SELECT count(*) FROM tombstones").fetchone()[0]:
        assert purge.poll() is None
        assert time.monotonic() < give_up_at
        time.sleep(0.001)
    purge.send_signal(signal.SIGKILL)
    purge.wait()
    (left,) = connection.execute("SELECT count(*) FROM runs").fetchone()
    connection.close()
    assert 0 < left < 400
    asyncio.run(audit(url, file, before))


def test_two_purges_do_not_write_one_archive(tmp_path: Path):
    """The second is refused before it removes anything."""
    url, file = f"sqlite:///{tmp_path}/sagas.db", tmp_path / "archive.jsonl"

    async def main() -> None:
        before = await filled(url, sagas=5, steps=1)
        async with Orchestrator(url, worker=False) as observer:
            with (
                contextlib.closing(ArchiveFile(str(file))),
                pytest.raises(StoreError, match="another process writes to the archive"),
            ):
                await observer.purge(older_than=0, archive=file)
            assert await observer.count() == 5
        await audit(url, file, before)

    asyncio.run(main())
