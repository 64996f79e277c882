"""Timers of the system clock: a loop waits for them, while the wall clock steps."""

import asyncio
import time
from collections.abc import Callable

import pytest

from durable_core import DefinitionError, Engine
from durable_core.engine import clock as clock_module
from durable_core.engine.clock import SystemClock
from durable_core.model.duration import NS
from sagas import Orchestrator, Saga, saga
from sagas.testing import ManualClock
from tests.kit import Place, World, end_of, party

HOUR_NS = 3600 * NS
seat = party("seat")


@saga("quick", version=1)
async def quick(s: Saga, who: str) -> str:
    return await s.run(seat, who)


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


class HalfClock:
    """Tells time, and no more."""

    def now_ns(self) -> int:
        return 0

    def call_at(self, at_ns: int, call: Callable[[], None]) -> object:
        return at_ns, call


@pytest.mark.parametrize("made", [Engine, Orchestrator])
def test_a_clock_that_lacks_something_is_refused_at_once(made: Callable[..., object]):
    """The error says what it lacks and what a clock has, before anything is opened."""
    with pytest.raises(DefinitionError, match="has no attach and no detach") as caught:
        made("memory://", clock=HalfClock())
    assert all(name in caught.value.advice for name in ("attach", "detach", "now_ns", "call_at", "durable_core.Clock"))


class Follower(ManualClock):
    """A clock of a user's own that can go on from the last time in the store."""

    ahead_ns = 0

    def __init__(self) -> None:
        super().__init__()
        self.told_ns: list[int] = []

    def go_on_from(self, at_ns: int) -> None:
        self.told_ns.append(at_ns)


async def test_an_engine_tells_a_clock_that_can_follow_the_last_time_of_its_store(place: Place):
    """So a user's own clock never goes back behind what another process has journalled; others are left alone."""
    async with place.orchestrator(quick, world=World(), clock=ManualClock()) as running:
        end = await end_of(await running.start(quick, "ann", id="one"), running)
        assert end.status == "completed"
        newest_ns = await running.engine.store.runs.last_seen_ns()
    clock = Follower()
    async with place.orchestrator(quick, world=World(), clock=clock):
        assert clock.told_ns[0] == newest_ns
