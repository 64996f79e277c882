"""Faults that an admin switches on: what goes wrong with the next requests of an operation.

Invariant: a fault is used up by exactly one request. A held answer waits for a release or for its caller to go
away, never for a time.
"""

import asyncio
from collections import Counter
from enum import StrEnum

import attrs
from pydantic import BaseModel, Field
from starlette.requests import Request


class Fault(StrEnum):
    """What can go wrong with one request; several faults come in this order."""

    FAIL = "fail"
    """503, and nothing was done."""
    HANG = "hang"
    """No answer, and nothing was done."""
    DECLINE = "decline"
    """The participant says no, and will say no again to the same key."""
    HOLD = "hold"
    """It was done, but there is no answer."""


class FaultPlan(BaseModel):
    """How many of the next requests of one operation meet which fault, and how slow all of them are."""

    operation: str
    fail_next: int = Field(default=0, ge=0)
    hang_next: int = Field(default=0, ge=0)
    decline_next: int = Field(default=0, ge=0)
    hold_next: int = Field(default=0, ge=0)
    slow_ms: int = Field(default=0, ge=0)


@attrs.define
class Faults:
    """The current plans, by operation, and the answers that are being held."""

    _due: dict[str, Counter[Fault]] = attrs.field(factory=dict[str, Counter[Fault]])
    _slow_ms: dict[str, int] = attrs.field(factory=dict[str, int])
    _held: dict[str, set[asyncio.Event]] = attrs.field(factory=dict[str, set[asyncio.Event]])
    _changed: asyncio.Condition = attrs.field(factory=asyncio.Condition)

    def plan(self, plan: FaultPlan) -> None:
        """Apply ``plan``; it replaces the operation's earlier plan."""
        self._due[plan.operation] = Counter(
            {
                Fault.FAIL: plan.fail_next,
                Fault.HANG: plan.hang_next,
                Fault.DECLINE: plan.decline_next,
                Fault.HOLD: plan.hold_next,
            }
        )
        self._slow_ms[plan.operation] = plan.slow_ms

    async def meet(self, operation: str, request: Request) -> Fault | None:
        """Use up the fault that is due for ``request``; returns when the request may go on, or has hung long enough."""
        await asyncio.sleep(self._slow_ms.get(operation, 0) / 1000)
        fault = self._take(operation)
        if fault is Fault.HANG:
            await self.withhold(operation, request)
        return fault

    def _take(self, operation: str) -> Fault | None:
        due = self._due.get(operation, Counter())
        fault = next((f for f in Fault if due[f] > 0), None)
        if fault is not None:
            due[fault] -= 1
        return fault

    async def withhold(self, operation: str, request: Request) -> None:
        """Return once the answer to ``request`` is released, or its caller is gone."""
        released = asyncio.Event()
        async with self._changed:
            self._held.setdefault(operation, set()).add(released)
            self._changed.notify_all()
        ends = [asyncio.create_task(released.wait()), asyncio.create_task(_gone(request))]
        try:
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for end in ends:
                end.cancel()
            async with self._changed:
                self._held[operation].discard(released)
                self._changed.notify_all()

    async def held(self, operation: str, *, count: int = 1) -> None:
        """Return once ``count`` answers of ``operation`` are being held; with ``count=0``, once none is."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._enough(len(self._held.get(operation, ())), count))

    @staticmethod
    def _enough(held: int, count: int) -> bool:
        return held >= count if count else held == 0

    def release(self) -> int:
        """Release all held answers; returns how many there were."""
        waiting = [event for events in self._held.values() for event in events]
        for event in waiting:
            event.set()
        return len(waiting)


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        continue
