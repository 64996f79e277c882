"""What a user's type checker infers from the public signatures. Checked, never run.

Each ``assert_type`` is a promise: mypy --strict and pyright strict must infer exactly that type, and find no fault.
"""

from collections.abc import Awaitable
from datetime import datetime, timedelta
from typing import Any, assert_type
from uuid import UUID

import attrs

import sagas.blocking
from sagas import (
    Callback,
    DidNotHappen,
    Happened,
    Lookup,
    Orchestrator,
    Pivot,
    Retriable,
    Retry,
    Saga,
    SagaCompensated,
    SagaDef,
    SagaHandle,
    SagaInfo,
    SagaStatus,
    SagaSummary,
    Step,
    StillUnknown,
    Unknown,
    current,
    lookup,
    pivot,
    resource,
    retriable,
    saga,
    step,
)


@attrs.frozen
class Order:
    """What a customer wants."""

    id: str
    amount: int


@attrs.frozen
class Payment:
    """What the bank says."""

    id: str


@attrs.frozen
class Receipt:
    """What the customer gets."""

    payment: Payment
    tracking: str


class Declined(Exception):
    """The bank says no."""


class Bank:
    """A participant's client."""

    async def pay(self, order: Order, key: str) -> Payment:
        """Take the money."""
        return Payment(f"{order.id} {key}")


# -- steps: bare and with options, async and plain -------------------------------------------------------------------


@step
async def charge(order: Order, *, bank: Bank = resource()) -> Payment:
    """An asynchronous step with a resource."""
    return await bank.pay(order, current().idempotency_key)


@charge.compensate
async def refund(payment: Payment) -> None:
    """A compensation of the result alone."""


@charge.probe
async def find_charge(order: Order, *, bank: Bank = resource()) -> Payment | None:
    """A probe in short form."""
    return await bank.pay(order, "find")


@step(
    name="reserve-stock", retry=Retry(attempts=3), timeout=timedelta(seconds=5), rejects=(Declined,), at_most_once=True
)
def reserve(order: Order, quantity: int = 1) -> str:
    """A plain step with options."""
    return f"{order.id} {quantity}"


@reserve.compensate(retry=5, timeout=2.5)
def put_back(reserved: str | Unknown, order: Order, quantity: int = 1) -> None:
    """A compensation with options, of the result and the step's arguments, that admits an unknown outcome."""


@reserve.probe(retry=Retry.forever(first=0.1), timeout=1)
def find_reserve(order: Order, quantity: int = 1) -> Happened[str] | DidNotHappen | StillUnknown:
    """A probe with options, in long form."""
    return Happened(f"{order.id} {quantity}") if quantity else DidNotHappen()


@step(compensation=None, because="a letter cannot be unsent", unknown=(OSError,), retry=2)
async def write(order: Order) -> None:
    """A step that says why it has no compensation."""


@pivot
async def capture(payment: Payment) -> bool:
    """A bare pivot."""
    return bool(payment)


@pivot(rejects=(Declined,), timeout=3)
def sign(payment: Payment) -> datetime | None:
    """A pivot with options whose result admits None."""
    return None if payment.id else datetime.max


@sign.probe
def find_signature(payment: Payment) -> Happened[datetime | None] | DidNotHappen:
    """A pivot may have a probe too."""
    return Happened(None) if payment.id else DidNotHappen()


@retriable
async def confirm(order: Order, receipt: str) -> str:
    """A bare retriable."""
    return order.id + receipt


@retriable(retry=Retry.forever(longest=timedelta(hours=1)))
def tell(order: Order) -> None:
    """A retriable with options."""


@lookup
def price(order: Order) -> int:
    """A bare lookup."""
    return order.amount


@lookup(retry=Retry(attempts=None, within=60), name="stock")
async def stock(sku: str, *, bank: Bank = resource()) -> dict[str, list[int]]:
    """A lookup with options."""
    return {sku: [id(bank)]}


# Parameters by position only, because a type that is written down cannot name them.


@step(compensation=None, because="a pin")
async def a_step(order: Order, /) -> Payment:
    """Async, with options."""
    return Payment(order.id)


