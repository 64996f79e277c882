"""The durable core by itself: functions that checkpoint, wait, branch and go on after a restart, without any saga.

Nothing here imports ``sagas``: `test_core_alone.py` beside it runs this file where that cannot be imported.
"""

import asyncio
import contextlib
import logging
import threading
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import pytest

from durable_core import (
    CallbackAlreadyAnswered,
    CallbackClosed,
    CallbackFailed,
    CallbackNotFound,
    CallbackTimeout,
    Context,
    DefinitionError,
    Durable,
    Engine,
    PayloadError,
    Retry,
    RunExists,
    RunHandle,
    RunInfo,
    RunKilled,
    RunNotFound,
    RunStatus,
    RunStuck,
    StepInterrupted,
    StepTimeout,
    WrongState,
    current,
    durable,
    step,
)
from durable_core.testing import ManualClock

DAY = timedelta(days=1)


@attrs.frozen
class Part:
    name: str
    size: int = 1


@attrs.frozen
class Approval:
    ok: bool
    by: str


class Broken(Exception):
    """A failure of a step; its constructor takes two arguments and hands on one."""

    def __init__(self, what: str, code: int) -> None:
        super().__init__(f"{what} is broken")
        self.code = code


class Participant:
    """What the steps do, and what the test has told them to do."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.keys: dict[str, set[str]] = {}
        self.failures: dict[str, int] = {}
        self.gates: dict[str, asyncio.Event] = {}
        self.entered = asyncio.Event()
        self.tokens: list[str] = []
        self.under_way = self.most = 0


world = Participant()


@pytest.fixture(autouse=True)
def fresh_world() -> None:
    """Nothing has been done yet."""
    world.__init__()


@pytest.fixture(params=["memory", "sqlite"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A store of each kind, that survives its engine."""
    return f"memory://{tmp_path.name}" if request.param == "memory" else f"sqlite:///{tmp_path}/core.db"


async def work(name: str) -> str:
    """A step under the test's control."""
    world.calls.append(name)
    world.keys.setdefault(name, set()).add(current().idempotency_key)
    world.under_way += 1
    world.most = max(world.most, world.under_way)
    try:
        if name in world.gates:
            world.entered.set()
            await world.gates[name].wait()
        await asyncio.sleep(0)
    finally:
        world.under_way -= 1
    if world.failures.get(name, 0) > 0:
        world.failures[name] -= 1
        raise Broken(name, 7)
    return name.upper()


tried = step(retry=Retry(attempts=3, first=10, factor=1, jitter=False))(work)
once = step(at_most_once=True, retry=3, name="once")(work)


def on_a_thread(part: Part) -> Part:
    """A plain step."""
    assert threading.current_thread() is not threading.main_thread()
    return attrs.evolve(part, size=part.size + 1)


def hand_out(token: str) -> None:
    """Give a token to whom it concerns."""
    world.tokens.append(token)


Scene = Callable[[Engine, ManualClock], Awaitable[None]]


def play(url: str, *scenes: Scene, **options: Any) -> None:
    """Each scene has an engine of its own on the store, one after the other, and a clock that stands still."""

    async def main() -> None:
        clock = ManualClock()
        for scene in scenes:
            async with asyncio.timeout(30), Engine(url, FUNCTIONS, clock=clock, grace=0, **options) as engine:
                await scene(engine, clock)

    asyncio.run(main())


async def status(engine: Engine, id: str = "a") -> RunStatus:
    """Where a run stands."""
    return (await engine.info(id)).status


def ends_with(value: Any, *, after: timedelta | None = None, failed: type[Exception] | None = None) -> Scene:
    """The run ``a`` ends so, once ``after`` has passed."""

    async def scene(engine: Engine, clock: ManualClock) -> None:
        await clock.advance(after or timedelta())
        handle = await engine.get("a")
        if failed is not None:
            with pytest.raises(failed):
                await handle.result(10)
        else:
            assert await handle.result(10) == value

    return scene


# -- functions under test --------------------------------------------------------------------------------------------


@durable("plain", version=1)
async def plain(ctx: Context, part: Part, *, more: int = 0) -> Part:
    grown = await ctx.step(on_a_thread, part)
    name = await ctx.step(work, grown.name)
    return Part(name, grown.size + more)


@durable("trying", version=1)
async def trying(ctx: Context, name: str) -> str:
    return await ctx.step(tried, name)


@durable("careful", version=1)
async def careful(ctx: Context, name: str) -> str:
    try:
        return await ctx.step(once, name)
    except StepInterrupted:
        return "cut"


@durable("waiting", version=1)
async def waiting(ctx: Context) -> list[str]:
    await ctx.step(work, "before")
    began = ctx.now()
    await ctx.sleep(DAY)
    await ctx.sleep_until(began + 3 * DAY)
    await ctx.step(work, "after")
    return [str(ctx.now() - began)]


@durable("asking", version=1)
async def asking(ctx: Context) -> str:
    approval = await ctx.callback("approval", Approval, timeout=2 * DAY)
    await ctx.step(hand_out, approval.token)
    decision = await approval.result()
    return f"{decision.by}: {decision.ok}"


@durable("racing", version=1)
async def racing(ctx: Context) -> str:
    one = await ctx.callback("one", str)
    two = await ctx.callback("two", int)
    answered = await ctx.first(one, two)
    return f"{'one' if answered is one else 'two'}: {await answered.result()}"


