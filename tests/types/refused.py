"""What a user's type checker must refuse. Checked, never run.

Above a wrong line stand the rules that report it. Both checkers must report exactly these lines by these rules.
Where no checker sees what is wrong, ``# missed:`` tells who finds it instead.
"""

from datetime import timedelta
from typing import assert_type

import attrs

import sagas.blocking
from sagas import Orchestrator, Retry, Saga, lookup, pivot, resource, retriable, saga, step


@attrs.frozen
class Order:
    """What a customer wants."""

    id: str


@attrs.frozen
class Payment:
    """What the bank says."""

    id: str


class Bank:
    """A participant's client."""


# -- options of steps ------------------------------------------------------------------------------------------------


# error: mypy[call-overload] pyright[reportArgumentType]
@step(retry="twice")
async def retry_of_a_wrong_type(order: Order) -> None:
    """How often is a number, or a Retry."""


# error: mypy[call-overload] pyright[reportArgumentType]
@pivot(retry=timedelta(seconds=3))
async def retry_is_no_time(order: Order) -> None:
    """How often is a number, or a Retry."""


# error: mypy[call-overload] pyright[reportArgumentType]
@step(rejects=ValueError)
async def rejects_is_a_tuple(order: Order) -> None:
    """A tuple of classes."""


# error: mypy[arg-type] pyright[reportArgumentType]
@lookup(rejects=(KeyboardInterrupt,))
async def rejects_exceptions_only(order: Order) -> None:
    """Classes of ordinary exceptions."""


# error: mypy[call-overload] pyright[reportCallIssue]
@retriable(rejects=(ValueError,))
async def a_retriable_rejects_nothing(order: Order) -> None:
    """It is retried until it succeeds."""


# error: mypy[call-overload] pyright[reportArgumentType]
@step(timeout="5s")
async def timeout_of_a_wrong_type(order: Order) -> None:
    """A timedelta, or seconds."""


# error: mypy[call-overload] pyright[reportArgumentType]
@step(compensation=print)
async def compensation_in_place(order: Order) -> None:
    """None, or declared below the step."""


# error: mypy[call-overload] pyright[reportCallIssue]
@pivot(compensation=None)
async def a_pivot_has_no_compensation(order: Order) -> None:
    """Nothing is undone after it."""


# error: mypy[arg-type] pyright[reportArgumentType]
Retry("three")
# error: mypy[arg-type] pyright[reportArgumentType]
Retry(attempts=3, on=(KeyboardInterrupt,))


# -- compensations and probes ----------------------------------------------------------------------------------------


@step
async def charge(order: Order, amount: int, *, bank: Bank = resource()) -> Payment:
    """The step that the rest is about."""
    return Payment(f"{order.id} {amount} {bank}")


# error: mypy[arg-type] pyright[reportArgumentType, reportCallIssue]
@charge.compensate
async def undo_of_a_wrong_result(payment: str) -> None:
    """It is given a Payment."""


# error: mypy[arg-type] pyright[reportArgumentType, reportCallIssue]
@charge.compensate
async def undo_with_wrong_arguments(payment: Payment, order: Order, amount: str) -> None:
    """The amount is an int."""


# error: mypy[arg-type] pyright[reportArgumentType, reportCallIssue]
@charge.compensate
async def undo_with_swapped_arguments(order: Order, payment: Payment) -> None:
    """The result comes first."""


# error: mypy[arg-type] pyright[reportArgumentType, reportCallIssue]
@charge.compensate
async def undo_with_too_many(payment: Payment, order: Order, amount: int, more: int) -> None:
    """There is nothing to give for the last one."""


# error: mypy[arg-type] pyright[reportArgumentType, reportCallIssue]
@charge.compensate(retry=3)
async def undo_with_options_of_a_wrong_result(payment: Order) -> None:
    """It is given a Payment."""


# error: mypy[call-overload] pyright[reportArgumentType]
@charge.compensate(retry="often")
async def undo_with_a_wrong_retry(payment: Payment) -> None:
    """How often is a number, or a Retry."""


# error: mypy[arg-type] pyright[reportArgumentType, reportCallIssue]
@charge.probe
async def probe_of_a_wrong_result(order: Order, amount: int, *, bank: Bank = resource()) -> str:
    """It finds a Payment."""
    return order.id


