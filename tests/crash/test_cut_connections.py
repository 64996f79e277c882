"""The connection to PostgreSQL is cut at each message of a commit, of a claim and of a signal: each happens once."""

import asyncio
import itertools
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import cast

import attrs
import pytest

from durable_core import StoreError
from durable_core.layer import open_store
from durable_core.ports import Batch
from durable_core.stores.postgres.connect import connect
from durable_core.stores.postgres.connection import in_transaction
from durable_core.stores.postgres.store import PostgresStore
from durable_core.testing.store_rows import SERVED, add, new_batch, new_entry, new_run, new_update, the
from tests.crash.proxy import Direction, Proxy, proxy
from tests.postgres_server import Server

pytestmark = pytest.mark.slow

DIRECTIONS: tuple[Direction, ...] = ("to server", "to client")
MOST = 160
"""More messages than any of these takes."""


@attrs.frozen
class Scene:
    """A store behind a proxy, and an observer that reaches the server directly."""

    store: PostgresStore
    observer: PostgresStore
    proxy: Proxy


@asynccontextmanager
async def scene(server: Server, *, worker: str | None = "w1") -> AsyncGenerator[Scene]:
    schema = server.fresh().rpartition("=")[2]
    async with proxy(server.port) as between:
        store = cast("PostgresStore", open_store(server.url(schema=schema, port=between.port), lease_s=600))
        observer = cast("PostgresStore", open_store(server.url(schema=schema)))
        await observer.open(worker=None)
        await store.open(worker=worker)
        async with asyncio.timeout(20):
            while store._membership.lease is not None and not store._membership.lease.renewed:  # noqa: ASYNC110 - its thread says nothing
                await asyncio.sleep(0.01)
        try:
            yield Scene(store, observer, between)
        finally:
            between.disarm()
            await store.close()
            await observer.close()


async def at_each_message(at: Scene, act: Callable[[int], Awaitable[None]]) -> int:
    """Do ``act`` once for each message that it takes, with the connection cut there; how many these were."""
    cuts, numbers = 0, itertools.count()
    for direction in DIRECTIONS:
        for after in range(MOST):
            at.proxy.cut(direction, after)
            await act(next(numbers))
            if at.proxy.armed:
                at.proxy.disarm()
                break
            cuts += 1
        else:
            raise AssertionError("it takes more messages than expected")
    assert cuts == at.proxy.cuts
    return cuts


async def commit(store: PostgresStore, batch: Batch) -> frozenset[int]:
    """Write it as the writer does: again while the error may pass."""
    for _ in range(20):
        try:
            return await store.journal.commit(batch)
        except StoreError as error:
            if not error.transient:
                raise
            await asyncio.sleep(0.01)
    raise AssertionError("it is never written")


def small(store: PostgresStore, number: int) -> Batch:
    """A start with its first entries, and another one whose id is taken."""
    num, refused = store.journal.next_num(), store.journal.next_num()
    return new_batch(
        starts=[new_run(num, f"r{number}", owner="w1", wake_at_ns=None), new_run(refused, "taken", owner="w1")],
        entries=[new_entry(num, 1), new_entry(refused, 1), new_entry(num, 2)],
    )


def large(store: PostgresStore, number: int) -> Batch:
    """The same with many entries and an update, so that it takes several statements and a COPY."""
    batch = small(store, number)
    num = batch.starts[0].num
    batch.entries += [new_entry(num, seq) for seq in range(3, 400)]
    batch.updates[num] = new_update(num, owner="w1")
    return batch


@pytest.mark.parametrize("make", [small, large])
@pytest.mark.parametrize("worker", ["w1", None])
def test_a_commit_is_written_once(make: Callable[[PostgresStore, int], Batch], worker: str | None, server: Server):
    """Wherever it is cut: all of it is there once, and the starts that were refused are reported."""

    async def run() -> None:
        async with scene(server, worker=worker) as at:
            await add(at.observer, "taken")

            async def act(number: int) -> None:
                batch = make(at.store, number)
                begun, refused = (start.num for start in batch.starts)
                assert await commit(at.store, batch) == {refused}
                journals = await at.observer.journal.load([begun, refused])
                assert journals == {begun: [entry for entry in batch.entries if entry.run == begun], refused: []}
                assert (await the(at.observer, f"r{number}")).num == begun

            print(f"{await at_each_message(at, act)} cuts")

    asyncio.run(run())


