"""A saga that waits for an answer, whose worker is killed before, while and after another process gives that."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from sagas import CallbackAlreadyAnswered, SagaNotFound, SagaStatus
from tests import forked
from tests.crash.asker import opened
from tests.crash.victim import DIED, Outside

ROOT = Path(__file__).parents[2]
PATIENCE_S = 30.0

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Senders wait only a little for a worker that is dead."""
    monkeypatch.setattr("durable_core.engine.callback_delivery.KEPT_AFTER_S", 0.5)


@contextlib.contextmanager
def worker(directory: Path, commits: int = 0) -> "Iterator[subprocess.Popen[str]]":
    """A worker in a process of its own, gone on exit."""
    with forked.Process(
        [sys.executable, "-m", "tests.crash.asker", str(directory), str(commits)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        text=True,
        stdout=subprocess.PIPE,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def wait_until_it_waits(process: "subprocess.Popen[str]") -> None:
    assert process.stdout is not None
    assert process.stdout.readline() == "waiting\n"


async def result(directory: Path) -> str:
    """What the saga comes to with a worker in this process."""
    async with opened(directory) as running:
        handle = await running.get("a")
        return str(await handle.result(timeout=PATIENCE_S))


def audit(directory: Path) -> None:
    """Each effect is there, under one key, and what had ended was not repeated."""
    calls = Outside(directory).calls()
    assert {call.step for call in calls} == {"reserve", "charge"}
    assert not any(call.undoes for call in calls)
    assert len({call.key for call in calls}) == 2
    assert Outside(directory).live("a") == {"reserve": 1, "charge": 1}


def test_the_worker_is_killed_while_the_saga_waits_and_then_comes_the_answer(tmp_path: Path):
    """SIGKILL, then an answer while nobody works, then another answer, then a new worker: the first answer counts."""
    with worker(tmp_path) as process:
        wait_until_it_waits(process)
        os.kill(process.pid, signal.SIGKILL)
    token = (tmp_path / "token").read_text()

    async def main() -> str:
        async with opened(tmp_path, worker=False) as outside:
            await outside.heartbeat_callback(token)
            await outside.complete_callback(token, "yes")
            with pytest.raises(CallbackAlreadyAnswered):
                await outside.complete_callback(token, "no")
        return await result(tmp_path)

    assert asyncio.run(main()) == "yes"
    audit(tmp_path)


def test_the_worker_is_killed_right_after_it_took_the_answer_up(tmp_path: Path):
    """The sender was told that it is accepted: the next worker goes on with it."""

    async def main() -> str:
        with worker(tmp_path) as process:
            await asyncio.to_thread(wait_until_it_waits, process)
            token = (tmp_path / "token").read_text()
            async with opened(tmp_path, worker=False) as outside:
                await outside.complete_callback(token, "yes")
                os.kill(process.pid, signal.SIGKILL)
                with pytest.raises(CallbackAlreadyAnswered):
                    await outside.complete_callback(token, "no")
                await outside.complete_callback(token, "yes")
        return await result(tmp_path)

    assert asyncio.run(main()) == "yes"
    audit(tmp_path)


@pytest.mark.parametrize("commits", range(1, 10))
def test_the_worker_dies_after_any_commit_while_another_process_answers(tmp_path: Path, commits: int):
    """Answers are sent as soon as there is a token, until one is taken; whatever was told is what the saga comes to."""

    async def answered() -> str:
        async with opened(tmp_path, worker=False) as outside:
            while not (tmp_path / "token").exists():  # noqa: ASYNC110 - another process makes it
                await asyncio.sleep(0.005)
            token = (tmp_path / "token").read_text()
            await outside.heartbeat_callback(token)
            await outside.complete_callback(token, "yes")
            return token

    async def main() -> tuple[str, str]:
        sending: asyncio.Task[str] | None = None
        with worker(tmp_path, commits) as process:
            sending = asyncio.create_task(answered())
            while process.poll() is None and not sending.done():  # noqa: ASYNC110 - another process ends
                await asyncio.sleep(0.005)
            if process.poll() is None:
                process.kill()
            assert await asyncio.to_thread(process.wait, 20) in (DIED, -signal.SIGKILL)
        async with opened(tmp_path) as running:
            with contextlib.suppress(SagaNotFound):
                await running.get("a")
            handle = await running.start("ask", id="a")
            token = await asyncio.wait_for(sending, PATIENCE_S)
            end = str(await handle.result(timeout=PATIENCE_S))
            with pytest.raises(CallbackAlreadyAnswered):
                await running.complete_callback(token, "no")
            return end, token

    end, token = asyncio.run(main())
    assert end == "yes"
    assert token == (tmp_path / "token").read_text(), "the token is the same in every process"
    audit(tmp_path)


def test_heartbeats_that_come_while_nobody_works_count(tmp_path: Path):
    """They are kept, as one, and the next worker journals it; the saga still waits."""
    with worker(tmp_path) as process:
        wait_until_it_waits(process)
        os.kill(process.pid, signal.SIGKILL)
    token = (tmp_path / "token").read_text()

    async def main() -> None:
        async with opened(tmp_path, worker=False) as outside:
            await outside.heartbeat_callback(token)
            async with opened(tmp_path):
                handle = await outside.get("a")
                async with asyncio.timeout(PATIENCE_S):
                    while not any(entry.kind == "heartbeat" for entry in await handle.history()):  # noqa: ASYNC110
                        await asyncio.sleep(0.005)
                    while (await handle.info()).status is not SagaStatus.WAITING:  # noqa: ASYNC110
                        await asyncio.sleep(0.005)
                await outside.complete_callback(token, "yes")
                assert await handle.result(timeout=PATIENCE_S) == "yes"

    asyncio.run(main())
    audit(tmp_path)


def test_no_answer_is_lost_in_a_race_with_death(tmp_path: Path):
    """Killed at some moment while it is being answered, five times over: what the sender was told holds."""
    for round_ in range(5):
        directory = tmp_path / str(round_)
        directory.mkdir()

        async def main(place: Path = directory, delay_s: float = 0.004 * round_) -> str:
            with worker(place) as process:
                await asyncio.to_thread(wait_until_it_waits, process)
                async with opened(place, worker=False) as outside:
                    token = (place / "token").read_text()
                    sending = asyncio.create_task(outside.complete_callback(token, "yes"))
                    await asyncio.sleep(delay_s)  # any moment will do; none is relied on
                    os.kill(process.pid, signal.SIGKILL)
                    await sending
            return await result(place)

        assert asyncio.run(main()) == "yes"
        audit(directory)
