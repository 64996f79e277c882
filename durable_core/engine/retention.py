"""The background purge of a worker: a look at the start, and one whenever a run's retention may be over.

Invariant: it is one task that no run waits for; whatever fails in it is logged and tried again at the next look.
"""

import asyncio
import logging
from typing import Final

from durable_core.engine.purge import PurgeReport, Purging, purge
from durable_core.errors import StoreError
from durable_core.model.duration import NS
from durable_core.ports import Clock, Store

log = logging.getLogger("durable_core")

LATEST: Final = 2**63 - 1
SHORTEST_NS: Final = 1 * NS
LONGEST_NS: Final = 3600 * NS
PART: Final = 20
"""A look for a twentieth of the retention, though not more often than each second, nor more rarely than each hour."""


class Housekeeper:
    """Keeps a store small: purges runs that ended ``retention_ns`` ago, and finishes what a crash has left of a purge.

    Where several workers do so, each run is purged by one of them, and whoever meets another at it leaves it to them.

    Args:
        store: opened.
        clock: tells when a run's retention is over.
        retention_ns: how long runs are kept after their end; None is for ever.
        id_retention_ns: how long ids of purged runs stay refused; None is for ever.
    """

    def __init__(self, store: Store, clock: Clock, *, retention_ns: int | None, id_retention_ns: int | None) -> None:
        self._store = store
        self._clock = clock
        self._retention_ns = retention_ns
        self._id_retention_ns = id_retention_ns
        self.working = True
        """Whether it looks or purges just now, or is about to."""

    async def run(self) -> None:
        """Look and purge until cancelled; without a retention, once."""
        while True:
            self.working = True
            report = await self._look()
            if report.runs:
                log.info("purged %d runs that ended longer ago than they are kept", report.runs)
            if self._retention_ns is None:
                self.working = False
                return
            await self._wait_until(await self._next_ns(self._retention_ns))

    async def _look(self) -> PurgeReport:
        # A run that ended exactly the retention ago has been kept for long enough; without one, none has.
        before_ns = 0 if self._retention_ns is None else self._clock.now_ns() - self._retention_ns + 1
        plan = Purging(before_ns=before_ns, id_retention_ns=self._id_retention_ns, yielding=True)
        try:
            return await purge(self._store, self._clock, plan)
        except StoreError as error:
            log.warning("old runs could not be purged; trying again later: %s", error)
        except Exception:
            log.exception("internal error while purging old runs; trying again later")
        return PurgeReport()

    async def _next_ns(self, retention_ns: int) -> int:
        """When to look again: once the oldest run is due, and not too soon."""
        now_ns = self._clock.now_ns()
        soonest_ns = now_ns + min(max(retention_ns // PART, SHORTEST_NS), LONGEST_NS)
        try:
            oldest = await self._store.retention.ended(before_ns=LATEST, limit=1)
        except StoreError:
            return soonest_ns  # the look then says what is wrong
        # What ends from now on is due later than this, whoever ends it.
        due_ns = (oldest[0].ended_at_ns if oldest else now_ns) + retention_ns
        return max(due_ns, soonest_ns)

    async def _wait_until(self, at_ns: int) -> None:
        rung: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def ring() -> None:
            self.working = True
            if not rung.done():
                rung.set_result(None)

        timer = self._clock.call_at(at_ns, ring)
        self.working = False
        try:
            await rung
        finally:
            timer.cancel()
