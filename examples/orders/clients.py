"""The shop's side of its own services: one small class each, over HTTP. The bank's is in ``examples.participants``.

Invariant: each method that changes something takes the idempotency key to do it under, and may be called again with
the same key any number of times.
"""

from collections.abc import Mapping
from typing import ClassVar

from examples.orders.domain import NoCourier, Order, OutOfStock, Request, Reservation, Sale, Shipment
from examples.participants.clients import ParticipantClient, Refused


class InventoryClient(ParticipantClient):
    """The warehouse."""

    REFUSALS: ClassVar[Mapping[str, type[Refused]]] = {"out-of-stock": OutOfStock}

    async def reserve(self, order: Order, *, key: str) -> Reservation:
        """Set the goods of ``order`` aside; ``OutOfStock`` if there are too few."""
        body = await self.call("reserve", key, order_id=order.id, sku=order.sku, quantity=order.quantity)
        return Reservation(**body)

    async def release(self, *, of: str, key: str) -> None:
        """Put back what was reserved under key ``of``; if nothing was, nothing ever will be."""
        await self.call("release", key, of=of)

    async def sell(self, reservation: Reservation, *, key: str) -> Sale:
        """Let the reserved goods go for good."""
        return Sale(**await self.call("sell", key, reservation_id=reservation.id))

    async def find_sale(self, *, of: str, key: str) -> Sale | None:
        """The sale made under key ``of``; None: there is none, and will be none."""
        found = await self.settle(of, key)
        return None if found is None else Sale(**found)


class ShippingClient(ParticipantClient):
    """The courier."""

    REFUSALS: ClassVar[Mapping[str, type[Refused]]] = {"no-courier": NoCourier}

    async def book(self, order: Order, *, key: str) -> Shipment:
        """Book a courier to the address of ``order``; ``NoCourier`` if none is available."""
        return Shipment(**await self.call("book", key, order_id=order.id, address=order.address))

    async def cancel(self, *, of: str, key: str) -> None:
        """Call off the courier booked under key ``of``; if none was, none ever will be."""
        await self.call("cancel", key, of=of)

    async def dispatch(self, shipment: Shipment, *, key: str) -> None:
        """Send the booked courier on the way."""
        await self.call("dispatch", key, shipment_id=shipment.id)


class DeskClient(ParticipantClient):
    """The manager's inbox."""

    async def ask(self, order: Order, token: str, *, key: str) -> Request:
        """Ask the manager to approve ``order``, by answering with ``token``."""
        return Request(**await self.call("ask", key, order_id=order.id, amount=order.amount, token=token))

    async def withdraw(self, *, of: str, key: str) -> None:
        """Take back what was asked under key ``of``; if nothing was, nothing ever will be."""
        await self.call("withdraw", key, of=of)
