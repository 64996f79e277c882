"""Participants for the tests: each has one open transaction, on a thread of its own, over any driver.

What a call came to is told as a text (``first``, ``repeat 1``, ``Undone``), so that a test compares it with what a
model of a few lines expects.
"""

import asyncio
import itertools
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Protocol

import attrs
import psycopg
from sqlalchemy import Column, Engine, Integer, MetaData, String, Table, create_engine, func, insert, select
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session

from sagas import DidNotHappen, SagasError, participant
from sagas.participant import Call, UndoCall, happened, once, undo
from tests.postgres_server import Server

DEADLINE_S = 30.0
KINDS = ("sqlite", "aiosqlite", "psycopg", "asyncpg")
NUMBERS = itertools.count(1)
own = MetaData()
EFFECTS = Table(
    "effect", own, Column("id", Integer, primary_key=True), Column("key", String(255)), Column("by", Integer)
)
"""What calls did: 1 for a step, -1 for its undo."""


@attrs.frozen
class Receipt:
    """What a step answers."""

    id: int


@attrs.frozen
class Refund:
    """What an undo answers."""

    of: int


def _effect(key: str, by: int) -> Any:
    return insert(EFFECTS).values(key=key, by=by)


def _begun(call: Call[Receipt], number: int) -> str:
    if not call.first:
        return f"repeat {call.answer.id}"
    call.answer = Receipt(number)
    return "first"


def _undone(call: UndoCall[Refund, Receipt]) -> str:
    told = f"undo {'first' if call.first else 'repeat'}, step {call.step.id if call.step else None}"
    if call.first and call.step is not None:
        call.answer = Refund(call.step.id)
    else:
        assert call.answer == (Refund(call.step.id) if call.step is not None else None)
    return told


class Party(Protocol):
    """One connection to the database, and its transaction."""

    def once(self, key: str, number: int = 1, request: object = "r", hold: "Hold | None" = None) -> Future[str]:
        """A step's call: answers with ``number`` if it is the first."""
        ...

    def undo(self, key: str, of: str, hold: "Hold | None" = None) -> Future[str]:
        """An undo's call."""
        ...

    def happened(self, key: str) -> Future[str]:
        """A probe's question."""
        ...

    def commit(self) -> Future[None]: ...
    def rollback(self) -> Future[None]: ...
    def close(self) -> None: ...


class Hold:
    """Lets a block be entered, and left when the test says so."""

    def __init__(self) -> None:
        self.entered = threading.Event()
        self.go = threading.Event()


class PlainParty:
    """On a ``Session``."""

    def __init__(self, engine: Engine) -> None:
        self.thread = ThreadPoolExecutor(1)
        self.session = Session(engine)

    def once(self, key: str, number: int = 1, request: object = "r", hold: Hold | None = None) -> Future[str]:
        def act() -> str:
            with once(self.session, key, request=request, answer=Receipt) as call:
                told = _begun(call, number)
                if told == "first":
                    self.session.execute(_effect(key, 1))
                _wait(hold)
            return told

        return self.thread.submit(_told, act)

    def undo(self, key: str, of: str, hold: Hold | None = None) -> Future[str]:
        def act() -> str:
            with undo(self.session, key, of=of, answer=Refund, step=Receipt) as call:
                told = _undone(call)
                if call.first and call.step is not None:
                    self.session.execute(_effect(of, -1))
                _wait(hold)
            return told

        return self.thread.submit(_told, act)

    def happened(self, key: str) -> Future[str]:
        return self.thread.submit(_told, lambda: _said(happened(self.session, key, answer=Receipt)))

    def commit(self) -> Future[None]:
        return self.thread.submit(self.session.commit)

    def rollback(self) -> Future[None]:
        return self.thread.submit(self.session.rollback)

    def close(self) -> None:
        self.thread.submit(self.session.close).result(DEADLINE_S)
        self.thread.shutdown()


class AsyncParty:
    """On an ``AsyncSession``, with an event loop of its own."""

    def __init__(self, url: str, options: dict[str, Any]) -> None:
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever)
        self.thread.start()
        self.engine = create_async_engine(url, connect_args=options)
        self.session = AsyncSession(self.engine)

    def submit(self, work: Coroutine[Any, Any, Any]) -> Future[Any]:
        """Have it done on the party's loop."""
        return asyncio.run_coroutine_threadsafe(work, self.loop)

    def once(self, key: str, number: int = 1, request: object = "r", hold: Hold | None = None) -> Future[str]:
        async def act() -> str:
            async with once(self.session, key, request=request, answer=Receipt) as call:
                told = _begun(call, number)
                if told == "first":
                    await self.session.execute(_effect(key, 1))
                await asyncio.to_thread(_wait, hold)
            return told

        return self.submit(_told_later(act))

    def undo(self, key: str, of: str, hold: Hold | None = None) -> Future[str]:
        async def act() -> str:
            async with undo(self.session, key, of=of, answer=Refund, step=Receipt) as call:
                told = _undone(call)
                if call.first and call.step is not None:
                    await self.session.execute(_effect(of, -1))
                await asyncio.to_thread(_wait, hold)
            return told

        return self.submit(_told_later(act))

    def happened(self, key: str) -> Future[str]:
        async def ask() -> str:
            return _said(await happened(self.session, key, answer=Receipt))

        return self.submit(_told_later(ask))

    def commit(self) -> Future[None]:
        return self.submit(self.session.commit())

    def rollback(self) -> Future[None]:
        return self.submit(self.session.rollback())

    def close(self) -> None:
        self.submit(self.session.close()).result(DEADLINE_S)
        self.submit(self.engine.dispose()).result(DEADLINE_S)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()
        self.loop.close()


