"""Users' own databases for the tests of `sagas.outbox`: SQLite and PostgreSQL, with plain and asynchronous sessions."""

import asyncio
import itertools
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from inspect import isawaitable
from pathlib import Path
from typing import Any

import attrs
from sqlalchemy import Engine
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine
from sqlmodel import Field, Session, SQLModel, create_engine, select

from sagas import Orchestrator, Saga, saga, step
from sagas.outbox import Outbox
from sagas.outbox.serving import OutboxRelay
from tests.kit import until
from tests.postgres_server import Server, execute

KINDS = ("sqlite", "aiosqlite", "psycopg", "asyncpg", "psycopg_async")
ON_SQLITE = ("sqlite", "aiosqlite")
_numbers = itertools.count()


class Booking(SQLModel, table=True):
    """A row of the program's own."""

    __tablename__ = "test_booking"

    id: int | None = Field(default=None, primary_key=True)
    what: str = ""


@attrs.frozen
class Shop:
    """A program's database, and the outbox in it."""

    engine: Any
    outbox: Outbox[Any]

    @property
    def is_async(self) -> bool:
        return isinstance(self.engine, AsyncEngine)

    def session(self, **options: Any) -> Any:
        """A new session of the kind that fits the engine."""
        return AsyncSession(self.engine, **options) if self.is_async else Session(self.engine, **options)

    async def commit(self, *acts: Callable[[Any], Any]) -> list[Any]:
        """Do these in one transaction of a new session, and commit it; what they gave."""
        async with self.opened() as session:
            given = [act(session) for act in acts]
            await done(session.commit())
        return given

    @asynccontextmanager
    async def opened(self, **options: Any) -> AsyncGenerator[Any]:
        """A session, closed at the end."""
        session = self.session(**options)
        try:
            yield session
        finally:
            await done(session.close())

    async def bookings(self) -> list[str]:
        """What is committed of the program's own rows."""
        async with self.opened() as session:
            rows = await done(session.execute(select(Booking.what).order_by(Booking.id)))
            return list(rows.scalars())

    async def waiting(self) -> int:
        """How many entries are committed and not handed on."""
        return int((await done(self.outbox.stats())).waiting)

    async def empty(self) -> bool:
        """Whether all was handed on or refused."""
        return await self.waiting() == 0

    async def refused(self) -> list[Any]:
        """The entries that were set aside."""
        return list(await done(self.outbox.refused()))


async def done(given: Any) -> Any:
    """What a call gives, of a plain or an asynchronous session."""
    return await given if isawaitable(given) else given


@asynccontextmanager
async def shop_at(url: str, **options: Any) -> AsyncGenerator[Shop]:
    """The tables of a shop in the database at this address."""
    engine: Engine | AsyncEngine
    engine = (
        create_async_engine(url, **options) if "aiosqlite" in url or "async" in url else create_engine(url, **options)
    )
    shop = Shop(engine, Outbox(engine))
    try:
        await done(shop.outbox.create_tables())
        if isinstance(engine, AsyncEngine):
            async with engine.begin() as connection:
                await connection.run_sync(lambda plain: SQLModel.metadata.create_all(plain, [Booking.__table__]))  # type: ignore[attr-defined]
        else:
            SQLModel.metadata.create_all(engine, [Booking.__table__])  # type: ignore[attr-defined]
        yield shop
    finally:
        await done(engine.dispose())


def address(kind: str, folder: Path, server: Callable[[], Server]) -> str:
    """The address of a new database of this kind."""
    if kind in ON_SQLITE:
        driver = "" if kind == "sqlite" else f"+{kind}"
        return f"sqlite{driver}:///{folder}/shop{next(_numbers)}.db"
    running, name = server(), f"shop{next(_numbers)}"
    execute(running.url(), f"CREATE DATABASE {name}")
    return f"postgresql+{kind}://sagas@127.0.0.1:{running.port}/{name}"


# -- sagas -------------------------------------------------------------------------------------------------------------


@step(compensation=None, because="it only writes down that it was called")
async def note(what: str) -> str:
    return what


@saga("order", version=1)
async def order(s: Saga, what: str) -> str:
    return await s.run(note, what)


tokens: list[str] = []


@step(compensation=None, because="it only writes down what it was given")
async def keep(token: str) -> None:
    tokens.append(token)


@saga("held", version=1)
async def held(s: Saga, what: str) -> str:
    """Waits for an answer."""
    approval = await s.callback("approval", str)
    await s.run(keep, approval.token)
    return f"{what}: {await approval.result()}"


async def hand_on(shop: Shop, running: Orchestrator) -> OutboxRelay:
    """What `sagas relay --once` does."""
    relay = OutboxRelay(shop.outbox, running.client)
    await relay.check()
    try:
        await relay.once()
    finally:
        await relay.end(within_s=5)
    return relay


async def started(running: Orchestrator) -> list[str]:
    """The ids of all sagas in the order in which they were started."""
    return [info.id for info in reversed(await running.list(limit=None))]


async def emptied(shop: Shop, running: Orchestrator | None = None) -> None:
    """Wait until nothing waits in the outbox."""
    await until(shop.empty, running)


async def soon(condition: Callable[[], Any]) -> None:
    """Wait for a condition that asks a database: not as often as ``until`` does."""

    async def asked() -> Any:
        await asyncio.sleep(0.01)
        return await done(condition())

    await until(asked)
