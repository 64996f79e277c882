"""What a body may do; and a saga whose body breaks a rule is parked before any effect, never rolled back."""

import asyncio
import contextlib
import inspect
from collections.abc import Awaitable, Callable, Coroutine, Generator
from typing import Any

import httpx
import pytest

from sagas import Retry, Saga, lookup, pivot, retriable, saga, step
from tests.kit import Broken, End, Place, World, act, end_of, entered, journalled, orchestrator, party, reaches


async def plays(url: str, body: Callable[..., Awaitable[Any]]) -> End:
    """How a body ends that is run as a saga."""
    definition = saga("body", version=1)(body)  # type: ignore[arg-type]
    async with orchestrator(url, definition) as running:
        return await end_of(await running.start(definition, id="one"), running)


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
async def test_a_foreign_await_is_refused_at_its_line(
    url: str, world: list[str], foreign: Callable[[], Awaitable[None]], advice: str, *, swallowed: bool
):
    """Stuck, naming file, line and what to use; nothing is undone or done any more, swallowing does not help."""
    first, second = act(world, "first"), act(world, "second")

    async def body(s: Saga) -> str:
        await s.run(first)
        try:
            await foreign()
        except BaseException:
            if not swallowed:
                raise
        return await s.run(second)

    end = await plays(url, body)
    assert end.status == "stuck"
    reason = end.error[0]
    places: list[str] = []
    for function in (foreign, body):
        lines, start = inspect.getsourcelines(function)
        places += [f"{__file__}:{line}" for line in range(start, start + len(lines))]
    assert any(place in reason for place in places), reason
    assert advice in reason, reason
    assert world == ["first"]


# -- steps that a body calls itself ---------------------------------------------------------------------------------


def called_itself(world: list[str], kind: str, *, plain: bool) -> Any:
    """A step of a kind, by the name of its function."""

    def plainly() -> str:
        world.append("called")
        return "called"

    async def waiting() -> str:
        return plainly()

    fn: Callable[[], Any] = plainly if plain else waiting
    kinds: dict[str, Callable[[Any], Any]] = {
        "step": step(compensation=None, because="a test"),
        "pivot": pivot,
        "retriable": retriable,
        "lookup": lookup,
    }
    return kinds[kind](fn)


@pytest.mark.parametrize("swallowed", [False, True], ids=["", "swallowed"])
@pytest.mark.parametrize("plain", [False, True], ids=["async", "plain"])
@pytest.mark.parametrize("kind", ["step", "pivot", "retriable", "lookup"])
async def test_a_step_that_the_body_calls_itself_is_refused(
    url: str, world: list[str], kind: str, *, plain: bool, swallowed: bool
):
    """Its code does not run, the saga is stuck with what to write instead, and goes on once the code is mended."""
    first, direct = act(world, "first"), called_itself(world, kind, plain=plain)
    broken = [direct]
    """A place where the check before the start does not see it."""

    @saga("direct", version=1)
    async def body(s: Saga) -> str:
        await s.run(first)
        if broken:
            try:
                broken[0]()
            except BaseException:
                if not swallowed:
                    raise
        return await s.run(direct)

    async with orchestrator(url, body) as running:
        end = await end_of(await running.start(body, id="one"), running)
        assert end.status == "stuck"
        said = f"the body calls {kind} {direct.name!r} itself, so it would not be recorded and not undone; write "
        assert f"{said}`await s.run({direct.name}, ...)`. Then retry the saga" in end.error[0]
        assert f"{__file__}:" in end.error[0]
        assert world == ["first"]
        broken.clear()
        await running.retry("one")
        assert (await end_of(await running.get("one"), running)).value == "called"
    assert world == ["first", "called"]


async def test_a_step_calls_steps_as_plain_functions(url: str, world: list[str]):
    """In an attempt of a step, a compensation or a thread, and outside of sagas, a step stays a plain function."""
    plain = called_itself(world, "lookup", plain=True)
    waiting = called_itself(world, "pivot", plain=False)

    @step
    async def outer() -> str:
        return str(plain() + await waiting())

    @outer.compensate
    def undo(done: str) -> None:
        plain()

    @lookup
    def on_a_thread() -> str:
        return str(plain())

    @saga("plain", version=1)
    async def body(s: Saga) -> str:
        await s.run(outer)
        await s.run(on_a_thread)
        raise Broken("undo it")

    async with orchestrator(url, body) as running:
        assert (await end_of(await running.start(body, id="one"), running)).status == "compensated"
        assert plain() == await waiting() == "called"
    assert world == ["called"] * 6


