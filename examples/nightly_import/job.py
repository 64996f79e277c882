"""The nightly import: one durable function, and the steps that it runs."""

import os
import signal
from datetime import UTC, datetime, timedelta
from pathlib import Path

import attrs

from durable_core import Context, Retry, current, durable, step
from examples.nightly_import import outside

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
DIES_AT = "NIGHTLY_IMPORT_DIES_AT"
"""The environment variable that names a file at which the worker kills itself, for the demonstration."""


@attrs.frozen
class Job:
    home: str
    rhythm: timedelta
    """A real day: the import begins at the next midnight."""
    poll_every: timedelta


@attrs.frozen
class Table:
    file: str
    rows: int
    total: int


@attrs.frozen
class Approval:
    ok: bool
    by: str


@attrs.frozen
class Report:
    rows: int
    total: int
    approved_by: str


class NotApproved(Exception): ...


def next_turn(now: datetime, rhythm: timedelta) -> datetime:
    """Plain code of the body: it always returns the same for the same arguments."""
    return EPOCH + ((now - EPOCH) // rhythm + 1) * rhythm


@step(retry=Retry(attempts=5, first=0.2))
def is_ready(home: str) -> bool:
    outside.note(home, "look whether the supplier is ready")
    return (Path(home) / "supplier" / "READY").exists()


def list_files(home: str) -> list[str]:
    return sorted(str(path) for path in (Path(home) / "supplier").glob("*.csv"))


@step(retry=3, timeout=timedelta(minutes=5))
def read(path: str) -> Table:
    file = Path(path)
    outside.note(file.parents[1], f"read {file.name}")
    if os.environ.get(DIES_AT) == file.name:
        os.kill(os.getpid(), signal.SIGKILL)
    amounts = [int(line.split(",")[1]) for line in file.read_text(encoding="utf-8").splitlines()]
    return Table(file.name, len(amounts), sum(amounts))


def ask(home: str, token: str, rows: int) -> None:
    outside.note(home, f"ask for an approval of {rows} rows")
    outside.put(Path(home) / "inbox", "approval.json", {"token": token, "rows": rows})


@step(retry=Retry(attempts=5, first=0.2))
def load(home: str, tables: list[Table]) -> None:
    """A step may be called again after a crash; the warehouse recognizes the key, so nothing is loaded twice."""
    outside.note(home, f"load {len(tables)} tables")
    outside.put(Path(home) / "warehouse", current().idempotency_key, [attrs.asdict(table) for table in tables])


@durable("nightly-import", version=1)
async def nightly_import(ctx: Context, job: Job) -> Report:
    await ctx.sleep_until(next_turn(ctx.now(), job.rhythm))
    while not await ctx.step(is_ready, job.home):
        await ctx.sleep(job.poll_every)

    files = await ctx.step(list_files, job.home)
    tables = await ctx.map(read, files, max_concurrency=2)
    rows = sum(table.rows for table in tables)

    approval = await ctx.callback("approval", Approval, timeout=timedelta(hours=8))
    await ctx.step(ask, job.home, approval.token, rows)
    decision = await approval.result()
    if not decision.ok:
        raise NotApproved(decision.by)

    await ctx.step(load, job.home, tables)
    return Report(rows, sum(table.total for table in tables), decision.by)