async def twice(ctx: Context, name: str) -> str:
    first = await ctx.step(work, name)
    return first + await ctx.step(work, f"{name}-again")


@durable("inner", version=3)
async def inner(ctx: Context, name: str) -> Part:
    done = await ctx.step(work, name)
    return Part(done, ctx.version)


@durable("beside", version=1)
async def beside(ctx: Context) -> list[Any]:
    async with ctx.parallel() as p:
        a = p.run(work, "a")
        b = p.run(twice, "b")
        c = p.run(inner, "c")
        d = p.run(on_a_thread, Part("d"))
    return [a.result(), b.result(), c.result().size, d.result().size, await ctx.step(work, "last")]


@durable("caught", version=1)
async def caught(ctx: Context) -> str:
    try:
        async with ctx.parallel() as p:
            p.run(work, "bad")
            p.run(twice, "slow")
            p.run(nap, 1)
    except Broken as error:
        return f"{error} ({error.code})"
    return "fine"


async def nap(ctx: Context, days: int) -> None:
    await ctx.sleep(days * DAY)


@durable("mapping", version=1)
async def mapping(ctx: Context, names: list[str], kind: str, width: int | None) -> list[Any]:
    if kind == "step":
        return await ctx.map(work, names, max_concurrency=width)
    if kind == "branch":
        return await ctx.map(twice, names, max_concurrency=width)
    return [part.name for part in await ctx.map(inner, names, max_concurrency=width)]


@durable("parent", version=1)
async def parent(ctx: Context) -> list[Any]:
    before = await ctx.step(work, "x")
    part = await ctx.child(inner, "x")
    again = await ctx.child(inner, "y")
    return [before, part.name, again.size, ctx.version]


@durable("chance", version=1)
async def chance(ctx: Context) -> list[str]:
    drawn = [str(ctx.uuid()), repr(ctx.random()), ctx.now().isoformat(), ctx.id, str(ctx.version)]
    await ctx.sleep(DAY)
    return [*drawn, str(ctx.uuid())]


@durable("loud", version=1)
async def loud(ctx: Context) -> None:
    ctx.log.warning("begins")
    await ctx.sleep(DAY)
    ctx.log.warning("ends")


FUNCTIONS: list[Durable[..., Any]] = [
    plain, trying, careful, waiting, asking, racing, inner, beside, caught, mapping, parent, chance, loud
]  # fmt: skip


# -- steps -----------------------------------------------------------------------------------------------------------


def test_steps_are_run_and_values_come_back_typed(url: str):
    """Async and plain steps, arguments and results by annotation, by name as well as by object; info and history."""

    async def scene(engine: Engine, clock: ManualClock) -> None:
        handle = await engine.start(plain, Part("bolt"), more=40, id="a")
        assert await handle.result(10) == Part("BOLT", 42)
        named = await engine.start("plain", Part("nut"))
        assert await named.result() == Part("NUT", 2)
        info = await handle.info()
        assert (info.id, info.name, info.version, info.status) == ("a", "plain", 1, RunStatus.COMPLETED)
        assert (info.input, info.result) == ({"part": Part("bolt"), "more": 40}, Part("BOLT", 42))
        assert [(at.key, at.kind, at.status) for at in info.steps] == [
            ("on_a_thread", "step", "succeeded"),
            ("work", "step", "succeeded"),
        ]
        assert info.ended_at is not None
        assert info.ended_at >= info.created_at
        assert info.error is None
        kinds = [entry.kind for entry in await handle.history()]
        assert kinds == ["started", "succeeded", "started", "succeeded", "ended"]
        assert {found.id for found in await engine.list(name="plain", status="completed")} == {"a", named.id}
        assert await engine.count(name="plain") == 2
        assert await engine.count(status=RunStatus.FAILED) == await engine.count(since=clock.now() + DAY) == 0

    play(url, scene)


def test_the_same_id_is_the_same_run(url: str):
    """Starting it again with the same input gives the run that there is; other input is refused; so is no such id."""

    async def scene(engine: Engine, clock: ManualClock) -> None:
        first = await engine.start(trying, "x", id="a")
        again = await engine.start(trying, "x", id="a")
        assert await first.result(10) == await again.result(10) == "X"
        with pytest.raises(RunExists):
            await engine.start(trying, "y", id="a")
        with pytest.raises(RunExists):
            await engine.start(careful, "x", id="a")
        for asked in (engine.get("b"), engine.info("b"), engine.kill("b")):
            with pytest.raises(RunNotFound):
                await asked
        assert world.calls == ["x"]

    play(url, scene)


def test_a_failure_is_raised_as_it_was(url: str):
    """`result()` raises the body's own exception with its data: at once, later, and in the next process."""

    async def fails(engine: Engine, clock: ManualClock) -> None:
        world.failures["x"] = 1
        handle = await engine.start(inner, "x", id="a")
        with pytest.raises(Broken) as raised:
            await handle.result(10)
        assert (str(raised.value), raised.value.code) == ("x is broken", 7)

    async def still(engine: Engine, clock: ManualClock) -> None:
        with pytest.raises(Broken) as raised:
            await (await engine.get("a")).result(10)
        assert (str(raised.value), raised.value.code) == ("x is broken", 7)
        info = await engine.info("a")
        assert info.status is RunStatus.FAILED
        assert isinstance(info.error, Broken)
        assert info.steps[0].error == "Broken: x is broken"

    play(url, fails, still)


