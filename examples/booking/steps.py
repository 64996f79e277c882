"""The steps of a trip, and how to undo each of them. ``graph.py`` and ``coded.py`` put them together, each in its way.

Until the payment every step has a compensation. The payment is the pivot: after it the trip is confirmed, however long
that takes. The three holds show the three ways to deal with an unknown outcome: ``hold_room`` is not repeated but asked
about, by its probe; the other two are repeated under their key, and their undo works whether they happened or not.
"""

from datetime import timedelta

from examples.booking.clients import AirlineClient, CarsClient, HotelClient
from examples.booking.domain import Booked, Hold, Itinerary, NothingFree, Trip
from examples.participants.clients import CardDeclined, Payment, PaymentsClient
from examples.participants.keys import own_key, undone_key
from sagas import Retry, Unknown, lookup, pivot, resource, retriable, step

QUICK = Retry(attempts=3, first=0.2, longest=2)
"""Short delays, for a demo."""
PATIENT = Retry.forever(first=0.2, longest=2)
ATTEMPT = timedelta(seconds=30)

DEADLINE = timedelta(minutes=14)
"""The airline keeps a seat for 15 minutes. What is not paid a minute before that is undone, so that a payment that is
under way at the deadline still finds the seat."""
ANSWERED = timedelta(minutes=10)
"""How long a manager has to answer."""
EXPENSIVE = 100_000
"""In cents: from this amount on a manager has to approve a trip."""


@step(retry=QUICK, timeout=ATTEMPT, rejects=(NothingFree,))
async def hold_car(trip: Trip, *, cars: CarsClient = resource()) -> Hold:
    """Have a car kept."""
    return await cars.hold(trip, key=own_key())


@hold_car.compensate(retry=PATIENT)
async def release_car(_held: Hold | Unknown, *, cars: CarsClient = resource()) -> None:
    """Release the car. Works even if it is unknown whether one is kept."""
    await cars.release(of=undone_key(), key=own_key())


@step(timeout=ATTEMPT, rejects=(NothingFree,))
async def hold_room(trip: Trip, *, hotel: HotelClient = resource()) -> Hold:
    """Have a room kept. Not repeated: if the hotel does not answer, ``find_room`` asks what became of it."""
    return await hotel.hold(trip, key=own_key())


@hold_room.probe
async def find_room(trip: Trip, *, hotel: HotelClient = resource()) -> Hold | None:
    """The room that is kept. If none is, the hotel guarantees that none will be."""
    return await hotel.find_hold(of=undone_key(), key=own_key())


@hold_room.compensate(retry=PATIENT)
async def release_room(_held: Hold, *, hotel: HotelClient = resource()) -> None:
    """Release the room."""
    await hotel.release(of=undone_key(), key=own_key())


@step(retry=QUICK, timeout=ATTEMPT, rejects=(NothingFree,))
async def hold_seat(trip: Trip, *, airline: AirlineClient = resource()) -> Hold:
    """Have a seat kept, for 15 minutes."""
    return await airline.hold(trip, key=own_key())


@hold_seat.compensate(retry=PATIENT)
async def release_seat(_held: Hold | Unknown, *, airline: AirlineClient = resource()) -> None:
    """Release the seat. Works even if it is unknown whether one is kept, or if its 15 minutes are over."""
    await airline.release(of=undone_key(), key=own_key())


@lookup
async def is_expensive(trip: Trip) -> bool:
    """Whether a manager has to approve the trip."""
    return trip.amount >= EXPENSIVE


@pivot(timeout=ATTEMPT, rejects=(CardDeclined,))
async def pay(trip: Trip, *, payments: PaymentsClient = resource()) -> Payment:
    """The point of no return: the customer has paid."""
    return await payments.charge(trip, key=own_key())


@pay.probe
async def find_payment(trip: Trip, *, payments: PaymentsClient = resource()) -> Payment | None:
    """The payment. If there is none, the bank guarantees that there will be none."""
    return await payments.find_charge(of=undone_key(), key=own_key())


@retriable(retry=PATIENT, timeout=ATTEMPT)
async def confirm_car(held: Hold, *, cars: CarsClient = resource()) -> Booked:
    """Book the car, retrying until it succeeds."""
    return await cars.confirm(held, key=own_key())


@retriable(retry=PATIENT, timeout=ATTEMPT)
async def confirm_room(held: Hold, *, hotel: HotelClient = resource()) -> Booked:
    """Book the room, retrying until it succeeds."""
    return await hotel.confirm(held, key=own_key())


@retriable(retry=PATIENT, timeout=ATTEMPT)
async def confirm_seat(held: Hold, *, airline: AirlineClient = resource()) -> Booked:
    """Book the seat, retrying until it succeeds."""
    return await airline.confirm(held, key=own_key())


@lookup
async def itinerary(trip: Trip, payment: Payment, car: Booked, room: Booked, seat: Booked) -> Itinerary:
    """Put together what the customer gets."""
    return Itinerary(trip_id=trip.id, payment_id=payment.id, car=car.number, room=room.number, seat=seat.number)
