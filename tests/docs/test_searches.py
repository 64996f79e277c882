"""The searches of docs/how-to/traces.md find what they promise, and nothing else."""

import asyncio
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import attrs
import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider

from durable_core.layer import SpanRecord
from durable_core.stores.memory.data import MemoryData
from sagas import Retry, Saga, SagaCompensated, resource, saga, step
from sagas.testing import ManualClock
from tests.jaeger import Search
from tests.kit import Place, World, begun, end_of, entered
from tests.traces import check_trace

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "traces.md"
NOW = datetime(2030, 1, 3, 12, tzinfo=UTC)
LATELY = NOW - timedelta(minutes=30)
NS = 1_000_000_000
ONCE_MORE = Retry(attempts=2, first=1, jitter=False)


class CardDeclined(Exception):
    """The bank's own answer."""


class Broken(Exception):
    """Nothing happened."""


CardDeclined.__module__ = "shop"
DECLINED, BROKEN = CardDeclined("no"), Broken("no")


@attrs.define
class Shop:
    """What the parties do: an exception for each call that fails, None for one that does not."""

    does: Mapping[str, Sequence[Exception | None]]
    calls: dict[str, int] = attrs.field(factory=dict[str, int])

    def act(self, what: str) -> None:
        """One call."""
        place = self.calls[what] = self.calls.get(what, 0) + 1
        plan = self.does.get(what, ())
        failure = plan[place - 1] if place <= len(plan) else None
        if failure is not None:
            raise failure


@step(compensation=None, because="it only asks")
async def ask_bank(order: str) -> str:
    if order == "order-17":
        trace.get_current_span().set_attribute("customer", "42")
    return order


@step(rejects=(CardDeclined,), retry=ONCE_MORE)
async def charge(order: str, *, shop: Shop = resource(), world: World = resource()) -> str:
    await world.act("charge", order)
    shop.act("charge")
    return order


@charge.compensate(retry=ONCE_MORE)
async def refund(paid: str, *, shop: Shop = resource()) -> None:
    assert paid
    shop.act("undo charge")


@step
async def book_hotel(order: str) -> str:
    return order


@book_hotel.compensate
async def cancel_hotel(booked: str) -> None:
    assert booked


@step(compensation=None, because="it is only asked for")
async def book_flight(*, shop: Shop = resource()) -> None:
    shop.act("book_flight")


@step(compensation=None, because="it is the last")
async def ship(*, shop: Shop = resource()) -> None:
    shop.act("ship")


@saga("book-trip", version=1)
async def book_trip(s: Saga, order: str) -> None:
    await s.run(book_hotel, order)
    await s.run(book_flight)


async def _order(s: Saga, order: str) -> None:
    await s.run(ask_bank, order)
    if order == "slow":
        await s.sleep(timedelta(days=2))
    await s.run(charge, order)
    try:
        await s.run(book_trip, order)
    except SagaCompensated:
        s.log.info("without it, then")
    if order == "cancelled":
        await (await s.callback("approval", bool)).result()
    await s.run(ship)


@saga("place-order", version=1)
async def place_order(s: Saga, order: str) -> None:
    await _order(s, order)


@saga("send-gift", version=1)
async def send_gift(s: Saga, order: str) -> None:
    await _order(s, order)


GIVEN_UP = {"ship": [BROKEN], "undo charge": [BROKEN, BROKEN]}
PLANS: Mapping[str, Mapping[str, Sequence[Exception | None]]] = {
    "order-17": {},
    "declined": {"charge": [DECLINED]},
    "slow": {"ship": [BROKEN]},
    "cancelled": {},
    "retried": {"charge": [BROKEN]},
    "hardly undone": {"ship": [BROKEN], "undo charge": [BROKEN]},
    "stuck": GIVEN_UP,
    "without trip": {"book_flight": [BROKEN]},
    "cut": {},
    "elsewhere": {},
    "gift": {"ship": [BROKEN]},
    "stuck gift": GIVEN_UP,
}
UNDONE = {"declined", "slow", "cancelled", "hardly undone", "gift"}
COMPLETED = {"order-17", "retried", "without trip", "cut", "elsewhere"}
STUCK = {"stuck", "stuck gift"}
PROMISES = {
    "one saga": {"order-17"},
    "sagas that were undone in this time": UNDONE,
    "those of one name": UNDONE - {"gift"},
    "those that were not cancelled, but failed": UNDONE - {"cancelled"},
    "those that an exception led to": {"declined"},
    "sagas that began in this time and were completed": COMPLETED,
    "sagas that got stuck in this time": {"stuck"},
    "failed or cut attempts of a step": {"declined", "retried", "cut"},
    "failed or cut attempts of its undo": {"hardly undone", *STUCK},
    "attempts that were cut: their process died, or their saga was killed": {"cut"},
    "what a cancel led to": {"cancelled"},
    "undone steps": {"slow", "cancelled", "hardly undone", "gift", *STUCK},
    "children that were undone by themselves": {"without trip"},
    "what a machine has done": set(PLANS) - {"elsewhere"},
    "what your own code has said": {"order-17"},
}


