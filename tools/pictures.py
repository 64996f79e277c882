"""Writes the pictures of ``docs/how-to/pictures.md``: a graph, a saga as code, one run of it, and many.

``python -m tools.pictures`` writes the files. A test draws them again, so that a page never shows what no longer is.
"""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

import attrs

from sagas import Saga, SagaGraph, SagaInfo, SagaStatus, StepState, lookup, pivot, retriable, saga, step
from sagas.diagram.formats import drawn, picture_of
from sagas.diagram.runs import observed_picture, run_picture

FOLDER = Path(__file__).parents[1] / "docs/how-to/pictures"
LARGE = 10_000
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


@attrs.frozen
class Order:
    """What a customer wants."""

    item: str
    amount: int


class NotApprovedError(Exception):
    """The manager said no."""


@step
async def reserve_stock(order: Order) -> str:
    """Set the goods aside."""
    return order.item


@reserve_stock.compensate
async def release_stock(reserved: str) -> None:
    """Put them back."""


@step
async def ask_manager(order: Order, token: str) -> None:
    """Ask for approval."""


@ask_manager.compensate
async def withdraw_request(asked: None) -> None:
    """Ask no longer."""


@step
async def book_courier(order: Order) -> str:
    """Have it fetched."""
    return order.item


@book_courier.compensate
async def cancel_courier(booked: str) -> None:
    """Have it fetched no longer."""


@step
async def hold_card(order: Order) -> str:
    """Hold the amount."""
    return order.item


@hold_card.compensate
async def release_card(held: str) -> None:
    """Release it."""


@lookup
async def is_fragile(order: Order) -> bool:
    """Whether it needs a box of its own."""
    return order.item == "teapot"


@step
async def order_box(order: Order) -> str:
    """A box of its own."""
    return order.item


@order_box.compensate
async def return_box(box: str) -> None:
    """Send the box back."""


@pivot
async def charge(held: str) -> str:
    """Take the money."""
    return held


@retriable
async def dispatch(booked: str) -> None:
    """Send the parcel."""


@retriable
async def send_receipt(paid: str) -> None:
    """Thank the customer."""


@saga("place-order", version=1)
async def place_order(s: Saga, order: Order) -> None:
    """The saga as code."""
    await s.run(reserve_stock, order)
    if order.amount > LARGE:
        approval = await s.callback("approval", bool)
        await s.run(ask_manager, order, approval.token)
        if not await approval.result():
            raise NotApprovedError
    async with s.parallel() as p:
        courier = p.run(book_courier, order)
        card = p.run(hold_card, order)
    await s.run(charge, card.result())
    await s.run(dispatch, courier.result())


def graph() -> SagaGraph[[Order]]:
    """The saga as a graph."""
    g = SagaGraph("place-order", version=2, input=Order)
    reserved = g.step(reserve_stock, g.input)
    courier = g.step(book_courier, g.input)
    held = g.step(hold_card, g.input)
    fragile = g.lookup(is_fragile, g.input)
    box = g.step(order_box, g.input, when=fragile)
    paid = g.pivot(charge, held, after=[reserved, box, courier])
    g.retriable(dispatch, courier, after=[paid])
    g.retriable(send_receipt, paid)
    g.returns()
    return g


# -- runs, as a store would tell them ----------------------------------------------------------------------------------


def step_state(
    key: str, kind: str, begin: float, end: float, *, status: str = "succeeded", attempts: int = 1
) -> StepState:
    """A step that ran from ``begin`` to ``end``, in seconds after noon."""
    return StepState(
        key=key,
        name=key,
        kind=kind,
        status=status,
        attempts=attempts,
        started_at=NOON + timedelta(seconds=begin),
        ended_at=NOON + timedelta(seconds=end),
    )


def undone(state: StepState, begin: float, end: float, *, attempts: int = 1) -> StepState:
    """The same, undone from ``begin`` to ``end``."""
    undo = step_state(f"{state.key}~undo", "compensation", begin, end, attempts=attempts)
    return attrs.evolve(state, status="compensated", compensation=undo)


def run(run_id: str, status: SagaStatus, *steps: StepState) -> SagaInfo:
    """A run of these steps."""
    return SagaInfo(
        id=run_id,
        saga="place-order",
        version=1,
        status=status,
        cause="failed" if status is SagaStatus.COMPENSATED else None,
        input={},
        result=None,
        error=None,
        status_detail=None,
        created_at=NOON,
        updated_at=NOON,
        ended_at=None,
        wake_at=None,
        paused=False,
        reason=None,
        steps=[*steps],
    )


def rolled_back() -> SagaInfo:
    """A run whose card had no cover."""
    return run(
        "order-17",
        SagaStatus.COMPENSATED,
        undone(step_state("reserve_stock", "step", 0, 0.12), 9.1, 9.2),
        undone(step_state("book_courier", "step", 1, 3.4, attempts=3), 5, 9, attempts=2),
        step_state("hold_card", "step", 1, 1.3, status="rejected"),
    )


def completed(number: int, *, large: bool = False) -> SagaInfo:
    """A run that went well; a large order was approved."""
    asked = (step_state("approval", "callback", 1, 9), step_state("ask_manager", "step", 1, 2)) if large else ()
    return run(
        f"order-{number}",
        SagaStatus.COMPLETED,
        step_state("reserve_stock", "step", 0, 1),
        *asked,
        step_state("book_courier", "step", 10, 12),
        step_state("hold_card", "step", 10, 11),
        step_state("charge", "pivot", 12, 13),
        step_state("dispatch", "retriable", 13, 14),
    )


def pictures() -> Mapping[str, str]:
    """The text of each file by its name."""
    code, plan = picture_of(place_order), picture_of(graph())
    runs = [*(completed(number, large=number % 5 == 0) for number in range(112)), *[rolled_back()] * 8]
    return {
        "graph.svg": drawn(plan, "svg"),
        "code.svg": drawn(code, "svg"),
        "run.svg": drawn(run_picture(rolled_back(), code), "svg"),
        "observed.svg": drawn(observed_picture(code, runs), "svg"),
    }


def main() -> None:
    """Write the files."""
    FOLDER.mkdir(exist_ok=True)
    for name, text in pictures().items():
        (FOLDER / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
