"""A store that lives for years: what is removed from it, what never is, and what stays of what was removed."""

import asyncio
import os
import resource as resource_limits
import threading
from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path

import pytest

from durable_core import read_line
from durable_core.engine import retention
from durable_core.errors import StoreError
from durable_core.layer import JournalEntry, RunRecord, to_ns
from durable_core.model.archive import line_of
from durable_core.ports import Batch
from durable_core.testing import FaultyStore, ManualClock
from sagas import (
    DefinitionError,
    Orchestrator,
    Saga,
    SagaCompensated,
    SagaExists,
    SagaKilled,
    SagaNotFound,
    SagaStuck,
    retriable,
    saga,
)
from tests.kit import Place, World, begun, entered, party, play, until, within

book, held, unsure = party("book"), party("held"), party("unsure")
DAY = timedelta(days=1)


@saga("trip", version=1)
async def trip(s: Saga, about: str) -> str:
    return await s.run(book, about)


@saga("gated", version=1)
async def gated(s: Saga) -> str:
    return await s.run(held, "h")


@saga("sleeper", version=1)
async def sleeper(s: Saga) -> None:
    await s.run(book, "b")
    await s.sleep(timedelta(days=365))


@saga("doubtful", version=1)
async def doubtful(s: Saga) -> None:
    await s.run(unsure, "u")


@retriable(name="count")
def count_up(number: int) -> int:
    return number


@saga("long", version=1)
async def long_one(s: Saga, count: int) -> None:
    for number in range(count):
        await s.run(count_up, number)


SAGAS = (trip, gated, sleeper, doubtful, long_one)
NEVER = {"first": 0.0}


async def ended(running: Orchestrator, *ids: str) -> None:
    """Sagas of these ids, which have completed."""
    for id in ids:
        await (await running.start(trip, f"about {id}", id=id)).result()


async def ids(running: Orchestrator) -> set[str]:
    """The sagas that there are."""
    return {info.id for info in await running.list(limit=1000)}


async def everything(running: Orchestrator, id: str) -> tuple[RunRecord, list[JournalEntry]]:
    """All that the store holds about a saga."""
    record = await running.engine.find(id)
    return record, await running.engine.journal(record.num)


# -- retention ---------------------------------------------------------------------------------------------------------


async def test_a_worker_purges_what_ended_a_retention_ago(place: Place):
    """A saga is there until its retention is over, and then gone, without anybody asking; later ones stay."""
    clock = ManualClock()
    async with place.orchestrator(*SAGAS, world=World(), clock=clock, retention=30 * DAY) as running:
        await ended(running, "first")
        await clock.advance(10 * DAY)
        await ended(running, "second")
        await clock.advance(20 * DAY - timedelta(seconds=1))
        assert await ids(running) == {"first", "second"}
        await clock.advance(1)
        assert await ids(running) == {"second"}
        await clock.advance(10 * DAY)
        assert await ids(running) == set()


async def test_without_a_retention_everything_stays(place: Place):
    """The default is for ever, and no timer of ours moves a clock that jumps to the next one."""
    clock = ManualClock()
    async with place.orchestrator(*SAGAS, world=World(), clock=clock) as running:
        await ended(running, "a")
        await clock.advance(3650 * DAY)
        assert await ids(running) == {"a"}
        assert clock._next_ns() is None


async def test_what_ended_while_no_worker_ran_is_purged_at_the_next_start(place: Place):
    """A worker looks as soon as it starts; one that only observes never purges."""
    clock = ManualClock()
    async with place.orchestrator(*SAGAS, world=World(), clock=clock) as running:
        await ended(running, "a")
    await clock.advance(31 * DAY)
    async with place.orchestrator(world=World(), clock=clock, retention=30 * DAY, worker=False) as observer:
        await clock.advance(DAY)
        assert await ids(observer) == {"a"}
    async with place.orchestrator(world=World(), clock=clock, retention=30 * DAY) as running:
        await clock.idle()
        assert await ids(running) == set()


