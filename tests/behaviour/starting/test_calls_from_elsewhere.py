"""A coroutine awaited on another event loop than its orchestrator's own is refused before anything happens."""

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from functools import partial
from typing import Any, Self

import pytest

from durable_core import Context, DurableError, Engine, RunHandle, durable
from durable_core import WrongLoop as CoreWrongLoop
from durable_core.layer import CallbackAddress
from sagas import Orchestrator, Saga, SagaHandle, SagasError, SagaStuck, StoreError, WrongLoop, saga
from tests.kit import Place, World, begun, party

booked = party("booked")


@saga("waiting", version=1)
async def waiting(s: Saga) -> str:
    await s.run(booked, "ann")
    return await (await s.callback("approval", str)).result()


@durable("watching", version=1)
async def watching(ctx: Context) -> str:
    return await (await ctx.callback("approval", str)).result()


def coroutines(cls: type) -> Iterator[str]:
    """Every public coroutine of a class, and its entrances; what gives items one by one counts too."""
    for name in dir(cls):
        member = inspect.getattr_static(cls, name)
        if name.startswith("_") and name not in ("__aenter__", "__aexit__"):
            continue
        if inspect.iscoroutinefunction(member) or inspect.isasyncgenfunction(member):
            yield name


def call(owner: object, name: str) -> Callable[[], Coroutine[Any, Any, Any]]:
    """A call with something for each parameter that must be given: it is refused before that is looked at."""
    method = getattr(owner, name)
    needed = [
        each
        for each in inspect.signature(method).parameters.values()
        if each.default is each.empty and each.kind not in (each.VAR_POSITIONAL, each.VAR_KEYWORD)
    ]
    args = [object() for each in needed if each.kind is not each.KEYWORD_ONLY]
    kwargs = {each.name: object() for each in needed if each.kind is each.KEYWORD_ONLY}

    async def made() -> Any:
        made = method(*args, **kwargs)
        return await (anext(made) if inspect.isasyncgen(made) else made)

    return made


CLASSES = (Orchestrator, SagaHandle, Engine, RunHandle)


def test_the_walk_finds_what_there_is():
    """The tests below walk over the calls that users know, and not over an empty list."""
    found = {(cls.__name__, name) for cls in CLASSES for name in coroutines(cls)}
    assert found > {
        ("Orchestrator", "start"),
        ("Orchestrator", "cancel"),
        ("Orchestrator", "complete_callback"),
        ("Orchestrator", "list"),
        ("Orchestrator", "__aexit__"),
        ("SagaHandle", "result"),
        ("SagaHandle", "cancel"),
        ("Engine", "start"),
        ("Engine", "kill"),
        ("RunHandle", "history"),
    }


