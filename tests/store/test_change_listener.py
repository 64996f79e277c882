"""Word of what other processes have written."""

import asyncio
import contextlib
from typing import Any

import pytest

from durable_core.engine.polling import SHARE, ChangeListener
from durable_core.testing.store_rows import in_loop


class Loop:
    """A loop whose clock stands where a test has put it, and whose timers are kept."""

    def __init__(self) -> None:
        self.now_s = 100.0
        self.timers: list[tuple[float, Any]] = []

    def time(self) -> float:
        return self.now_s

    def call_at(self, at_s: float, call: Any) -> Any:
        self.timers.append((at_s, call))
        return self


def test_what_is_heard_makes_one_look_and_looks_are_spaced():
    """At once where nothing was looked at; after a look that took 2 ms not for 8, however much is heard."""
    loop, looks = Loop(), list[float]()
    news = ChangeListener(loop, lambda: looks.append(loop.now_s))  # type: ignore[arg-type]
    news.heard()
    news.heard()
    ((at_s, ring),) = loop.timers
    assert at_s <= loop.now_s
    ring()
    assert looks == [100.0]
    loop.now_s = 100.002
    news.looked(100.0)
    news.heard()
    assert loop.timers[1][0] == pytest.approx(100.002 + 0.002 * SHARE)


@in_loop
async def test_who_waits_is_woken_by_what_is_heard():
    """All who wait, and not only the first; without news they go on after their time."""
    news = ChangeListener(asyncio.get_running_loop(), lambda: None)
    waiting = [asyncio.create_task(news.next(60)) for _ in range(2)]
    await asyncio.sleep(0)
    news.heard()
    async with asyncio.timeout(20):
        await asyncio.gather(*waiting)
        await news.next(0.001)
    left = asyncio.create_task(news.next(60))
    await asyncio.sleep(0)
    left.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await left
    assert not news._waiting
    news.close()
