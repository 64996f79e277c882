"""Finds runs that need attention, and calls ``on_attention`` for them.

Invariants: no run waits for the listener, whatever it raises and however long it takes. The store is asked for unserved
runs only after something has happened, and for a small share of the time.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any

from durable_core.model.run import RunRef
from durable_core.ports import Clock, FollowingClock, Store, Timer

log = logging.getLogger("durable_core")

Listener = Callable[[str], Awaitable[None]]
"""Called with the id of a run that needs attention."""

MOST_LOGGED = 10_000
"""Lines that a process remembers in order not to log one twice."""
GRACE_NS = 30_000_000_000
"""How long a run is unserved before it is reported, by the engine's clock."""
SHARE = 20
"""After a look that took a second the next one waits for so many."""


class Attention:
    """The calls under way to one listener; without a listener nothing happens."""

    __slots__ = ("_calls", "_leaving", "_listener", "_pending")

    def __init__(self, listener: Listener | None) -> None:
        self._listener = listener
        self._leaving = False
        self._pending: set[str] = set()
        """The runs whose call has not begun: it also covers what happens until then."""
        self._calls: set[asyncio.Task[None]] = set()

    @property
    def wanted(self) -> bool:
        """Whether there is a listener."""
        return self._listener is not None

    def ask_for(self, run_id: str) -> None:
        """Report that the run of this id needs attention."""
        if self._listener is not None and run_id not in self._pending:
            self._pending.add(run_id)
            self._begin(self._report(run_id, self._listener))

    def ask_for_each(self, run_ids: Sequence[str]) -> None:
        """Report that the runs of these ids need attention, one after another, as there may be many.

        On leaving, the rest is not reported: the next process finds them again.
        """
        if self._listener is not None:
            self._begin(self._report_each(run_ids, self._listener))

    async def close(self) -> None:
        """Return once no call is under way; none of many begins any more."""
        self._leaving = True
        if self._calls:
            await asyncio.gather(*self._calls, return_exceptions=True)
        self._leaving = False  # its engine may be entered again

    def _begin(self, call: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(call)
        self._calls.add(task)
        task.add_done_callback(self._calls.discard)

    async def _report(self, run_id: str, listener: Listener) -> None:
        self._pending.discard(run_id)
        try:
            await listener(run_id)
        except Exception:
            log.exception("on_attention failed for %s", run_id)

    async def _report_each(self, run_ids: Sequence[str], listener: Listener) -> None:
        for run_id in run_ids:
            if self._leaving:
                return
            await self._report(run_id, listener)


class UnservedWatch:
    """Finds runs that are due while no living worker serves their version.

    Each process reports such a run once for as long as it is unserved, and only after a grace: in a rolling deploy the
    old workers leave a little before the new ones come, and nobody should be called for that.
    """

    def __init__(self, store: Store, clock: Clock, attention: Attention, *, wake: Callable[[], None]) -> None:
        self._store = store
        self._clock = clock
        self._attention = attention
        self._wake_poller = wake
        # A test that moves time by hand waits for each look: a pause would be real time, and there is no load to save.
        self._share = SHARE if isinstance(clock, FollowingClock) else 0
        self._notified = attention.wanted
        self._looking = False
        self._since: dict[int, int] = {}
        """When each run was first seen unserved, by its number."""
        self._reported: set[int] = set()
        self._not_before = 0.0
        self._timer: Timer | None = None

    @property
    def busy(self) -> bool:
        """Whether it looks, or has a reason to."""
        return self._notified or self._looking

    def notify(self) -> None:
        """Something has happened that may leave a run unserved, or have it served."""
        self._notified = self._attention.wanted

    async def look(self) -> None:
        """Ask the store, if there is a reason to, and report the runs whose grace is over."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        if not self._notified or began < self._not_before:
            return
        self._notified, self._looking = False, True  # what happens during the look is a reason for another one
        try:
            self._report(await self._store.versions.unserved(now_ns=self._clock.now_ns()))
        except BaseException:
            self._notified = True
            raise
        finally:
            self._looking = False
        self._not_before = loop.time() + (loop.time() - began) * self._share

    def _report(self, unserved: list[RunRef]) -> None:
        now_ns = self._clock.now_ns()
        self._since = {ref.num: self._since.get(ref.num, now_ns) for ref in unserved}
        self._reported.intersection_update(self._since)
        due = [ref for ref in unserved if ref.num not in self._reported and self._since[ref.num] + GRACE_NS <= now_ns]
        self._reported.update(ref.num for ref in due)
        if due:
            self._attention.ask_for_each([ref.id for ref in due])
        left = [since for num, since in self._since.items() if num not in self._reported]
        self._wake_at(min(left) + GRACE_NS if left else None)

    def _wake_at(self, at_ns: int | None) -> None:
        self.close()
        if at_ns is not None:
            self._timer = self._clock.call_at(at_ns, self._wake)

    def _wake(self) -> None:
        self._timer = None
        self._notified = True
        self._wake_poller()

    def close(self) -> None:
        """Cancel the timer."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class AttentionLog:
    """Logs each line about a run that needs attention once per process, as an error."""

    __slots__ = ("_lines", "_logger")

    def __init__(self, logger: logging.Logger = log) -> None:
        self._logger = logger
        self._lines: dict[str, None] = {}
        """The latest last."""

    def once(self, line: str, *, run_id: str) -> None:
        """Log ``line`` unless it was; control characters, which a terminal would act upon, are escaped."""
        shown = "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in line)
        if shown not in self._lines:
            self._logger.error("%s", shown, extra={"run_id": run_id})
        self._lines.pop(shown, None)
        self._lines[shown] = None
        if len(self._lines) > MOST_LOGGED:
            del self._lines[next(iter(self._lines))]
