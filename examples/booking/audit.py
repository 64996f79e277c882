"""Audits what really happened, from the participants' own databases, without asking the sagas.

Invariant: a trip is booked whole (a car, a room, a seat, paid once) or leaves nothing behind (nothing held, no money).
There is no third verdict that passes. Both forms of the saga must leave the same.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import attrs

from examples.booking.forms import Form
from examples.participants.books import rows

SUPPLIERS = ("cars", "hotel", "airline")
PAID = """
    SELECT order_id, count(*), sum(amount - (SELECT coalesce(sum(amount), 0) FROM refund WHERE charge_id = charge.id))
    FROM charge GROUP BY order_id
"""
BALANCES = """
    SELECT city, offered, (SELECT count(*) FROM held WHERE held.city = offer.city AND state = 'booked'),
           (SELECT count(*) FROM held WHERE held.city = offer.city AND state = 'held')
    FROM offer ORDER BY city
"""


@attrs.frozen
class Expected:
    """How a trip has to end."""

    trip_id: str
    scene: str
    form: Form
    booked: bool
    """True: the customer travels. False: nothing of the trip may remain."""
    amount: int
    """In cents."""


@attrs.frozen
class Traces:
    """What one trip left in the participants' databases."""

    held: tuple[str, ...] = ()
    """The suppliers that still keep something for it, each as often as it does; must be empty once it has ended."""
    booked: tuple[str, ...] = ()
    """Likewise those that have booked something for it, and so on."""
    released: tuple[str, ...] = ()
    expired: tuple[str, ...] = ()
    payments: int = 0
    """How often money was taken."""
    paid: int = 0
    """In cents, less what was given back."""


@attrs.frozen
class Finding:
    """The verdict on one trip; ``faults`` is empty if the trip is correct."""

    expected: Expected
    traces: Traces
    faults: tuple[str, ...]


@attrs.frozen
class Balance:
    """What a supplier offers in a city."""

    supplier: str
    city: str
    offered: int
    booked: int
    held: int


@attrs.frozen
class Audit:
    """All that was found."""

    findings: tuple[Finding, ...]
    balances: tuple[Balance, ...]
    faults: tuple[str, ...]
    """What is wrong beyond single trips."""

    @property
    def holds(self) -> bool:
        """Whether everything is correct."""
        return not self.faults and all(not finding.faults for finding in self.findings)


def audit(directory: Path, expected: Sequence[Expected]) -> Audit:
    """Read the databases in ``directory`` and judge each trip; one that nobody expects is a fault as well."""
    traces = _read(directory)
    findings = tuple(Finding(each, found, _judge(each, found)) for each in expected for found in [_of(each, traces)])
    strangers = sorted(traces.keys() - {each.trip_id for each in expected})
    faults = [f"nobody started {trip_id}" for trip_id in strangers] + _differences(findings) + _money(findings)
    return Audit(findings, tuple(_balances(directory)), tuple(faults))


def _of(expected: Expected, traces: dict[str, Traces]) -> Traces:
    return traces.get(expected.trip_id, Traces())


def _judge(expected: Expected, found: Traces) -> tuple[str, ...]:
    wanted = tuple(sorted(SUPPLIERS)) if expected.booked else ()
    amount = expected.amount if expected.booked else 0
    rules = {
        f"still held: {', '.join(found.held)}": bool(found.held),
        f"booked: {', '.join(found.booked) or 'nothing'}": found.booked != wanted,
        f"paid {found.payments} times": found.payments > 1,
        f"{found.paid} cents taken, not {amount}": found.paid != amount,
    }
    return tuple(fault for fault, broken in rules.items() if broken)


def _differences(findings: Sequence[Finding]) -> list[str]:
    """Scenes in which the two forms of the saga left something else."""
    first: dict[str, Finding] = {}
    differing: list[str] = []
    for finding in findings:
        other = first.setdefault(finding.expected.scene, finding)
        if other.traces != finding.traces:
            differing.append(
                f"{other.expected.trip_id} left {other.traces}, {finding.expected.trip_id} {finding.traces}"
            )
    return differing


def _money(findings: Sequence[Finding]) -> list[str]:
    """Money equals bookings."""
    paid = sum(finding.traces.paid for finding in findings)
    worth = sum(finding.expected.amount for finding in findings if finding.traces.booked)
    return [] if paid == worth else [f"{paid} cents were paid for trips of {worth} cents"]


def _read(directory: Path) -> dict[str, Traces]:
    """What each trip left behind, by its id."""
    suppliers: dict[str, dict[str, list[str]]] = {}
    for supplier in SUPPLIERS:
        for trip_id, state in rows(directory / f"{supplier}.db", "SELECT trip_id, state FROM held"):
            suppliers.setdefault(trip_id, {}).setdefault(state, []).append(supplier)
    bank = {trip_id: (count, cents) for trip_id, count, cents in rows(directory / "payments.db", PAID)}
    return {trip_id: _traces(suppliers.get(trip_id, {}), *bank.get(trip_id, (0, 0))) for trip_id in suppliers | bank}


def _traces(suppliers: Mapping[str, list[str]], payments: int, paid: int) -> Traces:
    held, booked, released, expired = (
        tuple(sorted(suppliers.get(state, ()))) for state in ("held", "booked", "released", "expired")
    )
    return Traces(held, booked, released, expired, payments, paid)


def _balances(directory: Path) -> list[Balance]:
    return [
        Balance(supplier, *found) for supplier in SUPPLIERS for found in rows(directory / f"{supplier}.db", BALANCES)
    ]
