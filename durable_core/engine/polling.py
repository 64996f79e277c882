"""Looks at the store: soon after another process has written, and every now and then.

Invariant: looking costs at most a fixed share of the time. After a look that took long the next one is delayed, and all
changes reported meanwhile cause one look.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable

import attrs

from durable_core.engine.clock import follow_store
from durable_core.engine.process import ObserverProcess, WorkerProcess
from durable_core.engine.waiting import Waiters
from durable_core.engine.writer import Writer
from durable_core.errors import LeaseLost, StoreError
from durable_core.model.outage import Outage
from durable_core.ports import Clock, Store, check_cancelled

log = logging.getLogger("durable_core")

POLL_S = 0.05
"""How often to ask the store whether another process has written."""
RELEASE_S = 1.0
"""How often to look for workers that have died, and how long to wait after an internal error."""
SHARE = 4
"""After a look that took a millisecond the next one waits for so many, whatever is reported."""


class ChangeListener:
    """Hears that other processes have written, if the store reports it; ``wake`` has the store looked at."""

    def __init__(self, loop: asyncio.AbstractEventLoop, wake: Callable[[], None]) -> None:
        self._loop = loop
        self._wake_poller = wake
        self._not_before_s = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._waiting: set[asyncio.Future[None]] = set()

    def heard(self) -> None:
        """Another process has written. Called on the event loop."""
        for waiter in self._waiting:
            if not waiter.done():
                waiter.set_result(None)
        if self._timer is None:
            self._timer = self._loop.call_at(self._not_before_s, self._ring)

    def _ring(self) -> None:
        self._timer = None
        self._wake_poller()

    def looked(self, since_s: float) -> None:
        """A look that began at ``since_s`` by the loop's clock is over."""
        now_s = self._loop.time()
        self._not_before_s = now_s + (now_s - since_s) * SHARE

    async def next(self, within_s: float) -> None:
        """Return once another process has written, and after ``within_s`` at the latest."""
        waiter: asyncio.Future[None] = self._loop.create_future()
        self._waiting.add(waiter)
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(within_s):
                    await waiter
        finally:
            self._waiting.discard(waiter)

    def close(self) -> None:
        """Wake the poller no more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


@attrs.frozen(kw_only=True)
class Health:
    """Whether an engine works: not that its process is up, but when its store last answered and when it last wrote."""

    silent_s: float
    """Seconds since the store last answered and took what was written; small on a healthy worker, also an idle one."""
    wrote_s: float | None
    """Seconds since it last wrote something; None if it has not yet. An idle worker writes nothing."""
    runs: int
    """Runs in its memory."""
    under_way: int
    """Attempts that have been called and have not ended."""
    backlog: int
    """Rows that are not written yet."""
    trouble: str | None
    """The error of the last commit, while commits fail."""


class HealthWindow:
    """When the store last answered, took rows and had some to take; by the event loop's clock."""

    def __init__(self, now_s: float) -> None:
        self._answered_s = now_s
        self._taken_s = now_s
        self._wrote_s: float | None = None
        self._written = 0

    def answered(self, now_s: float, *, written: int, troubled: bool) -> None:
        """The store has answered; so far it has taken ``written`` rows. ``troubled``: the last commit has failed."""
        self._answered_s = now_s
        if not troubled:
            self._taken_s = now_s
        if written != self._written:
            self._written, self._wrote_s = written, now_s

    def silent_s(self, now_s: float) -> float:
        """Seconds since the store last answered and took what was written."""
        return now_s - min(self._answered_s, self._taken_s)

    def wrote_s(self, now_s: float) -> float | None:
        """Seconds since something was written."""
        return None if self._wrote_s is None else now_s - self._wrote_s


class Poller:
    """Looks for changes and for due runs until it is closed. It begins at once."""

    def __init__(
        self, store: Store, clock: Clock, process: ObserverProcess | WorkerProcess, writer: Writer, waiters: Waiters
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._store = store
        self._clock = clock
        self._process = process
        self.writer = writer
        self.waiters = waiters
        self._window = HealthWindow(self._loop.time())
        self.changes = ChangeListener(self._loop, process.woken.set)
        store.on_change(self.changes.heard)
        self._closed = False
        self._outage = Outage()
        self._begin(again=False)

    async def close(self) -> None:
        """Look no more."""
        self._closed = True
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        self.changes.close()

    def health(self) -> Health:
        """Whether it works."""
        now_s, writer = self._loop.time(), self.writer
        return Health(
            silent_s=self._window.silent_s(now_s),
            wrote_s=self._window.wrote_s(now_s),
            runs=len(self._process.runs),
            under_way=self._process.under_way(),
            backlog=writer.backlog,
            trouble=None if writer.trouble is None else str(writer.trouble),
        )

    def _begin(self, *, again: bool) -> None:
        self._task = self._loop.create_task(self._run(again=again))
        self._task.add_done_callback(self._ended)

    def _ended(self, task: "asyncio.Task[None]") -> None:
        """A program that cancels all its tasks but its own does not mean its runs: begin again.

        If no task is left that was not cancelled, its event loop is ending, which may take long: no run is taken up.
        """
        if self._closed or not (task.cancelled() or task.exception() is not None):
            return
        if task.cancelled():
            if all(other.cancelling() for other in asyncio.all_tasks(self._loop)):
                return
        else:
            log.error("internal error while looking for work; looking again", exc_info=task.exception())
        self._loop.call_later(POLL_S, lambda: None if self._closed else self._begin(again=True))

    async def _run(self, *, again: bool) -> None:
        """Notice changes by other processes, and claim runs that are due."""
        loop, process = self._loop, self._process
        release_at = loop.time() + RELEASE_S
        while not self._closed:
            check_cancelled()
            await asyncio.sleep(0)  # for a round that was asked for, and finds nothing to wait for, never pauses
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(POLL_S):
                    await process.woken.wait()
            process.looking()
            began_s = loop.time()
            try:
                if began_s >= release_at:
                    release_at = began_s + RELEASE_S
                    await process.release_dead()
                await self._look()
                self.changes.looked(began_s)
                if (away_s := self._outage.over(loop.time())) is not None:
                    log.warning("the store can be asked again; it was away for %.1f s", away_s)
            except LeaseLost as lost:
                await process.lease_lost(lost)
            except StoreError as error:
                if again and not error.transient:
                    return  # it was closed meanwhile: this process counts as dead
                if not error.logged and self._outage.met(loop.time()):
                    log.warning("the store could not be asked for work; trying again until it can be: %s", error)
                process.woken.set()
                await asyncio.sleep(POLL_S)
            except Exception:
                log.exception("internal error while looking for work; trying again")
                await asyncio.sleep(RELEASE_S)

    async def _look(self) -> None:
        changed = await self._store.changed() or self._process.reborn()
        follow_store(self._clock, self._store)
        writer = self.writer
        self._window.answered(self._loop.time(), written=writer.written, troubled=writer.trouble is not None)
        await self._process.look(changed=changed)
        if changed:
            await self.waiters.ask(self._store, elsewhere_than=self._process.runs)
