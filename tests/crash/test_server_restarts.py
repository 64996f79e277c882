"""PostgreSQL itself goes down, as in a crash, and comes back: sagas under way wait, and end as they should."""

import asyncio
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from durable_core import StoreError
from durable_core.stores.postgres.address import place_of
from durable_core.stores.postgres.store import PostgresStore
from sagas import SagaHandle
from tests.crash.fleet import audit, check_journal, opened, slow
from tests.crash.victim import Outside, waiting
from tests.kit import end_of, until
from tests.postgres_server import QUICK, Server, execute

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


def test_sagas_under_way_wait_for_a_server_whose_socket_is_gone(mortal: Server, tmp_path: Path):
    """A server on a socket takes it along when it stops: no saga is given up, and none stays running for nobody."""
    outside, url = Outside(tmp_path), mortal.fresh()
    names = [f"o{number}" for number in range(20)]

    async def main() -> None:
        async with opened(mortal.local_url(schema=url.rpartition("=")[2]), outside) as running:
            handles = [await running.start(slow, place, id=name) for place, name in enumerate(names)]
            await asyncio.to_thread(mortal.stop, signal.SIGINT)
            assert not mortal.socket.exists()
            starting = asyncio.create_task(running.start(slow, 99, id="meanwhile"))

            async def in_trouble() -> bool:
                return running.engine.health().trouble is not None

            async with asyncio.timeout(20):
                while not await in_trouble():  # noqa: ASYNC110 - it is the server that is waited for
                    await asyncio.sleep(0.01)
            await asyncio.to_thread(mortal.start)
            for handle in [*handles, await starting]:
                assert (await end_of(handle, running)).status == "completed"

    asyncio.run(main())
    audit(
        outside, ["pack", "charge", "pack#2", "ship"], orders={**{n: p for p, n in enumerate(names)}, "meanwhile": 99}
    )


def test_a_worker_enters_once_its_server_is_up(mortal: Server, tmp_path: Path):
    """And takes up what was left by one before it."""
    outside, url = Outside(tmp_path), mortal.fresh()

    async def main() -> None:
        async with opened(url, outside, worker=False) as observer:
            await observer.start(slow, 1, id="before")
        await asyncio.to_thread(mortal.stop, signal.SIGINT)
        running = opened(url, outside)
        entering = asyncio.create_task(running.__aenter__())
        await asyncio.sleep(0.3)
        assert not entering.done()
        await asyncio.to_thread(mortal.start)
        await entering
        try:
            assert (await end_of(await running.get("before"), running)).status == "completed"
        finally:
            await running.__aexit__(None, None, None)

    asyncio.run(main())


def test_a_worker_that_cannot_enter_gives_up_after_its_time(mortal: Server, tmp_path: Path):
    """It says what to do, leaves nothing behind, and the same orchestrator enters later."""

    async def main() -> None:
        await asyncio.to_thread(mortal.stop, signal.SIGINT)
        running = opened(mortal.fresh(), Outside(tmp_path), store_timeout=0.3)
        with pytest.raises(StoreError, match="the server") as caught:
            await running.__aenter__()
        assert caught.value.transient
        assert len(asyncio.all_tasks()) == 1
        await asyncio.to_thread(mortal.start)
        async with running:
            assert (await end_of(await running.start(slow, 3, id="a"), running)).value == 3

    asyncio.run(main())


def test_a_worker_that_is_taken_for_dead_while_it_enters_takes_another_name(server: Server, tmp_path: Path):
    """As it would later; it serves its sagas under the new one."""

    class Slow(PostgresStore):
        """One whose process is stopped right after it has announced its worker."""

        async def open(self, *, worker: str | None) -> None:
            await super().open(worker=worker)
            execute(self.place.dsn, f"DELETE FROM {self._database.check_open().quoted}.workers")

    async def main() -> None:
        running = opened(Slow(place_of(server.fresh(), {}), lease_s=60), Outside(tmp_path))
        before = running.engine.name
        async with running:
            assert running.engine.name != before
            assert (await end_of(await running.start(slow, 3, id="a"), running)).value == 3
            (served,) = [each for each in await running.versions() if each.saga == "slow"]
            assert served.workers == (running.engine.name,)

    asyncio.run(main())


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
