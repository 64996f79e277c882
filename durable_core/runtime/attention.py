"""Tells whoever asked to be told that a run needs a person.

Invariant: whatever the listener raises or however long it takes, no run waits for it.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable

log = logging.getLogger("durable_core")


class Attention:
    """The calls under way to one listener; without a listener nothing happens."""

    __slots__ = ("_listener", "_telling")

    def __init__(self, listener: Callable[[str], Awaitable[None]] | None) -> None:
        self._listener = listener
        self._telling: set[asyncio.Task[None]] = set()

    def ask_for(self, run_id: str) -> None:
        """The run of this id needs a person."""
        if self._listener is None:
            return
        task = asyncio.get_running_loop().create_task(self._tell(run_id, self._listener))
        self._telling.add(task)
        task.add_done_callback(self._telling.discard)

    async def _tell(self, run_id: str, told: Callable[[str], Awaitable[None]]) -> None:
        try:
            await told(run_id)
        except Exception:
            log.exception("on_attention failed for run %s", run_id)

    async def told(self) -> None:
        """Return once no call is under way."""
        if self._telling:
            await asyncio.gather(*self._telling, return_exceptions=True)
