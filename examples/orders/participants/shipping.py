"""The courier: is booked for a parcel, called off, or sent on its way."""

from typing import Any

from pydantic import BaseModel
from sqlmodel import Field, Session, SQLModel

from examples.participants.operation import Operation, Participant, Reply, Undo


class Shipment(SQLModel, table=True):
    """A parcel. ``order_id`` is not unique on purpose: a second parcel must be visible to an audit."""

    __tablename__ = "shipment"  # pyright: ignore[reportAssignmentType]
    id: int | None = Field(default=None, primary_key=True)
    order_id: str
    address: str
    state: str
    """``booked``, then ``cancelled`` or ``dispatched``."""


class Book(BaseModel):
    """A request for a courier."""

    order_id: str
    address: str


class Dispatch(BaseModel):
    """A request to send a booked courier on the way."""

    shipment_id: int


def _book(session: Session, asked: Book) -> Reply:
    shipment = Shipment(state="booked", **asked.model_dump())
    session.add(shipment)
    session.flush()  # gives it its id
    return Reply(201, {"id": shipment.id})


def _cancel(session: Session, answered: dict[str, Any]) -> Reply:
    shipment = session.get_one(Shipment, answered["id"])
    if shipment.state == "dispatched":
        return Reply.refusal(409, "already-dispatched", f"parcel {shipment.id} is on its way and cannot be called off")
    shipment.state = "cancelled"
    return Reply(200, {"cancelled": 1})


def _dispatch(session: Session, asked: Dispatch) -> Reply:
    shipment = session.get(Shipment, asked.shipment_id)
    if shipment is None or shipment.state == "cancelled":
        state = "unknown" if shipment is None else shipment.state
        return Reply.refusal(409, "not-booked", f"parcel {asked.shipment_id} is {state}, not booked")
    shipment.state = "dispatched"
    return Reply(200, {"id": shipment.id})


SHIPPING = Participant(
    "shipping",
    tables=["shipment"],
    operations=[
        Operation("book", Book, _book, declines=Reply.refusal(409, "no-courier", "no courier drives to this address")),
        Undo("cancel", _cancel, nothing={"cancelled": 0}),
        Operation("dispatch", Dispatch, _dispatch),
    ],
)
