"""What a checkup finds out about the runs of a store."""
# ruff: noqa: S101, PLR2004 - a test suite asserts, and its numbers are examples

from durable_core.model.checkup import GRACE_NS, SHOWN, Facts, Group, Level
from durable_core.model.run import RunStatus
from durable_core.model.version import Offer
from durable_core.ports import Store
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
)

LATER_NS = 10 * GRACE_NS


async def facts(store: Store, now_ns: int = LATER_NS) -> Facts:
    """How its runs stand; the look finds nothing wrong with the store itself but what a young one cannot help."""
    checkup = await store.check_up(now_ns=now_ns, deep=True)
    assert not [finding for finding in checkup.findings if finding.level is Level.FAIL]
    assert checkup.facts is not None
    return checkup.facts


class CheckupRules(Rules):
    """Facts about runs and workers."""

    @in_loop
    async def test_a_look_counts_and_changes_nothing(self, make_store: MakeStore) -> None:
        """Rows, statuses and ends are reported as they are, and alike by a second checkup and by open stores."""
        async with opened(make_store, "w1", None) as (store, other):
            await store.versions.announce([Offer("order", 1)], now_ns=1)
            open_one, ended = await add(store, "a"), await add(store, "b")
            await store.journal.commit(
                new_batch(
                    entries=[new_entry(open_one, 1), new_entry(ended, 1)],
                    updates=[new_update(ended, status=RunStatus.COMPLETED, ended_at_ns=30)],
                )
            )
            await store.signals.send(open_one, "cancel", b"", now_ns=1)
            await other.changed()
            found = await facts(make_store())
            assert found == await facts(store) == await facts(other)
            assert found.rows == {
                "runs": 2,
                "journal": 2,
                "signals": 1,
                "tombstones": 0,
                "workers": 1,
                "served": 1,
            }
            assert found.statuses == {"pending": 1, "running": 0, "stuck": 0, "waiting": 0}
            assert (found.oldest_end_ns, found.newest_at_ns, found.unswept) == (30, 18, 0)
            assert [(worker.name, worker.alive) for worker in found.workers] == [("w1", True)]
            assert await other.changed() is False

    @in_loop
    async def test_the_last_time_is_that_of_the_newest_run_or_entry(self, make_store: MakeStore) -> None:
        """An empty store has none; each store on the same data knows it, whichever of them wrote."""
        async with opened(make_store, "w1", None) as (store, other):
            assert await store.runs.last_seen_ns() is None
            num = await add(store, "a", created_at_ns=40)
            assert await other.runs.last_seen_ns() == 40
            await store.journal.commit(new_batch(entries=[new_entry(num, 1)._replace(at_ns=70)]))
            assert await store.runs.last_seen_ns() == await other.runs.last_seen_ns() == 70
            await add(other, "b", created_at_ns=90)
            assert await store.runs.last_seen_ns() == await other.runs.last_seen_ns() == 90

    @in_loop
    async def test_a_look_finds_what_nobody_takes(self, make_store: MakeStore) -> None:
        """Due for longer than a grace and unowned, or past a deadline that counts; not what is stuck or ended."""
        async with opened(make_store, "w1") as (store,):
            nums = {id: await add(store, id) for id in ("due", "paused", "stuck", "ended", "void")}
            for id in ("owned", "unset"):
                await add(store, id, owner="w1" if id == "owned" else None, wake_at_ns=None)
            await add(store, "fresh", created_at_ns=LATER_NS - GRACE_NS + 1)
            await add(store, "waiting", wake_at_ns=LATER_NS + 1)
            updates = [
                new_update(nums["paused"], paused=True, wake_at_ns=0),
                new_update(nums["stuck"], status=RunStatus.STUCK, wake_at_ns=0),
                new_update(nums["ended"], status=RunStatus.FAILED, ended_at_ns=5),
                new_update(nums["void"], phase="compensating", owner="w1"),
            ]
            await store.journal.commit(new_batch(updates=updates))
            found = await facts(store)
            assert found.overdue == Group(1, ("due",))
            assert found.runnable == ("due", 17)
            assert found.stuck == Group(1, ("stuck",))
            assert found.paused == Group(1, ("paused",))
            assert found.past_deadline.count == 6
            assert set(found.past_deadline.ids) < {"due", "paused", "owned", "unset", "fresh", "waiting"}
            assert len(found.past_deadline.ids) == SHOWN
            assert (await facts(store, 99 + GRACE_NS - 1)).past_deadline == Group()

    @in_loop
    async def test_a_look_finds_versions_that_nobody_serves(self, make_store: MakeStore) -> None:
        """Open runs of a function or version that no living worker serves, by how many."""
        async with opened(make_store, "w1") as (store,):
            await store.versions.announce([Offer("order", 1), Offer("trip", 1)], now_ns=1)
            starts = [
                new_run(store.journal.next_num(), f"r{n}", name=name, version=version)
                for n, (name, version) in enumerate([("order", 1), ("order", 2), ("order", 2), ("other", 1)])
            ]
            await store.journal.commit(new_batch(starts=starts))
            assert (await facts(store)).unserved == {("order", 2): 2, ("other", 1): 1}
            await store.versions.announce([Offer("order", 2), Offer("other", 1)], now_ns=1)
            assert (await facts(store)).unserved == {}

    @in_loop
    async def test_a_look_tells_the_dead_from_the_living(self, make_store: MakeStore) -> None:
        """A worker that died without signing off is there, and dead; and the checkup does not remove it."""
        async with opened(make_store, "w1") as (store,):
            dying = make_store()
            await dying.open(worker="w2")
            self.crash(dying)
            for _ in range(2):
                found = await facts(store)
                assert {worker.name: worker.alive for worker in found.workers} == {"w1": True, "w2": False}
