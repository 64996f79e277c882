"""Sagas on the smallest host: ends and effects as on our engine, and the same journal on each re-drive."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import attrs
import msgspec
import pytest

from durable_core import RunStatus
from durable_core.hosts.attempt import attempt
from durable_core.layer import Codec, DurableFunction
from durable_core.testing import MemoryHost
from durable_core.testing.host_contract import assert_derived_alike
from sagas import DidNotHappen, Happened, Retry, Saga, SagaGraph, Unknown, lookup, pivot, retriable, saga, step
from sagas.model.definition import SagaDef
from sagas.model.info import SagaInfo, info_of
from sagas.runtime.binding import Binder
from sagas.runtime.saga import function_of


class Refused(Exception):
    """A participant's own answer."""


@attrs.define
class Bookings:
    """What is booked, and what happens to whom."""

    log: list[str] = attrs.field(factory=list[str])
    plays: dict[str, list[Any]] = attrs.field(factory=dict[str, list[Any]])

    def does(self, name: str) -> Any:
        """Note the call; raise or return what its next play is."""
        self.log.append(name)
        plays = self.plays.get(name, [])
        play = plays.pop(0) if plays else None
        if isinstance(play, BaseException):
            raise play
        return play


WORLD = Bookings()


def party(name: str, **options: Any) -> Any:
    """A step that books, and its compensation."""

    @step(name=name, rejects=(Refused,), **options)
    async def book(who: str) -> str:
        return WORLD.does(name) or f"{name} for {who}"

    @book.compensate(retry=Retry(attempts=2, first=0.2))
    async def cancel(booked: str) -> None:
        WORLD.does(f"undo {name}")

    return book


car, hotel, flight = party("car"), party("hotel"), party("flight")
patient = party("patient", retry=Retry(attempts=3, first=0.2))


@step(name="doubtful", rejects=(Refused,))
async def doubtful(who: str) -> str:
    return WORLD.does("doubtful") or f"doubtful for {who}"


@doubtful.compensate
async def undo_doubtful(booked: str) -> None:
    WORLD.does("undo doubtful")


@doubtful.probe
async def find_doubtful(who: str) -> Any:
    return WORLD.does("probe doubtful")


@step(name="fenced", at_most_once=True)
async def fenced(who: str) -> str:
    return WORLD.does("fenced") or f"fenced for {who}"


@fenced.compensate
async def undo_fenced(booked: str | Unknown) -> None:
    WORLD.does(f"undo fenced {f'after {type(booked.error).__name__}' if isinstance(booked, Unknown) else booked}")


@pivot(name="pay", rejects=(Refused,))
async def pay(who: str) -> str:
    return WORLD.does("pay") or f"paid by {who}"


@retriable(name="ship", retry=Retry.forever(first=0.2))
async def ship(who: str) -> str:
    return WORLD.does("ship") or f"shipped to {who}"


@lookup
async def price(who: str) -> int:
    WORLD.does("price")
    return 7


@saga("trip", version=1)
async def trip(s: Saga, who: str) -> list[str]:
    return [await s.run(car, who), await s.run(hotel, who), await s.run(flight, who)]


@saga("order", version=1)
async def order(s: Saga, who: str) -> str:
    await s.run(price, who)
    await s.run(patient, who)
    await s.sleep(3600)
    asked = await s.callback("approval", bool, timeout=60)
    if not await asked.result():
        raise Refused("not approved")
    async with s.parallel() as p:
        p.run(car, who)
        p.run(hotel, who)
    await s.run(trip, who)
    await s.run(pay, who)
    return await s.run(ship, who)


@saga("doubts", version=1)
async def doubts(s: Saga, who: str) -> None:
    await s.run(car, who)
    await s.run(doubtful, who)
    await s.run(hotel, who)


@saga("patiently", version=1, on_failure="stuck")
async def patiently(s: Saga, who: str) -> None:
    await s.run(car, who)
    await s.run(fenced, who)
    await s.run(hotel, who)


@saga("careful", version=1)
async def careful(s: Saga, who: str) -> None:
    await s.run(car, who)
    await s.run(fenced, who)
    await s.run(hotel, who)


