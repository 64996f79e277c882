"""How a store lets go of ended runs: which, in what order, and what stays of them."""
# ruff: noqa: S101, PLR2004 - a test suite asserts, and its numbers are examples

import asyncio
import itertools

from durable_core.model.run import RunQuery, RunStatus
from durable_core.model.tombstone import EndedRun, Swept, Tombstone
from durable_core.ports import Store
from durable_core.testing.store_rows import (
    MakeStore,
    Rules,
    add,
    claimed,
    in_loop,
    new_batch,
    new_entry,
    new_run,
    new_update,
    opened,
)


async def end(store: Store, id: str, ended_at_ns: int, *, entries: int = 0, name: str = "order") -> int:
    """A run called ``id`` that ended then; its number."""
    num = await add(store, id, name=name)
    update = new_update(num, status=RunStatus.COMPLETED, ended_at_ns=ended_at_ns, phase="done")
    await store.journal.commit(
        new_batch(entries=[new_entry(num, seq) for seq in range(1, entries + 1)], updates=[update]),
    )
    return num


async def ended(store: Store, before_ns: int = 10**6) -> list[EndedRun]:
    """All runs that ended before that time."""
    return await store.retention.ended(before_ns=before_ns, limit=1000)


async def swept(store: Store, *, limit: int = 1000) -> int:
    """Remove all that is left of purged journals; how many entries that were."""
    removed, left = 0, True
    while left:
        piece = await store.retention.sweep(limit=limit)
        removed, left = removed + piece.entries, piece.left
        assert piece.entries <= limit
    return removed


