"""The agency's side of its three suppliers, over HTTP. The bank's is in ``examples.participants``."""

from collections.abc import Mapping
from typing import ClassVar

from examples.booking.domain import Booked, Hold, NothingFree, Trip
from examples.participants.clients import ParticipantClient, Refused


class SupplierClient(ParticipantClient):
    """A supplier: of cars, of rooms or of seats."""

    REFUSALS: ClassVar[Mapping[str, type[Refused]]] = {"nothing-free": NothingFree}

    async def hold(self, trip: Trip, *, key: str) -> Hold:
        """Have something kept for ``trip``; ``NothingFree`` if there is nothing left."""
        return Hold(**await self.call("hold", key, trip_id=trip.id, city=trip.city))

    async def find_hold(self, *, of: str, key: str) -> Hold | None:
        """What was kept under key ``of``; None: nothing is, and nothing ever will be."""
        found = await self.settle(of, key)
        return None if found is None else Hold(**found)

    async def release(self, *, of: str, key: str) -> None:
        """Release what was kept under key ``of``; if nothing was, nothing ever will be."""
        await self.call("release", key, of=of)

    async def confirm(self, hold: Hold, *, key: str) -> Booked:
        """Book what was kept."""
        return Booked(**await self.call("confirm", key, hold_id=hold.id))


class CarsClient(SupplierClient):
    """The car rental."""


class HotelClient(SupplierClient):
    """The hotel."""


class AirlineClient(SupplierClient):
    """The airline."""
