"""Booking a trip: whatever fails, either all is booked or nothing is."""

from typing import Any

import pytest

from sagas import Saga, saga
from tests.kit import Broken, Place, Refused, World, begun, end_of, entered, party, play, reaches

car, hotel, flight = party("car"), party("hotel"), party("flight")
car_probed, hotel_probed, flight_probed = (party(name, settled_by="probe") for name in ("car", "hotel", "flight"))
car_fenced, hotel_fenced, flight_fenced = (party(name, settled_by="undo") for name in ("car", "hotel", "flight"))


@saga("trip", version=1)
async def trip(s: Saga, who: str) -> list[str]:
    return [await s.run(car, who), await s.run(hotel, who), await s.run(flight, who)]


@saga("trip-probed", version=1)
async def trip_probed(s: Saga, who: str) -> list[str]:
    return [await s.run(car_probed, who), await s.run(hotel_probed, who), await s.run(flight_probed, who)]


@saga("trip-fenced", version=1)
async def trip_fenced(s: Saga, who: str) -> list[str]:
    return [await s.run(car_fenced, who), await s.run(hotel_fenced, who), await s.run(flight_fenced, who)]


PARTIES = ["car", "hotel", "flight"]


def undone_before(what: str) -> list[str]:
    """What is booked before ``what``, latest first."""
    return PARTIES[: PARTIES.index(what)][::-1]


def test_a_trip_is_booked(place: Place):
    """Where nothing fails all three are booked, each once, in the order of the body."""

    async def main() -> None:
        world = World()
        async with place.orchestrator(trip, world=world) as running:
            assert await (await running.start(trip, "ann")).result() == ["ann"] * 3
        assert world.log == PARTIES
        assert world.kept() == sorted(PARTIES)

    play(main)


@pytest.mark.parametrize("what", PARTIES)
@pytest.mark.parametrize(("does", "raised"), [("refused", Refused), ("broken", Broken)])
def test_a_booking_that_fails_takes_back_those_before_it(place: Place, what: str, does: str, raised: type):
    """A booking that is refused, or fails, leaves nothing booked: those before it are taken back, last first."""

    async def main() -> None:
        world = World().plan(what, does)
        async with place.orchestrator(trip, world=world) as running:
            handle = await running.start(trip, "ann", id="trip")
            end = await end_of(handle, running)
            info = await handle.info()
        assert (end.status, end.error[:2]) == ("compensated", (raised, (what,)))
        assert list(end.undone) == undone_before(what)
        assert world.live == {}
        assert world.log == [*PARTIES[: PARTIES.index(what)], *(f"undo {done}" for done in undone_before(what))]
        states = {state.key: state.status for state in info.steps}
        assert states[what] == {"refused": "rejected", "broken": "failed"}[does]
        assert info.cause == "failed"

    play(main)


@pytest.mark.parametrize("what", PARTIES)
@pytest.mark.parametrize("does", ["lost", "silent"])
def test_a_probe_settles_a_booking_without_an_answer(place: Place, what: str, does: str):
    """Without an answer the probe tells: where the booking happened the trip goes on, else it is taken back."""

    async def main() -> None:
        world = World().plan(what, does, "ok")
        async with place.orchestrator(trip_probed, world=world) as running:
            end = await end_of(await running.start(trip_probed, "ann"), running)
        if does == "silent":
            assert (end.status, end.value) == ("completed", ["ann"] * 3)
            assert world.kept() == sorted(PARTIES)
        else:
            assert (end.status, end.error[0]) == ("compensated", TimeoutError)
            assert list(end.undone) == undone_before(what)
            assert world.live == {}
        assert world.count(what) == 1

    play(main)


@pytest.mark.parametrize("what", PARTIES)
@pytest.mark.parametrize("does", ["lost", "silent"])
def test_a_compensation_that_admits_unknown_settles_at_once(place: Place, what: str, does: str):
    """Without an answer a compensation that admits Unknown is run first; then those before it are taken back."""

    async def main() -> None:
        world = World().plan(what, does)
        async with place.orchestrator(trip_fenced, world=world) as running:
            end = await end_of(await running.start(trip_fenced, "ann"), running)
        assert (end.status, end.error[0]) == ("compensated", TimeoutError)
        assert list(end.undone) == [what, *undone_before(what)]
        assert world.live == {}
        assert world.count(f"undo {what}") == 1

    play(main)


