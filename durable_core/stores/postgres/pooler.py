"""A connection through a pooler of transactions, such as PgBouncer: how to recognize it and use it safely.

Such a pooler may give each transaction another connection to the server. So nothing may stay on the server from one
transaction to the next: no prepared statement, no setting, no LISTEN. The driver prepares even what it runs once, in a
message of its own; hence each statement that stands alone gets a transaction around it.

Invariant: all messages of one statement reach one server, whatever the pooler's settings and age.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Any

from durable_core.stores.postgres.connection import CAUGHT, Connection, Row, in_transaction

ROUNDS = 8
"""How often two connections are compared. A pooler of transactions gives the second what the first has just left."""
PROBE_S = 2.0
"""How long that may take: a pooler of sessions with no server left lets the second one wait."""
MISMATCH = "22012"
"""A division by zero: how a statement without a result says no."""


async def is_direct(connection: Connection) -> bool:
    """Whether the server itself has greeted us: a pooler reports its own number as that of the server's process."""
    try:
        await connection.execute(f"SELECT 1 / (pg_backend_pid() = {connection.get_server_pid():d})::int")
    except CAUGHT as error:
        if getattr(error, "sqlstate", None) == MISMATCH:
            return False
        raise
    return True


class PooledConnection:
    """A ``Connection`` whose statements each run in a transaction; ``connection`` must keep none of them prepared."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    @asynccontextmanager
    async def _together(self) -> AsyncGenerator[Connection]:
        """A transaction for one statement, unless one is open."""
        if self._connection.is_in_transaction():
            yield self._connection
            return
        async with in_transaction(self._connection):
            yield self._connection

    async def fetch(self, query: str, *args: object, timeout: float | None = None) -> list[Row]:
        """All rows."""
        async with self._together() as connection:
            return await connection.fetch(query, *args, timeout=timeout)

    async def fetchrow(self, query: str, *args: object, timeout: float | None = None) -> Row | None:
        """The first row."""
        async with self._together() as connection:
            return await connection.fetchrow(query, *args, timeout=timeout)

    async def fetchval(self, query: str, *args: object, column: int = 0, timeout: float | None = None) -> Any:
        """The first row's first value."""
        async with self._together() as connection:
            return await connection.fetchval(query, *args, column=column, timeout=timeout)

    async def execute(self, query: str, *args: object, timeout: float | None = None) -> str:
        """Run it. One without values is a single message, and may begin or end a transaction."""
        if not args:
            return await self._connection.execute(query, timeout=timeout)
        async with self._together() as connection:
            return await connection.execute(query, *args, timeout=timeout)

    async def copy_records_to_table(
        self,
        name: str,
        *,
        records: Iterable[Sequence[object]],
        columns: Sequence[str],
        schema_name: str,
        timeout: float,
    ) -> str:
        """Write many rows."""
        async with self._together() as connection:
            return await connection.copy_records_to_table(
                name, records=records, columns=columns, schema_name=schema_name, timeout=timeout
            )

    async def add_listener(self, channel: str, callback: Callable[..., object]) -> None:
        """Nothing: what is listened to stays with a server that the next transaction may not have."""

    def get_server_pid(self) -> int:
        """The number that the pooler reported."""
        return self._connection.get_server_pid()

    def is_in_transaction(self) -> bool:
        """Whether one is open."""
        return self._connection.is_in_transaction()

    def is_closed(self) -> bool:
        """Whether it was lost or closed."""
        return self._connection.is_closed()

    async def close(self, *, timeout: float | None = None) -> None:
        """Say goodbye."""
        await self._connection.close(timeout=timeout)

    def terminate(self) -> None:
        """Drop it."""
        self._connection.terminate()


async def pools_sessions(first: PooledConnection, second: PooledConnection) -> bool:
    """Whether each of two connections has a server of its own for as long as it lasts; no if that is not clear."""
    ask = "SELECT pg_backend_pid()"
    try:
        async with asyncio.timeout(PROBE_S):
            seen = {(await first.fetchval(ask), await second.fetchval(ask)) for _ in range(ROUNDS)}
    except TimeoutError:
        return False
    mine, other = seen.pop()
    return not seen and mine != other
