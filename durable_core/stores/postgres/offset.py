"""How far the database's clock is ahead of this machine's, measured again and again while a process runs.

Invariant: within a process time goes on. If the database's clock is set forward or back by a second or more, the
process keeps the time that it has had; a clock that is only a little fast or slow is followed.
"""

import logging
import math
import threading
import time

from durable_core.model.duration import NS

log = logging.getLogger("durable_core")

STEP_NS = 1 * NS
"""What is more than this was set, and is not followed; less is a clock that runs fast or slow."""
DRIFT = 0.001
"""The part of the time by which two clocks may part without being set: a quartz does a fifth of that, NTP a half."""
LEAST_DOUBT_NS = 1_000_000


def steady_s() -> float:
    """Seconds on a clock that never jumps, and that goes on while the machine sleeps if there is such a clock."""
    clock: int = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
    return time.clock_gettime(clock)


def wall_ns() -> int:
    """What this machine's clock says, in nanoseconds since the epoch."""
    return time.time_ns()


class Offset:
    """What is added to this process's own time to have the database's; safe to use from several threads."""

    def __init__(self, *, shown: str = "the database") -> None:
        self.ahead_ns = 0
        self._shown = shown
        self._began_ns = wall_ns() - round(steady_s() * NS)
        self._doubt_ns = math.inf
        self._measured_ns = 0
        self._stepped_ns = 0
        """By how much the database's clock has been set since the first measurement."""
        self._turn = threading.Lock()

    def local_ns(self) -> int:
        """This process's own time: what the machine's clock said when it began, and what has passed since."""
        return self._began_ns + round(steady_s() * NS)

    def ahead_of_wall_ns(self) -> int:
        """How far this process's idea of the database's time is ahead of the machine's clock, as that stands now."""
        set_ns = self.local_ns() - wall_ns()
        return self.ahead_ns + (set_ns if abs(set_ns) > LEAST_DOUBT_NS else 0)

    def measured(self, theirs_ns: int, *, sent_ns: int, got_ns: int) -> None:
        """Take note of what the database's clock said between these two readings of ``local_ns``."""
        with self._turn:
            first = math.isinf(self._doubt_ns)
            doubt_ns = (got_ns - sent_ns) // 2 + LEAST_DOUBT_NS
            held_ns = self._doubt_ns + (got_ns - self._measured_ns) * DRIFT
            self._measured_ns = got_ns
            apart_ns = theirs_ns - (sent_ns + got_ns) // 2 - self._stepped_ns - self.ahead_ns
            if not first and abs(apart_ns) > held_ns + doubt_ns + STEP_NS:
                self._stepped(apart_ns)
                self._doubt_ns = held_ns + doubt_ns
                return
            if first and abs(apart_ns) > doubt_ns:
                self.ahead_ns += apart_ns
                self._doubt_ns = doubt_ns
            else:  # no further than this measurement is sure of, so that a slow answer moves nothing
                moved_ns = max(abs(apart_ns) - doubt_ns, 0)
                self.ahead_ns += moved_ns if apart_ns > 0 else -moved_ns
                self._doubt_ns = min(held_ns, abs(apart_ns) - moved_ns + doubt_ns)

    def _stepped(self, by_ns: int) -> None:
        self._stepped_ns += by_ns
        log.warning(
            "the clock of %s was set %s by %.3f s. This process goes on by the time that it has had, so that sleeps "
            "and deadlines keep their length; processes that begin from now on use the new time",
            self._shown,
            "forward" if by_ns > 0 else "back",
            abs(by_ns) / NS,
        )
