"""What every store must do, as tests: subclass ``StoreContract`` in a test module and say how your store is made.

Each test's docstring is a rule of ``durable_core.ports.Store``; the suite runs unchanged on every store.
"""
# ruff: noqa: S101, PLR2004 - a test suite asserts, and its numbers are examples

import asyncio

import attrs
import pytest

from durable_core.errors import StoreError
from durable_core.model.run import Place, RunQuery, RunStatus
from durable_core.model.tags import read_tags
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
    the,
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
            c = await add(store, "c", created_at_ns=30, name="trip", restarts="a")
            end = new_update(b, status=RunStatus.COMPLETED, ended_at_ns=40, phase="done")
            await store.journal.commit(new_batch(updates=[end]))
            pending, completed = RunStatus.PENDING, RunStatus.COMPLETED
            for query, expected in (
                (RunQuery(), [c, b, a]),
                (RunQuery(limit=2), [c, b]),
                (RunQuery(oldest_first=True, limit=2), [a, b]),
                (RunQuery(limit=None), [c, b, a]),
                (RunQuery(statuses=frozenset({pending})), [c, a]),
                (RunQuery(statuses=frozenset({pending, completed}), limit=None), [c, b, a]),
                (RunQuery(statuses=frozenset()), []),
                (RunQuery(phases=frozenset({"done", "other"})), [b]),
                (RunQuery(name="order"), [b, a]),
                (RunQuery(name="order", version=1), [a]),
                (RunQuery(since_ns=20), [c, b]),
            ):
                assert [run.num for run in await store.runs.select(query)] == expected
            assert await store.runs.restarts(["a", "b", "a"]) == {"a": ["c"]}
            assert await store.runs.restarts([]) == await store.runs.restarts(["c"]) == {}
            assert await store.runs.count(RunQuery(limit=1)) == 3
            assert await store.runs.count(RunQuery(statuses=frozenset({completed}))) == 1

    @in_loop
    async def test_pages_are_in_the_order_of_start(self, make_store: MakeStore) -> None:
        """Page by page, in both orders and with every filter, each run comes once; equal times have a fixed order."""
        async with opened(make_store, "w1", "w2") as stores:
            nums = [
                await add(stores[place % 2], f"r{place}", created_at_ns=place // 3, tags={"half": str(place % 2)})
                for place in range(12)
            ]
            store = stores[0]
            for place in (0, 5, 11):
                end = new_update(nums[place], status=RunStatus.FAILED, ended_at_ns=40)
                await store.journal.commit(new_batch(updates=[end]))
            whole = [run.place for run in await store.runs.select(RunQuery(limit=None))]
            assert whole == sorted(whole, reverse=True)
            assert {run.num for run in whole} == set(nums)
            opened_ones = frozenset({RunStatus.PENDING})
            for filters in (
                RunQuery(),
                RunQuery(name="order"),
                RunQuery(statuses=opened_ones),
                RunQuery(statuses=frozenset({RunStatus.FAILED, RunStatus.KILLED})),
                RunQuery(tags=(("half", "1"),)),
                RunQuery(tags=(("half", "1"),), statuses=opened_ones, since_ns=1),
            ):
                for oldest_first in (False, True):
                    query = attrs.evolve(filters, oldest_first=oldest_first)
                    found = [run.place for run in await store.runs.select(attrs.evolve(query, limit=None))]
                    assert found == sorted(found, reverse=not oldest_first)
                    pages, after = list[Place](), None
                    while page := await store.runs.select(attrs.evolve(query, limit=2, after=after)):
                        pages += [run.place for run in page]
                        after = page[-1].place
                    assert pages == found
                    assert await store.runs.count(attrs.evolve(query, limit=1, after=after)) == len(found)

    @in_loop
    async def test_runs_are_found_by_tags(self, make_store: MakeStore) -> None:
        """All tags asked for must match, as texts; they follow each update of the row, and go with a purge."""
        odd = {"quote": 'it\'s "42"', "é\n": "", "a": "x" * 256}
        async with opened(make_store, "w1", None) as (store, other):

            async def found(**tags: str) -> list[str]:
                query = RunQuery(tags=tuple(tags.items()))
                runs = await other.runs.select(query)
                assert await store.runs.count(query) == len(runs)
                return [run.id for run in runs]

            a = await add(store, "a", tags={"customer": "42", "shop": "7"}, created_at_ns=1)
            await add(store, "b", tags={"customer": "42"}, created_at_ns=2)
            await add(store, "c", tags=odd, created_at_ns=3)
            assert await found(customer="42") == ["b", "a"]
            assert await found(customer="42", shop="7") == ["a"]
            assert await found(customer="4") == await found(shop="42") == []
            assert await found(**odd) == ["c"]
            for tags, by_shop in ({"shop": "8"}, []), ({"shop": "7", "b": "1"}, ["a"]), (None, ["a"]):
                await store.journal.commit(new_batch(updates=[new_update(a, retagged=tags)]))
                assert await found(shop="7") == by_shop
                assert read_tags((await the(store, "a")).current_tags) == (tags or {"customer": "42", "shop": "7"})
            end = new_update(a, status=RunStatus.COMPLETED, ended_at_ns=9, retagged={"shop": "7"})
            await store.journal.commit(new_batch(updates=[end]))
            assert await found(shop="7") == ["a"]
            assert await store.retention.purge(await store.retention.ended(before_ns=10), now_ns=11, until_ns=None) == [
                a
            ]
            assert await found(shop="7") == []
            assert await store.journal.commit(
                new_batch(starts=[new_run(99, "b", tags={"late": "1"}), new_run(98, "d", tags={"late": "1"})])
            ) == {99}
            assert await found(late="1") == ["d"]

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