async def test_two_workers_with_a_retention_purge_each_saga_once(place: Place):
    """Both look, each saga has one tombstone, and neither minds the other."""
    clock = ManualClock()
    options = {"clock": clock, "retention": DAY}
    async with place.orchestrator(*SAGAS, world=World(), **options) as one:
        await ended(one, *map(str, range(250)))
        async with place.orchestrator(*SAGAS, world=World(), **options) as two:
            await clock.advance(DAY + timedelta(hours=2))
            assert await ids(one) == await ids(two) == set()
            stones = await one.engine.store.retention.tombstones([str(number) for number in range(250)])
            assert len(stones) == 250


async def test_a_background_purge_outlives_a_store_in_trouble(place: Place, caplog: pytest.LogCaptureFixture):
    """What fails is logged and tried again at the next look; sagas go on meanwhile."""
    clock = ManualClock()
    running = place.orchestrator(*SAGAS, world=World(), clock=clock, retention=DAY)
    store = running.engine.store = FaultyStore(running.engine.store)
    async with running:
        await ended(running, "a")
        failing = True

        async def sweep(*, limit: int) -> object:
            if failing:
                raise StoreError("no sweeping today", transient=True)
            return await works(limit=limit)

        works = store.retention.sweep
        store.retention.sweep = sweep  # type: ignore[method-assign]
        await clock.advance(DAY)
        assert "no sweeping today" in caplog.text
        failing = False
        await ended(running, "b")
        await clock.advance(timedelta(hours=2))
        assert await ids(running) == {"b"}


# -- which sagas -------------------------------------------------------------------------------------------------------


async def test_open_and_stuck_sagas_are_never_purged(place: Place):
    """Whatever their age: running, sleeping and stuck ones stay; every kind of end goes."""
    clock = ManualClock()
    world = World().plan("unsure", "lost").plan("book", "ok", "ok", "ok", "refused")
    world.gate("held")
    async with place.orchestrator(*SAGAS, world=world, clock=clock) as running:
        await ended(running, "completed")
        await begun(await running.start(sleeper, id="asleep"), running, "sleep")
        await running.start(gated, id="running")
        await entered(world.gates["held"], running)
        with pytest.raises(SagaStuck):
            await (await running.start(doubtful, id="stuck")).result()
        killed = await running.start(sleeper, id="killed")
        await begun(killed, running, "sleep")
        await running.kill("killed")
        with pytest.raises(SagaKilled):
            await killed.result()
        with pytest.raises(SagaCompensated):
            await (await running.start(trip, "x", id="compensated")).result()
        await clock.advance(100 * DAY)
        before = [await everything(running, id) for id in ("asleep", "running", "stuck")]
        report = await running.purge(older_than=99 * DAY)
        assert report.runs == 3
        assert await ids(running) == {"asleep", "running", "stuck"}
        assert [await everything(running, id) for id in ("asleep", "running", "stuck")] == before
        with pytest.raises(SagaNotFound):
            await running.rollback("killed")
        await running.resolve("stuck", "unsure", happened=False)
        world.gates["held"].opened.set()
        assert await (await running.get("running")).result() == "h"


async def test_age_name_and_limit_narrow_a_purge(place: Place):
    """Only the asked for are purged, the longest ended first, and a dry run only counts them."""
    clock = ManualClock()
    async with place.orchestrator(*SAGAS, world=World(), clock=clock) as running:
        for id in ("a", "b", "c", "d"):
            await ended(running, id)
            await clock.advance(DAY)
        await (await running.start(long_one, 2, id="long")).result()
        assert (await running.purge(older_than=2 * DAY, dry_run=True)).runs == 3
        assert (await running.purge(older_than=2 * DAY, dry_run=True, limit=1)).runs == 1
        assert await ids(running) == {"a", "b", "c", "d", "long"}
        report = await running.purge(older_than=2 * DAY, limit=2)
        assert (report.runs, report.archived, report.dry_run) == (2, 0, False)
        assert await ids(running) == {"c", "d", "long"}
        assert (await running.purge(older_than=0, saga="long")).runs == 1
        assert (await running.purge(older_than=2 * DAY + timedelta(seconds=1))).runs == 0
        assert (await running.purge(older_than=to_ns(2 * DAY) / 1e9)).runs == 1
        assert (await running.purge(older_than=0, limit=0)).runs == 0
        assert await ids(running) == {"d"}