def _wait(hold: Hold | None) -> None:
    if hold is not None:
        hold.entered.set()
        assert hold.go.wait(DEADLINE_S)


def _said(answer: object) -> str:
    return "did not happen" if isinstance(answer, DidNotHappen) else f"happened {answer.value.id}"  # type: ignore[attr-defined]


def _told(act: Callable[[], str]) -> str:
    try:
        return act()
    except SagasError as error:
        return type(error).__name__


async def _told_later(act: Callable[[], Coroutine[Any, Any, str]]) -> str:
    try:
        return await act()
    except SagasError as error:
        return type(error).__name__


class Base:
    """A participant's database, over one of the drivers."""

    def __init__(self, kind: str, path: Path, server: Server | None) -> None:
        self.kind = kind
        self.is_async = kind in ("aiosqlite", "asyncpg")
        self.stack = ExitStack()
        self.schema = f"participant{next(NUMBERS)}"
        self.server = server
        if server is None:
            self.url = f"sqlite:///{path}"
            self.options: dict[str, Any] = {"timeout": DEADLINE_S}
        else:
            self.url = server.url().replace("postgresql:", "postgresql+psycopg:")
            self.options = {"options": f"-csearch_path={self.schema}", "application_name": self.schema}
            with psycopg.connect(server.url(), autocommit=True) as connection:
                connection.execute(f"CREATE SCHEMA {self.schema}")
        self.engine = create_engine(self.url, connect_args=self.options)
        participant.create_tables(self.engine)
        own.create_all(self.engine)

    @property
    def async_url(self) -> tuple[str, dict[str, Any]]:
        """The address and the options for SQLAlchemy's asyncio."""
        if self.server is None:
            return self.url.replace("sqlite:", "sqlite+aiosqlite:"), self.options
        settings = {"search_path": self.schema, "application_name": self.schema}
        return self.server.url().replace("postgresql:", "postgresql+asyncpg:"), {"server_settings": settings}

    def party(self) -> Party:
        """Somebody new on this database."""
        party = AsyncParty(*self.async_url) if self.is_async else PlainParty(self.engine)
        self.stack.callback(party.close)
        return party

    def session(self) -> Session:
        """A session that closes with the test."""
        return self.stack.enter_context(Session(self.engine))

    def waiting(self, waiter: Future[str]) -> None:
        """Return once ``waiter`` waits for another transaction, where the database tells; SQLite does not."""
        if self.server is not None:
            self._seen("wait_event_type = 'Lock'", waiter)

    def sleeping(self) -> None:
        """Return once somebody sleeps in PostgreSQL."""
        self._seen("wait_event = 'PgSleep'")

    def _seen(self, what: str, waiter: Future[str] | None = None) -> None:
        assert self.server is not None
        asked = f"SELECT count(*) FROM pg_stat_activity WHERE {what} AND application_name = %s"
        until = time.monotonic() + DEADLINE_S
        with psycopg.connect(self.server.url(), autocommit=True) as connection:
            while connection.execute(asked, [self.schema]).fetchone() != (1,):
                assert time.monotonic() < until, "nobody came to wait"
                assert waiter is None or not waiter.done(), waiter.result() if waiter else ""
                time.sleep(0.01)

    def net(self, key: str) -> int:
        """How often a step is in force: done, less undone."""
        with self.engine.connect() as connection:
            asked = select(func.coalesce(func.sum(EFFECTS.c.by), 0)).where(EFFECTS.c.key == key)
            return int(connection.execute(asked).scalar_one())

    def acts(self, key: str) -> int:
        """How often something was done about a step, its undo included."""
        with self.engine.connect() as connection:
            asked = select(func.count()).select_from(EFFECTS).where(EFFECTS.c.key == key)
            return int(connection.execute(asked).scalar_one())


@contextmanager
def opened(kind: str, path: Path, server: Server | None) -> Iterator[Base]:
    """A fresh database of this kind; its parties are gone afterwards."""
    base = Base(kind, path, server)
    try:
        yield base
    finally:
        base.stack.close()
        base.engine.dispose()


@attrs.define
class Model:
    """What the calls about one step come to, in a few lines."""

    answer: int | None = None
    barred: bool = False
    undone: bool = False

    def once(self, number: int) -> str:
        if self.barred:
            return "Undone"
        if self.answer is not None:
            return f"repeat {self.answer}"
        self.answer = number
        return "first"

    def undo(self) -> str:
        told = f"undo {'repeat' if self.undone else 'first'}, step {self.answer}"
        self.undone, self.barred = True, self.barred or self.answer is None
        return told

    def happened(self) -> str:
        if self.answer is not None:
            return f"happened {self.answer}"
        self.barred = True
        return "did not happen"

    def net(self) -> int:
        """How often the step is in force."""
        return int(self.answer is not None and not self.undone)
