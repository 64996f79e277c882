"""A manual clock does not jump while a step's own code runs, unless that waits on the clock itself."""

import asyncio
import time
from datetime import timedelta
from typing import Any

import pytest

from sagas import Orchestrator, Saga, SagaCompensated, StepTimeout, saga, step
from sagas.testing import ManualClock

FREE: dict[str, Any] = {"compensation": None, "because": "a test", "timeout": 5}
REALLY_S = 0.2
"""Longer than the clock waits for a step that does nothing."""


@step(**FREE)
async def on_the_loop() -> str:
    await asyncio.sleep(REALLY_S)
    return "done"


@step(**FREE)
async def in_a_task_of_its_own() -> str:
    return await asyncio.create_task(asyncio.sleep(REALLY_S, "done"))


@step(**FREE)
async def within_a_timeout() -> str:
    async with asyncio.timeout(10):
        return await asyncio.to_thread(lambda: time.sleep(REALLY_S) or "done")


@step(**FREE)
def on_a_thread() -> str:
    time.sleep(REALLY_S)
    return "done"


@step(**FREE)
async def hung() -> str:
    await asyncio.Event().wait()
    return "never"


def running(one: Any) -> Any:
    """A saga of this step, beside a sleep that is due earlier than the step's timeout."""

    @saga("waiting", version=1)
    async def waiting(s: Saga) -> str:
        async with s.parallel() as p:
            told = p.run(one)
            p.run(napping)
        return told.result()

    return waiting


async def napping(s: Saga) -> None:
    await s.sleep(3)


@pytest.mark.parametrize(
    "one", [on_the_loop, in_a_task_of_its_own, within_a_timeout, on_a_thread], ids=lambda one: one.name
)
async def test_it_waits_for_a_step_that_runs(one: Any):
    """A step may sleep, wait in a task, or compute on a thread in real time: no time passes meanwhile."""
    clock = ManualClock(auto=True)
    began = clock.now()
    sagas = [running(one)]
    async with Orchestrator("memory://", sagas=sagas, clock=clock) as orchestrator:
        handle = await orchestrator.start(sagas[0])
        while (states := {each.key: each for each in (await handle.info()).steps}).get(one.name) is None or states[
            one.name
        ].status == "running":
            assert clock.now() == began
            await asyncio.sleep(0.005)
        assert await handle.result(timeout=30) == "done"
    assert clock.now() - began == timedelta(seconds=3)


async def test_it_jumps_past_a_step_that_waits_for_nothing():
    """A step that hangs, with nothing that would wake it, meets its timeout."""
    clock = ManualClock(auto=True)
    began = clock.now()
    sagas = [running(hung)]
    async with Orchestrator("memory://", sagas=sagas, clock=clock) as orchestrator:
        with pytest.raises(SagaCompensated) as end:
            await (await orchestrator.start(sagas[0])).result(timeout=30)
    assert isinstance(end.value.__cause__, StepTimeout)
    assert clock.now() - began == timedelta(seconds=5)


async def test_a_step_may_wait_on_the_clock():
    """`clock.sleep` in a step's own code takes no time, and counts within its timeout."""
    clock = ManualClock(auto=True)
    began = clock.now()

    @step(compensation=None, because="a test", timeout=20)
    async def patient(span: float) -> str:
        await clock.sleep(span)
        return "done"

    @saga("patient", version=1)
    async def waiting(s: Saga, span: float) -> str:
        return await s.run(patient, span)

    async with Orchestrator("memory://", sagas=[waiting], clock=clock) as orchestrator:
        assert await (await orchestrator.start(waiting, 15)).result(timeout=30) == "done"
        assert clock.now() - began == timedelta(seconds=15)
        with pytest.raises(SagaCompensated):
            await (await orchestrator.start(waiting, 25)).result(timeout=30)
    assert clock.now() - began == timedelta(seconds=35)
