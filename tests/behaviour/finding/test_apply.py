"""One verb on many sagas: which it reaches, what it reports, and that what was done stays done."""

from typing import Any

import pytest

from sagas import BulkReport, DefinitionError, Orchestrator, PayloadError, Saga, StoreError, pivot, saga, step
from sagas import blocking as threads
from tests.kit import Broken, Place, orchestrator, until

SHUT: set[str] = set()
"""Holds ``shut`` while undoing fails."""
FULL: set[str] = set()
"""Holds ``full`` while a trip fails."""


@step(retry=1)
async def book(number: int) -> int:
    return number


@book.compensate(retry=1)
async def cancel_booking(number: int) -> None:
    if SHUT:
        raise Broken("shut")


@pivot
async def pay(number: int) -> int:
    return number


@saga("trip", version=1)
async def trip(s: Saga, number: int) -> None:
    await s.run(book, number)
    if FULL:
        raise Broken("no trip")


@saga("sleeping", version=1)
async def sleeping(s: Saga, number: int) -> None:
    await s.run(book, number)
    if number % 2:
        await s.run(pay, number)
    await s.sleep(3600)


@pytest.fixture(autouse=True)
def shut() -> Any:
    """Undoing fails until a test opens the shop."""
    SHUT.add("shut")
    FULL.add("full")
    yield
    SHUT.clear()


async def stuck(running: Orchestrator, count: int) -> None:
    """So many stuck sagas, ``t-0`` on; the even ones are tagged."""
    for number in range(count):
        tags = {} if number % 2 else {"customer": "42"}
        await running.start(trip, number, id=f"t-{number}", tags=tags)
    await until(lambda: numbers(running, "stuck", count), running)


async def numbers(running: Orchestrator, status: str, count: int) -> bool:
    """Whether so many sagas stand so."""
    return await running.count(status=status) == count


async def test_it_reaches_what_the_filter_finds_and_no_more(place: Place):
    """Each is told in its own journal, with actor and note; a dry run tells none; a second time nothing is left."""
    async with orchestrator(place.store, trip, sleeping) as running:
        await stuck(running, 5)
        SHUT.clear()
        asked: dict[str, Any] = {"status": "stuck", "saga": "trip", "tags": {"customer": "42"}}
        assert await running.apply("retry", **asked, dry_run=True) == BulkReport(matched=3, done=0, refused={})
        assert await numbers(running, "stuck", 5)
        report = await running.apply("retry", **asked, actor="ada", note="open again")
        assert report == BulkReport(matched=3, done=3, refused={})
        await until(lambda: numbers(running, "compensated", 3), running)
        assert await numbers(running, "stuck", 2)
        told = [entry for entry in await (await running.get("t-4")).history() if entry.key == "retry"]
        assert [(entry.actor, entry.note) for entry in told] == [("ada", "open again")]
        assert await running.apply("retry", **asked) == BulkReport(matched=0, done=0, refused={})
        report = await running.apply("skip", step="book", saga="trip")
        assert (report.matched, report.done) == (2, 2)


async def test_what_is_refused_is_reported(place: Place):
    """By id, with the reason; the others take the verb. Ended sagas are reached only where a status names them."""
    async with orchestrator(place.store, trip, sleeping) as running:
        for number in range(4):
            await running.start(sleeping, number, id=f"s-{number}")
        await until(lambda: numbers(running, "waiting", 4), running)
        await running.kill("s-0")
        report = await running.apply("cancel", saga="sleeping")
        assert (report.matched, report.done, sorted(report.refused)) == (3, 1, ["s-1", "s-3"])
        assert "pivot" in report.refused["s-1"]
        await until(lambda: numbers(running, "stuck", 1), running)
        SHUT.clear()
        report = await running.apply("rollback", status="killed", saga="sleeping")
        assert report == BulkReport(matched=1, done=1, refused={})
        await until(lambda: numbers(running, "compensated", 1), running)


