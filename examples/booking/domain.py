"""The agency's domain: a trip, what suppliers hold for it, and their refusals. Amounts are integers in cents."""

import attrs

from examples.participants.clients import Refused


@attrs.frozen
class Trip:
    """What a customer asked for: a car, a room and a seat on the flight, to one city."""

    id: str
    city: str
    amount: int
    """In cents."""


@attrs.frozen
class Hold:
    """Something that a supplier keeps for a trip, until it is confirmed, released or expires."""

    id: int
    what: str


@attrs.frozen
class Booked:
    """A hold that was confirmed: it is the customer's."""

    number: str


@attrs.frozen
class Approval:
    """A manager's approval."""

    by: str


@attrs.frozen
class Itinerary:
    """What the customer gets in the end."""

    trip_id: str
    payment_id: int
    car: str
    room: str
    seat: str


class NothingFree(Refused):
    """The supplier has nothing left in this city."""
