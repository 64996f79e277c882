"""PostgreSQL itself goes down, as in a crash, and comes back: sagas under way wait, and end as they should."""

import asyncio
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from durable_core import StoreError
from sagas import SagaHandle
from tests.crash.fleet import audit, check_journal, opened, slow
from tests.crash.victim import Outside, waiting
from tests.postgres_server import QUICK, Server
from tests.sagas_for_tests import end_of, until

pytestmark = pytest.mark.slow

ROUNDS = 3


@pytest.fixture
def mortal() -> Iterator[Server]:
    """A server of the test's own, for it to stop."""
    with Server(**QUICK) as running:
        yield running


def test_the_server_is_stopped_at_once_and_restarted_under_load(mortal: Server, tmp_path: Path):
    """Nothing that was acknowledged is lost, no step that succeeded runs again, and starts made meanwhile wait."""
    outside, url = Outside(tmp_path), mortal.fresh()
    numbers = {f"o{number}": number if number % 3 else -1 - number for number in range(90)}

    async def main() -> None:
        handles: dict[str, SagaHandle[int]] = {}

        async def start(names: list[str]) -> None:
            for name in names:
                handles[name] = await running.start(slow, numbers[name], id=name)
                await asyncio.sleep(0.02)

        async with opened(url, outside) as running, opened(url, outside) as _:
            names = list(numbers)
            for place in range(ROUNDS):
                starting = asyncio.create_task(start(names[place::ROUNDS]))
                await asyncio.sleep(0.2)
                await asyncio.to_thread(mortal.stop, signal.SIGQUIT)
                await asyncio.sleep(0.3)
                await asyncio.to_thread(mortal.start)
                await starting
            for name, handle in handles.items():
                end = await end_of(handle, running)
                assert end.status == ("completed" if numbers[name] >= 0 else "compensated"), (name, end)
                check_journal(await handle.history())

    asyncio.run(main())
    audit(outside, ["pack", "charge", "pack#2", "ship"], orders=numbers)


def test_a_call_gives_up_on_a_lost_server_after_its_time(mortal: Server, tmp_path: Path):
    """It raises an error that says what to do; once the server is back the same orchestrator goes on."""
    url = mortal.fresh()

    async def main() -> None:
        running = opened(url, Outside(tmp_path), store_timeout=0.5)
        async with running:
            await (await running.start(slow, 1, id="before")).result()
            await asyncio.to_thread(mortal.stop, signal.SIGQUIT)
            for call in (running.start(slow, 2, id="a"), running.get("before"), running.count()):
                with pytest.raises(StoreError, match="the server") as caught:
                    await call
                assert caught.value.transient
            await asyncio.to_thread(mortal.start)
            assert (await end_of(await running.start(slow, 3, id="after"), running)).value == 3

    asyncio.run(main())


def test_workers_that_come_back_together_do_not_bury_each_other(mortal: Server, tmp_path: Path):
    """The server is away for longer than a lease: all keep their names and their sagas, and nothing is called again."""
    outside, url = Outside(tmp_path), mortal.fresh()

    async def main() -> None:
        async with opened(url, outside, lease=3) as first, opened(url, outside, lease=3) as second:
            names = first.engine.name, second.engine.name
            handles = [await first.start(waiting, number, id=f"a{number}") for number in range(5)]
            handles += [await second.start(waiting, number, id=f"b{number}") for number in range(5)]

            async def all_wait() -> bool:
                return len([call for call in outside.calls() if call.step == "wait"]) == len(handles)

            await until(all_wait, first)
            await asyncio.to_thread(mortal.stop, signal.SIGQUIT)
            await asyncio.sleep(4)
            await asyncio.to_thread(mortal.start)
            await asyncio.sleep(2.5)  # what they would do to each other, they would have done by now
            (tmp_path / "go").touch()
            for handle in handles:
                assert (await end_of(handle, first)).status == "completed"
            assert (first.engine.name, second.engine.name) == names
            assert len([call for call in outside.calls() if call.step == "wait"]) == len(handles)

    asyncio.run(main())
