"""Three suppliers, alike but for what they offer: cars, rooms and seats. Each knows nothing of sagas.

Invariant: for each city, offered = free + held + booked. A hold that has expired counts as free.
"""

from collections.abc import Mapping
from typing import Any

import attrs
from pydantic import BaseModel
from sqlmodel import Field, Session, SQLModel, col, func, select

from examples.participants.operation import Operation, Participant, Reply, Undo

SEAT_S = 15 * 60
"""How long the airline keeps a seat that is not booked."""


class Offer(SQLModel, table=True):
    """How much a supplier has in a city."""

    __tablename__ = "offer"  # pyright: ignore[reportAssignmentType]
    city: str = Field(primary_key=True)
    offered: int


class Held(SQLModel, table=True):
    """Something kept for one trip. ``trip_id`` is not unique on purpose: a second hold must be visible to an audit."""

    __tablename__ = "held"  # pyright: ignore[reportAssignmentType]
    id: int | None = Field(default=None, primary_key=True)
    trip_id: str
    city: str = Field(index=True)
    state: str
    """``held``, then ``booked``, ``released`` or ``expired``."""
    expires_at: int | None = None
    """In seconds since the epoch; None: it is kept until it is released."""


class Watch(SQLModel, table=True):
    """How far this supplier's clock is ahead of the machine's: a demo need not wait for a quarter of an hour."""

    __tablename__ = "watch"  # pyright: ignore[reportAssignmentType]
    id: int = Field(default=1, primary_key=True)
    ahead_s: int = 0


class Ask(BaseModel):
    """A request to keep something for a trip."""

    trip_id: str
    city: str


class Confirm(BaseModel):
    """A request to book what is kept."""

    hold_id: int


class Advance(BaseModel):
    """A request to move the supplier's clock forward."""

    seconds: int = Field(ge=0)


@attrs.frozen
class Supplier:
    """A supplier's rules."""

    what: str
    """What it offers, in the singular."""
    offers: Mapping[str, int]
    """The offer of a new supplier, by city."""
    kept_s: int | None = None
    """How long it keeps something that is not booked; None: until it is released."""

    def hold(self, session: Session, asked: Ask) -> Reply:
        """Keep one for a trip."""
        if _free(session, asked.city) < 1:
            return Reply.refusal(409, "nothing-free", f"no {self.what} is free in {asked.city}")
        expires_at = None if self.kept_s is None else _now(session) + self.kept_s
        held = Held(state="held", expires_at=expires_at, **asked.model_dump())
        session.add(held)
        session.flush()  # gives it its id
        return Reply(201, {"id": held.id, "what": f"a {self.what} in {asked.city}"})

    def release(self, session: Session, answered: dict[str, Any]) -> Reply:
        """Undo a hold."""
        _expire(session)
        held = session.get_one(Held, answered["id"])
        if held.state == "expired":
            return Reply(200, {"released": 0})
        if held.state == "booked":
            return Reply.refusal(409, "already-booked", f"hold {held.id} is booked and cannot be released")
        held.state = "released"
        return Reply(200, {"released": 1})

    def confirm(self, session: Session, asked: Confirm) -> Reply:
        """Book what is kept; what has expired only if there is still one free."""
        _expire(session)
        held = session.get(Held, asked.hold_id)
        if held is None or held.state in {"released", "booked"}:
            state = "unknown" if held is None else held.state
            return Reply.refusal(409, "not-held", f"hold {asked.hold_id} is {state}")
        if held.state == "expired" and _free(session, held.city) < 1:
            return Reply.refusal(409, "expired", f"hold {held.id} has expired, and no {self.what} is free any more")
        held.state = "booked"
        return Reply(201, {"number": f"{self.what}-{held.id}"})

    def opening(self, session: Session) -> None:
        """Fill a new database."""
        if session.get(Watch, 1) is None:
            session.add(Watch())
            session.add_all(Offer(city=city, offered=count) for city, count in self.offers.items())

    def participant(self, name: str) -> Participant:
        """The supplier as a service called ``name``."""
        operations: list[Operation[Any] | Undo] = [
            Operation("hold", Ask, self.hold, declines=Reply.refusal(409, "nothing-free", f"no {self.what} is free")),
            Undo("release", self.release, nothing={"released": 0}),
            Operation("confirm", Confirm, self.confirm),
            Operation("advance", Advance, _advance),
        ]
        return Participant(name, tables=["offer", "held", "watch"], operations=operations, opening=self.opening)


def _now(session: Session) -> int:
    """The supplier's own time: the database's, and however far its clock was moved."""
    return int(session.exec(select(func.strftime("%s", "now"))).one()) + session.get_one(Watch, 1).ahead_s


def _expire(session: Session) -> None:
    now = _now(session)
    for held in session.exec(select(Held).where(Held.state == "held", col(Held.expires_at) <= now)):
        held.state = "expired"
    session.flush()


def _free(session: Session, city: str) -> int:
    _expire(session)
    offer = session.get(Offer, city)
    taken = select(func.count()).select_from(Held).where(Held.city == city, col(Held.state).in_(("held", "booked")))
    return (offer.offered if offer is not None else 0) - session.exec(taken).one()


def _advance(session: Session, asked: Advance) -> Reply:
    session.get_one(Watch, 1).ahead_s += asked.seconds
    session.flush()
    _expire(session)
    return Reply(200, {"now": _now(session)})


CARS = Supplier("car", {"Rome": 20, "Venice": 20}).participant("cars")
HOTEL = Supplier("room", {"Rome": 20, "Venice": 20}).participant("hotel")
AIRLINE = Supplier("seat", {"Rome": 20, "Venice": 0}, kept_s=SEAT_S).participant("airline")
