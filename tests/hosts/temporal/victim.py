"""A worker process to be killed: ``python -m tests.hosts.temporal.victim ADDRESS EFFECTS HANGS``.

Each call appends a line to the file EFFECTS; the call of HANGS (``undo hotel``) then never returns.
"""

import asyncio
import sys
from pathlib import Path

from temporalio.client import Client

from sagas import Retry, Saga, Unknown, current, resource, saga, step
from sagas.hosts import temporal

LEASE_S = 1
FEW_POLLS = {"max_cached_workflows": 0, "max_concurrent_workflow_task_polls": 1, "max_concurrent_activities": 1}
"""The test server gives tasks to polls of dead processes, each of which costs the timeout of the task."""


class Effects:
    """A file outside."""

    def __init__(self, file: Path, hangs: str = "") -> None:
        self._file = file
        self._hangs = hangs

    async def note(self, what: str) -> None:
        """Append a line; hang where that was asked for."""
        call = current()
        with self._file.open("a", encoding="utf-8") as file:
            file.write(f"{what}|{call.attempt}|{call.idempotency_key}\n")
        if what == self._hangs:
            await asyncio.Event().wait()


class Refused(Exception):
    """No."""


@step(name="car")
async def car(*, effects: Effects = resource()) -> str:
    await effects.note("car")
    return "car"


@car.compensate
async def undo_car(_: str, *, effects: Effects = resource()) -> None:
    await effects.note("undo car")


@step(name="fenced", at_most_once=True)
async def fenced(*, effects: Effects = resource()) -> str:
    await effects.note("fenced")
    return "fenced"


@fenced.compensate
async def undo_fenced(done: str | Unknown, *, effects: Effects = resource()) -> None:
    await effects.note("undo fenced" if done == "fenced" else "undo fenced, unknown")


@step(name="hotel", retry=Retry(attempts=2))
async def hotel(*, effects: Effects = resource()) -> str:
    await effects.note("hotel")
    return "hotel"


@hotel.compensate
async def undo_hotel(_: str, *, effects: Effects = resource()) -> None:
    await effects.note("undo hotel")


@step(name="flight", rejects=(Refused,), compensation=None, because="it is always full")
async def flight(*, effects: Effects = resource()) -> str:
    await effects.note("flight")
    raise Refused("full")


@saga("trip", version=1)
async def trip(s: Saga) -> None:
    """All is undone in the end."""
    await s.run(car)
    await s.run(fenced)
    await s.run(hotel)
    await s.run(flight)


async def main(address: str, file: str, hangs: str) -> None:
    """Serve until it is killed."""
    client = await Client.connect(address)
    effects = Effects(Path(file), hangs)
    worker = temporal.worker(client, task_queue="sagas", sagas=[trip], resources=[effects], lease=LEASE_S, **FEW_POLLS)
    await worker.run()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
