"""What a run that has ended leaves in its worker: no timer, no attempt, nothing that only a collection could find."""

import asyncio
import gc
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

import durable_core
from durable_core import Context, Engine, PayloadError, durable
from sagas import Orchestrator, Saga, SagaCompensated, lookup, saga, step
from tests.kit import within


class Refused(Exception):
    pass


@step
async def take(number: int) -> int:
    return number


@take.compensate
async def put_back(number: int) -> None: ...


@lookup(rejects=(Refused,))
async def refuse(number: int) -> int:
    raise Refused(number)


@saga("plain", version=1)
async def plain(s: Saga, number: int) -> int:
    return await s.run(take, number)


@saga("in-blocks", version=1)
async def in_blocks(s: Saga, number: int) -> int:
    async with s.savepoint("part"), s.parallel() as p:
        p.run(take, number)
        p.run(plain, number)
    return sum(await s.map(take, [number, number]))


@saga("rolled-back", version=1)
async def rolled_back(s: Saga, number: int) -> int:
    await s.run(take, number)
    return await s.run(refuse, number)


@saga("cancelled", version=1)
async def cancelled(s: Saga, number: int) -> None:
    await s.run(take, number)
    await s.sleep(number + 3600)


@pytest.fixture
def collected() -> Any:
    """What a collection finds of ours that reference counts had not freed."""
    gc.collect()
    gc.disable()

    def found() -> Counter[str]:
        gc.set_debug(gc.DEBUG_SAVEALL)
        gc.collect()
        gc.set_debug(0)
        ours = [
            type(each) for each in gc.garbage if type(each).__module__.partition(".")[0] in {"sagas", "durable_core"}
        ]
        gc.garbage.clear()
        return Counter(kind.__qualname__ for kind in ours)

    yield found
    gc.enable()


@pytest.mark.parametrize("body", [plain, in_blocks, rolled_back, cancelled], ids=lambda body: body.name)
def test_an_ended_saga_is_freed_at_once(body: Any, collected: Callable[[], Counter[str]]) -> None:
    """However it ends, a saga leaves no circle: a worker's memory does not wait for a full collection."""

    async def many() -> None:
        async with Orchestrator("memory://", sagas=[body]) as orchestrator:
            for number in range(5):
                handle = await orchestrator.start(body, number)
                if body is cancelled:
                    await handle.cancel()
                try:
                    await handle.result()
                except SagaCompensated:
                    assert body in (rolled_back, cancelled)
            del handle
            await asyncio.sleep(0)  # what the last answer has scheduled
            assert collected() == {}

    asyncio.run(many())


def test_a_worker_settles_its_collector_and_leaves_what_a_user_has_set() -> None:
    """`sagas worker` collects less often, unless one of its modules has its own mind about that."""
    code = "import gc; {}from sagas.cli import worker; worker.settle_gc(); "
    code += "print(gc.get_threshold()[0], gc.get_freeze_count() > 0)"

    def settled(before: str) -> list[str]:
        return subprocess.run(
            [sys.executable, "-c", code.format(before)], check=True, capture_output=True, text=True
        ).stdout.split()

    assert settled("") == ["10000", "True"]
    assert settled("gc.set_threshold(5000, 10, 10); ") == ["5000", "True"]


# -- timers and attempts ----------------------------------------------------------------------------------------------

MONTH = timedelta(days=30)


@durable_core.step
async def nothing() -> int:
    return 1


class Contrary(float):
    """A number that refuses to be compared."""

    __hash__ = float.__hash__

    def __eq__(self, other: object) -> bool:
        raise ValueError("not comparable")


@durable_core.step
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


async def test_no_timer_of_a_callback_that_was_answered() -> None:
    """Also where the run had left memory while it waited, and was loaded again with the answer."""
    async with Engine("memory://", [approved]) as engine:
        handle = await engine.start(approved, id="a")
        while (await handle.info()).status != "waiting":  # noqa: ASYNC110 - a row can only be looked at
            await asyncio.sleep(0)
        await engine.complete_callback(value=7, run_id="a", name="ok")
        assert await within(handle.result(), engine) == 7
        assert armed(engine) == []


async def test_no_timer_of_a_callback_that_nobody_waited_for() -> None:
    """The run has ended in the very drive in which it asked."""
    async with Engine("memory://", [forgets]) as engine:
        handle = await engine.start(forgets, id="a")
        assert await within(handle.result(), engine) == 1
        assert armed(engine) == []


async def test_no_attempt_whose_result_raised_as_it_was_stored() -> None:
    """A result of a type that raises as it is compared is one that cannot be stored, and nothing stays in flight."""
    async with Engine("memory://", [contradicts]) as engine:
        handle = await engine.start(contradicts, id="a")
        with pytest.raises(PayloadError, match="not comparable"):
            await within(handle.result(), engine)
        assert engine.runs.under_way() == 0