def test_a_commit_that_ends_and_lets_go_is_written_once(server: Server):
    """A run that is given back, and then claimed by another, is not taken from it by the repetition."""

    async def run() -> None:
        async with scene(server) as at:

            async def act(number: int) -> None:
                num = await add(at.observer, f"r{number}", owner="w1", wake_at_ns=None)
                update = new_update(num, owner=None, wake_at_ns=0)
                committing = asyncio.create_task(
                    commit(at.store, new_batch(entries=[new_entry(num, 1)], updates=[update]))
                )
                while not committing.done():
                    await at.observer.claims.claim("other", SERVED, now_ns=1000, limit=1)
                await committing
                await at.observer.claims.claim("other", SERVED, now_ns=1000, limit=1)
                assert (await the(at.observer, f"r{number}")).owner == "other"
                assert await at.observer.journal.load([num]) == {num: [new_entry(num, 1)]}

            await at_each_message(at, act)

    asyncio.run(run())


def test_a_claim_loses_no_run(server: Server):
    """What a claim has taken when it was cut is handed out by the next one; nothing is owned that nobody knows of."""

    async def run() -> None:
        async with scene(server) as at:

            async def act(number: int) -> None:
                nums = {await add(at.observer, f"r{number}.{part}") for part in range(3)}
                got: list[int] = []
                while claimed := await at.store.claims.claim("w1", SERVED, now_ns=1000, limit=2):
                    got += [run.num for run in claimed]
                assert sorted(got) == sorted(nums)

            await at_each_message(at, act)

    asyncio.run(run())


def test_a_signal_is_left_once_or_said_to_be_unknown(server: Server):
    """It is never repeated by itself."""

    async def run() -> None:
        async with scene(server) as at:

            async def act(number: int) -> None:
                num = await add(at.observer, f"r{number}", owner="w2", wake_at_ns=None)
                try:
                    assert await at.store.signals.send(num, "cancel", b"1", now_ns=1)
                except StoreError as error:
                    assert "not known" in str(error)  # noqa: PT017 - either way is right
                    assert len(await at.observer.signals.waiting([num])) <= 1
                else:
                    assert len(await at.observer.signals.waiting([num])) == 1

            await at_each_message(at, act)

    asyncio.run(run())


def test_signals_that_go_together_are_left_once_or_said_to_be_unknown(server: Server):
    """Whoever is told that his was left finds it; nobody's is there twice."""

    async def run() -> None:
        async with scene(server) as at:

            async def act(number: int) -> None:
                nums = [await add(at.observer, f"r{number}.{part}", owner="w2", wake_at_ns=None) for part in range(5)]
                told = await asyncio.gather(
                    *(at.store.signals.send(num, "cancel", b"1", now_ns=1) for num in nums), return_exceptions=True
                )
                for num, answer in zip(nums, told, strict=True):
                    found = len(await at.observer.signals.waiting([num]))
                    assert found == 1 if answer is True else "not known" in str(answer) and found <= 1

            assert await at_each_message(at, act) > 4

    asyncio.run(run())


def test_a_signal_for_a_run_that_is_being_written_holds_up_no_other(server: Server):
    """It waits for that commit by itself; those that came with it are left at once, and wait for no row together."""

    async def run() -> None:
        async with scene(server) as at:
            nums = [await add(at.observer, f"r{part}", owner="w2", wake_at_ns=None) for part in range(5)]
            writing = await connect(at.observer.place.dsn)
            async with in_transaction(writing):
                schema = at.observer._database.check_open().quoted
                await writing.execute(f"UPDATE {schema}.runs SET updated_at_ns = 5 WHERE num = $1", nums[2])
                asked = [asyncio.create_task(at.store.signals.send(num, "cancel", b"1", now_ns=1)) for num in nums]
                await asyncio.wait([task for task in asked if task is not asked[2]])
                assert [task.done() for task in asked] == [True, True, False, True, True]
            assert await asyncio.gather(*asked) == [True] * 5
            await writing.close()

    asyncio.run(run())


