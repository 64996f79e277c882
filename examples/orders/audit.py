"""Audits what really happened, from the participants' own databases, without asking the saga.

Invariant: an order is either kept whole (sold, paid once, one parcel on its way) or leaves nothing behind (nothing
reserved, every charge refunded, no parcel). There is no third verdict that passes.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import attrs

from examples.participants.books import rows


@attrs.frozen(kw_only=True)
class Traces:
    """What one order left in the participants' databases. Amounts in cents."""

    order_id: str
    reserved: int = 0
    """Pieces still set aside; must be 0 once the order has ended."""
    released: int = 0
    sold: int = 0
    charges: int = 0
    """How often the card was charged."""
    charged: int = 0
    refunds: int = 0
    refunded: int = 0
    booked: int = 0
    """Parcels for which a courier is booked."""
    cancelled: int = 0
    dispatched: int = 0
    asked: int = 0
    """Unread requests in the manager's inbox."""
    taken: int = 0
    """Requests that the manager has taken."""
    withdrawn: int = 0


@attrs.frozen(kw_only=True)
class Expected:
    """How an order has to end."""

    order_id: str
    kept: bool
    """True: the customer gets the goods. False: nothing of the order may remain."""
    quantity: int
    amount: int
    """In cents."""


@attrs.frozen(kw_only=True)
class Finding:
    """The verdict on one order; ``faults`` is empty if the order is correct."""

    traces: Traces
    faults: tuple[str, ...]


@attrs.frozen(kw_only=True)
class Shelf:
    """One article's balance."""

    sku: str
    delivered: int
    on_hand: int
    reserved: int
    sold: int

    @property
    def balanced(self) -> bool:
        """Whether every delivered piece is accounted for."""
        return self.delivered == self.on_hand + self.reserved + self.sold


@attrs.frozen(kw_only=True)
class Audit:
    """All findings, one per order, and the shelves."""

    findings: tuple[Finding, ...]
    shelves: tuple[Shelf, ...]

    @property
    def holds(self) -> bool:
        """Whether everything is correct."""
        return all(not f.faults for f in self.findings) and all(s.balanced for s in self.shelves)


@attrs.frozen
class Books:
    """The participants' database files."""

    inventory: Path
    payments: Path
    shipping: Path
    desk: Path


def audit(books: Books, expected: Sequence[Expected]) -> Audit:
    """Read ``books`` and judge each order of ``expected``; an unexpected order is a fault as well."""
    traces = _read(books)
    known = {order.order_id for order in expected}
    findings = [_judge(order, traces.get(order.order_id, Traces(order_id=order.order_id))) for order in expected]
    findings += [
        Finding(traces=found, faults=("nobody placed this order",))
        for order_id, found in traces.items()
        if order_id not in known
    ]
    return Audit(findings=tuple(findings), shelves=tuple(_shelves(books.inventory)))


def _judge(order: Expected, found: Traces) -> Finding:
    faults = _always(found) + (_kept(order, found) if order.kept else _undone(found))
    return Finding(traces=found, faults=tuple(faults))


def _always(found: Traces) -> list[str]:
    rules = {
        f"{found.reserved} still reserved": found.reserved > 0,
        f"charged {found.charges} times": found.charges > 1,
        f"refunded {found.refunds} times": found.refunds > 1,
        f"{found.asked} requests left in the manager's inbox": found.asked > 0,
        f"{found.booked} couriers booked and never sent or called off": found.booked > 0,
    }
    return [fault for fault, broken in rules.items() if broken]


def _kept(order: Expected, found: Traces) -> list[str]:
    rules = {
        f"{found.sold} pieces sold, not {order.quantity}": found.sold != order.quantity,
        f"{found.charged - found.refunded} cents taken, not {order.amount}": found.charged - found.refunded
        != order.amount,
        f"{found.dispatched} parcels sent, not 1": found.dispatched != 1,
    }
    return [fault for fault, broken in rules.items() if broken]


def _undone(found: Traces) -> list[str]:
    rules = {
        f"{found.sold} pieces sold": found.sold > 0,
        f"{found.charged - found.refunded} cents kept": found.charged != found.refunded,
        f"{found.dispatched} parcels sent": found.dispatched > 0,
        f"{found.taken} requests not withdrawn": found.taken > 0,
    }
    return [fault for fault, broken in rules.items() if broken]


def _read(books: Books) -> dict[str, Traces]:
    """What each order left behind, by order id, in the order of first sight."""
    counted: dict[str, dict[str, int]] = {}
    sources = [
        (books.inventory, "SELECT order_id, state, sum(quantity) FROM reservation GROUP BY order_id, state"),
        (books.payments, "SELECT order_id, 'charges', count(*) FROM charge GROUP BY order_id"),
        (books.payments, "SELECT order_id, 'charged', sum(amount) FROM charge GROUP BY order_id"),
        (books.payments, "SELECT order_id, 'refunds', count(*) FROM refund GROUP BY order_id"),
        (books.payments, "SELECT order_id, 'refunded', sum(amount) FROM refund GROUP BY order_id"),
        (books.desk, "SELECT order_id, state, count(*) FROM request GROUP BY order_id, state"),
        (books.shipping, "SELECT order_id, state, count(*) FROM shipment GROUP BY order_id, state"),
    ]
    for file, question in sources:
        for order_id, what, count in rows(file, question):
            counted.setdefault(order_id, {})[what] = count
    return {order_id: _traces(order_id, counts) for order_id, counts in counted.items()}


def _traces(order_id: str, counts: Mapping[str, int]) -> Traces:
    return Traces(order_id=order_id, **counts)


def _shelves(inventory: Path) -> Iterable[Shelf]:
    question = """
        SELECT sku, delivered, on_hand,
               (SELECT coalesce(sum(quantity), 0) FROM reservation r WHERE r.sku = s.sku AND r.state = 'reserved'),
               (SELECT coalesce(sum(quantity), 0) FROM reservation r WHERE r.sku = s.sku AND r.state = 'sold')
        FROM stock s ORDER BY sku
    """
    for sku, delivered, on_hand, reserved, sold in rows(inventory, question):
        yield Shelf(sku=sku, delivered=delivered, on_hand=on_hand, reserved=reserved, sold=sold)
