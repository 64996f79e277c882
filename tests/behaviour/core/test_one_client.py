"""What the engine of durable functions shares with the orchestrator of sagas: housekeeping, versions, tracing, errors.

One client serves both, so each claim here is about a call that both have.
"""

import asyncio
import re
from datetime import timedelta
from pathlib import Path

import pytest

from durable_core import (
    CallbackAlreadyAnswered,
    CallbackNotFound,
    Context,
    DefinitionError,
    Engine,
    PayloadError,
    RunExists,
    RunInfo,
    RunNotFound,
    RunStatus,
    RunStuck,
    VersionVerdict,
    durable,
    read_line,
)
from durable_core.testing import ManualClock
from sagas import Orchestrator, Saga, SagaExists, SagaNotFound, SagaStuck, WrongState, saga

DAY = timedelta(days=1)
SECRET = "s" * 32


@durable("echo", version=1)
async def echo(ctx: Context, text: str) -> str:
    return text


@durable("sleeper", version=1)
async def sleeper(ctx: Context) -> int:
    await ctx.sleep(30 * DAY)
    return 1


@durable("sleeper", version=2)
async def sleeper_2(ctx: Context) -> int:
    return 2


@durable("asks", version=1)
async def asks(ctx: Context) -> str:
    return await (await ctx.callback("approval", str)).result()


async def ids(engine: Engine) -> set[str]:
    return {info.id for info in await engine.list()}


async def test_an_engine_purges_what_ended_a_retention_ago():
    """`retention=`: a run is there until its time is over and then gone; its id stays refused for `id_retention=`."""
    clock = ManualClock()
    async with Engine("memory://", [echo], clock=clock, retention=30 * DAY, id_retention=DAY) as engine:
        handle = await engine.start(echo, "a", id="a")
        assert await handle.result() == "a"
        await clock.advance(30 * DAY - timedelta(seconds=1))
        assert await ids(engine) == {"a"}
        await clock.advance(1)
        assert await ids(engine) == set()
        with pytest.raises(RunNotFound) as gone:
            await handle.status()
        assert gone.value.purged_at_ns is not None
        with pytest.raises(RunExists):
            await engine.start(echo, "b", id="a")
        await clock.advance(2 * DAY)
        assert (await engine.purge(older_than=DAY)).ids_freed == 1
        assert await (await engine.start(echo, "b", id="a")).result() == "b"


async def test_purge_removes_ended_runs_after_archiving_them(tmp_path: Path):
    """`purge`: only what ended so long ago, only of that name, at most so many; each is a line of the archive first."""
    clock, file = ManualClock(), tmp_path / "archive.jsonl"
    async with Engine("memory://", [echo, sleeper], clock=clock) as engine:
        for id in ("a", "b"):
            await (await engine.start(echo, id, id=id)).result()
        await engine.start(sleeper, id="open")
        assert (await engine.purge(older_than=DAY)).runs == 0
        await clock.advance(DAY)
        assert (await engine.purge(older_than=DAY, name="sleeper")).runs == 0
        assert (await engine.purge(older_than=DAY, dry_run=True)).runs == 2
        assert (await engine.purge(older_than=DAY, limit=1, archive=file)).archived == 1
        assert await ids(engine) == {"b", "open"}
    assert [read_line(line)[0].id for line in file.read_bytes().splitlines()] == ["a"]


@pytest.mark.parametrize("age", [-1, None, True, "30d"])
async def test_an_age_that_is_no_duration_is_refused(age: object):
    """Nothing is purged by a slip."""
    async with Engine("memory://", [echo]) as engine:
        await (await engine.start(echo, "a", id="a")).result()
        with pytest.raises(DefinitionError):
            await engine.purge(older_than=age)  # type: ignore[arg-type]
        assert await ids(engine) == {"a"}


async def test_an_engine_shows_the_versions_of_its_store(tmp_path: Path):
    """`versions`: what is open by status, who serves it, what is the newest, and what no worker serves."""
    url = f"sqlite:///{tmp_path}/runs.db"
    async with Engine(url, [sleeper]) as engine:
        await engine.start(sleeper, id="a")
        await engine.client.runtime.flushed()
    async with Engine(url, [sleeper_2, echo]) as engine:
        two, one = await engine.versions("sleeper")
        assert (two.name, two.version, two.newest, two.verdict) == ("sleeper", 2, True, VersionVerdict.NEW)
        assert two.workers == (engine.runs.name,)
        assert (one.version, one.newest, one.verdict) == (1, False, VersionVerdict.UNSERVED)
        assert sum(one.open.values()) == 1
        assert one.open.keys() <= set(RunStatus)
        assert (one.workers, one.ended) == ((), 0)
        assert [info.name for info in await engine.versions()] == ["echo", "sleeper", "sleeper"]


async def test_a_run_that_no_worker_serves_needs_attention(tmp_path: Path):
    """Its reason names the version; `list(attention=True)` shows it and `on_attention` is called with it."""
    url, clock = f"sqlite:///{tmp_path}/runs.db", ManualClock()
    told: list[RunInfo] = []

    async def listener(info: RunInfo) -> None:
        told.append(info)

    async with Engine(url, [sleeper], clock=clock) as engine:
        await engine.start(sleeper, id="a")
    async with Engine(url, [sleeper_2], clock=clock, on_attention=listener) as engine:
        assert await engine.list(attention=True) == []
        await clock.advance(31 * DAY)
        (info,) = await engine.list(attention=True)
        assert "version 1 of 'sleeper', which no worker serves" in (info.reason or "")
        assert (await engine.info("a")).reason == info.reason
        await clock.advance(timedelta(minutes=1))
    assert [each.reason for each in told] == [info.reason]