def test_a_start_that_its_starter_gave_up_is_driven_all_the_same(server: Server):
    """It was written, and its starter was told of an error meanwhile: it is nobody's, and due, not lost."""

    async def run() -> None:
        async with scene(server) as at:
            await add(at.observer, "taken", owner="w2")
            at.store._database.patience_s = 0.1
            for number in range(MOST):  # cut it ever later, until it is after the commit
                batch = small(at.store, number)
                begun = batch.starts[0].num
                at.proxy.cut("to client", number)
                at.proxy.deaf = True
                with pytest.raises(StoreError, match="not known") as caught:
                    await at.store.journal.commit(batch)
                assert caught.value.transient
                at.proxy.deaf = False
                written = await at.observer.runs.find([f"r{number}"])
                batch.starts.clear()
                batch.entries[:] = [new_entry(-1 - number, 1)]
                await commit(at.store, batch)
                if written:
                    break
            assert [run.num for run in await at.store.claims.claim("w1", SERVED, now_ns=10**18, limit=9)] == [begun]
            assert len((await at.observer.journal.load([begun]))[begun]) == 2

    asyncio.run(run())


@pytest.mark.parametrize("many", [1, 4])
def test_a_signal_that_meets_its_run_being_let_go_wakes_it(server: Server, many: int):
    """It waited for the commit that left the run without an owner until much later: the run is due now all the same."""

    async def run() -> None:
        async with scene(server) as at:
            names = [f"r{part}" for part in range(many)]
            nums = [await add(at.observer, name, owner="w2", wake_at_ns=None) for name in names]
            schema = at.observer._database.check_open().quoted
            waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%left_here%'"
            letting_go = await connect(at.observer.place.dsn)
            async with in_transaction(letting_go):
                await letting_go.execute(f"UPDATE {schema}.runs SET owner = NULL, wake_at_ns = {10**18}")
                asked = [asyncio.create_task(at.store.signals.send(num, "cancel", b"1", now_ns=1)) for num in nums]
                async with asyncio.timeout(20):
                    while not await at.observer._database.run("look", lambda c: c.fetchval(waits)):  # noqa: ASYNC110
                        await asyncio.sleep(0.01)
            assert await asyncio.gather(*asked) == [True] * many
            claimed = await at.store.claims.claim("w1", SERVED, now_ns=1000, limit=9)
            assert [run.id for run in claimed] == names
            await letting_go.close()

    asyncio.run(run())


def test_a_start_that_is_under_way_when_it_is_repeated_is_no_conflict(server: Server):
    """An observer's commit still waits in the server when its connection is cut: the one that begins it is its own."""

    async def run() -> None:
        async with scene(server, worker=None) as at:
            blocking = await connect(at.observer.place.dsn)
            schema, num = at.observer._database.check_open().quoted, at.store.journal.next_num()
            waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%begun%'"
            await blocking.execute("BEGIN")
            await blocking.execute(
                f"INSERT INTO {schema}.runs (num, id, uid, name, version, status, input, created_at_ns, updated_at_ns) "
                "VALUES (-1, 'a', '', 'x', 1, 'pending', '', 1, 1)"
            )
            starting = asyncio.create_task(commit(at.store, new_batch(starts=[new_run(num, "a")])))
            for waiting in (1, 2):
                async with asyncio.timeout(20):
                    while await at.observer._database.run("look", lambda c: c.fetchval(waits)) < waiting:  # noqa: ASYNC110
                        await asyncio.sleep(0.01)
                if waiting == 1:
                    at.store._database.commits.drop()
            await blocking.execute("ROLLBACK")
            assert await starting == frozenset()
            assert (await the(at.observer, "a")).num == num
            await blocking.close()

    asyncio.run(run())


def test_a_silent_connection_is_given_up(server: Server):
    """Its commit is an echo by then: it is refused wherever it still arrives, and the repetition is written once."""

    async def run() -> None:
        async with scene(server) as at:
            num = await add(at.store, "a", owner="w1", wake_at_ns=None)
            batch = new_batch(entries=[new_entry(num, 1)])
            echo = at.store.journal._number + 1
            at.proxy.cut("to server", 0)
            await commit(at.store, batch)
            assert at.store.journal._number == echo + 2  # the fence, and the repetition
            assert await at.observer.journal.load([num]) == {num: [new_entry(num, 1)]}

    asyncio.run(run())
