"""The SQL of an outbox: each question is a short transaction on a connection of the user's engine.

Invariant: a row is deleted only once its entry was handed on, or because an operator dropped it.
"""

import asyncio
import re
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar, cast
from weakref import WeakSet

import attrs
from sqlalchemy import ColumnElement, Connection, Engine, delete, event, exc, func, insert, inspect, select, update
from sqlalchemy.engine import ExceptionContext
from sqlalchemy.pool import SingletonThreadPool, StaticPool

from durable_core import DefinitionError
from durable_core.layer import at
from sagas.outbox.entries import Entry, OutboxStats, RefusedEntry, Start
from sagas.outbox.kinds import AnyEngine, async_engine, sync_engine
from sagas.outbox.lease import Lease
from sagas.outbox.tables import ENTRIES, METADATA, RELAY, RELAYS

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine

P = ParamSpec("P")
T = TypeVar("T")

_MISSING = re.compile(r"no such table|does not exist|doesn't exist|invalid object name|ORA-00942", re.IGNORECASE)
"""How SQLite, PostgreSQL, MySQL, SQL Server and Oracle say that there is no such table."""
CREATE = "Create them with outbox.create_tables(), or let Alembic do it from outbox.metadata"
ROW, LEASE = ENTRIES.c, RELAYS.c
WAITS = ROW.refused_at_ns.is_(None)
REFUSED = ROW.refused_at_ns.is_not(None)


@attrs.frozen
class Glance:
    """What a relay looks at twice a second."""

    lease: Lease
    waiting: bool


