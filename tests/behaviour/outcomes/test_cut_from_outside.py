"""Cancellation from outside is a cut, not an outcome; what a step raises is its own; an error of ours is a fault.

Issue 11 part C. Each process here has an event loop of its own, and is found dead once that has ended.
"""

import asyncio
import contextlib
import types
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

import durable_core.replay.host_context as host_context_module
import sagas.runtime.driver as driver_module
import sagas.runtime.resolver as resolver_module
import sagas.runtime.saga as saga_module
from durable_core.engine import polling
from durable_core.stores.sqlite import database
from durable_core.stores.sqlite.store import SqliteStore
from sagas import DidNotHappen, Happened, Orchestrator, Retry, Saga, lookup, pivot, resource, retriable, saga, step
from tests.kit import ONCE, Place, World, end_of, entered, play, reaches, until, watched, watched_on_thread, within

hold, mail = watched("hold"), watched("mail", undo="none")
blind = watched("blind", undo="blind")
threaded = watched_on_thread("threaded")
look = watched("look", at=lookup)
sell = watched("sell", at=pivot)
ship = watched("ship", at=retriable)
probed = watched("probed")
fails = watched("fails")


@probed.probe(retry=ONCE)
async def find_probed(*, watch: World = resource()) -> Happened[str] | DidNotHappen:
    await watch.act()
    return DidNotHappen()


@saga("cut", version=1)
async def cut(s: Saga, flies: str) -> str:
    """Has something of kind ``flies`` in flight when it is cut."""
    if flies in IN_BODY:
        await s.run(IN_BODY[flies])
    elif flies == "child":
        await s.run(cut, "hold")
    elif flies == "branches":
        async with s.parallel() as p:
            p.run(hold)
            p.run(threaded)
    elif flies == "undo hold":
        await s.run(hold)
        await s.run(fails)
    elif flies == "probe probed":
        await s.run(probed)
    elif flies == "ship":
        await s.run(sell)
        await s.run(ship)
    return "done"


IN_BODY: dict[str, Any] = {"hold": hold, "mail": mail, "blind": blind, "threaded": threaded, "look": look, "sell": sell}
FLIES = (*IN_BODY, "child", "branches", "undo hold", "probe probed", "ship")


# -- how a program ends ---------------------------------------------------------------------------------------------

Work = Callable[[Orchestrator], Coroutine[Any, Any, None]]


class Ended(Exception):
    """The program's own error."""


def all_tasks_are_cancelled(running: Orchestrator, work: Work) -> None:
    """The program cancels whatever there is, itself included."""

    async def main() -> None:
        async with running:
            await work(running)
            for task in asyncio.all_tasks():
                task.cancel()
            await asyncio.sleep(0)

    with contextlib.suppress(asyncio.CancelledError):
        asyncio.run(main())


def all_other_tasks_are_cancelled(running: Orchestrator, work: Work) -> None:
    """The program cancels all tasks but its own, goes on for a moment, and leaves in good order."""

    async def main() -> None:
        async with running:
            await work(running)
            for task in asyncio.all_tasks() - {asyncio.current_task()}:
                task.cancel()
            for _ in range(10):
                await asyncio.sleep(0)

    asyncio.run(main())


def the_main_task_is_cancelled(running: Orchestrator, work: Work) -> None:
    """As by Ctrl-C; the orchestrator is left in good order, and cuts what does not end within its grace."""

    async def main() -> None:
        async with running:
            await work(running)
            own = asyncio.current_task()
            assert own is not None
            own.cancel()
            await asyncio.sleep(0)

    with contextlib.suppress(asyncio.CancelledError):
        asyncio.run(main())


def the_run_ends_by_an_exception(running: Orchestrator, work: Work) -> None:
    """``asyncio.run`` cancels what is left when its main coroutine raises; nobody left the orchestrator."""

    async def main() -> None:
        await running.__aenter__()
        await work(running)
        raise Ended

    with contextlib.suppress(Ended):
        asyncio.run(main())


def the_program_exits(running: Orchestrator, work: Work) -> None:
    """``sys.exit()`` in the program's own coroutine, and nobody left the orchestrator."""

    async def main() -> None:
        await running.__aenter__()
        await work(running)
        raise SystemExit(3)

    with contextlib.suppress(SystemExit):
        asyncio.run(main())


