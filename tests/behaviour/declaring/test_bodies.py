"""What a body may do; and a saga whose body breaks a rule is parked before any effect, never rolled back."""

import asyncio
import contextlib
import inspect
from collections.abc import Awaitable, Callable, Coroutine, Generator
from typing import Any

import attrs
import httpx
import pytest

from durable_core.stores.memory.data import MemoryData
from durable_core.stores.memory.store import MemoryStore
from sagas import DefinitionError, PayloadError, RemoteError, Retry, Saga, SagaDef, lookup, resource, saga, step
from tests.kit import (
    BodyFailed,
    Broken,
    End,
    Rejected,
    World,
    alone,
    end_of,
    interrupted,
    journalled,
    orchestrator,
    reaches,
    within,
)


@step(rejects=(Rejected,))
async def act(number: int, *, world: World = resource()) -> int:
    await world.act()
    if number < 0:
        raise Rejected(number, "below zero")
    return number


@act.compensate
async def undo_act(result: int, *, world: World = resource()) -> None:
    await world.act()


@step
async def ship(number: int, *, world: World = resource()) -> int:
    await world.act()
    return number


@ship.compensate
async def undo_ship(result: int, *, world: World = resource()) -> None:
    await world.act()


@step
async def uncompensated(*, world: World = resource()) -> None:
    await world.act()


def plays(body: Callable[..., Awaitable[Any]], *args: Any, world: World | None = None) -> tuple[End, World]:
    """Run a body as a saga: its end, and what it did to the world."""
    world = world or World()
    return alone(saga("body", version=1)(body), *args, resources=[world])[0], world


# -- foreign awaits -------------------------------------------------------------------------------------------------

CLIENT = httpx.AsyncClient()


async def sleeps() -> None:
    await asyncio.sleep(1)


async def sleeps_not_at_all() -> None:
    await asyncio.sleep(0)


class Never(Coroutine[None, None, None]):
    """Something to wait for; unlike a coroutine of Python's own it may be dropped without having been awaited."""

    def send(self, value: None) -> None:
        raise AssertionError("it was awaited")

    def throw(self, *error: Any) -> None:
        raise AssertionError("it was awaited")

    def __await__(self) -> Generator[None, None, None]:
        raise AssertionError("it was awaited")


async def gathers() -> None:
    await asyncio.gather(Never())


async def makes_a_task() -> None:
    asyncio.create_task(Never())  # noqa: RUF006 - it is refused


async def limits_time() -> None:
    async with asyncio.timeout(1):  # noqa: ASYNC100 - refused before anything is awaited
        pass


async def waits_for() -> None:
    await asyncio.wait_for(Never(), 1)


async def uses_a_thread() -> None:
    await asyncio.to_thread(print)


async def asks_a_server() -> None:
    await CLIENT.get("http://127.0.0.1:9/")


async def waits_for_an_event() -> None:
    await asyncio.Event().wait()


async def runs_an_executor() -> None:
    await asyncio.get_running_loop().run_in_executor(None, print)


FOREIGN = [
    pytest.param(sleeps, "s.sleep", id="asyncio.sleep"),
    pytest.param(sleeps_not_at_all, "s.sleep", id="asyncio.sleep(0)"),
    pytest.param(gathers, "s.parallel", id="gather"),
    pytest.param(makes_a_task, "s.parallel", id="create_task"),
    pytest.param(limits_time, "timeout=", id="timeout"),
    pytest.param(waits_for, "step", id="wait_for"),
    pytest.param(uses_a_thread, "step", id="to_thread"),
    pytest.param(asks_a_server, "step", id="an open httpx client"),
    pytest.param(waits_for_an_event, "step", id="event"),
    pytest.param(runs_an_executor, "step", id="run_in_executor"),
]


def refused_calls(test: Callable[..., None]) -> Callable[..., None]:
    """What a refused call leaves behind unawaited is the user's mistake, which the fault tells of."""
    never_awaited = pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning")
    unraisable = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
    return never_awaited(unraisable(test))