def test_retries_wait_for_their_time_also_over_a_restart(url: str):
    """A retry delay is durable: it goes on in the next engine, and the step keeps its key."""
    world.failures["x"] = 2

    async def begins(engine: Engine, clock: ManualClock) -> None:
        await engine.start(trying, "x", id="a")
        await clock.idle()
        assert world.calls == ["x"]
        assert await status(engine) is RunStatus.WAITING

    play(url, begins, ends_with("X", after=timedelta(seconds=25)))
    assert world.calls == ["x"] * 3
    assert len(world.keys["x"]) == 1


def test_a_step_that_is_given_up_raises_what_it_raised_last(url: str):
    """After its last attempt the step's exception reaches the body, and nothing else happens: nothing is undone."""
    world.failures["x"] = 3

    async def scene(engine: Engine, clock: ManualClock) -> None:
        handle = await engine.start(trying, "x", id="a")
        await clock.advance(60)
        with pytest.raises(Broken):
            await handle.result(10)
        assert world.calls == ["x"] * 3

    play(url, scene)


def test_a_step_that_was_cut_is_called_again_under_its_key(url: str):
    """At least once: a step in flight when its engine is left is run again, with the same idempotency key."""

    async def cut(engine: Engine, clock: ManualClock) -> None:
        world.gates["x"] = asyncio.Event()
        await engine.start(trying, "x", id="a")
        await world.entered.wait()

    async def goes_on(engine: Engine, clock: ManualClock) -> None:
        del world.gates["x"]
        assert await (await engine.get("a")).result(10) == "X"

    async def both(engine: Engine, clock: ManualClock) -> None:
        world.gates.clear()
        await ends_with("X")(engine, clock)

    play(url, cut, both)
    assert world.calls == ["x", "x"]
    assert len(world.keys["x"]) == 1


def test_an_at_most_once_step_is_not_called_again(url: str):
    """Cut while it ran, it is not run again although it has retries: the body sees `StepInterrupted` and may go on."""

    async def cut(engine: Engine, clock: ManualClock) -> None:
        world.gates["x"] = asyncio.Event()
        await engine.start(careful, "x", id="a")
        await world.entered.wait()

    play(url, cut, ends_with("cut"))
    assert world.calls == ["x"]


def test_a_timeout_ends_an_attempt(url: str):
    """After `timeout=` the attempt is cancelled and the body sees `StepTimeout`, which is a `TimeoutError`."""

    @durable("hasty", version=1)
    async def hasty(ctx: Context) -> str:
        try:
            return await ctx.step(step(timeout=5)(work), "x")
        except StepTimeout as late:
            return type(late).__name__ if isinstance(late, TimeoutError) else "wrong"

    async def scene(engine: Engine, clock: ManualClock) -> None:
        world.gates["x"] = asyncio.Event()
        handle = await engine.start(hasty, id="a")
        await world.entered.wait()
        await clock.advance(6)
        assert await handle.result(10) == "StepTimeout"

    play(url, scene)


def test_what_cannot_be_stored_is_refused_by_name(url: str):
    """An argument, a result of a step and the result of the body: a `PayloadError` that names the place."""

    async def odd() -> object:
        return object()

    @durable("odd", version=1)
    async def odd_result(ctx: Context, where: str) -> int:
        if where == "step":
            await ctx.step(odd)
        if where == "argument":
            await ctx.step(partial_work, object())
        return "no number"  # type: ignore[return-value]

    async def partial_work(what: object) -> None: ...

    async def scene(engine: Engine, clock: ManualClock) -> None:
        for where, told in (("step", "'odd'"), ("argument", "'partial_work'"), ("body", "the result")):
            handle = await engine.start(odd_result, where)
            with pytest.raises(PayloadError, match=told):
                await handle.result(10)
            assert (await handle.info()).status is RunStatus.FAILED
        with pytest.raises(PayloadError):
            await engine.start(plain, object())  # type: ignore[arg-type]

    play(url, scene)


# -- waits -----------------------------------------------------------------------------------------------------------


def test_sleeps_are_durable(url: str):
    """A sleep and a wait until a time fall due in whichever engine is there; what was done before is not done again."""

    async def begins(engine: Engine, clock: ManualClock) -> None:
        await engine.start(waiting, id="a")
        await clock.advance(DAY / 2)
        info = await engine.info("a")
        assert info.status is RunStatus.WAITING
        assert info.wake_at == clock.now() + DAY / 2
        assert [(wait.key, wait.kind, wait.status) for wait in info.steps] == [
            ("work", "step", "succeeded"),
            ("sleep", "sleep", "running"),
        ]

    async def goes_on(engine: Engine, clock: ManualClock) -> None:
        await clock.advance(DAY)
        assert world.calls == ["before"]

    play(url, begins, goes_on, ends_with(["3 days, 0:00:00"], after=2 * DAY))
    assert world.calls == ["before", "after"]


async def asked(engine: Engine, clock: ManualClock) -> None:
    """A run that waits for its approval."""
    await engine.start(asking, id="a")
    await clock.idle()
    assert await status(engine) is RunStatus.WAITING
    assert len(world.tokens) == 1


