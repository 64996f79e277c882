"""The manager's desk: an inbox for orders that are too large to pass without approval."""

from typing import Any

from pydantic import BaseModel
from sqlmodel import Field, Session, SQLModel, select

from examples.participants.operation import Operation, Participant, Reply, Undo


class Request(SQLModel, table=True):
    """An order that somebody has to approve. The token is what the manager answers with."""

    __tablename__ = "request"  # pyright: ignore[reportAssignmentType]
    id: int | None = Field(default=None, primary_key=True)
    order_id: str
    amount: int
    """In cents."""
    token: str
    state: str
    """``asked``, then ``taken`` (by the manager); ``withdrawn`` once the order is being undone."""


class Ask(BaseModel):
    """A request to approve an order."""

    order_id: str
    amount: int
    token: str


class Take(BaseModel):
    """The manager takes the request about an order out of the inbox."""

    order_id: str


def _ask(session: Session, asked: Ask) -> Reply:
    request = Request(state="asked", **asked.model_dump())
    session.add(request)
    session.flush()  # gives it its id
    return Reply(201, {"id": request.id})


def _withdraw(session: Session, answered: dict[str, Any]) -> Reply:
    session.get_one(Request, answered["id"]).state = "withdrawn"
    return Reply(200, {"withdrawn": 1})


def _take(session: Session, asked: Take) -> Reply:
    question = select(Request).where(Request.order_id == asked.order_id, Request.state == "asked")
    request = session.exec(question).first()
    if request is None:
        return Reply(200, {"token": None})
    request.state = "taken"
    return Reply(200, {"token": request.token})


DESK = Participant(
    "desk",
    tables=["request"],
    operations=[
        Operation("ask", Ask, _ask),
        Undo("withdraw", _withdraw, nothing={"withdrawn": 0}),
        Operation("take", Take, _take),
    ],
)