@saga("second_best", version=1)
async def second_best(s: Saga, who: str) -> str:
    await s.run(car, who)
    try:
        async with s.savepoint("best"):
            await s.run(hotel, who)
            await s.run(flight, who)
    except Refused:
        return "by car"
    return "by plane"


@saga("hurried", version=1, deadline=10)
async def hurried(s: Saga, who: str) -> None:
    await s.run(car, who)
    await s.sleep(100)
    await s.run(hotel, who)


def drawn() -> SagaDef[[str], str]:
    """A graph with all kinds of nodes."""
    g = SagaGraph("drawn", version=1, input=str, parallel_compensation=True)
    booked = g.step(car, g.input)
    asked = g.callback("approval", bool, timeout=60, after=[booked])
    slept = g.step(hotel, g.input, after=[g.sleep(3600, after=[booked])])
    whole = g.step(trip, g.input, after=[booked])
    paid = g.pivot(pay, g.input, after=[g.lookup(price, g.input), slept, whole, asked])
    return g.returns(g.retriable(ship, g.input, after=[paid]))


def on_host(definition: SagaDef[..., Any], **plays: list[Any]) -> MemoryHost:
    """A host with one saga; ``plays`` by the name of the call, blanks as underscores."""
    WORLD.log.clear()
    WORLD.plays = {name.replace("_", " "): [*each] for name, each in plays.items()}
    codec = Codec()
    function: DurableFunction = function_of(definition, Binder(codec, []))
    return MemoryHost(function, codec, ("ann",))


def info(host: MemoryHost) -> SagaInfo:
    """The saga as its users see it, derived from the kept inputs alone."""
    run = host.derive()
    return info_of(run.record, run.journal, read_input=msgspec.json.decode, read_result=msgspec.json.decode)


def hosted(play: Callable[[], Coroutine[Any, Any, MemoryHost]]) -> Callable[[], None]:
    """A test whose host is derived anew from every prefix of its inputs at the end."""

    def played() -> None:
        host = asyncio.run(play())
        assert_derived_alike(host)
        assert len(host.begun) == len(set(host.begun))

    played.__doc__ = play.__doc__
    played.__name__ = play.__name__
    return played


@hosted
async def test_all_is_done() -> MemoryHost:
    """Where nothing fails, each step is called once, in the order of the body."""
    host = on_host(trip)
    assert (await host.drive()).end is RunStatus.COMPLETED
    assert WORLD.log == ["car", "hotel", "flight"]
    assert info(host).result == ["car for ann", "hotel for ann", "flight for ann"]
    return host


@saga("tagger", version=1)
async def tagger(s: Saga, who: str) -> None:
    s.tag("who", who)
    await s.run(car, who)
    s.tag("stage", "late")
    await s.sleep(60)


@hosted
async def test_a_body_tags_its_saga() -> MemoryHost:
    """Its tags, and what it waits for, are derived again from the host's history."""
    host = on_host(tagger)
    await host.drive(until="sleep sleep")
    assert info(host).tags == {"who": "ann", "stage": "late"}
    assert (info(host).reason or "").startswith("waits for sleep 'sleep' until ")
    assert (await host.drive()).end is RunStatus.COMPLETED
    assert info(host).tags == {"who": "ann", "stage": "late"}
    return host


@hosted
async def test_all_is_undone() -> MemoryHost:
    """Where the last step is rejected, the others are undone, last first, and the end is no success."""
    host = on_host(trip, flight=[Refused("full")])
    assert (await host.drive()).end is RunStatus.FAILED
    assert WORLD.log == ["car", "hotel", "flight", "undo hotel", "undo car"]
    assert (info(host).status, info(host).cause) == ("compensated", "failed")
    return host


@hosted
async def test_a_whole_order() -> MemoryHost:
    """Retry with a delay, sleep, callback, branches beside each other, a child, pivot and retriable: all to the end."""
    host = on_host(order, patient=[OSError("busy"), OSError("busy")], ship=[OSError("closed")])
    await host.drive(until="callback approval")
    host.answer("approval", value=True)
    assert (await host.drive()).end is RunStatus.COMPLETED
    assert WORLD.log[:5] == ["price", "patient", "patient", "patient", "car"]
    assert WORLD.log[5:] == ["hotel", "car", "hotel", "flight", "pay", "ship", "ship"]
    assert info(host).result == "shipped to ann"
    return host