@pytest.mark.parametrize("age", [-1, float("nan"), float("inf"), timedelta(days=-1), 1e12, None, True, False, "30d"])
async def test_an_age_that_makes_no_sense_is_refused(age: object):
    """Nothing is purged by a slip."""
    async with Orchestrator("memory://", sagas=SAGAS, resources=[World()]) as running:
        await ended(running, "a")
        with pytest.raises(DefinitionError):
            await running.purge(older_than=age)  # type: ignore[arg-type]
        assert await ids(running) == {"a"}


# -- what stays of a purged saga ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("free", [False, True])
async def test_a_start_that_meets_a_purge_knows_what_became_of_the_id(
    place: Place, monkeypatch: pytest.MonkeyPatch, *, free: bool
):
    """Purged right after the start was refused, the saga is told to have been; and where its id is free, it begins."""
    clock, world = ManualClock(), World()
    async with place.orchestrator(*SAGAS, world=world, clock=clock) as running:
        await ended(running, "a")
        await clock.advance(DAY)
        store = running.engine.store
        commit = store.journal.commit

        async def then_purge(batch: Batch) -> frozenset[int]:
            refused = await commit(batch)
            if refused:
                monkeypatch.undo()
                await retention.purge(store, clock, plan)
                await store.retention.forget(now_ns=clock.now_ns(), limit=10)
            return refused

        plan = retention.Purging(before_ns=clock.now_ns(), id_retention_ns=0 if free else None)
        monkeypatch.setattr(store.journal, "commit", then_purge)
        if not free:
            with pytest.raises(SagaExists) as refused:
                await running.start(trip, "about a", id="a")
            assert refused.value.purged_at_ns == clock.now_ns()
        else:
            await (await running.start(trip, "about a", id="a")).result()
        assert world.count("book") == (2 if free else 1)


async def test_a_purged_id_is_known_and_refused_until_its_retention_is_over(place: Place):
    """It is not run again: start and get say when it was purged, also of a child; after `id_retention=` it is free."""
    clock, world = ManualClock(), World()
    async with place.orchestrator(*SAGAS, world=world, clock=clock, id_retention=7 * DAY) as running:
        await ended(running, "a")
        handle = await running.get("a")
        await clock.advance(DAY)
        purged_at_ns = clock.now_ns()
        assert (await running.purge(older_than=0)).runs == 1
        with pytest.raises(SagaExists, match="2030-01-02 00:00:00 UTC") as refused:
            await running.start(trip, "about a", id="a")
        assert (refused.value.run_id, refused.value.purged_at_ns) == ("a", purged_at_ns)
        assert world.count("book") == 1
        for ask in (
            lambda: running.get("a"),
            lambda: running.info("a"),
            lambda: running.get("a/book"),
            lambda: running.cancel("a"),
            handle.result,
            handle.info,
        ):
            with pytest.raises(SagaNotFound, match="2030-01-02 00:00:00 UTC") as missing:
                await ask()
            assert missing.value.purged_at_ns == purged_at_ns
        with pytest.raises(SagaNotFound) as unknown:
            await running.get("b")
        assert unknown.value.purged_at_ns is None
        await clock.advance(7 * DAY - timedelta(seconds=1))
        assert (await running.purge(older_than=0)).ids_freed == 0
        await clock.advance(1)
        assert (await running.purge(older_than=0)).ids_freed == 1
        await ended(running, "a")
        assert world.count("book") == 2


