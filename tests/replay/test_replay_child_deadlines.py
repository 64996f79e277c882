"""Wherever its journal breaks off, and however late it is taken up, a child's deadline leads to the same end."""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from durable_core.layer import EntryKind, JournalEntry
from durable_core.model.run import NewRun, RunRecord
from durable_core.ports import Batch
from durable_core.stores.memory.data import MemoryData
from durable_core.stores.memory.store import MemoryStore
from sagas import Orchestrator, Retry, Saga, SagaCompensated, lookup, resource, saga, step
from sagas.testing import ManualClock
from tests.crash.mortal import Auditor, Moment, Side, live
from tests.kit import Broken, End, World, end_of, orchestrator

MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)
START = datetime(2030, 1, 1, tzinfo=UTC)


def act(name: str) -> Any:
    """A step of that name."""

    @step(name=name)
    async def done(*, world: World = resource()) -> str:
        await world.act()
        return name

    @done.compensate
    async def undone(_: str, *, world: World = resource()) -> None:
        await world.act()

    return done


begin, one, two, three, never, last = map(act, ("begin", "one", "two", "three", "never", "last"))


@lookup(retry=Retry(attempts=3, first=HOUR, jitter=False))
async def flaky() -> None:
    """Fails, and is tried again after an hour."""
    raise Broken


async def branch(s: Saga) -> None:
    await s.run(two)
    await s.sleep(HOUR)
    await s.run(never)


@saga("inner", version=1, deadline=HOUR / 2)
async def inner(s: Saga) -> None:
    await branch(s)


@saga("kid", version=1, deadline=MINUTE)
async def kid(s: Saga, how: str) -> str:
    await s.run(one)
    if how == "sleep":
        await branch(s)
    elif how == "retry":
        await s.run(flaky)
    elif how == "parallel":
        async with s.parallel() as p:
            p.run(branch)
            p.run(three)
            p.run(flaky)
    elif how == "nested":
        await s.run(inner)
    elif how == "callback":
        await (await s.callback("approval", str)).result()
    return await s.run(never)


@saga("parent", version=1)
async def parent(s: Saga, how: str) -> list[str]:
    await s.run(begin)
    try:
        await s.run(kid, how)
    except SagaCompensated as gone:
        return [gone.cause, *sorted(gone.compensated), await s.run(last)]
    return []


WAYS = {
    "sleep": ["kid/one", "kid/two"],
    "retry": ["kid/one"],
    "parallel": ["kid/branch/two", "kid/one", "kid/three"],
    "nested": ["kid/inner/two", "kid/one"],
    "callback": ["kid/one"],
}
every_way = pytest.mark.parametrize("how", WAYS)


async def straight(how: str) -> tuple[End, RunRecord, list[JournalEntry]]:
    """The saga, undisturbed."""
    store = MemoryStore()
    async with orchestrator(store, parent, resources=[World()], clock=ManualClock(START, auto=True)) as running:
        end = await end_of(await running.start(parent, how, id="one"), running)
        (row,) = await store.runs.find(["one"])
        return end, row, (await store.journal.load([row.num]))[row.num]


async def resumed(row: RunRecord, prefix: Sequence[JournalEntry], now: datetime) -> tuple[End, World]:
    """The same saga, taken up at ``now`` by a new process from a journal that breaks off."""
    store = MemoryStore()
    await store.open(worker=None)
    num = store.journal.next_num()
    new = NewRun(
        num, row.id, row.uid, row.name, row.version, "running", None, 0, None, row.input, None, row.created_at_ns
    )
    await store.journal.commit(Batch(starts=[new], entries=[entry._replace(run=num) for entry in prefix]))
    await store.close()
    world = World()
    async with orchestrator(store, parent, resources=[world], clock=ManualClock(now, auto=True)) as running:
        return await end_of(await running.get(row.id), running), world


def at(prefix: Sequence[JournalEntry]) -> datetime:
    """The time of the last entry."""
    return START if not prefix else datetime.fromtimestamp(prefix[-1].at_ns / 1e9, UTC)


@every_way
@pytest.mark.parametrize("late", [timedelta(0), 3 * HOUR], ids=["at once", "late"])
def test_it_comes_to_the_same_end_from_every_prefix(how: str, late: timedelta):
    """At once or hours later: the same part is undone for the same cause, nothing is done again, nothing left out.

    Once the deadline has passed nobody begins another step of that part: only what the crash has cut is called again.
    """

    async def main() -> None:
        end, row, journal = await straight(how)
        assert end == End("completed", ["deadline", *WAYS[how], "last"])
        fired = next(entry.seq for entry in journal if entry.kind == EntryKind.FIRED)
        for length in range(len(journal)):
            prefix = journal[:length]
            about = f"after {length} entries, the last {prefix[-1].kind if prefix else 'none'}"
            again, world = await resumed(row, prefix, at(prefix) + late)
            forward = {info.step for info in world.calls if not info.compensating}
            done = {entry.key for entry in prefix if entry.kind == EntryKind.SUCCEEDED}
            assert not forward & done, f"{about}: done again"
            assert not {f"{info.step}~undo" for info in world.calls if info.compensating} & done, (
                f"{about}: undone again"
            )
            assert again.status == "completed", about
            assert again.value[0] == "deadline", about
            assert again.value[-1] == "last", about
            opened = any(entry.kind == EntryKind.MARKED and entry.key == "child:kid" for entry in prefix)
            if late and opened and length < fired:
                begun = {entry.key for entry in prefix if entry.kind in (EntryKind.STARTED, EntryKind.RETRIED)}
                assert {key for key in forward if key.startswith("kid/")} <= begun, f"{about}: begun after the deadline"
            else:
                assert again == end, about

    asyncio.run(main())


@pytest.mark.parametrize("late", [timedelta(0), 3 * HOUR], ids=["at once", "late"])
def test_a_step_that_was_announced_and_withheld_does_not_begin_after_the_deadline(late: timedelta):
    """Its worker was leaving and never called it: in time it is called by the next one, and too late by none."""

    async def main() -> None:
        _, row, journal = await straight("sleep")
        announced = next(entry for entry in journal if entry.kind == EntryKind.STARTED and entry.key == "kid/two")
        kept = EntryKind.WITHHELD.value
        withheld = announced._replace(seq=announced.seq + 1, kind=kept, label="", payload=None)
        prefix = [*journal[: announced.seq], withheld]
        again, world = await resumed(row, prefix, at(prefix) + late)
        assert again.value == ["deadline", "kid/one", *([] if late else ["kid/two"]), "last"]
        assert ("kid/two" in world.called()) == (not late)

    asyncio.run(main())


@every_way
@pytest.mark.parametrize("side", ["before", "after"])
def test_a_process_that_dies_at_any_commit(how: str, side: Side):
    """Cut at each commit, taken up by the next process: the part is undone once, and its parent goes on."""

    async def start(running: Orchestrator) -> End:
        return await end_of(await running.start(parent, how, id="one"), running)

    commit, again = 0, None
    while again is None:
        commit += 1
        data = MemoryData()
        world = Auditor(data=data)
        death = Moment(side, commit=commit)
        again = live(data, world, start, parent, death=death, clock=ManualClock(START, auto=True))
        end = again or live(data, world, start, parent, clock=ManualClock(START + 2 * MINUTE, auto=True))
        assert (end.status, end.value[0], end.value[-1]) == ("completed", "deadline", "last")
        assert world.kept() == ["begin", "last"]
        assert "kid/never" not in world.called()
        assert all(len(keys) == 1 for keys in world.keys().values())
    assert commit > 4, "there are fewer commits than this test supposes"
