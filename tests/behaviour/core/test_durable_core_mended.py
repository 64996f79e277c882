"""The durable core by itself: what needs a person, what an operator may do, and mistakes that are refused.

Nothing here imports ``sagas``: `test_core_alone.py` beside it runs this file where that cannot be imported.
"""

import asyncio
import contextlib
import logging
from collections import Counter
from collections.abc import Awaitable, Callable
from datetime import datetime
from functools import partial
from typing import Any

import pytest

from durable_core import (
    Context,
    DefinitionError,
    Durable,
    Engine,
    RunHandle,
    RunInfo,
    RunKilled,
    RunStatus,
    RunStuck,
    WrongState,
    durable,
    step,
)
from durable_core.testing import ManualClock
from tests.behaviour.core.core_scenes import (
    BESIDE,
    DAY,
    FUNCTIONS,
    Part,
    beside,
    caught,
    changed,
    hand_out,
    inner,
    on_a_thread,
    on_one_engine,
    parent,
    plain,
    play,
    status,
    trying,
    twice,
    waiting,
    work,
    world,
)

# -- mending ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("listening", [True, False])
def test_code_that_does_not_fit_parks_its_run_before_any_effect(
    url: str, caplog: pytest.LogCaptureFixture, *, listening: bool
):
    """Other code under the same version: the run is stuck, nothing is called; with the old code and a retry it ends.

    It is one error of the logger `durable_core`, with the reason, beside `on_attention` and without it.
    """
    told: list[RunInfo] = []
    old = changed(patched=False)

    @durable("changing", version=1)
    async def other(ctx: Context) -> str:
        return await ctx.step(work, "other")

    async def listener(info: RunInfo) -> None:
        told.append(info)

    async def main() -> None:
        clock = ManualClock()
        async with Engine(url, [old], clock=clock) as engine:
            await engine.start("changing", id="a")
            await clock.idle()
        async with Engine(url, [other], clock=clock, on_attention=listener if listening else None) as engine:
            await clock.advance(DAY)
            with pytest.raises(RunStuck) as stuck:
                await (await engine.get("a")).result(10)
            assert "[DC101]" in stuck.value.reason
            assert stuck.value.steps == ()
            assert [info.id for info in await engine.list(attention=True)] == ["a"]
            await engine.retry("a", actor="ann", note="too early")
            with pytest.raises(RunStuck):
                await (await engine.get("a")).result(10)
        assert {(info.id, info.status) for info in told} == ({("a", RunStatus.STUCK)} if listening else set())
        assert world.calls == ["x"]
        async with Engine(url, [old], clock=clock) as engine:
            await engine.retry("a", actor="ann", note="the old code is back")
            assert await (await engine.get("a")).result(10) == "OLD"
            noted = [(entry.actor, entry.note) for entry in await (await engine.get("a")).history() if entry.actor]
            assert noted == [("ann", "too early"), ("ann", "the old code is back")]

    asyncio.run(main())
    assert world.calls == ["x", "old"]
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


async def no_block(ctx: Context) -> None:
    p: Any = ctx.parallel()
    p.run(work, "x")


async def a_late_branch(ctx: Context) -> None:
    async with ctx.parallel() as p:
        p.run(work, "fine")
    p.run(work, "never")


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
        (no_block, r"async with ctx\.parallel"),
        (a_late_branch, "after its block was left"),
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


@on_one_engine
async def test_the_context_is_of_no_use_inside_a_step(engine: Engine, clock: ManualClock):
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

    handle = await engine.start(body, id="a")
    assert await handle.result(10) == ",".join(["refused"] * 5)
    assert [entry.kind for entry in await handle.history()] == ["started", "succeeded", "ended"]


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


@on_one_engine
async def test_calls_that_make_no_sense_are_refused(engine: Engine, clock: ManualClock):
    """An unknown function, arguments that do not fit, a status that is none: nothing is started."""
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


def test_many_runs_at_once_keep_apart(url: str):
    """Two hundred runs at once end each as one alone does."""

    async def main() -> None:
        async with asyncio.timeout(100), Engine(url, FUNCTIONS, clock=ManualClock(auto=True)) as engine:
            handles = [
                await engine.start(function) for _ in range(50) for function in (beside, parent, waiting, caught)
            ]
            ends = Counter([str(await handle.result()) for handle in handles])
        assert ends == Counter({str(BESIDE): 50, "['X', 'X', 3, 1]": 50, "['3 days, 0:00:00']": 50, "fine": 50})

    asyncio.run(main())
