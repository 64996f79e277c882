"""W2 in several worker processes at once on one PostgreSQL: what it carries, and what limits."""

import asyncio
import itertools
import os
import statistics
import subprocess
import sys
import time

import asyncpg

from benchmarks.workloads import w2

SAGAS = 6000
"""Of each process: enough that all of them work at once for most of the time."""
_runs = itertools.count()


def fresh(store: str) -> str:
    """The address of a schema that no run has used."""
    mark = "&" if "?" in store else "?"
    return f"{store}{mark}schema=bench_{os.getpid()}_{next(_runs)}"


def measure(store: str | None, counts: list[int], *, runs: int) -> None:
    """Print sagas, commits and processor time a second for each number of processes."""
    if store is None:
        raise SystemExit("several workers are measured on PostgreSQL: add --postgres or --store")
    print(f"{'processes':>10}{'sagas/s':>12}{'commits/s':>12}{'a commit':>14}{'workers busy':>16}")
    for count in counts:
        found = [_together(fresh(store), store, count) for _ in range(runs)]
        sagas, commits, busy = (statistics.median(values) for values in zip(*found, strict=True))
        print(f"{count:>10}{sagas:>12.0f}{commits:>12.0f}{sagas * 10 / commits:>9.1f} rows{busy:>15.0%}")


def _together(url: str, store: str, count: int) -> tuple[float, float, float]:
    """Sagas and commits a second, and how much of a core each process took."""
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
    commits, began = asyncio.run(_commits(store)), time.perf_counter()
    for child in children:
        assert child.stdin is not None
        child.stdin.write("go\n")
        child.stdin.flush()
    busy = [float(child.communicate()[0]) for child in children]
    took = time.perf_counter() - began
    commits = asyncio.run(_commits(store)) - commits
    return SAGAS * count / took, commits / took, statistics.mean(busy)


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
