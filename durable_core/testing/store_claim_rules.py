"""How a store gives runs to workers: owners, due times, dead workers, and signals."""
# ruff: noqa: S101, PLR2004 - a test suite asserts, and its numbers are examples

import asyncio

import pytest

from durable_core.errors import StoreError
from durable_core.model.entry import EntryKind
from durable_core.model.run import RunQuery, RunStatus
from durable_core.ports import Batch
from durable_core.testing.store_rows import (
    NOW_NS,
    SERVED,
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
    the,
)


class ClaimRules(Rules):
    """Claims, wakes, the dead, and signals."""

    @in_loop
    async def test_claim_takes_the_longest_due_first(self, make_store: MakeStore) -> None:
        """What fell due first is claimed first, no more than asked for, and becomes the worker's."""
        async with opened(make_store, "w1") as (store,):
            for id, wake_at_ns in (("c", 30), ("a", 10), ("b", 20), ("now", NOW_NS), ("later", NOW_NS + 1)):
                await add(store, id, wake_at_ns=wake_at_ns)
            assert await claimed(store, "w1", limit=0) == []
            (first, second) = await store.claims.claim("w1", SERVED, now_ns=NOW_NS, limit=2)
            assert (first.id, second.id) == ("a", "b")
            assert (first.owner, first.status, first.wake_at_ns) == ("w1", RunStatus.RUNNING, None)
            assert await the(store, "a") == first
            assert await claimed(store, "w1") == ["c", "now"]
            assert await claimed(store, "w1") == []

    @in_loop
    async def test_claim_leaves_what_it_must(self, make_store: MakeStore) -> None:
        """Owned, paused, ended, unserved runs and those without a wake are not claimed."""
        async with opened(make_store, "w1") as (store,):
            await add(store, "owned", owner="w2")
            await add(store, "unset", wake_at_ns=None)
            await add(store, "other name", name="trip")
            await add(store, "other version", version=2)
            paused, ended = await add(store, "paused"), await add(store, "ended")
            end = new_update(ended, status=RunStatus.COMPLETED, wake_at_ns=0, ended_at_ns=20)
            await store.journal.commit(new_batch(updates=[end, new_update(paused, wake_at_ns=0, paused=True)]))
            assert await claimed(store, "w1") == []
            assert await store.claims.claim("w1", [], now_ns=NOW_NS, limit=9) == []
            served = [*SERVED, *((f"unused {n}", n) for n in range(500)), ("trip", 1), ("order", 2)]
            found = await store.claims.claim("w1", served, now_ns=NOW_NS, limit=9)
            assert [run.id for run in found] == ["other name", "other version"]

    @in_loop
    async def test_no_run_is_claimed_twice(self, make_store: MakeStore) -> None:
        """Two workers that claim at the same time share the runs out."""
        async with opened(make_store, "w1", "w2") as (one, two):
            nums = [one.journal.next_num() for _ in range(60)]
            await one.journal.commit(new_batch(starts=[new_run(num, f"r{num}") for num in nums]))
            shares = await asyncio.gather(
                *(claimed(store, worker, limit=7) for _ in range(6) for store, worker in ((one, "w1"), (two, "w2")))
            )
            got = [id for share in shares for id in share]
            assert len(got) == len(set(got)) == 60

    @in_loop
    async def test_next_wake(self, make_store: MakeStore) -> None:
        """The earliest wake of the runs that anybody could claim, now or later."""
        async with opened(make_store, "w1") as (store,):
            assert await store.runs.next_wake_ns(after_ns=0) is None
            await add(store, "owned", owner="w1", wake_at_ns=1)
            paused = await add(store, "paused", wake_at_ns=2)
            await add(store, "unset", wake_at_ns=None)
            await store.journal.commit(new_batch(updates=[new_update(paused, wake_at_ns=2, paused=True)]))
            assert await store.runs.next_wake_ns(after_ns=0) is None
            await add(store, "b", wake_at_ns=50)
            await add(store, "a", wake_at_ns=40)
            assert await store.runs.next_wake_ns(after_ns=0) == 40
            assert await store.runs.next_wake_ns(after_ns=40) == 50

    @in_loop
    async def test_the_runs_of_the_dead_are_released(self, make_store: MakeStore) -> None:
        """A worker that died loses its open runs, which are due at once; those of the living stay theirs."""
        async with opened(make_store, "w1", "w3") as (one, three):
            dying = make_store()
            await dying.open(worker="w2")
            await add(dying, "open", owner="w2", wake_at_ns=None)
            stuck, ended = await add(dying, "stuck", owner="w2"), await add(dying, "ended", owner="w2")
            end = new_update(ended, owner="w2", status=RunStatus.FAILED, ended_at_ns=3)
            await dying.journal.commit(new_batch(updates=[new_update(stuck, owner="w2", status=RunStatus.STUCK), end]))
            await add(three, "living", owner="w3", wake_at_ns=None)
            assert await one.claims.release_dead() == 0
            self.crash(dying)
            assert await one.claims.release_dead() == 2
            assert await three.claims.release_dead() == 0
            assert (await the(one, "stuck")).wake_at_ns is None
            assert {run.id: run.owner for run in await one.runs.select(RunQuery())} == {
                "open": None,
                "stuck": None,
                "ended": "w2",
                "living": "w3",
            }
            assert await claimed(one, "w1") == ["open"]

    @in_loop
    async def test_opening_releases_the_dead(self, make_store: MakeStore) -> None:
        """Opening the store frees the runs of the dead: by another worker, an observer, or one of the same name."""
        for place, opener in enumerate(("w2", None, "w1")):
            dying = make_store()
            await dying.open(worker="w1")
            await add(dying, f"r{place}", owner="w1", wake_at_ns=None)
            self.crash(dying)
            async with opened(make_store, opener) as (store,):
                assert (await the(store, f"r{place}")).owner is None
                assert await claimed(store, "w9") == [f"r{place}"]

    @in_loop
    async def test_closing_frees_a_workers_runs(self, make_store: MakeStore) -> None:
        """A worker that leaves properly leaves its runs to the others at once. Closing twice is harmless."""
        async with opened(make_store, "w1", "w2") as (one, two):
            await add(one, "a", owner="w1", wake_at_ns=None)
            await one.close()
            assert await claimed(two, "w2") == ["a"]
            await one.close()

    @in_loop
    async def test_a_living_workers_name_is_taken(self, make_store: MakeStore) -> None:
        """Two living workers cannot have one name; the second is refused and the first goes on."""
        async with opened(make_store, "w1") as (store,):
            await add(store, "a", owner="w1")
            with pytest.raises(StoreError, match="w1"):
                await make_store().open(worker="w1")
            assert await store.claims.release_dead() == 0
            assert (await the(store, "a")).owner == "w1"

    @in_loop
    async def test_worker_names_may_hold_any_text(self, make_store: MakeStore) -> None:
        """Slashes, dots and long names are as good as any."""
        names = ["../w", "a/b", ".", "é'\"", "x" * 500, "x" * 501, "W1", "w1"]
        async with opened(make_store, *names) as stores:
            for store in stores:
                assert await store.claims.release_dead() == 0

    @in_loop
    async def test_signals_wait_in_order_until_consumed(self, make_store: MakeStore) -> None:
        """Signals are read oldest first, by run, as often as asked, until a batch takes them up."""
        async with opened(make_store, "w1", None) as (store, observer):
            a, b = await add(store, "a", owner="w1"), await add(store, "b", owner="w1")
            for run, name in ((b, "one"), (a, "two"), (b, "three")):
                await observer.signals.send(run, name, name.encode(), now_ns=1)
            assert [(s.run, s.name, s.payload) for s in await store.signals.waiting([b])] == [
                (b, "one", b"one"),
                (b, "three", b"three"),
            ]
            found = await store.signals.waiting([a, b, *range(b + 1, b + 3000)])
            assert [signal.name for signal in found] == ["one", "two", "three"]
            assert await store.signals.waiting([]) == []
            await store.journal.commit(Batch(entries=[new_entry(b, 1)], consumed=[found[0].num]))
            assert [signal.name for signal in await store.signals.waiting([a, b])] == ["two", "three"]
            await store.journal.commit(Batch(consumed=[signal.num for signal in found]))
            await observer.signals.send(a, "four", b"", now_ns=1)
            (last,) = await store.signals.waiting([a])
            assert last.num not in {signal.num for signal in found}

    @in_loop
    async def test_no_beginning_and_no_end_commits_over_a_signal(self, make_store: MakeStore) -> None:
        """What a run decided before it saw a signal is left out; what happened in the world is written."""
        async with opened(make_store, "w1", None) as (store, desk):
            ids = ("begins", "ends", "goes on", "seen")
            runs = [await add(store, id, owner="w1", wake_at_ns=None) for id in ids]
            for run in runs:
                await desk.signals.send(run, "cancel", b"{}", now_ns=7)
            (seen,) = await store.signals.waiting([runs[3]])
            assert seen.at_ns == 7
            result, intent = EntryKind.SUCCEEDED, EntryKind.STARTED
            batch = new_batch(
                entries=[
                    new_entry(runs[0], 1)._replace(kind=result),
                    new_entry(runs[0], 2)._replace(kind=EntryKind.MARKED),
                    new_entry(runs[0], 3)._replace(kind=intent),
                    new_entry(runs[0], 4)._replace(kind=result),
                    new_entry(runs[1], 1)._replace(kind=result),
                    new_entry(runs[1], 2)._replace(kind=EntryKind.ENDED),
                    new_entry(runs[2], 1)._replace(kind=result),
                    new_entry(runs[3], 1)._replace(kind=intent),
                ],
                updates=[
                    new_update(runs[1], status=RunStatus.COMPLETED, ended_at_ns=9),
                    new_update(runs[2], owner="w1", wake_at_ns=None),
                ],
            )
            batch.consumed.append(seen.num)
            assert await store.journal.commit(batch) == {runs[0], runs[1]}
            journals = await store.journal.load(runs)
            assert [[entry.seq for entry in journals[run]] for run in runs] == [[1], [1], [1], [1]]
            assert (await store.runs.find_nums([runs[1]]))[0].ended_at_ns is None
            assert [signal.run for signal in await store.signals.waiting(runs)] == runs[:3]

    @in_loop
    async def test_a_signal_opens_an_ended_run_again(self, make_store: MakeStore) -> None:
        """It stays with a live owner, because an attempt of it has not returned; else any worker may claim it."""
        async with opened(make_store, "w1", None) as (store, desk):
            kept, free = await add(store, "kept", owner="w1"), await add(store, "free", owner="w1")
            ends = [
                new_update(run, status=RunStatus.KILLED, owner=owner, ended_at_ns=9)
                for run, owner in ((kept, "w1"), (free, "gone"))
            ]
            await store.journal.commit(new_batch(updates=ends))
            for run in (kept, free):
                assert await desk.signals.send(run, "cancel", b"{}", now_ns=10) is False
                assert await desk.signals.send(run, "rollback 0 abandon", b"{}", now_ns=10, ended=True) is True
            found = {
                run.num: (run.status, run.owner, run.ended_at_ns) for run in await desk.runs.find(["kept", "free"])
            }
            assert found == {kept: (RunStatus.PENDING, "w1", None), free: (RunStatus.PENDING, None, None)}
            assert await claimed(store, "w1") == ["free"]

    @in_loop
    async def test_a_stuck_run_that_falls_due_is_stuck_all_the_same(self, make_store: MakeStore) -> None:
        """A retry beside the step it is stuck on is due; a claim does not answer for a person."""
        async with opened(make_store, "w1") as (store,):
            num = await add(store, "stuck")
            await store.journal.commit(new_batch(updates=[new_update(num, status=RunStatus.STUCK, wake_at_ns=NOW_NS)]))
            (run,) = await store.claims.claim("w1", SERVED, now_ns=NOW_NS, limit=1)
            assert run.status is RunStatus.STUCK
            assert (await the(store, "stuck")).status is RunStatus.STUCK
            assert await claimed(store, "w1") == []
        async with opened(make_store, "w2") as (store,):
            assert await claimed(store, "w2") == ["stuck"], "the worker ended, and what is promised is still due"

    @in_loop
    async def test_a_signal_makes_an_unowned_run_due(self, make_store: MakeStore) -> None:
        """It wakes an unowned open run, stuck or waiting; an owned one is its owner's; an ended one stays ended."""
        async with opened(make_store, "w1") as (store,):
            waiting = await add(store, "waiting", wake_at_ns=None)
            owned = await add(store, "owned", owner="w1", wake_at_ns=None)
            stuck, ended = await add(store, "stuck"), await add(store, "ended")
            end = new_update(ended, status=RunStatus.COMPLETED, ended_at_ns=20)
            await store.journal.commit(new_batch(updates=[end, new_update(stuck, status=RunStatus.STUCK)]))
            for num in (waiting, owned, stuck, ended):
                await store.signals.send(num, "retry", b"", now_ns=1)
            assert [(await the(store, id)).wake_at_ns for id in ("owned", "ended")] == [None, None]
            assert await claimed(store, "w1") == ["waiting", "stuck"]

    @in_loop
    async def test_a_signal_for_nobody_is_refused(self, make_store: MakeStore) -> None:
        """There is no run of that number: an error, and nothing is left."""
        async with opened(make_store, "w1") as (store,):
            with pytest.raises(StoreError, match="4711"):
                await store.signals.send(4711, "cancel", b"", now_ns=1)
            assert await store.signals.waiting([4711]) == []

    @in_loop
    async def test_signals_left_together_have_fates_of_their_own(self, make_store: MakeStore) -> None:
        """Of many signals at once those for nobody and for an ended run are refused, and the rest are left."""
        async with opened(make_store, "w1") as (store,):
            runs = [await add(store, f"r{number}", wake_at_ns=None) for number in range(20)]
            await store.journal.commit(
                new_batch(updates=[new_update(runs[0], status=RunStatus.COMPLETED, ended_at_ns=20)])
            )
            answers = await asyncio.gather(
                *(store.signals.send(run, "cancel", str(run).encode(), now_ns=1) for run in (*runs, 4711, *runs)),
                return_exceptions=True,
            )
            assert answers[0] is answers[21] is False
            assert isinstance(answers[20], StoreError)
            assert answers[1:20] == answers[22:] == [True] * 19
            assert [signal.run for signal in await store.signals.waiting([*runs, 4711])] == runs[1:] * 2
            assert len(await claimed(store, "w1")) == 19

    @in_loop
    async def test_a_signal_left_while_a_run_is_let_go_wakes_it(self, make_store: MakeStore) -> None:
        """Whichever of the two comes first, or both at once: the run is due at once."""
        async with opened(make_store, "w1", None) as (store, observer):
            for turn in range(40):
                nums = [await add(store, f"r{turn}.{n}", owner="w1", wake_at_ns=None) for n in range(2)]
                await asyncio.gather(
                    store.journal.commit(new_batch(updates=[new_update(num, wake_at_ns=10**18) for num in nums])),
                    *(observer.signals.send(num, "cancel", b"", now_ns=1) for num in nums),
                )
                assert len(await claimed(store, "w1")) == 2, turn

    @in_loop
    async def test_no_signal_is_lost_when_a_run_is_let_go(self, make_store: MakeStore) -> None:
        """A signal that its owner had not seen makes the run due: whether the owner evicts it, leaves or dies."""
        async with opened(make_store, "w1") as (store,):
            evicted = await add(store, "evicted", owner="w1", wake_at_ns=None)
            await store.signals.send(evicted, "cancel", b"", now_ns=1)
            await store.journal.commit(new_batch(updates=[new_update(evicted, wake_at_ns=10**18)]))
            assert await claimed(store, "w1") == ["evicted"]
            dying = make_store()
            await dying.open(worker="w2")
            stuck = await add(dying, "stuck", owner="w2")
            await dying.journal.commit(new_batch(updates=[new_update(stuck, owner="w2", status=RunStatus.STUCK)]))
            await store.signals.send(stuck, "retry", b"", now_ns=1)
            self.crash(dying)
            assert await store.claims.release_dead() == 1
            assert await claimed(store, "w1") == ["stuck"]
