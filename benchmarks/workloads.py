"""The workloads W1 to W4, and the list of all: what is timed, and nothing else.

Each runs in a process of its own on a new store, checks that every saga ended as it should, and returns plain figures.
"""

import asyncio
import contextlib
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

from benchmarks.killed import w5
from benchmarks.orders import Order, Receipt, order, undo
from benchmarks.waiting import w6
from sagas import Orchestrator, Saga, SagaCompensated, saga, step, tracing


class Refused(Exception):
    """The fourth step's answer in W3."""


async def effect(order: Order) -> Receipt:
    """What a step does: nothing, so that only the engine is measured."""
    return Receipt(order.id, order.amount)


def _step(name: str) -> Any:
    declared = step(name=name)(effect)
    declared.compensate(undo)
    return declared


reserve, charge, pack, ship = (_step(name) for name in ("reserve", "charge", "pack", "ship"))


@step(name="refuse", rejects=(Refused,))
async def refuse(order: Order) -> Receipt:
    """The fourth step of W3."""
    raise Refused(order.id)


refuse.compensate(undo)


@saga("four-steps", version=1)
async def four_steps(s: Saga, order: Order) -> Receipt:
    """W1 and W2."""
    await s.run(reserve, order)
    await s.run(charge, order)
    await s.run(pack, order)
    return await s.run(ship, order)


@saga("rejected", version=1)
async def rejected(s: Saga, order: Order) -> None:
    """W3: three steps are done and undone."""
    await s.run(reserve, order)
    await s.run(charge, order)
    await s.run(pack, order)
    await s.run(refuse, order)


@saga("long", version=1)
async def long(s: Saga, order: Order, steps: int) -> int:
    """W4."""
    for _ in range(steps):
        await s.run(reserve, order)
    return steps


@contextlib.contextmanager
def watch() -> Iterator[Callable[[], float]]:
    """Seconds since entry."""
    began = time.perf_counter()
    yield lambda: time.perf_counter() - began


async def w1(url: str, sagas: int = 300) -> dict[str, float]:
    """Sagas of four steps, one after another: latency."""
    times: list[float] = []
    async with Orchestrator(url, sagas=[four_steps]) as orchestrator:
        for number in range(sagas + 20):
            with watch() as seconds:
                handle = await orchestrator.start(four_steps, order(number))
                await handle.result()
                times.append(seconds())
        times = sorted(times[20:])
    return {"p50_ms": statistics.median(times) * 1e3, "p99_ms": times[int(len(times) * 0.99)] * 1e3}


async def w2(url: str, sagas: int = 2000, prefix: str = "") -> dict[str, float]:
    """Sagas of four steps, all at once: throughput. With a ``prefix``, beside other processes."""
    async with Orchestrator(url, sagas=[four_steps]) as orchestrator:
        await asyncio.gather(*[_whole(orchestrator, -1 - number, prefix) for number in range(20)])
        with watch() as seconds:
            await asyncio.gather(*[_whole(orchestrator, number, prefix) for number in range(sagas)])
            took = seconds()
        assert prefix or await orchestrator.count(status="completed") == sagas + 20
    return {"sagas_s": sagas / took, "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}


@contextlib.contextmanager
def exporting(sampler: str) -> Iterator[None]:
    """Traces are sent by OTLP to a collector in a process of its own."""
    os.environ["OTEL_TRACES_SAMPLER"] = sampler
    with subprocess.Popen([sys.executable, "-m", "benchmarks.collector"], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        tracing.configure(f"http://127.0.0.1:{int(process.stdout.readline())}")
        try:
            yield
        finally:
            process.kill()


async def w2_exported(url: str, sagas: int = 2000) -> dict[str, float]:
    """W2 with every span exported: until the sagas have ended, and until the collector has the last span."""
    with exporting("always_on"):
        async with Orchestrator(url, sagas=[four_steps]) as orchestrator:
            exporter = orchestrator.engine.exporter
            assert exporter is not None
            await asyncio.gather(*[_whole(orchestrator, -1 - number) for number in range(20)])
            with watch() as seconds:
                await asyncio.gather(*[_whole(orchestrator, number) for number in range(sagas)])
                ended = seconds()
                while exporter.tally.sent < 6 * (sagas + 20):  # noqa: ASYNC110 - it is a counter
                    await asyncio.sleep(0.005)
                took = seconds()
    return {"sagas_s": sagas / ended, "exported_s": sagas / took}


async def w2_left_out(url: str) -> dict[str, float]:
    """W2 with tracing on and no saga sampled."""
    with exporting("always_off"):
        return {"sagas_s": (await w2(url))["sagas_s"]}


async def _whole(orchestrator: Orchestrator, number: int, prefix: str = "") -> Receipt:
    handle = await orchestrator.start(four_steps, order(number), id=f"order-{prefix}{number}")
    return await handle.result()


async def w3(url: str, sagas: int = 1000) -> dict[str, float]:
    """Sagas whose fourth step is rejected, all at once: three compensations each."""
    async with Orchestrator(url, sagas=[rejected]) as orchestrator:
        with watch() as seconds:
            await asyncio.gather(*[_undone(orchestrator, number) for number in range(sagas)])
            took = seconds()
        assert await orchestrator.count(status="compensated") == sagas
    return {"sagas_s": sagas / took}


async def _undone(orchestrator: Orchestrator, number: int) -> None:
    handle = await orchestrator.start(rejected, order(number), id=f"order-{number}")
    try:
        await handle.result()
    except SagaCompensated as error:
        assert error.compensated == ["pack", "charge", "reserve"]  # noqa: PT017 - a check, not a test
    else:
        raise AssertionError("it was not rolled back")


async def w4(url: str) -> dict[str, float]:
    """One saga of many steps: the cost of a step must not grow with their number."""
    figures: dict[str, float] = {}
    async with Orchestrator(url, sagas=[long]) as orchestrator:
        for steps in (100, 1000, 5000):
            with watch() as seconds:
                handle = await orchestrator.start(long, order(0), steps)
                assert await handle.result() == steps
                figures[f"us_per_step_{steps}"] = seconds() / steps * 1e6
    return figures


WORKLOADS: dict[str, Callable[[str], Awaitable[dict[str, float]]]] = {
    "W1": w1,
    "W2": w2,
    "W2-exported": w2_exported,
    "W2-left-out": w2_left_out,
    "W3": w3,
    "W4": w4,
    "W5": w5,
    "W6": w6,
}


def store_in(folder: Path) -> str:
    """A fresh SQLite file in ``folder``."""
    return f"sqlite:///{folder / 'bench.db'}"