# error: mypy[arg-type] pyright[reportArgumentType, reportCallIssue]
@charge.probe
async def probe_with_wrong_arguments(payment: Payment) -> Payment | None:
    """It is given the step's arguments."""
    return payment


# error: mypy[arg-type] pyright[reportArgumentType, reportCallIssue]
@charge.probe(retry=3)
async def probe_with_options_of_a_wrong_result(order: Order, amount: int, *, bank: Bank = resource()) -> int:
    """It finds a Payment."""
    return amount


@lookup
def price(order: Order) -> int:
    """A lookup changes nothing."""
    return len(order.id)


# error: mypy[attr-defined] pyright[reportAttributeAccessIssue]
@price.compensate
def nothing_to_undo(amount: int) -> None:
    """So it has no compensation."""


# error: mypy[attr-defined] pyright[reportAttributeAccessIssue]
@price.probe
def nothing_to_find(order: Order) -> int | None:
    """Nor a probe."""


# -- bodies ----------------------------------------------------------------------------------------------------------


@saga("place-order", version=1)
async def place_order(s: Saga, order: Order) -> Payment:
    """Wrong uses of its operations."""
    # error: mypy[call-overload] pyright[reportArgumentType, reportCallIssue]
    await s.run(charge, "order-17", 3)
    # error: mypy[call-overload] pyright[reportArgumentType, reportCallIssue]
    await s.run(charge, 3, order)
    # error: mypy[call-overload] pyright[reportCallIssue]
    await s.run(charge, order)
    # error: mypy[call-overload] pyright[reportCallIssue]
    await s.run(charge, order, 3, 4)
    # error: mypy[arg-type] pyright[reportArgumentType, reportCallIssue]
    await s.run(charge, order, amount="3")
    # error: mypy[call-arg] pyright[reportCallIssue]
    await s.run(charge, order, 3, currency="EUR")
    # error: mypy[arg-type] pyright[reportArgumentType, reportCallIssue]
    await s.run(charge, order, 3, bank="bank")
    # missed: the saga is stuck at that line: s.run was given a coroutine
    await s.run(charge(order, 3))
    # error: mypy[call-overload] pyright[reportArgumentType, reportCallIssue]
    await s.run(len, "order")
    # error: mypy[unused-coroutine] pyright[reportUnusedCoroutine]
    s.run(charge, order, 3)
    # error: mypy[arg-type] pyright[reportArgumentType]
    await s.map(price, ["order-17"])
    # error: mypy[arg-type] pyright[reportArgumentType]
    await s.map(len, [order])
    async with s.parallel() as p:
        # error: mypy[call-overload] pyright[reportCallIssue]
        p.run(charge, order)
        # error: mypy[call-overload] pyright[reportArgumentType, reportCallIssue]
        p.run(place_order, 3)
        # error: mypy[call-overload] pyright[reportArgumentType, reportCallIssue]
        p.run(len, order)
    # error: mypy[arg-type] pyright[reportArgumentType]
    approval = await s.callback("approval", bool, timeout="two days")
    # error: mypy[assignment] pyright[reportAssignmentType]
    _decision: str = await approval.result()
    # error: mypy[arg-type] pyright[reportArgumentType]
    await s.sleep("a day")
    # error: mypy[arg-type] pyright[reportArgumentType]
    await s.sleep_until(timedelta(days=1))
    # error: mypy[arg-type] pyright[reportArgumentType]
    s.set_status("shipped")
    # error: mypy[call-overload] pyright[reportAssignmentType]
    _amount: int = await s.run(charge, order, 3)
    # error: mypy[assert-type] pyright[reportAssertTypeFailure]
    assert_type(await s.run(price, order), str)
    # error: mypy[call-overload, no-any-return] pyright[reportReturnType]
    return await s.run(price, order)


# error: mypy[arg-type] pyright[reportArgumentType]
@saga("no-saga", version=1)
async def without_the_saga(order: Order) -> None:
    """The first parameter is the Saga."""


# error: mypy[arg-type] pyright[reportArgumentType]
@saga("plain", version=1)
def plain(s: Saga, order: Order) -> None:
    """A body is an `async def`."""


# error: mypy[call-arg] pyright[reportCallIssue]
@saga("no-version")
async def without_a_version(s: Saga) -> None:
    """A version is needed."""


