"""The durable core by itself: functions that checkpoint, wait, branch and go on after a restart, without any saga.

Nothing here imports ``sagas``: `test_core_alone.py` beside it runs this file where that cannot be imported.
"""

import asyncio
import logging
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

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
    RunExists,
    RunNotFound,
    RunStatus,
    StepTimeout,
    durable,
    step,
)
from durable_core.testing import ManualClock
from tests.behaviour.core.core_scenes import (
    BESIDE,
    DAY,
    FUNCTIONS,
    Approval,
    Broken,
    Part,
    asking,
    beside,
    careful,
    caught,
    chance,
    changed,
    ends_with,
    engine_of,
    inner,
    loud,
    mapping,
    on_one_engine,
    parent,
    plain,
    play,
    racing,
    status,
    trying,
    waiting,
    with_gates_open,
    work,
    world,
)

# -- steps -----------------------------------------------------------------------------------------------------------


@on_one_engine
async def test_steps_are_run_and_values_come_back_typed(engine: Engine, clock: ManualClock):
    """Async and plain steps, arguments and results by annotation, by name as well as by object; info and history."""
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


@on_one_engine
async def test_the_same_id_is_the_same_run(engine: Engine, clock: ManualClock):
    """Starting it again with the same input gives the run that there is; other input is refused; so is no such id."""
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


@on_one_engine
async def test_a_step_that_is_given_up_raises_what_it_raised_last(engine: Engine, clock: ManualClock):
    """After its last attempt the step's exception reaches the body, and nothing else happens: nothing is undone."""
    world.failures["x"] = 3

    handle = await engine.start(trying, "x", id="a")
    await clock.advance(60)
    with pytest.raises(Broken):
        await handle.result(10)
    assert world.calls == ["x"] * 3


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


@on_one_engine
async def test_a_timeout_ends_an_attempt(engine: Engine, clock: ManualClock):
    """After `timeout=` the attempt is cancelled and the body sees `StepTimeout`, which is a `TimeoutError`."""

    @durable("hasty", version=1)
    async def hasty(ctx: Context) -> str:
        try:
            return await ctx.step(step(timeout=5)(work), "x")
        except StepTimeout as late:
            return type(late).__name__ if isinstance(late, TimeoutError) else "wrong"

    world.gates["x"] = asyncio.Event()
    handle = await engine.start(hasty, id="a")
    await world.entered.wait()
    await clock.advance(6)
    assert await handle.result(10) == "StepTimeout"


@on_one_engine
async def test_what_cannot_be_stored_is_refused_by_name(engine: Engine, clock: ManualClock):
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

    for where, told in (("step", "'odd'"), ("argument", "'partial_work'"), ("body", "the result")):
        handle = await engine.start(odd_result, where)
        with pytest.raises(PayloadError, match=told):
            await handle.result(10)
        assert (await handle.info()).status is RunStatus.FAILED
    with pytest.raises(PayloadError):
        await engine.start(plain, object())  # type: ignore[arg-type]


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


@on_one_engine
async def test_a_callback_is_answered_by_name_or_with_a_failure(engine: Engine, clock: ManualClock):
    """By run and name instead of the token; a failure reaches the body as `CallbackFailed`; half a name is refused."""
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


@on_one_engine
async def test_branches_run_beside_each_other(engine: Engine, clock: ManualClock):
    """Steps, branches of several steps and durable functions begin together, and each has its own result."""
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


@on_one_engine
async def test_the_first_failure_ends_the_block(engine: Engine, clock: ManualClock):
    """Nothing new begins beside a failure, waits end at once, what is in flight ends first; that failure is raised."""
    world.failures["bad"] = 1

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


@pytest.mark.parametrize("kind", ["step", "branch", "durable"])
@pytest.mark.parametrize("width", [None, 1, 2])
@on_one_engine
async def test_a_map_keeps_the_order_and_its_width(engine: Engine, clock: ManualClock, kind: str, width: int | None):
    """Results come in the order of the items, and no more than `max_concurrency` are under way."""
    names = [f"n{number}" for number in range(5)]

    handle = await engine.start(mapping, names, kind, width, id="a")
    found = await handle.result(10)
    assert found == [name.upper() + (f"{name}-again".upper() if kind == "branch" else "") for name in names]
    assert world.most == (width or 5)
    empty = await engine.start(mapping, [], kind, width)
    assert await empty.result(10) == []


@on_one_engine
async def test_a_child_is_a_scope_of_its_parents_run(engine: Engine, clock: ManualClock):
    """Its steps have keys under its name, its version is its own, its result typed; a failure is its own exception."""
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


FOUR = ["n0", "n1", "n2", "n3"]
CUT: dict[str, tuple[Durable[..., Any], tuple[Any, ...], list[str], Any, list[str]]] = {
    "branches": (beside, (), ["b", "c"], BESIDE, ["a", "b", "c", "b-again", "last"]),
    "a map of steps": (mapping, (FOUR, "step", 1), ["n2"], ["N0", "N1", "N2", "N3"], FOUR),
    "a map of branches": (
        mapping, (FOUR, "branch", 1), ["n2"], [f"N{n}N{n}-AGAIN" for n in range(4)],
        [*FOUR, *(f"{n}-again" for n in FOUR)],
    ),
    "a map of functions": (mapping, (FOUR, "durable", 1), ["n2"], ["N0", "N1", "N2", "N3"], FOUR),
    "a child": (parent, (), ["y"], ["X", "X", 3, 1], ["x", "x", "y"]),
}  # fmt: skip
"""The function and its input, the steps that are cut, its end, and the steps that it takes undisturbed."""


@pytest.mark.parametrize("amid", CUT)
def test_a_restart_repeats_only_what_was_cut(url: str, amid: str):
    """Of branches, items and children: what had ended is not done again; what was cut is, under its own key."""
    function, given, held, end, calls = CUT[amid]

    async def cut(engine: Engine, clock: ManualClock) -> None:
        world.gates.update(dict.fromkeys(held, asyncio.Event()))
        await engine.start(function, *given, id="a")
        await clock.idle()
        assert set(held) <= set(world.calls)

    play(url, cut, with_gates_open(ends_with(end)))
    assert Counter(world.calls) == Counter([*calls, *held])
    assert all(len(world.keys[name]) == 1 for name in held)


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

        await engine_of(url, changed(patched=False), clock, begins)
        await engine_of(url, changed(patched=True), clock, stops_at)
        await engine_of(url, changed(patched=True), clock, ends)

    asyncio.run(main())
    assert Counter(world.calls) == Counter(["x", "x", "new", "new", "old"])
