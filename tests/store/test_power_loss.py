"""SQLite files after a power cut at any moment: whatever the disk kept or tore, no acknowledged row is lost."""

import asyncio
import os
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest

from durable_core.layer import EntryKind
from durable_core.model.run import RunStatus
from durable_core.ports import Batch
from durable_core.stores.sqlite.file import SqliteFile
from durable_core.stores.sqlite.store import Durability, SqliteStore
from durable_core.testing import FaultyStore
from durable_core.testing.store_rows import new_batch, new_entry, new_run, new_update
from sagas import Saga, saga
from tests.kit import End, Refused, World, end_of, orchestrator, watched
from tests.store.disk import Recorder, below_sqlite
from tests.store.power_cuts import Image, images

THOROUGH = "SAGAS_SOAK" in os.environ


@attrs.define
class Writer:
    """Writes one batch after the other."""

    recorder: Recorder
    durability: Durability
    path: Path
    written: int = 0

    async def opened(self, worker: str, *, pages: int) -> SqliteStore:
        """A store that copies its log to the database as soon as it has that many pages."""
        store = SqliteStore(str(self.path), durability=self.durability)
        await store.open(worker=worker)
        store._database.file.connection.execute(f"PRAGMA wal_autocheckpoint = {pages}")
        return store

    async def write(self, store: SqliteStore) -> None:
        """Start a run, journal two entries of it, and end the one before: acknowledged together, or not at all."""
        num = self.written = self.written + 1
        batch = new_batch(
            starts=[new_run(num, f"r{num}")],
            entries=[new_entry(num, seq, payload=b"x" * 700) for seq in (1, 2)],
            updates=[new_update(num - 1, status=RunStatus.COMPLETED, ended_at_ns=9)] if num > 1 else [],
        )
        assert await store.journal.commit(batch) == frozenset()
        self.recorder.acknowledge()


async def one_process(writer: Writer) -> None:
    """A store is made, written to, closed and opened again, and its log is copied to the database as it goes on."""
    for _ in range(2):
        store = await writer.opened("w1", pages=12)
        for _ in range(3):
            await writer.write(store)
        await store.close()


async def two_processes(writer: Writer) -> None:
    """Two stores write in turn, and both copy the log; one ends without a word while the other goes on."""
    one, two = await writer.opened("w1", pages=8), await writer.opened("w2", pages=8)
    for store in (one, two, one):
        await writer.write(store)
    one.crash()
    await writer.write(two)
    await two.close()


Workload = Callable[[Writer], Coroutine[Any, Any, None]]


def recorded(workload: Workload, directory: Path, durability: Durability = "power") -> list[Image]:
    """Do ``workload`` in ``directory``; the images that a cut during it could leave."""
    directory.mkdir()
    recorder = Recorder(str(directory))
    with below_sqlite(recorder):
        asyncio.run(workload(Writer(recorder, durability, directory / "x.db")))
    return images(recorder.ops, thorough=THOROUGH)


def batches_on(directory: Path) -> int:
    """How many batches the file holds after it is opened again, in order and each as a whole."""
    file = SqliteFile.open(str(directory / "x.db"), worker=None, synchronous="NORMAL")
    try:
        runs = file.connection.execute("SELECT num, status FROM runs ORDER BY num").fetchall()
        entries = file.connection.execute("SELECT run, seq FROM journal ORDER BY run, seq").fetchall()
        assert file.connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    finally:
        file.crash()
    count = len(runs)
    assert runs == [(num, "completed" if num < count else "pending") for num in range(1, count + 1)]
    assert entries == [(num, seq) for num in range(1, count + 1) for seq in (1, 2)]
    return count


def lost(found: list[Image], directory: Path) -> Iterator[Image]:
    """The images on which something is missing that was acknowledged."""
    directory.mkdir()
    for image in found:
        image.lay(directory)
        try:
            there = batches_on(directory)
        except Exception as error:
            raise AssertionError(f"{image} cannot be used") from error
        if there < image.acknowledged:
            yield image


@pytest.mark.parametrize("workload", [one_process, two_processes])
def test_a_power_cut_at_any_moment_loses_nothing_acknowledged(workload: Workload, tmp_path: Path):
    """With the default settings every image opens, and has all acknowledged batches; each batch is whole or absent."""
    found = recorded(workload, tmp_path / "recorded")
    assert len(found) > 400, "the workload has fewer writes than this test supposes"
    assert list(lost(found, tmp_path / "laid")) == []


def test_without_synchronous_commits_a_power_cut_loses_what_was_acknowledged(tmp_path: Path):
    """``durability="process"`` gives this up, and the images show it: so they can tell."""
    found = recorded(one_process, tmp_path / "recorded", "process")
    assert next(lost(found, tmp_path / "laid"), None) is not None


# -- a saga ------------------------------------------------------------------------------------------------------------

STEPS = {name: watched(name) for name in ("reserve", "charge", "ship")}


@saga("order", version=1)
async def order(s: Saga) -> str:
    return " ".join([await s.run(step) for step in STEPS.values()])


async def play(store: Any, world: World) -> End:
    """Start the saga, or find it, and see it end."""
    async with orchestrator(store, order, resources=[world]) as running:
        return await end_of(await running.start(order, id="one"), running)


def rejecting() -> World:
    return World().plan("ship", "refused")


def test_a_saga_goes_on_after_a_power_cut(tmp_path: Path):
    """After a cut at any moment it is rolled back all the same, and no step or undo that was recorded runs again."""
    (tmp_path / "recorded").mkdir()
    recorder, done = Recorder(str(tmp_path / "recorded")), [Counter[str]()]
    store = FaultyStore(SqliteStore(str(tmp_path / "recorded" / "x.db")))

    def acknowledged(batch: Batch) -> None:
        recorder.acknowledge()
        ended = (entry.key for entry in batch.entries if entry.kind == EntryKind.SUCCEEDED)
        done.append(done[-1] + Counter(ended))

    store.after_commit = acknowledged
    with below_sqlite(recorder):
        end = asyncio.run(play(store, rejecting()))
    assert (end.status, end.error[0], end.undone) == ("compensated", Refused, ("charge", "reserve"))
    (tmp_path / "laid").mkdir()
    drastic = [image for image in images(recorder.ops) if not image.kept and image.acknowledged]
    assert len(drastic) > 5
    for image in drastic:
        image.lay(tmp_path / "laid")
        world = rejecting()
        assert asyncio.run(play(SqliteStore(str(tmp_path / "laid" / "x.db")), world)) == end
        again = {f"{call.step}~undo" if call.compensating else call.step for call in world.calls}
        assert not again & set(done[image.acknowledged])
