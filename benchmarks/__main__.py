"""``python -m benchmarks [W1 W2 ...] [--postgres | --store URL] [--runs N] [--json FILE]``: medians of several runs.

Each run is a new process on a new store: a SQLite file, or a schema of a PostgreSQL database.
"""

import argparse
import asyncio
import json
import os
import platform
import sqlite3
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks import fleet
from benchmarks.workloads import WORKLOADS, store_in
from sagas.cli import worker

TARGETS = {
    ("W1", "p50_ms"): ("W1 300 sagas one by one, p50", "ms", "<= 1.3", "<= 3"),
    ("W1", "p99_ms"): ("W1 the same, p99", "ms", "", ""),
    ("W2", "sagas_s"): ("W2 2,000 sagas at once", "sagas/s", ">= 8000", ">= 4000"),
    ("W2", "peak_mib"): ("W2 peak memory", "MiB", "<= 60", "<= 60"),
    ("W2-exported", "sagas_s"): ("W2 with spans exported", "sagas/s", "", ""),
    ("W2-exported", "exported_s"): ("W2 until the last is exported", "sagas/s", ">= 2500", ""),
    ("W2-left-out", "sagas_s"): ("W2 traced, none sampled", "sagas/s", "", ""),
    ("W3", "sagas_s"): ("W3 1,000 rolled back, at once", "sagas/s", ">= 4500", ">= 2200"),
    ("W4", "us_per_step_100"): ("W4 a saga of 100 steps", "us/step", "<= 350", "<= 700"),
    ("W4", "us_per_step_1000"): ("W4 of 1,000 steps", "us/step", "<= 350", "<= 700"),
    ("W4", "us_per_step_5000"): ("W4 of 5,000 steps", "us/step", "<= 350", "<= 700"),
    ("W5", "left"): ("W5 kill -9 amid W2: left to end", "sagas", "", ""),
    ("W5", "takeover_s"): ("W5 restart to the first step", "s", "", ""),
    ("W5", "all_ended_s"): ("W5 restart to the last end", "s", "", ""),
    ("W5", "sagas_s"): ("W5 from the first step on", "sagas/s", "", ""),
    ("W5", "again"): ("W5 in flight at death, run again", "steps", "", ""),
    ("W6", "starts_s"): ("W6 start 100,000 that wait", "sagas/s", "", ""),
    ("W6", "starter_mib"): ("W6 peak memory meanwhile", "MiB", "<= 120", "<= 120"),
    ("W6", "leave_s"): ("W6 leave them", "s", "", ""),
    ("W6", "ready_s"): ("W6 another process is ready", "s", "<= 5", "<= 5"),
    ("W6", "idle_mib"): ("W6 its memory while they wait", "MiB", "<= 120", "<= 120"),
    ("W6", "wake_p50_ms"): ("W6 10,000 due in 1 s, late by p50", "ms", "", ""),
    ("W6", "wake_p99_ms"): ("W6 the same, p99", "ms", "<= 2000", "<= 2000"),
    ("W6", "answers_s"): ("W6 10,000 answers to callbacks", "sagas/s", "", ""),
    ("W6", "peak_mib"): ("W6 peak memory of that process", "MiB", "<= 120", "<= 120"),
    ("W6", "brief_sagas_s"): ("W6 20,000 that sleep 3 s", "sagas/s", "", ""),
    ("W6", "brief_mib"): ("W6 peak memory meanwhile", "MiB", "<= 120", "<= 120"),
}
"""What each figure is, its unit, and its targets on SQLite and on PostgreSQL."""
ONE_RUN = {"W6"}
"""Workloads that take a minute, and are run once unless told otherwise."""


@contextmanager
def address(asked: argparse.Namespace) -> Iterator[str | None]:
    """The database to measure on; None is a new SQLite file for each run."""
    if not asked.postgres:
        yield asked.store
        return
    from tests.postgres_server import Server  # noqa: PLC0415 - it takes the tests' packages

    with Server(max_wal_size="4GB") as server:  # with fsync, as any server has it
        yield server.url()


def once(workload: str, *, freeze: bool, store: str | None) -> dict[str, float]:
    """Run a workload in this process, on a fresh store; ``freeze`` settles the collector as `sagas worker` does."""
    if freeze:
        worker.settle_gc()
    if store is not None:
        return asyncio.run(WORKLOADS[workload](store))
    with tempfile.TemporaryDirectory(dir=os.environ.get("BENCH_DIR")) as folder:
        return asyncio.run(WORKLOADS[workload](store_in(Path(folder))))


def main() -> int:
    """Run what was asked for and print a table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("workloads", nargs="*", metavar="W", help="of W1 to W6; default all")
    parser.add_argument("--runs", type=int, help="runs of each workload, default 5; of W6 1. The median is printed")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--freeze", action="store_true", help="with the garbage collector settled as in `sagas worker`")
    parser.add_argument("--store", help="a PostgreSQL database to measure on, each run in a new schema of it")
    parser.add_argument("--postgres", action="store_true", help="the same on a server of the tests")
    parser.add_argument("--workers", default="", help="instead: W2 in so many processes at once, as in 1,2,4")
    parser.add_argument("--once", action="store_true", help="run one workload here and print its figures as JSON")
    asked = parser.parse_args()
    if asked.once:
        print(json.dumps(once(asked.workloads[0], freeze=asked.freeze, store=asked.store)))
        return 0
    with address(asked) as store:
        kind = "PostgreSQL" if store else f"SQLite {sqlite3.sqlite_version}, WAL and synchronous=FULL"
        print(f"Python {platform.python_version()}, {kind}, {os.cpu_count()} cores")
        if asked.workers:
            fleet.measure(store, [int(number) for number in asked.workers.split(",")], runs=asked.runs or 3)
            return 0
        figures = _measured(asked, store)
    if asked.json:
        asked.json.write_text(json.dumps(figures, indent=2))
    return 0


def _measured(asked: argparse.Namespace, store: str | None) -> dict[str, dict[str, float]]:
    figures: dict[str, dict[str, float]] = {}
    print(f"{'':34}{'median':>10}{'min':>10}{'max':>10}  {'':8} target")
    for workload in asked.workloads or WORKLOADS:
        count = asked.runs or (1 if workload in ONE_RUN else 5)
        runs = [_in_a_process(workload, freeze=asked.freeze, store=store) for _ in range(count)]
        for name in runs[0]:
            values = [run[name] for run in runs]
            label, unit, *targets = TARGETS[workload, name]
            median = statistics.median(values)
            figures.setdefault(workload, {})[name] = median
            target = targets[store is not None]
            print(f"{label:34}{median:10.2f}{min(values):10.2f}{max(values):10.2f}  {unit:8} {target}")
    return figures


def _in_a_process(workload: str, *, freeze: bool, store: str | None) -> dict[str, float]:
    options = ["--freeze"] if freeze else []
    options += [] if store is None else ["--store", fleet.fresh(store)]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", workload, "--once", *options], check=True, capture_output=True, text=True
    )
    figures: dict[str, float] = json.loads(done.stdout)
    return figures


if __name__ == "__main__":
    sys.exit(main())
