"""Lists of sagas, page by page: their order, what a summary tells, and that no journal is read for it."""

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import attrs
import pytest

from durable_core.layer import Store
from sagas import (
    DefinitionError,
    Orchestrator,
    Retry,
    Saga,
    SagaInfo,
    SagaNotFound,
    SagaStuck,
    SagaSummary,
    lookup,
    retriable,
    saga,
    step,
)
from sagas import blocking as threads
from sagas.testing import ManualClock
from tests.kit import Broken, Place, orchestrator, until


@lookup
async def look(number: int) -> int:
    return number


@retriable(retry=Retry.forever(first=3600, jitter=False))
async def never(number: int) -> None:
    raise Broken("not today")


@saga("order", version=1)
async def order(s: Saga, number: int) -> int:
    return await s.run(look, number)


@saga("sleeping", version=1)
async def sleeping(s: Saga) -> None:
    await s.sleep(timedelta(days=1))


@saga("asking", version=1)
async def asking(s: Saga, count: int) -> None:
    asked = [await s.callback(f"approval-{number}", bool, timeout=3600 * (number + 1)) for number in range(count)]
    await s.first(*asked)


@saga("retrying", version=1)
async def retrying(s: Saga) -> None:
    await s.run(never, 1)


@saga("broken", version=1)
async def broken(s: Saga) -> None:
    await s.run(look, 1)
    await anext(aiter_of(s))  # nothing that a body may await


@step
async def hold(number: int) -> int:
    return number


@hold.compensate(retry=1)
async def release(number: int) -> None:
    raise Broken("still held")


@saga("holding", version=1)
async def holding(s: Saga) -> None:
    await s.run(hold, 1)
    raise Broken("the body's own")


async def aiter_of(_: Saga) -> AsyncIterator[int]:
    yield await Foreign()


class Foreign:
    def __await__(self) -> Any:
        yield self


async def test_pages_follow_each_other(place: Place):
    """By a summary or an id, in both orders, and with filters; each saga comes once, also where times are equal."""
    async with orchestrator(place.store, order, clock=ManualClock()) as running:
        for number in range(7):
            await (await running.start(order, number, id=f"o-{number}", tags={"odd": str(number % 2)})).result()
        newest = [each.id for each in await running.list()]
        assert newest == [f"o-{number}" for number in reversed(range(7))]
        page = await running.list(limit=3)
        assert [each.id for each in await running.list(limit=3, after=page[-1])] == ["o-3", "o-2", "o-1"]
        assert [each.id for each in await running.list(after="o-1")] == ["o-0"]
        assert await running.list(after="o-0") == []
        assert [each.id for each in await running.list(order="oldest", after="o-4")] == ["o-5", "o-6"]
        assert [each.id for each in await running.list(tags={"odd": "1"}, after="o-4")] == ["o-3", "o-1"]
        assert [each.id async for each in running.scan(tags={"odd": "0"}, order="oldest")] == [
            "o-0",
            "o-2",
            "o-4",
            "o-6",
        ]


async def test_a_page_may_begin_behind_a_purged_saga(place: Place):
    """Its place is known as long as its id is; of an id that nobody ever had there is none."""
    async with orchestrator(place.store, order) as running:
        for number in range(3):
            await (await running.start(order, number, id=f"o-{number}")).result()
        page = await running.list(limit=2)
        await running.purge(older_than=0, limit=2)
        assert page[-1].id == "o-1"
        await (await running.start(order, 3, id="o-3")).result()
        assert [each.id for each in await running.list(after=page[-1], order="oldest")] == ["o-2", "o-3"]
        with pytest.raises(SagaNotFound, match="'o-9'"):
            await running.list(after="o-9")


async def test_a_scan_walks_over_many_pages_while_sagas_go():
    """More than a page, in order; what is purged behind it changes nothing."""
    async with orchestrator("memory://", order) as running:
        for number in range(250):
            await running.start(order, number, id=f"o-{number:03}")
        await until(lambda: _all_ended(running), running)
        found: list[str] = []
        async for each in running.scan(order="oldest"):
            found.append(each.id)
            if len(found) == 130:
                await running.purge(older_than=0, limit=140)
        assert found == [f"o-{number:03}" for number in (*range(200), *range(200, 250))]