def the_loop_stops(running: Orchestrator, work: Work) -> None:
    """``loop.stop()``, and then what frameworks do: cancel what is left, and let it end."""
    loop = asyncio.new_event_loop()

    async def main() -> None:
        await running.__aenter__()
        await work(running)
        loop.stop()
        await asyncio.Event().wait()

    first = loop.create_task(main())
    try:
        loop.run_forever()
        while left := asyncio.all_tasks(loop):  # one that ends may have made another
            for task in left:
                task.cancel()
            loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
    finally:
        loop.close()
    assert first.cancelled()


WAYS = {
    way.__name__: way
    for way in (
        all_tasks_are_cancelled,
        all_other_tasks_are_cancelled,
        the_main_task_is_cancelled,
        the_run_ends_by_an_exception,
        the_program_exits,
        the_loop_stops,
    )
}


def die(running: Orchestrator) -> None:
    """The process has ended: whatever its store still holds is let go."""
    store: Any = running.engine.store
    store.crash()


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("flies", FLIES)
def test_what_is_cut_is_run_again_by_the_next_process(place: Place, flies: str, way: str):
    """However a program ends, an attempt in flight counts as cut by a crash: no outcome is journalled for it.

    The next process runs it again, under the same key, and the saga comes to the end that it would have come to.
    """
    watch = World()
    watch.plan("fails", "refused")
    watch.plan("probed", "lost")

    held_up = {"child": ("cut/hold",), "branches": ("hold", "threaded")}.get(flies, (flies,))

    async def work(running: Orchestrator) -> None:
        gates = [watch.gate(what) for what in held_up]
        await running.start(cut, flies, id="o")
        for gate in gates:
            await entered(gate, running)

    running = place.orchestrator(cut, world=watch, grace=0.05)
    WAYS[way](running, work)
    for gate in watch.gates.values():
        gate.thread.set()  # its thread belongs to a process that has ended
    die(running)
    in_flight = [call for call in watch.calls if call.what in held_up]
    watch.gates.clear()
    watch.under_way.clear()

    async def later() -> None:
        async with place.orchestrator(cut, world=watch) as worker:
            handle = await worker.get("o")
            info = await reaches(handle, worker, "completed", "compensated", "resolved", "stuck")
            wanted = "compensated" if flies in ("undo hold", "probe probed") else "completed"
            assert (info.status, info.reason) == (wanted, None)
            again = [call for call in watch.calls if call.what in held_up]
            assert {(call.what, call.key) for call in again} == {(call.what, call.key) for call in in_flight}
            for what in held_up:  # a program that goes on for long enough has run it again already
                attempts = [call.attempt for call in again if call.what == what]
                assert attempts == [*range(1, len(attempts) + 1)]
                assert len(attempts) > [call.what for call in in_flight].count(what)
            told = [str(entry.error) for entry in await handle.history() if entry.error and entry.key in held_up]
            assert told == [], "an outcome was journalled for an attempt that was cut"

    asyncio.run(later())


def test_nothing_begins_while_the_event_loop_ends(place: Place, monkeypatch: pytest.MonkeyPatch):
    """However long the tasks of a program that ends take to be cancelled, no saga is taken up meanwhile."""
    monkeypatch.setattr(polling, "POLL_S", 0.0)
    watch = World()

    async def lingers() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            for _ in range(300):
                await asyncio.sleep(0)

    async def main() -> None:
        running = place.orchestrator(cut, world=watch)
        await running.__aenter__()
        gate = watch.gate("hold")
        await running.start(cut, "hold", id="o")
        await entered(gate, running)
        lingering.append(asyncio.create_task(lingers()))
        await asyncio.sleep(0)
        stores.append(running)
        raise Ended

    lingering: list[asyncio.Task[None]] = []
    stores: list[Orchestrator] = []
    with contextlib.suppress(Ended):
        asyncio.run(main())
    die(stores[0])
    assert lingering[0].cancelled()
    assert [call.attempt for call in watch.calls] == [1]


async def test_a_look_for_work_ends_though_a_commit_absorbs_its_cancellation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """A commit that waits for the disk ends all the same; then the task that made it must end, not look again."""
    monkeypatch.setattr(database, "QUICK_S", -1.0)
    cut_off: list[asyncio.Task[Any]] = []
    changed = SqliteStore.changed

    async def cut_once(store: SqliteStore) -> bool:
        own = asyncio.current_task()
        if own is not None and not cut_off:
            cut_off.append(own)
            asyncio.get_running_loop().call_soon(own.cancel)
            await store.spans.advance("nobody", 1)
        return await changed(store)

    monkeypatch.setattr(SqliteStore, "changed", cut_once)
    async with Place(f"sqlite:///{tmp_path / 'x.db'}").orchestrator(cut, world=World()) as running:
        await until(lambda: cut_off and cut_off[0].cancelled(), running)
        assert (await end_of(await running.start(cut, "nothing"), running)).status == "completed"