@hosted
async def test_a_graph() -> MemoryHost:
    """A graph runs on a host as on our engine: sleep, callback, child, pivot, retriable."""
    host = on_host(drawn())
    await host.drive(until="callback approval")
    host.answer("approval", value=True)
    assert (await host.drive()).end is RunStatus.COMPLETED
    assert sorted(WORLD.log[:6]) == ["car", "car", "flight", "hotel", "hotel", "price"]
    assert WORLD.log[6:] == ["pay", "ship"]
    assert info(host).result == "shipped to ann"
    return host


@hosted
async def test_a_graph_is_undone() -> MemoryHost:
    """A graph whose pivot is refused is undone on a host against its order."""
    host = on_host(drawn(), pay=[Refused("no money")])
    await host.drive(until="callback approval")
    host.answer("approval", value=True)
    assert (await host.drive()).end is RunStatus.FAILED
    undone = [line for line in WORLD.log if line.startswith("undo")]
    assert sorted(undone) == ["undo car", "undo car", "undo flight", "undo hotel", "undo hotel"]
    assert undone[-1] == "undo car"
    return host


@hosted
async def test_nobody_approves() -> MemoryHost:
    """A callback that nobody answers in time has the saga undone."""
    host = on_host(order)
    assert (await host.drive()).end is RunStatus.FAILED
    assert WORLD.log == ["price", "patient", "undo patient"]
    return host


@hosted
async def test_a_child_and_its_siblings_are_undone() -> MemoryHost:
    """A rejected pivot undoes the child's steps and the branches' before it, in reverse of the order of their ends."""
    host = on_host(order, pay=[Refused("no money")])
    await host.drive(until="callback approval")
    host.answer("approval", value=True)
    assert (await host.drive()).end is RunStatus.FAILED
    done = [name for name in WORLD.log if not name.startswith("undo") and name not in {"price", "pay"}]
    assert [name for name in WORLD.log if name.startswith("undo")] == [f"undo {name}" for name in reversed(done)]
    return host


@pytest.mark.parametrize(
    ("found", "end", "log"),
    [
        (Happened("found"), "completed", ["car", "doubtful", "probe doubtful", "hotel"]),
        (DidNotHappen(), "compensated", ["car", "doubtful", "probe doubtful", "undo car"]),
    ],
)
def test_an_unknown_outcome_is_settled(found: Any, end: str, log: list[str]) -> None:
    """A step whose answer was lost is settled by its probe, and the saga goes on from what is true."""

    async def play() -> MemoryHost:
        host = on_host(doubts, doubtful=[ConnectionError("lost")], probe_doubtful=[found])
        await host.drive()
        assert WORLD.log == log
        assert info(host).status == end
        return host

    hosted(play)()


@hosted
async def test_a_lost_call_of_at_most_once_is_undone_as_unknown() -> MemoryHost:
    """The process dies in a step that must not be called twice: it is undone without its result, with its error."""
    host = on_host(careful)
    await host.drive(until="fenced")
    await host.lose("fenced")
    await host.drive()
    assert WORLD.log[-2:] == ["undo fenced after StepInterrupted", "undo car"]
    assert info(host).status == "compensated"
    return host


@hosted
async def test_a_savepoint() -> MemoryHost:
    """What was done within a savepoint is undone, and the body goes on."""
    host = on_host(second_best, flight=[Refused("full")])
    assert (await host.drive()).end is RunStatus.COMPLETED
    assert WORLD.log == ["car", "hotel", "flight", "undo hotel"]
    assert info(host).result == "by car"
    return host


@hosted
async def test_a_deadline() -> MemoryHost:
    """A saga whose deadline passes while it waits is undone."""
    host = on_host(hurried)
    assert (await host.drive()).end is RunStatus.FAILED
    assert WORLD.log == ["car", "undo car"]
    assert info(host).cause == "deadline"
    return host


