"""The real clock and the real source of ids: the only places that read time and randomness."""

import asyncio
import random
import secrets
import time
from collections.abc import Callable
from datetime import timedelta

from durable_core.ports import Timer

NS = 1_000_000_000
LONGEST_S = 60.0
"""A longer wait is set in parts: the event loop's timers stand still while the machine sleeps, wall time does not."""


class SystemClock:
    """Wall time that never goes backwards within a process."""

    def __init__(self) -> None:
        self._last_ns = 0

    def now_ns(self) -> int:
        """Nanoseconds since the epoch; where the wall clock was set back, the last answer again."""
        now_ns = time.time_ns()
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


class SystemIds:
    """Random identities from the operating system; jitter from a plain generator."""

    def __init__(self) -> None:
        self._random = random.Random()

    def uid(self) -> bytes:
        """16 random bytes."""
        return secrets.token_bytes(16)

    def name(self) -> str:
        """16 hex digits."""
        return secrets.token_hex(8)

    def draw(self) -> float:
        """Jitter needs no secrecy."""
        return self._random.random()


def to_ns(span: timedelta | float) -> int:
    """A duration, given as ``timedelta`` or seconds, in nanoseconds."""
    seconds = span.total_seconds() if isinstance(span, timedelta) else span
    return round(seconds * NS)
