"""What needs attention is in the log of the process whose worker has it, with and without `on_attention`."""

import logging
from collections.abc import Sequence
from datetime import timedelta

import pytest

from sagas import Retry, Saga, SagaDef, SagaInfo, resource, retriable, saga, step
from sagas.testing import ManualClock
from tests.kit import BodyFailed, Place, World, end_of, entered, party, point_of_no_return, reaches, until

AT_ONCE = Retry.forever(first=0, jitter=False)
seat, hotel, meal = party("seat"), party("hotel"), party("meal", undo_retry=Retry(attempts=12, first=0, jitter=False))
pay = point_of_no_return("pay")


@retriable(retry=AT_ONCE)
async def ship(about: str, *, world: World = resource()) -> None:
    await world.act("ship", about)


@saga("trip", version=1)
async def trip(s: Saga, who: str) -> None:
    await s.run(seat, who)
    await s.run(hotel, who)


@saga("tour", version=1)
async def tour(s: Saga, who: str) -> None:
    await s.run(trip, who)


@saga("buying", version=1)
async def buying(s: Saga, who: str) -> None:
    await s.run(pay, who)
    raise BodyFailed("nobody wrote the rest")


@saga("shipping", version=1)
async def shipping(s: Saga, who: str) -> None:
    await s.run(ship, who)


@saga("dining", version=1)
async def dining(s: Saga, who: str) -> None:
    await s.run(meal, who)
    await s.run(hotel, who)


@step(compensation=None, because="a test")
async def other_step() -> None: ...


def changed() -> SagaDef[[str], None]:
    """The saga `trip` with a body that does not fit its journals."""

    @saga("trip", version=1)
    async def body(s: Saga, who: str) -> None:
        await s.run(other_step)

    return body


