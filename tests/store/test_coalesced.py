"""Questions that are asked together."""

import asyncio
from collections.abc import Collection

import pytest

from durable_core.stores.postgres.coalesced import FEW, Coalesced
from durable_core.testing.store_rows import in_loop


class Asked:
    """Answers once it is let, and keeps what it was asked."""

    def __init__(self) -> None:
        self.questions: list[list[int]] = []
        self.may = asyncio.Event()
        self.error: Exception | None = None
        self._came = asyncio.Event()

    async def until(self, questions: int) -> None:
        """Return once so many have been asked."""
        while len(self.questions) < questions:
            self._came.clear()
            await self._came.wait()

    async def __call__(self, keys: Collection[int]) -> dict[int, int]:
        self.questions.append(list(keys))
        self._came.set()
        await self.may.wait()
        if self.error is not None:
            raise self.error
        return {key: -key for key in keys}


@in_loop
async def test_what_comes_meanwhile_shares_the_next_question():
    """One question is under way at a time; all that came since is one question, in order, each key once."""
    asked = Asked()
    gathered = Coalesced[int, dict[int, int]](asked)
    first = asyncio.create_task(gathered.about([1]))
    await asked.until(1)
    later = [asyncio.create_task(gathered.about(keys)) for keys in ([3, 2], [2], [5, 1])]
    await asyncio.sleep(0)
    asked.may.set()
    assert await first == {1: -1}
    assert [(await each)[key] for each, key in zip(later, (3, 2, 1), strict=True)] == [-3, -2, -1]
    assert asked.questions == [[1], [3, 2, 5, 1]]


@in_loop
async def test_who_asks_about_many_asks_alone():
    """It waits for nobody, and holds up nobody with what it reads."""
    asked = Asked()
    gathered = Coalesced[int, dict[int, int]](asked)
    few = asyncio.create_task(gathered.about([1]))
    many = asyncio.create_task(gathered.about(range(FEW + 1)))
    await asked.until(2)
    assert sorted(map(len, asked.questions)) == [1, FEW + 1]
    asked.may.set()
    assert len(await many) == FEW + 1
    assert await few == {1: -1}


@in_loop
async def test_an_error_is_told_to_all_who_share_it():
    """And the next question is asked all the same."""
    asked = Asked()
    asked.may.set()
    asked.error = OSError("gone")
    gathered = Coalesced[int, dict[int, int]](asked)
    told = await asyncio.gather(gathered.about([1]), gathered.about([2]), return_exceptions=True)
    assert told == [asked.error, asked.error]
    asked.error = None
    assert await gathered.about([3]) == {3: -3}


@in_loop
async def test_who_stops_waiting_stops_nobody_else():
    """The question goes on for the others."""
    asked = Asked()
    gathered = Coalesced[int, dict[int, int]](asked)
    left, stays = (asyncio.create_task(gathered.about([key])) for key in (1, 2))
    await asked.until(1)
    left.cancel()
    with pytest.raises(asyncio.CancelledError):
        await left
    asked.may.set()
    assert (await stays)[2] == -2
