"""Sagas and durable functions side by side: each layer refuses the other's declarations, and they may share a store."""

from collections.abc import Callable
from typing import Any

import pytest

import durable_core
from durable_core import Context, Engine, RunStuck, durable
from sagas import Orchestrator, Saga, SagaNotFound, SagaStatus, SagaStuck, lookup, saga

CALLS: list[str] = []


@lookup
def looked() -> None:
    CALLS.append("looked")


@durable_core.step
def stepped() -> None:
    CALLS.append("stepped")


@durable("function", version=1)
async def function(ctx: Context, *, fails: bool = False) -> str:
    if fails:
        raise ValueError("of its own accord")
    return "done"


@saga("a-saga", version=1)
async def a_saga(s: Saga) -> str:
    return "done"


async def a_sagas_step(ctx: Context) -> None:
    await ctx.step(looked)


async def a_sagas_step_beside(ctx: Context) -> None:
    async with ctx.parallel() as p:
        p.run(looked)


async def a_sagas_step_mapped(ctx: Context) -> None:
    await ctx.map(looked, [1])  # type: ignore[arg-type]


async def a_saga_as_child(ctx: Context) -> None:
    await ctx.child(a_saga)  # type: ignore[arg-type]


async def a_saga_as_step(ctx: Context) -> None:
    await ctx.step(a_saga)


async def a_cores_step(s: Saga) -> None:
    await s.run(stepped)  # type: ignore[call-overload]


async def a_cores_function(s: Saga) -> None:
    await s.run(function)  # type: ignore[call-overload]


async def a_cores_step_beside(s: Saga) -> None:
    async with s.parallel() as p:
        p.run(stepped)  # type: ignore[call-overload]


CORES = [a_sagas_step, a_sagas_step_beside, a_sagas_step_mapped, a_saga_as_child, a_saga_as_step]
SAGAS = [a_cores_step, a_cores_function, a_cores_step_beside]


@pytest.mark.parametrize("body", [*CORES, *SAGAS])
async def test_each_layer_refuses_what_is_declared_for_the_other(body: Callable[..., Any]):
    """A saga's step has a meaning that the core would drop in silence; one of the core tells of no compensation.

    The run, or the saga, is stuck, and nothing is called.
    """
    CALLS.clear()
    layer, declare, stuck = (Engine, durable, RunStuck) if body in CORES else (Orchestrator, saga, SagaStuck)
    async with layer("memory://") as running:
        handle = await running.start(declare("wrong", version=1)(body))
        with pytest.raises(stuck):
            await handle.result()
    assert CALLS == []


async def test_both_may_share_a_store(url: str):
    """Each is driven by its own; sagas do not take a failed run of the core for a saga, nor fail on it."""
    async with Engine(url) as engine, Orchestrator(url) as orchestrator:
        assert await (await engine.start(function, id="f")).result() == "done"
        assert await (await orchestrator.start(a_saga, id="s")).result() == "done"
        with pytest.raises(ValueError, match="of its own accord"):
            await (await engine.start(function, fails=True, id="failed")).result()
        assert {info.id: info.status for info in await orchestrator.list()}["s"] is SagaStatus.COMPLETED
        assert "failed" not in {info.id for info in await orchestrator.list()}
        with pytest.raises(SagaNotFound):
            await orchestrator.info("failed")
        assert {info.id for info in await engine.list()} == {"f", "s", "failed"}
