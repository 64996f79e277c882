"""Questions asked together: callers that come while one is under way share the next one, as in a group commit.

A connection carries one question at a time, so a thousand callers would wait for a thousand round trips.

Invariant: a question is sent after all that share its answer have asked; so each sees what was written before.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection
from typing import Generic, TypeVar

K = TypeVar("K")
R = TypeVar("R")

FEW = 16
"""Keys of one caller; a caller with more asks alone, and delays nobody with the rows that it reads."""


class Coalesced(Generic[K, R]):
    """One kind of question, about keys. The answer is about all keys that were asked together: pick your own."""

    def __init__(self, ask: Callable[[Collection[K]], Awaitable[R]]) -> None:
        self._ask = ask
        self._turn = asyncio.Lock()
        self._keys: dict[K, None] = {}
        self._next: asyncio.Task[R] | None = None

    async def about(self, keys: Collection[K]) -> R:
        """The answer about these keys, and perhaps others. Raises what asking raises, for all that share it."""
        if len(keys) > FEW:
            return await self._ask(keys)
        self._keys.update(dict.fromkeys(keys))
        if self._next is None:
            self._next = asyncio.get_running_loop().create_task(self._together())
        return await asyncio.shield(self._next)  # a caller that stops waiting stops nobody else

    async def _together(self) -> R:
        async with self._turn:
            keys, self._keys, self._next = self._keys, {}, None
            return await self._ask(list(keys))