@hosted
async def test_a_cancel_amid_a_step() -> MemoryHost:
    """A cancel while a step is in flight: it ends, nothing further begins, and all is undone."""
    host = on_host(trip)
    await host.drive(until="hotel")
    host.tell("cancel")
    assert (await host.drive()).end is RunStatus.FAILED
    assert WORLD.log == ["car", "hotel", "undo hotel", "undo car"]
    assert info(host).cause == "cancelled"
    return host


@hosted
async def test_a_cancel_before_the_first_step() -> MemoryHost:
    """A cancel that comes while the first call is wanted: it ends and is undone."""
    host = on_host(trip)
    host.tell("cancel")
    await host.drive()
    assert "hotel" not in WORLD.log
    assert info(host).status == "compensated"
    return host


@hosted
async def test_a_stuck_compensation_is_retried() -> MemoryHost:
    """A compensation that is given up leaves the saga stuck; retried, it is undone under its own key."""
    host = on_host(trip, flight=[Refused("full")], undo_hotel=[OSError("down"), OSError("down")])
    run = await host.drive()
    assert "hotel" in (run.stuck or "")
    host.tell("retry")
    assert (await host.drive()).end is RunStatus.FAILED
    assert info(host).status == "compensated"
    assert WORLD.log == ["car", "hotel", "flight", "undo hotel", "undo hotel", "undo car", "undo hotel"]
    return host


@hosted
async def test_failures_wait_for_an_operator() -> MemoryHost:
    """With `on_failure="stuck"` a failure is held back; what was undone in doubt is begun anew, and undone again."""
    host = on_host(
        patiently, fenced=[TimeoutError()], hotel=[OSError("down"), OSError("down")], undo_fenced=[OSError()]
    )
    for stuck_on in ("fenced", "hotel", "hotel"):
        run = await host.drive()
        assert f"step '{stuck_on}' has failed" in (run.stuck or "")
        host.tell("retry" if stuck_on == "fenced" or len(WORLD.log) < 6 else "rollback")
    assert (await host.drive()).end is RunStatus.FAILED
    assert (info(host).status, info(host).cause) == ("compensated", "failed")
    return host


@hosted
async def test_a_killed_saga_is_rolled_back() -> MemoryHost:
    """Killed amid a step, and rolled back while that is in flight: nothing is undone before it has returned.

    As on our own engine its late result is evidence only, so a person says whether it happened.
    """
    host = on_host(trip)
    await host.drive(until="hotel")
    host.tell("kill")
    host.tell("rollback")
    run = await host.drive()
    assert WORLD.log == ["car", "hotel"]
    assert "'hotel' ended with an unknown outcome" in (run.stuck or "")
    host.tell("resolve", step="hotel", happened=True, result="hotel for ann")
    assert (await host.drive()).end is RunStatus.FAILED
    assert WORLD.log == ["car", "hotel", "undo hotel", "undo car"]
    assert info(host).status == "resolved"
    return host


@hosted
async def test_pause_and_resume() -> MemoryHost:
    """A paused saga starts no step; resumed, it goes on."""
    host = on_host(trip)
    await host.drive(until="hotel")
    host.tell("pause")
    await host.drive()
    assert WORLD.log == ["car", "hotel"]
    host.tell("resume")
    assert (await host.drive()).end is RunStatus.COMPLETED
    return host


def test_a_call_as_bytes() -> None:
    """Steps, undos and probes are called from their bytes alone, as on another machine: the same end."""

    async def play() -> MemoryHost:
        host = on_host(
            doubts, doubtful=[ConnectionError("lost")], probe_doubtful=[Happened("found")], hotel=[Refused("full")]
        )
        elsewhere = function_of(doubts, Binder(Codec(), []))

        def called(want: Any, clocked: Any) -> Any:
            call = msgspec.json.decode(msgspec.json.encode(want.call), type=type(want.call))
            return attempt(elsewhere, call, clocked)

        host.calls_here = called
        await host.drive()
        assert WORLD.log == ["car", "doubtful", "probe doubtful", "hotel", "undo doubtful", "undo car"]
        assert info(host).status == "compensated"
        return host

    hosted(play)()
