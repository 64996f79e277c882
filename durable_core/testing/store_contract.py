"""What every store must do, as tests: subclass ``StoreContract`` in a test module and say how your store is made.

Each test's docstring is a rule of ``durable_core.ports.Store``; the suite runs unchanged on every store.
"""
# ruff: noqa: S101, PLR2004 - a test suite asserts, and its numbers are examples

import asyncio

import pytest

from durable_core.errors import StoreError
from durable_core.model.run import RunQuery, RunStatus
from durable_core.testing.store_checkup_rules import CheckupRules
from durable_core.testing.store_claim_rules import ClaimRules
from durable_core.testing.store_commit_rules import CommitRules
from durable_core.testing.store_purge_rules import PurgeRules
from durable_core.testing.store_rows import (
    MakeStore,
    add,
    claimed,
    in_loop,
    new_batch,
    new_entry,
    new_run,
    new_update,
    opened,
)
from durable_core.testing.store_span_rules import SpanRules
from durable_core.testing.store_version_rules import VersionRules


class StoreContract(CommitRules, ClaimRules, VersionRules, PurgeRules, CheckupRules, SpanRules):
    """The rules. A subclass gives the fixture ``make_store`` and the method ``crash``."""

    @in_loop
    async def test_numbers_are_never_handed_out_twice(self, make_store: MakeStore) -> None:
        """Numbers rise within a store, and differ between stores that are open or were."""
        seen: set[int] = set()
        for _ in range(2):
            async with opened(make_store, "w1", "w2", None) as stores:
                for store in stores * 2:
                    nums = [store.journal.next_num() for _ in range(50)]
                    assert nums == sorted(nums)
                    assert seen.isdisjoint(nums)
                    seen.update(nums)
        assert len(seen) == 600
        assert min(seen) > 0

    @in_loop
    async def test_select_and_count(self, make_store: MakeStore) -> None:
        """Every field of a query narrows it, all together hold, and the newest come first."""
        async with opened(make_store, "w1") as (store,):
            a = await add(store, "a", created_at_ns=10)
            b = await add(store, "b", created_at_ns=20, version=2)
            c = await add(store, "c", created_at_ns=30, name="trip", parent=a)
            end = new_update(b, status=RunStatus.COMPLETED, ended_at_ns=40, phase="done")
            await store.journal.commit(new_batch(updates=[end]))
            pending, completed = RunStatus.PENDING, RunStatus.COMPLETED
            for query, expected in (
                (RunQuery(), [c, b, a]),
                (RunQuery(limit=2), [c, b]),
                (RunQuery(limit=2, before_num=c), [b, a]),
                (RunQuery(limit=None), [c, b, a]),
                (RunQuery(statuses=frozenset({pending})), [c, a]),
                (RunQuery(statuses=frozenset({pending, completed}), limit=None), [c, b, a]),
                (RunQuery(statuses=frozenset()), []),
                (RunQuery(phases=frozenset({"done", "other"})), [b]),
                (RunQuery(name="order"), [b, a]),
                (RunQuery(name="order", version=1), [a]),
                (RunQuery(since_ns=20), [c, b]),
                (RunQuery(parent=a), [c]),
                (RunQuery(parent=c), []),
            ):
                assert [run.num for run in await store.runs.select(query)] == expected
            assert await store.runs.count(RunQuery(limit=1)) == 3
            assert await store.runs.count(RunQuery(statuses=frozenset({completed}))) == 1

    @in_loop
    async def test_changed_tells_of_others_only(self, make_store: MakeStore) -> None:
        """It is true once after another store has committed, and not for what this one wrote."""
        async with opened(make_store, "w1", None) as (store, observer):
            await store.changed()
            num = await add(store, "a")
            assert await store.changed() is False
            await observer.signals.send(num, "cancel", b"", now_ns=1)
            await add(observer, "b")
            assert await store.changed() is True
            assert await store.changed() is False

    @in_loop
    async def test_calls_may_overlap(self, make_store: MakeStore) -> None:
        """Reads, claims and signals come in between commits of one store, and each sees what was committed before."""
        async with opened(make_store, "w1", None) as (store, observer):
            num = await add(store, "a", owner="w1")

            async def write() -> None:
                for seq in range(1, 41):
                    await store.journal.commit(
                        new_batch(entries=[new_entry(num, seq)] + [new_entry(-seq, n) for n in range(40)])
                    )
                    assert len((await store.journal.load([num]))[num]) == seq

            async def disturb() -> None:
                for turn in range(20):
                    await observer.signals.send(num, str(turn), b"", now_ns=1)
                    await add(observer, f"r{turn}")
                    assert len(await claimed(store, "w1")) == 1
                    assert len(await store.runs.select(RunQuery())) == turn + 2
                    await store.changed()

            await asyncio.gather(write(), disturb())
            assert len(await store.signals.waiting([num])) == 20

    @in_loop
    async def test_a_store_that_is_not_open_says_so(self, make_store: MakeStore) -> None:
        """Before ``open`` and after ``close`` every call is a ``StoreError``."""
        store = make_store()
        with pytest.raises(StoreError, match="not open"):
            await store.runs.find(["a"])
        await store.close()
        await store.open(worker=None)
        with pytest.raises(StoreError, match="open already"):
            await store.open(worker=None)
        await store.close()
        with pytest.raises(StoreError, match="not open"):
            await store.journal.commit(new_batch(starts=[new_run(1, "a")]))