async def test_who_waits_for_a_saga_that_is_purged_is_told(place: Place):
    """A waiter in another process gets `SagaNotFound` rather than waiting for ever."""
    world = World()
    world.gate("held")
    async with (
        place.orchestrator(*SAGAS, world=world) as running,
        place.orchestrator(world=world, worker=False) as other,
    ):
        handle = await running.start(gated, id="a")
        waiting = asyncio.create_task((await other.get("a")).result())
        await entered(world.gates["held"], running)

        async def is_watched() -> bool:
            return bool(other.engine._poller.waiters.watched)

        await until(is_watched, other)
        looking, other.engine.store.changed = other.engine.store.changed, quiet  # it looks away meanwhile
        world.gates["held"].opened.set()
        await handle.result()
        assert (await running.purge(older_than=0)).runs == 1
        other.engine.store.changed = looking
        with pytest.raises(SagaNotFound, match="purged"):
            await within(waiting, other)  # type: ignore[arg-type]


async def quiet() -> bool:
    """Nothing has changed."""
    return False


# -- the archive -------------------------------------------------------------------------------------------------------


async def test_an_archive_read_back_is_what_was_there(place: Place, tmp_path: Path):
    """Row and journal, byte for byte, of every kind of end; appended to what is there; for its owner only."""
    file = tmp_path / "archive.jsonl"

    world = World().plan("book", "ok", "refused", "ok")
    async with place.orchestrator(*SAGAS, world=world) as running:
        await ended(running, "completed 'ünicode' \\n")
        with pytest.raises(SagaCompensated):
            await (await running.start(trip, "x", id="compensated")).result()
        await (await running.start(long_one, 30, id="long")).result()
        there = [await everything(running, id) for id in ("completed 'ünicode' \\n", "compensated", "long")]
        assert (await running.purge(older_than=0, archive=file, limit=1)).archived == 1
        assert (await running.purge(older_than=0, archive=str(file))).archived == 2
        assert [read_line(line) for line in file.read_bytes().splitlines()] == there
        assert file.stat().st_mode & 0o777 == 0o600


class Died(BaseException):
    """The process ends here."""


async def test_a_run_is_in_the_archive_before_it_is_gone(place: Place, tmp_path: Path):
    """A crash between the two leaves the saga and its line; the next purge writes the same line again."""
    file = tmp_path / "archive.jsonl"

    async with place.orchestrator(*SAGAS, world=World()) as running:
        await ended(running, "a", "b")
        store = running.engine.store = FaultyStore(running.engine.store)

        async def dies(*_: object, **__: object) -> list[int]:
            raise Died

        store.retention.purge = dies  # type: ignore[assignment, method-assign]
        with pytest.raises(Died):
            await running.purge(older_than=0, archive=file)
        assert await ids(running) == {"a", "b"}
        assert len(file.read_bytes().splitlines()) == 2
        del store.retention.purge  # type: ignore[method-assign]
        await running.purge(older_than=0, archive=file)
        assert await ids(running) == set()
        lines = file.read_bytes().splitlines()
        assert lines[:2] == lines[2:]


async def test_a_saga_that_moves_on_while_it_is_archived_is_kept(place: Place, tmp_path: Path):
    """A killed saga whose rollback is asked for amid a purge is rolled back; no operator's word is lost."""
    file = tmp_path / "archive.jsonl"

    clock, world = ManualClock(), World()
    async with place.orchestrator(*SAGAS, world=world, clock=clock) as running:
        killed = await running.start(sleeper, id="a")
        await begun(killed, running, "sleep")
        await running.kill("a")
        store = running.engine.store = FaultyStore(running.engine.store)
        find_num = store.runs.find_num

        async def amid(num: int) -> RunRecord | None:
            record = await find_num(num)
            if not file.stat().st_size:
                store.runs.find_num = find_num  # type: ignore[method-assign]
                await running.rollback("a")
            return record

        store.runs.find_num = amid  # type: ignore[method-assign]
        report = await running.purge(older_than=0, archive=file)
        assert report.runs == 0
        with pytest.raises(SagaCompensated):
            await killed.result()
        assert world.kept() == []


