"""What a user's type checker infers from ``sagas.testing``. Checked, never run; see ``accepted.py``."""

from datetime import timedelta
from typing import Any, assert_type

import sagas.blocking
from sagas import Orchestrator, Saga, SagaInfo, saga
from sagas.testing import ExploreFailed, FailingCase, Faults, ManualClock, Report, explore
from sagas.testing.plugin import MakeOrchestrator


class Order:
    """What a customer wants."""


@saga("place-order", version=1)
async def place_order(s: Saga, order: Order) -> str:
    """A saga."""
    return s.id


class Bank:
    """A fake."""

    held = 0


class Declined(Exception):
    """The bank's answer is no."""

    def __init__(self, code: int) -> None:
        super().__init__(code)


def make_world() -> list[Bank]:
    """A list of whatever the resources are."""
    return [Bank()]


async def make_world_slowly() -> tuple[Bank]:
    """Or what a coroutine function makes."""
    return (Bank(),)


def check(world: list[Any], info: SagaInfo) -> None:
    """Or a coroutine function."""
    assert_type(info, SagaInfo)


async def check_slowly(world: list[Bank], info: SagaInfo) -> None:
    """The type of the resources may be said."""
    assert_type(world[0].held, int)


async def explores(order: Order) -> None:
    """Arguments of the saga, then options."""
    assert_type(await explore(place_order, order, resources=make_world, check=check), Report)
    assert_type(await explore(place_order, order, resources=make_world_slowly, check=check_slowly, only="x"), Report)
    report = await explore(place_order, order, check=check, answers={"approval": True})
    assert_type(report.cases, int)
    assert_type(report.names, tuple[str, ...])
    try:
        await explore(place_order, order=order, check=check)
    except ExploreFailed as failed:
        assert_type(failed.failures, tuple[FailingCase, ...])
        assert_type(failed.failures[0].case, str)


def declares(make: MakeOrchestrator, faults: Faults, clock: ManualClock) -> None:
    """Faults by instance or class, durations as everywhere; both orchestrators take them."""
    faults.fail("charge", Declined(5), times=1)
    faults.fail("charge", Declined, times=None)
    faults.unknown("charge", effect=False)
    faults.crash_before("undo charge")
    faults.crash_after("charge", times=2)
    faults.delay("charge", timedelta(seconds=5))
    faults.delay("charge", 0.5)
    faults.assert_used()
    assert_type(make(place_order, resources=[Bank()]), Orchestrator)
    Orchestrator("memory://", sagas=[place_order], clock=clock, faults=faults)
    sagas.blocking.Orchestrator("memory://", sagas=[place_order], faults=faults)
