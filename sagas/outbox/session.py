"""What an outbox has to do with a session of the user's: whether it may take part, and the order of its rows.

Invariant: a row's number is drawn at its commit, not at an earlier flush. So of two transactions of which one had
committed before the other began to, the first has the lower numbers, however long either was open.
"""

import re
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any

import attrs
from sqlalchemy import Engine, delete, event, exc, func, insert, inspect, select
from sqlalchemy.orm import Session

from durable_core import DefinitionError, PayloadError
from durable_core.layer import sentences
from sagas.outbox.kinds import sync_session
from sagas.outbox.tables import ENTRIES, OutboxRow

CHANNEL = "sagas_outbox"
"""PostgreSQL: where a commit with entries notifies."""
_KEY = "sagas_outbox"
_OURS: dict[str, Any] = {"mapper": OutboxRow}
AUTOCOMMIT = "AUTOCOMMIT"
NOTHING = "Nothing was added"
_OUTCOME = re.compile(r"(?i:[.;]? ?nothing was (?:started|changed|added))\.?(?= |$)")
"""What checks that others make too say of it."""


@contextmanager
def nothing_added() -> Generator[None]:
    """Have each refusal of what was to be added say that nothing was, whoever found the fault."""
    try:
        yield
    except (DefinitionError, PayloadError) as error:
        text, advice = (_OUTCOME.sub("", part) for part in (error.text, error.advice))
        raise type(error)(text.rstrip("."), sentences(advice.rstrip("."), NOTHING)) from error.__cause__


@attrs.define
class _Added:
    """The rows of a session's transaction, in order, and who waits for its commit."""

    rows: list[OutboxRow] = attrs.field(factory=list[OutboxRow])
    on_commit: set[Callable[[], None]] = attrs.field(factory=set[Callable[[], None]])


def plain(session: object) -> Session:
    """The session that is meant.

    Raises:
        DefinitionError: it is none.
    """
    found = sync_session(session)
    if found is not None:
        return found
    raise DefinitionError(f"an outbox was given {session!r} for a session. {NOTHING}", "Give a Session or AsyncSession")


def check(session: Session, engine: Engine, place: str) -> None:
    """Refuse a session whose commit would not commit the outbox's row.

    Raises:
        DefinitionError: it is another database's, or it commits each statement by itself, or has no transaction.
    """
    try:
        bind = session.get_bind(mapper=OutboxRow, clause=insert(ENTRIES))
    except exc.UnboundExecutionError:
        bind = None
    if bind is None or bind.engine.pool is not engine.pool:
        theirs = "no engine for it" if bind is None else f"an engine of its own, {bind.engine.url!r}"
        raise DefinitionError(
            f"this session has {theirs}, and the outbox is that of {place}. {NOTHING}",
            "Use a session of the outbox's engine, or make an Outbox of the session's engine",
        )
    if AUTOCOMMIT in (bind.get_execution_options().get("isolation_level"), own_level(engine)):
        raise DefinitionError(
            f"this session commits each statement by itself (AUTOCOMMIT): there is no transaction to join. {NOTHING}",
            "Use an engine with another isolation level",
        )
    if not session.autobegin and not session.in_transaction():
        raise DefinitionError(f"this session is in no transaction. {NOTHING}", "Call session.begin() first")


def own_level(engine: Engine) -> object:
    """The isolation level that the engine was made with; None for the database's own."""
    made_with = getattr(engine.dialect, "_on_connect_isolation_level", None)
    return engine.get_execution_options().get("isolation_level", made_with)


def add(session: Session, row: OutboxRow, on_commit: Callable[[], None]) -> None:
    """Add a row to the session's transaction; ``on_commit`` is called in the thread that commits it."""
    added: _Added | None = session.info.get(_KEY)
    if added is None:  # not asked of `event.contains`, which takes a new session for an old one at the same address
        added = session.info[_KEY] = _Added()
        event.listen(session, "before_commit", _before_commit)
        event.listen(session, "after_commit", _after_commit)
    session.add(row)
    added.rows.append(row)
    added.on_commit.add(on_commit)


def _before_commit(session: Session) -> None:
    added: _Added | None = session.info.get(_KEY)
    if added is None or session.in_nested_transaction():
        return
    rows = [row for row in added.rows if inspect(row).session is session]  # others were rolled back
    added.rows.clear()
    if not rows:
        return
    if flushed := [row.id for row in rows if inspect(row).persistent]:
        _draw_again(session, rows, flushed)
    if session.get_bind(**_OURS).dialect.name == "postgresql":
        session.flush()
        session.connection(bind_arguments=_OURS).execute(select(func.pg_notify(CHANNEL, "")))


def _draw_again(session: Session, rows: list[OutboxRow], flushed: list[int | None]) -> None:
    """Insert rows anew that an earlier flush has written: their numbers are older than their commit."""
    copies = [OutboxRow(**row.model_dump(exclude={"id"})) for row in rows]
    for row in rows:
        session.expunge(row)
    session.connection(bind_arguments=_OURS).execute(delete(ENTRIES).where(ENTRIES.c.id.in_(flushed)))
    session.add_all(copies)


def _after_commit(session: Session) -> None:
    added: _Added | None = session.info.get(_KEY)
    if added is None or session.in_nested_transaction():
        return
    calls = list(added.on_commit)
    added.on_commit.clear()
    for call in calls:
        call()
