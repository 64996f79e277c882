"""What a run that has ended leaves in its worker: no timer, no attempt, nothing that keeps it in memory."""

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from durable_core import Context, Engine, PayloadError, durable, step
from tests.kit import within

MONTH = timedelta(days=30)


@step
async def nothing() -> int:
    return 1


class Contrary(float):
    """A number that refuses to be compared."""

    __hash__ = float.__hash__

    def __eq__(self, other: object) -> bool:
        raise ValueError("not comparable")


@step
async def contrary() -> float:
    return Contrary(5)


@durable("approved", version=1)
async def approved(ctx: Context) -> int:
    asked = await ctx.callback("ok", int, timeout=MONTH)
    answer = await asked.result()
    await ctx.step(nothing)
    return answer


@durable("forgets", version=1)
async def forgets(ctx: Context) -> int:
    await ctx.callback("ok", int, timeout=MONTH)
    return 1


@durable("contradicts", version=1)
async def contradicts(ctx: Context) -> float:
    return await ctx.step(contrary)


def armed(engine: Engine) -> list[Any]:
    """What the worker has a timer for."""
    process: Any = engine.runs._process
    return list(process.worker._timers._timers)


def test_no_timer_of_a_callback_that_was_answered() -> None:
    """Also where the run had left memory while it waited, and was loaded again with the answer."""

    async def main() -> None:
        async with Engine("memory://", [approved]) as engine:
            handle = await engine.start(approved, id="a")
            while (await handle.info()).status != "waiting":  # noqa: ASYNC110 - a row can only be looked at
                await asyncio.sleep(0)
            await engine.complete_callback(value=7, run_id="a", name="ok")
            assert await within(handle.result(), engine) == 7
            assert armed(engine) == []

    asyncio.run(main())


def test_no_timer_of_a_callback_that_nobody_waited_for() -> None:
    """The run has ended in the very drive in which it asked."""

    async def main() -> None:
        async with Engine("memory://", [forgets]) as engine:
            handle = await engine.start(forgets, id="a")
            assert await within(handle.result(), engine) == 1
            assert armed(engine) == []

    asyncio.run(main())


def test_no_attempt_whose_result_raised_as_it_was_stored() -> None:
    """A result of a type that raises as it is compared is one that cannot be stored, and nothing stays in flight."""

    async def main() -> None:
        async with Engine("memory://", [contradicts]) as engine:
            handle = await engine.start(contradicts, id="a")
            with pytest.raises(PayloadError, match="not comparable"):
                await within(handle.result(), engine)
            assert engine.runs.under_way() == 0

    asyncio.run(main())