async def _all_ended(running: Orchestrator) -> bool:
    return await running.count(status="completed") == 250


async def test_an_unknown_order_is_refused():
    """Before anything is read."""
    async with orchestrator("memory://", order) as running:
        with pytest.raises(DefinitionError, match="newest"):
            await running.list(order="by name")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        with pytest.raises(DefinitionError, match="newest"):
            await anext(running.scan(order="by name"))  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


SAGAS = (order, sleeping, asking, retrying, broken, holding)


async def in_every_state(running: Orchestrator) -> None:
    """A saga that has completed, one that is stuck, and some that wait."""
    await (await running.start(order, 1, id="ended")).result()
    await running.start(sleeping, id="sleeping")
    await running.start(asking, 1, id="asking")
    await running.start(asking, 5, id="asking much")
    await running.start(retrying, id="retrying")
    for definition in (broken, holding):
        with pytest.raises(SagaStuck):
            await (await running.start(definition, id=definition.name)).result()
    await until(lambda: _waiting(running), running)


async def _waiting(running: Orchestrator) -> bool:
    return await running.count(status="waiting") == 4


async def test_a_summary_tells_what_the_whole_saga_tells(place: Place):
    """All but input, result and steps: also what it waits for or is stuck on; and ``status()`` is the same."""
    clock = ManualClock()
    async with place.orchestrator(*SAGAS, clock=clock) as running:
        await in_every_state(running)
        listed = {each.id: each for each in await running.list()}
        for id, each in listed.items():
            info = await running.info(id)
            told = {name: getattr(info, name) for name in FIELDS}
            assert type(each) is SagaSummary
            assert {name: getattr(each, name) for name in FIELDS} | {"error": None} == told | {"error": None}
            assert repr(each.error) == repr(info.error)
            assert await (await running.get(id)).status() is each.status
        due = clock.now() + timedelta(hours=1)
        when = f"{due:%Y-%m-%d %H:%M}"
        reasons = {id: each.reason or "" for id, each in listed.items()}
        assert reasons["ended"] == ""
        assert reasons["sleeping"].startswith("waits for sleep 'sleep' until ")
        assert reasons["asking"].startswith(f"waits for callback 'approval-0' until {when}")
        assert reasons["asking much"].endswith("UTC, and 2 more")
        assert reasons["retrying"].startswith(f"waits for attempt 2 of step 'never' at {when}")
        assert "may await only its own operations" in reasons["broken"]
        assert listed["holding"].stuck_on == ("hold",)
        assert repr(listed["holding"].error) == "Broken('still held')"


FIELDS = [each.name for each in attrs.fields(SagaSummary)]


def test_a_summary_is_all_but_input_result_and_steps():
    """The fields of ``SagaInfo`` without those three."""
    assert {each.name for each in attrs.fields(SagaInfo)} - set(FIELDS) == {"input", "result", "steps"}
    assert issubclass(SagaInfo, SagaSummary)


async def test_neither_lists_nor_status_read_a_journal(place: Place, monkeypatch: pytest.MonkeyPatch):
    """A page of sagas, a walk through all and one status come from rows alone."""
    async with place.orchestrator(*SAGAS, clock=ManualClock()) as running:
        await in_every_state(running)
        store: Store = running.engine.store

        async def load(_: object) -> None:
            raise AssertionError("a journal was read")

        monkeypatch.setattr(store.journal, "load", load)
        assert len(await running.list()) == len([each async for each in running.scan()]) == 7
        assert await (await running.get("broken")).status() == "stuck"
        monkeypatch.undo()


def test_the_blocking_orchestrator_walks_too():
    """Page by page, as a plain iterator; what is wrong is raised where it begins."""
    with threads.Orchestrator("memory://", sagas=[order]) as running:
        for number in range(230):
            running.start(order, number, id=f"o-{number:03}")
        assert [each.id for each in running.scan(order="oldest")] == [f"o-{number:03}" for number in range(230)]
        assert next(running.scan()).id == "o-229"
        with pytest.raises(DefinitionError, match="no status"):
            next(running.scan(status="stcuk"))