def test_a_callback_is_answered_by_token_in_another_process(url: str):
    """The token is good in the next engine; the first answer wins and may be repeated, another one is refused."""

    async def answers(engine: Engine, clock: ManualClock) -> None:
        with pytest.raises(PayloadError):
            await engine.complete_callback(world.tokens[0], {"ok": 1})
        with pytest.raises(CallbackNotFound):
            await engine.complete_callback(world.tokens[0][:-2], Approval(ok=True, by="eve"))
        for _ in range(2):
            await engine.complete_callback(world.tokens[0], Approval(ok=True, by="bob"))
        with pytest.raises(CallbackAlreadyAnswered):
            await engine.complete_callback(world.tokens[0], Approval(ok=False, by="eve"))
        assert await (await engine.get("a")).result(10) == "bob: True"

    play(url, asked, answers)


def test_a_callback_is_answered_by_name_or_with_a_failure(url: str):
    """By run and name instead of the token; a failure reaches the body as `CallbackFailed`; half a name is refused."""

    async def scene(engine: Engine, clock: ManualClock) -> None:
        await asked(engine, clock)
        for wrong in ({}, {"run_id": "a"}, {"name": "approval"}, {"token": "x", "run_id": "a", "name": "approval"}):
            with pytest.raises(DefinitionError):
                await engine.complete_callback(value=1, **wrong)
        with pytest.raises(CallbackNotFound):
            await engine.complete_callback(run_id="a", name="aproval", value=1)
        await engine.fail_callback(run_id="a", name="approval", message="nobody is in")
        with pytest.raises(CallbackFailed) as raised:
            await (await engine.get("a")).result(10)
        assert raised.value.answer == "nobody is in"
        with pytest.raises(CallbackAlreadyAnswered):
            await engine.complete_callback(world.tokens[0], Approval(ok=True, by="bob"))

    play(url, scene)


def test_a_callback_times_out_in_whichever_engine_is_there(url: str):
    """Its timeout runs from its creation, over a restart; a later answer is told that it came too late."""

    async def too_late(engine: Engine, clock: ManualClock) -> None:
        await clock.advance(3 * DAY)
        with pytest.raises(CallbackTimeout):
            await (await engine.get("a")).result(10)
        with pytest.raises(CallbackClosed):
            await engine.complete_callback(world.tokens[0], Approval(ok=True, by="bob"))

    play(url, asked, too_late)


def test_the_first_of_two_callbacks_goes_on(url: str, monkeypatch: pytest.MonkeyPatch):
    """`first` gives the one that was answered, also where the answer came while no engine was there to drive it."""
    monkeypatch.setattr("durable_core.engine.callback_delivery.KEPT_AFTER_S", 0.05)

    async def begins(engine: Engine, clock: ManualClock) -> None:
        await engine.start(racing, id="a")
        await clock.idle()

    async def answers() -> None:
        async with Engine(url, worker=False) as engine:
            await engine.complete_callback(run_id="a", name="two", value=7)

    async def main() -> None:
        clock = ManualClock()
        async with Engine(url, FUNCTIONS, clock=clock) as engine:
            await begins(engine, clock)
        await answers()
        async with Engine(url, FUNCTIONS, clock=clock) as engine:
            assert await (await engine.get("a")).result(10) == "two: 7"

    asyncio.run(main())


# -- structure -------------------------------------------------------------------------------------------------------

BESIDE = ["A", "BB-AGAIN", 3, 2, "LAST"]


def test_branches_run_beside_each_other(url: str):
    """Steps, branches of several steps and durable functions begin together, and each has its own result."""

    async def scene(engine: Engine, clock: ManualClock) -> None:
        for name in ("a", "b", "c"):
            world.gates[name] = asyncio.Event()
        handle = await engine.start(beside, id="a")
        await clock.idle()
        assert world.calls == ["a", "b", "c"]
        for name in ("c", "a", "b"):
            world.gates[name].set()
            await clock.idle()
        assert await handle.result(10) == BESIDE
        keys = [at.key for at in (await handle.info()).steps]
        assert keys == ["work", "twice/work", "inner", "inner/work", "on_a_thread", "twice/work#2", "work#2"]

    play(url, scene)


def test_a_restart_amid_branches_repeats_only_what_was_cut(url: str):
    """Of three branches one had ended: after a restart it is not run again, and the others end."""

    async def cut(engine: Engine, clock: ManualClock) -> None:
        world.gates["b"] = world.gates["c"] = asyncio.Event()
        await engine.start(beside, id="a")
        await clock.idle()
        assert world.calls == ["a", "b", "c"]

    async def goes_on(engine: Engine, clock: ManualClock) -> None:
        await ends_with(BESIDE)(engine, clock)

    async def opened(engine: Engine, clock: ManualClock) -> None:
        world.gates.clear()

    play(url, cut, *[_with_gates_open(goes_on)])
    assert Counter(world.calls) == Counter(["a", "b", "b", "c", "c", "b-again", "last"])
    assert all(len(keys) == 1 for keys in world.keys.values())


def test_the_first_failure_ends_the_block(url: str):
    """Nothing new begins beside a failure, waits end at once, what is in flight ends first; that failure is raised."""
    world.failures["bad"] = 1

    async def scene(engine: Engine, clock: ManualClock) -> None:
        world.gates["slow"] = asyncio.Event()
        handle = await engine.start(caught, id="a")
        await clock.idle()
        assert await status(engine) is RunStatus.RUNNING
        world.gates["slow"].set()
        assert await handle.result(10) == "bad is broken (7)"
        assert world.calls == ["bad", "slow"]
        assert [(at.key, at.status) for at in (await handle.info()).steps] == [
            ("work", "failed"),
            ("twice/work", "succeeded"),
            ("nap/sleep", "skipped"),
        ]

    play(url, scene)


