"""Booking a trip: whatever fails, either all is booked or nothing is."""

from typing import Any, Literal

import pytest

from sagas import Saga, saga
from tests.kit import Broken, Place, Refused, World, end_of, entered, party, reaches

PARTIES = ["car", "hotel", "flight"]
SETTLED: dict[Any, list[Any]] = {by: [party(name, settled_by=by) for name in PARTIES] for by in ("", "probe", "undo")}


@saga("trip", version=1)
async def trip(s: Saga, who: str, settled_by: Literal["", "probe", "undo"] = "") -> list[str]:
    return [await s.run(booking, who) for booking in SETTLED[settled_by]]


def undone_before(what: str) -> list[str]:
    """What is booked before ``what``, latest first."""
    return PARTIES[: PARTIES.index(what)][::-1]


@pytest.mark.parametrize("what", PARTIES)
@pytest.mark.parametrize(("does", "raised"), [("refused", Refused), ("broken", Broken)])
async def test_a_booking_that_fails_takes_back_those_before_it(place: Place, what: str, does: str, raised: type):
    """A booking that is refused, or fails, leaves nothing booked: those before it are taken back, last first."""
    world = World().plan(what, does)
    async with place.orchestrator(trip, world=world) as running:
        handle = await running.start(trip, "ann", id="trip")
        end = await end_of(handle, running)
        info = await handle.info()
    assert (end.status, end.error[:2]) == ("compensated", (raised, (what,)))
    assert list(end.undone) == undone_before(what)
    assert world.live == {}
    assert world.log == [*PARTIES[: PARTIES.index(what)], *(f"undo {done}" for done in undone_before(what))]
    assert world.count(what) == 1
    states = {state.key: state.status for state in info.steps}
    assert states[what] == {"refused": "rejected", "broken": "failed"}[does]
    assert info.cause == "failed"


@pytest.mark.parametrize("does", ["lost", "silent"])
@pytest.mark.parametrize("by", ["probe", "undo", "person"])
@pytest.mark.parametrize("what", ["car", "flight"])
async def test_a_booking_without_an_answer_is_settled(place: Place, what: str, by: Any, does: str):
    """The probe or a person tells: where the booking happened the trip goes on, else those before it are taken back.

    A compensation that admits Unknown is run first instead. Where nothing else can settle it, the trip is stuck on that
    very booking, undoes nothing meanwhile, and goes where the person says.
    """
    world = World().plan(what, does, "ok")
    async with place.orchestrator(trip, world=world) as running:
        handle = await running.start(trip, "ann", "" if by == "person" else by, id="trip")
        end = await end_of(handle, running)
        if by == "person":
            assert (end.status, end.error[1]) == ("stuck", (what,))
            assert "probe" in end.error[0]
            assert not [line for line in world.log if line.startswith("undo")]
            happened = {"happened": True, "result": "ann"} if does == "silent" else {"happened": False}
            await running.resolve("trip", what, **happened, actor="mia", note="rang them up")
            end = await end_of(handle, running)
            entry = next(entry for entry in await handle.history() if entry.kind == "signalled")
            assert (entry.key, entry.actor, entry.note) == ("resolve", "mia", "rang them up")
    if does == "silent" and by != "undo":
        assert (end.status, end.value) == ("completed", ["ann"] * 3)
        assert world.kept() == sorted(PARTIES)
    else:
        assert (end.status, end.error[0]) == ("resolved" if by == "person" else "compensated", TimeoutError)
        assert list(end.undone) == [*([what] if by == "undo" else []), *undone_before(what)]
        assert world.live == {}
    assert world.count(what) == 1
    assert world.count(f"undo {what}") == (by == "undo")


@pytest.mark.parametrize("what", PARTIES)
@pytest.mark.parametrize("does", ["ok", "refused"])
async def test_a_trip_outlives_a_crash_in_each_booking(place: Place, what: str, does: str):
    """A process that dies amid a booking is gone on with under the same key; the end is that of an undisturbed run."""
    world = World().plan("flight", does)
    gate = world.gate(what)
    async with place.dying(trip, world=world) as running:
        await running.start(trip, "ann", "probe", id="trip")
        await entered(gate, running)
    del world.gates[what]
    async with place.orchestrator(trip, world=world) as running:
        end = await end_of(await running.get("trip"), running)
    assert world.kept() == (sorted(PARTIES) if does == "ok" else [])
    assert end.status == ("completed" if does == "ok" else "compensated")
    assert len({info.idempotency_key for info in world.calls if info.what == what}) == 1
    assert world.count(what) == 2


@pytest.mark.parametrize("what", ["car", "hotel"])
async def test_a_rollback_outlives_a_crash_in_each_compensation(place: Place, what: str):
    """A process that dies amid a compensation is gone on with: what was undone stays so, the rest is undone once."""
    world = World().plan("flight", "refused")
    gate = world.gate(f"undo {what}")
    async with place.dying(trip, world=world) as running:
        handle = await running.start(trip, "ann", id="trip")
        await entered(gate, running)
        await reaches(handle, running, "compensating")
    world.gates.clear()
    async with place.orchestrator(trip, world=world) as running:
        end = await end_of(await running.get("trip"), running)
    assert (end.status, end.undone) == ("compensated", ("hotel", "car"))
    assert world.live == {}
    assert world.log[-2:] == ["undo hotel", "undo car"]
    assert world.count("undo hotel") + world.count("undo car") == 3
