"""A trip as a graph and the same trip as code: whatever fails, both end alike, and the demo proves it of processes."""

import asyncio
import json
import sys
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import attrs
import httpx
import pytest

from examples.booking.domain import Approval, Trip
from examples.booking.forms import SAGAS, Form
from examples.booking.front import front
from examples.booking.graph import g
from examples.booking.steps import EXPENSIVE
from examples.booking.suppliers import SEAT_S, Supplier
from examples.participants.launcher import ROOT
from examples.participants.service import open_service
from sagas import Orchestrator, SagaCompensated, SagaHandle, SagaPastPivot
from sagas.testing import ManualClock
from tests import forked
from tests.examples.suppliers_in_memory import SUPPLIERS, Fault, World
from tests.examples.test_demo import processes_of

CHEAP = Trip("trip", "Rome", EXPENSIVE - 1)
DEAR = Trip("trip", "Rome", EXPENSIVE)
STEPS = {"cars": "hold_car", "hotel": "hold_room", "airline": "hold_seat"}
BOOKED = Counter({("cars", "booked"): 1, ("hotel", "booked"): 1, ("airline", "booked"): 1, ("payments", "paid"): 1})
HOLDS = [(name, "hold") for name in SUPPLIERS]
CONFIRMATIONS = [(name, "confirm") for name in SUPPLIERS]
PAYMENT = ("payments", "charge")
BROKEN = [fault for fault in Fault if fault is not Fault.REJECTED]
Handle = SagaHandle[Any]
Deed = Callable[[Orchestrator, Handle, World], Awaitable[None]]


@attrs.frozen
class End:
    """How a trip ended, and what it left."""

    status: str
    cause: str | None
    error: str
    undone: tuple[str, ...]
    steps: frozenset[tuple[str, str]]
    effects: Counter[tuple[str, str]]

    @property
    def left(self) -> Counter[tuple[str, str]]:
        """What the participants still have."""
        return Counter({what: count for what, count in self.effects.items() if what[1] != "released"})


async def _nothing(_orchestrator: Orchestrator, _handle: Handle, _world: World) -> None:
    """The trip is left to itself."""


async def _play(form: Form, trip: Trip, world: World, deed: Deed, clock: ManualClock) -> End:
    saga = SAGAS[form]
    async with Orchestrator("memory://", sagas=[saga], resources=world.resources(), clock=clock) as orchestrator:
        handle = await orchestrator.start(saga, trip, id=trip.id)
        await deed(orchestrator, handle, world)
        undone: tuple[str, ...] = ()
        error = ""
        try:
            await handle.result(timeout=60)
        except SagaCompensated as end:
            undone = tuple(sorted(end.compensated))
            error = "" if end.__cause__ is None else type(end.__cause__).__name__
        info = await handle.info()
        steps = frozenset((step.key, step.status) for step in info.steps if step.kind != "lookup")
        return End(str(info.status), info.cause, error, undone, steps, world.effects)


def same_end(make: Callable[[], World], *, trip: Trip = CHEAP, deed: Deed = _nothing, auto: bool = True) -> End:
    """The end of the trip, which is the same for both forms, and whole or gone. ``auto``: nobody answers in time."""
    graph, code = (
        asyncio.run(_play(form, trip, make(), deed, ManualClock(auto=auto))) for form in (Form.GRAPH, Form.CODE)
    )
    assert graph == code
    assert graph.left == (BOOKED if graph.status == "completed" else Counter())
    assert graph.status in {"completed", "compensated"}
    return graph


def test_a_trip_is_booked():
    """Without a fault both forms book everything once."""
    assert same_end(World).status == "completed"


@pytest.mark.parametrize("fault", Fault)
@pytest.mark.parametrize("at", [*HOLDS, PAYMENT], ids=lambda at: at[0])
def test_a_step_before_the_point_of_no_return(at: tuple[str, str], fault: Fault):
    """A hold or the payment is refused, fails or stays unknown: both forms undo the same, or find out and go on."""
    end = same_end(lambda: World(at=at, fault=fault))
    found_out = fault is Fault.UNKNOWN_DONE and at in {("hotel", "hold"), PAYMENT}
    assert end.status == ("completed" if found_out else "compensated")
    if not found_out:
        assert end.cause == "failed"
        others = {step for name, step in STEPS.items() if name != at[0]}
        assert set(end.undone) - {STEPS.get(at[0])} == others


