"""The manager's desk: an inbox for orders that are too large to pass without approval."""

from pydantic import BaseModel
from sqlmodel import Field, Session, SQLModel, select

from examples.participants.ledger import Reply, close_key
from examples.participants.operation import Of, Operation, Participant


class Request(SQLModel, table=True):
    """An order that somebody has to approve. The token is what the manager answers with."""

    __tablename__ = "request"  # pyright: ignore[reportAssignmentType]
    id: int | None = Field(default=None, primary_key=True)
    key: str = Field(index=True)
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


def _ask(session: Session, key: str, asked: Ask) -> Reply:
    request = Request(key=key, state="asked", **asked.model_dump())
    session.add(request)
    session.flush()  # gives it its id
    return Reply(201, {"id": request.id})


def _withdraw(session: Session, _key: str, asked: Of) -> Reply:
    close_key(session, asked.of)
    request = session.exec(select(Request).where(Request.key == asked.of)).one_or_none()
    if request is None or request.state == "withdrawn":
        return Reply(200, {"withdrawn": 0})
    request.state = "withdrawn"
    return Reply(200, {"withdrawn": 1})


def _take(session: Session, _key: str, asked: Take) -> Reply:
    question = select(Request).where(Request.order_id == asked.order_id, Request.state == "asked")
    request = session.exec(question).first()
    if request is None:
        return Reply(200, {"token": None})
    request.state = "taken"
    return Reply(200, {"token": request.token})


DESK = Participant(
    "desk",
    tables=["request"],
    operations=[Operation("ask", Ask, _ask), Operation("withdraw", Of, _withdraw), Operation("take", Take, _take)],
)