def unwritable(tmp_path: Path) -> str:
    return str(tmp_path / "nowhere" / "a.jsonl")


def a_directory(tmp_path: Path) -> str:
    return str(tmp_path)


def a_pipe(tmp_path: Path) -> str:
    os.mkfifo(tmp_path / "pipe")
    return str(tmp_path / "pipe")


def a_device(tmp_path: Path) -> str:
    return "/dev/full"


def another_file(tmp_path: Path) -> str:
    (tmp_path / "orders.db").write_bytes(b"SQLite format 3\0")
    return str(tmp_path / "orders.db")


@pytest.mark.parametrize(
    "where", [unwritable, a_directory, a_pipe, a_device, another_file], ids=lambda where: where.__name__
)
async def test_an_archive_that_cannot_be_written_purges_nothing(tmp_path: Path, where: Callable[[Path], str]):
    """Every saga is still there, and the message names the file."""
    path = where(tmp_path)

    async with Orchestrator("memory://", sagas=SAGAS, resources=[World()]) as running:
        await ended(running, "a")
        with pytest.raises(StoreError, match=path):
            await running.purge(older_than=0, archive=path)
        assert await ids(running) == {"a"}


async def test_a_purge_that_is_cancelled_amid_a_line_leaves_the_archive_whole(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """What its thread still writes goes nowhere else; the sagas stay, and the next purge may write the archive."""
    file = tmp_path / "archive.jsonl"
    writing, go_on = threading.Event(), threading.Event()

    def slowly(record: RunRecord, entries: Sequence[JournalEntry]) -> bytes:
        writing.set()
        go_on.wait(30)
        return line_of(record, entries)

    async with place.orchestrator(*SAGAS, world=World()) as running:
        await ended(running, "a", "b")
        monkeypatch.setattr(retention, "line_of", slowly)
        purge = asyncio.create_task(running.purge(older_than=0, archive=file))
        await asyncio.to_thread(writing.wait, 30)
        purge.cancel()
        with pytest.raises(asyncio.CancelledError):
            await purge
        other = os.open(tmp_path / "other", os.O_RDWR | os.O_CREAT)  # it may get the archive's number
        go_on.set()
        monkeypatch.setattr(retention, "line_of", line_of)
        assert await ids(running) == {"a", "b"}
        assert (await running.purge(older_than=0, archive=file)).archived == 2
        assert os.fstat(other).st_size == 0
        os.close(other)
        assert [read_line(line)[0].id for line in file.read_bytes().splitlines()] == ["a", "b"]


async def test_an_archive_that_is_removed_amid_a_purge_takes_nothing_with_it(tmp_path: Path):
    """A line in a file without a name would be lost: the purge stops before it removes what is in it."""
    file = tmp_path / "archive.jsonl"

    async with Orchestrator("memory://", sagas=SAGAS, resources=[World()]) as running:
        await ended(running, "a")
        find_num = running.engine.store.runs.find_num

        async def amid(num: int) -> RunRecord | None:
            file.unlink()
            return await find_num(num)

        running.engine.store.runs.find_num = amid  # type: ignore[method-assign]
        with pytest.raises(StoreError, match="was removed meanwhile"):
            await running.purge(older_than=0, archive=file)
        assert await ids(running) == {"a"}


async def test_an_archive_without_room_keeps_whole_lines(tmp_path: Path):
    """Where the disk is full amid a purge, what was archived before may be gone, the rest stays, and no line is cut."""
    file = tmp_path / "archive.jsonl"

    async with Orchestrator("memory://", sagas=SAGAS, resources=[World()]) as running:
        await ended(running, "a")
        await (await running.start(long_one, 50, id="long")).result()
        soft, hard = resource_limits.getrlimit(resource_limits.RLIMIT_FSIZE)
        resource_limits.setrlimit(resource_limits.RLIMIT_FSIZE, (8_000, hard))
        try:
            with pytest.raises(StoreError, match=r"archive\.jsonl"):
                await running.purge(older_than=0, archive=file)
        finally:
            resource_limits.setrlimit(resource_limits.RLIMIT_FSIZE, (soft, hard))
        assert await ids(running) == {"a", "long"}
        assert [read_line(line)[0].id for line in file.read_bytes().splitlines(keepends=True)] == ["a"]
        await running.purge(older_than=0, archive=file)
        assert [read_line(line)[0].id for line in file.read_bytes().splitlines()] == ["a", "a", "long"]


def test_a_line_cut_short_by_a_crash_spoils_no_other(tmp_path: Path):
    """The next purge begins a line of its own behind it."""
    file = tmp_path / "archive.jsonl"
    file.write_bytes(b'{"archive":1,"run":{"nu')

    async def main() -> None:
        async with Orchestrator("memory://", sagas=SAGAS, resources=[World()]) as running:
            await ended(running, "a")
            await running.purge(older_than=0, archive=file)

    play(main)
    cut, whole = file.read_bytes().splitlines()
    assert cut == b'{"archive":1,"run":{"nu'
    assert read_line(whole)[0].id == "a"


# -- amid work ---------------------------------------------------------------------------------------------------------


def test_a_purge_amid_work_disturbs_nobody(place: Place):
    """While sagas start, run and end, another process purges again and again: all end, and none runs twice."""

    async def main() -> None:
        world = World()
        async with (
            place.orchestrator(*SAGAS, world=world) as running,
            place.orchestrator(world=world, worker=False) as other,
        ):
            busy = True
            purged = 0

            async def tidy() -> None:
                nonlocal purged
                while busy:
                    purged += (await other.purge(older_than=0)).runs
                    await asyncio.sleep(0)

            tidying = asyncio.create_task(tidy())
            for turn in range(5):
                results: list[asyncio.Task[str]] = []
                for n in range(60):
                    handle = await running.start(trip, str(n), id=f"{turn}-{n}")
                    results.append(asyncio.create_task(handle.result()))
                assert await asyncio.gather(*results) == [str(n) for n in range(60)]
            busy = False
            await tidying
            purged += (await other.purge(older_than=0)).runs
            assert purged == world.count("book") == 300
            assert await ids(running) == set()
            assert (
                len(
                    await running.engine.store.retention.tombstones(
                        [f"{turn}-{n}" for turn in range(5) for n in range(60)]
                    )
                )
                == 300
            )

    play(main)


async def test_a_huge_journal_goes_in_pieces(place: Place, monkeypatch: pytest.MonkeyPatch):
    """The run is gone in the first transaction; no other removes more than a piece; one that is cut is finished."""
    monkeypatch.setattr(retention, "ENTRIES", 100)

    async with place.orchestrator(*SAGAS, world=World()) as running:
        await (await running.start(long_one, 400, id="long")).result()
        record, entries = await everything(running, "long")
        assert len(entries) > 800
        store = running.engine.store = FaultyStore(running.engine.store)
        pieces: list[int] = []

        async def sweep(*, limit: int) -> object:
            piece = await works(limit=limit)
            pieces.append(piece.entries)
            assert await ids(running) == (set() if any(pieces) else {"long"})  # on a busy machine a piece may be empty
            if sum(pieces) >= 200:
                raise Died
            return piece

        works = store.retention.sweep
        store.retention.sweep = sweep  # type: ignore[method-assign]
        with pytest.raises(Died):
            await running.purge(older_than=0)
        with pytest.raises(SagaNotFound, match="purged"):
            await running.get("long")
        assert 0 < len(await running.engine.journal(record.num)) < len(entries)
        del store.retention.sweep  # type: ignore[method-assign]
    async with place.orchestrator(*SAGAS, world=World()) as running:

        async def finished() -> bool:
            return await running.engine.journal(record.num) == []

        await until(finished, running)
        assert pieces[0] == 0
        assert 0 < max(pieces) <= 100
