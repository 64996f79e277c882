"""What the tests of pictures share: steps, bodies from text, and a picture as a few lines to compare."""

import linecache
import textwrap
from datetime import UTC, datetime, timedelta
from typing import Any

import attrs

from sagas import SagaDef, SagaGraph, SagaInfo, SagaStatus, StepState, lookup, pivot, retriable, step
from sagas.diagram.coded import coded_picture
from sagas.diagram.graphs import graph_picture
from sagas.diagram.picture import SIGNS, Picture
from sagas.diagram.runs import run_picture
from sagas.model.graph import Ref

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
@step
async def make(given: str) -> str: ...
@make.compensate
async def unmake(made: str) -> None: ...
@lookup
async def ask(given: str) -> bool: ...
@pivot
async def sign(given: str) -> str: ...
@retriable
async def send(given: str) -> str: ...


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


# -- pictures of each sort ---------------------------------------------------------------------------------------------

BODY = """
await s.run(reserve)
try:
    async with s.savepoint("courier"):
        await s.run(book)
except Declined:
    await s.sleep(60)
while not await s.run(look):
    await s.run(note)
async with s.parallel() as p:
    p.run(book)
    p.run(booking)
await elsewhere(s)
if x:
    raise Declined("no")
await s.run(charge)
await s.run(ship)
"""
CROWDED = """
await s.map(book, items)
async with s.savepoint("courier"):
    await s.run(reserve)
    while x:
        try:
            await s.run(look)
        except Declined:
            continue
        if x == 2:
            raise Declined("no")
    await s.run(note)
"""
HOSTILE = [
    'say "hi"',
    "<script>alert(1)</script>",
    "a & b &amp; &#34;",
    "x];y%%z`q`",
    "end",
    "subgraph",
    "\\N\\",
    "🚀 ロケット",
    "שלום עולם",
    "e\u0301" * 20,
    "w" * 200,
    "]]>",
    "--> |x|",
    "style:#34;",
    "'",
    "{{}}",
    "%% note",
    "click n1 href",
    "`code`",
    "<!-- no -->",
    "one\ntwo\r\tthree",
    "\x00\x07\x1b[31m",
    "\u202etxet\u2066 backwards\u200f",
    "n" * 300,
    "\ufffe\ufeff",
]


def ordinary() -> dict[str, Picture]:
    """Pictures of each sort."""
    body = coded_picture(coded(BODY))
    info = run(undone("reserve", attempts=3), state("courier/book", "failed"), state("look", "running", 1, None))
    return {
        "graph": graph_picture(trip()),
        "code": body,
        "crowded": coded_picture(coded(CROWDED)),
        "run": run_picture(info, body),
        "alone": run_picture(info),
        "states": run_picture(run(*(state(f"s-{name}", name) for name in SIGNS if name), status="stuck")),
        "hostile": renamed(graph_picture(trip()), HOSTILE),
        "empty": graph_picture(SagaGraph("empty", version=1)),
    }


def renamed(picture: Picture, names: list[str]) -> Picture:
    """The picture with these names everywhere."""
    left = [*names]

    def name() -> str:
        left.append(left.pop(0))
        return left[-1]

    return attrs.evolve(
        picture,
        title=name(),
        subtitle=name(),
        nodes=tuple(attrs.evolve(mark, label=name(), note=name()) for mark in picture.nodes),
        undos=tuple(attrs.evolve(mark, label=name()) for mark in picture.undos),
        edges=tuple(attrs.evolve(edge, label=name()) for edge in picture.edges),
    )


def grown(size: int) -> SagaGraph[[str]]:
    """A graph of ``size`` nodes: steps that depend on earlier ones, a choice, a pivot, and what comes after it."""
    g = SagaGraph(f"grown-{size}", version=1, input=str)
    made: list[Ref[str]] = [g.input]
    for place in range(max(size * 2 // 3 - 2, 1)):
        made.append(g.step(make, made[place * 7 // 11], after=made[-1:] if place % 5 == 3 else []))
    asked = g.lookup(ask, made[-1])
    boxed = g.step(make, made[1], when=asked)
    done = [g.pivot(sign, made[1], after=[*made[1:], boxed])]
    while len(g.nodes) < size:
        done.append(g.retriable(send, done[len(done) * 3 // 5]))
    g.returns()
    return g
