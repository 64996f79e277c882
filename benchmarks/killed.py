"""W5: a process that runs W2 is killed with SIGKILL amid it, another one starts, and every saga ends.

The first process ends by its own hand: once half of the sagas have ended, amid the second step of the others. So each
run is killed at the same place. Steps and what a caller was told are lines of a file, each made by one ``write``:
whatever dies, they are there. It is checked that nothing is lost, that no completed step was run again, and that each
step which was had been in flight.
"""

import asyncio
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import attrs

from benchmarks.orders import Order, Receipt, order, undo
from durable_core import RunStatus
from durable_core.layer import RunQuery, RunRecord, open_store
from durable_core.model.entry import Entry
from sagas import Orchestrator, Saga, SagaStatus, saga, step

STEPS = ("reserve", "charge", "pack", "ship")


class Line(NamedTuple):
    """Something that happened outside the database: a step, or ``started`` or ``ended`` for what a caller was told."""

    what: str
    id: str
    at_ns: int


class Outside:
    """The file of this process's lines, and the count after which it dies."""

    def __init__(self) -> None:
        self.file = -1
        self.ended = 0
        self.more = 0
        """Steps that have begun since half of the sagas had ended."""
        self.sagas = 0
        """How many there are; 0 in a process that is to live."""

    def note(self, what: str, id_: str) -> None:
        """Write a line; and die where the count is reached."""
        os.write(self.file, f"{what} {id_} {time.time_ns()}\n".encode())
        if what == "ended":
            self.ended += 1
        elif what in STEPS and self.sagas and self.ended >= self.sagas // 2:
            self.more += 1
            if self.more == self.sagas * 3 // 4:  # one and a half for each that is left
                os.kill(os.getpid(), signal.SIGKILL)


OUTSIDE = Outside()


def _step(name: str) -> Any:
    async def effect(order: Order) -> Receipt:
        OUTSIDE.note(name, order.id)
        return Receipt(order.id, order.amount)

    declared = step(name=name)(effect)
    declared.compensate(undo)
    return declared


reserve, charge, pack, ship = map(_step, STEPS)


@saga("four-steps-outside", version=1)
async def four_steps(s: Saga, order: Order) -> Receipt:
    """As in W2."""
    await s.run(reserve, order)
    await s.run(charge, order)
    await s.run(pack, order)
    return await s.run(ship, order)


async def first(url: str, sagas: int) -> None:
    """The process that starts them, and dies."""
    OUTSIDE.sagas = sagas

    async def whole(number: int) -> None:
        wanted = order(number)
        handle = await orchestrator.start(four_steps, wanted, id=wanted.id)
        OUTSIDE.note("started", wanted.id)
        await handle.result()
        OUTSIDE.note("ended", wanted.id)

    # The others wait for a place until the first half has ended.
    async with Orchestrator(url, sagas=[four_steps], concurrency=sagas // 2) as orchestrator:
        print(orchestrator.engine.name, flush=True)
        await asyncio.gather(*[whole(number) for number in range(sagas)])


async def second(url: str, sagas: int) -> None:
    """The process that finds what the first one left, and ends it."""
    async with Orchestrator(url, sagas=[four_steps]) as orchestrator:
        print(orchestrator.engine.name, flush=True)
        while await orchestrator.count(status=SagaStatus.COMPLETED) < sagas:  # noqa: ASYNC110 - as a person would look
            await asyncio.sleep(0.1)


@attrs.frozen
class Part:
    """One of the two processes, as seen from outside."""

    began_ns: int
    worker: str
    lines: list[Line]

    def calls(self) -> Counter[tuple[str, str]]:
        """How often it called each step of each saga."""
        return Counter((line.id, line.what) for line in self.lines if line.what in STEPS)

    def told(self, what: str) -> set[str]:
        """The sagas of which a caller was told that they have started or ended."""
        return {line.id for line in self.lines if line.what == what}


def _run(part: str, url: str, folder: Path, sagas: int, *, ends: int) -> Part:
    began_ns, file = time.time_ns(), folder / part
    command = [sys.executable, "-m", "benchmarks.killed", part, url, str(file), str(sagas)]
    done = subprocess.run(command, check=False, stdout=subprocess.PIPE, text=True)
    assert done.returncode == ends, f"the {part} process ended with {done.returncode}, not {ends}"
    lines = [line.split() for line in file.read_text().splitlines()]
    return Part(began_ns, done.stdout.strip(), [Line(what, id_, int(at_ns)) for what, id_, at_ns in lines])


async def w5(url: str, sagas: int = 2000) -> dict[str, float]:
    """The two processes, one after the other; seconds count from the start of the second."""
    with tempfile.TemporaryDirectory() as folder:
        before = await asyncio.to_thread(_run, "first", url, Path(folder), sagas, ends=-signal.SIGKILL)
        after = await asyncio.to_thread(_run, "second", url, Path(folder), sagas, ends=0)
    store = open_store(url)
    await store.open(worker=None)
    try:
        runs = await store.runs.select(RunQuery(limit=None))
        journals = await store.journal.load([run.num for run in runs])
    finally:
        await store.close()
    again = check(before, after, runs, journals, sagas)
    took_over_ns = min(line.at_ns for line in after.lines)
    last_ns = max(run.ended_at_ns or 0 for run in runs)
    left = sagas - len(before.told("ended"))
    return {
        "left": left,
        "takeover_s": (took_over_ns - after.began_ns) / 1e9,
        "all_ended_s": (last_ns - after.began_ns) / 1e9,
        "sagas_s": left / (last_ns - took_over_ns) * 1e9,
        "again": again,
    }


def check(before: Part, after: Part, runs: list[RunRecord], journals: dict[int, list[Entry]], sagas: int) -> int:
    """That the death broke no promise; how many steps were run again, all of them in flight when it came."""
    assert before.told("started") == {run.id for run in runs}, "a saga was lost"
    assert len(runs) == sagas
    assert {run.status for run in runs} == {RunStatus.COMPLETED}, "not all have completed"
    ids = {run.num: run.id for run in runs}
    written: dict[str, set[tuple[str, str]]] = {"started": set(), "succeeded": set(), "ended": set()}
    for entry in (entry for journal in journals.values() for entry in journal if entry.worker == before.worker):
        written[entry.kind].add((ids[entry.run], entry.key.partition("#")[0]))
    first_calls, second_calls = before.calls(), after.calls()
    calls = first_calls + second_calls
    assert calls.keys() == {(run.id, name) for run in runs for name in STEPS}, "a step was left out"
    assert not before.told("ended") - {id_ for id_, _ in written["ended"]}, "an end that a caller knows of was lost"
    assert not second_calls.keys() & written["succeeded"], "a completed step was run again"
    repeated = {call for call, times in calls.items() if times > 1}
    assert repeated <= written["started"] - written["succeeded"], "a step was run twice that was not in flight"
    assert max(first_calls.values()) == max(second_calls.values()) == 1
    return len(repeated)


if __name__ == "__main__":
    part, url, file, sagas = sys.argv[1:]
    OUTSIDE.file = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    asyncio.run({"first": first, "second": second}[part](url, int(sagas)))