@refused_calls
@pytest.mark.parametrize("swallowed", [False, True], ids=["", "swallowed"])
@pytest.mark.parametrize(("foreign", "advice"), FOREIGN)
def test_a_foreign_await_is_refused_at_its_line(foreign: Callable[[], Awaitable[None]], advice: str, swallowed: bool):  # noqa: FBT001
    """Stuck, naming file, line and what to use; nothing is undone or done any more, swallowing does not help."""

    async def body(s: Saga) -> int:
        await s.run(act, 1)
        try:
            await foreign()
        except BaseException:
            if not swallowed:
                raise
        return await s.run(act, 2)

    end, world = plays(body)
    assert end.status == "stuck"
    reason = end.error[0]
    places: list[str] = []
    for function in (foreign, body):
        lines, first = inspect.getsourcelines(function)
        places += [f"{__file__}:{line}" for line in range(first, first + len(lines))]
    assert any(place in reason for place in places), reason
    assert advice in reason, reason
    assert [info.step for info in world.calls] == ["act"]
    assert world.undone == []


@refused_calls
def test_a_swallowed_foreign_await_leaves_no_intent_behind():
    """Once the code is mended the saga goes on: the refused run journalled nothing after the fault."""
    data = MemoryData()

    @saga("mended", version=1)
    async def broken(s: Saga) -> int:
        with contextlib.suppress(BaseException):
            await asyncio.sleep(1)
        return await s.run(act, 1)

    @saga("mended", version=1)
    async def mended(s: Saga) -> int:
        await s.run(ship, 1)
        return await s.run(act, 1)

    assert changed(data, broken, mended) == End("completed", 1)


def test_the_loop_is_whole_again_after_a_body():
    """What a body may not use its caller may, before, during and after the saga."""

    @saga("quick", version=1)
    async def quick(s: Saga) -> int:
        return await s.run(act, 1)

    async def main() -> None:
        async with orchestrator("memory://", quick, resources=[World()]) as running:
            handle = await running.start(quick)
            async with asyncio.timeout(5):
                assert await asyncio.gather(handle.result(), asyncio.sleep(0, 2)) == [1, 2]

    asyncio.run(main())


# -- what a body forgets or gets wrong ------------------------------------------------------------------------------


@refused_calls
@pytest.mark.parametrize("fails", [False, True])
def test_a_forgotten_await_is_found_before_the_next_step(fails: bool):  # noqa: FBT001
    """`s.run(step)` without await is a fault at once: nothing after it is done, and nothing is undone."""

    async def body(s: Saga) -> None:
        await s.run(act, 1)
        s.run(act, 2)
        await s.run(act, 3)
        if fails:
            raise BodyFailed("later")

    end, world = plays(body)
    assert end.status == "stuck"
    assert "await" in end.error[0]
    assert world.called() == {"act": 1}
    assert world.undone == []


@refused_calls
def test_a_forgotten_await_at_the_end_is_found():
    """Also where no step follows."""

    async def body(s: Saga) -> int:
        s.run(act, 1)
        return 1

    end, world = plays(body)
    assert (end.status, world.calls) == ("stuck", [])


@refused_calls
def test_a_forgotten_await_can_be_mended():
    """The mended code fits the journal, since the broken one wrote nothing past its mistake."""

    @saga("mended", version=1)
    async def broken(s: Saga) -> int:
        await s.run(act, 1)
        s.run(ship, 2)
        return await s.run(act, 3)

    @saga("mended", version=1)
    async def mended(s: Saga) -> int:
        await s.run(act, 1)
        await s.run(ship, 2)
        return await s.run(act, 3)

    assert changed(MemoryData(), broken, mended) == End("completed", 3)


HIDDEN: dict[str, Any] = {"uncompensated": uncompensated}
"""Where a look at the body's source does not see which step it runs."""


