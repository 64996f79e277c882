"""What the shop talks about: an order, what each participant answered, and the answers that mean no.

Amounts are integers in cents. Everything here is plain data, so that it can be journalled.
"""

import attrs


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
class Payment:
    """Money taken for an order."""

    id: int
    amount: int
    """In cents."""


@attrs.frozen
class Request:
    """A question that lies in the manager's inbox."""

    id: int


@attrs.frozen
class Approval:
    """The manager's yes."""

    by: str


@attrs.frozen
class Shipment:
    """A courier booked for an order."""

    id: int


@attrs.frozen
class Sale:
    """Goods that are the customer's from now on."""

    reservation_id: int


@attrs.frozen
class Receipt:
    """What the customer gets when all went well."""

    order_id: str
    payment_id: int
    shipment_id: int


class Refused(Exception):
    """A participant understood the request and said no; nothing happened there."""


class OutOfStock(Refused):
    """The warehouse has not as much as the order asks for."""


class CardDeclined(Refused):
    """The bank did not let the card be charged."""


class NoCourier(Refused):
    """No courier drives to the order's address."""


class ClosedKey(Refused):
    """The call came too late: its effect has been undone, or settled as never having happened, before it arrived."""


class ServiceFailed(Exception):
    """A participant answered, but neither yes nor no: something is wrong with it, or with the request."""
