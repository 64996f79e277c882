"""An entry is part of the caller's transaction: both are committed, or neither is."""

import itertools
from datetime import timedelta
from typing import Any

import attrs
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlmodel import Session

from sagas import Orchestrator, Saga, SagaStatus, saga
from tests.kit import settled
from tests.outboxes import Booking, Shop, done, emptied, hand_on, held, order, shop_at, soon, started, tokens

NUMBERS = itertools.count()


async def test_a_saga_starts_with_the_commit(url: str):
    """The row and the saga are both there after the commit; the id was known before it."""
    async with shop_at(url) as shop, Orchestrator("memory://", sagas=[order], outboxes=[shop.outbox]) as running:
        async with shop.opened() as session:
            session.add(Booking(what="tea"))
            saga_id = shop.outbox.start(session, order, "tea", id="order-1", tags={"customer": "42"})
            assert saga_id == "order-1"
            await done(session.commit())
        await soon(lambda: _is_there(running, saga_id))
        assert await (await running.get(saga_id)).result() == "tea"
        assert [info.id for info in await running.list(tags={"customer": "42"})] == [saga_id]
        await emptied(shop)
        assert await shop.bookings() == ["tea"]
        assert await shop.refused() == []


async def _is_there(running: Orchestrator, saga_id: str) -> bool:
    return saga_id in await started(running)


async def test_nothing_starts_after_a_rollback(url: str):
    """A rollback takes the entry back with the row, also one that was flushed; so does one of a savepoint."""
    async with shop_at(url) as shop, Orchestrator("memory://", worker=False) as running:
        async with shop.opened() as session:
            session.add(Booking(what="gone"))
            shop.outbox.start(session, order, "gone", id="gone")
            await done(session.flush())
            await done(session.rollback())
            session.add(Booking(what="kept"))
            shop.outbox.start(session, order, "kept", id="kept")
            inner = await done(session.begin_nested())
            shop.outbox.start(session, order, "inner", id="inner")
            await done(inner.rollback())
            inner = await done(session.begin_nested())
            shop.outbox.start(session, order, "after", id="after")
            await done(inner.commit())
            await done(session.commit())
        relay = await hand_on(shop, running)
        assert await started(running) == ["kept", "after"]
        assert (relay.relay.handed, relay.relay.refused) == (2, 0)
        assert await shop.bookings() == ["kept"]


async def test_a_commit_that_fails_starts_nothing(any_url: str):
    """Where the database refuses a row of the program's own, the entry is not there either."""
    async with shop_at(any_url) as shop:
        async with shop.opened() as session:
            shop.outbox.start(session, order, "tea")
            session.add_all([Booking(id=1), Booking(id=1)])
            with pytest.raises(Exception, match=r"(?i)unique|identity|conflict"):
                await done(session.commit())
            await done(session.rollback())
        assert await shop.waiting() == 0


async def test_a_session_joins_a_transaction_of_its_connection(any_url: str):
    """Where the program commits the connection itself, and not the session, the entry is committed with it."""
    async with shop_at(any_url) as shop:
        if isinstance(shop.engine, AsyncEngine):
            async with shop.engine.begin() as connection:
                await connection.run_sync(lambda plain: _join(shop, plain))
        else:
            with shop.engine.begin() as connection:
                _join(shop, connection)
        assert await shop.waiting() == 1


def _join(shop: Shop, connection: Any) -> None:
    session = Session(connection, join_transaction_mode="control_fully")  # not closed: that would roll all back
    shop.outbox.start(session, order, "tea")
    session.flush()


async def test_a_drawn_id_is_the_sagas(any_url: str):
    """Without ``id=`` one is drawn, and it is the one under which the saga runs."""
    async with shop_at(any_url) as shop, Orchestrator("memory://", worker=False) as running:
        first, second = await shop.commit(*[lambda session: shop.outbox.start(session, order, "tea")] * 2)
        await hand_on(shop, running)
        assert first != second
        assert await started(running) == [first, second]


async def test_the_input_is_that_of_a_direct_start(any_url: str):
    """A saga that was started by an outbox is the one that a direct start with the same arguments gives."""
    async with shop_at(any_url) as shop, Orchestrator("memory://", sagas=[shipped], worker=False) as running:
        parcel = Parcel("tea", {"b": 2, "a": 1}, timedelta(days=1))
        await shop.commit(lambda session: shop.outbox.start(session, shipped, parcel, "now", id="one", deadline=60))
        await hand_on(shop, running)
        handle = await running.start(shipped, parcel, "now", id="one")
        info = await handle.info()
        assert info.input == {"parcel": parcel, "how": "now"}
        assert await started(running) == ["one"]
        (record,) = await running.engine.store.runs.find(["one"])
        assert record.deadline_at_ns is not None
        assert record.deadline_at_ns - record.created_at_ns == 60 * 10**9


@attrs.frozen
class Parcel:
    """An argument with parts."""

    what: str
    counts: dict[str, int]
    within: timedelta


@saga("shipped", version=3)
async def shipped(s: Saga, parcel: Parcel, how: str = "slowly") -> str:
    await s.sleep(parcel.within)
    return how


async def test_callbacks_and_cancels_are_handed_on(any_url: str):
    """A callback is answered by its name, by its token, or failed, and a saga cancelled, with the commit."""
    tokens.clear()
    async with shop_at(any_url) as shop, Orchestrator("memory://", sagas=[held], outboxes=[shop.outbox]) as running:
        handles = {name: await running.start(held, name, id=name) for name in ("named", "failed", "cancelled")}
        for handle in handles.values():
            await settled(handle, "waiting")
        handles["token"] = await running.start(held, "token", id="token")
        await settled(handles["token"], "waiting")
        token = tokens[-1]
        outbox = shop.outbox
        await shop.commit(
            lambda session: outbox.complete_callback(session, saga_id="named", name="approval", value="yes", actor="a"),
            lambda session: outbox.complete_callback(session, token, "yes too"),
            lambda session: outbox.fail_callback(session, saga_id="failed", name="approval", message="no"),
            lambda session: outbox.cancel(session, "cancelled", reason="changed my mind", actor="bob"),
        )
        assert await handles["named"].result() == "named: yes"
        assert await handles["token"].result() == "token: yes too"
        assert (await settled(handles["failed"], "compensated")).cause == "failed"
        assert (await settled(handles["cancelled"], "compensated")).cause == "cancelled"
        await emptied(shop)
        assert await shop.refused() == []


async def test_a_saga_that_nobody_serves_yet_is_started(any_url: str):
    """A relay starts a saga of which no worker has ever been announced; the first one that comes runs it."""
    async with shop_at(any_url) as shop:
        kept = f"memory://served-later-{next(NUMBERS)}"
        async with Orchestrator(kept, worker=False) as keeps:
            await shop.commit(lambda session: shop.outbox.start(session, order, "tea", id="one"))
            await hand_on(shop, keeps)
            assert (await keeps.info("one")).status is SagaStatus.PENDING
            async with Orchestrator(kept, sagas=[order]) as running:
                assert await (await running.get("one")).result() == "tea"
