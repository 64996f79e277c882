"""What the tests of the durable core play: steps under a test's control, functions, and engines one after the other.

Invariant: nothing here imports ``sagas``.
"""

import asyncio
import inspect
import threading
from collections.abc import Awaitable, Callable
from datetime import timedelta
from functools import partial
from typing import Any

import attrs
import pytest

from durable_core import (
    Context,
    Durable,
    Engine,
    Retry,
    RunStatus,
    StepInterrupted,
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


def on_one_engine(scene: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    """A test that is one scene; it may have parameters of its own."""

    def played(**given: Any) -> None:
        play(given.pop("url"), partial(scene, **given))

    own = list(inspect.signature(scene).parameters.values())[2:]
    url = inspect.Parameter("url", inspect.Parameter.KEYWORD_ONLY)
    taken = [url, *(each.replace(kind=url.kind) for each in own)]
    played.__signature__ = inspect.Signature(taken)  # type: ignore[attr-defined]  # pytest asks for it
    played.__doc__ = scene.__doc__
    return played


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


BESIDE = ["A", "BB-AGAIN", 3, 2, "LAST"]


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


def with_gates_open(scene: Scene) -> Scene:
    """The next process finds nothing that holds its steps up."""

    async def opened(engine: Engine, clock: ManualClock) -> None:
        for gate in world.gates.values():
            gate.set()
        await scene(engine, clock)

    return opened


def changed(*, patched: bool) -> Durable[[], str]:
    """The same function before and after a change behind `patched`."""

    @durable("changing", version=1)
    async def before(ctx: Context) -> str:
        await ctx.step(work, "x")
        await ctx.sleep(DAY)
        return await ctx.step(work, "old")

    @durable("changing", version=1)
    async def after(ctx: Context) -> str:
        await ctx.step(work, "x")
        if ctx.patched("newer"):
            return await ctx.step(work, "new")
        await ctx.sleep(DAY)
        return await ctx.step(work, "old")

    return after if patched else before


async def engine_of(url: str, function: Durable[..., Any], clock: ManualClock, scene: Scene) -> None:
    """An engine that serves one function."""
    async with asyncio.timeout(30), Engine(url, [function], clock=clock, grace=0) as engine:
        await scene(engine, clock)