# -- what a step raises is its own ----------------------------------------------------------------------------------


def exits() -> None:
    raise SystemExit(2)


def stops() -> None:
    raise GeneratorExit


def groups() -> None:
    raise BaseExceptionGroup("several", [GeneratorExit(), ValueError("one")])


class Strange(BaseException): ...


def strays() -> None:
    raise Strange


RAISES: dict[str, Callable[[], None]] = {
    "SystemExit": exits,
    "GeneratorExit": stops,
    "BaseExceptionGroup": groups,
    "Strange": strays,
}


@step(name="raises", compensation=None, because="it raises")
async def raises(what: str) -> None:
    RAISES[what]()


@step(name="raises-on-a-thread", compensation=None, because="it raises")
def raises_on_a_thread(what: str) -> None:
    RAISES[what]()


@lookup(name="raises-in-a-lookup")
async def raises_in_a_lookup(what: str) -> None:
    RAISES[what]()


@step(name="raises-and-admits", retry=Retry(attempts=2, first=0))
async def raises_in_an_undo() -> None: ...


@raises_in_an_undo.compensate(retry=Retry(attempts=2, first=0, jitter=False))
async def raise_once(_: None, *, raised: "Raised" = resource()) -> None:
    raised.calls += 1
    if raised.calls == 1:
        RAISES[raised.what]()


class Raised:
    """What a compensation raises the first time."""

    def __init__(self, what: str) -> None:
        self.what = what
        self.calls = 0


RAISING: dict[str, Any] = {"step": raises, "thread": raises_on_a_thread, "lookup": raises_in_a_lookup}


@saga("raising", version=1)
async def raising(s: Saga, where: str, what: str) -> None:
    await s.run(blind)
    await s.run(RAISING[where], what)


@saga("undo-raises", version=1)
async def undo_raises(s: Saga) -> None:
    await s.run(raises_in_an_undo)
    await s.run(fails)


@saga("innocent", version=1)
async def innocent(s: Saga) -> str:
    await s.run(hold)
    await s.run(sell)
    return "done"


