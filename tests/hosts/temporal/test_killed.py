"""The process of a worker is killed amid a call: effects are counted in a file outside."""

import asyncio
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from sagas import SagaCompensated
from tests.docs.readme import ROOT
from tests.hosts.temporal.stage import environment, needs_temporal
from tests.kit import until, within

pytestmark = [needs_temporal, pytest.mark.slow]


@asynccontextmanager
async def worker(env: Any, effects: Path, hangs: str = "") -> AsyncGenerator[subprocess.Popen[bytes]]:
    """A worker process; it is killed at the end of the block."""
    address = env.client.service_client.config.target_host
    command = [sys.executable, "-m", "tests.hosts.temporal.victim", address, str(effects), hangs]
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, cwd=ROOT, env=environ) as process:  # noqa: ASYNC220 - it only begins here
        try:
            yield process
        finally:
            process.send_signal(signal.SIGKILL)


def lines(effects: Path) -> list[list[str]]:
    """What was called so far: what, attempt, idempotency key."""
    return [line.split("|") for line in effects.read_text(encoding="utf-8").splitlines()] if effects.exists() else []


@pytest.mark.parametrize(
    ("hangs", "expected"),
    [
        ("hotel", ["car", "fenced", "hotel", "hotel", "flight", "undo hotel", "undo fenced", "undo car"]),
        ("fenced", ["car", "fenced", "undo fenced, unknown", "undo car"]),
        (
            "undo fenced",
            ["car", "fenced", "hotel", "flight", "undo hotel", "undo fenced", "undo fenced", "undo car"],
        ),
    ],
)
def test_a_worker_is_killed_amid_a_call(tmp_path: Path, hangs: str, expected: list[str]):
    """The next worker goes on: the call is made again under its key, one of at_most_once is not, nothing else is."""
    from sagas.hosts import temporal

    effects = tmp_path / "effects"

    async def main() -> None:
        async with environment(tmp_path) as env:
            client = temporal.Client(env.client, task_queue="sagas")
            handle = await client.start("trip", id="one", version=1)
            async with worker(env, effects, hangs):
                await until(lambda: [what for what, *_ in lines(effects)][-1:] == [hangs])
            async with worker(env, effects):
                with pytest.raises(SagaCompensated) as end:
                    await within(handle.result(), deadline_s=60)
            assert end.value.cause == "failed"

    asyncio.run(main())
    found = lines(effects)
    assert [what for what, *_ in found] == expected
    again = {what for what, count in Counter(what for what, *_ in found).items() if count > 1}
    for what in again:
        assert len({key for each, _, key in found if each == what}) == 1
        assert [attempt for each, attempt, _ in found if each == what] == ["1", "2"]
