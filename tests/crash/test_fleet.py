"""A fleet on one PostgreSQL: workers are stopped, killed and told the wrong time, and every saga ends as it should."""

import asyncio
import os
import random
import signal
import subprocess
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from durable_core import StoreError
from durable_core.stores.postgres.store import PostgresStore
from sagas import Orchestrator, SagaHandle
from tests.crash.fleet import again, audit, check_journal, opened, sleepy, slow, worker, workers
from tests.crash.victim import Outside, order, waiting
from tests.postgres_server import Server, expire
from tests.sagas_for_tests import End, end_of, until

pytestmark = pytest.mark.slow

KILLED = int(os.environ.get("SAGAS_SOAK", "300"))
"""Sagas of the test that kills workers at random; `make soak` takes 2,000."""


def store_of(running: Orchestrator) -> PostgresStore:
    """Its store."""
    assert isinstance(running.engine.store, PostgresStore)
    return running.engine.store


async def called(outside: Outside, running: Orchestrator, step: str, *, times: int = 1, pid: int = 0) -> None:
    """Wait until a step has been called so often, by that process where one is given."""

    async def there() -> bool:
        calls = [call for call in outside.calls() if call.step == step and (not pid or call.pid == pid)]
        return len(calls) >= times

    await until(there, running)


async def armed(handle: SagaHandle[Any]) -> bool:
    """Whether the saga's sleep has begun."""
    return "armed" in [entry.kind for entry in await handle.history()]


def test_a_worker_that_lost_its_lease_drops_its_runs_and_goes_on(server: Server, tmp_path: Path):
    """Others end its sagas; it writes nothing of them, is told so, and then works again under another name."""
    outside, url = Outside(tmp_path), server.fresh()

    async def main() -> None:
        async with opened(url, outside) as first, opened(url, outside) as second:
            handles = [await first.start(waiting, number, id=f"w{number}") for number in range(20)]
            await called(outside, first, "wait", times=20)
            name = first.engine.name
            expire(store_of(first))
            await store_of(second).release_dead()
            await called(outside, second, "wait", times=40)
            (tmp_path / "go").touch()
            for number, handle in enumerate(handles):
                assert await end_of(handle, first) == End("completed", 2 * number)
                before, *_, after = [entry.worker for entry in await handle.history()]
                assert before == name != after

            async def renamed() -> bool:
                return first.engine.name != name

            await until(renamed, first)
            await second.__aexit__(None, None, None)
            handle = await first.start(order, 7, id="new")
            assert await end_of(handle, first) == End("completed", 21)
            assert {entry.worker for entry in await handle.history()} == {first.engine.name}
            await second.__aenter__()

    asyncio.run(main())


def test_a_start_that_meets_the_loss_was_not_made(server: Server, tmp_path: Path):
    """It is refused with an error that says to start again, and starting again works."""
    outside, url = Outside(tmp_path), server.fresh()

    async def main() -> None:
        async with opened(url, outside) as first, opened(url, outside, worker=False) as observer:
            expire(store_of(first))
            assert await store_of(observer).release_dead() == 0
            refused: list[StoreError] = []
            for number in range(40):
                try:
                    handle: SagaHandle[int] = await first.start(order, number, id=f"o{number}")
                except StoreError as error:
                    refused.append(error)
                    assert await store_of(observer).find([f"o{number}"]) == []
                    handle = await first.start(order, number, id=f"o{number}")
                assert await end_of(handle, first) == End("completed", 3 * number)
            assert [(type(error), error.transient) for error in refused] == [(StoreError, True)]
        audit(outside, ["reserve", "charge", "ship"], orders={f"o{number}": number for number in range(40)})

    asyncio.run(main())


