"""The demo's scenes: a fault, and how a trip must end in spite of it. Each is played for both forms at the same time.

No scene relies on timing: if something has to happen in the middle of a call, the supplier holds its answer back,
which proves that the effect is done and that the saga does not know it yet.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence

import attrs

from examples.booking.agency import Agency, Started

Story = AsyncIterator[str]
"""A running scene: it yields a plain description of each event, just before or after the event."""
Trips = Sequence[Started]


@attrs.frozen
class Scene:
    """A scene and how its trips must end."""

    title: str
    play: Callable[[Agency, Trips], Story]
    status: str
    """The sagas' status at the end."""
    cause: str | None = None
    city: str = "Rome"
    amount: int = 45_000
    """In cents."""

    @property
    def booked(self) -> bool:
        """Whether the customer travels; if not, nothing of the trip may remain."""
        return self.status == "completed"


async def _booked(agency: Agency, trips: Trips) -> Story:
    yield "Nothing goes wrong: car, room and seat are held at the same time, the trip is paid, all three are booked."
    await agency.start(trips)
    await agency.all_ended(trips)
    yield f"The customer asks the front: {await agency.customer.looks(trips[0].trip)}."


async def _approved(agency: Agency, trips: Trips) -> Story:
    yield "An expensive trip: all three are held, and a manager has to approve it. Waiting costs one row, no process."
    await agency.start(trips)
    await agency.all_ask(trips)
    yield f"The customer asks the front: {await agency.customer.looks(trips[0].trip)}. The manager says yes."
    for each in trips:
        await agency.customer.approves(each.trip, "Ada")
    await agency.all_ended(trips)


async def _no_seats(agency: Agency, trips: Trips) -> Story:
    yield "No seat is free on the flight to Venice. Car and room are held by then, and are released."
    await agency.start(trips)
    await agency.all_ended(trips)


async def _late(agency: Agency, trips: Trips) -> Story:
    yield "The hotel keeps a room but does not say so in time. The worker gives up after 1 s: is there a room or not?"
    await agency.restart_worker(patience_s=1)
    await agency.hotel.plan("hold", hold_next=len(trips))
    await agency.start(trips)
    await agency.hotel.held("hold", count=len(trips))
    yield "It does not guess, and it does not book a second room: it asks the hotel, finds the room, and goes on."
    await agency.all_ended(trips)
    await agency.restart_worker()


async def _cancelled(agency: Agency, trips: Trips) -> Story:
    yield "The customer cancels while the hotel is being asked (its answer is held back until the cancel is in)."
    await agency.hotel.plan("hold", hold_next=len(trips))
    await agency.start(trips)
    await agency.hotel.held("hold", count=len(trips))
    for each in trips:
        await agency.customer.cancels(each.trip, "the cat is ill")
        await agency.heard(await agency.handle(each), "cancel")
    await agency.hotel.release()
    yield "The call to the hotel may end. Then all three are released, the room too. Nothing was paid."
    await agency.all_ended(trips)


async def _killed(agency: Agency, trips: Trips) -> Story:
    yield "No seat to Venice again, so car and room are released; the hotel holds back its answer to that."
    await agency.hotel.plan("release", hold_next=len(trips))
    await agency.start(trips)
    await agency.hotel.held("release", count=len(trips))
    pid = await agency.kill_worker(await agency.handle(trips[0]))
    yield f"The room is free and the worker does not know it yet: kill -9 {pid}, in the middle of the rollback."
    await agency.hotel.unheld("release")
    worker = await agency.start_worker()
    yield f"A new worker, pid {worker.pid}, goes on undoing: it releases the room again under the same key."
    await agency.all_ended(trips)


async def _expired(agency: Agency, trips: Trips) -> Story:
    yield "An expensive trip waits for a manager. The agency's worker is stopped for a quarter of an hour."
    await agency.start(trips)
    await agency.all_ask(trips)
    await agency.stop_workers()
    # Each answer waits a moment for a worker, and is then kept for the next one.
    await asyncio.gather(*(agency.customer.approves(each.trip, "Ada") for each in trips))
    yield "The manager says yes, and the front keeps the answer; but no worker is there to take the money."
    await agency.quarter_of_an_hour_passes()
    yield "The seat's hold expires at the airline. (Nobody waits for that: the clocks of airline and worker are moved.)"
    worker = await agency.start_worker(options=("--ahead", "900"))
    yield f"A new worker, pid {worker.pid}, finds the deadline past: it takes no money, and undoes the trip."
    await agency.all_ended(trips)


EXPENSIVE = 180_000
SCENES = (
    Scene("booked", _booked, "completed"),
    Scene("a manager approves", _approved, "completed", amount=EXPENSIVE),
    Scene("no seats", _no_seats, "compensated", "failed", city="Venice"),
    Scene("the hotel answers late", _late, "completed"),
    Scene("the customer cancels", _cancelled, "compensated", "cancelled"),
    Scene("kill -9 in the rollback", _killed, "compensated", "failed", city="Venice"),
    # The last one: the worker's clock stays ahead.
    Scene("the hold expires", _expired, "compensated", "deadline", amount=EXPENSIVE),
)