async def test_a_token_is_good_under_the_secret_that_it_was_made_with(tmp_path: Path):
    """`secret=`: engines that agree on it take each other's tokens, and no others."""
    url = f"sqlite:///{tmp_path}/runs.db"
    settings = [Engine(url, secret=secret).runs.settings.secret for secret in (SECRET, SECRET.encode(), None)]
    assert settings[0] == settings[1] != settings[2]
    with pytest.raises(DefinitionError):
        Engine(url, secret="short")
    async with Engine(url, [asks], secret=SECRET, lease=3, max_crashes=2) as engine:
        assert engine.runs.settings.lease_s == 3
        handle = await engine.start(asks, id="a")
        async with asyncio.timeout(20):
            while not (await handle.info()).steps:  # noqa: ASYNC110 - the worker journals it in its own time
                await asyncio.sleep(0.002)
        await engine.complete_callback(value="yes", run_id="a", name="approval")
        assert await handle.result() == "yes"
        assert await handle.status() is RunStatus.COMPLETED


async def test_a_trace_option_that_is_none_is_refused():
    """`start(trace=)` of an engine is the option that sagas have."""
    async with Engine("memory://", [echo]) as engine:
        assert await (await engine.start(echo, "a", trace="join")).result() == "a"
        with pytest.raises(DefinitionError):
            await engine.start("echo", "a", trace="child")  # type: ignore[call-overload]


@saga("idle", version=1)
async def idle(s: Saga) -> None:
    await s.sleep(30 * DAY)


@pytest.mark.parametrize("timeout", ["5", -1, True, float("nan")])
@pytest.mark.parametrize("layer", ["runs", "sagas"])
async def test_a_timeout_that_is_no_duration_is_refused(layer: str, timeout: object):
    """`result(timeout=)` raises the documented error on both handles, at once."""
    async with (
        Engine("memory://", [sleeper]) if layer == "runs" else Orchestrator("memory://", sagas=[idle])
    ) as running:
        handle = await running.start("sleeper" if layer == "runs" else "idle")
        with pytest.raises(DefinitionError):
            await handle.result(timeout=timeout)  # type: ignore[arg-type]


# -- words -----------------------------------------------------------------------------------------------------------


@durable("forgetful", version=1)
async def forgetful(ctx: Context) -> None:
    ctx.sleep(1)  # pyright: ignore[reportUnusedCoroutine]
    await ctx.sleep(0)


@saga("forgetful", version=1)
async def forgetful_saga(s: Saga) -> None:
    s.sleep(1)  # pyright: ignore[reportUnusedCoroutine]
    await s.sleep(0)


@saga("approved", version=1)
async def approved(s: Saga, about: str) -> str:
    return await (await s.callback("approval", str)).result()


async def test_a_stuck_run_is_named_once():
    """The message of `RunStuck` names the run and ends with its own code; the reason is the engine's, whole."""
    async with Engine("memory://", [forgetful]) as engine:
        handle = await engine.start(forgetful, id="a")
        with pytest.raises(RunStuck) as stuck:
            await handle.result()
        message = str(stuck.value)
        assert message.startswith("run 'a' is stuck: ")
        assert message.endswith(stuck.value.page)
        assert message.count("[DC") == 1
        assert message.count("run 'a'") + message.count("run a") == 1
        assert stuck.value.reason == (await handle.info()).reason
        assert stuck.value.reason.startswith("run a: ")


async def test_a_saga_is_never_called_a_run(caplog: pytest.LogCaptureFixture):
    """What its user reads of the engine's messages says saga: reason, error, log, refused ids and answers."""
    async with Orchestrator("memory://", sagas=[forgetful_saga, approved]) as running:
        handle = await running.start(forgetful_saga, id="a")
        with pytest.raises(SagaStuck) as stuck:
            await handle.result()
        reason = (await handle.info()).reason or ""
        assert reason == stuck.value.reason
        assert reason.startswith("saga a: ")
        texts = [str(stuck.value), reason]
        await running.start(approved, "a", id="b")
        with pytest.raises(SagaExists) as taken:
            await running.start(approved, "other", id="b")
        with pytest.raises(CallbackNotFound) as missing:
            await running.complete_callback(value="yes", saga_id="b", name="none")
        async with asyncio.timeout(20):
            while not (await running.info("b")).steps:  # noqa: ASYNC110 - the worker journals it in its own time
                await asyncio.sleep(0.002)
        with pytest.raises(PayloadError) as misfit:
            await running.complete_callback(value=3, saga_id="b", name="approval")
        with pytest.raises(SagaNotFound) as nowhere:
            await running.get("c")
        with pytest.raises(WrongState) as waits:
            await running.retry("b")
        assert [each.value.saga_id for each in (stuck, taken, nowhere, waits)] == ["a", "b", "c", "b"]
        await running.complete_callback(value="yes", saga_id="b", name="approval")
        with pytest.raises(CallbackAlreadyAnswered) as late:
            await running.complete_callback(value="no", saga_id="b", name="approval")
        texts += [str(each.value) for each in (taken, missing, misfit, late, nowhere, waits)]
    texts += [record.getMessage() for record in caplog.records if record.name == "sagas"]
    assert len(texts) > 6
    assert [text for text in texts if re.search(r"\bruns?\b", text.replace("s.run", ""))] == []
