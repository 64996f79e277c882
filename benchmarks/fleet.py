"""W2 in several worker processes at once on one PostgreSQL: what it carries, and what limits."""

import asyncio
import itertools
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import asyncpg
import attrs

from benchmarks.workloads import w2

SAGAS = 6000
"""Of each process: enough that all of them work at once for most of the time."""
NEARLY = 0.85
"""A share of a core from which on it is what limits; the rest of the time goes by at the beginning and the end."""
_runs = itertools.count()


def fresh(store: str) -> str:
    """The address of a schema that no run has used."""
    mark = "&" if "?" in store else "?"
    return f"{store}{mark}schema=bench_{os.getpid()}_{next(_runs)}"


@attrs.frozen
class Load:
    """What some processes did together; medians where it is of several runs."""

    sagas_s: float
    commits_s: float
    worker: float
    """The share of a core that each process took."""
    machine: float | None
    """The share of all cores that were busy, with whatever; None where the system does not tell."""

    def limit(self) -> str:
        """What kept it from being more."""
        if self.worker >= NEARLY:
            return "a worker's core"
        if self.machine is None:
            return "not known here"
        return "all cores of this machine" if self.machine >= NEARLY else "waiting for the database"


def measure(store: str | None, counts: list[int], *, runs: int) -> None:
    """Print sagas, commits and processor time a second for each number of processes, and what limits them."""
    if store is None:
        raise SystemExit("several workers are measured on PostgreSQL: add --postgres or --store")
    print(f"{'processes':>9}{'sagas/s':>9}{'commits/s':>11}{'a commit':>12}{'a worker':>15}{'machine':>9}  what limits")
    for count in counts:
        found = [_together(fresh(store), store, count) for _ in range(runs)]
        sagas, commits, worker = (
            statistics.median(values) for values in zip(*[attrs.astuple(load)[:3] for load in found], strict=True)
        )
        machines = [load.machine for load in found if load.machine is not None]
        load = Load(sagas, commits, worker, statistics.median(machines) if machines else None)
        machine = "?" if load.machine is None else f"{load.machine:.0%}"
        print(
            f"{count:>9}{sagas:>9.0f}{commits:>11.0f}{sagas * 10 / commits:>7.0f} rows"
            f"{worker:>5.0%} of a core{machine:>9}  {load.limit()}"
        )


def _together(url: str, store: str, count: int) -> Load:
    children = [
        subprocess.Popen(
            [sys.executable, "-m", "benchmarks.fleet", url, str(number)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in range(count)
    ]
    for child in children:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
    commits, cores, began = asyncio.run(_commits(store)), _cores(), time.perf_counter()
    for child in children:
        assert child.stdin is not None
        child.stdin.write("go\n")
        child.stdin.flush()
    busy = [float(child.communicate()[0]) for child in children]
    took, worked = time.perf_counter() - began, _cores()
    commits = asyncio.run(_commits(store)) - commits
    machine = None
    if cores is not None and worked is not None:
        machine = (worked[0] - cores[0]) / max(worked[1] - cores[1], 1)
    return Load(SAGAS * count / took, commits / took, statistics.mean(busy), machine)


def _cores() -> tuple[int, int] | None:
    """How long all cores together have been busy, and how long they have been there; in ticks."""
    counters = Path("/proc/stat")
    if not counters.exists():
        return None
    # user nice system idle iowait irq softirq steal: https://www.kernel.org/doc/html/latest/filesystems/proc.html
    ticks = [int(number) for number in counters.read_text().split("\n", 1)[0].split()[1:9]]
    return sum(ticks) - ticks[3] - ticks[4], sum(ticks)


async def _commits(store: str) -> int:
    connection = await asyncpg.connect(store)
    try:
        await connection.execute("SELECT pg_stat_force_next_flush()")
        await asyncio.sleep(1.1)  # other backends report about once a second
        number: int = await connection.fetchval(
            "SELECT xact_commit FROM pg_stat_database WHERE datname = current_database()"
        )
        return number
    finally:
        await connection.close()


async def _serve(url: str, number: int) -> float:
    """Be one of the processes; the share of a core that it took."""
    await w2(url, sagas=50, prefix=f"warm-{number}-")
    print("ready", flush=True)
    sys.stdin.readline()
    began, busy = time.perf_counter(), time.process_time()
    await w2(url, sagas=SAGAS, prefix=f"{number}-")
    return (time.process_time() - busy) / (time.perf_counter() - began)


if __name__ == "__main__":
    print(asyncio.run(_serve(sys.argv[1], int(sys.argv[2]))))
