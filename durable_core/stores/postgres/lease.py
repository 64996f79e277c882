"""A worker's lease: renewed by a thread of its own, on a connection of its own, however busy the event loop is.

Invariant: ``left_s`` never says more than the database grants, because the time counts from before a renewal was sent.
"""

import asyncio
import contextlib
import logging
import math
import threading

from durable_core.stores.postgres.connect import connect
from durable_core.stores.postgres.connection import CAUGHT, Connection, ends_connection
from durable_core.stores.postgres.offset import Offset, steady_s

log = logging.getLogger("durable_core")

RENEWALS = 3
"""How often a lease is renewed in its time."""
SLOW = 0.2
"""A renewal that took this part of a lease is one that nearly failed: others may not have been as lucky."""
PAUSE_S = 0.25
"""Between attempts to renew while the database cannot be reached."""
LOG_S = 60.0
"""Between two lines of the log about that."""


class Lease:
    """The lease of ``worker``, from its entry on (``granted_at_s``) until ``stop``."""

    def __init__(
        self, dsn: str, text: str, *, worker: str, lease_s: float, granted_at_s: float, offset: Offset
    ) -> None:
        self.worker = worker
        self.lost = False
        """The database knows this worker no more."""
        self._troubled_s = self._logged_s = -math.inf
        self.renewed = 0
        """How often it was renewed."""
        self._dsn = dsn
        self._renewal = text
        self._lease_s = lease_s
        self._until_s = granted_at_s + lease_s
        self._offset = offset
        self._stopped = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._wake: asyncio.Event | None = None
        self._thread = threading.Thread(target=self._run, name="store-lease", daemon=True)
        self._thread.start()

    def left_s(self) -> float:
        """Seconds until somebody may take this worker for dead; below zero once they may."""
        return -1.0 if self.lost else self._until_s - steady_s()

    def calm(self) -> bool:
        """Whether no renewal has failed for a while: else the database was away, and others are yet to renew."""
        return steady_s() - self._troubled_s > self._lease_s / RENEWALS

    def stop(self) -> None:
        """Renew it no more. Returns once the thread has ended; blocks for as long as a renewal under way takes."""
        self.let_go()
        self._thread.join(timeout=5)

    def let_go(self) -> None:
        """Renew it no more, without waiting."""
        self._stopped.set()
        loop, wake = self._loop, self._wake
        if loop is not None and wake is not None:
            with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
                loop.call_soon_threadsafe(wake.set)

    def _run(self) -> None:
        asyncio.run(self._keep())

    async def _keep(self) -> None:
        self._wake = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        connection: Connection | None = None
        while not self._stopped.is_set() and not self.lost:
            pause_s = self._lease_s / RENEWALS
            try:
                if connection is None or connection.is_closed():
                    async with asyncio.timeout(self._lease_s):
                        connection = await connect(self._dsn)
                async with asyncio.timeout(self._lease_s):
                    await self._renew(connection)
            except CAUGHT as error:
                self._troubled_s = steady_s()
                self._log(error)
                pause_s = min(PAUSE_S, pause_s)
                if connection is not None and ends_connection(error):
                    connection.terminate()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await self._wake.wait()
        if connection is not None and not connection.is_closed():
            with contextlib.suppress(*CAUGHT):
                await connection.close(timeout=1)

    def _log(self, error: BaseException) -> None:
        """Once it endangers the lease, and now and then while it lasts: it is tried several times a second."""
        if self.left_s() < self._lease_s / 2 and steady_s() - self._logged_s >= LOG_S:
            self._logged_s = steady_s()
            log.warning(
                "the lease of worker %s could not be renewed and ends in %.0f s; trying again until it can be: %s",
                self.worker,
                max(self.left_s(), 0.0),
                type(error).__name__,
            )

    async def _renew(self, connection: Connection) -> None:
        began_s, sent_ns = steady_s(), self._offset.local_ns()
        theirs_ns = await connection.fetchval(self._renewal, self.worker, round(self._lease_s * 1e9))
        if theirs_ns is None:
            self.lost = True
            return
        self._until_s = began_s + self._lease_s
        self.renewed += 1
        self._logged_s = -math.inf
        self._offset.measured(int(theirs_ns), sent_ns=sent_ns, got_ns=self._offset.local_ns())
        if steady_s() - began_s > self._lease_s * SLOW:
            self._troubled_s = steady_s()
