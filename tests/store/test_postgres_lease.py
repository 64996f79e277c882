"""Leases of the PostgreSQL store: who holds one writes, who has lost it does not, whatever it believes."""

import asyncio
import threading
import time
from collections.abc import AsyncGenerator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from durable_core import LeaseLost
from durable_core.layer import RunQuery, open_store
from durable_core.ports import Batch
from durable_core.stores.postgres import connect, connection, lease
from durable_core.stores.postgres.lease import Lease
from durable_core.stores.postgres.offset import Offset, steady_s
from durable_core.stores.postgres.store import PostgresStore
from durable_core.testing.store_rows import add, claimed, in_loop, new_batch, new_entry, new_run, new_update, the
from tests.postgres_server import Server, execute, expire


@asynccontextmanager
async def opened(
    url: str, *workers: str | None, leases: Mapping[str | None, float] | None = None
) -> AsyncGenerator[list[PostgresStore]]:
    """Open stores, one for each of ``workers``; ``leases`` in seconds by worker."""
    async with AsyncExitStack() as stack:
        stores: list[PostgresStore] = []
        for worker in workers:
            store = open_store(url, lease_s=(leases or {}).get(worker, 60))
            assert isinstance(store, PostgresStore)
            await store.open(worker=worker)
            stack.push_async_callback(store.close)
            stores.append(store)
        yield stores


@in_loop
async def test_a_zombie_writes_nothing(server: Server):
    """After a takeover every kind of write of the old worker is refused as a whole, and its runs are the other's."""
    async with opened(server.fresh(), "w1", "w2") as (zombie, other):
        num = await add(zombie, "a", owner="w1", wake_at_ns=None)
        await zombie.journal.commit(new_batch(entries=[new_entry(num, 1)]))
        expire(zombie)
        assert await other.claims.release_dead() == 1
        before = await the(other, "a")
        start = new_run(zombie.journal.next_num(), "b", owner="w1")
        for batch in (
            new_batch(entries=[new_entry(num, 2)]),
            new_batch(entries=[new_entry(num, seq) for seq in range(2, 500)]),
            new_batch(updates=[new_update(num, owner="w1")]),
            new_batch(updates=[new_update(num)]),
            new_batch(starts=[start], entries=[new_entry(start.num, 1)]),
            new_batch(starts=[start], updates=[new_update(start.num)]),
            Batch(consumed=[1]),
        ):
            with pytest.raises(LeaseLost) as lost:
                await zombie.journal.commit(batch)
            assert lost.value.worker == "w1"
            assert not lost.value.transient
        with pytest.raises(LeaseLost):
            await claimed(zombie, "w1")
        with pytest.raises(LeaseLost):
            await zombie.changed()
        assert not zombie.lease_is_safe()
        assert await the(other, "a") == before
        assert await other.journal.load([num]) == {num: [new_entry(num, 1)]}
        assert await other.runs.find(["b"]) == []
        assert await claimed(other, "w2") == ["a"]
        await zombie.close()
        assert (await the(other, "a")).owner == "w2"


@in_loop
async def test_who_lost_its_lease_comes_back_under_another_name(server: Server):
    """It may write and claim again at once, and its lease is safe."""
    async with opened(server.fresh(), "w1", None) as (zombie, other):
        num = await add(zombie, "a", owner="w1", wake_at_ns=None)
        expire(zombie)
        await other.claims.release_dead()
        with pytest.raises(LeaseLost):
            await zombie.journal.commit(new_batch(entries=[new_entry(num, 1)]))
        await zombie.rejoin("w1 again")
        assert zombie.lease_is_safe()
        assert await claimed(zombie, "w1 again") == ["a"]
        await zombie.journal.commit(new_batch(entries=[new_entry(num, 1)]))
        assert await other.claims.release_dead() == 0


@in_loop
async def test_a_lease_that_nobody_has_taken_is_kept(server: Server):
    """A worker that was silent for too long, and that nobody has missed, goes on as if nothing had been."""
    async with opened(server.fresh(), "w1") as (store,):
        expire(store)
        await add(store, "a", owner="w1")
        assert await claimed(store, "w1") == []


@in_loop
async def test_the_lease_is_renewed_while_the_loop_is_busy(server: Server):
    """A thread renews it, so that a step that blocks the event loop for longer than the lease costs nobody's runs."""
    async with opened(server.fresh(), "w1", None, leases={"w1": 1}) as (busy, other):
        await add(busy, "a", owner="w1", wake_at_ns=None)
        time.sleep(2.5)  # noqa: ASYNC251 - the claim: nothing else runs on this loop meanwhile
        assert await other.claims.release_dead() == 0
        assert busy.lease_is_safe()
        await add(busy, "b", owner="w1")


@in_loop
async def test_without_margin_it_is_not_safe(server: Server):
    """A worker that cannot renew knows by its own clock, before anybody takes it for dead, that it must not begin."""
    async with opened(server.fresh(), "w1", None, leases={"w1": 1}) as (cut, other):
        await add(cut, "a", owner="w1", wake_at_ns=None)
        assert cut.lease_is_safe()
        assert cut._membership.lease is not None
        cut._membership.lease.stop()
        while cut.lease_is_safe():
            assert await other.claims.release_dead() == 0
            await asyncio.sleep(0.02)
        async with asyncio.timeout(20):
            while not await other.claims.release_dead():  # noqa: ASYNC110 - it is the database that is waited for
                await asyncio.sleep(0.02)