# error: mypy[arg-type] pyright[reportArgumentType]
@saga("version", version="1")
async def version_is_a_number(s: Saga) -> None:
    """A version is a whole number."""


# error: mypy[arg-type] pyright[reportArgumentType]
@saga("halt", version=1, on_compensation_failure="stop")
async def neither_continue_nor_halt(s: Saga) -> None:
    """Two words are allowed."""


@saga("no-input", version=1)
async def no_input(s: Saga) -> str:
    """A saga without arguments."""
    return s.id


@saga("ship", version=1)
async def ship(s: Saga, order: Order, days: int) -> str:
    """A saga of two arguments."""
    # error: mypy[call-overload] pyright[reportCallIssue]
    await s.run(place_order, order, days)
    # error: mypy[call-overload, no-any-return] pyright[reportReturnType]
    return await s.run(place_order, order)


# -- running ---------------------------------------------------------------------------------------------------------


async def run(orchestrator: Orchestrator, order: Order) -> None:
    """Wrong calls of the asynchronous orchestrator."""
    # error: mypy[misc] pyright[reportArgumentType, reportCallIssue]
    await orchestrator.start(place_order, "order-17")
    # error: mypy[arg-type] pyright[reportCallIssue]
    await orchestrator.start(place_order)
    # error: mypy[arg-type] pyright[reportCallIssue]
    await orchestrator.start(place_order, order, 3)
    # error: mypy[arg-type] pyright[reportCallIssue]
    await orchestrator.start(no_input, order)
    # error: mypy[misc] pyright[reportArgumentType, reportCallIssue]
    await orchestrator.start(ship, 3, order)
    # error: mypy[call-arg] pyright[reportCallIssue]
    await orchestrator.start(place_order, order, id=17)
    # error: mypy[call-arg] pyright[reportCallIssue]
    await orchestrator.start(place_order, order, version="1")
    # error: mypy[call-arg] pyright[reportCallIssue]
    await orchestrator.start(place_order, order, trace="child")
    # error: mypy[call-overload] pyright[reportArgumentType, reportCallIssue]
    await orchestrator.start(charge, order, 3)
    # error: mypy[call-overload] pyright[reportArgumentType, reportCallIssue]
    await orchestrator.start(17, order)
    handle = await orchestrator.start(place_order, order)
    # error: mypy[assignment] pyright[reportAssignmentType]
    _receipt: str = await handle.result()
    # error: mypy[arg-type] pyright[reportArgumentType]
    await handle.result(timeout="soon")
    # error: mypy[call-arg] pyright[reportCallIssue]
    await orchestrator.list(state="stuck")
    # error: mypy[arg-type] pyright[reportArgumentType]
    await orchestrator.retry("order-17", actor=17)
    # error: mypy[list-item] pyright[reportArgumentType]
    Orchestrator("memory://", sagas=[charge])
    # error: mypy[arg-type] pyright[reportArgumentType]
    Orchestrator("memory://", sagas=place_order)
    # error: mypy[arg-type] pyright[reportArgumentType]
    Orchestrator("memory://", concurrency="many")


def run_blocking(orchestrator: sagas.blocking.Orchestrator, order: Order) -> None:
    """Wrong calls of the blocking orchestrator: the same are refused."""
    # error: mypy[misc] pyright[reportArgumentType, reportCallIssue]
    orchestrator.start(place_order, "order-17")
    # error: mypy[call-arg] pyright[reportCallIssue]
    orchestrator.start(place_order, order, id=17)
    handle = orchestrator.start(place_order, order)
    # error: mypy[assignment] pyright[reportAssignmentType]
    _receipt: str = handle.result()
    # error: mypy[arg-type] pyright[reportArgumentType]
    handle.result(timeout="soon")
    # error: mypy[call-arg] pyright[reportCallIssue]
    orchestrator.list(state="stuck")
    # error: mypy[arg-type] pyright[reportArgumentType]
    orchestrator.retry("order-17", actor=17)
    # error: mypy[call-arg] pyright[reportCallIssue]
    orchestrator.resolve("order-17", "charge", happend=True)
    # error: mypy[list-item] pyright[reportArgumentType]
    sagas.blocking.Orchestrator("memory://", sagas=[charge])
    # error: mypy[call-arg] pyright[reportCallIssue]
    sagas.blocking.Orchestrator("memory://", concurency=3)
