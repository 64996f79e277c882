"""What is committed is handed on in the order of its commits, and nothing is passed over or repeated in effect."""

import asyncio
from typing import Any

from sqlalchemy import text

from sagas import Orchestrator, SagaStatus
from tests.kit import Place
from tests.outboxes import Booking, done, hand_on, held, order, shop_at, soon, started


def takes_two(url: str) -> bool:
    """Whether two transactions may write at the same time there."""
    return url.startswith("postgresql")


async def test_the_order_is_that_of_the_commits(any_url: str):
    """Of two open transactions the one that commits first comes first, whichever began, wrote and flushed first."""
    async with shop_at(any_url) as shop, Orchestrator("memory://", worker=False) as running:
        async with shop.opened() as late, shop.opened() as early:
            for number in range(3):
                shop.outbox.start(late, order, "tea", id=f"late-{number}")
                if takes_two(any_url):
                    await done(late.flush())
            shop.outbox.start(early, order, "tea", id="early")
            await done(early.commit())
            await done(late.commit())
        await hand_on(shop, running)
        assert await started(running) == ["early", "late-0", "late-1", "late-2"]


async def test_a_late_commit_is_not_passed_over(any_url: str):
    """A transaction that wrote its entry before others, and commits when theirs are handed on, is handed on too."""
    if not takes_two(any_url):
        return  # there a transaction that has written keeps all others from it
    async with shop_at(any_url) as shop, Orchestrator("memory://", worker=False) as running:
        async with shop.opened() as late:
            shop.outbox.start(late, order, "tea", id="late")
            await done(late.flush())
            await shop.commit(lambda session: shop.outbox.start(session, order, "tea", id="early"))
            await hand_on(shop, running)
            assert await started(running) == ["early"]
            await done(late.commit())
        await hand_on(shop, running)
        assert await started(running) == ["early", "late"]


async def test_a_flush_in_between_changes_nothing_else(url: str):
    """Entries that queries have flushed are there once, in order, with all that they were given."""
    async with shop_at(url) as shop, Orchestrator("memory://", sagas=[held], worker=False) as running:
        async with shop.opened() as session:
            shop.outbox.start(session, held, "a", id="a")
            await done(session.execute(text("SELECT 1")))
            await done(session.flush())
            shop.outbox.start(session, held, "b", id="b", deadline=60)
            inner = await done(session.begin_nested())
            shop.outbox.cancel(session, "a", reason="changed")
            await done(inner.commit())
            session.add(Booking(what="tea"))
            await done(session.commit())
            shop.outbox.start(session, held, "c", id="c")  # in the session's next transaction
            await done(session.commit())
        assert await shop.waiting() == 4
        await hand_on(shop, running)
        assert await started(running) == ["a", "b", "c"]
        assert await shop.refused() == []
        (record,) = await running.engine.store.runs.find(["b"])
        assert record.deadline_at_ns is not None
        waiting = await running.engine.store.signals.waiting([(await running.engine.find("a")).num])
        assert [signal.name for signal in waiting] == ["cancel"]


async def test_two_workers_keep_the_order_of_each_saga(any_url: str, place: Place):
    """Many sagas on two workers, each started and cancelled by transactions of its own: no cancel is first."""
    many = [f"order-{number}" for number in range(20)]
    async with shop_at(any_url) as shop:
        options: dict[str, Any] = {"outboxes": [shop.outbox]}
        async with place.orchestrator(held, **options) as one, place.orchestrator(held, **options):
            for saga_id in many:
                await shop.commit(lambda session, saga_id=saga_id: shop.outbox.start(session, held, "x", id=saga_id))
                await shop.commit(lambda session, saga_id=saga_id: shop.outbox.cancel(session, saga_id))
            await soon(shop.empty)
            await soon(lambda: _count(one, SagaStatus.COMPENSATED, len(many)))
            assert await shop.refused() == []
            assert sorted(await started(one)) == sorted(many)


async def _count(running: Orchestrator, status: SagaStatus, wanted: int) -> bool:
    return await running.count(status=status) == wanted


async def test_what_was_handed_on_and_not_deleted_is_harmless(any_url: str):
    """A relay that died between handing on and deleting repeats a start, an answer and a cancel without effect."""
    async with shop_at(any_url) as shop, Orchestrator("memory://", sagas=[order, held]) as running:
        for saga_id in ("answered", "cancelled"):
            await running.start(held, saga_id, id=saga_id)
        await soon(lambda: _count(running, SagaStatus.WAITING, 2))

        def ask(session: Any) -> None:
            shop.outbox.start(session, order, "tea", id="one")
            shop.outbox.complete_callback(session, saga_id="answered", name="approval", value={"b": 1}, actor="ann")
            shop.outbox.complete_callback(session, saga_id="answered", name="approval", value="yes", actor="ann")
            shop.outbox.cancel(session, "cancelled", reason="why")

        for _ in range(3):
            await shop.commit(ask)
            await hand_on(shop, running)
        assert [entry.verb for entry in await shop.refused()] == ["complete_callback"] * 3
        assert await (await running.get("one")).result() == "tea"
        assert await (await running.get("answered")).result() == "answered: yes"
        assert await started(running) == ["answered", "cancelled", "one"]


async def test_many_entries_take_few_commits(any_url: str):
    """Starts of different sagas that are committed together are handed on together, and all of them are."""
    async with shop_at(any_url) as shop, Orchestrator("memory://", worker=False) as running:

        def ask(session: Any) -> list[str]:
            return [shop.outbox.start(session, order, "tea", id=f"order-{number}") for number in range(1_100)]

        (ids,) = await shop.commit(ask)
        relay = await hand_on(shop, running)
        assert relay.relay.handed == 1_100
        assert await started(running) == ids


async def test_what_comes_while_a_worker_leaves_is_kept_for_the_next(any_url: str, place: Place):
    """Leaving hands nothing on that was not begun, and the next worker does, at once."""
    async with shop_at(any_url) as shop:
        async with place.orchestrator(order, outboxes=[shop.outbox]):
            pass
        await shop.commit(lambda session: shop.outbox.start(session, order, "tea", id="one"))
        await asyncio.sleep(0)
        assert await shop.waiting() == 1
        async with place.orchestrator(order, outboxes=[shop.outbox]) as running:
            await soon(shop.empty)
            assert await (await running.get("one")).result() == "tea"
