"""The fleet behind a PgBouncer of transactions: the store's whole contract, workers killed, the pooler lost.

`make soak` runs it where the program ``pgbouncer`` is found.
"""

import asyncio
import logging
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import pytest

from durable_core import StoreError
from durable_core.layer import open_store
from durable_core.ports import Store
from durable_core.stores.postgres.connect import connect
from durable_core.stores.postgres.pooler import PooledConnection
from durable_core.stores.postgres.store import PostgresStore
from durable_core.testing.store_contract import StoreContract
from durable_core.testing.store_rows import MakeStore, add, in_loop, new_batch, new_entry
from durable_core.testing.store_rows import opened as opened_store
from sagas import SagaHandle
from tests.crash.fleet import again, audit, check_journal, opened, slow, worker, workers
from tests.crash.victim import Outside, order
from tests.kit import End, end_of
from tests.pgbouncer import PROGRAM, Pooler, pgbouncer
from tests.postgres_server import Server, crash, execute

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif("SAGAS_SOAK" not in os.environ, reason="half a minute more: `make soak` runs it"),
    pytest.mark.skipif(PROGRAM is None, reason="there is no program pgbouncer here; Debian's package has that name"),
]

MANY = 60


@pytest.fixture(scope="module")
def pooler(server: Server) -> Iterator[Pooler]:
    """One that pools transactions, for all these tests."""
    with pgbouncer(server) as running:
        yield running


class TestPooledStore(StoreContract):
    @pytest.fixture
    def make_store(self, pooler: Pooler) -> MakeStore:
        url = pooler.fresh()
        return lambda: open_store(url)

    def crash(self, store: Store) -> None:
        """Its lease would end in a while; here it ends at once."""
        crash(cast("PostgresStore", store))

    @in_loop
    async def test_changed_tells_of_others_only(self, make_store: MakeStore) -> None:
        """Nothing is heard through the pooler: it is true for one in five questions, whatever others have done."""
        async with opened_store(make_store, "w1") as (store,):
            answers = [await store.changed() for _ in range(11)]
            assert answers[0], "what came before it was opened may have been missed"
            assert sum(answers[1:]) == 2


@pytest.mark.parametrize("size", [1, 4])
@pytest.mark.parametrize("robin", ["0", "1"])
def test_a_pooler_of_transactions_is_told(server: Server, size: int, robin: str):
    """Whatever it gives to whom next, and however few connections it has; statements then leave nothing behind."""

    async def main(port: int) -> None:
        made = [await connect(server.url(port=port)) for _ in range(3)]
        assert [type(each) for each in made] == [PooledConnection] * 3
        for number in range(30):
            asked = [each.fetchval("SELECT $1::int8 + 1", number) for each in made]
            assert await asyncio.gather(*asked) == [number + 1] * 3
        for each in made:
            await each.close()

    with pgbouncer(server, size=size, server_round_robin=robin) as running:
        asyncio.run(main(running.port))
        left = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'LISTEN%'"
        assert execute(server.url(), left) == [(0,)]


def test_a_pooler_of_sessions_is_no_hindrance(server: Server, caplog: pytest.LogCaptureFixture):
    """Through it statements stay prepared, and notifications arrive."""

    async def main(url: str) -> None:
        store, other = (cast("PostgresStore", open_store(url)) for _ in range(2))
        await store.open(worker="w1")
        await other.open(worker="w2")
        async with store._database.questions.use() as connection:
            assert not isinstance(connection, PooledConnection)
        while await store.changed():
            pass
        store._database.listener._asked = 0  # so that it says yes for no other reason
        await add(other, "a")
        async with asyncio.timeout(20):
            while not store._database.listener._changed:
                await store._database.run("ask for the time", store._membership.measure)
        await store.close()
        await other.close()

    with caplog.at_level(logging.WARNING), pgbouncer(server, mode="session", size=20) as running:
        asyncio.run(main(running.fresh()))
    assert caplog.text == ""


