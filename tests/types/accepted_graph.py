"""What a user's type checker infers from the declaration of a graph. Checked, never run."""

from typing import Any, assert_type

import attrs

from sagas import (
    Orchestrator,
    Ref,
    Saga,
    SagaDef,
    SagaGraph,
    SagaHandle,
    lookup,
    pivot,
    resource,
    retriable,
    saga,
    step,
)


@attrs.frozen
class Trip:
    """What a customer wants."""

    city: str


@attrs.frozen
class Car:
    """A reservation."""

    plate: str


class SportsCar(Car):
    """A better one."""


class Agency:
    """A participant's client."""


@step
async def reserve_car(trip: Trip, *, agency: Agency = resource()) -> SportsCar:
    """An asynchronous step with a resource."""
    return SportsCar(trip.city)


@reserve_car.compensate
async def release_car(car: SportsCar) -> None:
    """Its undo."""


@step(compensation=None, because="nothing is held")
def reserve_hotel(trip: Trip, nights: int = 1) -> str:
    """A plain one with a default."""
    return trip.city * nights


@lookup
async def is_expensive(trip: Trip) -> bool:
    """A condition."""
    return bool(trip.city)


@pivot
async def pay(trip: Trip, car: Car, hotel: str) -> int:
    """The point of no return takes a base class."""
    return len(hotel)


@retriable
async def confirm(paid: int, answer: bool | None = None) -> str:  # noqa: FBT001 - the answer of a callback
    """What comes after it."""
    return f"{paid} {answer}"


@saga("insure", version=1)
async def insure(s: Saga, trip: Trip) -> str:
    """A child."""
    return trip.city


@step(compensation=None, because="a mail cannot be called back")
async def ask(trip: Trip, token: str) -> None:
    """Hands out a token."""


def declared() -> SagaDef[[Trip], str]:
    """A graph, from its input to its output."""
    g = SagaGraph("book-trip", version=1, input=Trip)
    assert_type(g.input, Ref[Trip])
    car = g.step(reserve_car, g.input)
    assert_type(car, Ref[SportsCar])
    hotel = g.step(reserve_hotel, g.input, 3)
    assert_type(hotel, Ref[str])
    assert_type(g.step(reserve_hotel, g.input, nights=2), Ref[str])
    assert_type(g.step(reserve_hotel, trip=g.input), Ref[str])
    assert_type(g.step(insure, g.input, after=[car, hotel]), Ref[str])
    expensive = g.lookup(is_expensive, g.input)
    approval = g.callback("approval", bool, timeout=60, when=expensive)
    assert_type(g.callback("other", bool).token, Ref[str])
    assert_type(approval.token, Ref[str])
    g.step(ask, g.input, approval.token, when=expensive)
    assert_type(g.step(reserve_hotel, g.input, when=expensive), Ref[str | None])
    assert_type(g.sleep(3), Ref[None])
    paid = g.pivot(pay, g.input, car, hotel, after=[approval])
    assert_type(paid, Ref[int])
    assert_type(g.step(reserve_car, Trip("Rome")), Ref[SportsCar])
    return g.returns(g.retriable(confirm, paid, approval))


def without_input() -> SagaDef[[], None]:
    """A graph that takes and returns nothing."""
    g = SagaGraph("nothing", version=1)
    g.step(reserve_hotel, Trip("Rome"))
    return g.returns()


async def started(orchestrator: Orchestrator) -> None:
    """A graph is started with its input, and the handle knows its result."""
    g = SagaGraph("book-trip", version=1, input=Trip)
    assert_type(await orchestrator.start(declared(), Trip("Rome"), id="one"), SagaHandle[str])
    assert_type(await orchestrator.start(g, Trip("Rome")), SagaHandle[Any])


@saga("around", version=1)
async def around(s: Saga, trip: Trip) -> str:
    """A graph is a child of a coded saga."""
    return await s.run(declared(), trip)
