"""What the tests of pictures share: steps, bodies from text, and a picture as a few lines to compare."""

import linecache
import textwrap
from datetime import UTC, datetime, timedelta
from typing import Any

import attrs

from sagas import SagaDef, SagaGraph, SagaInfo, SagaStatus, StepState, lookup, pivot, retriable, step
from sagas.diagram.coded import coded_picture
from sagas.diagram.picture import Picture

PRELUDE = """
from datetime import timedelta
from sagas import Saga, lookup, pivot, retriable, saga, step

class Declined(Exception): ...

@step
async def reserve(x=0): ...
@reserve.compensate
async def put_back(x): ...
@step
async def book(x=0): ...
@book.compensate
async def cancel(x): ...
@step(compensation=None, because="a test")
async def note(x=0): ...
@pivot
async def charge(x=0): ...
@retriable
async def ship(x=0): ...
@lookup
async def look(x=0): ...
STEPS = {"reserve": reserve}
async def elsewhere(s, *args): ...

@saga("booking", version=1)
async def booking(s: Saga):
    await s.run(book)
@saga("paying", version=1)
async def paying(s: Saga):
    await s.run(charge)
@saga("looking", version=1)
async def looking(s: Saga):
    await s.run(look)

@saga("order", version=1)
async def order(s: Saga, x=0, items=()):
"""


def coded(body: str) -> SagaDef[..., Any]:
    """A saga with this body, whose source can be read."""
    source = PRELUDE + textwrap.indent(textwrap.dedent(body).strip("\n"), "    ") + "\n"
    name = f"<body {hash(source)}>"
    linecache.cache[name] = (len(source), None, source.splitlines(keepends=True), name)
    world: dict[str, Any] = {"__name__": "bodies"}
    exec(compile(source, name, "exec"), world)
    return world["order"]


def flow(picture: Picture) -> str:
    """Each edge as one line: ``reserve > charge: yes``; gates by their kind and number."""
    names = {mark.key: mark.key.removesuffix("/").partition("/")[0] for mark in picture.nodes}
    gates = [mark for mark in picture.nodes if mark.key.endswith("/") and mark.kind not in ("start", "end")]
    for mark in gates:
        alike = [each for each in gates if each.kind == mark.kind]
        number = alike.index(mark) + 1
        names[mark.key] = f"{mark.kind}{number if len(alike) > 1 else ''}"
    names |= {mark.key: mark.key for mark in picture.nodes if not mark.key.endswith("/")}
    signs = {"flow": ">", "when": "?>", "except": "!>", "back": "^>"}
    return "\n".join(
        f"{names[edge.source]} {signs[edge.kind]} {names[edge.target]}" + (f": {edge.label}" if edge.label else "")
        for edge in picture.edges
    )


def flow_of(body: str) -> str:
    """The edges of the picture of this body."""
    return flow(coded_picture(coded(body)))


def lines(text: str) -> str:
    """A text from a test, without its indentation."""
    return textwrap.dedent(text).strip()


# -- graphs ------------------------------------------------------------------------------------------------------------


@attrs.frozen
class Trip:
    """What a graph is given."""

    city: str


@step
async def car(trip: Trip) -> str: ...
@car.compensate
async def cancel_car(booked: str) -> None: ...
@step
async def flight(trip: Trip) -> str: ...
@flight.compensate
async def cancel_flight(booked: str) -> None: ...
@lookup
async def far(trip: Trip) -> bool: ...
@pivot
async def pay(trip: Trip, booked: str) -> str: ...
@retriable
async def mail(paid: str) -> None: ...


def trip() -> SagaGraph[[Trip]]:
    """A small trip: a car, a flight where it is far, then the payment."""
    g = SagaGraph("trip", version=2, input=Trip)
    booked = g.step(car, g.input)
    is_far = g.lookup(far, g.input)
    flown = g.step(flight, g.input, when=is_far)
    paid = g.pivot(pay, g.input, booked, after=[flown])
    g.retriable(mail, paid)
    g.returns(paid)
    return g


# -- runs --------------------------------------------------------------------------------------------------------------

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


def second(number: float) -> datetime:
    """A time, by the seconds after noon."""
    return NOON + timedelta(seconds=number)


def state(key: str, status: str = "succeeded", begin: float = 0, end: float | None = 1, **more: Any) -> StepState:
    """A step of a run."""
    name = key.rpartition("/")[2].partition("~")[0].partition("#")[0]
    given = {"kind": "step", "attempts": 1, "started_at": second(begin)} | more
    return StepState(key=key, name=name, status=status, ended_at=None if end is None else second(end), **given)


def undone(key: str, begin: float = 0, status: str = "succeeded", **more: Any) -> StepState:
    """A step that a rollback has reached."""
    undo = state(f"{key}~undo", status, begin + 10, begin + 11, kind="compensation", **more)
    return state(
        key, "compensated" if status == "succeeded" else "compensation_failed", begin, begin + 1, compensation=undo
    )


def run(*steps: StepState, status: str = "completed", run_id: str = "o-1") -> SagaInfo:
    """A run with these steps."""
    return SagaInfo(
        id=run_id,
        saga="order",
        version=1,
        status=SagaStatus(status),
        cause="failed" if status == "compensated" else None,
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