def test_a_step_without_compensation_is_refused_at_registration_where_it_can_be_seen():
    """A DefinitionError with file and line, the step, and both cures; nothing is started."""

    @saga("visible", version=1)
    async def visible(s: Saga) -> None:
        await s.run(act, 1)
        await s.run(uncompensated)

    with pytest.raises(DefinitionError) as refused:
        orchestrator("memory://", visible)
    assert all(
        word in str(refused.value) for word in (f"{__file__}:", "visible", "@uncompensated.compensate", "because")
    )


@pytest.mark.parametrize("swallowed", [False, True], ids=["", "swallowed"])
def test_a_step_without_compensation_makes_the_saga_stuck_before_its_effect(swallowed: bool):  # noqa: FBT001
    """The message names the step and both cures; a body that catches everything cannot go on all the same."""

    async def body(s: Saga) -> int:
        await s.run(act, 1)
        try:
            await s.run(HIDDEN["uncompensated"])
        except BaseException:
            if not swallowed:
                raise
        return 1

    end, world = plays(body)
    assert end.status == "stuck"
    assert all(word in end.error[0] for word in ("uncompensated", "@uncompensated.compensate", "because"))
    assert (world.called(), world.undone) == ({"act": 1}, [])


@pytest.mark.parametrize("what", [print, "act", None, 7], ids=repr)
def test_only_steps_and_sagas_can_be_run(what: Any):
    """`s.run` of anything else is a fault that says what to give it."""

    async def body(s: Saga) -> None:
        await s.run(act, 1)
        await s.run(what)

    end, world = plays(body)
    assert end.status == "stuck"
    assert "@step" in end.error[0]
    assert world.undone == []


def test_a_missing_resource_makes_the_saga_stuck_before_the_effect():
    """The message names the step, the parameter, the type and where to give it; with the resource the saga goes on.

    So it is with a step that no reading of the body can tell; others are missed when the worker opens.
    """

    @attrs.define
    class Bank:
        paid: int = 0

    @lookup
    async def pay(*, bank: Bank = resource()) -> int:
        bank.paid += 1
        return bank.paid

    @saga("paying", version=1)
    async def paying(s: Saga) -> int:
        steps = [pay]
        return await s.run(steps[0])

    async def main() -> None:
        data = MemoryData()
        async with orchestrator(MemoryStore(data), paying) as running:
            end = await end_of(await running.start(paying, id="one"), running)
            assert end.status == "stuck"
            assert all(word in end.error[0] for word in ("pay", "bank", "Bank", "resources="))
        async with orchestrator(MemoryStore(data), paying, resources=[Bank()]) as running:
            await running.retry("one")
            assert await within((await running.get("one")).result(), running) == 1

    asyncio.run(main())


@pytest.mark.parametrize("error", [GeneratorExit, asyncio.CancelledError, type("Strange", (BaseException,), {})])
def test_a_body_that_raises_no_exception_proper_does_not_vanish(error: type[BaseException]):
    """A BaseException from a body is neither a failure nor lost: the saga is stuck, or goes on in the next process."""

    async def body(s: Saga) -> None:
        await s.run(act, 1)
        raise error

    end, world = plays(body)
    assert end.status == "stuck"
    assert world.undone == []


def test_a_step_that_raises_no_exception_proper_ends():
    """A BaseException from a step is an end of its attempt, like any other that nobody expected."""

    class Strange(BaseException): ...

    @lookup
    async def strange() -> int:
        raise Strange

    async def body(s: Saga) -> int:
        return await s.run(strange)

    end, _ = plays(body)
    assert end.status in ("compensated", "stuck")


def test_a_retry_policy_that_raises_does_not_hang_the_saga():
    """A tenacity condition of the user's that fails ends the step; it does not stop the saga silently."""

    @lookup(retry=Retry.from_tenacity(retry=lambda state: bool(1 / 0)))
    async def broken() -> int:
        raise Broken("once")

    async def body(s: Saga) -> int:
        return await s.run(broken)

    end, _ = plays(body)
    assert end.status in ("compensated", "stuck")