@pytest.mark.parametrize("kind", ["step", "branch", "durable"])
@pytest.mark.parametrize("width", [None, 1, 2])
def test_a_map_keeps_the_order_and_its_width(url: str, kind: str, width: int | None):
    """Results come in the order of the items, and no more than `max_concurrency` are under way."""
    names = [f"n{number}" for number in range(5)]

    async def scene(engine: Engine, clock: ManualClock) -> None:
        handle = await engine.start(mapping, names, kind, width, id="a")
        found = await handle.result(10)
        assert found == [name.upper() + (f"{name}-again".upper() if kind == "branch" else "") for name in names]
        assert world.most == (width or 5)
        empty = await engine.start(mapping, [], kind, width)
        assert await empty.result(10) == []

    play(url, scene)


@pytest.mark.parametrize("kind", ["step", "branch", "durable"])
def test_a_restart_amid_a_map_repeats_only_what_was_cut(url: str, kind: str):
    """Items that had ended are not done again; the one that was cut is, under its own key."""

    async def cut(engine: Engine, clock: ManualClock) -> None:
        world.gates["n2"] = asyncio.Event()
        await engine.start(mapping, ["n0", "n1", "n2", "n3"], kind, 1, id="a")
        await world.entered.wait()

    expected = [f"N{n}" + (f"N{n}-AGAIN" if kind == "branch" else "") for n in range(4)]
    play(url, cut, _with_gates_open(ends_with(expected)))
    assert Counter(world.calls)["n2"] == 2
    assert all(count == 1 for name, count in Counter(world.calls).items() if name != "n2")
    assert all(len(keys) == 1 for keys in world.keys.values())


def test_a_child_is_a_scope_of_its_parents_run(url: str):
    """Its steps have keys under its name, its version is its own, its result typed; a failure is its own exception."""

    async def scene(engine: Engine, clock: ManualClock) -> None:
        handle = await engine.start(parent, id="a")
        assert await handle.result(10) == ["X", "X", 3, 1]
        info = await handle.info()
        assert [(at.key, at.kind, at.status) for at in info.steps] == [
            ("work", "step", "succeeded"),
            ("inner", "child", "succeeded"),
            ("inner/work", "step", "succeeded"),
            ("inner#2", "child", "succeeded"),
            ("inner#2/work", "step", "succeeded"),
        ]
        assert info.steps[1].result == {"name": "X", "size": 3}
        world.failures["y"] = 1
        with pytest.raises(Broken):
            await (await engine.start(parent)).result(10)

    play(url, scene)


def test_a_restart_amid_a_child_goes_on_in_it(url: str):
    """What the child and its parent had done is not done again."""

    async def cut(engine: Engine, clock: ManualClock) -> None:
        world.gates["y"] = asyncio.Event()
        await engine.start(parent, id="a")
        await world.entered.wait()

    play(url, cut, _with_gates_open(ends_with(["X", "X", 3, 1])))
    assert Counter(world.calls) == Counter(["x", "x", "y", "y"])


def _with_gates_open(scene: Scene) -> Scene:
    """The next process finds nothing that holds its steps up."""

    async def opened(engine: Engine, clock: ManualClock) -> None:
        for gate in world.gates.values():
            gate.set()
        await scene(engine, clock)

    return opened


# -- the same on every replay ----------------------------------------------------------------------------------------


def test_chance_and_time_are_the_same_after_a_restart(url: str):
    """`uuid`, `random`, `now`, `id` and `version` are those of the first time; a log line is written once."""
    drawn: list[list[str]] = []

    async def begins(engine: Engine, clock: ManualClock) -> None:
        await engine.start(chance, id="a")
        await engine.start(chance, id="b")
        await clock.idle()
        assert await status(engine) is RunStatus.WAITING

    async def ends(engine: Engine, clock: ManualClock) -> None:
        await clock.advance(DAY)
        drawn.extend([await (await engine.get(id)).result(10) for id in ("a", "b")])

    play(url, begins, ends)
    (a, b) = drawn
    assert a[2:5] == [datetime(2030, 1, 1, tzinfo=UTC).isoformat(), "a", "1"]
    assert len({a[0], a[5], b[0], b[5]}) == 4
    assert a[1] != b[1]


def test_the_log_is_silent_while_replaying(url: str, caplog: pytest.LogCaptureFixture):
    """What was said before a restart is not said again."""

    async def begins(engine: Engine, clock: ManualClock) -> None:
        await engine.start(loud, id="a")
        await clock.idle()

    with caplog.at_level(logging.WARNING, "durable_core.run"):
        play(url, begins, ends_with(None, after=DAY))
    assert [record.message for record in caplog.records] == ["begins", "ends"]


def changed(*, patched: bool, waits: bool) -> Durable[[], str]:
    """The same function before and after a change behind `patched`."""

    @durable("changing", version=1)
    async def before(ctx: Context) -> str:
        await ctx.step(work, "x")
        if waits:
            await ctx.sleep(DAY)
        return await ctx.step(work, "old")

    @durable("changing", version=1)
    async def after(ctx: Context) -> str:
        await ctx.step(work, "x")
        if ctx.patched("newer"):
            return await ctx.step(work, "new")
        if waits:
            await ctx.sleep(DAY)
        return await ctx.step(work, "old")

    return after if patched else before


