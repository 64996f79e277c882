"""What a connection to PostgreSQL is, and a transaction on it. The driver is imported here, and nowhere else."""

from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Any, Protocol, cast

import asyncpg  # type: ignore[import-untyped]  # pyright: ignore[reportMissingTypeStubs]

from durable_core.stores.postgres.address import unreadable

CONNECT_S = 10
"""How long a server may take to let us in."""
COMMAND_S = 30.0
"""How long one statement may take, but for those that read at length."""

LONG_S = 600.0
"""How long one that reads at length may take."""
KEPT = 100
"""Statements that stay prepared on one connection."""
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

_ENDED = ("08", "57P01", "57P02", "57P03", "57P05", "25P03", "25P04")
"""SQLSTATEs, or their beginnings, with which the server ends a connection."""
_REPLANNED = "0A000"
"""With the driver's own class for it: what was prepared on this connection is not valid any more."""

Row = Sequence[Any]


class UnreadableFile(OSError):
    """A file that the address names cannot be read."""


def ends_connection(error: BaseException) -> bool:
    """Whether nothing more can be asked on the connection that raised ``error``, whatever the driver thinks.

    The server may end a connection while nobody uses it: the driver notices with the next question, and then complains
    about a state of its own.
    """
    if isinstance(error, asyncpg.PostgresError):
        state = str(getattr(error, "sqlstate", "") or "")
        return state.startswith(_ENDED) or (
            state == _REPLANNED and isinstance(error, asyncpg.InvalidCachedStatementError)
        )
    if isinstance(error, ValueError | asyncpg.UnsupportedClientFeatureError | asyncpg.UnsupportedServerFeatureError):
        return False  # it is about what was asked
    return isinstance(error, asyncpg.InterfaceError | asyncpg.InternalClientError | OSError)


def is_other_kind(error: BaseException) -> bool:
    """Whether there are only servers of another kind than the address asks for, such as a standby."""
    return isinstance(error, asyncpg.TargetServerAttributeNotMatched)


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

    def get_server_pid(self) -> int:
        """The server's process number, as reported at the start of this connection."""
        ...

    def is_in_transaction(self) -> bool:
        """Whether one is open."""
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


async def opened(dsn: str, *, command_s: float, prepared: bool = True) -> Connection:
    """A connection as the driver makes it; with ``prepared`` its statements stay prepared on the server."""
    try:
        made = await asyncpg.connect(  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
            dsn, timeout=CONNECT_S, command_timeout=command_s, statement_cache_size=KEPT if prepared else 0
        )
    except (FileNotFoundError, PermissionError) as error:
        # The system says the same of a certificate that is not there and of the socket of a server that is down.
        if missing := unreadable(dsn):
            raise UnreadableFile(f"{missing}: {error}") from error
        raise
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
