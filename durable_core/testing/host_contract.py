"""What every host must do, as tests: subclass ``HostContract`` in a test module and say how your host is made.

Each test's docstring is a rule; the suite runs unchanged on every host. ``MemoryHost`` is the smallest that keeps them.
"""
# ruff: noqa: S101, PLR2004, D103 - a test suite asserts, its numbers are examples, and its steps explain themselves

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from durable_core.context import Binder, Context
from durable_core.dsl import durable, step
from durable_core.errors import CallbackTimeout
from durable_core.model.codec import Codec
from durable_core.model.durable import Durable
from durable_core.model.entry import Entry
from durable_core.model.retry import Retry
from durable_core.model.run import RunStatus
from durable_core.model.spec import DurableFunction
from durable_core.testing.store_rows import in_loop


class Host(Protocol):
    """A host with one run, as the suite plays it."""

    async def drive(self, until: str | None = None) -> Any:
        """Let everything happen until the run ends, is stuck or waits; or wants the operation ``until``."""
        ...

    def derive(self, inputs: int | None = None) -> Any:
        """The run, derived anew from the first so many of the kept inputs; default all."""
        ...

    @property
    def kept(self) -> Sequence[Any]:
        """The inputs that the host keeps."""
        ...

    def tell(self, verb: str, **payload: Any) -> None:
        """Send a signal."""
        ...

    def answer(self, key: str, value: Any, *, failed: bool = False) -> None:
        """Answer a callback."""
        ...

    async def lose(self, op: str) -> None:
        """The process of this call dies."""
        ...


MakeHost = Callable[..., Host]
"""Makes a host that runs this function with these arguments."""


def function_of(body: Durable[..., Any], codec: Codec) -> DurableFunction:
    """What a host runs for a durable function."""
    return Binder(codec).function(body)


def assert_derived_alike(host: Host) -> None:
    """Whatever prefix of the kept inputs is fed to a fresh run, its journal is the beginning of the whole one."""
    whole: list[Entry] = host.derive().journal
    for inputs in range(len(host.kept) + 1):
        part = host.derive(inputs).journal
        assert part == whole[: len(part)], f"after {inputs} inputs"


log: list[str] = []
"""What the steps of the suite have done in the test under way."""


@step
async def book(name: str) -> str:
    log.append(name)
    return f"{name} booked"


@step(retry=Retry(attempts=3, first=1.0))
async def flaky(name: str) -> str:
    log.append(name)
    if log.count(name) < 3:
        raise OSError(name)
    return f"{name} at last"


@step(at_most_once=True)
async def once(name: str) -> str:
    log.append(name)
    return name


@durable("steps", version=1)
async def steps(ctx: Context, first: str) -> list[str]:
    return [await ctx.step(book, first), await ctx.step(book, "b"), await ctx.step(flaky, "c")]


@durable("beside", version=1)
async def beside(ctx: Context) -> list[str]:
    async with ctx.parallel() as p:
        branches = [p.run(book, "x"), p.run(flaky, "y"), p.run(sleeper, 5.0)]
    return [branch.result() for branch in branches]


async def sleeper(ctx: Context, span: float) -> str:
    await ctx.sleep(span)
    return await ctx.step(book, "z")


@durable("asks", version=1)
async def asks(ctx: Context) -> str:
    asked = await ctx.callback("more", int, timeout=60.0)
    try:
        return f"{await asked.result()} more"
    except CallbackTimeout:
        return "no answer"


@durable("parent", version=1)
async def parent(ctx: Context) -> str:
    done: list[str] = await ctx.child(steps, "a")
    return " and ".join(done)


@durable("careful", version=1)
async def careful(ctx: Context) -> str:
    return await ctx.step(once, "o")


