"""Who answered a callback, and why: kept beside the answer, shown with it, and no part of it."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from durable_core import Context, Engine, durable
from durable_core.layer import JournalEntry, history_of, spans_of
from sagas import (
    CallbackAlreadyAnswered,
    CallbackClosed,
    CallbackFailed,
    Orchestrator,
    PayloadError,
    Saga,
    SagaHandle,
    SagaStatus,
    blocking,
    saga,
)
from sagas.testing import ManualClock
from tests.behaviour.callbacks.callback_scenes import play, reserve
from tests.traces import check_trace

DAY_S = 86400
WHO = {"actor": "ann", "note": "her leave is over"}
NOBODY: dict[str, str] = {}
ONE = {"saga_id": "a", "name": "approval"}
Give = Callable[..., Awaitable[None]]


@saga("asking", version=1)
async def asking(s: Saga) -> str:
    """Goes on waiting after the answer, so that it is replayed with that in its journal."""
    callback = await s.callback("approval", str)
    try:
        told = await callback.result()
    except CallbackFailed as failed:
        told = f"failed: {failed.answer}"
    await s.sleep(DAY_S)
    return told


@saga("parent", version=1)
async def parent(s: Saga) -> str:
    return await s.run(asking)


@pytest.fixture(params=["memory", "sqlite"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A store of each kind, that survives its orchestrator."""
    return f"memory://{tmp_path.name}" if request.param == "memory" else f"sqlite:///{tmp_path}/w.db"


async def journal_of(orchestrator: Orchestrator, id: str = "a") -> list[JournalEntry]:
    (record,) = await orchestrator.engine.store.runs.find([id])
    return await orchestrator.engine.journal(record.num)


async def answered(handle: SagaHandle[Any]) -> list[tuple[str, str | None, str | None]]:
    """The answers in a saga's history; nothing else in it names anybody."""
    entries = await handle.history()
    assert not [entry for entry in entries if entry.kind != "answered" and (entry.actor or entry.note)]
    return [(entry.detail, entry.actor, entry.note) for entry in entries if entry.kind == "answered"]


async def actor_of_wait(orchestrator: Orchestrator) -> object:
    """Who answered, as the span of the wait has it."""
    (record,) = await orchestrator.engine.store.runs.find(["a"])
    told = check_trace(record, await orchestrator.engine.journal(record.num))
    (wait,) = [span for span in told if span.name == "wait approval"]
    return wait.attributes.get("saga.actor")


def giving(orchestrator: Orchestrator, kind: str) -> Give:
    """Gives the answer of a kind; called with who gives it and why."""
    if kind == "completed":
        return lambda **by: orchestrator.complete_callback(**ONE, value="yes", **by)
    return lambda **by: orchestrator.fail_callback(**ONE, message="yes", **by)


def as_told(kind: str) -> str:
    return "yes" if kind == "completed" else "failed: yes"


@pytest.mark.parametrize("by", [WHO, {"actor": "ann"}, {"note": "her leave is over"}, NOBODY])
@pytest.mark.parametrize("kind", ["completed", "failed"])
@pytest.mark.parametrize("from_outside", [False, True])
def test_who_gave_an_answer_is_shown_with_it(url: str, kind: str, by: dict[str, str], *, from_outside: bool):
    """By the worker's own orchestrator or one that only sends: in the history, and on the span of the wait."""

    async def scene(worker: Orchestrator, clock: ManualClock) -> None:
        async with Orchestrator(url, worker=False, clock=clock) as outside:
            handle = await worker.start(asking, id="a")
            await clock.idle()
            sender = outside if from_outside else worker
            await giving(sender, kind)(**by)
            await giving(sender, kind)(actor="bob", note="he answers the same")
            await giving(sender, kind)()
            with pytest.raises(CallbackAlreadyAnswered):
                await sender.complete_callback(**ONE, value="no", **by)
            assert await answered(handle) == [(kind, by.get("actor"), by.get("note"))]
            assert await actor_of_wait(sender) == by.get("actor")
            await clock.advance(2 * DAY_S)
            assert await handle.result(timeout=20) == as_told(kind)

    play(url, scene, sagas=[asking])


