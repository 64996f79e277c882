"""One connection to PostgreSQL, made when it is first needed, and anew once it was lost. The driver is imported here.

Invariant: a link is used by one caller at a time, and whoever gets its connection gets one that has not been lost as
far as is known.
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Any, Protocol, cast

import asyncpg  # type: ignore[import-untyped]  # pyright: ignore[reportMissingTypeStubs]

CONNECT_S = 10
"""How long a server may take to let us in."""
COMMAND_S = 30.0
"""How long one statement may take, but for those that read at length."""

LONG_S = 600.0
"""How long one that reads at length may take."""
IDLE_S = 5.0
"""How long the server waits for the next statement of a transaction."""

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


async def connect(dsn: str, *, command_s: float = COMMAND_S) -> Connection:
    """A connection of its own; no statement on it may take longer than ``command_s``."""
    made = await asyncpg.connect(dsn, timeout=CONNECT_S, command_timeout=command_s)  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
    return cast("Connection", made)


@asynccontextmanager
async def in_transaction(connection: Connection) -> AsyncGenerator[None]:
    """A transaction from entry to exit, taken back where the block raises.

    It reads what is committed, whatever the role's default: takeovers and claims are thought out for that. The server
    takes it back by itself where the process is stopped amid it, so that it holds no lock for long.
    """
    begin = f"BEGIN ISOLATION LEVEL READ COMMITTED; SET LOCAL idle_in_transaction_session_timeout = '{IDLE_S:.0f}s'"
    await connection.execute(begin)
    try:
        yield
    except Exception:
        if not connection.is_closed():
            await connection.execute("ROLLBACK")
        raise
    except BaseException:
        connection.terminate()  # cancelled amid a statement: nobody knows what it is doing now
        raise
    await connection.execute("COMMIT")


class Link:
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
        """The connection, for this caller alone. Raises what ``CAUGHT`` names where it cannot be had."""
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
