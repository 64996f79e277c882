"""Heartbeats of callbacks: silence ends the wait, a sign of life does not, and journals stay short."""

import asyncio
from datetime import timedelta

import pytest

from sagas import (
    CallbackAlreadyAnswered,
    CallbackClosed,
    CallbackNotFound,
    CallbackTimeout,
    Orchestrator,
    SagaCompensated,
    SagaHandle,
    SagaStatus,
)
from tests.behaviour.callbacks import callback_scenes as on
from tests.behaviour.callbacks.callback_scenes import SPAN, Approval, kinds, on_stage, plain, waiting, watched

YES = Approval(ok=True, by="bob")


async def timed_out(handle: SagaHandle[str]) -> CallbackTimeout:
    """The timeout that has ended it."""
    with pytest.raises(SagaCompensated) as raised:
        await handle.result(timeout=20)
    assert isinstance(raised.value.__cause__, CallbackTimeout)
    return raised.value.__cause__


async def test_silence_ends_the_wait(url: str):
    """Without a heartbeat the callback times out after its span, says so, and refuses what comes later."""
    async with on_stage(url) as (orchestrator, clock):
        handle, token = await waiting(orchestrator, clock, watched, None)
        wake_at = (await handle.info()).wake_at
        assert wake_at is not None, "a run that waits for a heartbeat costs a row, so the row says when it is due"
        await clock.advance(SPAN - timedelta(seconds=1))
        assert (await handle.info()).status is SagaStatus.WAITING
        await clock.advance(2)
        assert "no heartbeat came for 60 s" in str(await timed_out(handle))
        with pytest.raises(CallbackClosed):
            await orchestrator.heartbeat_callback(token)
        with pytest.raises(CallbackClosed):
            await orchestrator.complete_callback(token, YES)


@pytest.mark.parametrize("by_name", [False, True])
async def test_a_heartbeat_within_each_span_keeps_it_waiting(url: str, *, by_name: bool):
    """Ten spans pass with a heartbeat in each; then silence for one ends it, a span after the last heartbeat."""
    async with on_stage(url) as (orchestrator, clock):
        handle, token = await waiting(orchestrator, clock, watched, None)
        for _ in range(10):
            await clock.advance(SPAN * 0.9)
            if by_name:
                await orchestrator.heartbeat_callback(saga_id="a", name="approval")
            else:
                await orchestrator.heartbeat_callback(token)
            await clock.idle()
        await clock.advance(SPAN - timedelta(seconds=1))
        assert (await handle.info()).status is SagaStatus.WAITING
        await clock.advance(1)
        await timed_out(handle)
        assert await kinds(handle, "heartbeat") == 10


async def test_heartbeats_never_extend_the_timeout(url: str):
    """The total runs out although somebody is still at it."""
    async with on_stage(url) as (orchestrator, clock):
        handle, token = await waiting(orchestrator, clock, watched, 150.0)
        for _ in range(3):
            await clock.advance(45)
            await orchestrator.heartbeat_callback(token)
        await clock.advance(20)
        assert "was not answered in time" in str(await timed_out(handle))


async def test_a_flood_of_heartbeats_leaves_few_entries_and_grants_what_it_promised(url: str):
    """Two hundred heartbeats within three spans leave less than forty entries; the last grants a whole span."""
    async with on_stage(url) as (orchestrator, clock):
        handle, token = await waiting(orchestrator, clock, watched, None)
        for _ in range(200):
            await clock.advance(0.9)
            await orchestrator.heartbeat_callback(token)
        assert await kinds(handle, "heartbeat") < 40
        await clock.advance(SPAN - timedelta(milliseconds=1))
        assert (await handle.info()).status is SagaStatus.WAITING, "an accepted heartbeat grants a span"
        await clock.advance(SPAN / 10 + timedelta(milliseconds=1))
        await timed_out(handle)


async def test_an_answer_ends_the_need_for_heartbeats(url: str):
    """After the answer a heartbeat is refused, so that its sender stops; the answer counts."""
    async with on_stage(url) as (orchestrator, clock):
        handle, token = await waiting(orchestrator, clock, watched, None)
        await clock.advance(30)
        await orchestrator.heartbeat_callback(token)
        await orchestrator.complete_callback(token, YES)
        assert await handle.result() == "bob"
        with pytest.raises(CallbackAlreadyAnswered):
            await orchestrator.heartbeat_callback(token)
        with pytest.raises(CallbackNotFound):
            await orchestrator.heartbeat_callback(saga_id="a", name="other")


async def test_a_callback_without_heartbeat_takes_one_and_changes_nothing(url: str):
    """It is accepted, leaves no entry, and moves no time."""
    async with on_stage(url) as (orchestrator, clock):
        handle, token = await waiting(orchestrator, clock, plain)
        before, wake_at = len(await handle.history()), (await handle.info()).wake_at
        await orchestrator.heartbeat_callback(token)
        assert len(await handle.history()) == before
        assert (await handle.info()).wake_at == wake_at


async def test_heartbeats_outlive_their_process(url: str):
    """The next process knows when the last heartbeat came: it waits as long as the first would have, and no longer."""
    async with on_stage(url, worker=False) as (outside, clock):
        async with Orchestrator(url, sagas=on.SAGAS, clock=clock, grace=1) as first:
            _, token = await waiting(first, clock, watched, None)
            await clock.advance(50)
            await first.heartbeat_callback(token)
            await clock.advance(20)
        async with Orchestrator(url, sagas=on.SAGAS, clock=clock, grace=1):
            handle = await outside.get("a")
            await clock.advance(39)
            assert (await handle.info()).status is SagaStatus.WAITING
            await clock.advance(1)
            await timed_out(handle)


@pytest.mark.parametrize("beat_first", [True, False])
async def test_a_heartbeat_races_the_end_of_its_span(url: str, *, beat_first: bool):
    """Whichever commits first counts: a heartbeat before the end keeps it waiting, one after it is refused."""
    async with on_stage(url) as (orchestrator, clock):
        handle, token = await waiting(orchestrator, clock, watched, None)
        await clock.advance(SPAN - timedelta(milliseconds=1))
        if beat_first:
            beat, _ = await asyncio.gather(orchestrator.heartbeat_callback(token), clock.idle())
            assert beat is None
            await clock.advance(1)
            assert (await handle.info()).status is SagaStatus.WAITING
            await orchestrator.complete_callback(token, YES)
            assert await handle.result() == "bob"
        else:
            await clock.advance(0.001)
            with pytest.raises(CallbackClosed):
                await orchestrator.heartbeat_callback(token)
            await timed_out(handle)


async def test_a_heartbeat_from_another_orchestrator_counts(url: str):
    """A process that only sends leaves it in the store; the worker journals it before the span ends the wait."""
    async with on_stage(url) as (orchestrator, clock):
        handle, token = await waiting(orchestrator, clock, watched, None)
        async with Orchestrator(url, worker=False, clock=clock) as outside:
            for _ in range(3):
                await clock.advance(50)
                await outside.heartbeat_callback(token)
                await clock.idle()
            assert await kinds(handle, "heartbeat") == 3
            await outside.complete_callback(token, YES)
            assert await handle.result() == "bob"
            with pytest.raises(CallbackAlreadyAnswered):
                await outside.heartbeat_callback(token)