@pytest.mark.parametrize("by", [WHO, NOBODY])
def test_an_answer_is_stored_as_ever_with_a_remark_before_it(url: str, by: dict[str, str]):
    """The answer's own row is the same whoever gave it; without actor and note there is no remark."""

    async def scene(worker: Orchestrator, clock: ManualClock) -> None:
        await worker.start(asking, id="a")
        await clock.idle()
        await worker.complete_callback(**ONE, value="yes", **by)
        entries = await journal_of(worker)
        (place,) = [place for place, entry in enumerate(entries) if entry.kind == "answered"]
        answer, before = entries[place], entries[place - 1]
        assert (answer.key, answer.attempt, answer.label, answer.payload) == ("approval", 0, "completed", b'"yes"')
        if by:
            assert (before.kind, before.key, before.attempt, before.label) == ("noted", "approval", 0, "answered by")
            assert before.payload == b'{"actor":"ann","note":"her leave is over"}'
        else:
            assert not [entry for entry in entries if entry.kind == "noted"]

    play(url, scene, sagas=[asking])


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("kind", ["completed", "failed"])
def test_who_gave_an_answer_that_is_kept_for_a_worker(url: str, kind: str):
    """The first one kept counts, and so does who gave it; somebody else's same answer is a repetition, also there."""

    async def scene(outside: Orchestrator, clock: ManualClock) -> None:
        async with Orchestrator(url, sagas=[asking], clock=clock, grace=1) as first:
            await first.start(asking, id="a")
            await clock.idle()
        await giving(outside, kind)(**WHO)
        await giving(outside, kind)(actor="bob")
        with pytest.raises(CallbackAlreadyAnswered):
            await outside.complete_callback(**ONE, value="no", **WHO)
        for _ in range(2):
            async with Orchestrator(url, sagas=[asking], clock=clock, grace=1) as next_one:
                await clock.idle()
                handle = await next_one.get("a")
                assert (await handle.info()).status is SagaStatus.WAITING
                assert await answered(handle) == [(kind, "ann", "her leave is over")]
                assert await actor_of_wait(next_one) == "ann"
        assert not await outside.engine.store.signals.waiting([(await outside.engine.find("a")).num])
        async with Orchestrator(url, sagas=[asking], clock=clock, grace=1) as last:
            await clock.advance(2 * DAY_S)
            assert await (await last.get("a")).result(timeout=20) == as_told(kind)

    play(url, scene, worker=False)


def changing(*, first: str) -> Any:
    @saga("changing", version=1)
    async def changed(s: Saga) -> str:
        await s.run(reserve, first)
        return await (await s.callback("approval", str)).result()

    return changed


@pytest.mark.usefixtures("impatient")
def test_who_gave_an_answer_to_a_saga_that_is_stuck_on_its_code(url: str):
    """It is held back with the answer, and told with it once the code fits."""

    async def scene(outside: Orchestrator, clock: ManualClock) -> None:
        async with Orchestrator(url, sagas=[changing(first="a")], clock=clock, grace=1) as fits:
            await fits.start("changing", id="a")
            await clock.idle()
        async with Orchestrator(url, sagas=[changing(first="changed")], clock=clock, grace=1) as other:
            await outside.complete_callback(**ONE, value="yes", **WHO)
            await outside.complete_callback(**ONE, value="yes", actor="bob")
            assert (await (await other.get("a")).info()).status is SagaStatus.STUCK
            (held,) = [entry for entry in await (await other.get("a")).history() if entry.kind == "held"]
            assert (held.actor, held.note) == ("ann", "her leave is over")
        async with Orchestrator(url, sagas=[changing(first="a")], clock=clock, grace=1) as fits:
            await fits.retry("a")
            handle = await fits.get("a")
            assert await handle.result(timeout=20) == "yes"
            (told,) = [entry for entry in await handle.history() if entry.kind == "answered"]
            assert (told.actor, told.note) == ("ann", "her leave is over")

    play(url, scene, worker=False)


@pytest.mark.usefixtures("impatient")
def test_who_gave_an_answer_that_was_not_accepted(url: str):
    """A kept answer that turns out to be of another type is refused by the worker, and the remark of that names who."""

    async def scene(outside: Orchestrator, clock: ManualClock) -> None:
        async with Orchestrator(url, sagas=[asking], clock=clock, grace=1) as first:
            handle = await first.start(asking, id="a")
            await clock.idle()
        record = await outside.engine.find("a")
        payload = b'{"key":"approval","kind":"completed","value":7,"actor":"ann","note":"her leave is over"}'
        assert await outside.engine.signal(record, "answer", payload)
        async with Orchestrator(url, sagas=[asking], clock=clock, grace=1) as next_one:
            await clock.idle()
            handle = await next_one.get("a")
            (told,) = [entry for entry in await handle.history() if entry.kind == "noted"]
            assert (told.detail, told.actor, told.note) == ("answer misfit", "ann", "her leave is over")
            await next_one.complete_callback(**ONE, value="yes", actor="bob")
            assert [entry.actor for entry in await handle.history() if entry.kind == "answered"] == ["bob"]

    play(url, scene, worker=False)