class PurgeRules(Rules):
    """Ended runs, tombstones, and what is removed in pieces."""

    @in_loop
    async def test_ended_runs_come_with_the_longest_ended_first(self, make_store: MakeStore) -> None:
        """Only runs that have ended, and before the time; page by page; open, stuck and waiting ones never."""
        async with opened(make_store, "w1") as (store,):
            nums = {id: await end(store, id, at) for id, at in (("c", 30), ("a", 10), ("d", 40), ("b", 20), ("b2", 20))}
            other = await end(store, "other", 5, name="trip", entries=3)
            for id, status in (("stuck", RunStatus.STUCK), ("waiting", RunStatus.WAITING)):
                await store.journal.commit(new_batch(updates=[new_update(await add(store, id), status=status)]))
            await add(store, "open")
            found = await ended(store, 40)
            assert [run.id for run in found] == ["other", "a", "b", "b2", "c"]
            assert found[0] == EndedRun(other, "other", 5, 3)
            assert found[1] == EndedRun(nums["a"], "a", 10, 0)
            assert [run.id for run in await store.retention.ended(before_ns=40, name="order", limit=2)] == ["a", "b"]
            page = await store.retention.ended(before_ns=40, name="order", after=found[2], limit=9)
            assert [run.id for run in page] == ["b2", "c"]
            assert await store.retention.ended(before_ns=40, limit=0) == []
            assert await store.runs.count(RunQuery(ended_before_ns=40, name="order")) == 4
            assert [run.id for run in await store.runs.select(RunQuery(ended_before_ns=20, limit=None))] == [
                "other",
                "a",
            ]

    @in_loop
    async def test_an_ended_run_whose_owner_lives_stays(self, make_store: MakeStore) -> None:
        """An attempt of it has not returned: it is not among the ended, and one that was found is not purged either."""
        async with opened(make_store, "w1", None) as (store, other):
            num, found = await end(store, "a", 10, entries=1), await ended(store)
            await end(store, "b", 20)
            for owner, seen in (("w1", ["b"]), ("gone", ["a", "b"]), ("w1", ["b"]), (None, ["a", "b"])):
                update = new_update(num, status=RunStatus.KILLED, owner=owner, ended_at_ns=10)
                await store.journal.commit(new_batch(updates=[update]))
                for each in (store, other):
                    assert [run.id for run in await ended(each)] == seen
                    if owner == "w1":
                        assert await each.retention.purge(found, now_ns=100, until_ns=None) == []
            assert await other.retention.purge(found, now_ns=100, until_ns=None) == [num]

    @in_loop
    async def test_a_purged_run_is_a_tombstone(self, make_store: MakeStore) -> None:
        """Run and journal are gone at once; the tombstone says what it was; others are untouched."""
        async with opened(make_store, "w1", None) as (store, other):
            num, kept = await end(store, "a", 10, entries=5), await end(store, "b", 20, entries=5)
            found = await ended(store, 15)
            assert await store.retention.purge(found, now_ns=100, until_ns=200) == [num]
            for each in (store, other):
                assert [run.num for run in await each.runs.find(["a", "b"])] == [kept]
                assert await each.runs.find_num(num) is None
                assert await each.runs.count(RunQuery()) == 1
                assert await each.retention.tombstones(["a", "b", "a", "c"]) == [
                    Tombstone(num, "a", "order", 1, "completed", "done", 17, 10, 100, 200)
                ]
            assert await other.changed() is True
            assert await swept(store, limit=2) == 5
            assert {run: len(rows) for run, rows in (await store.journal.load([num, kept])).items()} == {
                num: 0,
                kept: 5,
            }
            assert await store.retention.sweep(limit=2) == Swept(0, left=False)
            assert await store.retention.purge(found, now_ns=100, until_ns=200) == []

    @in_loop
    async def test_a_run_that_has_changed_is_not_purged(self, make_store: MakeStore) -> None:
        """One that was opened again, ended anew or was noted something since it was found stays whole."""
        async with opened(make_store, "w1") as (store,):
            nums = [await end(store, id, 10, entries=1) for id in ("opened", "ended again", "noted", "as it was")]
            found = await ended(store)
            await store.journal.commit(
                new_batch(
                    updates=[
                        new_update(nums[0], status=RunStatus.PENDING),
                        new_update(nums[1], status=RunStatus.COMPLETED, ended_at_ns=11),
                    ],
                    entries=[new_entry(nums[2], 2)],
                )
            )
            assert await store.retention.purge(found, now_ns=100, until_ns=None) == [nums[3]]
            assert await store.runs.count(RunQuery()) == 3
            assert await swept(store) == 1
            assert [len(rows) for rows in (await store.journal.load(nums)).values()] == [1, 1, 2, 0]

    @in_loop
    async def test_a_purged_id_is_refused(self, make_store: MakeStore) -> None:
        """A start under it is refused, alone, in a batch and twice in one, until its tombstone is forgotten."""
        async with opened(make_store, "w1") as (store,):
            await end(store, "a", 10)
            await end(store, "for ever", 10)
            taken = await add(store, "taken")
            await store.retention.purge((await ended(store))[:1], now_ns=100, until_ns=200)
            await store.retention.purge(await ended(store), now_ns=100, until_ns=None)
            nums = [store.journal.next_num() for _ in range(5)]
            starts = [new_run(num, id) for num, id in zip(nums, ("a", "b", "taken", "a", "for ever"), strict=True)]
            batch = new_batch(starts=starts, entries=[new_entry(num, 1) for num in nums])
            batch.updates = {nums[0]: new_update(nums[0]), nums[1]: new_update(nums[1], phase="on")}
            assert await store.journal.commit(batch) == {nums[0], nums[2], nums[3], nums[4]}
            assert sorted(run.num for run in await store.runs.find(["a", "b", "taken", "for ever"])) == [taken, nums[1]]
            assert await store.journal.commit(new_batch(starts=[new_run(store.journal.next_num(), "a")])) != frozenset()
            assert await store.retention.forget(now_ns=199, limit=10) == 0
            assert await swept(store) == 0
            assert await store.retention.forget(now_ns=199, limit=10) == 0
            assert await store.retention.forget(now_ns=200, limit=10) == 1
            assert await store.retention.forget(now_ns=10**9, limit=10) == 0
            assert await add(store, "a")
            assert await store.retention.tombstones(["a"]) == []
            assert len(await store.retention.tombstones(["for ever"])) == 1

    @in_loop
    async def test_a_start_beside_a_purge_is_refused(self, make_store: MakeStore) -> None:
        """A taken id stays taken while its run turns into a tombstone: no start slips in between."""
        async with opened(make_store, "w1", None, None) as (store, *starters):
            ids = [f"r{number}" for number in range(60)]
            for id in ids:
                await end(store, id, 10)
            found = await ended(store)
            begun: list[str] = []
            over = asyncio.Event()

            async def start_all(starter: Store) -> None:
                for id in itertools.cycle(ids):
                    await asyncio.sleep(0)  # a commit may end without letting the loop turn
                    if over.is_set():
                        return
                    start = new_run(starter.journal.next_num(), id)
                    if start.num not in await starter.journal.commit(new_batch(starts=[start])):
                        begun.append(id)

            starting = [asyncio.create_task(start_all(starter)) for starter in starters]
            for place in range(0, len(found), 2):
                left = found[place : place + 2]
                while left:  # what somebody else is writing is left to the next piece
                    gone = await store.retention.purge(left, now_ns=100, until_ns=None)
                    left = [run for run in left if run.num not in gone]
            over.set()
            await asyncio.gather(*starting)
            assert begun == []
            assert len(await store.retention.tombstones(ids)) == len(ids)
            assert await store.runs.find(ids) == []

    @in_loop
    async def test_a_half_purged_run_is_finished_by_the_next(self, make_store: MakeStore) -> None:
        """A crash amid a journal leaves no run, and a tombstone that is not forgotten before the rest is removed."""
        async with opened(make_store, None) as (observer,):
            store = make_store()
            await store.open(worker="w1")
            num = await end(store, "a", 10, entries=700)
            await store.retention.purge(await ended(store), now_ns=100, until_ns=200)
            piece = await store.retention.sweep(limit=300)
            assert 0 < piece.entries <= 300
            assert piece.left
            self.crash(store)
            assert await observer.runs.find(["a"]) == []
            assert await observer.retention.forget(now_ns=10**6, limit=10) == 0
            assert await observer.claims.release_dead() == 0
            assert await swept(observer, limit=300) == 700 - piece.entries
            assert await observer.journal.load([num]) == {num: []}
            assert await observer.retention.forget(now_ns=10**6, limit=10) == 1

    @in_loop
    async def test_what_is_noted_late_is_removed_with_the_tombstone(self, make_store: MakeStore) -> None:
        """A row about a run that was purged already does not stay for ever."""
        async with opened(make_store, "w1") as (store,):
            num = await end(store, "a", 10)
            await store.retention.purge(await ended(store), now_ns=100, until_ns=200)
            assert await swept(store) == 0
            await store.journal.commit(new_batch(entries=[new_entry(num, 7)]))
            assert await store.retention.forget(now_ns=300, limit=10) == 0
            assert await swept(store) == 1
            assert await store.retention.forget(now_ns=300, limit=10) == 1

    @in_loop
    async def test_a_signal_for_a_purged_run_is_refused(self, make_store: MakeStore) -> None:
        """It is refused as for an ended one, whichever it is meant for, and nothing is stored."""
        async with opened(make_store, "w1") as (store,):
            num = await end(store, "a", 10)
            await store.retention.purge(await ended(store), now_ns=100, until_ns=200)
            for meant_for_ended in (False, True):
                assert await store.signals.send(num, "rollback", b"", now_ns=1, ended=meant_for_ended) is False
            assert await store.signals.waiting([num]) == []
            assert await claimed(store, "w1") == []

    @in_loop
    async def test_two_that_purge_share_the_runs(self, make_store: MakeStore) -> None:
        """Two processes that purge at once purge each run once, and remove every entry once."""
        async with opened(make_store, "w1", "w2") as stores:
            nums = [await end(stores[0], f"r{at}", at, entries=3) for at in range(1, 41)]
            found = await ended(stores[0])
            shares = await asyncio.gather(
                *(
                    store.retention.purge(found[at : at + 20], now_ns=99, until_ns=None)
                    for at in (0, 10, 20)
                    for store in stores
                )
            )
            rest = [run.num for run in await ended(stores[1])]
            assert sorted([*(num for share in shares for num in share), *rest]) == sorted(nums)
            assert sum(await asyncio.gather(*(swept(store, limit=7) for store in stores))) == 3 * (40 - len(rest))
