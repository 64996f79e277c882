"""The life of a reader that follows what one worker writes: it looks while there is something new, and now and then.

Invariant: it ends when it is asked to leave and all that was written has been looked at; a store that is away, or a
mistake of ours, is logged and tried again.
"""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable

from durable_core.errors import StoreError
from durable_core.ports import check_cancelled

log = logging.getLogger("durable_core.tracing")

POLL_S = 0.05
"""How often to look whether this process has written."""
LEAVING_S = 0.1
"""How often leaving asks whether it is hopeless."""
AGAIN_S = 0.5
"""How long to wait after something went wrong."""
BESIDE_AGAIN_S = 10.0
"""How long to wait where it was what is done besides."""


class JournalTail:
    """One follower's task."""

    def __init__(
        self,
        *,
        what: str,
        progress: Callable[[], int],
        catch_up: Callable[[bool], Awaitable[None]],
        besides: Callable[[], Awaitable[float]],
    ) -> None:
        """Follow with these.

        Args:
            what: for the log: what is made of the journal.
            progress: another number than before once this process has written.
            catch_up: looks at what is new; at all of it if it is given True, for then it is the last time.
            besides: what is done now and then; tells in how many seconds again.
        """
        self._what = what
        self._progress = progress
        self._catch_up = catch_up
        self._besides = besides
        self._besides_at_s = 0.0
        self._leaving = asyncio.Event()
        self._task = asyncio.get_running_loop().create_task(self._follow())

    async def leave(self, *, within_s: float, hopeless_at_s: Callable[[], float] | None = None) -> bool:
        """Look at what is left, for ``within_s``; False where that was not enough.

        Args:
            within_s: the longest time.
            hopeless_at_s: when it is given up before that, by the loop's clock, as things stand when it is asked.
        """
        self._leaving.set()
        loop, task = asyncio.get_running_loop(), self._task
        longest_s = loop.time() + within_s
        while not task.done():
            until_s = longest_s if hopeless_at_s is None else min(longest_s, hopeless_at_s())
            if loop.time() >= until_s:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
                return False
            await asyncio.wait((task,), timeout=min(until_s - loop.time(), LEAVING_S))
        await task
        return True

    async def _follow(self) -> None:
        seen = 0
        while True:
            check_cancelled()
            leaving = self._leaving.is_set()
            try:
                progress = self._progress()
                if progress != seen or leaving:
                    await self._catch_up(leaving)
                    seen = progress
                if not leaving:
                    await self._look_besides()
            except StoreError as error:
                if not error.logged:
                    log.warning("the journal could not be read for its %s; trying again: %s", self._what, error)
                leaving = False
                await asyncio.sleep(AGAIN_S)
            except Exception:
                log.exception("internal error with %s; trying again", self._what)
                await asyncio.sleep(AGAIN_S)
            if leaving:
                return
            # Not `wait_for`: on Python 3.11 it swallows a cancellation that comes as its time is over.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(POLL_S):
                    await self._leaving.wait()

    async def _look_besides(self) -> None:
        loop = asyncio.get_running_loop()
        if loop.time() >= self._besides_at_s:
            self._besides_at_s = loop.time() + BESIDE_AGAIN_S
            self._besides_at_s = loop.time() + await self._besides()
