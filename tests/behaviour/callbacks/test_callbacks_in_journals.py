"""Callbacks on replay: an answer stays the answer, what is evicted leaves no trace, what no longer fits is stuck."""

import contextlib
from datetime import timedelta
from typing import Any

import pytest

from sagas import (
    CallbackAlreadyAnswered,
    Orchestrator,
    Retry,
    Saga,
    SagaStatus,
    SagaStuck,
    lookup,
    pivot,
    retriable,
    saga,
)
from sagas.cli import snapshot
from tests.behaviour.callbacks import callback_scenes as on
from tests.behaviour.callbacks.callback_scenes import kinds, on_stage, reserve
from tests.kit import journalled


class Broken(Exception): ...


@pivot
async def pay() -> None: ...


@retriable(retry=Retry(attempts=1))
async def ship() -> str:
    on.WORLD.log.append("ship")
    if len(on.WORLD.log) == 1:
        raise Broken
    return "shipped"


@saga("late-answer", version=1)
async def late_answer(s: Saga) -> str:
    callback = await s.callback("approval", str)
    await s.run(pay)
    try:
        return await s.run(ship)
    except Broken:
        await callback.result()
        raise


async def test_an_operators_retry_does_not_void_an_accepted_answer(url: str):
    """An answer that came after the step which is retried was accepted, and stays so."""
    async with on_stage(url, sagas=[late_answer]) as (orchestrator, clock):
        handle = await orchestrator.start(late_answer, id="a")
        await clock.idle()
        await orchestrator.complete_callback(saga_id="a", name="approval", value="yes")
        with pytest.raises(SagaStuck):
            await handle.result(timeout=20)
        on.WORLD.log.clear()
        await orchestrator.retry("a")
        with pytest.raises(SagaStuck):
            await handle.result(timeout=20)
        await orchestrator.complete_callback(saga_id="a", name="approval", value="yes")
        with pytest.raises(CallbackAlreadyAnswered):
            await orchestrator.complete_callback(saga_id="a", name="approval", value="no")
        await orchestrator.retry("a")
        assert await handle.result(timeout=20) == "shipped"


def asks(*, first: str, then: Any = str) -> Any:
    """A saga whose code changes."""

    @saga("changing", version=1)
    async def changing(s: Saga) -> str:
        await s.run(reserve, first)
        callback = await s.callback("approval", then)
        await s.sleep(timedelta(days=1))
        return str(await callback.result())

    return changing


@pytest.mark.usefixtures("impatient")
async def test_an_answer_to_a_saga_that_is_stuck_on_its_code_is_kept_and_delivered_once(url: str):
    """Another code's worker holds it back; once the code fits the saga has it, and no replay delivers it again.

    Who gave it is told with it: while it is held back, and afterwards.
    """
    async with on_stage(url, worker=False) as (outside, clock):
        async with Orchestrator(url, sagas=[asks(first="a")], clock=clock, grace=1) as fits:
            await fits.start("changing", id="c")
            await clock.idle()
        handle = await outside.get("c")
        async with Orchestrator(url, sagas=[asks(first="changed")], clock=clock, grace=1):
            await outside.complete_callback(saga_id="c", name="approval", value="yes", actor="ann", note="by mail")
            await outside.complete_callback(saga_id="c", name="approval", value="yes", actor="bob")
            await journalled(handle, outside, "held")
            (held,) = [entry for entry in await handle.history() if entry.kind == "held"]
            assert (held.actor, held.note) == ("ann", "by mail")
            shown = await snapshot.take(outside, "c")
            assert shown.recorded == ["an answer to callback approval by ann (by mail)"]
            with pytest.raises(CallbackAlreadyAnswered):
                await outside.complete_callback(saga_id="c", name="approval", value="no")
        for _ in range(3):
            async with Orchestrator(url, sagas=[asks(first="a")], clock=clock, grace=1) as fits:
                with contextlib.suppress(Exception):
                    await fits.retry("c")
                await clock.idle()
                handle = await fits.get("c")
                assert (await handle.info()).status is SagaStatus.WAITING
        async with Orchestrator(url, sagas=[asks(first="a")], clock=clock, grace=1) as fits:
            handle = await fits.get("c")
            (told,) = [entry for entry in await handle.history() if entry.kind == "answered"]
            assert (told.actor, told.note) == ("ann", "by mail")
            assert await kinds(handle, "noted") == 1, "the remark of who gave it"
            await clock.advance(timedelta(days=2))
            assert await handle.result(timeout=20) == "yes"


async def test_an_accepted_answer_that_the_code_can_no_longer_read_makes_the_saga_stuck(url: str):
    """The message names callback and type; with the type brought back a retry goes on."""
    async with on_stage(url, worker=False) as (outside, clock):
        async with Orchestrator(url, sagas=[asks(first="a")], clock=clock, grace=1) as fits:
            await fits.start("changing", id="c")
            await clock.idle()
            await fits.complete_callback(saga_id="c", name="approval", value="yes")
        async with Orchestrator(url, sagas=[asks(first="a", then=int)], clock=clock, grace=1):
            await clock.advance(timedelta(days=2))
            handle = await outside.get("c")
            with pytest.raises(SagaStuck, match="accepted for callback 'approval' can no longer be read"):
                await handle.result(timeout=20)
        async with Orchestrator(url, sagas=[asks(first="a")], clock=clock, grace=1) as fits:
            await fits.retry("c")
            assert await handle.result(timeout=20) == "yes"