async def engine_of(url: str, function: Durable[..., Any], clock: ManualClock, scene: Scene) -> None:
    """An engine that serves one function."""
    async with asyncio.timeout(30), Engine(url, [function], clock=clock, grace=0) as engine:
        await scene(engine, clock)


def test_patched_keeps_old_runs_on_the_old_way(url: str):
    """A run that passed the place before the change goes the old way; one that comes there later, the new; for ever."""

    async def main() -> None:
        clock = ManualClock()

        async def begins(engine: Engine, clock: ManualClock) -> None:
            await engine.start("changing", id="a")
            await clock.idle()

        async def stops_at(engine: Engine, clock: ManualClock) -> None:
            world.gates["new"] = asyncio.Event()
            await engine.start("changing", id="b")
            await world.entered.wait()

        async def ends(engine: Engine, clock: ManualClock) -> None:
            world.gates.clear()
            await clock.advance(DAY)
            assert await (await engine.get("a")).result(10) == "OLD"
            assert await (await engine.get("b")).result(10) == "NEW"

        await engine_of(url, changed(patched=False, waits=True), clock, begins)
        await engine_of(url, changed(patched=True, waits=True), clock, stops_at)
        await engine_of(url, changed(patched=True, waits=True), clock, ends)

    asyncio.run(main())
    assert Counter(world.calls) == Counter(["x", "x", "new", "new", "old"])


# -- mending ---------------------------------------------------------------------------------------------------------


def test_code_that_does_not_fit_parks_its_run_before_any_effect(url: str):
    """Other code under the same version: the run is stuck, nothing is called; with the old code and a retry it ends."""
    told: list[RunInfo] = []

    @durable("changing", version=1)
    async def other(ctx: Context) -> str:
        return await ctx.step(work, "other")

    async def listener(info: RunInfo) -> None:
        told.append(info)

    async def main() -> None:
        clock = ManualClock()
        async with Engine(url, [changed(patched=False, waits=True)], clock=clock) as engine:
            await engine.start("changing", id="a")
            await clock.idle()
        async with Engine(url, [other], clock=clock, on_attention=listener) as engine:
            await clock.advance(DAY)
            with pytest.raises(RunStuck) as stuck:
                await (await engine.get("a")).result(10)
            assert "[DC101]" in stuck.value.reason
            assert stuck.value.steps == ()
            assert [info.id for info in await engine.list(attention=True)] == ["a"]
            await engine.retry("a", actor="ann", note="too early")
            with pytest.raises(RunStuck):
                await (await engine.get("a")).result(10)
        assert {(info.id, info.status) for info in told} == {("a", RunStatus.STUCK)}
        assert world.calls == ["x"]
        async with Engine(url, [changed(patched=False, waits=True)], clock=clock) as engine:
            await engine.retry("a", actor="ann", note="the old code is back")
            assert await (await engine.get("a")).result(10) == "OLD"
            noted = [(entry.actor, entry.note) for entry in await (await engine.get("a")).history() if entry.actor]
            assert noted == [("ann", "too early"), ("ann", "the old code is back")]

    asyncio.run(main())
    assert world.calls == ["x", "old"]


@pytest.mark.parametrize("listening", [True, False])
def test_what_needs_a_person_is_logged_once(url: str, caplog: pytest.LogCaptureFixture, listening: bool):  # noqa: FBT001
    """A stuck run is one error of the logger `durable_core`, with the reason, beside `on_attention` and without it."""

    @durable("changing", version=1)
    async def other(ctx: Context) -> str:
        return await ctx.step(work, "other")

    async def listener(info: RunInfo) -> None: ...

    async def main() -> None:
        clock = ManualClock()
        async with Engine(url, [changed(patched=False, waits=True)], clock=clock) as engine:
            await engine.start("changing", id="a")
            await clock.idle()
        async with Engine(url, [other], clock=clock, on_attention=listener if listening else None) as engine:
            await clock.advance(DAY)
            with pytest.raises(RunStuck):
                await (await engine.get("a")).result(10)
            await engine.retry("a")
            with pytest.raises(RunStuck):
                await (await engine.get("a")).result(10)

    asyncio.run(main())
    (line,) = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
    assert line.startswith("run 'a' (changing v1) is stuck and needs a person: run a of changing v1, entry #1: ")
    assert "retry the run" in line


def test_a_step_that_crashes_its_process_again_and_again_is_stuck_until_retried(url: str):
    """After `max_crashes` the run is stuck on that step; `retry` attempts it afresh, under the same key."""

    async def cut(engine: Engine, clock: ManualClock) -> None:
        world.gates.setdefault("x", asyncio.Event())
        if not await engine.count():
            await engine.start(trying, "x", id="a")
        await world.entered.wait()
        world.entered.clear()

    async def stuck(engine: Engine, clock: ManualClock) -> None:
        with pytest.raises(RunStuck) as raised:
            await (await engine.get("a")).result(10)
        assert raised.value.steps == ("work",)
        assert raised.value.run_id == "a"
        world.gates.clear()
        await engine.retry("a")
        assert await (await engine.get("a")).result(10) == "X"

    play(url, cut, cut, stuck, max_crashes=2)
    assert world.calls == ["x"] * 3
    assert len(world.keys["x"]) == 1


