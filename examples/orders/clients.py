"""The shop's side of the three services: one small class each, over HTTP.

Invariant: each method that changes something takes the idempotency key to do it under, and may be called again with
the same key any number of times.
"""

from typing import Any

import attrs
import httpx

from examples.orders.domain import (
    CardDeclined,
    ClosedKey,
    NoCourier,
    Order,
    OutOfStock,
    Payment,
    Refused,
    Request,
    Reservation,
    Sale,
    ServiceFailed,
    Shipment,
)
from examples.orders.traces import answered, calling

REFUSALS: dict[str, type[Refused]] = {
    "out-of-stock": OutOfStock,
    "card-declined": CardDeclined,
    "no-courier": NoCourier,
    "closed": ClosedKey,
}
REFUSED = frozenset({402, 409, 410})


@attrs.frozen
class ParticipantClient:
    """Calls one service. Raises ``Refused`` where it says no, ``ServiceFailed`` or httpx errors where it fails."""

    http: httpx.AsyncClient

    async def call(self, operation: str, key: str, **body: object) -> dict[str, Any]:
        """Ask for ``operation`` under ``key``; returns the JSON of the answer."""
        async with calling(operation) as headers:
            response = await self.http.post(f"/{operation}", json=body, headers={"Idempotency-Key": key, **headers})
            answered(response)
        if response.status_code in REFUSED:
            raise _refusal(response.json())
        if not response.is_success:
            raise ServiceFailed(f"{response.url} answered {response.status_code} {response.reason_phrase}")
        answer: dict[str, Any] = response.json()
        return answer

    async def settle(self, of: str, key: str) -> dict[str, Any] | None:
        """The answer to the call under key ``of``; None if it had no effect, and then it never will."""
        found = await self.call("settle", key, of=of)
        succeeded = found["status"] < httpx.codes.BAD_REQUEST
        answer: dict[str, Any] = found["body"]
        return answer if succeeded else None


class InventoryClient(ParticipantClient):
    """The warehouse."""

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


class PaymentsClient(ParticipantClient):
    """The bank."""

    async def charge(self, order: Order, *, key: str) -> Payment:
        """Take the amount of ``order``; ``CardDeclined`` if the bank refuses."""
        return Payment(**await self.call("charge", key, order_id=order.id, amount=order.amount))

    async def refund(self, *, of: str, key: str) -> None:
        """Give back what was charged under key ``of``; if nothing was, nothing ever will be."""
        await self.call("refund", key, of=of)

    async def find_charge(self, *, of: str, key: str) -> Payment | None:
        """The charge made under key ``of``; None: there is none, and will be none."""
        found = await self.settle(of, key)
        return None if found is None else Payment(**found)


class ShippingClient(ParticipantClient):
    """The courier."""

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


def _refusal(body: dict[str, Any]) -> Refused:
    return REFUSALS.get(body["error"], Refused)(body["message"])
