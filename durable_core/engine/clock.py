"""The real clock and the real source of ids: the only places that read time and randomness."""

import asyncio
import logging
import os
import random
import time
from collections.abc import Callable
from functools import partial

from durable_core.errors import DefinitionError
from durable_core.model.duration import NS
from durable_core.ports import Activity, Clock, FollowingClock, Store, Timer

log = logging.getLogger("durable_core")

LONGEST_S = 60.0
"""A longer wait is divided, so that a step forward of the wall clock is followed within this time."""
SLOWER = 100
"""After a step back, time continues slower by one part in so many until the wall clock has caught up."""
MUCH_NS = 60 * NS
"""A store whose last time is so far ahead of this clock is worth a warning."""


BOOTTIME: int | None = getattr(time, "CLOCK_BOOTTIME", None)
steady_ns: Callable[[], int] = time.monotonic_ns if BOOTTIME is None else partial(time.clock_gettime_ns, BOOTTIME)
"""Nanoseconds on a clock that never jumps, and that continues while the machine sleeps, if there is one."""


def wall_ns() -> int:
    """The time of this machine's clock, in nanoseconds since the epoch; looked up anew, as tests replace the clock."""
    return time.time_ns()


class SystemClock:
    """Wall time that never goes back and never stands still.

    A step forward is followed at once. After a step back, time continues by a clock that never jumps, a hundredth
    slower, until the wall clock has caught up; so durations stay right, and times never decrease.

    Args:
        wall: nanoseconds since the epoch; may jump.
        steady: nanoseconds since any time; never jumps.
    """

    def __init__(self, *, wall: Callable[[], int] = wall_ns, steady: Callable[[], int] = steady_ns) -> None:
        self._wall = wall
        self._steady = steady
        self._last_ns = 0
        self._seen_ns = steady()
        self.ahead_ns = 0
        """How far the clock that this one follows is ahead of this machine's: the database's, if there is one."""

    def attach(self, engine: Activity) -> None:
        """Time goes by, whatever an engine does."""

    def detach(self, engine: Activity) -> None:
        """Nothing to release."""

    def now_ns(self) -> int:
        """Nanoseconds since the epoch."""
        # The wall clock is read first: a delay in between makes us late for a moment, and not early for good.
        wall_ns = self._wall() + self.ahead_ns
        seen_ns = self._steady()
        passed_ns = seen_ns - self._seen_ns
        self._last_ns = max(wall_ns, self._last_ns + passed_ns - passed_ns // SLOWER)
        self._seen_ns = seen_ns
        return self._last_ns

    def go_on_from(self, at_ns: int) -> None:
        """Continue from this time, which the store knows: the clock may have been set back between two processes."""
        behind_ns = at_ns - self.now_ns()
        if behind_ns > MUCH_NS:
            log.warning(
                "the clock is %.0f s behind the last time that this store knows; time continues from there, a "
                "hundredth slower until the clock has caught up. Set the clock of this machine, or of the database",
                behind_ns / NS,
            )
        self._last_ns = max(self._last_ns, at_ns)

    def call_at(self, at_ns: int, call: Callable[[], None]) -> Timer:
        """Call ``call`` on the running loop at ``at_ns``; at once if that is past."""
        return _LoopTimer(self, at_ns, call)


def clock_of(clock: Clock | None) -> Clock:
    """The clock that an engine was given, or else the system's.

    Raises:
        DefinitionError: it lacks something that a clock has.
    """
    if clock is None:
        return SystemClock()
    needed = [name for name in vars(Clock) if not name.startswith("_")]
    lacking = [name for name in needed if not callable(getattr(clock, name, None))]
    if lacking:
        raise DefinitionError(
            f"clock={clock!r} has no {' and no '.join(lacking)}",
            f"A clock has the methods {', '.join(needed)}; see durable_core.Clock",
        )
    return clock


def follow_store(clock: Clock, store: Store) -> None:
    """Let all workers of one store use the store's time."""
    if isinstance(clock, FollowingClock):
        clock.ahead_ns = store.ahead_ns()


def go_on_from(clock: Clock, at_ns: int | None) -> None:
    """See ``FollowingClock.go_on_from``."""
    if at_ns is not None and isinstance(clock, FollowingClock):
        clock.go_on_from(at_ns)


class _LoopTimer:
    __slots__ = ("_at_ns", "_call", "_clock", "_handle", "_loop")

    def __init__(self, clock: SystemClock, at_ns: int, call: Callable[[], None]) -> None:
        self._clock = clock
        self._at_ns = at_ns
        self._call = call
        self._loop = asyncio.get_running_loop()
        self._handle = self._loop.call_later(self._left_s(), self._ring)

    def _left_s(self) -> float:
        return min(max((self._at_ns - self._clock.now_ns()) / NS, 0.0), LONGEST_S)

    def _ring(self) -> None:
        if self._clock.now_ns() < self._at_ns:
            self._handle = self._loop.call_later(self._left_s(), self._ring)
        else:
            self._call()

    def cancel(self) -> None:
        self._handle.cancel()


UIDS = 256
"""Identities drawn from the operating system at a time: a system call each costs more than the rest of a start."""


class SystemIds:
    """Random identities from the operating system; jitter from a plain generator."""

    def __init__(self) -> None:
        self._random = random.Random()
        self._stock = b""
        self._used = 0
        # A forked child must never return the identities of its parent.
        os.register_at_fork(after_in_child=self._forget)

    def _forget(self) -> None:
        self._stock = b""
        self._used = 0

    def uid(self) -> bytes:
        """16 random bytes."""
        begin = self._used
        if begin >= len(self._stock):
            self._stock = os.urandom(16 * UIDS)
            begin = 0
        self._used = begin + 16
        return self._stock[begin : begin + 16]

    def name(self) -> str:
        """16 hex digits."""
        return self.uid()[:8].hex()

    def draw(self) -> float:
        """Jitter needs no secrecy."""
        return self._random.random()
