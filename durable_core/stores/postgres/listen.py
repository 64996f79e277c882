"""Notices what other stores have written: by notifications if they arrive, else by polling.

Invariant: a missed notification is made up for after ``EVERY`` questions at the latest.
"""

import asyncio
import hashlib
import logging
import secrets
from collections.abc import Callable

from durable_core.stores.postgres.connection import Connection
from durable_core.stores.postgres.pooler import PooledConnection
from durable_core.stores.postgres.statements import Statements

log = logging.getLogger("durable_core")

EVERY = 20
"""One in so many questions is answered with yes if notifications arrive; a worker asks 20 times a second."""
EVERY_POLL = 5
"""The same if they do not."""
PROBE_S = 1.0
"""How long the first notification, our own, may take."""


class Listener:
    """Listens for one store in ``schema``; ``notify`` is called with each notification from another store."""

    def __init__(self, statements: Statements, schema: str, *, notify: Callable[[], None]) -> None:
        self._on_change = notify
        digest = hashlib.blake2b(schema.encode(), digest_size=8).hexdigest()
        self.channel = f"sagas_{digest}"
        self.token = secrets.token_hex(8)
        """Marks this store's own notifications."""
        self._notify = statements["notify"]
        self._arrived = asyncio.Event()
        self._changed = False
        self._asked = 0
        self._polling = False

    async def attach(self, connection: Connection) -> None:
        """Listen on a new connection, and find out whether that works. What came before it may have been missed."""
        self._changed = True
        listens = not isinstance(connection, PooledConnection) and await self._listens(connection)
        if not listens and not self._polling:
            log.warning(
                "notifications do not arrive here, as behind a pooler of transactions; looking for work several "
                "times a second instead. Let workers reach PostgreSQL directly, or pool sessions"
            )
        self._polling = not listens

    async def _listens(self, connection: Connection) -> bool:
        """Whether our own first notification arrives."""
        self._arrived.clear()
        await connection.add_listener(self.channel, self._received)
        await connection.execute(self._notify, self.channel, f"probe {self.token}")
        try:
            async with asyncio.timeout(PROBE_S):
                await self._arrived.wait()
        except TimeoutError:
            return False
        return True

    def _received(self, _connection: object, _pid: int, _channel: str, payload: str) -> None:
        if payload == f"probe {self.token}":
            self._arrived.set()
        elif payload != self.token and not payload.startswith("probe "):
            self._changed = True
            self._on_change()

    def changed(self) -> bool:
        """Whether another store has sent a notification since the last call; now and then yes without a reason."""
        self._asked += 1
        changed, self._changed = self._changed, False
        return changed or self._asked % (EVERY_POLL if self._polling else EVERY) == 0