@pytest.mark.parametrize("wrong", [{"actor": "\udcff"}, {"note": "half \ud800"}, {"actor": None}, {"note": 7}])
@pytest.mark.parametrize("from_outside", [False, True])
def test_what_is_no_text_is_refused(url: str, wrong: dict[str, Any], *, from_outside: bool):
    """The error names the argument, before anything is looked up; the saga keeps waiting, and no answer is kept."""

    async def scene(worker: Orchestrator, clock: ManualClock) -> None:
        async with Orchestrator(url, worker=False, clock=clock) as outside:
            handle = await worker.start(asking, id="a")
            await clock.idle()
            sender = outside if from_outside else worker
            for call in (giving(sender, "completed"), giving(sender, "failed")):
                with pytest.raises(PayloadError, match=f"{next(iter(wrong))}="):
                    await call(**wrong)
            assert (await handle.info()).status is SagaStatus.WAITING
            assert await answered(handle) == []
            await sender.complete_callback(**ONE, value="yes", **WHO)
            assert await answered(handle) == [("completed", *WHO.values())]

    play(url, scene, sagas=[asking])


def test_a_childs_history_tells_who_answered_its_callback(url: str):
    """The child's own history has it, as has the parent's."""

    async def scene(worker: Orchestrator, clock: ManualClock) -> None:
        handle = await worker.start(parent, id="a")
        await clock.idle()
        await worker.complete_callback(saga_id="a", name="asking/approval", value="yes", **WHO)
        for each in (handle, await worker.get("a/asking")):
            assert await answered(each) == [("completed", "ann", "her leave is over")]

    play(url, scene, sagas=[parent])


def test_an_answer_that_comes_too_late_is_refused_whoever_gives_it(url: str):
    """Actor and note open nothing: a saga that was cancelled takes no answer, and its journal keeps none."""

    async def scene(worker: Orchestrator, clock: ManualClock) -> None:
        handle = await worker.start(asking, id="a")
        await clock.idle()
        await worker.cancel("a")
        with pytest.raises(CallbackClosed):
            await worker.complete_callback(**ONE, value="yes", **WHO)
        assert await answered(handle) == []

    play(url, scene, sagas=[asking])


def test_the_blocking_orchestrator_tells_who_answered(url: str):
    """Both calls take actor and note, and both answers are told with them."""
    with blocking.Orchestrator(url, sagas=[asking], grace=1) as orchestrator:
        for id in ("a", "b"):
            orchestrator.start(asking, id=id)
        orchestrator.complete_callback(saga_id="a", name="approval", value="yes", **WHO)
        orchestrator.fail_callback(saga_id="b", name="approval", message="no", **WHO)
        for id, kind in (("a", "completed"), ("b", "failed")):
            (told,) = [entry for entry in orchestrator.get(id).history() if entry.kind == "answered"]
            assert (told.detail, told.actor, told.note) == (kind, "ann", "her leave is over")


@durable("asks", version=1)
async def asks(ctx: Context) -> str:
    return await (await ctx.callback("approval", str)).result()


@pytest.mark.parametrize("kind", ["completed", "failed"])
def test_the_core_alone_tells_who_answered(url: str, kind: str):
    """``Engine`` has the same two arguments; the span of the wait says ``run.actor``, and bad text is refused."""

    async def main() -> None:
        clock = ManualClock()
        async with asyncio.timeout(60), Engine(url, [asks], clock=clock) as engine:
            handle = await engine.start(asks, id="a")
            await clock.idle()
            with pytest.raises(PayloadError, match="note="):
                await engine.complete_callback(run_id="a", name="approval", value="yes", note="\ud800")
            for by in (WHO, {"actor": "bob"}):
                if kind == "completed":
                    await engine.complete_callback(run_id="a", name="approval", value="yes", **by)
                else:
                    await engine.fail_callback(run_id="a", name="approval", message="no", **by)
            (told,) = [entry for entry in await handle.history() if entry.kind == "answered"]
            assert (told.detail, told.actor, told.note) == (kind, "ann", "her leave is over")
            record = await engine.runs.find("a")
            entries = await engine.runs.journal(record.num)
            (wait,) = [span for span in spans_of(record, entries) if span.name == "wait approval"]
            assert wait.attributes["run.actor"] == "ann"
            assert "ann" not in {line.actor for line in history_of(entries[:-1]) if line.kind != "answered"}

    asyncio.run(main())