@refused_calls
@pytest.mark.parametrize("mistake", ["swallowed", "forgotten", "forgotten before a failure", "forgotten at the end"])
async def test_a_mistake_is_found_at_once_and_can_be_mended(url: str, world: list[str], mistake: str):
    """A swallowed foreign await, and an operation without await, wherever: nothing after it is done or undone.

    The mended code fits the journal and goes on, since the broken one wrote nothing past its mistake.
    """
    first, second, third = act(world, "first"), act(world, "second"), act(world, "third")
    broken = [True]

    @saga("mended", version=1)
    async def body(s: Saga) -> str:
        await s.run(first)
        if broken and mistake == "swallowed":
            with contextlib.suppress(BaseException):
                await asyncio.sleep(1)
        elif broken:
            s.run(second)
            if mistake == "forgotten before a failure":
                raise Broken("later")
            if mistake == "forgotten at the end":
                return "end"
        await s.run(second)
        return await s.run(third)

    async with orchestrator(url, body) as running:
        end = await end_of(await running.start(body, id="one"), running)
        assert end.status == "stuck"
        assert mistake == "swallowed" or "await" in end.error[0]
        assert world == ["first"]
    broken.clear()
    async with orchestrator(url, body) as running:
        await running.retry("one")
        assert await end_of(await running.get("one"), running) == End("completed", "third done")
    assert world == ["first", "second", "third"]


async def test_the_loop_is_whole_again_after_a_body(url: str, world: list[str]):
    """What a body may not use its caller may, before, during and after the saga."""
    first = act(world, "first")

    @saga("quick", version=1)
    async def quick(s: Saga) -> str:
        return await s.run(first)

    async with orchestrator(url, quick) as running:
        handle = await running.start(quick)
        async with asyncio.timeout(30):
            assert await asyncio.gather(handle.result(), asyncio.sleep(0, 2)) == ["first done", 2]


@pytest.mark.parametrize("swallowed", [False, True], ids=["", "swallowed"])
async def test_a_step_without_compensation_makes_the_saga_stuck_before_its_effect(
    url: str, world: list[str], *, swallowed: bool
):
    """The message names the step and both cures; a body that catches everything cannot go on all the same.

    Registration refuses it where a look at the body's source can see it.
    """
    first, hidden = act(world, "first"), {"step": act(world, "bare", undo=False)}

    async def body(s: Saga) -> int:
        await s.run(first)
        try:
            await s.run(hidden["step"])
        except BaseException:
            if not swallowed:
                raise
        return 1

    end = await plays(url, body)
    assert end.status == "stuck"
    assert all(word in end.error[0] for word in ("bare", "@doing.compensate", "because"))
    assert world == ["first"]


@pytest.mark.parametrize("error", [GeneratorExit, asyncio.CancelledError, type("Strange", (BaseException,), {})])
async def test_a_body_that_raises_no_exception_proper_does_not_vanish(
    url: str, world: list[str], error: type[BaseException]
):
    """A BaseException from a body is neither a failure nor lost: the saga is stuck, or goes on in the next process."""
    first = act(world, "first")

    async def body(s: Saga) -> None:
        await s.run(first)
        raise error

    assert (await plays(url, body)).status == "stuck"
    assert world == ["first"]


async def test_a_retry_policy_that_raises_does_not_hang_the_saga(url: str, world: list[str]):
    """A tenacity condition of the user's that fails ends the step; it does not stop the saga silently."""
    broken = act(world, "broken", Broken(), at=lookup, retry=Retry.from_tenacity(retry=lambda _: bool(1 / 0)))

    async def body(s: Saga) -> str:
        return await s.run(broken)

    assert (await plays(url, body)).status in ("compensated", "stuck")
    assert world == ["broken"]


async def test_s_used_inside_a_step_says_so(url: str, world: list[str]):
    """A step does its work itself; the operations of the body are refused in it with that advice."""
    first = act(world, "first")

    async def body(s: Saga) -> str:
        @lookup
        async def clever() -> str:
            return await s.run(first)

        try:
            await s.run(clever)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is told
            return str(error)
        return "no"

    end = await plays(url, body)
    assert end.status in ("completed", "stuck")
    assert "step" in (end.value or end.error[0])
    assert world == []