def test_a_worker_that_is_stopped_past_its_lease_does_nothing_late(server: Server, tmp_path: Path):
    """SIGSTOP, a takeover, SIGCONT: no step of those sagas begins in it again, none of its late rows is kept."""
    outside, url = Outside(tmp_path), server.fresh()

    async def main() -> None:
        with workers(url, tmp_path, 0, lease=1) as (process,):
            async with opened(url, outside, worker=False) as observer:
                handles = [await observer.start(waiting, number, id=f"w{number}") for number in range(10)]
                await called(outside, observer, "wait", times=10, pid=process.pid)
                os.kill(process.pid, signal.SIGSTOP)
                async with opened(url, outside) as other:
                    await called(outside, other, "wait", times=10, pid=os.getpid())
                    before = len(outside.calls())
                    journals = [await handle.history() for handle in handles]
                    (tmp_path / "go").touch()
                    os.kill(process.pid, signal.SIGCONT)
                    for number, handle in enumerate(handles):
                        assert await end_of(handle, other) == End("completed", 2 * number)
                    assert len(outside.calls()) == before, "a step was called late"
                    for handle, journal in zip(handles, journals, strict=True):
                        late = (await handle.history())[len(journal) :]
                        assert {entry.worker for entry in late} == {other.engine.name}
                handle = await observer.start(order, 5, id="new")
                assert await end_of(handle, observer) == End("completed", 15)
                assert {call.pid for call in outside.calls() if call.saga == "new"} == {process.pid}

    asyncio.run(main())
    assert "[DC014]" in (tmp_path / "errors").read_text()


def test_workers_that_are_killed_at_random(server: Server, tmp_path: Path):
    """Of four workers one is killed every now and then: all sagas end as they should."""
    outside, url = Outside(tmp_path), server.fresh()
    seed = int(os.environ.get("SAGAS_SEED", "0")) or random.randrange(1 << 30)
    print(f"SAGAS_SEED={seed}")
    chance = random.Random(seed)
    numbers = {f"o{number}": number if number % 4 else -1 - number for number in range(KILLED)}

    async def kill_some(processes: list["subprocess.Popen[str]"], until_done: asyncio.Event) -> None:
        while not until_done.is_set():
            await asyncio.sleep(chance.uniform(0.1, 0.5))
            place = chance.randrange(len(processes))
            processes[place].kill()
            processes[place].communicate()
            processes[place] = worker(url, tmp_path, lease=1)

    async def main() -> None:
        with workers(url, tmp_path, 0, 0, 0, 0, lease=1) as processes:
            async with opened(url, outside, worker=False) as observer:
                done = asyncio.Event()
                killing = asyncio.create_task(kill_some(processes, done))
                handles: dict[str, SagaHandle[int]] = {}
                for name, number in numbers.items():
                    handles[name] = await observer.start(slow, number, id=name)
                    await asyncio.sleep(chance.uniform(0, 0.02))
                done.set()
                await killing
                for name, handle in handles.items():
                    end = await end_of(handle, observer, deadline_s=60)
                    number = numbers[name]
                    assert end.status == ("completed" if number >= 0 else "compensated"), (name, end)
                    check_journal(await handle.history())

    asyncio.run(main())
    audit(outside, ["pack", "charge", "pack#2", "ship"], orders=numbers)
    print(f"{again(outside)} of {len(outside.calls())} calls were repeated")


def test_clocks_that_are_wrong_by_an_hour(server: Server, tmp_path: Path):
    """A worker an hour early begins a sleep, one an hour late wakes from it: it lasts as long as it should."""
    outside, url = Outside(tmp_path), server.fresh()

    async def main() -> None:
        async with opened(url, outside, worker=False) as observer:
            began = time.time()
            handle = await observer.start(sleepy, 6.0, id="s")
            with workers(url, tmp_path, 3600, lease=1):
                await called(outside, observer, "touch")
                await until(lambda: armed(handle), observer)
            with workers(url, tmp_path, -3600, lease=1):
                assert (await end_of(handle, observer)).status == "completed"
            assert 6.0 <= time.time() - began < 25.0
            assert len({call.pid for call in outside.calls()}) == 2
            history = await handle.history()
            assert [entry.at for entry in history] == sorted(entry.at for entry in history)
            assert all(abs((entry.at - datetime.now(UTC)).total_seconds()) < 60 for entry in history)
            begin, end = (next(entry.at for entry in history if entry.kind == kind) for kind in ("armed", "fired"))
            assert 6.0 <= (end - begin).total_seconds() < 25.0

    asyncio.run(main())