async def test_a_repeated_verb_counts_as_done():
    """Pausing what is paused changes nothing and is no refusal."""
    async with orchestrator("memory://", sleeping) as running:
        for number in range(3):
            await running.start(sleeping, number, id=f"s-{number}")
        await until(lambda: numbers(running, "waiting", 3), running)
        await running.pause("s-1")
        for _ in range(2):
            assert await running.apply("pause", saga="sleeping") == BulkReport(matched=3, done=3, refused={})
        assert all([each.paused async for each in running.scan()])


async def test_ended_sagas_are_restarted_once(place: Place):
    """Under an id made of theirs; a walk that is begun again restarts none twice; open ones are never reached."""
    SHUT.clear()
    async with orchestrator(place.store, trip) as running:
        for number in range(3):
            await running.start(trip, number, id=f"t-{number}")
        await until(lambda: numbers(running, "compensated", 3), running)
        FULL.clear()
        for _ in range(2):
            report = await running.apply("restart", status="compensated", saga="trip", actor="ada")
            assert report == BulkReport(matched=3, done=3, refused={})
            await until(lambda: numbers(running, "completed", 3), running)
        assert await running.count() == 6
        assert (await running.info("t-0~restarted")).restarted_from == "t-0"
        with pytest.raises(DefinitionError, match="status="):
            await running.apply("restart", saga="trip")


WRONG: list[tuple[str, dict[str, Any], str]] = [
    ("retry", {}, "without any filter"),
    ("retry", {"tags": {}, "status": None, "attention": False}, "without any filter"),
    ("mend", {"saga": "trip"}, "no such verb"),
    ("skip", {"saga": "trip"}, "needs step="),
    ("kill", {"saga": "trip", "step": "book"}, "takes no step="),
    ("resolve", {"saga": "trip", "step": "book"}, "happened="),
    ("retry", {"saga": "trip", "happened": True}, "happened="),
    ("retry", {"status": "stcuk"}, "no status"),
]


@pytest.mark.parametrize(("verb", "asked", "told"), WRONG)
async def test_what_cannot_be_meant_is_refused_before_anything(verb: str, asked: dict[str, Any], told: str):
    """No filter, no such verb, or a verb without what it needs: also in a dry run."""
    async with orchestrator("memory://", trip) as running:
        await stuck(running, 1)
        for dry_run in (True, False):
            with pytest.raises(DefinitionError, match=told):
                await running.apply(verb, dry_run=dry_run, **asked)
        with pytest.raises(PayloadError):
            await running.apply("retry", saga="trip", note="\ud800")
        assert await numbers(running, "stuck", 1)


async def test_what_was_done_before_the_store_failed_stays_done():
    """The walk raises where the store fails; called again, it does what is left."""
    async with orchestrator("memory://", trip) as running:
        await stuck(running, 70)
        SHUT.clear()
        send, sent = running.engine.signal, 0

        async def failing(*args: Any, **options: Any) -> bool:
            nonlocal sent
            sent += 1
            if sent == 50:
                raise StoreError("the disk is full", "", transient=True)
            return await send(*args, **options)

        running.engine.signal = failing  # type: ignore[method-assign]
        with pytest.raises(StoreError, match="disk is full"):
            await running.apply("retry", status="stuck")
        running.engine.signal = send  # type: ignore[method-assign]
        await until(lambda: settled(running), running)
        left = await running.count(status="stuck")
        assert 0 < left < 70
        assert await running.apply("retry", status="stuck") == BulkReport(matched=left, done=left, refused={})
        await until(lambda: numbers(running, "compensated", 70), running)


async def settled(running: Orchestrator) -> bool:
    """Whether every saga is stuck or has ended."""
    return await running.count(status="stuck") + await running.count(status="compensated") == 70


def test_the_blocking_orchestrator_has_it_too():
    """The same call and the same report."""
    with threads.Orchestrator("memory://", sagas=[trip]) as running:
        assert running.apply("retry", status="stuck") == BulkReport(matched=0, done=0, refused={})
