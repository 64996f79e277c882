"""A worker of a fleet, in a process of its own: ``python -m tests.crash.fleet URL DIR LEASE [SKEW]``.

It says ``ready`` and works until it is killed. Its machine's clock is wrong by SKEW seconds. Its effects are lines of a
file in DIR, written by one ``write`` each: whatever dies, they are there.
"""

import asyncio
import logging
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from durable_core.layer import Store
from sagas import Entry, Orchestrator, Saga, resource, saga, step
from tests import forked
from tests.crash.victim import SAGAS, Outside, charge, ship

ROOT = Path(__file__).parents[2]
FLEET, TOLD_FLEET = "tests.crash.fleet", "tests.crash.verbs_fleet"


@step
async def touch(name: str, *, outside: Outside = resource()) -> str:
    outside.effect()
    return name


@touch.compensate
async def untouch(result: str, *, outside: Outside = resource()) -> None:
    outside.effect()


@step
async def pack(number: int, *, outside: Outside = resource()) -> int:
    """Its effect is there for a while before it returns, so that processes die in between."""
    outside.effect()
    await asyncio.sleep(0.03)
    return number


@pack.compensate
async def unpack(result: int, *, outside: Outside = resource()) -> None:
    outside.effect()
    await asyncio.sleep(0.01)


@saga("slow", version=1)
async def slow(s: Saga, number: int) -> int:
    await s.run(pack, number)
    await s.sleep(0.02)
    await s.run(charge, number)
    await s.run(pack, number)
    return await s.run(ship, number)


@saga("sleepy", version=1)
async def sleepy(s: Saga, seconds: float) -> str:
    await s.run(touch, "before")
    await s.sleep(seconds)
    await s.run(touch, "after")
    return s.now().isoformat()


def opened(
    store: str | Store, outside: Outside, *, worker: bool = True, lease: float = 60, **options: Any
) -> Orchestrator:
    """An orchestrator of the fleet on ``store``, or at that address."""
    url, given = (store, None) if isinstance(store, str) else (None, store)
    sagas = [*SAGAS, slow, sleepy]
    return Orchestrator(
        url, store=given, sagas=sagas, resources=[outside], worker=worker, grace=1, lease=lease, **options
    )


@contextmanager
def workers(
    url: str, directory: Path, *skews: float, lease: float = 2, of: str = FLEET
) -> Iterator[list["subprocess.Popen[str]"]]:
    """Worker processes, one for each of ``skews``, that are ready."""
    processes = [worker(url, directory, skew, lease=lease, of=of) for skew in skews]
    try:
        for process in processes:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        yield processes
    finally:
        for process in processes:
            process.kill()
            process.communicate()


def worker(url: str, directory: Path, skew: float = 0, *, lease: float = 2, of: str = FLEET) -> "subprocess.Popen[str]":
    """A worker process that has begun to start, of the fleet whose module is given."""
    errors = (directory / "errors").open("a")
    with errors:
        return forked.Process(
            [sys.executable, "-m", of, url, str(directory), str(lease), str(skew)],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            text=True,
            stdout=subprocess.PIPE,
            stderr=errors,
        )


def audit(outside: Outside, steps: list[str], *, orders: dict[str, int]) -> None:
    """Each order is wholly there, or undone in reverse where its number is negative; each step has had one key."""
    calls = outside.calls()
    keys: dict[tuple[str, str, bool], set[str]] = {}
    for call in calls:
        keys.setdefault((call.saga, call.step, call.undoes), set()).add(call.key)
    assert all(len(found) == 1 for found in keys.values())
    for name, number in orders.items():
        assert outside.live(name) == Counter(steps if number >= 0 else []), name
        undone = list(dict.fromkeys(call.step for call in calls if call.saga == name and call.undoes))
        assert undone == ([] if number >= 0 else steps[-2::-1]), name


def check_journal(history: list[Entry]) -> None:
    """No step is attempted again once it has succeeded."""
    over: set[str] = set()
    for entry in history:
        assert not (entry.kind in ("started", "retried", "succeeded") and entry.key in over), entry
        if entry.kind == "succeeded":
            over.add(entry.key)


def again(outside: Outside) -> int:
    """How many calls were not the first of their step."""
    calls = Counter((call.saga, call.step, call.undoes) for call in outside.calls())
    return sum(calls.values()) - len(calls)


async def work(url: str, directory: Path, lease: float, skew: float) -> None:
    """Serve until killed."""
    logging.basicConfig(level=logging.WARNING, format=f"{os.getpid()} %(name)s: %(message)s")
    if skew:
        right_ns, right_s = time.time_ns, time.time
        time.time_ns = lambda: right_ns() + int(skew * 1e9)
        time.time = lambda: right_s() + skew
    async with opened(url, Outside(directory), lease=lease):
        print("ready", flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(work(sys.argv[1], Path(sys.argv[2]), float(sys.argv[3]), float(sys.argv[4])))
