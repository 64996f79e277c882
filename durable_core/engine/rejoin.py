"""What a worker does once it was taken for dead: it drops its runs without a word, takes another name and goes on.

Invariant: from the moment on at which the loss is known, nothing is written or begun under the lost name.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable

from durable_core.engine.worker import Worker
from durable_core.engine.writer import Writer
from durable_core.errors import LeaseLost, StoreError
from durable_core.ports import Store

log = logging.getLogger("durable_core")

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.05, 2.0


class Rejoin:
    """Brings one worker back after a ``LeaseLost``, whoever met it first: the writer, or the search for work."""

    def __init__(
        self,
        *,
        store: Store,
        writer: Writer,
        worker: Worker,
        new_name: Callable[[], str],
        on_rejoined: Callable[[], Awaitable[None]],
    ) -> None:
        self._store = store
        self._writer = writer
        self._worker = worker
        self._new_name = new_name
        self._on_rejoined = on_rejoined
        self._turn = asyncio.Lock()

    async def recover(self, lost: LeaseLost) -> None:
        """Return once the worker has another name and may claim again. Harmless where that was done for this loss."""
        async with self._turn:
            if lost.worker != self._worker.worker:
                return
            log.error("%s", lost)
            name = self._new_name()
            self._worker.disown(name)
            self._writer.drop(lost)
            self._writer.hold()  # nothing is written under the new name before it is known who owes its spans
            try:
                await self._until_done(name, lambda: self._store.rejoin(name))
                await self._until_done(name, self._on_rejoined)
            finally:
                self._writer.go_on()
            log.warning("worker %s goes on as %s", lost.worker, name)
            self._worker.poked.set()

    async def _until_done(self, name: str, step: Callable[[], Awaitable[None]]) -> None:
        pause_s = FIRST_PAUSE_S
        while True:
            try:
                await step()
            except StoreError as error:
                log.warning("worker %s could not be announced; trying again: %s", name, error)
                await asyncio.sleep(pause_s)
                pause_s = min(pause_s * 2, LONGEST_PAUSE_S)
            else:
                return
