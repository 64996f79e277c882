"""The warehouse: sets goods aside for an order, puts them back, or lets them go for good.

Invariant: for each article, delivered = on hand + reserved + sold.
"""

from typing import Any

from pydantic import BaseModel
from sqlmodel import Field, Session, SQLModel

from examples.participants.operation import Operation, Participant, Reply, Undo

DELIVERED = {"coffee": 40, "teapot": 3}
"""The stock of a new warehouse."""


class Stock(SQLModel, table=True):
    """An article: how many came in, and how many of them nobody has asked for."""

    __tablename__ = "stock"  # pyright: ignore[reportAssignmentType]
    sku: str = Field(primary_key=True)
    delivered: int
    on_hand: int


class Reservation(SQLModel, table=True):
    """Goods of one order. ``order_id`` is not unique on purpose: a second reservation must be visible to an audit."""

    __tablename__ = "reservation"  # pyright: ignore[reportAssignmentType]
    id: int | None = Field(default=None, primary_key=True)
    order_id: str
    sku: str
    quantity: int
    state: str
    """``reserved``, then ``released`` or ``sold``."""


class Reserve(BaseModel):
    """A request for goods."""

    order_id: str
    sku: str
    quantity: int = Field(gt=0)


class Sell(BaseModel):
    """A request to let reserved goods go."""

    reservation_id: int


def _reserve(session: Session, asked: Reserve) -> Reply:
    stock = session.get(Stock, asked.sku)
    on_hand = stock.on_hand if stock is not None else 0
    if stock is None or on_hand < asked.quantity:
        return Reply.refusal(409, "out-of-stock", f"{asked.sku}: {asked.quantity} wanted, {on_hand} on hand")
    stock.on_hand -= asked.quantity
    reservation = Reservation(state="reserved", **asked.model_dump())
    session.add(reservation)
    session.flush()  # gives it its id
    return Reply(201, {"id": reservation.id, "sku": asked.sku, "quantity": asked.quantity})


def _release(session: Session, answered: dict[str, Any]) -> Reply:
    reservation = session.get_one(Reservation, answered["id"])
    if reservation.state == "sold":
        return Reply.refusal(409, "already-sold", f"reservation {reservation.id} is sold and cannot be released")
    reservation.state = "released"
    session.get_one(Stock, reservation.sku).on_hand += reservation.quantity
    return Reply(200, {"released": reservation.quantity})


def _sell(session: Session, asked: Sell) -> Reply:
    reservation = session.get(Reservation, asked.reservation_id)
    if reservation is None or reservation.state != "reserved":
        state = "unknown" if reservation is None else reservation.state
        return Reply.refusal(409, "not-reserved", f"reservation {asked.reservation_id} is {state}, not reserved")
    reservation.state = "sold"
    return Reply(201, {"reservation_id": reservation.id})


def _open(session: Session) -> None:
    for sku, count in DELIVERED.items():
        if session.get(Stock, sku) is None:
            session.add(Stock(sku=sku, delivered=count, on_hand=count))


INVENTORY = Participant(
    "inventory",
    tables=["stock", "reservation"],
    operations=[
        Operation("reserve", Reserve, _reserve, declines=Reply.refusal(409, "out-of-stock", "the shelf is empty")),
        Undo("release", _release, nothing={"released": 0}),
        Operation("sell", Sell, _sell),
    ],
    opening=_open,
)
