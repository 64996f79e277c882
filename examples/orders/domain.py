"""The shop's domain: an order, the participants' answers, and their refusals.

Amounts are integers in cents. Everything here is plain data, so that it can be journalled.
"""

import attrs

from examples.participants.clients import Refused


@attrs.frozen
class Order:
    """What a customer asked for."""

    id: str
    sku: str
    quantity: int
    amount: int
    """In cents."""
    address: str


@attrs.frozen
class Reservation:
    """Goods set aside for an order."""

    id: int
    sku: str
    quantity: int


@attrs.frozen
class Request:
    """A question in the manager's inbox."""

    id: int


@attrs.frozen
class Approval:
    """The manager's approval."""

    by: str


@attrs.frozen
class Shipment:
    """A courier booked for an order."""

    id: int


@attrs.frozen
class Sale:
    """Goods that now belong to the customer."""

    reservation_id: int


@attrs.frozen
class Receipt:
    """The customer's confirmation after everything succeeded."""

    order_id: str
    payment_id: int
    shipment_id: int


class OutOfStock(Refused):
    """The warehouse has fewer pieces than the order asks for."""


class NoCourier(Refused):
    """No courier drives to the order's address."""