def test_s_used_inside_a_step_says_so():
    """A step does its work itself; the operations of the body are refused in it with that advice."""

    async def body(s: Saga) -> str:
        @lookup
        async def clever() -> int:
            return await s.run(act, 1)

        try:
            await s.run(clever)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is told
            return str(error)
        return "no"

    end, world = plays(body)
    assert end.status in ("completed", "stuck")
    assert "step" in (end.value or end.error[0])
    assert world.calls == []


# -- exceptions -----------------------------------------------------------------------------------------------------


def test_a_body_may_catch_a_steps_exception_and_go_on():
    """Only what leaves the body undoes; the caught step needs no undo, the others stay done."""

    async def body(s: Saga) -> str:
        await s.run(act, 1)
        try:
            await s.run(act, -1)
        except Rejected as error:
            return f"{error.code}, {error.why}"
        return "no"

    end, world = plays(body)
    assert (end.status, end.value, world.undone) == ("completed", "-1, below zero", [])


def test_an_exception_of_the_body_undoes_everything_in_reverse():
    """The cause is the body's own exception; compensations run last first, each once."""

    async def body(s: Saga) -> None:
        await s.run(act, 1)
        await s.run(ship, 2)
        await s.run(act, 3)
        raise BodyFailed("thought better of it")

    end, world = plays(body)
    assert end == End("compensated", None, (BodyFailed, ("thought better of it",), {}), ("act#2", "ship", "act"))
    assert world.undone == ["act#2", "ship", "act"]
    assert world.live == {}


def test_exceptions_survive_a_replay_whatever_their_constructor():
    """After a crash the body catches the same class, args and attributes, though it takes two arguments."""
    data = MemoryData()
    seen: list[Rejected] = []

    @saga("catching", version=1)
    async def catching(s: Saga) -> int:
        try:
            await s.run(act, -7)
        except Rejected as error:
            seen.append(error)
        await s.run(act, 1)
        return await s.run(ship, 1)

    async def main() -> None:
        world = World()
        await interrupted(data, catching, "ship", world)
        async with orchestrator(MemoryStore(data), catching, resources=[world]) as second:
            assert await within((await second.get("one")).result(), second) == 1

    asyncio.run(main())
    live, replayed = seen
    assert type(replayed) is type(live) is Rejected
    assert (replayed.args, vars(replayed), str(replayed)) == (live.args, vars(live), str(live))


def test_a_local_class_is_caught_on_replay_where_the_step_lists_it():
    """A class that no module holds is found among the step's `rejects`; elsewhere it becomes RemoteError."""

    class Local(Exception): ...

    @lookup(rejects=(Local,))
    async def no() -> None:
        raise Local("no", 7)

    @saga("local", version=1)
    async def local(s: Saga) -> str:
        try:
            await s.run(no)
        except Local as error:
            return repr(error.args)
        return "?"

    @saga("outside", version=1)
    async def outside(s: Saga) -> None:
        await s.run(no)

    assert alone(local)[0].value == "('no', 7)"
    end, _ = alone(outside)
    assert end.error[0] in (Local, RemoteError)


@pytest.mark.parametrize(
    "argument", [object(), {1: object()}, float("nan"), "x" * 2_000_000], ids=["object", "nested", "nan", "large"]
)
def test_an_argument_that_cannot_be_stored_is_refused_before_the_effect(argument: Any):
    """The body sees PayloadError with the run and the step; nothing was called, and the rest is undone."""

    @step
    async def take(anything: Any) -> None:
        raise AssertionError("called")

    @take.compensate
    async def undo(result: None) -> None: ...

    async def body(s: Saga) -> None:
        await s.run(act, 1)
        await s.run(take, argument)

    end, world = plays(body)
    assert (end.status, end.error[0], world.undone) == ("compensated", PayloadError, ["act"])
    assert "take" in end.error[1][0]


def test_wrong_arguments_of_a_step_are_a_fault_of_the_code():
    """They are refused before the effect, naming the function and its signature; nothing is undone."""

    async def body(s: Saga) -> None:
        await s.run(act, 1)
        await s.run(act)  # type: ignore[call-arg]

    end, world = plays(body)
    assert (end.status, world.undone) == ("stuck", [])
    assert "act(number: int) -> int cannot be called with ()" in end.error[0]
    assert world.called() == {"act": 1}


