"""The bank: charges a card, and gives the money back."""

from typing import Any

from pydantic import BaseModel
from sqlmodel import Field, Session, SQLModel

from examples.participants.operation import Operation, Participant, Reply, Undo


class Charge(SQLModel, table=True):
    """Money taken. ``order_id`` is not unique on purpose: a second charge must be visible to an audit."""

    __tablename__ = "charge"  # pyright: ignore[reportAssignmentType]
    id: int | None = Field(default=None, primary_key=True)
    order_id: str
    amount: int
    """In cents."""


class Refund(SQLModel, table=True):
    """Money given back for one charge."""

    __tablename__ = "refund"  # pyright: ignore[reportAssignmentType]
    id: int | None = Field(default=None, primary_key=True)
    charge_id: int | None = Field(index=True)
    order_id: str
    amount: int
    """In cents."""


class Take(BaseModel):
    """A request to charge the card that belongs to an order."""

    order_id: str
    amount: int = Field(gt=0)


def _charge(session: Session, asked: Take) -> Reply:
    charge = Charge(**asked.model_dump())
    session.add(charge)
    session.flush()  # gives it its id
    return Reply(201, {"id": charge.id, "amount": charge.amount})


def _refund(session: Session, charged: dict[str, Any]) -> Reply:
    charge = session.get_one(Charge, charged["id"])
    session.add(Refund(charge_id=charge.id, order_id=charge.order_id, amount=charge.amount))
    return Reply(200, {"refunded": charge.amount})


PAYMENTS = Participant(
    "payments",
    tables=["charge", "refund"],
    operations=[
        Operation("charge", Take, _charge, declines=Reply.refusal(402, "card-declined", "the bank declined the card")),
        Undo("refund", _refund, nothing={"refunded": 0}),
    ],
)
