"""Every answer that a participant ever gave, by idempotency key, written in the transaction of its effect.

Invariant: one key has one answer, for ever. The primary key of ``answer`` decides which request came first; later
requests get the same answer. Closing a key that has no answer yet gives it one that says no, so a call that
is still on its way is refused when it arrives.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import attrs
import msgspec
from sqlalchemy import Engine, event
from sqlalchemy.exc import IntegrityError
from sqlmodel import Field, Session, SQLModel, create_engine

CLOSED = 410
"""The status of a closed key's answer: Gone."""


class Answer(SQLModel, table=True):
    """What was answered under a key, and to which request."""

    __tablename__ = "answer"  # pyright: ignore[reportAssignmentType]
    key: str = Field(primary_key=True)
    request: str
    """The operation and its body, to detect a key that is used twice; empty if closed before any request."""
    status: int
    body: str
    """JSON."""


@attrs.frozen
class Reply:
    """An answer: an HTTP status and a JSON object. A refusal has ``error`` (a code) and ``message`` (for people)."""

    status: int
    body: dict[str, Any]

    @classmethod
    def refusal(cls, status: int, error: str, message: str) -> "Reply":
        """The participant says no."""
        return cls(status, {"error": error, "message": message})


Effect = Callable[[Session], Reply]
"""Changes the participant's own tables in the session it is given, and says what to answer. Does not commit."""


class Ledger:
    """A participant's database; every change goes through an answer that is given once."""

    def __init__(self, database: Path, tables: Sequence[str]) -> None:
        """Open ``database``; make it, with the tables of these names and that of the answers, where missing."""
        self._engine = _sqlite(database)
        wanted = [SQLModel.metadata.tables[name] for name in ("answer", *tables)]
        SQLModel.metadata.create_all(self._engine, tables=wanted)

    def prepare(self, effect: Callable[[Session], None]) -> None:
        """Do ``effect`` in a transaction of its own, outside the ledger; durable on return."""
        with Session(self._engine) as session, session.begin():
            effect(session)

    def once(self, key: str, request: str, effect: Effect) -> Reply:
        """Do ``effect`` unless ``key`` has its answer already; the answer and the effect are durable on return.

        Args:
            key: the caller's idempotency key.
            request: the whole request as text; a known key with another request is refused (422) without effect.
            effect: called at most once per key over the life of the database.
        """
        with Session(self._engine) as session:
            answer = Answer(key=key, request=request, status=0, body="")
            session.add(answer)
            try:
                session.flush()  # the unique key decides here, before anything else is done
            except IntegrityError:
                session.rollback()
                return _repeat(session, key, request)
            reply = effect(session)
            answer.status, answer.body = reply.status, _dump(reply)
            session.commit()
            return reply

    def close(self) -> None:
        """Close the file."""
        self._engine.dispose()


def close_key(session: Session, key: str) -> Reply:
    """Return the answer that ``key`` has, or give it one that says that nothing happened and nothing will.

    Part of the caller's transaction: an undo and a question "did it happen?" both close the key they are about.
    """
    known = session.get(Answer, key)
    if known is not None:
        return _load(known)
    reply = Reply.refusal(
        CLOSED, "closed", "this request was undone or written off before it arrived; nothing was done"
    )
    session.add(Answer(key=key, request="", status=reply.status, body=_dump(reply)))
    return reply


def _repeat(session: Session, key: str, request: str) -> Reply:
    known = session.get_one(Answer, key)
    if known.request not in ("", request):
        message = f"this Idempotency-Key was first used for: {known.request}; use a new key for another request"
        return Reply.refusal(422, "key-reused", message)
    return _load(known)


def _sqlite(database: Path) -> Engine:
    engine = create_engine(f"sqlite:///{database}", connect_args={"check_same_thread": False, "timeout": 10})

    @event.listens_for(engine, "connect")
    def _(connection: Any, _record: object) -> None:
        connection.isolation_level = None  # the driver must not begin transactions of its own: the next listener does

    @event.listens_for(engine, "begin")
    def _(connection: Any) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")  # read and then write without another writer in between

    return engine


def _dump(reply: Reply) -> str:
    return msgspec.json.encode(reply.body).decode()


def _load(answer: Answer) -> Reply:
    return Reply(answer.status, msgspec.json.decode(answer.body, type=dict[str, Any]))