@pivot
def a_pivot(order: Order, /) -> Payment | None:
    """Plain and bare."""
    return None if order.id else Payment(order.id)


@retriable()
async def a_retriable(order: Order, /) -> list[str]:
    """Async, with no options in brackets."""
    return [order.id]


@lookup
async def a_lookup(order: Order, amount: int, /) -> None:
    """Async and bare."""


assert_type(a_step, Step[[Order], Payment])
assert_type(a_pivot, Pivot[[Order], Payment | None])
assert_type(a_retriable, Retriable[[Order], list[str]])
assert_type(a_lookup, Lookup[[Order, int], None])


# -- sagas -----------------------------------------------------------------------------------------------------------


@saga("place-order", version=1, deadline=timedelta(hours=2))
async def place_order(s: Saga, order: Order) -> Receipt:
    """Each operation gives the step's own result."""
    payment = await s.run(charge, order)
    assert_type(payment, Payment)
    assert_type(await s.run(reserve, order, 3), str)
    assert_type(await s.run(reserve, order, quantity=3), str)
    assert_type(await s.run(reserve, order=order), str)
    assert_type(await s.run(write, order), None)
    assert_type(await s.run(capture, payment), bool)
    assert_type(await s.run(sign, payment), datetime | None)
    assert_type(await s.run(price, order), int)
    assert_type(await s.run(stock, "teapot"), dict[str, list[int]])
    operation: Awaitable[int] = s.run(price, order)
    assert_type(await operation, int)
    assert_type(await s.sleep(3), None)
    await s.sleep(timedelta(days=1))
    await s.sleep_until(s.now() + timedelta(hours=1))
    assert_type(s.now(), datetime)
    assert_type(s.uuid(), UUID)
    assert_type(s.random(), float)
    assert_type(s.patched("free-shipping"), bool)
    assert_type(s.id, str)
    assert_type(s.version, int)
    async with s.savepoint("courier"):
        assert_type(await s.map(price, [order, order], max_concurrency=2), list[int])
    async with s.parallel() as p:
        a, b = p.run(price, order), p.run(ship, order, 3)
        c = p.run(branch, "teapot")
    assert_type(a.result(), int)
    assert_type(b.result(), str)
    assert_type(c.result(), dict[str, list[int]])
    approval = await s.callback("approval", bool, timeout=timedelta(days=2))
    withdrawal = await s.callback("withdrawal", Order)
    assert_type(approval, Callback[bool])
    assert_type(approval.token, str)
    assert_type(await s.first(approval, withdrawal), Callback[Any])
    assert_type(await approval.result(), bool)
    assert_type(await withdrawal.result(), Order)
    s.set_status({"at": "the courier"})
    s.log.info("going on")
    return Receipt(payment, await s.run(confirm, order, receipt="r"))


async def branch(s: Saga, sku: str) -> dict[str, list[int]]:
    """A branch of several steps, for a parallel block."""
    return await s.run(stock, sku)


@saga("no-input", version=2, parallel_compensation=True, on_compensation_failure="halt", on_failure="stuck")
async def no_input(s: Saga) -> None:
    """A saga without arguments."""
    await s.sleep(1)


@saga("ship", version=1)
async def ship(s: Saga, order: Order, days: int) -> str:
    """A saga of two arguments, run as a child of another."""
    assert_type(await s.run(place_order, order), Receipt)
    return f"in {days} days"


@saga("gift", version=1)
async def gift(s: Saga, order: Order, days: int = 3, note: str = "") -> str:
    """A saga with defaults."""
    return f"{s.id} {order.id} {days} {note}"


@saga("a-saga", version=1)
async def a_saga(s: Saga, order: Order, /) -> Payment:
    """Its type is that of its body without the first parameter."""
    return await s.run(a_step, order)


assert_type(a_saga, SagaDef[[Order], Payment])
assert_type(no_input, SagaDef[[], None])


# -- running ---------------------------------------------------------------------------------------------------------