@attrs.frozen
class Database:
    """Runs functions of a connection, each in a transaction of its own: on a thread, or on the engine's loop."""

    engine: AnyEngine

    @property
    def sync(self) -> Engine:
        """The engine that connections are made by."""
        return cast("Engine", sync_engine(self.engine))

    @property
    def place(self) -> str:
        """Its address, without the password."""
        return self.sync.url.render_as_string(hide_password=True)

    def here(self, ask: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run it in this thread."""
        with self.sync.begin() as connection:
            return ask(connection, *args, **kwargs)

    async def ask(
        self,
        threads: ThreadPoolExecutor,
        ask: Callable[Concatenate[Connection, P], T],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        """Run it without holding the loop up."""
        asynchronous = async_engine(self.engine)
        if asynchronous is not None:
            return await on_loop(asynchronous, ask, *args, **kwargs)
        return await asyncio.get_running_loop().run_in_executor(threads, lambda: self.here(ask, *args, **kwargs))

    def check_shared(self) -> None:
        """Refuse a database that a relay, on connections of its own, cannot read beside the program.

        Raises:
            DefinitionError: each connection has another database, or all transactions share one connection.
        """
        if isinstance(self.sync.pool, StaticPool | SingletonThreadPool):
            raise DefinitionError(
                f"the outbox of {self.place} cannot be handed on: its engine gives all threads one connection, or "
                "each another database, as SQLite in memory does",
                "Use a file or a server",
            )


async def on_loop(
    engine: "AsyncEngine", ask: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs
) -> T:
    """Run it on the loop that an asynchronous engine belongs to."""
    async with engine.begin() as connection:
        return await connection.run_sync(ask, *args, **kwargs)


_EXPLAINED: WeakSet[Engine] = WeakSet()
"""Not asked of ``event.contains``, which takes a new engine for an old one at the same address."""


def explain_errors(engine: Engine) -> None:
    """Where a table of an outbox is missing, say how to create it."""
    if engine not in _EXPLAINED:
        _EXPLAINED.add(engine)
        event.listen(engine, "handle_error", _explain)


def _explain(context: ExceptionContext) -> None:
    statement = context.statement or ""
    if "sagas_outbox" in statement and _is_missing(context.original_exception):
        raise DefinitionError("the tables of this outbox do not exist in its database", CREATE)


def _is_missing(error: BaseException) -> bool:
    return "sagas_outbox" in str(error) and _MISSING.search(str(error)) is not None


# -- tables ------------------------------------------------------------------------------------------------------------


def create(connection: Connection) -> None:
    """Create the tables that are not there yet."""
    METADATA.create_all(connection)


def exist(connection: Connection) -> bool:
    """Whether the tables are there."""
    known = inspect(connection)
    return all(known.has_table(table) for table in METADATA.tables)


# -- the relay ---------------------------------------------------------------------------------------------------------


def look(connection: Connection) -> Glance:
    """The lease, and whether there is anything to hand on."""
    found = connection.execute(select(LEASE.owner, LEASE.beat).where(LEASE.name == RELAY)).one_or_none()
    waiting = connection.execute(select(ROW.id).where(WAITS).limit(1)).first() is not None
    return Glance(Lease("", 0) if found is None else Lease(found.owner, found.beat), waiting)


def take(connection: Connection, expected: Lease, owner: str) -> Lease | None:
    """Take the lease, renew it, or give it up, where it still is as expected; None where it is not."""
    taken = Lease(owner, expected.beat + 1)
    same = (LEASE.name == RELAY, LEASE.owner == expected.owner, LEASE.beat == expected.beat)
    change = update(RELAYS).where(*same).values(owner=owner, beat=taken.beat)
    if connection.execute(change).rowcount == 1:
        return taken
    if expected.beat:
        return None
    try:  # nobody has ever held it
        with connection.begin_nested():
            connection.execute(insert(RELAYS).values(name=RELAY, owner=owner, beat=taken.beat))
    except exc.IntegrityError:
        return None
    return taken


def read(connection: Connection, limit: int) -> list[Entry]:
    """The first entries that wait, in order."""
    wanted = select(ROW.id, ROW.verb, ROW.saga_id, ROW.request, ROW.traceparent, ROW.at_ns)
    return [Entry(*row) for row in connection.execute(wanted.where(WAITS).order_by(ROW.id).limit(limit))]


def settle(connection: Connection, done: Sequence[int], refused: Sequence[tuple[int, str]], now_ns: int) -> list[int]:
    """Delete what was handed on and mark what was refused; gives the ids that were not marked before."""
    if done:
        connection.execute(delete(ENTRIES).where(ROW.id.in_(done)))
    marked: list[int] = []
    for entry_id, reason in refused:
        change = update(ENTRIES).where(ROW.id == entry_id, WAITS).values(refused_at_ns=now_ns, reason=reason)
        if connection.execute(change).rowcount == 1:
            marked.append(entry_id)
    return marked


# -- operators ---------------------------------------------------------------------------------------------------------


def refused(connection: Connection) -> list[RefusedEntry]:
    """What could not be handed on, in order."""
    rows = connection.execute(select(ENTRIES).where(REFUSED).order_by(ROW.id)).mappings()
    return [_refused(dict(row)) for row in rows]


def _refused(row: dict[str, Any]) -> RefusedEntry:
    try:
        request = Entry(row["id"], row["verb"], row["saga_id"], row["request"], None, 0).read()
    except ValueError:
        request = None
    return RefusedEntry(
        id=row["id"],
        verb=row["verb"],
        saga_id=row["saga_id"],
        saga=request.saga if isinstance(request, Start) else None,
        reason=row["reason"],
        at=at(row["at_ns"]),
        refused_at=at(row["refused_at_ns"]),
    )


def retry(connection: Connection, ids: Sequence[int] | None) -> int:
    """Have refused entries handed on again, all where ``ids`` is None; gives their number."""
    change = update(ENTRIES).where(REFUSED, *_among(ids)).values(refused_at_ns=None, reason=None)
    return connection.execute(change).rowcount


def drop(connection: Connection, ids: Sequence[int] | None) -> int:
    """Delete refused entries, all where ``ids`` is None; gives their number."""
    return connection.execute(delete(ENTRIES).where(REFUSED, *_among(ids))).rowcount


def _among(ids: Sequence[int] | None) -> list[ColumnElement[bool]]:
    return [] if ids is None else [ROW.id.in_(ids)]


def stats(connection: Connection, now_ns: int) -> OutboxStats:
    """How the outbox stands."""
    waiting, since_ns = connection.execute(select(func.count(), func.min(ROW.at_ns)).where(WAITS)).one()
    refused = connection.execute(select(func.count()).select_from(ENTRIES).where(REFUSED)).scalar_one()
    oldest = None if since_ns is None else timedelta(microseconds=max(0, now_ns - since_ns) // 1000)
    return OutboxStats(waiting=waiting, oldest=oldest, refused=refused)
