"""A clock that stands still until a test moves it: waits, retry delays, deadlines and step timeouts under control.

Invariant: time moves from timer to timer, and each is answered in full before the next one rings, so that a test sees
the order that a slow world would have seen.
"""

import asyncio
import contextvars
import heapq
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from itertools import count

from durable_core.model.duration import NS
from durable_core.ports import Activity, Clock
from durable_core.replay.current import CURRENT

START = datetime(2030, 1, 1, tzinfo=UTC)
PATIENCE_S = 0.05
"""How long an attempt may be under way without a sign of life before it counts as waiting for something else."""
TURNS = 3
"""Turns of the event loop without work that count as idle."""


class _Timer:
    __slots__ = ("at_ns", "call", "cancelled")

    def __init__(self, at_ns: int, call: Callable[[], None]) -> None:
        self.at_ns = at_ns
        self.call = call
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


class ManualClock:
    """Time that moves only when told.

    Args:
        start: what it shows at first (aware); default 2030-01-01 UTC.
        auto: jump to the next timer whenever everything is idle, and no step's own code runs that does not wait on this
            clock. Code that waits for nothing that could come by itself counts as idle after a moment.

    Examples:
        >>> clock = ManualClock()
        >>> clock.now().year
        2030
    """

    def __init__(self, start: datetime = START, *, auto: bool = False) -> None:
        self._now_ns = round(start.timestamp()) * NS + start.microsecond * 1000
        self._timers: list[tuple[int, int, _Timer]] = []
        self._numbers = count()
        self._engines: list[Activity] = []
        self._sleeping = 0
        """Attempts that wait on this clock."""
        self._auto = auto
        self._jumping: asyncio.Task[None] | None = None

    # -- what an engine asks (Clock) -------------------------------------------------------------------------------

    def now_ns(self) -> int:
        """Nanoseconds since the epoch."""
        return self._now_ns

    def call_at(self, at_ns: int, call: Callable[[], None]) -> _Timer:
        """Call ``call`` once time has been moved to ``at_ns``; soon, where it is past already."""
        timer = _Timer(at_ns, call)
        if at_ns <= self._now_ns:
            asyncio.get_running_loop().call_soon(lambda: None if timer.cancelled else call())
        else:
            heapq.heappush(self._timers, (at_ns, next(self._numbers), timer))
        return timer

    def attach(self, engine: Activity) -> None:
        """See ``Clock.attach``."""
        self._engines.append(engine)
        if self._auto and self._jumping is None:
            self._jumping = asyncio.get_running_loop().create_task(self._jump())

    def detach(self, engine: Activity) -> None:
        """See ``Clock.detach``."""
        self._engines.remove(engine)
        if not self._engines and self._jumping is not None:
            self._jumping.cancel()
            self._jumping = None

    # -- what a test does ------------------------------------------------------------------------------------------

    def now(self) -> datetime:
        """The time it shows (aware, UTC)."""
        return datetime.fromtimestamp(self._now_ns // NS, UTC) + timedelta(microseconds=self._now_ns % NS // 1000)

    async def advance(self, span: timedelta | float) -> None:
        """Move time on; returns when all that fell due has run until idle.

        Args:
            span: how far, a timedelta or seconds.

        Raises:
            ValueError: time does not go back.
        """
        seconds = span.total_seconds() if isinstance(span, timedelta) else span
        if seconds < 0:
            raise ValueError(f"advance({span!r}): time does not go back")
        until_ns = self._now_ns + round(seconds * NS)
        await self.idle()
        while (due_ns := self._next_ns()) is not None and due_ns <= until_ns:
            self._ring(due_ns)
            await self.idle()
        self._now_ns = until_ns
        await self.idle()

    async def sleep(self, span: timedelta | float) -> None:
        """In a step's own code: wait until so much time has passed by this clock, which may jump meanwhile.

        Args:
            span: how long, a timedelta or seconds.
        """
        self._sleeping += 1
        try:
            await _rung(self, span)
        finally:
            self._sleeping -= 1

    def is_awaited_by_all(self, engine: Activity) -> bool:
        """Whether nothing but this clock can go on: attempts under way, if there are any, wait on it.

        Args:
            engine: whose attempts.
        """
        return not engine.working() and engine.under_way() <= self._sleeping

    def jump(self) -> bool:
        """Move to the next timer and make the calls that fall due then; False where there is none.

        What follows from them is under way when this returns: see ``idle``.
        """
        due_ns = self._next_ns()
        if due_ns is not None:
            self._ring(due_ns)
        return due_ns is not None

    async def idle(self) -> None:
        """Return once nothing is left to do at this time."""
        quiet, seen = 0, -1
        waited_s = 0.0
        while quiet < TURNS:
            await asyncio.sleep(0)
            progress = sum(engine.progress() for engine in self._engines)
            if progress != seen or any(engine.working() for engine in self._engines):
                quiet, seen, waited_s = 0, progress, 0.0
            elif self._awaits_attempts() and (waited_s < PATIENCE_S or self._runs_by_itself()):
                # Something outside is awaited: a thread, a socket, or an event that the test itself will set.
                await asyncio.sleep(PATIENCE_S / 10)
                waited_s += PATIENCE_S / 10
            else:
                quiet += 1
            if seen == progress and any(engine.working() for engine in self._engines):
                await asyncio.sleep(0.0005)  # a commit on its thread

    def _awaits_attempts(self) -> bool:
        """Whether attempts are under way that do not wait on this clock."""
        return sum(engine.under_way() for engine in self._engines) > self._sleeping

    def _runs_by_itself(self) -> bool:
        """Whether a step's own code will go on without this clock: on a thread, or by a timer of the event loop.

        A test that moves the clock itself may mean to move it past that.
        """
        if not self._auto:
            return False
        threads = sum(engine.on_threads() for engine in self._engines)
        return threads > self._sleeping or _has_timer(asyncio.get_running_loop())

    def _next_ns(self) -> int | None:
        while self._timers and self._timers[0][2].cancelled:
            heapq.heappop(self._timers)
        return self._timers[0][0] if self._timers else None

    def _ring(self, at_ns: int) -> None:
        """Move to ``at_ns`` and make the calls that fall due then."""
        self._now_ns = max(self._now_ns, at_ns)
        while (due_ns := self._next_ns()) is not None and due_ns <= at_ns:
            _, _, timer = heapq.heappop(self._timers)
            timer.call()

    async def _jump(self) -> None:
        while True:
            await self.idle()
            due_ns = self._next_ns()
            if due_ns is None:
                await asyncio.sleep(0.001)  # until somebody sets a timer
            else:
                self._ring(due_ns)


async def sleep_by(clock: Clock, span: timedelta | float) -> None:
    """Return once so much time has passed by ``clock``; a manual one may jump meanwhile."""
    await (clock.sleep(span) if isinstance(clock, ManualClock) else _rung(clock, span))


async def _rung(clock: Clock, span: timedelta | float) -> None:
    seconds = span.total_seconds() if isinstance(span, timedelta) else span
    rung: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    timer = clock.call_at(clock.now_ns() + round(seconds * NS), lambda: None if rung.done() else rung.set_result(None))
    try:
        await rung
    finally:
        timer.cancel()


def _has_timer(loop: asyncio.AbstractEventLoop) -> bool:
    """Whether the code of an attempt that is under way has set a timer of the event loop, as a sleep or a timeout does.

    What the code of an attempt sets has its context. A loop that does not show its timers has none here.
    """
    for timer in getattr(loop, "_scheduled", ()):
        context: contextvars.Context | None = getattr(timer, "_context", None)
        attempt = None if timer.cancelled() or context is None else context.get(CURRENT)
        if attempt is not None and attempt.under_way:
            return True
    return False