def test_kill_ends_it_here_and_now(url: str):
    """What is in flight is evidence only, what waits is dropped; the end is told; a second kill is harmless."""

    async def scene(engine: Engine, clock: ManualClock) -> None:
        world.gates["x"] = asyncio.Event()
        flying = await engine.start(trying, "x", id="a")
        asleep = await engine.start(waiting, id="b")
        await clock.idle()
        for handle in (flying, asleep):
            await engine.kill(handle.id, actor="ann", note="a mistake")
            await engine.kill(handle.id)
            with pytest.raises(RunKilled) as killed:
                await handle.result(10)
            assert killed.value.run_id == handle.id
        world.gates["x"].set()
        await clock.advance(10 * DAY)
        assert world.calls.count("after") == 0
        assert await status(engine) is await status(engine, "b") is RunStatus.KILLED
        assert [entry.actor for entry in await flying.history() if entry.key == "kill"] == ["ann"]
        for verb in (engine.retry, engine.pause, engine.resume):
            with pytest.raises(WrongState):
                await verb("a")

    play(url, scene, ends_with_kill)


async def ends_with_kill(engine: Engine, clock: ManualClock) -> None:
    """In the next process it is still killed."""
    with pytest.raises(RunKilled):
        await (await engine.get("a")).result(10)


def test_a_paused_run_starts_nothing_until_it_is_resumed(url: str):
    """What was in flight ends and is recorded; a wait that falls due stands; over a restart, too; then it goes on."""

    async def pauses(engine: Engine, clock: ManualClock) -> None:
        world.gates["before"] = asyncio.Event()
        await engine.start(waiting, id="a")
        await world.entered.wait()
        await engine.pause("a", actor="ann", note="maintenance")
        await engine.pause("a")
        world.gates["before"].set()
        await clock.idle()
        info = await engine.info("a")
        assert info.paused
        assert [(at.key, at.status) for at in info.steps] == [("work", "succeeded")]

    async def still(engine: Engine, clock: ManualClock) -> None:
        await clock.advance(9 * DAY)
        assert world.calls == ["before"]
        await engine.resume("a")
        await engine.resume("a")
        await clock.advance(4 * DAY)
        assert (await (await engine.get("a")).result(10))[0].startswith("3 days")

    play(url, pauses, still)
    assert world.calls == ["before", "after"]


# -- bodies that break the rules --------------------------------------------------------------------------------------


def broken(body: Callable[..., Any]) -> Durable[[], Any]:
    """A durable function whose body breaks a rule."""
    return durable("broken", version=1)(body)


async def asyncio_itself(ctx: Context) -> None:
    with contextlib.suppress(BaseException):  # swallowing does not help
        await asyncio.sleep(0)
    await ctx.step(work, "never")


async def no_await(ctx: Context) -> None:
    ctx.step(work, "left out")  # type: ignore[unused-coroutine]
    await ctx.step(work, "never")


async def a_coroutine(ctx: Context) -> None:
    await ctx.step(work("called already"))  # type: ignore[call-overload]


async def a_lambda(ctx: Context) -> None:
    await ctx.step(lambda: 1)


async def a_nameless(ctx: Context) -> None:
    await ctx.step(partial(work, "x"))


async def a_durable_as_step(ctx: Context) -> None:
    await ctx.step(inner, "x")


async def a_step_as_child(ctx: Context) -> None:
    await ctx.child(work, "x")  # type: ignore[arg-type]


async def no_lanes(ctx: Context) -> None:
    await ctx.map(work, ["x"], max_concurrency=0)


async def no_block(ctx: Context) -> None:
    p: Any = ctx.parallel()
    p.run(work, "x")


async def a_late_branch(ctx: Context) -> None:
    async with ctx.parallel() as p:
        p.run(work, "fine")
    p.run(work, "never")


async def no_callback(ctx: Context) -> None:
    await ctx.first()


async def no_exception(ctx: Context) -> None:
    raise asyncio.CancelledError


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (asyncio_itself, r"ctx\.sleep"),
        (no_await, "without await"),
        (a_coroutine, "called already"),
        (a_lambda, "no name"),
        (a_nameless, "no name"),
        (a_durable_as_step, r"ctx\.child"),
        (a_step_as_child, "no durable function"),
        (no_lanes, "max_concurrency=0"),
        (no_block, r"async with ctx\.parallel"),
        (a_late_branch, "after its block was left"),
        (no_callback, "no callback"),
        (no_exception, "CancelledError"),
    ],
)
def test_a_body_that_breaks_a_rule_is_stuck_and_told_how_to_mend_it(
    url: str, body: Callable[..., Any], told: str, caplog: pytest.LogCaptureFixture
):
    """It is parked before any further effect, the reason names the call, and a retry with mended code ends it."""
    done = ["fine"] if body is a_late_branch else []

    async def mended(ctx: Context) -> str:
        return await ctx.step(work, "fine") if done else "mended"

    async def main() -> None:
        async with asyncio.timeout(30), Engine(url, [broken(body)]) as engine:
            handle: RunHandle[Any] = await engine.start("broken", id="a")
            with pytest.raises(RunStuck, match=told) as stuck:
                await handle.result(10)
            assert "retry the run" in stuck.value.reason
        assert world.calls == done
        async with Engine(url, [broken(mended)]) as engine:
            await engine.retry("a")
            assert await (await engine.get("a")).result(10) == ("FINE" if done else "mended")

    asyncio.run(main())
    assert world.calls == done


