"""The trip as a graph: nodes, and what each of them needs. Their order follows from that; see ``coded.py``."""

from examples.booking.domain import Approval, Trip
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
from sagas import SagaGraph

g = SagaGraph("book-trip", version=1, input=Trip, deadline=DEADLINE, parallel_compensation=True)

car = g.step(hold_car, g.input)
room = g.step(hold_room, g.input)
seat = g.step(hold_seat, g.input)

expensive = g.lookup(is_expensive, g.input)
approval = g.callback("approval", Approval, timeout=ANSWERED, after=[car, room, seat], when=expensive)

paid = g.pivot(pay, g.input, after=[approval])

booked_car = g.retriable(confirm_car, car, after=[paid])
booked_room = g.retriable(confirm_room, room, after=[paid])
booked_seat = g.retriable(confirm_seat, seat, after=[paid])

book_trip = g.returns(g.lookup(itinerary, g.input, paid, booked_car, booked_room, booked_seat))
