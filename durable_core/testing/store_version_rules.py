"""What a store knows of versions: who serves which, what their code was, and which runs no worker serves."""
# ruff: noqa: S101, PLR2004 - a test suite asserts, and its numbers are examples

import pytest

from durable_core.errors import StoreError
from durable_core.model.run import RunQuery, RunStatus
from durable_core.model.version import Announced, Offer, Tally
from durable_core.ports import Store
from durable_core.testing.store_rows import (
    NOW_NS,
    MakeStore,
    Rules,
    add,
    claimed,
    in_loop,
    new_batch,
    new_update,
    opened,
)

ORDER_1, ORDER_2, SHIP = Offer("order", 1), Offer("order", 2), Offer("ship", 1)


async def unserved(store: Store, *, now_ns: int = NOW_NS) -> list[str]:
    """The ids of the runs that no worker serves."""
    return [ref.id for ref in await store.versions.unserved(now_ns=now_ns)]


class VersionRules(Rules):
    """Announcements, the unserved, and how many runs there are of each version."""

    @in_loop
    async def test_what_is_served_is_announced_for_good(self, make_store: MakeStore) -> None:
        """Announced versions are known to everybody, once each, with the living workers that serve them."""
        async with opened(make_store, "w2", "w1", None) as (two, one, observer):
            assert await one.versions.announce([ORDER_2, ORDER_1], now_ns=5) == []
            assert await two.versions.announce([ORDER_2, SHIP], now_ns=6) == []
            assert await observer.versions.announced() == [
                Announced("order", 1, "", 5, ("w1",)),
                Announced("order", 2, "", 5, ("w1", "w2")),
                Announced("ship", 1, "", 6, ("w2",)),
            ]
            await two.close()
            assert [each.workers for each in await observer.versions.announced()] == [("w1",), ("w1",), ()]

    @in_loop
    async def test_a_worker_serves_more_and_more(self, make_store: MakeStore) -> None:
        """What is announced later is served beside what was before, and what is known already writes nothing."""
        async with opened(make_store, "w1", None) as (store, observer):
            await store.versions.announce([ORDER_1], now_ns=5)
            await store.versions.announce([SHIP], now_ns=6)
            assert [(each.name, each.workers) for each in await store.versions.announced()] == [
                ("order", ("w1",)),
                ("ship", ("w1",)),
            ]
            await observer.changed()
            assert await store.versions.announce([SHIP, ORDER_1], now_ns=7) == []
            assert await observer.changed() is False

    @in_loop
    async def test_the_dead_serve_nothing(self, make_store: MakeStore) -> None:
        """What a worker served goes with it once it is found dead, or one of the same name begins anew."""
        async with opened(make_store, "w1") as (store,):
            for opener in ("w3", "w2"):
                dying = make_store()
                await dying.open(worker="w2")
                await dying.versions.announce([ORDER_2], now_ns=5)
                self.crash(dying)
                async with opened(make_store, opener):
                    assert [each.workers for each in await store.versions.announced()] == [()]
            dying = make_store()
            await dying.open(worker="w2")
            await dying.versions.announce([ORDER_2], now_ns=5)
            self.crash(dying)
            await store.claims.release_dead()
            assert [each.workers for each in await store.versions.announced()] == [()]

    @in_loop
    async def test_only_a_worker_announces(self, make_store: MakeStore) -> None:
        """A store opened without a worker serves nothing, and an announcement is refused."""
        async with opened(make_store, None) as (observer,):
            with pytest.raises(StoreError, match="without a worker"):
                await observer.versions.announce([ORDER_1], now_ns=5)
            assert await observer.versions.announced() == []

    @in_loop
    async def test_other_code_under_one_version_is_told_once(self, make_store: MakeStore) -> None:
        """Another fingerprint replaces the one before and gives that one back; none at all changes nothing."""
        async with opened(make_store, "w1", "w2") as (one, two):
            assert await one.versions.announce([Offer("order", 1)], now_ns=1) == []
            assert await one.versions.announce([Offer("order", 1, "a"), Offer("order", 2, "x")], now_ns=2) == []
            assert await two.versions.announce([Offer("order", 1, "b"), Offer("order", 2, "x")], now_ns=3) == [
                Offer("order", 1, "a")
            ]
            assert await two.versions.announce([Offer("order", 1, "b")], now_ns=4) == []
            assert await two.versions.announce([Offer("order", 1)], now_ns=5) == []
            assert [each[:4] for each in await one.versions.announced()] == [("order", 1, "b", 3), ("order", 2, "x", 2)]
            await one.close()
        async with opened(make_store, "w3") as (three,):
            assert await three.versions.announce([Offer("order", 1, "c")], now_ns=6) == [Offer("order", 1, "b")]

    @in_loop
    async def test_due_runs_of_a_version_that_nobody_serves(self, make_store: MakeStore) -> None:
        """Those are what could be claimed at that time but for its version; a worker that serves it ends the wait."""
        async with opened(make_store, "w1") as (store,):
            await store.versions.announce([ORDER_1], now_ns=5)
            await add(store, "served")
            for id, wake_at_ns in (("due", 7), ("later", NOW_NS + 1), ("unset", None)):
                await add(store, id, version=2, wake_at_ns=wake_at_ns)
            await add(store, "other name", name="trip")
            await add(store, "owned", version=2, owner="w1")
            paused, ended = await add(store, "paused", version=2), await add(store, "ended", version=2)
            end = new_update(ended, status=RunStatus.COMPLETED, wake_at_ns=0, ended_at_ns=20)
            await store.journal.commit(new_batch(updates=[end, new_update(paused, wake_at_ns=0, paused=True)]))
            assert await unserved(store) == ["other name", "due"]
            assert await unserved(store, now_ns=NOW_NS + 1) == ["other name", "due", "later"]
            await store.signals.send(paused, "cancel", b"", now_ns=1)
            assert await unserved(store) == ["other name", "paused", "due"]
            async with opened(make_store, "w2") as (other,):
                await other.versions.announce([ORDER_2], now_ns=5)
                assert await unserved(store) == ["other name"]
            assert await unserved(store) == ["other name", "paused", "due"]
            (ref,) = [ref for ref in await store.versions.unserved(now_ns=NOW_NS) if ref.id == "due"]
            assert (ref.name, ref.version) == ("order", 2)

    @in_loop
    async def test_what_is_signalled_may_be_unserved(self, make_store: MakeStore) -> None:
        """A stuck run that was signalled is unserved while no worker takes the signal up; before, it is not."""
        async with opened(make_store, "w1") as (store,):
            stuck = await add(store, "stuck", owner="w1")
            await store.journal.commit(new_batch(updates=[new_update(stuck, status=RunStatus.STUCK)]))
            assert await unserved(store) == []
            await store.signals.send(stuck, "retry", b"", now_ns=1)
            assert await unserved(store) == ["stuck"]
            assert await claimed(store, "w1") == ["stuck"]
            assert await unserved(store) == []

    @in_loop
    async def test_attention_includes_the_unserved(self, make_store: MakeStore) -> None:
        """A query for attention that names a time includes them beside the runs with a reason, and narrows them too."""
        async with opened(make_store, "w1") as (store,):
            await store.versions.announce([ORDER_1], now_ns=5)
            await add(store, "fine")
            waiting = await add(store, "waiting", version=2)
            reasoned = await add(store, "reasoned", owner="w1")
            await store.journal.commit(new_batch(updates=[new_update(reasoned, owner="w1")]))
            both = await add(store, "both", version=2)
            await store.journal.commit(new_batch(updates=[new_update(both, wake_at_ns=0)]))
            for query, expected in (
                (RunQuery(attention=True), [both, reasoned]),
                (RunQuery(attention=True, at_ns=NOW_NS), [both, reasoned, waiting]),
                (RunQuery(attention=True, at_ns=NOW_NS, version=2, limit=1), [both]),
                (RunQuery(attention=True, at_ns=NOW_NS, name="trip"), []),
            ):
                assert [run.num for run in await store.runs.select(query)] == expected
            assert await store.runs.count(RunQuery(attention=True, at_ns=NOW_NS, limit=1)) == 3

    @in_loop
    async def test_tally(self, make_store: MakeStore) -> None:
        """Every run is counted once, by name, version, status and phase, in that order."""
        async with opened(make_store, "w1") as (store,):
            assert await store.versions.tally() == []
            for id, name, version in (("a", "ship", 1), ("b", "order", 10), ("c", "order", 2), ("d", "order", 2)):
                await add(store, id, name=name, version=version)
            undone = await add(store, "e", name="order", version=2)
            await store.journal.commit(
                new_batch(updates=[new_update(undone, status=RunStatus.FAILED, phase="undone", ended_at_ns=3)])
            )
            order = [
                Tally("order", 2, RunStatus.FAILED, "undone", 1),
                Tally("order", 2, RunStatus.PENDING, "", 2),
                Tally("order", 10, RunStatus.PENDING, "", 1),
            ]
            assert await store.versions.tally() == [*order, Tally("ship", 1, RunStatus.PENDING, "", 1)]
            assert await store.versions.tally("order") == order
            assert await store.versions.tally("none") == []