@saga("signed", version=1)
async def signed_by_one(s: Saga, one: int) -> str:
    return f"{one}: {await (await s.callback('approval', str)).result()}"


@saga("signed", version=1)
async def signed_by_two(s: Saga, one: int, two: int) -> str:
    return f"{one}, {two}: {await (await s.callback('approval', str)).result()}"


async def test_an_answer_to_a_saga_whose_arguments_can_no_longer_be_read_is_kept(url: str):
    """It is stuck, once and not again and again; with the signature brought back it has its answer."""
    async with on_stage(url, worker=False) as (outside, clock):
        async with Orchestrator(url, sagas=[signed_by_one], clock=clock, grace=1) as fits:
            await fits.start(signed_by_one, 1, id="g")
            await clock.idle()
        handle = await outside.get("g")
        async with Orchestrator(url, sagas=[signed_by_two], clock=clock, grace=1):
            await outside.complete_callback(saga_id="g", name="approval", value="yes")
            await clock.idle()
            assert (await handle.info()).status is SagaStatus.STUCK
            assert (await kinds(handle, "faulted"), await kinds(handle, "held")) == (1, 1)
        async with Orchestrator(url, sagas=[signed_by_one], clock=clock, grace=1) as fits:
            await fits.retry("g")
            assert await handle.result(timeout=20) == "1: yes"


# -- an evicted body is inert ----------------------------------------------------------------------------------------


@lookup
async def mischief() -> None:
    on.WORLD.log.append("mischief")


class Meddling:
    """A context manager of the user's that does things on the way out."""

    def __init__(self, s: Saga) -> None:
        self.s = s

    async def __aenter__(self) -> None: ...

    async def __aexit__(self, *raised: object) -> bool:
        with contextlib.suppress(BaseException):
            await self.s.run(reserve, "left behind")
        return True


async def meddle(s: Saga) -> str:
    """Waits for an answer, and tries everything when its wait is cut."""
    callback = await s.callback("approval", str)
    try:
        async with Meddling(s):
            try:
                return await callback.result()
            finally:
                with contextlib.suppress(BaseException):
                    await s.run(mischief)
                with contextlib.suppress(BaseException):
                    await s.sleep(1)
                with contextlib.suppress(BaseException):
                    await s.callback("another", str)
                s.set_status({"left": "behind"})
                with contextlib.suppress(BaseException):
                    s.patched("left")
    except BaseException:
        with contextlib.suppress(BaseException):
            await s.run(mischief)
        raise
    return "swallowed"


@saga("inert-plain", version=1)
async def inert_plain(s: Saga) -> str:
    await s.run(reserve, "before")
    return await meddle(s)


@saga("inert-savepoint", version=1)
async def inert_savepoint(s: Saga) -> str:
    async with s.savepoint("inner"):
        await s.run(reserve, "before")
        return await meddle(s)


@saga("inert-parallel", version=1)
async def inert_parallel(s: Saga) -> str:
    async with s.parallel() as p:
        p.run(reserve, "before")
        branch = p.run(meddle)
    return branch.result()


@saga("inert-child", version=1)
async def inert_child(s: Saga) -> str:
    return await s.run(inert_plain)


INERT = (inert_plain, inert_savepoint, inert_parallel, inert_child)


@pytest.mark.parametrize("definition", INERT, ids=lambda one: one.name)
async def test_a_body_evicted_while_it_waits_is_inert(url: str, definition: Any):
    """``finally``, ``except`` and context managers that run steps, sleep or ask have no effect and leave no entry."""
    async with on_stage(url, worker=False) as (outside, clock):
        async with Orchestrator(url, sagas=INERT, clock=clock, grace=1) as first:
            handle = await first.start(definition, id="i")
            await clock.idle()
            info = await handle.info()
            assert info.status is SagaStatus.WAITING
            assert info.wake_at is None
            entries = await handle.history()
        handle = await outside.get("i")
        assert await handle.history() == entries
        assert on.WORLD.log == ["before"]
        assert (await handle.info()).status_detail is None
        key = next(entry.key for entry in entries if entry.kind == "armed")
        async with Orchestrator(url, sagas=INERT, clock=clock, grace=1) as second:
            for _ in range(2):
                await second.heartbeat_callback(saga_id="i", name=key)
            assert await handle.history() == entries
            await second.complete_callback(saga_id="i", name=key, value="yes")
            await clock.advance(2)
            assert await handle.result(timeout=20) == "yes"
            assert on.WORLD.log == ["before", "mischief", "left behind"], "answered, the same code has its effects"
