"""How a connection to PostgreSQL is made: directly or through a pooler, when first needed, and anew once lost.

Invariant: a connection is used by one caller at a time, and has not been lost as far as is known when it is handed out.
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager

from durable_core.stores.postgres.connection import CAUGHT, COMMAND_S, Connection, ends_connection, opened
from durable_core.stores.postgres.pooler import PooledConnection, is_direct, pools_sessions


async def connect(dsn: str, *, command_s: float = COMMAND_S) -> Connection:
    """A connection of its own; no statement on it may take longer than ``command_s``.

    Behind a pooler of transactions it is a ``PooledConnection``, and also if it is not clear whether the pooler
    pools transactions or sessions.
    """
    made = await opened(dsn, command_s=command_s)
    try:
        if await is_direct(made):
            return made
        await made.close(timeout=2)
    except BaseException:
        made.terminate()
        raise
    pooled = [PooledConnection(await opened(dsn, command_s=command_s, prepared=False)) for _ in range(2)]
    keep = None
    try:
        if not await pools_sessions(*pooled):
            keep = pooled[0]
    finally:
        for each in pooled:
            if each is not keep:
                each.terminate()
    return keep or await opened(dsn, command_s=command_s)


class Connecting:
    """A connection to ``dsn`` for one caller at a time; ``prepare`` is called on each that is made."""

    def __init__(
        self,
        dsn: str,
        *,
        prepare: Callable[[Connection], Awaitable[None]] | None = None,
        command_s: float = COMMAND_S,
    ) -> None:
        self._dsn = dsn
        self._command_s = command_s
        self._prepare = prepare
        self._connection: Connection | None = None
        self._turn = asyncio.Lock()

    @property
    def lost(self) -> bool:
        """Whether there is no connection that could be used as it stands."""
        return self._connection is None or self._connection.is_closed()

    @asynccontextmanager
    async def use(self) -> AsyncGenerator[Connection]:
        """The connection, for this caller alone. Raises what ``CAUGHT`` names if there is none."""
        async with self._turn:
            connection = self._connection
            if connection is None or connection.is_closed():
                connection = await connect(self._dsn, command_s=self._command_s)
                try:
                    if self._prepare is not None:
                        await self._prepare(connection)
                except BaseException:
                    connection.terminate()
                    raise
                self._connection = connection
            try:
                yield connection
            except CAUGHT as error:
                if ends_connection(error):  # also if it took too long: nobody knows what it is doing now
                    connection.terminate()
                raise

    async def close(self) -> None:
        """Close it, once its caller is done."""
        async with self._turn:
            connection, self._connection = self._connection, None
            if connection is None or connection.is_closed():
                return
            try:
                await connection.close(timeout=2)
            except CAUGHT:
                connection.terminate()

    def drop(self) -> None:
        """Drop it as the end of the process would."""
        if self._connection is not None:
            self._connection.terminate()
            self._connection = None
