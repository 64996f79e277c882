"""The demo's scenes: a fault, and how the order must end in spite of it.

No scene relies on timing: if a process has to die at a certain point, a participant holds an answer back, which
proves that its effect is done and that the orchestrator does not know it yet.
"""

from collections.abc import AsyncIterator, Callable

import attrs

from examples.orders.domain import Order
from examples.orders.shop import Shop

Story = AsyncIterator[str]
"""A running scene: it yields a plain description of each event, just before or after the event."""


@attrs.frozen
class Scene:
    """A scene and how it must end."""

    title: str
    play: Callable[[Shop, Order], Story]
    status: str
    """The saga's status at the end."""
    kept: bool
    """Whether the customer gets the goods; if not, nothing of the order may remain."""
    proves: str
    amount: int = 1990
    """The order's amount, in cents."""


async def _completes(shop: Shop, order: Order) -> Story:
    yield "Nothing goes wrong. Stock is reserved, the card charged, a courier booked, the goods sold and sent."
    await shop.ended(await shop.place(order))


async def _declined(shop: Shop, order: Order) -> Story:
    yield "The bank is told to decline the next card. The stock that is reserved by then has to go back on the shelf."
    await shop.payments.plan("charge", decline_next=1)
    await shop.ended(await shop.place(order))


async def _flaky_courier(shop: Shop, order: Order) -> Story:
    yield "The courier's service answers 503 twice. It is asked again, with the same key, and takes the parcel."
    await shop.shipping.plan("book", fail_next=2)
    await shop.ended(await shop.place(order))


async def _killed_forward(shop: Shop, order: Order) -> Story:
    yield "The bank is told to charge the next card, but to hold its answer back."
    await shop.payments.plan("charge", hold_next=1)
    handle = await shop.place(order)
    await shop.payments.held("charge")
    pid = await shop.kill_worker(handle)
    yield f"The card is charged and the worker still waits to hear of it: kill -9 {pid}."
    await shop.payments.unheld("charge")
    worker = await shop.start_worker()
    yield f"A new worker, pid {worker.pid}, finds the order and charges again under the same key; the bank notices."
    await shop.ended(handle)


async def _killed_backward(shop: Shop, order: Order) -> Story:
    yield "No courier drives to the address, so all is undone; the bank is told to refund, but to hold its answer back."
    await shop.shipping.plan("book", decline_next=1)
    await shop.payments.plan("refund", hold_next=1)
    handle = await shop.place(order)
    await shop.payments.held("refund")
    pid = await shop.kill_worker(handle)
    yield f"The money is back and the worker still waits to hear of it: kill -9 {pid}, in the middle of the rollback."
    await shop.payments.unheld("refund")
    worker = await shop.start_worker()
    yield f"A new worker, pid {worker.pid}, goes on undoing where the old one was: refund under the same key, release."
    await shop.ended(handle)


async def _timed_out(shop: Shop, order: Order) -> Story:
    yield "This worker waits 1 s for an answer. The bank charges the card but keeps silent: was the money taken or not?"
    await shop.restart_worker(patience_s=1)
    await shop.payments.plan("charge", hold_next=1)
    handle = await shop.place(order)
    await shop.payments.held("charge")
    yield "The charge is not repeated. Its probe asks the bank, which finds the payment, and the order goes on."
    await shop.ended(handle)
    await shop.restart_worker()


async def _cancelled(shop: Shop, order: Order) -> Story:
    yield "The customer cancels while the courier is being booked (his answer is held back until the cancel is in)."
    await shop.shipping.plan("book", hold_next=1)
    handle = await shop.place(order)
    await shop.shipping.held("book")
    await handle.cancel("the customer changed their mind")
    await shop.heard(handle, "cancel")
    await shop.shipping.release()
    yield "The booking is allowed to end, then everything is undone, the booking too."
    await shop.ended(handle)


async def _mended(shop: Shop, order: Order) -> Story:
    yield "No courier drives to the address, and the bank's refunds are out of order, three times in a row."
    await shop.shipping.plan("book", decline_next=1)
    await shop.payments.plan("refund", fail_next=3)
    handle = await shop.place(order)
    stuck = await shop.stuck(handle)
    yield f"The order is stuck and says so: {stuck.reason}"
    yield "An operator hears from the bank that all is well again, and says: retry."
    await shop.counter.retry(handle.id, actor="demo", note="the bank's refunds work again")
    await shop.ended(handle)


async def _approved(shop: Shop, order: Order) -> Story:
    yield "The order is large, so a manager has to approve it. Its stock is reserved, and it waits; that costs a row."
    handle = await shop.place(order)
    token = await shop.manager.takes(order.id)
    await shop.waiting(handle)
    pid = await shop.kill_worker(handle)
    yield f"The manager has the request in the inbox, with a token. Meanwhile: kill -9 {pid}."
    worker = await shop.start_worker()
    status = await shop.manager.approves(token)
    yield (
        f"The manager sends a yes to the web application (pid {shop.manager.web_pid}), which answers {status}; a new "
        f"worker, pid {worker.pid}, goes on."
    )
    await shop.ended(handle)


async def _refused(shop: Shop, order: Order) -> Story:
    yield "Another large order. The manager says no: the request is withdrawn, and the stock goes back on the shelf."
    handle = await shop.place(order)
    await shop.manager.refuses(await shop.manager.takes(order.id), "so much coffee is not good for anybody")
    await shop.ended(handle)


SCENES = (
    Scene("order completes", _completes, "completed", kept=True, proves="The saga does its work when all is well."),
    Scene("card declined", _declined, "compensated", kept=False, proves="What was done is undone."),
    Scene("courier fails twice", _flaky_courier, "completed", kept=True, proves="A failure that passes is waited out."),
    Scene(
        "kill -9 in mid-saga",
        _killed_forward,
        "completed",
        kept=True,
        proves="A crash loses nothing, and repeats nothing that has an effect.",
    ),
    Scene(
        "kill -9 in rollback",
        _killed_backward,
        "compensated",
        kept=False,
        proves="A rollback survives a crash as well.",
    ),
    Scene(
        "payment times out",
        _timed_out,
        "completed",
        kept=True,
        proves="An unknown outcome is found out, not guessed.",
    ),
    Scene(
        "customer cancels",
        _cancelled,
        "compensated",
        kept=False,
        proves="A cancel is an orderly way back, not a kill.",
    ),
    Scene(
        "refund gets stuck",
        _mended,
        "compensated",
        kept=False,
        proves="What cannot be undone says so, and a person can mend it.",
    ),
    Scene(
        "manager approves",
        _approved,
        "completed",
        kept=True,
        proves="A wait for a person outlives every process, and any process may bring the answer.",
        amount=19_900,
    ),
    Scene(
        "manager refuses",
        _refused,
        "compensated",
        kept=False,
        proves="A refusal is a way back like any other.",
        amount=19_900,
    ),
)