async def _played(name: str) -> list[SpanRecord]:
    """What is sent of one saga."""
    definition = send_gift if name in ("gift", "stuck gift") else place_order
    began = LATELY - timedelta(days=2) if name == "slow" else LATELY
    clock, world = ManualClock(start=began, auto=True), World()
    place = Place("memory://", MemoryData())
    options = {
        "resources": [Shop(PLANS[name])],
        "clock": clock,
        "tracer_provider": TracerProvider(shutdown_on_exit=False),
    }
    if name == "cut":
        gate = world.gate("charge")
        async with place.dying(definition, world=world, **options) as first:
            await first.start(definition, name, id=name)
            await entered(gate, first)
        gate.opened.set()
    async with place.orchestrator(definition, world=world, **options) as running:
        handle = await running.start(definition, name, id=name)
        if name == "cancelled":
            await begun(handle, running, "approval")
            await running.cancel(name, actor="ann")
        end = await end_of(handle, running)
        assert end.status == ("compensated" if name in UNDONE else "completed" if name in COMPLETED else "stuck")
        record = await running.engine.find(name)
        return check_trace(record, await running.engine.journal(record.num))


@pytest.fixture(scope="module")
def traces() -> dict[str, list[SpanRecord]]:
    """Every saga's trace, by its id."""

    def played(name: str) -> list[SpanRecord]:
        with pytest.MonkeyPatch.context() as patch:
            host = "orders-2" if name == "elsewhere" else "orders-1"
            patch.setattr("durable_core.engine.runtime.socket.gethostname", lambda: host)
            return asyncio.run(_played(name))

    return {name: played(name) for name in PLANS}


def _rows() -> list[tuple[str, str, dict[str, str]]]:
    """The table of the page: what one wants, the Span Name, the Attributes."""
    table = PAGE.read_text().partition("| You want | Span Name | Attributes |")[2].partition("\n\n")[0]
    found: list[tuple[str, str, dict[str, str]]] = []
    for line in table.splitlines()[2:]:
        want, name, attributes = (cell.strip().strip("`") for cell in line.strip("|").split("|"))
        pairs = re.findall(r"(\S+?)=(\S+)", attributes)
        found.append((want, name, dict(pairs)))
    return found


def test_all_searches_are_tried():
    """Each row of the page's table is tried below, and nothing else."""
    assert [want for want, *_ in _rows()] == list(dict.fromkeys(want for want, *_ in _rows()))
    assert {want for want, *_ in _rows()} == set(PROMISES)


@pytest.mark.parametrize(
    ("want", "name", "attributes"), _rows(), ids=lambda cell: cell if isinstance(cell, str) else ""
)
def test_a_search_finds_what_it_promises(
    want: str, name: str, attributes: dict[str, str], traces: dict[str, list[SpanRecord]]
):
    """By Jaeger's rule each search of the page finds exactly the sagas that it promises, of the last hour."""
    since, until = (int(at.timestamp()) * NS for at in (NOW - timedelta(hours=1), NOW))
    search = Search(name=name, attributes=attributes, since_ns=since, until_ns=until)
    assert {id for id, spans in traces.items() if search.finds(spans)} == PROMISES[want]


@pytest.mark.parametrize("status", ["completed", "compensated"])
def test_a_status_is_that_of_a_root(status: str, traces: dict[str, list[SpanRecord]]):
    """``saga.status`` and ``outcome <status>`` find sagas that ended so, whatever their children did."""
    ended = UNDONE if status == "compensated" else COMPLETED
    everything = {"since_ns": 0, "until_ns": 1 << 63}
    for search in (
        Search(attributes={"saga.status": status}, **everything),
        Search(name=f"outcome {status}", **everything),
        Search(name=f"ended {status}", **everything),
    ):
        assert {id for id, spans in traces.items() if search.finds(spans)} == ended


def test_red_is_what_failed(traces: dict[str, list[SpanRecord]]):
    """The outcome is red of a saga that failed, not of one that its customer cancelled."""
    red = Search(attributes={"saga.status": "compensated", "error": "true"}, since_ns=0, until_ns=1 << 63)
    assert {id for id, spans in traces.items() if red.finds(spans)} == UNDONE - {"cancelled"}
    assert not [span.name for span in traces["cancelled"] if span.failed]


def test_every_span_has_the_sagas_name(traces: dict[str, list[SpanRecord]]):
    """Any span can be looked for together with its saga's name; a child's own two have the child's."""
    for id, spans in traces.items():
        name = "send-gift" if "gift" in id else "place-order"
        others = [span for span in spans if span.attributes["saga.name"] != name]
        assert {span.attributes["saga.name"] for span in others} <= {"book-trip"}
        assert {re.sub("(completed|compensated)", "<status>", span.name) for span in others} <= {
            "saga book-trip",
            "outcome book-trip <status>",
        }


def test_an_error_has_its_type_wherever_it_is_told(traces: dict[str, list[SpanRecord]]):
    """``error.type`` is on the attempt, the whole step, stuck, ended and outcome."""
    declined = {span.name: span.attributes.get("error.type") for span in traces["declined"]}
    assert declined["ended compensated"] == declined["outcome compensated"] == declined["charge"] == "shop.CardDeclined"
    stuck = {span.name: span.attributes.get("error.type") for span in traces["stuck"]}
    assert stuck["undo charge gave up"] == stuck["stuck"] == f"{__name__}.Broken"