class HostContract:
    """The rules. A subclass gives ``host(body, *args)``."""

    def host(self, body: Durable[..., Any], *args: Any) -> Host:
        """A fresh host for one run of ``body``."""
        raise NotImplementedError

    def _host(self, body: Durable[..., Any], *args: Any) -> Host:
        log.clear()
        return self.host(body, *args)

    @in_loop
    async def test_steps_and_retries(self) -> None:
        """Each step is called once, a failing one again after its delay; the result is the body's."""
        host = self._host(steps, "a")
        run = await host.drive()
        assert (run.end, run.record.output) == (RunStatus.COMPLETED, b'["a booked","b booked","c at last"]')
        assert log == ["a", "b", "c", "c", "c"]
        assert_derived_alike(host)

    @in_loop
    async def test_branches_beside_each_other(self) -> None:
        """Steps, retries and a sleep at the same time are derived in the order in which they ended."""
        host = self._host(beside)
        run = await host.drive()
        assert run.record.output == b'["x booked","y at last","z booked"]'
        assert sorted(log) == ["x", "y", "y", "y", "z"]
        assert_derived_alike(host)

    @in_loop
    async def test_an_answer(self) -> None:
        """A callback is answered from outside; a second answer changes nothing."""
        host = self._host(asks)
        await host.drive(until="callback more")
        host.answer("more", 3)
        host.answer("more", 4)
        assert (await host.drive()).record.output == b'"3 more"'
        assert_derived_alike(host)

    @in_loop
    async def test_an_answer_of_another_type(self) -> None:
        """It is not taken, and the run keeps waiting."""
        host = self._host(asks)
        await host.drive(until="callback more")
        host.answer("more", "many")
        run = await host.drive(until="callback more")
        assert run.end is None
        host.answer("more", 2)
        assert (await host.drive()).record.output == b'"2 more"'
        assert_derived_alike(host)

    @in_loop
    async def test_no_answer_in_time(self) -> None:
        """The timeout of a callback ends its wait."""
        host = self._host(asks)
        await host.drive(until="callback more")
        assert (await host.drive()).record.output == b'"no answer"'
        assert_derived_alike(host)

    @in_loop
    async def test_a_child(self) -> None:
        """A child runs within its parent, under keys of its own."""
        host = self._host(parent)
        run = await host.drive()
        assert run.record.output == b'"a booked and b booked and c at last"'
        assert {entry.key for entry in run.journal if entry.kind == "started"} == {
            "steps/book",
            "steps/book#2",
            "steps/flaky",
        }
        assert_derived_alike(host)

    @in_loop
    async def test_a_call_that_is_lost(self) -> None:
        """A call whose process died is made again, under the next attempt's number."""
        host = self._host(steps, "a")
        await host.drive(until="book")
        await host.lose("book")
        run = await host.drive()
        assert run.end is RunStatus.COMPLETED
        assert [entry.attempt for entry in run.journal if entry.key == "book"][-1] == 2
        assert_derived_alike(host)

    @in_loop
    async def test_a_lost_call_of_at_most_once(self) -> None:
        """It is not made again: its outcome is unknown, and the body sees that."""
        host = self._host(careful)
        await host.drive(until="once")
        await host.lose("once")
        run = await host.drive()
        assert run.end is RunStatus.FAILED
        assert len(log) <= 1
        assert_derived_alike(host)

    @in_loop
    async def test_a_kill_amid_a_call(self) -> None:
        """The run ends at once; what the call returns later is kept as evidence and changes nothing."""
        host = self._host(steps, "a")
        await host.drive(until="book")
        host.tell("kill")
        await asyncio.sleep(0)
        run = await host.drive()
        assert run.end is RunStatus.KILLED
        assert_derived_alike(host)

    @in_loop
    async def test_pause_and_resume(self) -> None:
        """A paused run starts no step; resumed, it goes on."""
        host = self._host(steps, "a")
        await host.drive(until="book")
        host.tell("pause")
        run = await host.drive()
        assert (run.end, run.record.paused) == (None, True)
        assert log == ["a"]
        host.tell("resume")
        assert (await host.drive()).end is RunStatus.COMPLETED
        assert_derived_alike(host)

    @in_loop
    async def test_operations_of_other_code(self) -> None:
        """What the host holds and the code never asks for is a fault, before anything is called."""
        host = self._host(steps, "a")
        run = await host.drive()
        assert run.unfit(["book", "flaky (attempt 2)"]) is None
        assert run.unfit(["book", "ship"]) is not None