@pytest.mark.parametrize("what", PARTIES)
@pytest.mark.parametrize(("does", "happened"), [("lost", False), ("silent", True)])
def test_a_person_settles_what_nothing_else_can(place: Place, what: str, does: str, happened: bool):  # noqa: FBT001
    """Without a probe the trip is stuck on that very booking, undoes nothing, and goes where the person says."""

    async def main() -> None:
        world = World().plan(what, does, "ok")
        async with place.orchestrator(trip, world=world) as running:
            handle = await running.start(trip, "ann", id="trip")
            stuck = await end_of(handle, running)
            assert (stuck.status, stuck.error[1]) == ("stuck", (what,))
            assert f"{what}.probe" in stuck.error[0] or "probe" in stuck.error[0]
            assert not [line for line in world.log if line.startswith("undo")]
            result: Any = "ann" if happened else None
            await running.resolve("trip", what, happened=happened, result=result, actor="mia", note="rang them up")
            end = await end_of(handle, running)
            entry = next(entry for entry in await handle.history() if entry.kind == "signalled")
            assert (entry.key, entry.actor, entry.note) == ("resolve", "mia", "rang them up")
        if happened:
            assert (end.status, end.value) == ("completed", ["ann"] * 3)
            assert world.kept() == sorted(PARTIES)
        else:
            assert end.status == "resolved"
            assert list(end.undone) == undone_before(what)
            assert world.live == {}

    play(main)


@pytest.mark.parametrize("what", PARTIES)
@pytest.mark.parametrize("does", ["ok", "refused"])
def test_a_trip_outlives_a_crash_in_each_booking(place: Place, what: str, does: str):
    """A process that dies amid a booking is gone on with under the same key; the end is that of an undisturbed run."""

    async def main() -> None:
        world = World().plan("flight", does)
        gate = world.gate(what)
        async with place.dying(trip_probed, world=world) as running:
            await running.start(trip_probed, "ann", id="trip")
            await entered(gate, running)
        del world.gates[what]
        async with place.orchestrator(trip_probed, world=world) as running:
            end = await end_of(await running.get("trip"), running)
        assert world.kept() == (sorted(PARTIES) if does == "ok" else [])
        assert end.status == ("completed" if does == "ok" else "compensated")
        assert len({info.idempotency_key for info in world.calls if info.what == what}) == 1
        assert world.count(what) == 2

    play(main)


@pytest.mark.parametrize("what", ["car", "hotel"])
def test_a_rollback_outlives_a_crash_in_each_compensation(place: Place, what: str):
    """A process that dies amid a compensation is gone on with: what was undone stays so, the rest is undone once."""

    async def main() -> None:
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

    play(main)


def test_many_trips_do_not_disturb_each_other(place: Place):
    """Fifty trips at once, each with its own mishap, end each in its own way."""

    async def main() -> None:
        world = World()
        async with place.orchestrator(trip, world=world) as running:
            handles = [await running.start(trip, f"p{number}") for number in range(50)]
            world.plan("flight", "refused", "ok")
            ends = [await end_of(handle, running) for handle in handles]
        assert sorted(end.status for end in ends)[:1] == ["compensated"]
        assert world.kept() == sorted(PARTIES * len([end for end in ends if end.status == "completed"]))

    play(main)


def test_a_clean_shutdown_amid_a_booking_loses_nothing(place: Place):
    """Leaving the block waits for the booking in flight; the next process goes on behind it."""

    async def main() -> None:
        world = World()
        gate = world.gate("hotel")
        async with place.orchestrator(trip, world=world) as running:
            handle = await running.start(trip, "ann", id="trip")
            await entered(gate, running)
            await begun(handle, running, "hotel")
            gate.opened.set()
        world.gates.clear()
        async with place.orchestrator(trip, world=world) as running:
            assert (await end_of(await running.get("trip"), running)).status == "completed"
        assert world.count("hotel") == 1
        assert world.log == PARTIES

    play(main)