@in_loop
async def test_a_takeover_waits_for_the_commit_under_way(server: Server):
    """A batch that came first is whole and visible to whoever takes the run; one that comes later is refused."""
    async with opened(server.fresh(), "w1", "w2") as (zombie, other):
        num = await add(zombie, "a", owner="w1", wake_at_ns=None)
        expire(zombie)
        seen, some = 0, asyncio.Event()

        async def write() -> None:
            nonlocal seen
            for seq in range(1, 10_000):
                await zombie.journal.commit(new_batch(entries=[new_entry(num, seq)]))
                seen = seq
                if seq == 20:
                    some.set()

        writing = asyncio.create_task(write())
        await some.wait()
        assert await other.claims.release_dead() == 1
        found = (await other.journal.load([num]))[num]
        with pytest.raises(LeaseLost):
            await writing
        assert [entry.seq for entry in found] == list(range(1, seen + 1))
        assert await other.journal.load([num]) == {num: found}


@in_loop
async def test_only_one_of_many_buries_a_worker(server: Server):
    """Its runs are freed once, and none of them is claimed twice."""
    async with opened(server.fresh(), "w0", "w1", "w2", "w3", "w4") as (dying, *others):
        nums = [dying.journal.next_num() for _ in range(40)]
        starts = [new_run(num, f"r{num}", owner="w0", wake_at_ns=None) for num in nums]
        await dying.journal.commit(new_batch(starts=starts))
        expire(dying)
        assert sum(await asyncio.gather(*(store.claims.release_dead() for store in others))) == 40
        shares = await asyncio.gather(*(claimed(store, f"w{place}") for place, store in enumerate(others, 1)))
        got = [id for share in shares for id in share]
        assert len(got) == len(set(got)) == 40
        assert await others[0].runs.count(RunQuery()) == 40


@in_loop
async def test_a_worker_that_stops_amid_a_commit_holds_up_nobody(server: Server, monkeypatch: pytest.MonkeyPatch):
    """It holds the lock of its row; the server takes its transaction back, and others take over what it had."""
    monkeypatch.setattr(connection, "IDLE_S", 1.0)
    async with opened(server.fresh(), "w1", "w2") as (stopped, other):
        num = await add(stopped, "a", owner="w1", wake_at_ns=None)
        made = await connect.connect(stopped.place.dsn)
        amid = connection.in_transaction(made)
        await amid.__aenter__()
        await made.execute(
            f"UPDATE {stopped._database.check_open().quoted}.workers SET batch = batch + 1 WHERE id = 'w1'"
        )
        expire_later = asyncio.to_thread(expire, stopped)  # it waits for the row too
        await expire_later
        assert await other.claims.release_dead() == 1
        with pytest.raises(connection.CAUGHT):
            await amid.__aexit__(None, None, None)
        with pytest.raises(LeaseLost):
            await stopped.journal.commit(new_batch(entries=[new_entry(num, 1)]))


@in_loop
async def test_the_roles_isolation_does_not_matter(server: Server):
    """Where a role reads a snapshot by default, runs are claimed and released all the same."""
    execute(server.url(), "CREATE ROLE serial LOGIN SUPERUSER")
    execute(server.url(), "ALTER ROLE serial SET default_transaction_isolation = 'serializable'")
    url = server.fresh().replace("//sagas@", "//serial@")
    async with opened(url, "w1", "w2") as (zombie, other):
        nums = [await add(zombie, f"r{n}", owner="w1", wake_at_ns=None) for n in range(5)]
        await zombie.journal.commit(new_batch(entries=[new_entry(nums[0], seq) for seq in range(1, 300)]))
        expire(zombie)
        assert await other.claims.release_dead() == 5
        assert len(await claimed(other, "w2")) == 5
        with pytest.raises(LeaseLost):
            await zombie.journal.commit(new_batch(entries=[new_entry(nums[0], 300)]))


@in_loop
async def test_right_after_the_database_was_away_nobody_is_buried(server: Server):
    """Whoever has just failed to renew its own lease gives the others time to renew theirs; then it looks again."""
    async with opened(server.fresh(), "w1", "w2", leases={"w2": 3}) as (late, early):
        await add(late, "a", owner="w1", wake_at_ns=None)
        expire(late)
        assert early._membership.lease is not None
        early._membership.lease._troubled_s = steady_s()  # as its thread notes it
        assert await early.claims.release_dead() == 0
        async with asyncio.timeout(20):
            while not await early.claims.release_dead():  # noqa: ASYNC110 - it is the time that is waited for
                await asyncio.sleep(0.05)
        assert early._membership.lease.calm()


def test_a_lease_that_cannot_be_renewed_is_told_once(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture):
    """It is tried several times a second while the database is away; the log has one line, once it is in danger."""
    tries = threading.Semaphore(0)

    async def connect(_dsn: str) -> None:
        tries.release()
        raise ConnectionRefusedError

    monkeypatch.setattr(lease, "connect", connect)
    monkeypatch.setattr(lease, "PAUSE_S", 0.001)
    held = Lease("nowhere", "", worker="w1", lease_s=60, granted_at_s=steady_s() - 40, offset=Offset())
    for _ in range(20):
        assert tries.acquire(timeout=20)
    held.stop()
    assert [record.levelname for record in caplog.records if "lease of worker w1" in record.message] == ["WARNING"]
    assert not held.calm()