@pytest.mark.parametrize("fault", BROKEN)
@pytest.mark.parametrize("at", CONFIRMATIONS, ids=lambda at: at[0])
def test_a_step_after_the_point_of_no_return(at: tuple[str, str], fault: Fault):
    """A confirmation that fails twice, in whatever way, is made in the end: nothing is undone after the payment."""
    assert same_end(lambda: World(at=at, fault=fault, times=2)).status == "completed"


@pytest.mark.parametrize("fault", BROKEN)
@pytest.mark.parametrize("name", SUPPLIERS)
def test_an_undo_that_fails_once(name: str, fault: Fault):
    """A release that fails at first is repeated: both forms undo all three holds, each of them once."""
    end = same_end(lambda: World(at=(name, "release"), fault=fault, times=1, refused=PAYMENT))
    assert end.undone == ("hold_car", "hold_room", "hold_seat")
    assert end.error == "CardDeclined"


async def _cancel_within(orchestrator: Orchestrator, handle: Handle, world: World) -> None:
    await world.reached.wait()
    try:
        await handle.cancel("the cat is ill")
    except SagaPastPivot:
        assert world.at in CONFIRMATIONS
    world.go.set()


@pytest.mark.parametrize("at", [*HOLDS, PAYMENT, *CONFIRMATIONS], ids="-".join)
def test_a_cancel_at_each_step(at: tuple[str, str]):
    """A cancel during a hold undoes all three; once the payment has begun, it comes too late in both forms."""
    end = same_end(lambda: World(at=at, holds_back=True), deed=_cancel_within)
    if at in HOLDS:
        assert (end.status, end.cause, end.undone) == ("compensated", "cancelled", tuple(sorted(STEPS.values())))
    else:
        assert end.status == "completed"


@pytest.mark.parametrize("at", [(name, "release") for name in SUPPLIERS], ids=lambda at: at[0])
def test_a_cancel_during_the_rollback(at: tuple[str, str]):
    """A cancel changes nothing once a trip is being undone."""
    end = same_end(lambda: World(at=at, holds_back=True, refused=PAYMENT), deed=_cancel_within)
    assert (end.cause, end.error) == ("failed", "CardDeclined")


async def _asked(orchestrator: Orchestrator, handle: Handle) -> None:
    """Return once the manager is asked, and the saga is in no memory."""
    while await handle.status() != "waiting":  # noqa: ASYNC110 - a saga that waits tells nobody
        await asyncio.sleep(0)


async def _approve(orchestrator: Orchestrator, handle: Handle, world: World) -> None:
    await _asked(orchestrator, handle)
    await orchestrator.complete_callback(saga_id=handle.id, name="approval", value=Approval("Ada"))


async def _refuse(orchestrator: Orchestrator, handle: Handle, world: World) -> None:
    await _asked(orchestrator, handle)
    await orchestrator.fail_callback(saga_id=handle.id, name="approval", message="too expensive")


async def _cancel_while_asked(orchestrator: Orchestrator, handle: Handle, world: World) -> None:
    await _asked(orchestrator, handle)
    await handle.cancel()


@pytest.mark.parametrize(
    ("deed", "ends"),
    [
        (_approve, ("completed", None, "")),
        (_refuse, ("compensated", "failed", "CallbackFailed")),
        (_cancel_while_asked, ("compensated", "cancelled", "")),
        (_nothing, ("compensated", "failed", "CallbackTimeout")),
    ],
    ids=["approved", "refused", "cancelled", "no answer"],
)
def test_an_expensive_trip(deed: Deed, ends: tuple[str, str | None, str]):
    """The manager says yes, no or nothing, or the customer cancels first: both forms end alike."""
    end = same_end(World, trip=DEAR, deed=deed, auto=deed is _nothing)
    assert (end.status, end.cause, end.error) == ends
    assert end.undone == (() if end.status == "completed" else tuple(sorted(STEPS.values())))


