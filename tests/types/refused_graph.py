"""What a user's type checker must refuse in a graph. Checked, never run.

Above a wrong line stand the rules that report it. Both checkers must report exactly these lines by these rules.
Where no checker sees what is wrong, ``# missed:`` tells who finds it instead.
"""

import attrs

from sagas import Orchestrator, Ref, SagaGraph, lookup, pivot, step


@attrs.frozen
class Trip:
    """What a customer wants."""

    city: str


@attrs.frozen
class Car:
    """A reservation."""

    plate: str


@step(compensation=None, because="a test")
async def reserve_car(trip: Trip) -> Car:
    """Of one reference."""
    return Car(trip.city)


@pivot
async def pay(trip: Trip, car: Car) -> int:
    """Of two references."""
    return len(car.plate + trip.city)


@lookup
async def describe(trip: Trip) -> str:
    """No condition."""
    return trip.city


@step
async def reserve_hotel(trip: Trip) -> str:
    """With a wrong undo."""
    return trip.city


# error: mypy[arg-type] pyright[reportArgumentType, reportCallIssue]
@reserve_hotel.compensate
async def release_hotel(car: Car) -> None:
    """The result is a text."""


g = SagaGraph("book-trip", version=1, input=Trip)
car = g.step(reserve_car, g.input)

# error: mypy[arg-type] pyright[reportArgumentType, reportCallIssue]
g.step(reserve_car, car)
# error: mypy[arg-type] pyright[reportArgumentType, reportCallIssue]
g.pivot(pay, car, g.input)
# error: mypy[misc] pyright[reportArgumentType, reportCallIssue]
g.pivot(pay, g.input, "car")
# error: mypy[arg-type] pyright[reportArgumentType, reportCallIssue]
g.step(reserve_car, g.input, when=g.lookup(describe, g.input))
# error: mypy[arg-type] pyright[reportArgumentType, reportCallIssue]
g.pivot(pay, g.input, car, car)
# missed: g.check says which argument is missing
g.pivot(pay, g.input)
# missed: the call raises DefinitionError, because a step is no pivot
g.pivot(reserve_car, g.input)
# error: mypy[arg-type] pyright[reportArgumentType]
g.returns("done")
# error: mypy[misc] pyright[reportAttributeAccessIssue, reportUnknownVariableType]
nothing: Ref[int] = SagaGraph("nothing", version=1).input


async def started(orchestrator: Orchestrator) -> None:
    """A graph is started with its input."""
    # error: mypy[misc] pyright[reportArgumentType, reportCallIssue]
    await orchestrator.start(g, Car("x"))
