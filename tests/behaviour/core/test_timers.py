"""Timers of the system clock: a loop waits for them, while the wall clock steps."""

import asyncio
import time

import pytest

from durable_core.engine import clock as clock_module
from durable_core.engine.clock import SystemClock
from durable_core.model.duration import NS

HOUR_NS = 3600 * NS


@pytest.mark.parametrize(("span_ns", "step_ns"), [(HOUR_NS, HOUR_NS), (NS // 20, -HOUR_NS)])
async def test_a_timer_rings_in_time_though_the_clock_was_set(
    span_ns: int, step_ns: int, monkeypatch: pytest.MonkeyPatch
):
    """What has become due by a step forward rings at the end of its part; a step back makes no wait longer."""
    monkeypatch.setattr(clock_module, "LONGEST_S", 0.01)
    steps: list[int] = []
    clock = SystemClock(wall=lambda: time.time_ns() + sum(steps))
    rang, began_ns = asyncio.Event(), clock.now_ns()
    clock.call_at(began_ns + span_ns, rang.set)
    steps.append(step_ns)
    async with asyncio.timeout(20):
        await rang.wait()
    assert clock.now_ns() >= began_ns + span_ns
