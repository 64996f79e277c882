"""One connection to PostgreSQL, made when it is first needed, and anew once it was lost. The driver is imported here.

Invariant: a link is used by one caller at a time, and whoever gets its connection gets one that has not been lost as
far as is known.
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Protocol, cast

import asyncpg  # type: ignore[import-untyped]  # pyright: ignore[reportMissingTypeStubs]

CONNECT_S = 10
"""How long a server may take to let us in."""
COMMAND_S = 30.0
"""How long one statement may take, but for those that read at length."""

CAUGHT: tuple[type[Exception], ...] = (
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    OSError,  # TimeoutError is one
    UnicodeEncodeError,
    OverflowError,
)
"""What a call on a connection may raise; ``refusals.explain`` makes a ``StoreError`` of each."""

Row = Sequence[Any]


class Connection(Protocol):
    """What is used of the driver's connection."""

    async def fetch(self, query: str, *args: object, timeout: float | None = None) -> list[Row]:
        """All rows."""
        ...

    async def fetchrow(self, query: str, *args: object, timeout: float | None = None) -> Row | None:
        """The first row."""
        ...

    async def fetchval(self, query: str, *args: object, column: int = 0, timeout: float | None = None) -> Any:
        """The first row's first value."""
        ...

    async def execute(self, query: str, *args: object, timeout: float | None = None) -> str:
        """Run it."""
        ...

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
        ...

    def transaction(self) -> AbstractAsyncContextManager[object]:
        """A transaction, from entry to exit."""
        ...

    async def add_listener(self, channel: str, callback: Callable[..., object]) -> None:
        """Call back on each notification."""
        ...

    def is_closed(self) -> bool:
        """Whether it was lost or closed."""
        ...

    async def close(self, *, timeout: float | None = None) -> None:
        """Say goodbye."""
        ...

    def terminate(self) -> None:
        """Drop it."""
        ...


async def connect(dsn: str) -> Connection:
    """A connection of its own."""
    made = await asyncpg.connect(dsn, timeout=CONNECT_S, command_timeout=COMMAND_S)  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
    return cast("Connection", made)


class Link:
    """A connection to ``dsn`` for one caller at a time; ``prepare`` is called on each that is made."""

    def __init__(self, dsn: str, *, prepare: Callable[[Connection], Awaitable[None]] | None = None) -> None:
        self._dsn = dsn
        self._prepare = prepare
        self._connection: Connection | None = None
        self._turn = asyncio.Lock()

    @property
    def lost(self) -> bool:
        """Whether there is no connection that could be used as it stands."""
        return self._connection is None or self._connection.is_closed()

    @asynccontextmanager
    async def use(self) -> AsyncGenerator[Connection]:
        """The connection, for this caller alone. Raises what ``CAUGHT`` names where it cannot be had."""
        async with self._turn:
            connection = self._connection
            if connection is None or connection.is_closed():
                connection = await connect(self._dsn)
                try:
                    if self._prepare is not None:
                        await self._prepare(connection)
                except BaseException:
                    connection.terminate()
                    raise
                self._connection = connection
            try:
                yield connection
            except TimeoutError:
                connection.terminate()  # nobody knows what it is doing now
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
