"""The real clock and the real source of ids: the only places that read time and randomness."""

import asyncio
import os
import random
import time
from collections.abc import Callable
from datetime import timedelta

from durable_core.errors import DefinitionError
from durable_core.model.span import seconds_of, shown
from durable_core.ports import Timer

NS = 1_000_000_000
LONGEST_S = 60.0
"""A longer wait is set in parts: the event loop's timers stand still while the machine sleeps, wall time does not."""


class SystemClock:
    """Wall time that never goes backwards within a process."""

    def __init__(self) -> None:
        self._last_ns = 0
        self.ahead_ns = 0
        """How far the clock that this one follows is ahead of this machine's: the database's, where there is one."""

    def now_ns(self) -> int:
        """Nanoseconds since the epoch; where the wall clock was set back, the last answer again."""
        now_ns = time.time_ns() + self.ahead_ns
        if now_ns < self._last_ns:
            return self._last_ns
        self._last_ns = now_ns
        return now_ns

    def call_at(self, at_ns: int, call: Callable[[], None]) -> Timer:
        """Call ``call`` on the running loop at ``at_ns``; at once where that is past."""
        return _LoopTimer(self, at_ns, call)


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
"""Identities drawn from the operating system at a time: a system call each would cost more than the rest of a start."""


class SystemIds:
    """Random identities from the operating system; jitter from a plain generator."""

    def __init__(self) -> None:
        self._random = random.Random()
        self._stock = b""
        self._used = 0
        # A forked child must never hand out what its parent will.
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


def span_ns(span: object, *, what: str) -> int | None:
    """A duration above zero in nanoseconds; None where there is none.

    Raises:
        DefinitionError: it is no duration.
    """
    if span is None:
        return None
    seconds = seconds_of(span)
    if seconds is None:
        raise DefinitionError(
            f"{what}={shown(span)} is no duration; give a timedelta or seconds, above zero and at most 100 years"
        )
    return max(to_ns(seconds), 1)


def to_ns(span: timedelta | float) -> int:
    """A duration, given as ``timedelta`` or seconds, in nanoseconds."""
    seconds = span.total_seconds() if isinstance(span, timedelta) else span
    return round(seconds * NS)