def test_it_is_said_that_notifications_do_not_arrive(pooler: Pooler, caplog: pytest.LogCaptureFixture):
    """Once for each store, with what to do; what others write is looked for all the same."""

    async def main(url: str) -> None:
        store, other = open_store(url), open_store(url)
        await store.open(worker="w1")
        await other.open(worker=None)
        while await store.changed():
            pass
        await add(other, "a")
        asked = 0
        while not await store.changed():
            asked += 1
        assert asked < 5
        await store.close()
        await other.close()

    with caplog.at_level(logging.WARNING):
        asyncio.run(main(pooler.fresh()))
    assert caplog.text.count("notifications do not arrive here") == 2
    assert "reach PostgreSQL directly" in caplog.text


def test_workers_behind_it_are_killed(pooler: Pooler, tmp_path: Path):
    """Of three workers one after the other is killed and replaced: all sagas end as they should."""
    outside, url = Outside(tmp_path), pooler.fresh()
    numbers = {f"o{number}": number if number % 4 else -1 - number for number in range(MANY)}

    async def main() -> None:
        with workers(url, tmp_path, 0, 0, 0, lease=1) as processes:
            async with opened(url, outside, worker=False) as observer:
                handles: dict[str, SagaHandle[int]] = {}
                for place, (name, number) in enumerate(numbers.items()):
                    handles[name] = await observer.start(slow, number, id=name)
                    if place % 10 == 9:
                        os.kill(processes[0].pid, signal.SIGKILL)
                        processes.pop(0).communicate()
                        processes.append(worker(url, tmp_path, lease=1))
                for name, handle in handles.items():
                    end = await end_of(handle, observer, deadline_s=60)
                    assert end.status == ("completed" if numbers[name] >= 0 else "compensated"), (name, end)
                    check_journal(await handle.history())

    asyncio.run(main())
    audit(outside, ["pack", "charge", "pack#2", "ship"], orders=numbers)
    print(f"{again(outside)} of {len(outside.calls())} calls were repeated")


def test_a_commit_is_written_once_though_the_pooler_dies(server: Server):
    """It is ended amid commits and replaced: what had been sent is settled, and nothing is there twice."""

    async def main() -> None:
        running = pgbouncer(server)
        pooler = running.__enter__()
        store = cast("PostgresStore", open_store(pooler.fresh()))
        await store.open(worker="w1")
        num = await add(store, "a", owner="w1", wake_at_ns=None)
        written = 0

        async def write() -> None:
            nonlocal written
            for seq in range(1, 201):
                batch = new_batch(entries=[new_entry(num, seq)])
                while True:
                    try:
                        await store.journal.commit(batch)
                    except StoreError as error:
                        if not error.transient:
                            raise
                        await asyncio.sleep(0.02)
                    else:
                        break
                written = seq

        writing = asyncio.create_task(write())
        for after in (20, 60, 100):
            while written < after:
                assert not writing.done()
                await asyncio.sleep(0)
            pooler.process.kill()
            running.__exit__(None, None, None)
            running = pgbouncer(server, port=pooler.port)
            pooler = running.__enter__()
        await writing
        assert [entry.seq for entry in (await store.journal.load([num]))[num]] == list(range(1, 201))
        await store.close()
        running.__exit__(None, None, None)

    asyncio.run(main())


def test_a_saga_runs_through_it_from_start_to_end(pooler: Pooler, tmp_path: Path):
    """Starter, worker and observer need nothing but the address."""
    outside = Outside(tmp_path)

    async def main() -> None:
        async with opened(pooler.fresh(), outside) as running:
            handle = await running.start(order, 7, id="o")
            assert await end_of(handle, running) == End("completed", 21)
            assert (await running.list())[0].id == "o"

    asyncio.run(main())
    audit(outside, ["reserve", "charge", "ship"], orders={"o": 7})


def test_a_pooler_of_statements_is_refused(server: Server):
    """By name, for good, with the setting to change."""
    with pgbouncer(server, mode="statement") as running, pytest.raises(StoreError, match="pool_mode") as caught:
        asyncio.run(open_store(running.fresh()).open(worker="w1"))
    assert not caught.value.transient
