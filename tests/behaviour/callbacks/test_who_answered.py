"""Who answered a callback, and why: kept beside the answer, shown with it, and no part of it."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from durable_core import Context, Engine, durable
from durable_core.layer import JournalEntry, history_of, spans_of
from sagas import (
    CallbackAlreadyAnswered,
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
from tests.behaviour.callbacks.callback_scenes import on_stage
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
async def test_who_gave_an_answer_is_shown_with_it(url: str, kind: str, by: dict[str, str], *, from_outside: bool):
    """By the worker's own orchestrator or one that only sends: in the history, and on the span of the wait."""
    async with (
        on_stage(url, sagas=[asking]) as (worker, clock),
        Orchestrator(url, worker=False, clock=clock) as outside,
    ):
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


@pytest.mark.parametrize("by", [WHO, NOBODY])
async def test_an_answer_is_stored_as_ever_with_a_remark_before_it(url: str, by: dict[str, str]):
    """The answer's own row is the same whoever gave it; without actor and note there is no remark."""
    async with on_stage(url, sagas=[asking]) as (worker, clock):
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


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("kind", ["completed", "failed"])
async def test_who_gave_an_answer_that_is_kept_for_a_worker(url: str, kind: str):
    """The first one kept counts, and so does who gave it; somebody else's same answer is a repetition, also there."""
    async with on_stage(url, worker=False) as (outside, clock):
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


@pytest.mark.parametrize("wrong", [{"actor": "\udcff"}, {"note": "half \ud800"}, {"actor": None}, {"note": 7}])
@pytest.mark.parametrize("from_outside", [False, True])
async def test_what_is_no_text_is_refused(url: str, wrong: dict[str, Any], *, from_outside: bool):
    """The error names the argument, before anything is looked up; the saga keeps waiting, and no answer is kept."""
    async with (
        on_stage(url, sagas=[asking]) as (worker, clock),
        Orchestrator(url, worker=False, clock=clock) as outside,
    ):
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


async def test_a_childs_history_tells_who_answered_its_callback(url: str):
    """The child's own history has it, as has the parent's."""
    async with on_stage(url, sagas=[parent]) as (worker, clock):
        handle = await worker.start(parent, id="a")
        await clock.idle()
        await worker.complete_callback(saga_id="a", name="asking/approval", value="yes", **WHO)
        for each in (handle, await worker.get("a/asking")):
            assert await answered(each) == [("completed", "ann", "her leave is over")]


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
async def test_the_core_alone_tells_who_answered(url: str, kind: str):
    """``Engine`` has the same two arguments; the span of the wait says ``run.actor``, and bad text is refused."""
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
