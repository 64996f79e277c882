"""What a user's type checker infers from the durable core alone. Checked, never run.

Each ``assert_type`` is a promise: mypy --strict and pyright strict must infer exactly that type, and find no fault.
"""

from datetime import datetime, timedelta
from typing import Any, assert_type
from uuid import UUID

import attrs

from durable_core import (
    Callback,
    Context,
    Durable,
    Engine,
    HistoryEntry,
    PurgeReport,
    Retry,
    RunHandle,
    RunInfo,
    RunStatus,
    RunSummary,
    Step,
    VersionInfo,
    current,
    durable,
    step,
)


@attrs.frozen
class Table:
    """What a file holds."""

    rows: int


def plain(path: str) -> Table:
    """A step that is a plain function."""
    return Table(len(path))


async def fetched(path: str, *, tries: int = 1) -> Table:
    """A step that is an async function."""
    return Table(tries)


@step
async def bare(path: str) -> Table:
    """A decorated one."""
    return Table(len(current().idempotency_key))


@step(retry=Retry(attempts=3), timeout=timedelta(seconds=3), rejects=(ValueError,), at_most_once=True)
def careful(path: str, size: int) -> int:
    """A decorated one, with options."""
    return size


bare_again: Step[[str], Table] = bare
careful_again: Step[[str, int], int] = careful


@durable("load", version=2)
async def load(ctx: Context, path: str, size: int = 1) -> Table:
    """A child."""
    assert_type(ctx.version, int)
    return await ctx.step(plain, path)


@durable("nothing")
async def nothing(ctx: Context) -> None:
    """Takes nothing, gives nothing."""


assert_type(nothing, Durable[[], None])


async def branch(ctx: Context, path: str) -> int:
    """A branch of several steps."""
    return (await ctx.step(plain, path)).rows + (await ctx.step(bare, path)).rows


@durable("nightly", version=1)
async def nightly(ctx: Context, paths: list[str]) -> list[Table]:
    """All that a body can do."""
    assert_type(await ctx.step(plain, "a"), Table)
    assert_type(await ctx.step(fetched, "a", tries=3), Table)
    assert_type(await ctx.step(bare, "a"), Table)
    assert_type(await ctx.step(careful, "a", size=3), int)
    assert_type(await ctx.child(load, "a", 3), Table)
    assert_type(await ctx.child(nothing), None)
    async with ctx.parallel() as p:
        a = p.run(plain, "a")
        b = p.run(fetched, "b", tries=2)
        c = p.run(careful, "c", 1)
        d = p.run(load, "d")
        e = p.run(branch, "e")
    assert_type(a.result(), Table)
    assert_type(b.result(), Table)
    assert_type(c.result(), int)
    assert_type(d.result(), Table)
    assert_type(e.result(), int)
    assert_type(await ctx.map(plain, paths), list[Table])
    assert_type(await ctx.map(bare, paths), list[Table])
    assert_type(await ctx.map(load, paths, max_concurrency=2), list[Table])
    assert_type(await ctx.map(branch, paths), list[int])
    approval = await ctx.callback("approval", Table, timeout=timedelta(days=2))
    assert_type(approval, Callback[Table])
    assert_type(approval.token, str)
    assert_type(await approval.result(), Table)
    assert_type(await ctx.first(approval), Callback[Any])
    await ctx.sleep(3)
    await ctx.sleep_until(ctx.now() + timedelta(days=1))
    assert_type(ctx.now(), datetime)
    assert_type(ctx.uuid(), UUID)
    assert_type(ctx.random(), float)
    assert_type(ctx.patched("faster"), bool)
    assert_type(ctx.id, str)
    ctx.log.info("so far")
    return await ctx.map(fetched, paths)


async def listener(info: RunInfo) -> None:
    """Told when somebody should look."""


async def main() -> None:
    """What an engine gives."""
    async with Engine(
        "sqlite:///core.db", [nightly, load], worker=False, grace=3, store_timeout=timedelta(seconds=3)
    ) as engine:
        assert_type(await engine.start(nightly, ["a"]), RunHandle[list[Table]])
        assert_type(await engine.start(load, "a", 3, id="a", version=2, trace="join"), RunHandle[Table])
        assert_type(await engine.start(nothing, id="b"), RunHandle[None])
        assert_type(await engine.start("nightly", ["a"], id="c"), RunHandle[Any])
        handle = await engine.start(load, "a", id="a")
        assert_type(await handle.result(timeout=3), Table)
        assert_type(await handle.info(), RunInfo)
        assert_type(await handle.history(), list[HistoryEntry])
        assert_type(await handle.status(), RunStatus)
        assert_type(await engine.get("a"), RunHandle[Any])
        assert_type(await engine.versions("nightly"), list[VersionInfo[RunStatus]])
        assert_type(await engine.purge(older_than=timedelta(days=30), name="nightly", dry_run=True), PurgeReport)
        assert_type(await engine.list(status="stuck"), list[RunSummary])
        assert_type(await engine.count(name="nightly"), int)
        await engine.complete_callback("token", Table(1), actor="ann", note="seen")
        await engine.fail_callback(run_id="a", name="approval", message="no")
        await engine.retry("a", actor="ann", note="mended")
    Engine("memory://", on_attention=listener)
    Engine("memory://", lease=3, secret=b"s" * 32, retention=timedelta(days=30), id_retention=None)
