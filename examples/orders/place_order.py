"""The order saga: the steps of an order, and how to undo each of them.

    reserve stock -> (ask manager) -> charge card -> book courier -> sell -> dispatch
    release       <- (withdraw)    <- refund      <- cancel          |
                                                      the point of no return

Up to the sale every step has a compensation; the sale is the pivot, and after it the parcel is sent, however long that
takes. Each call carries the step's idempotency key, and each compensation names the key of the call that it undoes, so
that it works without knowing whether that call ever arrived.

A large order waits, for days if necessary, for a manager's answer: version 2 of the saga. Version 1 asked nobody.
"""

from datetime import timedelta

from examples.orders.clients import DeskClient, InventoryClient, ShippingClient
from examples.orders.domain import (
    Approval,
    NoCourier,
    Order,
    OutOfStock,
    Receipt,
    Request,
    Reservation,
    Sale,
    Shipment,
)
from examples.participants.clients import CardDeclined, Payment, PaymentsClient
from examples.participants.keys import own_key, undone_key
from sagas import Retry, Saga, Unknown, pivot, resource, retriable, saga, step

QUICK = Retry(attempts=5, first=0.2, longest=2)
"""Short delays, for a demo: a service out of order is asked again after 0.2 s, 0.4 s, ..."""

LARGE = 10_000
"""In cents: from this amount on a manager has to approve an order."""


@step(retry=QUICK, timeout=60, rejects=(OutOfStock,))
async def reserve_stock(order: Order, *, inventory: InventoryClient = resource()) -> Reservation:
    """Set the goods aside."""
    return await inventory.reserve(order, key=own_key())


@reserve_stock.compensate(retry=QUICK)
async def release_stock(_reserved: Reservation | Unknown, *, inventory: InventoryClient = resource()) -> None:
    """Put the goods back on the shelf. Works even if it is unknown whether they were set aside."""
    await inventory.release(of=undone_key(), key=own_key())


@step(retry=QUICK, timeout=60)
async def ask_manager(order: Order, token: str, *, desk: DeskClient = resource()) -> Request:
    """Put the order into the manager's inbox, with the token by which the manager answers."""
    return await desk.ask(order, token, key=own_key())


@ask_manager.compensate(retry=QUICK)
async def withdraw_request(_asked: Request | Unknown, *, desk: DeskClient = resource()) -> None:
    """The order is being undone: withdraw the question."""
    await desk.withdraw(of=undone_key(), key=own_key())


@step(timeout=60, rejects=(CardDeclined,))
async def charge_card(order: Order, *, payments: PaymentsClient = resource()) -> Payment:
    """Take the money. Not retried: if the bank does not answer, ``find_charge`` asks what became of it."""
    return await payments.charge(order, key=own_key())


@charge_card.probe
async def find_charge(order: Order, *, payments: PaymentsClient = resource()) -> Payment | None:
    """Whether the money was taken. If it was not, the bank guarantees that it never will be."""
    return await payments.find_charge(of=undone_key(), key=own_key())


@charge_card.compensate(retry=Retry(attempts=3, first=0.2))
async def refund(_payment: Payment, *, payments: PaymentsClient = resource()) -> None:
    """Give the money back."""
    await payments.refund(of=undone_key(), key=own_key())


@step(retry=QUICK, timeout=60, rejects=(NoCourier,))
async def book_courier(order: Order, *, shipping: ShippingClient = resource()) -> Shipment:
    """Book a courier; retried, because the courier's service fails at times."""
    return await shipping.book(order, key=own_key())


@book_courier.compensate(retry=QUICK)
async def cancel_courier(_booked: Shipment | Unknown, *, shipping: ShippingClient = resource()) -> None:
    """Call the courier off. Works even if it is unknown whether one was booked."""
    await shipping.cancel(of=undone_key(), key=own_key())


@pivot(retry=QUICK, timeout=60)
async def sell(reserved: Reservation, *, inventory: InventoryClient = resource()) -> Sale:
    """The point of no return: the goods are the customer's."""
    return await inventory.sell(reserved, key=own_key())


@sell.probe
async def find_sale(reserved: Reservation, *, inventory: InventoryClient = resource()) -> Sale | None:
    """Whether the goods were sold. If not, they never will be under this key."""
    return await inventory.find_sale(of=undone_key(), key=own_key())


@retriable(retry=Retry.forever(first=0.2, longest=2), timeout=60)
async def dispatch(shipment: Shipment, *, shipping: ShippingClient = resource()) -> None:
    """Send the parcel, retrying until it succeeds."""
    await shipping.dispatch(shipment, key=own_key())


@saga("place-order", version=2)
async def place_order(s: Saga, order: Order) -> Receipt:
    """Reserve, charge, sell and send ``order``, or leave no trace of it."""
    reserved = await s.run(reserve_stock, order)
    if order.amount >= LARGE:
        approval = await s.callback("approval", Approval, timeout=timedelta(days=2))
        await s.run(ask_manager, order, approval.token)
        await approval.result()  # a refusal, or no answer in time, leaves the body here: everything is undone
    payment = await s.run(charge_card, order)
    shipment = await s.run(book_courier, order)
    await s.run(sell, reserved)
    await s.run(dispatch, shipment)
    return Receipt(order_id=order.id, payment_id=payment.id, shipment_id=shipment.id)
