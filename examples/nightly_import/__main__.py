"""Play one night: a worker is killed during the import, another continues, a person approves; then audit it."""

import asyncio
import json
import os
import signal
import sys
import tempfile
from asyncio.subprocess import PIPE, Process
from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

from durable_core import Engine, RunHandle
from examples.nightly_import import outside
from examples.nightly_import.job import DIES_AT, Approval, Job, Report, nightly_import

FILES = 6
LANES = 2
"""Files that are read at the same time, so one crash may cut all of them."""
PATIENCE_S = 60
JOB = {"rhythm": timedelta(seconds=1), "poll_every": timedelta(seconds=0.3)}


async def worker(url: str, *, dies_at: str = "") -> Process:
    """A worker in a process of its own; it ends with this one."""
    environment = {**os.environ, DIES_AT: dies_at}
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "examples.nightly_import.worker", url, stdin=PIPE, env=environment
    )


async def leave(process: Process) -> int:
    """Close the worker's input, and wait until it has left."""
    if process.stdin is not None:
        process.stdin.close()
    return await process.wait()


async def seen(condition: Callable[[], bool]) -> None:
    """Wait until ``condition`` is true."""
    while not condition():  # noqa: ASYNC110 - other processes make it true
        await asyncio.sleep(0.02)


async def night(home: Path, engine: Engine, url: str) -> Report:
    """From the start to the report."""
    job = Job(str(home), **JOB)
    handle: RunHandle[Report] = await engine.start(nightly_import, job, id="import-1")
    print(f"started {handle.id}: it is on disk, and no worker is there yet")

    first = await worker(url, dies_at="part-3.csv")
    try:
        await seen(lambda: len(outside.noted(home)) > 1)
        outside.complete(home)
        print("the supplier is ready")
        code = await first.wait()
    finally:
        await leave(first)
    print(f"the first worker is dead, by {signal.Signals(-code).name}; here is another one")

    second = await worker(url)
    inbox = home / "inbox" / "approval.json"
    try:
        await seen(inbox.exists)
        print("a person approves")
        asked = json.loads(inbox.read_text(encoding="utf-8"))
        await engine.complete_callback(asked["token"], Approval(ok=True, by="ann"))
        return await handle.result()
    finally:
        await leave(second)


def audit(home: Path, report: Report) -> list[str]:
    """What is wrong with the result; empty if all is well."""
    calls = Counter(what for what in outside.noted(home) if not what.startswith("look"))
    again = {what: count - 1 for what, count in calls.items() if count > 1}
    wrong: list[str] = []
    cut = set(again) <= {f"read part-{number}.csv" for number in range(1, FILES + 1)}
    if not cut or "read part-3.csv" not in again or sum(again.values()) > LANES:
        wrong.append(f"called again were {again}")
    loaded = list((home / "warehouse").iterdir())
    if len(loaded) != 1 or len(json.loads(loaded[0].read_text(encoding="utf-8"))) != FILES:
        wrong.append(f"the warehouse holds {len(loaded)} loads")
    if report.rows != FILES * outside.LINES:
        wrong.append(f"the report is {report}")
    print(f"called again after the crash: {', '.join(again)}; loaded once: {report}")
    return wrong


async def main() -> int:
    """Exit code 0 only if the audit holds."""
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        outside.supply(home, FILES)
        url = f"sqlite:///{home}/nightly.db"
        async with asyncio.timeout(PATIENCE_S), Engine(url, [nightly_import], worker=False) as engine:
            report = await night(home, engine, url)
        wrong = audit(home, report)
        print("\n".join(wrong) or "all is well")
        return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