def survived(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run one process, whose steps do not end it."""
    try:
        play(main)
    except (SystemExit, GeneratorExit, BaseExceptionGroup, Strange) as ended:
        raise AssertionError(f"a step has ended the whole process: {ended!r}") from ended


@pytest.mark.parametrize("what", RAISES)
@pytest.mark.parametrize("where", RAISING)
def test_what_a_step_raises_fails_that_step_alone(place: Place, where: str, what: str):
    """``sys.exit()``, or what is no Exception, in a step: its attempt has failed, and its saga is undone.

    The process and its other sagas go on, and the history tells which step raised what.
    """

    async def main() -> None:
        watch = World()
        gate = watch.gate("hold")
        async with place.orchestrator(raising, innocent, world=watch) as worker:
            other = await worker.start(innocent, id="other")
            await entered(gate, worker)
            handle = await worker.start(raising, where, what, id="o")
            info = await reaches(handle, worker, "completed", "compensated", "resolved", "stuck")
            assert (info.status, info.cause, info.reason) == ("compensated", "failed", None)
            assert watch.undone == ["blind"]
            errors = {entry.key: str(entry.error) for entry in await handle.history() if entry.error and entry.key}
            assert what in errors[RAISING[where].name]
            gate.open()
            assert await within(other.result(), worker) == "done"

    survived(main)


@pytest.mark.parametrize("what", RAISES)
def test_what_a_compensation_raises_fails_that_attempt_alone(place: Place, what: str):
    """So it is in a compensation: it is attempted again by its policy, and the saga is compensated."""

    async def main() -> None:
        watch, raised = World(), Raised(what)
        watch.plan("fails", "refused")
        async with place.orchestrator(undo_raises, world=watch, resources=[raised]) as worker:
            handle = await worker.start(undo_raises, id="o")
            info = await reaches(handle, worker, "compensated", "resolved", "stuck")
            assert (info.status, info.reason) == ("compensated", None)
            assert raised.calls == 2

    survived(main)


# -- an error of our own is a fault ---------------------------------------------------------------------------------


def broken_in(module: types.ModuleType) -> Any:
    """A function of ``module`` with a bug, as a broken build has it: its frame is the engine's own."""
    source = "def broken(*args, **kwargs):\n    raise AttributeError('a bug of a broken build')\n"
    names = dict(vars(module))
    exec(compile(source, str(module.__file__), "exec"), names)
    return names["broken"]


class Build:
    """The engine as it is loaded: whole at first, then with a bug, then mended."""

    def __init__(self, owner: Any, name: str, module: types.ModuleType) -> None:
        self.patch = pytest.MonkeyPatch()
        self.bug: tuple[Any, str, Any] = (owner, name, broken_in(module))

    def breaks(self) -> None:
        """From now on every call meets the bug."""
        self.patch.setattr(*self.bug)

    def mended(self) -> None:
        """No more."""
        self.patch.undo()


BUGS: dict[str, tuple[Any, str, types.ModuleType]] = {
    "run": (driver_module.Driver, "run_step", driver_module),
    "run, within": (host_context_module.HostContext, "perform", host_context_module),
    "child": (driver_module.Driver, "run_child", driver_module),
    "map": (saga_module, "_coroutine", saga_module),
    "savepoint": (host_context_module.HostContext, "scope", host_context_module),
    "parallel": (saga_module, "_coroutine", saga_module),
    "now": (host_context_module.HostContext, "now", host_context_module),
    "uuid": (host_context_module.HostContext, "uuid", host_context_module),
    "sleep": (host_context_module.HostContext, "sleep", host_context_module),
    "resolver": (resolver_module.OutcomeResolver, "settle", resolver_module),
    "status": (driver_module.Driver, "set_status", driver_module),
}


@step(name="upgrade", compensation=None, because="the build is not the participant's")
async def upgrade(*, build: Build = resource()) -> None:
    build.breaks()


@saga("on-a-broken-build", version=1)
async def on_a_broken_build(s: Saga, where: str, *, catches: bool) -> str:
    await s.run(hold)
    await s.run(upgrade)
    try:
        await operation(s, where)
    except Exception:
        if not catches:
            raise
    return "done"


async def operation(s: Saga, where: str) -> None:
    """The operation in which the bug is."""
    match where:
        case "run" | "run, within" | "resolver":
            await s.run(blind)
        case "child":
            await s.run(small, "x")
        case "map":
            await s.map(small, ["x"])
        case "savepoint":
            async with s.savepoint("here"):
                await s.run(mail)
        case "parallel":
            async with s.parallel() as p:
                p.run(mail)
        case "sleep":
            await s.sleep(0)
        case "status":
            s.set_status({"so": "far"})
        case _:
            getattr(s, where)()


@saga("small", version=1)
async def small(s: Saga, item: str) -> str:
    await s.run(mail)
    return item


@pytest.mark.parametrize("catches", [False, True], ids=["lets it out", "catches it"])
@pytest.mark.parametrize("where", BUGS)
async def test_an_error_of_our_own_in_a_body_is_a_fault(place: Place, where: str, catches: bool):  # noqa: FBT001
    """A bug of the engine met within a body: the saga is stuck and says so, nothing is undone, and no body catches it.

    Once the build is mended, a retry goes on.
    """
    build = Build(*BUGS[where])

    try:
        watch = World()
        if where == "resolver":
            watch.plan("blind", "silent")
        async with place.orchestrator(on_a_broken_build, small, world=watch, resources=[build]) as worker:
            handle = await worker.start(on_a_broken_build, where, catches=catches, id="o")
            info = await reaches(handle, worker, "completed", "compensated", "resolved", "stuck")
            assert info.status == "stuck"
            assert info.reason is not None
            assert "report" in info.reason, "it says that the fault is the engine's"
            assert not [call.what for call in watch.calls if call.role == "undo"]
            assert "hold" in watch.kept()
            assert [listed.id for listed in await worker.list(attention=True)] == ["o"]
            build.mended()
            await worker.retry("o")
            if where == "resolver":  # what is settled then is the participant's own error
                wanted = "completed" if catches else "compensated"
                assert (await reaches(handle, worker, "completed", "compensated")).status == wanted
            else:
                assert await within(handle.result(), worker) == "done"
    finally:
        build.mended()