def test_the_context_is_of_no_use_inside_a_step(url: str):
    """An operation that is asked for in a step is refused there, and the journal shows no trace of it."""
    kept: list[Context] = []

    async def naughty() -> str:
        found: list[str] = []
        for use in (
            lambda: kept[0].step(work, "x"),
            lambda: kept[0].sleep(1),
            kept[0].uuid,
            lambda: kept[0].patched("x"),
            lambda: kept[0].callback("x", str),
        ):
            try:
                use()
            except DefinitionError:
                found.append("refused")
        return ",".join(found)

    @durable("naughty", version=1)
    async def body(ctx: Context) -> str:
        kept.append(ctx)
        return await ctx.step(naughty)

    async def scene(engine: Engine, clock: ManualClock) -> None:
        handle = await engine.start(body, id="a")
        assert await handle.result(10) == ",".join(["refused"] * 5)
        assert [entry.kind for entry in await handle.history()] == ["started", "succeeded", "ended"]

    play(url, scene)


# -- declarations and engines ----------------------------------------------------------------------------------------


def test_declarations_are_checked_where_they_stand():
    """Names, versions, options and bodies that cannot work are refused at once; a durable function is not called."""
    wrong: list[Callable[[], Any]] = [
        lambda: durable("")(twice),
        lambda: durable("a/b")(twice),
        lambda: durable("x", version=0)(twice),
        lambda: durable("x", version=True)(twice),
        lambda: durable("x")(hand_out),  # type: ignore[arg-type]
        lambda: durable("x")(world_free),  # type: ignore[arg-type]
        lambda: step(retry=0)(work),
        lambda: step(timeout=0)(work),
        lambda: step(timeout="soon")(work),  # type: ignore[call-overload]
        lambda: step(rejects=(int,))(work),  # type: ignore[call-overload]
        lambda: step(name="a#b")(work),
        lambda: plain(Part("x")),
    ]
    for make in wrong:
        with pytest.raises(DefinitionError):
            make()
    assert asyncio.run(_calls_a_step()) == Part("x", 2)


async def world_free() -> None: ...


async def _calls_a_step() -> Part:
    grow = step(retry=3)(on_a_thread)
    found: Part = await asyncio.to_thread(grow, Part("x"))
    return found


@pytest.mark.parametrize(
    "options",
    [
        {"concurrency": 0},
        {"concurrency": "many"},
        {"max_crashes": 0},
        {"grace": -1},
        {"grace": "soon"},
        {"store_timeout": None},
        {"worker": "yes"},
        {"functions": [work]},
        {"functions": [plain, durable("plain", version=1)(twice)]},
    ],
)
def test_an_engine_refuses_what_makes_no_sense(options: dict[str, Any]):
    """A wrong argument is a `DefinitionError` that names it, before anything is opened."""
    name = next(iter(options))
    with pytest.raises(DefinitionError, match="durable function" if name == "functions" else name):
        Engine("memory://", **options)


def test_calls_that_make_no_sense_are_refused(url: str):
    """An unknown function, arguments that do not fit, a status that is none: nothing is started."""

    async def scene(engine: Engine, clock: ManualClock) -> None:
        wrong: list[Callable[[], Awaitable[Any]]] = [
            lambda: engine.start("unknown"),
            lambda: engine.start("plain", version=9),
            lambda: engine.start(plain),  # type: ignore[call-overload]
            lambda: engine.start(work, "x"),  # type: ignore[call-overload]
            lambda: engine.start(trying, "x", id=""),
            lambda: engine.list(status="happy"),
            lambda: engine.list(since=datetime(2030, 1, 1)),
        ]
        for call in wrong:
            with pytest.raises(DefinitionError):
                await call()
        assert await engine.count() == 0
        handle = await engine.start(trying, "x")
        await handle.result(10)
        for verb in (engine.kill, engine.retry, engine.pause, engine.resume):
            with pytest.raises(WrongState):
                await verb(handle.id)

    play(url, scene)


def test_an_engine_without_a_worker_starts_and_observes(url: str):
    """It starts a run by name, for a worker that has announced it; `result(timeout=)` is told that it goes on."""

    async def main() -> None:
        async with Engine(url, FUNCTIONS):
            pass
        async with Engine(url, worker=False) as front:
            handle = await front.start("trying", "x", id="a")
            assert await status(front) is RunStatus.PENDING
            with pytest.raises(TimeoutError):
                await handle.result(0.01)
            await front.pause("a")
            await front.resume("a")
            async with Engine(url, FUNCTIONS) as back:
                assert await handle.result(10) == "X"
                assert await (await back.get("a")).result(10) == "X"

    asyncio.run(main())


@asynccontextmanager
async def crowded(url: str) -> AsyncIterator[list[RunHandle[Any]]]:
    """Two hundred runs of all kinds at once on one engine."""
    async with asyncio.timeout(60), Engine(url, FUNCTIONS, clock=ManualClock(auto=True)) as engine:
        yield [await engine.start(function) for _ in range(50) for function in (beside, parent, waiting, caught)]


def test_many_runs_at_once_keep_apart(url: str):
    """Two hundred runs at once end each as one alone does."""

    async def main() -> None:
        async with crowded(url) as handles:
            ends = Counter([str(await handle.result()) for handle in handles])
        assert ends == Counter({str(BESIDE): 50, "['X', 'X', 3, 1]": 50, "['3 days, 0:00:00']": 50, "fine": 50})

    asyncio.run(main())