def test_what_a_customer_reads():
    """The front starts a trip once, says how far it is, takes a yes, and refuses what cannot be, over HTTP."""

    async def scene() -> None:
        world, wish = World(), {"city": "Rome", "amount": EXPENSIVE}
        orchestrator = Orchestrator("memory://", sagas=list(SAGAS.values()), resources=world.resources())
        app = front(orchestrator)
        transport = httpx.ASGITransport(app=app)
        async with app.router.lifespan_context(app), httpx.AsyncClient(transport=transport, base_url="http://a") as web:

            async def ask(method: str, path: str, body: object = None) -> tuple[int, str]:
                answer = await web.request(method, f"/trips/{path}", json=body)
                return answer.status_code, answer.json().get("state") or answer.json().get("title", "")

            assert await ask("GET", "t") == (404, "SagaNotFound")
            assert await ask("PUT", "t", {"city": "Rome"}) == (422, "")
            assert (await ask("PUT", "t", wish))[0] == 202
            assert (await ask("PUT", "t", wish))[0] == 202
            assert await ask("PUT", "t", {**wish, "city": "Venice"}) == (409, "SagaExists")
            await _asked(orchestrator, await orchestrator.get("t"))
            assert await ask("GET", "t") == (200, "waiting for approval")
            assert (await ask("POST", "t/approve", {"by": "Ada"}))[0] == 202
            await (await orchestrator.get("t")).result(timeout=60)
            assert await ask("GET", "t") == (200, "booked")
            assert await ask("POST", "t/cancel") == (409, "SagaPastPivot")
            assert world.effects == BOOKED

    asyncio.run(scene())


def test_a_seat_that_is_not_booked_expires(tmp_path: Path):
    """After 15 minutes the airline gives a held seat to others; it still books it for the holder while one is free."""
    airline = Supplier("seat", {"Rome": 1}, kept_s=SEAT_S).participant("airline")
    service = open_service(airline, tmp_path / "airline.db")

    def ask(name: str, key: str, **body: object) -> tuple[int, object]:
        reply = service.reply(name, key, json.dumps(body).encode())
        return reply.status, reply.body.get("error")

    with closing(service.database):
        assert ask("hold", "a", trip_id="a", city="Rome") == (201, None)
        assert ask("hold", "b", trip_id="b", city="Rome") == (409, "nothing-free")
        assert ask("advance", "c", seconds=SEAT_S) == (200, None)
        assert ask("hold", "d", trip_id="d", city="Rome") == (201, None)
        assert ask("confirm", "e", hold_id=1) == (409, "expired")
        assert ask("release", "g", of="d") == (200, None)
        assert ask("confirm", "h", hold_id=1) == (201, None)
        for _ in range(2):
            assert ask("release", "i", of="a") == (409, "already-booked")


ENDS = {
    "booked": ("completed", None),
    "a manager approves": ("completed", None),
    "no seats": ("compensated", "failed"),
    "the hotel answers late": ("completed", None),
    "the customer cancels": ("compensated", "cancelled"),
    "kill -9 in the rollback": ("compensated", "failed"),
    "the hold expires": ("compensated", "deadline"),
}


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_the_demo_holds(tmp_path: Path):
    """Every scene ends as it should, in both forms, by the participants' own books; nothing runs on."""
    report, kept = tmp_path / "audit.json", tmp_path / "kept"
    demo = forked.run(
        [sys.executable, "-m", "examples.booking.demo", "--json", str(report), "--keep", str(kept)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert demo.returncode == 0, demo.stdout + demo.stderr
    assert "The audit holds" in demo.stdout
    assert demo.stdout.count("the same saga as code took the same steps") == len(ENDS)
    audit = json.loads(report.read_text())
    assert audit["holds"]
    assert audit["faults"] == []
    found = {(trip["scene"], trip["form"]): (trip["status"], trip["cause"]) for trip in audit["trips"]}
    assert found == {(scene, form): end for scene, end in ENDS.items() for form in Form}
    for trip in audit["trips"]:
        booked = trip["status"] == "completed"
        assert trip["held"] == []
        assert trip["booked"] == (sorted(SUPPLIERS) if booked else [])
        assert (trip["payments"], trip["paid"]) == ((1, trip["amount"]) if booked else (0, 0))
        assert trip["expired"] == (["airline"] if trip["scene"] == "the hold expires" else [])
    assert processes_of(kept) == []


def test_the_picture_is_that_of_the_graph():
    """The picture in the README is the one that ``sagas diagram`` draws of the graph today."""
    kept = Path(ROOT, "examples", "booking", "book-trip.svg").read_text(encoding="utf-8")
    assert kept == g.diagram("svg")
