"""A participant as data: its tables and its operations. ``service`` serves any of them over HTTP."""

from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

import attrs
from pydantic import BaseModel
from sqlmodel import Session

from examples.participants.ledger import Effect, Reply, close_key

A = TypeVar("A", bound=BaseModel)


class Of(BaseModel):
    """The body of every undo and of every question about an outcome: the idempotency key of the original call."""

    of: str


@attrs.frozen
class Operation(Generic[A]):
    """One thing a participant does when asked."""

    name: str
    """Its path and its name at the admin endpoints."""
    asks: type[A]
    """The shape of the request's body."""
    does: Callable[[Session, str, A], Reply]
    """The effect: session, idempotency key, body."""
    declines: Reply | None = None
    """Its answer when it is made to say no; None if it never does."""

    def read(self, body: bytes, key: str) -> tuple[str, Effect]:
        """The request as text and as an effect; ``pydantic.ValidationError`` if the body has another shape."""
        asked = self.asks.model_validate_json(body)
        return f"{self.name} {asked.model_dump_json()}", lambda session: self.does(session, key, asked)


@attrs.frozen
class Participant:
    """A service: its name, its tables and its operations."""

    name: str
    tables: Sequence[str]
    """Names of its tables, beside the ledger's own."""
    operations: Sequence[Operation[Any]]
    opening: Callable[[Session], None] = lambda _session: None
    """Fills a database that is new; must leave one that is not as it is."""

    def operation(self, name: str) -> Operation[Any] | None:
        """The operation called ``name``; ``settle`` is every participant's."""
        return next((o for o in (*self.operations, SETTLE) if o.name == name), None)


def _settle(session: Session, _key: str, asked: Of) -> Reply:
    found = close_key(session, asked.of)
    return Reply(200, {"status": found.status, "body": found.body})


SETTLE = Operation("settle", Of, _settle)
"""Settles a call for good: its answer, or, if it never arrived, that it never will."""
