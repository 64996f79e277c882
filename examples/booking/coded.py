"""The trip as code: the same steps as in ``graph.py``, in the order in which Python runs them."""

from examples.booking.domain import Approval, Itinerary, Trip
from examples.booking.steps import (
    ANSWERED,
    DEADLINE,
    confirm_car,
    confirm_room,
    confirm_seat,
    hold_car,
    hold_room,
    hold_seat,
    is_expensive,
    itinerary,
    pay,
)
from sagas import Saga, saga


@saga("book-trip-in-code", version=1, deadline=DEADLINE, parallel_compensation=True)
async def book_trip(s: Saga, trip: Trip) -> Itinerary:
    """Book a car, a room and a seat, or leave no trace of the trip."""
    async with s.parallel() as holds:
        car = holds.run(hold_car, trip)
        room = holds.run(hold_room, trip)
        seat = holds.run(hold_seat, trip)

    if await s.run(is_expensive, trip):
        approval = await s.callback("approval", Approval, timeout=ANSWERED)
        await approval.result()  # a refusal, or no answer in time, leaves the body here: everything is undone

    paid = await s.run(pay, trip)

    async with s.parallel() as confirmations:
        booked_car = confirmations.run(confirm_car, car.result())
        booked_room = confirmations.run(confirm_room, room.result())
        booked_seat = confirmations.run(confirm_seat, seat.result())
    return await s.run(itinerary, trip, paid, booked_car.result(), booked_room.result(), booked_seat.result())
