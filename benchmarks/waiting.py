"""W6: a hundred thousand sagas that wait, then ten thousand that fall due within one second.

Two processes: the first starts the sagas and leaves; the second finds them on the file, resumes those that fall due,
and takes the answers that others wait for. A third one has as many sagas sleep only briefly.
"""

import asyncio
import json
import resource
import statistics
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import attrs

from sagas import Orchestrator, Saga, SagaStatus, lookup, retriable, saga

BRIEF_S = 3.0
"""The sleep of a saga that may stay in memory."""
FAR = timedelta(days=30)
TOGETHER = 500
"""How many starts or answers are under way at once."""
LATE_NS: list[int] = []
"""How late each saga went on, in this process."""


@attrs.frozen
class Due:
    """When a saga should go on, in ns since the epoch."""

    at_ns: int


@lookup
async def went_on(due: Due) -> int:
    """The first thing that a saga does after its wait: how late it is."""
    late_ns = time.time_ns() - due.at_ns
    LATE_NS.append(late_ns)
    return late_ns


@saga("sleeper", version=1)
async def sleeper(s: Saga, due: Due) -> int:
    """Sleeps until it is due."""
    await s.sleep_until(datetime.fromtimestamp(due.at_ns / 1e9, UTC))
    return await s.run(went_on, due)


@saga("asker", version=1)
async def asker(s: Saga) -> int:
    """Waits for an answer: the time at which it was given."""
    answer = await s.callback("answer", Due)
    return await s.run(went_on, await answer.result())


@retriable
async def nothing() -> None:
    """A step."""


@saga("fresh", version=1)
async def fresh(s: Saga) -> None:
    """One that is started while others wait."""
    await s.run(nothing)


def memory_mib() -> float:
    """Resident memory of this process now; its peak where the system does not tell."""
    status = Path("/proc/self/statm")
    if not status.exists():
        return peak_mib()
    return int(status.read_text().split()[1]) * resource.getpagesize() / 2**20


def peak_mib() -> float:
    """The most resident memory that this process has had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


async def many(jobs: int, job: Any) -> None:
    """``job(n)`` for each number below ``jobs``, ``TOGETHER`` at a time."""
    numbers = iter(range(jobs))

    async def some() -> None:
        for number in numbers:
            await job(number)

    await asyncio.gather(*[some() for _ in range(TOGETHER)])


async def until(orchestrator: Orchestrator, sagas: int, **query: Any) -> None:
    """Return once so many sagas match ``query``."""
    while await orchestrator.count(**query) < sagas:  # noqa: ASYNC110 - they are looked at from outside, as by a person
        await asyncio.sleep(0.1)


async def begin(url: str, waiting: int, due: int) -> dict[str, float]:
    """The first process: start them all, see that each waits, and leave."""
    async with Orchestrator(url, sagas=[sleeper, asker, fresh]) as orchestrator:
        far_ns = time.time_ns() + int(FAR.total_seconds()) * 1_000_000_000

        async def far(number: int) -> None:
            await orchestrator.start(sleeper, Due(far_ns + number * 1_000_000_000), id=f"far-{number}")

        async def ask(number: int) -> None:
            await orchestrator.start(asker, id=f"ask-{number}")

        began = time.perf_counter()
        await many(waiting - 2 * due, far)
        await many(due, ask)
        took_s = time.perf_counter() - began
        # Too far off to stay in memory; and time to start them, to leave, and for the second process to be ready.
        first_ns = time.time_ns() + int((6 + due / 1000) * 1e9)

        async def near(number: int) -> None:
            await orchestrator.start(sleeper, Due(first_ns + number * 1_000_000_000 // due), id=f"near-{number}")

        await many(due, near)
        await until(orchestrator, waiting, status=SagaStatus.WAITING)
        began = time.perf_counter()
    left_s = time.perf_counter() - began
    return {"starts_s": (waiting - due) / took_s, "starter_mib": peak_mib(), "leave_s": left_s}


async def recover(url: str, waiting: int, due: int) -> dict[str, float]:
    """The second process: how soon it is ready, what it weighs, and how late it resumes what falls due."""
    began = time.perf_counter()
    async with Orchestrator(url, sagas=[sleeper, asker, fresh]) as orchestrator:
        await (await orchestrator.start(fresh)).result()
        ready_s = time.perf_counter() - began
        assert await orchestrator.count(status=SagaStatus.WAITING) == waiting
        idle_mib = memory_mib()
        await until(orchestrator, due, status=SagaStatus.COMPLETED, saga="sleeper")
        late_ms = sorted(late_ns / 1e6 for late_ns in LATE_NS)
        figures = {
            "ready_s": ready_s,
            "idle_mib": idle_mib,
            "wake_p50_ms": statistics.median(late_ms),
            "wake_p99_ms": late_ms[len(late_ms) * 99 // 100],
        }
        began = time.perf_counter()
        await many(
            due,
            lambda n: orchestrator.complete_callback(saga_id=f"ask-{n}", name="answer", value=Due(time.time_ns())),
        )
        await until(orchestrator, due, status=SagaStatus.COMPLETED, saga="asker")
        figures["answers_s"] = due / (time.perf_counter() - began)
        figures["peak_mib"] = peak_mib()
        assert await orchestrator.count(status=SagaStatus.WAITING) == waiting - 2 * due
    return figures


async def brief(url: str, waiting: int, due: int) -> dict[str, float]:  # noqa: ARG001 - as the others are called
    """The third process: all sleep so briefly that they might stay in memory."""
    async with Orchestrator(url, sagas=[sleeper]) as orchestrator:

        async def near(number: int) -> None:
            await orchestrator.start(sleeper, Due(time.time_ns() + int(BRIEF_S * 1e9)), id=f"brief-{number}")

        before = await orchestrator.count(status=SagaStatus.COMPLETED)
        began = time.perf_counter()
        await many(waiting, near)
        await until(orchestrator, before + waiting, status=SagaStatus.COMPLETED)
        took_s = time.perf_counter() - began
    return {"brief_sagas_s": waiting / took_s, "brief_mib": peak_mib()}


async def w6(url: str, waiting: int = 100_000, due: int = 10_000) -> dict[str, float]:
    """The three processes, one after the other."""
    figures: dict[str, float] = {}
    for part, sagas in (("begin", waiting), ("recover", waiting), ("brief", waiting // 5)):
        command = [sys.executable, "-m", "benchmarks.waiting", part, url, str(sagas), str(due)]
        done = await asyncio.to_thread(subprocess.run, command, check=True, stdout=subprocess.PIPE, text=True)
        figures |= json.loads(done.stdout)
    return figures


if __name__ == "__main__":
    part, url, waiting, due = sys.argv[1:]
    process = {"begin": begin, "recover": recover, "brief": brief}[part]
    print(json.dumps(asyncio.run(process(url, int(waiting), int(due)))))