async def run(order: Order) -> None:
    """What the asynchronous orchestrator gives."""
    async with Orchestrator("memory://", sagas=[place_order, no_input, ship], resources=[Bank()]) as orchestrator:
        assert_type(orchestrator, Orchestrator)
        handle = await orchestrator.start(place_order, order, id="order-17", deadline=60, trace="join")
        assert_type(handle, SagaHandle[Receipt])
        assert_type(await handle.result(), Receipt)
        assert_type(await handle.result(timeout=timedelta(seconds=1)), Receipt)
        assert_type(await handle.info(), SagaInfo)
        assert_type(await handle.status(), SagaStatus)
        assert_type(handle.id, str)
        await handle.cancel("changed my mind")
        assert_type(await orchestrator.start(no_input), SagaHandle[None])
        assert_type(await orchestrator.start(ship, order, 3, version=1), SagaHandle[str])
        assert_type(await orchestrator.start(gift, order, id="g-1"), SagaHandle[str])
        assert_type(await orchestrator.start(gift, order, 3, id="g-2"), SagaHandle[str])
        assert_type(await orchestrator.start(gift, order, 3, "with love", id="g-3"), SagaHandle[str])
        assert_type(await orchestrator.start(gift, order, note="with love"), SagaHandle[str])
        assert_type(await orchestrator.start(place_order, order=order), SagaHandle[Receipt])
        assert_type(await orchestrator.start("place-order", order), SagaHandle[Any])
        assert_type(await orchestrator.get("order-17"), SagaHandle[Any])
        assert_type(await orchestrator.list(status=SagaStatus.STUCK, saga="ship"), list[SagaSummary])
        assert_type(await orchestrator.count(status="stuck"), int)
        await orchestrator.retry("order-17", "charge", actor="me", note="mended")
        await orchestrator.complete_callback(saga_id="order-17", name="approval", value=True, actor="ann", note="seen")
        await orchestrator.fail_callback("token", "not in August")
        await orchestrator.resolve("order-17", "charge", happened=True, result=Payment("p-1"), actor="me")


def run_blocking(order: Order) -> None:
    """What the blocking orchestrator gives: the same, without await."""
    with sagas.blocking.Orchestrator("memory://", sagas=[place_order], resources=[Bank()]) as orchestrator:
        assert_type(orchestrator, sagas.blocking.Orchestrator)
        handle = orchestrator.start(place_order, order, id="order-17")
        assert_type(handle, sagas.blocking.SagaHandle[Receipt])
        assert_type(handle.result(timeout=3), Receipt)
        assert_type(handle.info(), SagaInfo)
        assert_type(handle.status(), SagaStatus)
        assert_type(orchestrator.start(no_input), sagas.blocking.SagaHandle[None])
        assert_type(orchestrator.start("place-order", order), sagas.blocking.SagaHandle[Any])
        assert_type(orchestrator.get("order-17"), sagas.blocking.SagaHandle[Any])
        assert_type(orchestrator.list(status="stuck"), list[SagaSummary])
        assert_type(orchestrator.count(version=2), int)
        orchestrator.cancel("order-17", reason="changed my mind", actor="me")
        orchestrator.skip("order-17", "charge", actor="me", note="undone by hand")
        orchestrator.resolve("order-17", "charge", happened=False)
        orchestrator.complete_callback("token", value=True, actor="ann", note="seen")


async def steps_are_functions(order: Order, payment: Payment) -> None:
    """Outside a saga a step is called like its function."""
    await charge(order, bank=Bank())
    assert_type(reserve(order, quantity=2), Any)  # what the function returns, awaitable or not, is not told apart
    tell(order)
    assert_type(await refund(payment), None)
    assert_type(put_back("reserved", order), None)
    assert_type(find_reserve(order), Happened[str] | DidNotHappen | StillUnknown | str | None)
    assert_type(await find_charge(order), Happened[Payment] | DidNotHappen | StillUnknown | Payment | None)


def ends(end: SagaCompensated) -> None:
    """What an undone saga tells."""
    assert_type(end.compensated, list[str])
    assert_type(end.cause, str)
    assert_type(end.status, str)
    assert_type(end.saga_id, str)
