"""Word of what other processes have written, where a store hears of it: who waits for such a process is woken at once.

Invariant: hearing costs at most a fixed share of the time. After a look that took long the next one waits, and what is
heard meanwhile is one reason to look.
"""

import asyncio
import contextlib
from collections.abc import Callable

SHARE = 4
"""A look that took a millisecond is not repeated for so many, whatever is heard."""


class ChangeListener:
    """What one process hears of the others; ``poke`` makes it look."""

    def __init__(self, loop: asyncio.AbstractEventLoop, poke: Callable[[], None]) -> None:
        self._loop = loop
        self._poke = poke
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
        self._poke()

    def looked(self, since_s: float) -> None:
        """A look, begun then by the loop's clock, is over."""
        now_s = self._loop.time()
        self._not_before_s = now_s + (now_s - since_s) * SHARE

    async def next(self, within_s: float) -> None:
        """Return once something is heard, and after ``within_s`` at the latest."""
        waiter: asyncio.Future[None] = self._loop.create_future()
        self._waiting.add(waiter)
        try:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(waiter, within_s)
        finally:
            self._waiting.discard(waiter)

    def close(self) -> None:
        """Wake nobody any more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