# -- code that does not fit its journal -----------------------------------------------------------------------------

take, ship = party("take"), party("ship")


@saga("order", version=1)
async def as_begun(s: Saga) -> str:
    await s.run(take, "1")
    await s.run(take, "2")
    return await s.run(ship, "3")


async def other_step(s: Saga) -> str:
    await s.run(ship, "1")
    await s.run(take, "2")
    return await s.run(ship, "3")


async def other_argument(s: Saga) -> str:
    await s.run(take, "1")
    await s.run(take, "22")
    return await s.run(ship, "3")


async def step_between(s: Saga) -> str:
    await s.run(take, "1")
    await s.run(ship, "0")
    await s.run(take, "2")
    return await s.run(ship, "3")


async def returns_early(s: Saga) -> str:
    return await s.run(take, "1")


async def raises_early(s: Saga) -> str:
    await s.run(take, "1")
    raise Broken("too early")


async def interrupted(place: Place, world: World) -> None:
    """A saga ``one`` whose process dies when it calls ``ship``, before that has any effect."""
    gate = world.gate("ship")
    async with place.dying(as_begun, world=world) as running:
        await running.start(as_begun, id="one")
        await entered(gate, running)
    world.gates.clear()


@pytest.mark.parametrize("new", [other_step, other_argument, step_between, returns_early, raises_early])
@pytest.mark.parametrize("swallows", [False, True], ids=["", "swallowed"])
async def test_code_that_does_not_fit_the_journal_is_parked_before_any_effect(
    place: Place, new: Callable[[Saga], Awaitable[str]], *, swallows: bool
):
    """Another step, argument or end than the journal holds: stuck, nothing done or undone; the old code goes on."""
    world = World()

    @saga("order", version=1)
    async def swallowing(s: Saga) -> str:
        try:
            return await new(s)
        except BaseException:
            if not swallows:
                raise
            return "swallowed"

    await interrupted(place, world)
    before = list(world.calls)
    async with place.orchestrator(swallowing, world=world) as running:
        handle = await running.get("one")
        info = await reaches(handle, running, "stuck")
        assert world.calls == before
        assert info.cause is None
        assert info.reason is not None
        assert all(word in info.reason for word in ("one", "order", "retry"))
        await running.retry("one")  # with the same code: stuck again, still without effect
        await journalled(handle, running, "faulted", times=2)
        assert world.calls == before
    async with place.orchestrator(as_begun, world=world) as running:
        await running.retry("one")
        assert await end_of(await running.get("one"), running) == End("completed", "3")
    assert [info.step for info in world.calls] == ["take", "take#2", "ship", "ship"]
    assert len({info.idempotency_key for info in world.calls}) == 3


async def test_code_may_change_where_the_journal_has_not_come_to(place: Place):
    """Steps behind the last entry are not bound to the code of the first run."""
    world = World()

    @saga("order", version=1)
    async def longer(s: Saga) -> str:
        await as_begun.body(s)
        return await s.run(take, "4")

    await interrupted(place, world)
    async with place.orchestrator(longer, world=world) as running:
        assert await end_of(await running.get("one"), running) == End("completed", "4")


@pytest.mark.parametrize("new", [other_step, other_argument, returns_early])
async def test_an_answer_that_finds_other_code_is_kept_for_the_old(place: Place, new: Callable[[Saga], Awaitable[str]]):
    """It wakes a saga whose code no longer fits: parked before any effect, and the old code goes on with the answer."""
    world = World()

    @saga("order", version=1)
    async def waits(s: Saga) -> str:
        await s.run(take, "1")
        await s.run(take, "2")
        return await s.run(ship, await (await s.callback("go", str)).result())

    changed = saga("order", version=1)(new)
    async with place.orchestrator(waits, world=world) as running:
        await reaches(await running.start(waits, id="one"), running, "waiting")
    async with place.orchestrator(changed, world=world) as running:
        await running.complete_callback(saga_id="one", name="go", value="3")
        assert (await end_of(await running.get("one"), running)).status == "stuck"
    assert world.log == ["take", "take"]
    async with place.orchestrator(waits, world=world) as running:
        await running.retry("one")
        assert await end_of(await running.get("one"), running) == End("completed", "3")
    assert world.log == ["take", "take", "ship"]