def on_another_thread(make: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
    """Run a call on a new loop in another thread."""
    with asyncio.Runner() as runner:
        return runner.run(make())


async def in_a_thread(make: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
    """The same, awaited."""
    return await asyncio.to_thread(on_another_thread, make)


class Loops:
    """Two event loops in one thread, of which the first one is that of the test."""

    def __init__(self) -> None:
        self.home, self.other = asyncio.new_event_loop(), asyncio.new_event_loop()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.home.close()
        self.other.close()


@pytest.mark.parametrize("where", ["thread", "loop"])
@pytest.mark.parametrize("cls", CLASSES, ids=lambda each: each.__name__)
def test_every_public_coroutine_refuses_another_loop(place: Place, cls: type, where: str):
    """It raises SagasError, which the core calls DurableError, and rows, journal, signals and members are as before."""
    world = World()
    sagas_own = cls in (Orchestrator, SagaHandle)
    owner: Any = place.orchestrator(waiting, world=world) if sagas_own else Engine("memory://", [watching])
    runs = owner.engine if sagas_own else owner.runs

    async def enter() -> Any:
        await owner.__aenter__()
        handle = await owner.start(waiting if sagas_own else watching, id="w")
        while "armed" not in [entry.kind for entry in await handle.history()]:  # noqa: ASYNC110 - a commit makes it so
            await asyncio.sleep(0)
        return handle

    async def facts() -> Any:
        record = await runs.find("w")
        return (
            await owner.count(),
            record,
            await runs.journal(record.num),
            await runs.store.signals.waiting([record.num]),
        )

    with Loops() as loops:
        handle = loops.home.run_until_complete(enter())
        before = loops.home.run_until_complete(facts())
        for name in coroutines(cls):
            made = call(handle if cls in (SagaHandle, RunHandle) else owner, name)
            loop, make = (loops.other, made) if where == "loop" else (loops.home, partial(in_a_thread, made))
            with pytest.raises(WrongLoop, match=rf"{cls.__name__}\.{name} was called on another event loop"):
                loop.run_until_complete(make())
            assert loops.home.run_until_complete(facts()) == before, name
        loops.home.run_until_complete(owner.complete_callback(value="yes", name="approval", **named(sagas_own)))
        assert loops.home.run_until_complete(handle.result(20)) == "yes"
        loops.home.run_until_complete(owner.__aexit__(None, None, None))
        loops.home.run_until_complete(loops.home.shutdown_default_executor())


def named(sagas_own: bool) -> dict[str, str]:  # noqa: FBT001
    """How the two layers name what a callback belongs to."""
    return {"saga_id" if sagas_own else "run_id": "w"}


def test_both_layers_raise_one_class():
    """It is the root error's child under either name."""
    assert WrongLoop is CoreWrongLoop
    assert issubclass(WrongLoop, SagasError)
    assert issubclass(WrongLoop, DurableError)


async def test_an_answer_of_the_layer_below_the_calls_is_refused_too():
    """What an app in another thread calls, beside the methods: nothing is answered."""
    async with Orchestrator("memory://", sagas=[waiting], resources=[World()]) as running:
        await running.start(waiting, id="w")
        with pytest.raises(WrongLoop):
            await asyncio.to_thread(
                on_another_thread,
                lambda: running.client.complete(CallbackAddress(run_id="w", name="approval"), "yes"),
            )
        with pytest.raises(WrongLoop):
            await asyncio.to_thread(on_another_thread, lambda: running.engine.begin("waiting"))
        assert await running.count() == 1


async def test_a_call_made_elsewhere_and_awaited_at_home_is_fine():
    """`run_coroutine_threadsafe` from any thread is how a thread calls; and a task of the same loop needs nothing."""
    async with Orchestrator("memory://", sagas=[waiting], resources=[World()]) as running:
        loop = asyncio.get_running_loop()

        def from_a_thread() -> str:
            handle = asyncio.run_coroutine_threadsafe(running.start(waiting, id="w"), loop).result(20)
            answer = running.complete_callback(value="yes", saga_id="w", name="approval")
            asyncio.run_coroutine_threadsafe(answer, loop).result(20)
            return asyncio.run_coroutine_threadsafe(handle.result(), loop).result(20)

        assert await asyncio.to_thread(from_a_thread) == "yes"
        assert (await asyncio.create_task(running.info("w"))).status == "completed"


@pytest.mark.parametrize("when", ["before", "after"])
def test_outside_of_its_block_it_says_so_as_before(when: str):
    """Before it is entered, and after it was left, calls on any loop say just that."""

    async def through() -> None:
        async with running:
            pass

    running = Orchestrator("memory://", sagas=[waiting], resources=[World()])
    if when == "after":
        asyncio.run(through())
    with pytest.raises(StoreError, match="not open"):
        asyncio.run(running.start(waiting))
    asyncio.run(through())  # and it may be entered again, on another loop


async def test_a_body_that_calls_its_orchestrator_is_stuck(place: Place):
    """A call amid a body is refused at that line as all that is foreign: nothing is done, nothing undone."""
    held: list[Orchestrator] = []

    async def misuse(use: Callable[[Orchestrator], Awaitable[Any]]) -> None:
        await use(held[0])

    @saga("nosy", version=1)
    async def nosy(s: Saga) -> None:
        await s.run(booked, "ann")
        try:
            await misuse(lambda orchestrator: orchestrator.start(waiting, id="w"))
        except Exception:  # noqa: BLE001 - this is what must not see it
            return

    world = World()
    async with place.orchestrator(nosy, waiting, world=world) as running:
        held.append(running)
        handle = await running.start(nosy, id="n")
        with pytest.raises(SagaStuck, match=r"Orchestrator\.start"):
            await handle.result(20)
        assert await running.count() == 1
        assert world.kept() == ["booked"]


async def test_leaving_after_calls_from_elsewhere(place: Place):
    """Refused calls leave nothing behind: the waiting saga goes on with the next orchestrator."""
    world = World()
    async with place.orchestrator(waiting, world=world) as running:
        handle = await running.start(waiting, id="w")
        await begun(handle, running, "approval")
        for _ in range(20):
            with pytest.raises(WrongLoop):
                await asyncio.to_thread(on_another_thread, handle.cancel)
    async with place.orchestrator(waiting, world=world) as running:
        await running.complete_callback(value="yes", saga_id="w", name="approval")
        assert await (await running.get("w")).result(20) == "yes"