# -- code that does not fit its journal -----------------------------------------------------------------------------


def changed(data: MemoryData, old: SagaDef[..., Any], new: SagaDef[..., Any], world: World | None = None) -> End:
    """Start a saga with ``old``, which gets stuck, and retry it with ``new`` in another process."""
    world = world or World()

    async def main() -> End:
        async with orchestrator(MemoryStore(data), old, resources=[world]) as running:
            end = await end_of(await running.start(old, id="one"), running)
            assert end.status == "stuck"
        async with orchestrator(MemoryStore(data), new, resources=[world]) as running:
            await running.retry("one")
            return await end_of(await running.get("one"), running)

    return asyncio.run(main())


@saga("order", version=1)
async def as_begun(s: Saga) -> int:
    await s.run(act, 1)
    await s.run(act, 2)
    return await s.run(ship, 3)


@saga("order", version=1)
async def other_step(s: Saga) -> int:
    await s.run(ship, 1)
    await s.run(act, 2)
    return await s.run(ship, 3)


@saga("order", version=1)
async def other_argument(s: Saga) -> int:
    await s.run(act, 1)
    await s.run(act, 22)
    return await s.run(ship, 3)


@saga("order", version=1)
async def step_between(s: Saga) -> int:
    await s.run(act, 1)
    await s.run(ship, 0)
    await s.run(act, 2)
    return await s.run(ship, 3)


@saga("order", version=1)
async def returns_early(s: Saga) -> int:
    return await s.run(act, 1)


@saga("order", version=1)
async def raises_early(s: Saga) -> int:
    await s.run(act, 1)
    raise BodyFailed("too early")


@pytest.mark.parametrize(
    "new", [other_step, other_argument, step_between, returns_early, raises_early], ids=lambda new: new.body.__name__
)
@pytest.mark.parametrize("swallows", [False, True], ids=["", "swallowed"])
def test_code_that_does_not_fit_the_journal_is_parked_before_any_effect(new: SagaDef[..., Any], swallows: bool):  # noqa: FBT001
    """Another step, argument or end than the journal holds: stuck, nothing done or undone; the old code goes on."""
    data, world = MemoryData(), World()

    @saga("order", version=1)
    async def swallowing(s: Saga) -> int:
        try:
            return await new.body(s)  # type: ignore[no-any-return]
        except BaseException:
            if not swallows:
                raise
            return -1

    async def main() -> None:
        await interrupted(data, as_begun, "ship", world)
        before = list(world.calls)
        async with orchestrator(MemoryStore(data), swallowing, resources=[world]) as running:
            handle = await running.get("one")
            info = await reaches(handle, running, "stuck")
            assert world.calls == before
            assert info.cause is None
            assert info.reason is not None
            assert all(word in info.reason for word in ("one", "order", "retry"))
            await running.retry("one")  # with the same code: stuck again, still without effect
            await journalled(handle, running, "faulted", times=2)
            assert world.calls == before
        async with orchestrator(MemoryStore(data), as_begun, resources=[world]) as running:
            await running.retry("one")
            assert await end_of(await running.get("one"), running) == End("completed", 3)
        assert world.called() == {"act": 1, "act#2": 1, "ship": 2}
        assert all(len(keys) == 1 for keys in world.keys().values())

    asyncio.run(main())


def test_code_may_change_where_the_journal_has_not_come_to():
    """Steps behind the last entry are not bound to the code of the first run."""

    @saga("order", version=1)
    async def longer(s: Saga) -> int:
        await s.run(act, 1)
        await s.run(act, 2)
        await s.run(ship, 3)
        return await s.run(act, 4)

    async def main() -> None:
        data, world = MemoryData(), World()
        await interrupted(data, as_begun, "ship", world)
        async with orchestrator(MemoryStore(data), longer, resources=[world]) as running:
            assert await end_of(await running.get("one"), running) == End("completed", 4)

    asyncio.run(main())
