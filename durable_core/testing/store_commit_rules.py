"""What a store must do with a batch: all of it or nothing, and read back as it was written."""
# ruff: noqa: S101, PLR2004 - a test suite asserts, and its numbers are examples

import asyncio
from typing import Any

import attrs
import pytest

from durable_core.errors import StoreError
from durable_core.model.entry import Entry
from durable_core.model.run import RunQuery, RunStatus, RunUpdate
from durable_core.ports import Batch
from durable_core.testing.store_rows import (
    MakeStore,
    Rules,
    add,
    in_loop,
    new_batch,
    new_entry,
    new_run,
    new_update,
    opened,
    the,
)


class CommitRules(Rules):
    """Commits, and reading what they wrote."""

    @in_loop
    async def test_a_start_is_read_back_whole(self, make_store: MakeStore) -> None:
        """Every column of a start is found again, and the others have their first values."""
        async with opened(make_store, "w1") as (store,):
            start = new_run(
                store.journal.next_num(), "a", owner="w1", wake_at_ns=None, tags={"customer": "42"}, restarts="b"
            )
            await store.journal.commit(new_batch(starts=[start]))
            run = attrs.asdict(await the(store, "a"))
            assert {name: run.pop(name) for name in start._fields} == start._asdict()
            firsts: dict[str, Any] = dict.fromkeys(
                ("output", "error", "reason", "detail", "ended_at_ns", "retagged", "awaits")
            )
            assert run == firsts | {"phase": "", "paused": False, "updated_at_ns": 17}

    @in_loop
    async def test_an_update_replaces_all_mutable_columns(self, make_store: MakeStore) -> None:
        """Every column of an update is found again, also None."""
        async with opened(make_store, "w1") as (store,):
            num = await add(store, "a")
            update = new_update(num, status=RunStatus.STUCK, wake_at_ns=5, paused=True, phase="compensating")
            await store.journal.commit(new_batch(updates=[update]))
            run = await the(store, "a")
            assert {name: getattr(run, name) for name in update._fields} == update._asdict()
            assert run.status is RunStatus.STUCK
            assert run.paused is True
            cleared = RunUpdate("running", "", None, None, 0, None, None, None, None, 19, None, None, None, num)
            await store.journal.commit(new_batch(updates=[cleared]))
            run = await the(store, "a")
            assert {name: getattr(run, name) for name in cleared._fields} == cleared._asdict()

    @in_loop
    async def test_entries_are_read_back_in_order(self, make_store: MakeStore) -> None:
        """A journal is read by ``seq``, whatever the order of its rows in batches, and equals what was written."""
        async with opened(make_store, "w1") as (store,):
            num = await add(store, "a")
            entries = [new_entry(num, seq, payload=None if seq == 2 else bytes(range(256))) for seq in (2, 1, 4, 3)]
            await store.journal.commit(new_batch(entries=entries[:3]))
            await store.journal.commit(new_batch(entries=entries[3:]))
            assert await store.journal.load([num]) == {num: sorted(entries, key=lambda entry: entry.seq)}
            assert type((await store.journal.load([num]))[num][0]) is Entry

    @in_loop
    async def test_one_batch_starts_writes_and_ends_a_run(self, make_store: MakeStore) -> None:
        """A batch may hold a run's start, entries and end together."""
        async with opened(make_store, "w1") as (store,):
            num = store.journal.next_num()
            end = new_update(num, status=RunStatus.COMPLETED, ended_at_ns=20)
            await store.journal.commit(
                new_batch(starts=[new_run(num, "a")], entries=[new_entry(num, 1)], updates=[end])
            )
            assert (await the(store, "a")).ended_at_ns == 20
            assert len((await store.journal.load([num]))[num]) == 1

    @in_loop
    async def test_an_empty_batch_is_harmless(self, make_store: MakeStore) -> None:
        """A batch without rows writes nothing."""
        async with opened(make_store, "w1") as (store,):
            assert await store.journal.commit(Batch()) == frozenset()

    @in_loop
    async def test_what_is_committed_is_there_after_reopening(self, make_store: MakeStore) -> None:
        """Runs, entries and signals outlast their store."""
        async with opened(make_store, "w1") as (store,):
            num = await add(store, "a")
            await store.journal.commit(new_batch(entries=[new_entry(num, 1)]))
            await store.signals.send(num, "cancel", b"1", now_ns=1)
        async with opened(make_store, None) as (store,):
            assert (await the(store, "a")).num == num
            assert await store.journal.load([num]) == {num: [new_entry(num, 1)]}
            assert [signal.name for signal in await store.signals.waiting([num])] == ["cancel"]

    @in_loop
    async def test_a_taken_id_is_refused_with_all_its_rows(self, make_store: MakeStore) -> None:
        """A start whose id is taken is reported and leaves nothing; the rest of its batch is written."""
        async with opened(make_store, "w1") as (store,):
            first = await add(store, "a")
            second, other = store.journal.next_num(), store.journal.next_num()
            batch = new_batch(
                starts=[new_run(second, "a"), new_run(other, "b")],
                entries=[new_entry(second, 1), new_entry(other, 1), new_entry(first, 1)],
                updates=[new_update(second, phase="lost"), new_update(other, phase="kept")],
            )
            assert await store.journal.commit(batch) == {second}
            assert (await the(store, "a")).num == first
            assert (await the(store, "b")).phase == "kept"
            assert {num: len(rows) for num, rows in (await store.journal.load([first, second, other])).items()} == {
                first: 1,
                second: 0,
                other: 1,
            }

    @in_loop
    async def test_of_two_starts_with_one_id_the_first_wins(self, make_store: MakeStore) -> None:
        """The same holds within one batch, also a long one."""
        async with opened(make_store, "w1") as (store,):
            nums = [store.journal.next_num() for _ in range(100)]
            starts = [new_run(num, f"r{place % 98}") for place, num in enumerate(nums)]
            assert await store.journal.commit(new_batch(starts=starts)) == {nums[98], nums[99]}
            assert await store.runs.count(RunQuery()) == 98
            assert (await the(store, "r0")).num == nums[0]

    @in_loop
    async def test_two_stores_cannot_start_one_id(self, make_store: MakeStore) -> None:
        """Of two processes that start the same id at the same time one is refused."""
        async with opened(make_store, "w1", "w2") as (one, two):
            nums = one.journal.next_num(), two.journal.next_num()
            refused = await asyncio.gather(
                one.journal.commit(new_batch(starts=[new_run(nums[0], "a")])),
                two.journal.commit(new_batch(starts=[new_run(nums[1], "a")])),
            )
            assert sorted(map(len, refused)) == [0, 1]
            assert {(await the(one, "a")).num} | set().union(*refused) == set(nums)

    @in_loop
    async def test_a_refused_batch_writes_nothing(self, make_store: MakeStore) -> None:
        """Where one row is wrong, none is written, the error is not transient, and the store goes on."""
        async with opened(make_store, "w1") as (store,):
            num = await add(store, "a")
            await store.journal.commit(new_batch(entries=[new_entry(num, 1)]))
            await store.signals.send(num, "cancel", b"1", now_ns=1)
            before = await the(store, "a")
            for entries, updates in (
                ([new_entry(num, 2), new_entry(num, 1)], [new_update(num)]),  # an entry is there already
                ([new_entry(num, 2), new_entry(num, 2)], [new_update(num)]),  # an entry comes twice
                ([new_entry(num, 2)], [new_update(num), new_update(num + 1000)]),  # no such run
            ):
                wrong = new_batch(starts=[new_run(store.journal.next_num(), "b")], entries=entries, updates=updates)
                wrong.consumed = [signal.num for signal in await store.signals.waiting([num])]
                with pytest.raises(StoreError) as caught:
                    await store.journal.commit(wrong)
                assert not caught.value.transient
                assert await store.runs.find(["a", "b"]) == [before]
                assert await store.journal.load([num]) == {num: [new_entry(num, 1)]}
                assert len(await store.signals.waiting([num])) == 1
            await store.journal.commit(new_batch(entries=[new_entry(num, 2)]))

    @in_loop
    async def test_a_big_batch(self, make_store: MakeStore) -> None:
        """Thousands of rows of every kind in one batch."""
        async with opened(make_store, "w1") as (store,):
            nums = [store.journal.next_num() for _ in range(1500)]
            batch = new_batch(
                starts=[new_run(num, f"r{num}") for num in nums],
                entries=[new_entry(num, seq) for seq in (1, 2, 3) for num in nums],
                updates=[new_update(num, phase=str(num)) for num in nums[::2]],
            )
            await store.journal.commit(batch)
            journals = await store.journal.load(nums)
            assert list(journals) == nums
            assert {tuple(entry.seq for entry in journal) for journal in journals.values()} == {(1, 2, 3)}
            runs = {run.num: run.phase for run in await store.runs.find([f"r{num}" for num in nums])}
            assert runs == {num: str(num) if place % 2 == 0 else "" for place, num in enumerate(nums)}

    @pytest.mark.parametrize("rows", ["alike", "mixed"])
    @pytest.mark.parametrize("runs", [1, 2, 150])
    @in_loop
    async def test_each_row_of_a_batch_keeps_its_values(self, make_store: MakeStore, runs: int, rows: str) -> None:
        """Few rows or many, alike in most columns or in none: each is read back as it was given."""
        alike = rows == "alike"
        async with opened(make_store, "w1") as (store,):
            taken = store.journal.next_num()
            starts = [
                new_run(store.journal.next_num(), f"r{place}", owner="w1", wake_at_ns=None) for place in range(runs)
            ]
            if not alike:
                starts = [
                    start._replace(
                        name=f"order{place}",
                        version=place,
                        owner=f"w{place}",
                        wake_at_ns=place or None,
                        tags=f'{{"place":"{place}"}}',
                        restarts=f"r{place}",
                        traceparent=str(place),
                    )
                    for place, start in enumerate(starts)
                ]
            entries = [new_entry(start.num, seq) for start in starts for seq in (1, 2)]
            assert await store.journal.commit(new_batch(starts=starts, entries=entries)) == frozenset()
            again = new_batch(starts=[new_run(taken, "r0")], entries=[new_entry(taken, 1), new_entry(starts[0].num, 3)])
            assert await store.journal.commit(again) == {taken}
            updates = [
                new_update(start.num, status=RunStatus.RUNNING, owner="w1", phase="" if alike else str(place))._replace(
                    error=None if alike else str(place).encode(), output=str(place).encode()
                )
                for place, start in enumerate(starts)
            ]
            await store.journal.commit(new_batch(updates=updates))
            found = {run.num: run for run in await store.runs.find([start.id for start in starts])}
            for start, update in zip(starts, updates, strict=True):
                wanted = start._asdict() | update._asdict()
                assert {name: getattr(found[start.num], name) for name in wanted} == wanted
            journals = await store.journal.load([start.num for start in starts] + [taken])
            assert journals.pop(taken) == []
            assert journals.pop(starts[0].num) == [*entries[:2], new_entry(starts[0].num, 3)]
            assert journals == {start.num: [new_entry(start.num, seq) for seq in (1, 2)] for start in starts[1:]}

    @in_loop
    async def test_load_and_find_give_what_there_is(self, make_store: MakeStore) -> None:
        """A number without entries has an empty journal; an unknown id is left out; asking twice gives one."""
        async with opened(make_store, "w1") as (store,):
            num = await add(store, "a")
            assert await store.journal.load([]) == {}
            assert await store.journal.load([num, num + 1000]) == {num: [], num + 1000: []}
            assert await store.runs.find([]) == []
            assert [run.num for run in await store.runs.find(["a", "nobody", "a"])] == [num]

    @in_loop
    async def test_ids_may_hold_any_text(self, make_store: MakeStore) -> None:
        """Quotes, NUL, other scripts and differences of case are kept and distinguished."""
        async with opened(make_store, "w1") as (store,):
            ids = ["", " ", "'; DROP TABLE runs; --", '"', "a\0b", "a", "A", "é", "e\u0301", "😀", "%", "x" * 5000]
            for id in ids:
                await add(store, id)
            assert sorted(run.id for run in await store.runs.find(ids)) == sorted(ids)
            assert [run.id for run in await store.runs.find(["a\0b"])] == ["a\0b"]
