"""Watches for runs that wait in vain: they could go on, and no living worker serves their version.

Invariants: it asks the store only after something has happened, and spends no more than a small share of the time on
it. Each process tells of a run once for as long as it waits so, and not before a grace has passed: a rolling deploy,
which takes the old workers away a little before the new ones come, wakes nobody.
"""

import asyncio
from collections.abc import Callable

from durable_core.engine.clock import SystemClock
from durable_core.model.run import RunRef
from durable_core.ports import Clock, Store, Timer

GRACE_NS = 30_000_000_000
"""How long a run waits in vain before anybody is told, by the engine's clock."""
SHARE = 20
"""A look that took a second is not repeated for so many seconds."""


class UnservedWatch:
    """What one worker has seen waiting in vain, since when, and what it has told of."""

    def __init__(
        self, store: Store, clock: Clock, *, tell: Callable[[list[str]], None], poke: Callable[[], None]
    ) -> None:
        self._stirred = True
        self._looking = False
        self._store = store
        self._clock = clock
        # Who moves time by hand waits for each look: a pause would be real time, and there is no load to spare.
        self._share = SHARE if isinstance(clock, SystemClock) else 0
        self._tell = tell
        self._poke = poke
        self._since: dict[int, int] = {}
        """When each run was first seen waiting in vain, by its number."""
        self._told: set[int] = set()
        self._not_before = 0.0
        self._timer: Timer | None = None

    @property
    def busy(self) -> bool:
        """Whether it looks, or has a reason to."""
        return self._stirred or self._looking

    def stir(self) -> None:
        """Something has happened that may leave a run without a worker, or give it one."""
        self._stirred = True

    async def look(self) -> None:
        """Ask the store, where there is reason to, and tell of whom the grace has passed."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        if not self._stirred or began < self._not_before:
            return
        self._stirred, self._looking = False, True  # what happens while it looks is a reason to look again
        try:
            self._judge(await self._store.versions.unserved(now_ns=self._clock.now_ns()))
        except BaseException:
            self._stirred = True
            raise
        finally:
            self._looking = False
        self._not_before = loop.time() + (loop.time() - began) * self._share

    def _judge(self, waiting: list[RunRef]) -> None:
        now_ns = self._clock.now_ns()
        self._since = {ref.num: self._since.get(ref.num, now_ns) for ref in waiting}
        self._told.intersection_update(self._since)
        ripe = [ref for ref in waiting if ref.num not in self._told and self._since[ref.num] + GRACE_NS <= now_ns]
        self._told.update(ref.num for ref in ripe)
        if ripe:
            self._tell([ref.id for ref in ripe])
        left = [since for num, since in self._since.items() if num not in self._told]
        self._ring_at(min(left) + GRACE_NS if left else None)

    def _ring_at(self, at_ns: int | None) -> None:
        self.close()
        if at_ns is not None:
            self._timer = self._clock.call_at(at_ns, self._rung)

    def _rung(self) -> None:
        self._timer = None
        self._stirred = True
        self._poke()

    def close(self) -> None:
        """Ring no more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
