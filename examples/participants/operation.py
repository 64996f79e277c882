"""A participant as data: its tables and its operations. ``service`` serves any of them over HTTP.

Invariant: ``sagas.participant`` has each call done once, so what is written here never asks whether it came before.
"""

from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

import attrs
from pydantic import BaseModel
from sqlmodel import Session

from sagas import Happened
from sagas.participant import happened, once, undo

A = TypeVar("A", bound=BaseModel)
REFUSED = 400
"""From this status on a reply says no."""


@attrs.frozen
class Reply:
    """An answer: an HTTP status and a JSON object. A refusal has ``error`` (a code) and ``message`` (for people)."""

    status: int
    body: dict[str, Any]

    @classmethod
    def refusal(cls, status: int, error: str, message: str) -> "Reply":
        """The participant says no."""
        return cls(status, {"error": error, "message": message})

    @property
    def refused(self) -> bool:
        """Whether it says no."""
        return self.status >= REFUSED


CLOSED = Reply.refusal(410, "closed", "this request was undone or written off before it arrived; nothing was done")


class CannotUndo(Exception):
    """An undo that is refused. Raised, so that nothing is stored: once the reason is gone, a repeat may succeed."""

    def __init__(self, reply: Reply) -> None:
        super().__init__(reply.body["message"])
        self.reply = reply


class Of(BaseModel):
    """The body of every undo and of every question about an outcome: the idempotency key of the original call."""

    of: str


@attrs.frozen
class Operation(Generic[A]):
    """One thing a participant does when asked: once for each key. Its refusals are answers, repeated like any other."""

    name: str
    """Its path and its name at the admin endpoints."""
    asks: type[A]
    """The shape of the request's body."""
    does: Callable[[Session, A], Reply]
    """The effect: session, body."""
    declines: Reply | None = None
    """Its answer when it is made to say no; None if it never does."""

    def call(self, session: Session, key: str, body: bytes, *, declined: bool = False) -> Reply:
        """Do it, or find its answer; ``pydantic.ValidationError`` if the body has another shape."""
        asked = self.asks.model_validate_json(body)
        with once(session, key, request=(self.name, asked), answer=Reply) as call:
            if call.first:
                call.answer = self.declines if declined and self.declines else self.does(session, asked)
        return call.answer


@attrs.frozen
class Undo:
    """Undoes an operation, named by the key of its call. A step that never came is refused from then on."""

    name: str
    does: Callable[[Session, dict[str, Any]], Reply]
    """The effect: session, the body of the step's reply. Its refusals are not stored."""
    nothing: dict[str, Any]
    """Its answer where there is nothing to undo."""
    declines: None = None

    def call(self, session: Session, key: str, body: bytes, *, declined: bool = False) -> Reply:  # noqa: ARG002
        """As for an operation."""
        with undo(session, key, of=Of.model_validate_json(body).of, answer=Reply, step=Reply) as call:
            if call.first:
                call.answer = Reply(200, self.nothing)
                if call.step is not None and not call.step.refused:
                    call.answer = self.does(session, call.step.body)
                if call.answer.refused:
                    raise CannotUndo(call.answer)
        return call.answer or Reply(200, self.nothing)


@attrs.frozen
class Settle:
    """Tells what became of a call for good: its answer, or, if it never arrived, that it never will."""

    name: str = "settle"
    declines: None = None

    def call(self, session: Session, _key: str, body: bytes, *, declined: bool = False) -> Reply:  # noqa: ARG002
        """As for an operation."""
        found = happened(session, Of.model_validate_json(body).of, answer=Reply)
        reply = found.value if isinstance(found, Happened) else CLOSED
        return Reply(200, {"status": reply.status, "body": reply.body})


@attrs.frozen
class Participant:
    """A service: its name, its tables and its operations."""

    name: str
    tables: Sequence[str]
    """Names of its tables."""
    operations: Sequence[Operation[Any] | Undo]
    opening: Callable[[Session], None] = lambda _session: None
    """Fills a database that is new; must leave one that is not as it is."""

    def operation(self, name: str) -> Operation[Any] | Undo | Settle | None:
        """The operation called ``name``; ``settle`` is every participant's."""
        return next((o for o in (*self.operations, Settle()) if o.name == name), None)