def errors(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What the logger `sagas` has been given as errors."""
    return [
        record.getMessage() for record in caplog.records if record.name == "sagas" and record.levelno == logging.ERROR
    ]


STUCK = [
    pytest.param(trip, {"hotel": ["lost"]}, ["'hotel'", "unknown outcome", "sagas resolve o hotel"], id="unknown"),
    pytest.param(
        trip,
        {"hotel": ["refused"], "undo seat": ["broken"]},
        ["'seat'", "Broken: undo seat", "sagas retry o", "sagas skip o seat"],
        id="compensation given up",
    ),
    pytest.param(
        tour,
        {"hotel": ["refused"], "undo seat": ["broken"]},
        ["'trip/seat'", "Broken: undo seat", "sagas skip o trip/seat"],
        id="in a child",
    ),
    pytest.param(buying, {}, ["the body", "nobody wrote the rest", "sagas retry o"], id="body after the pivot"),
]


@pytest.mark.parametrize("listening", [True, False])
@pytest.mark.parametrize(("what", "plans", "said"), STUCK)
async def test_what_is_stuck_is_logged_once(
    place: Place,
    caplog: pytest.LogCaptureFixture,
    *,
    what: SagaDef[[str], None],
    plans: dict[str, list[str]],
    said: Sequence[str],
    listening: bool,
):
    """One error of the logger `sagas`: the saga, its step, why, and what mends it; also beside `on_attention`."""
    world = World()
    for name, does in plans.items():
        world.plan(name, *does)
    told: list[str] = []

    async def listen(info: SagaInfo) -> None:
        told.append(info.id)

    more = {"on_attention": listen} if listening else {}
    async with place.orchestrator(what, world=world, **more) as running:
        assert (await end_of(await running.start(what, "ann", id="o"), running)).status == "stuck"
    (line,) = errors(caplog)
    assert line.startswith(f"saga 'o' ({what.name} v1) is stuck")
    assert [part for part in said if part not in line] == []
    assert told == (["o"] if listening else [])


async def test_code_that_does_not_fit_is_logged(place: Place, caplog: pytest.LogCaptureFixture):
    """A saga that is parked because its code has changed is an error too, in the process that parked it."""
    world = World()
    gate = world.gate("hotel")
    async with place.dying(trip, world=world) as running:
        await running.start(trip, "ann", id="o")
        await entered(gate, running)
    async with place.orchestrator(changed(), world=World()) as running:
        handle = await running.get("o")
        await reaches(handle, running, "stuck")
    (line,) = [line for line in errors(caplog) if "other_step" in line]
    assert [record.name for record in caplog.records if "other_step" in record.getMessage()] == ["sagas"]
    assert "'o' (trip v1) is stuck" in line
    assert "retry the saga" in line


@pytest.mark.parametrize(("what", "name", "step"), [(shipping, "ship", "'ship'"), (dining, "undo meal", "'meal~undo'")])
async def test_what_has_failed_ten_times_is_logged(
    place: Place, caplog: pytest.LogCaptureFixture, what: SagaDef[[str], None], name: str, step: str
):
    """A retriable or a compensation that has failed ten times, also if it succeeds soon after: once, with its error."""
    world = World().plan("hotel", "refused").plan(name, *["broken"] * 11, "ok")
    async with place.orchestrator(what, world=world) as running:
        await end_of(await running.start(what, "ann", id="o"), running)
    (line,) = errors(caplog)
    head = f"saga 'o' ({what.name} v1) continues and needs a person"
    assert line.startswith(f"{head}: step {step} has failed 10 times")
    assert f"Broken: {name}" in line
    assert "Fix" in line


async def test_a_version_that_nobody_serves_is_logged(place: Place, caplog: pytest.LogCaptureFixture):
    """Each worker process says once, after a grace, that a saga waits for a version that none serves."""
    clock = ManualClock()
    async with place.orchestrator(trip, world=World(), clock=clock, worker=False) as starting:
        await starting.start(trip, "ann", id="o")
    async with place.orchestrator(tour, world=World(), clock=clock) as running:

        async def there() -> bool:
            await clock.advance(timedelta(seconds=10))
            return bool(errors(caplog))

        await until(there, running)
        await clock.advance(timedelta(hours=1))
    (line,) = errors(caplog)
    assert line.startswith("saga 'o' (trip v1) is pending and needs a person: waits for version 1 of 'trip'")
    assert "start a worker" in line


async def test_a_process_without_a_worker_logs_nothing(place: Place, caplog: pytest.LogCaptureFixture):
    """Who only starts and waits is told by SagaStuck; the log line is the worker's alone."""
    world = World().plan("hotel", "lost")
    async with (
        place.orchestrator(trip, world=world) as worker,
        place.orchestrator(trip, world=world, worker=False) as starting,
    ):
        assert (await end_of(await starting.start(trip, "ann", id="o"), worker)).status == "stuck"
    assert len(errors(caplog)) == 1


async def test_the_same_step_and_reason_are_not_logged_again(place: Place, caplog: pytest.LogCaptureFixture):
    """After a retry that fails alike there is no second line; another reason, and another saga, have their own."""
    world = World().plan("hotel", "refused").plan("undo seat", "broken", "broken", "refused")
    async with place.orchestrator(trip, world=world) as running:
        handle = await running.start(trip, "ann", id="o")
        for count in (1, 1, 2):
            assert (await end_of(handle, running)).status == "stuck"

            async def logged(count: int = count) -> bool:
                return len(errors(caplog)) == count

            await until(logged, running)
            await running.retry("o")
        assert (await end_of(handle, running)).status == "stuck"
        other = await running.start(trip, "bob", id="p")
        assert (await end_of(other, running)).status == "stuck"
    assert ["'o'" in line for line in errors(caplog)] == [True, True, False]


async def test_a_log_line_is_one_line(place: Place, caplog: pytest.LogCaptureFixture):
    """A line end in an exception's text is a space there, and a control character is spelled out."""

    @saga("rude", version=1)
    async def rude(s: Saga) -> None:
        await s.run(pay, "ann")
        raise BodyFailed("first\nsecond\x1b[31m")

    async with place.orchestrator(rude, world=World()) as running:
        assert (await end_of(await running.start(rude, id="o"), running)).status == "stuck"
    (line,) = errors(caplog)
    assert line.isprintable()
    assert "first second" in line
