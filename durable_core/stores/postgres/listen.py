"""Hears of what other stores did: by notifications where they arrive, else by looking every now and then.

Invariant: whatever is missed, somebody looks after ``EVERY`` questions at the latest.
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
"""Each so many-th question is answered with yes where notifications arrive; a worker asks 20 times a second."""
EVERY_DEAF = 5
"""The same where they do not."""
PROBE_S = 1.0
"""How long the first notification, our own, may take."""


class Listener:
    """The ear of one store in ``schema``."""

    def __init__(self, statements: Statements, schema: str, *, tell: Callable[[], None]) -> None:
        self._tell = tell
        digest = hashlib.blake2b(schema.encode(), digest_size=8).hexdigest()
        self.channel = f"sagas_{digest}"
        self.token = secrets.token_hex(8)
        """By which this store knows its own notifications."""
        self._notify = statements["notify"]
        self._heard = asyncio.Event()
        self._changed = False
        self._asked = 0
        self._deaf = False

    async def attach(self, connection: Connection) -> None:
        """Listen on a new connection, and find out whether that works. What came before it may have been missed."""
        self._changed = True
        hears = not isinstance(connection, PooledConnection) and await self._listens(connection)
        if not hears and not self._deaf:
            log.warning(
                "notifications do not arrive here, as behind a pooler of transactions; looking for work several "
                "times a second instead. Let workers reach PostgreSQL directly, or pool sessions"
            )
        self._deaf = not hears

    async def _listens(self, connection: Connection) -> bool:
        """Whether our own first notification arrives."""
        self._heard.clear()
        await connection.add_listener(self.channel, self._hear)
        await connection.execute(self._notify, self.channel, f"probe {self.token}")
        try:
            await asyncio.wait_for(self._heard.wait(), PROBE_S)
        except TimeoutError:
            return False
        return True

    def _hear(self, _connection: object, _pid: int, _channel: str, payload: str) -> None:
        if payload == f"probe {self.token}":
            self._heard.set()
        elif payload != self.token and not payload.startswith("probe "):
            self._changed = True
            self._tell()

    def changed(self) -> bool:
        """Whether somebody else has written since the last call, as far as was heard; now and then without a reason."""
        self._asked += 1
        changed, self._changed = self._changed, False
        return changed or self._asked % (EVERY_DEAF if self._deaf else EVERY) == 0
