"""What a store must know about spans that are still to export; a part of ``StoreContract``."""
# ruff: noqa: S101, PLR2004 - a test suite asserts, and its numbers are examples

from durable_core.model.run import RunStatus
from durable_core.ports import Store
from durable_core.testing.store_rows import MakeStore, Rules, add, in_loop, new_batch, new_entry, new_update, opened


async def _read(store: Store, worker: str, *, after: int = 0, limit: int = 100) -> list[tuple[int, int]]:
    """Run and ``seq`` of what a worker has written."""
    return [(entry.run, entry.seq) for _, entry in await store.spans.read(worker, after=after, limit=limit)]


class SpanRules(Rules):
    """The rules of ``durable_core.ports.SpanCursors``."""

    @in_loop
    async def test_what_a_worker_wrote_is_read_in_the_order_of_its_commits(self, make_store: MakeStore) -> None:
        """Entries come by worker, in the order of their commits, whole, page by page, with rising positions."""
        async with opened(make_store, "w1", "w2") as stores:
            one, two = [await add(store, name) for store, name in zip(stores, "ab", strict=True)]
            mine = [new_entry(one, 1), new_entry(one, 2), new_entry(two, 2), new_entry(one, 3)]
            await stores[0].journal.commit(new_batch(entries=mine[:2]))
            await stores[1].journal.commit(new_batch(entries=[new_entry(two, 1)._replace(worker="w2")]))
            await stores[0].journal.commit(new_batch(entries=mine[2:]))
            for store in stores:
                found = await store.spans.read("w1", after=0, limit=100)
                assert [entry for _, entry in found] == mine
                places = [pos for pos, _ in found]
                assert places == sorted(set(places))
                assert await _read(store, "w1", after=places[1], limit=1) == [(two, 2)]
                assert await _read(store, "w1", after=places[-1]) == []
                assert await _read(store, "w2") == [(two, 1)]
                assert await _read(store, "nobody") == []

    @in_loop
    async def test_the_oldest_run_that_nobody_has_begun_is_known(self, make_store: MakeStore) -> None:
        """Since when a run waits to be begun: one with an owner, with an entry, or that is paused does not count."""
        async with opened(make_store, "w1") as (store,):
            assert await store.runs.unbegun_since_ns() is None
            await add(store, "owned", owner="w1", wake_at_ns=None, created_at_ns=10)
            begun = await add(store, "begun", created_at_ns=20)
            await store.journal.commit(new_batch(entries=[new_entry(begun, 1)]))
            paused = await add(store, "paused", created_at_ns=30)
            await store.journal.commit(
                new_batch(updates=[new_update(paused, status=RunStatus.PENDING, wake_at_ns=0, paused=True)])
            )
            assert await store.runs.unbegun_since_ns() is None
            await add(store, "first", created_at_ns=40)
            await add(store, "second", created_at_ns=50)
            assert await store.runs.unbegun_since_ns() == 40

    @in_loop
    async def test_a_cursor_begins_when_a_worker_starts_it(self, make_store: MakeStore) -> None:
        """A cursor begins at the journal's end, advances with the export, and is removed once all is exported."""
        async with opened(make_store, "w1") as (store,):
            num = await add(store, "a")
            await store.journal.commit(new_batch(entries=[new_entry(num, 1)]))
            since = await store.spans.start("w1")
            assert await store.spans.cursors("w1") == {"w1": since}
            await store.journal.commit(new_batch(entries=[new_entry(num, 2), new_entry(num, 3)]))
            assert await _read(store, "w1", after=since) == [(num, 2), (num, 3)]
            ((pos, _), _) = await store.spans.read("w1", after=since, limit=2)
            await store.spans.advance("w1", pos)
            assert await store.spans.cursors("w1") == {"w1": pos}
            assert await store.spans.start("w1") == pos, "an older cursor stays"
            await store.spans.advance("w1", None)
            assert await store.spans.cursors("w1") == {}

    @in_loop
    async def test_the_cursors_of_the_dead_are_seen_by_the_living(self, make_store: MakeStore) -> None:
        """A live worker's cursor is seen by itself alone; that of a dead one, or of one that has left, by all."""
        async with opened(make_store, "w1", "w2", "w3") as (one, two, three):
            started = {name: await store.spans.start(name) for name, store in (("w1", one), ("w2", two), ("w3", three))}
            assert await three.spans.cursors("w3") == {"w3": started["w3"]}
            self.crash(one)
            await three.claims.release_dead()
            await two.close()
            assert await three.spans.cursors("w3") == started
            await three.spans.advance("w1", None)
            assert set(await three.spans.cursors("w3")) == {"w2", "w3"}

    @in_loop
    async def test_one_live_worker_exports_for_a_dead_one(self, make_store: MakeStore) -> None:
        """The first to take over a cursor has it alone, until it dies too; a removed cursor cannot be taken over."""
        async with opened(make_store, "w1", "w2", "w3") as (one, two, three):
            await one.spans.start("w1")
            self.crash(one)
            await three.claims.release_dead()
            assert await two.spans.take_over("w1", worker="w2")
            assert await two.spans.take_over("w1", worker="w2"), "it is its own already"
            assert not await three.spans.take_over("w1", worker="w3")
            self.crash(two)
            await three.claims.release_dead()
            assert await three.spans.take_over("w1", worker="w3")
            await three.spans.advance("w1", None)
            assert not await three.spans.take_over("w1", worker="w3")

    @in_loop
    async def test_a_purge_gives_no_position_out_again(self, make_store: MakeStore) -> None:
        """What is written after all journals have been purged comes after every position that was ever noted."""
        async with opened(make_store, "w1") as (store,):
            num = await add(store, "a")
            entries = [new_entry(num, seq) for seq in range(1, 6)]
            end = new_update(num, status=RunStatus.COMPLETED, ended_at_ns=40)
            await store.journal.commit(new_batch(entries=entries, updates=[end]))
            (*_, (noted, _)) = await store.spans.read("w1", after=0, limit=100)
            await store.retention.purge(await store.retention.ended(before_ns=41), now_ns=50, until_ns=None)
            while (await store.retention.sweep(limit=100)).left:
                pass
            assert await _read(store, "w1") == []
            other = await add(store, "b")
            await store.journal.commit(new_batch(entries=[new_entry(other, 1)]))
            assert await _read(store, "w1", after=noted) == [(other, 1)]

    @in_loop
    async def test_runs_are_found_by_number(self, make_store: MakeStore) -> None:
        """Runs are found by their numbers, each once, however many are asked for; unknown ones are left out."""
        async with opened(make_store, "w1") as (store,):
            nums = [await add(store, f"run-{place}") for place in range(9)]
            assert {run.num for run in await store.runs.find_nums([*nums, nums[0], max(nums) + 1])} == set(nums)
            assert [run.id for run in await store.runs.find_nums(nums[:1])] == ["run-0"]
            assert await store.runs.find_nums([]) == []
