"""Databases that are away for a while, and relays that take turns: nothing is lost, and nothing changes its order."""

import asyncio
import sqlite3
from pathlib import Path

import pytest
from sqlalchemy import create_engine

from durable_core import StoreError
from sagas import Orchestrator
from sagas.outbox import Outbox, lease, relay, wake
from sagas.outbox.entries import Entry, NotNow, Verdict
from sagas.outbox.hand import ClientHand
from sagas.outbox.serving import OutboxRelay
from tests.kit import settled, until
from tests.outboxes import address, hand_on, held, order, shop_at, soon, started
from tests.postgres_server import Server, execute


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A relay never looks by itself: only what wakes it does."""
    monkeypatch.setattr(relay, "POLL_S", 3600.0)


@pytest.fixture
def pg(request: pytest.FixtureRequest, server: Server, tmp_path: Path) -> str:
    """A database on a server, by one driver."""
    return address(request.param, tmp_path, lambda: server)


drivers = pytest.mark.parametrize("pg", ["psycopg", "asyncpg", "psycopg_async"], indirect=True)


async def test_a_store_that_is_away_is_waited_for(any_url: str, monkeypatch: pytest.MonkeyPatch):
    """While the store refuses everything nothing is lost or set aside; then it goes on, in order."""
    away = [True]
    begin, asked = ClientHand._do, []

    async def do(hand: ClientHand, entry: Entry) -> None:
        asked.append(entry.id)
        if away[0]:
            raise StoreError("the store is away", transient=True)
        await begin(hand, entry)

    monkeypatch.setattr(ClientHand, "_do", do)
    async with shop_at(any_url) as shop, Orchestrator("memory://", sagas=[held], outboxes=[shop.outbox]) as running:
        await shop.commit(
            lambda session: shop.outbox.start(session, held, "x", id="one"),
            lambda session: shop.outbox.cancel(session, "one"),
            lambda session: shop.outbox.start(session, held, "x", id="two"),
        )
        await until(lambda: len(asked) > 4)
        assert asked.count(2) == 0, "the cancel waits for the start"
        assert await shop.waiting() == 3
        away[0] = False
        await soon(shop.empty)
        await settled(await running.get("one"), "compensated")
        assert await shop.refused() == []


async def test_a_saga_that_waits_does_not_lose_what_was_done_beside_it(any_url: str, monkeypatch: pytest.MonkeyPatch):
    """Where the store takes only some of what goes together, those are done, and the others stay."""
    hand = ClientHand.hand_on

    async def hand_one_on(self: ClientHand, entry: Entry) -> Verdict:
        if entry.saga_id == "two":
            return NotNow(StoreError("not this one"))
        return await hand(self, entry)

    monkeypatch.setattr(ClientHand, "hand_on", hand_one_on)
    async with shop_at(any_url) as shop, Orchestrator("memory://", worker=False) as running:
        ids = ("one", "two", "three")
        await shop.commit(*[lambda session, i=i: shop.outbox.start(session, order, "x", id=i) for i in ids])
        with pytest.raises(StoreError, match="not this one"):
            await hand_on(shop, running)
        assert await started(running) == ["one", "three"]
        assert await shop.waiting() == 1
        monkeypatch.undo()
        await hand_on(shop, running)
        assert await started(running) == ["one", "three", "two"]


async def test_a_file_that_is_locked_is_waited_for(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    """A relay that cannot read or write a locked file says so once, and goes on when it can."""
    path = tmp_path / "shop.db"
    async with (
        shop_at(f"sqlite:///{path}") as front,
        shop_at(f"sqlite:///{path}", connect_args={"timeout": 0.01}) as shop,
        Orchestrator("memory://", sagas=[order], outboxes=[shop.outbox]) as running,
    ):
        lock = sqlite3.connect(path, isolation_level=None)
        lock.execute("BEGIN EXCLUSIVE")
        await until(lambda: "cannot be handed on now" in caplog.text)
        lock.execute("COMMIT")
        lock.close()
        await front.commit(lambda session: front.outbox.start(session, order, "tea", id="one"))
        await soon(lambda: _is_there(running, "one"))
        assert await (await running.get("one")).result() == "tea"


async def test_a_database_that_is_away_when_a_worker_enters(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    """A worker begins without its outbox's database, as without its store's answer, and hands on once it is there."""
    folder = tmp_path / "not yet"
    async with shop_at(f"sqlite:///{tmp_path}/shop.db") as shop:
        await shop.commit(lambda session: shop.outbox.start(session, order, "tea", id="one"))
    engine = create_engine(f"sqlite:///{folder}/shop.db")
    async with Orchestrator("memory://", sagas=[order], outboxes=[Outbox(engine)]) as running:
        assert "cannot be reached yet" in caplog.text
        folder.mkdir()
        (tmp_path / "shop.db").rename(folder / "shop.db")
        await soon(lambda: _is_there(running, "one"))
    engine.dispose()


async def _is_there(running: Orchestrator, saga_id: str) -> bool:
    return saga_id in await started(running)


@drivers
@pytest.mark.usefixtures("patient")
async def test_a_notification_wakes_a_relay(pg: str, server: Server, monkeypatch: pytest.MonkeyPatch):
    """A commit of another process wakes a worker by LISTEN and NOTIFY, also after its connection was lost."""
    monkeypatch.setattr(wake, "AGAIN_S", 0.01)
    async with (
        shop_at(pg) as shop,
        shop_at(pg) as elsewhere,
        Orchestrator("memory://", sagas=[order], outboxes=[shop.outbox]) as running,
    ):
        for saga_id in ("one", "two"):
            await elsewhere.commit(lambda session, i=saga_id: elsewhere.outbox.start(session, order, "tea", id=i))
            await soon(lambda i=saga_id: _is_there(running, i))
            await soon(shop.empty)
            ended = execute(
                server.url(),
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'LISTEN %' AND datname = $1",
                pg.rpartition("/")[2],
            )
            assert len(ended) <= 1 + (saga_id == "one")


@pytest.mark.usefixtures("patient")
async def test_a_commit_in_the_same_process_wakes_a_relay(any_url: str):
    """Where sessions and worker share an outbox object, a commit wakes the worker on any database."""
    async with shop_at(any_url) as shop, Orchestrator("memory://", sagas=[order], outboxes=[shop.outbox]) as running:
        for saga_id in ("one", "two", "three"):
            await shop.commit(lambda session, i=saga_id: shop.outbox.start(session, order, "tea", id=i))
            await soon(lambda i=saga_id: _is_there(running, i))


async def test_a_pool_of_one_connection_is_enough(any_url: str):
    """The listener's connection is not the pool's, so neither a relay nor sessions starve in a small one."""
    if any_url.startswith("sqlite"):
        return
    async with (
        shop_at(any_url, pool_size=1, max_overflow=0, pool_timeout=20) as shop,
        Orchestrator("memory://", sagas=[order], outboxes=[shop.outbox]) as running,
    ):
        for number in range(5):
            await shop.commit(lambda session, i=f"{number}": shop.outbox.start(session, order, "tea", id=i))
        await soon(shop.empty)
        assert len(await started(running)) == 5


async def test_a_relay_that_died_is_taken_over(any_url: str, monkeypatch: pytest.MonkeyPatch):
    """One that dies while it hands on leaves its lease behind; another begins once that has long been the same."""
    monkeypatch.setattr(lease, "TAKEOVER_S", 0.3)
    monkeypatch.setattr(lease, "HOLD_S", 0.2)
    monkeypatch.setattr(relay, "BEAT_S", 0.05)
    async with shop_at(any_url) as shop, Orchestrator("memory://", sagas=[order], worker=False) as running:
        await shop.commit(lambda session: shop.outbox.start(session, order, "tea", id="one"))
        dying = OutboxRelay(shop.outbox, running.client)
        dying.relay._hand = Hangs()
        task = asyncio.create_task(dying.relay.run())
        await dying.relay._hand.entered.wait()
        blocked = asyncio.create_task(hand_on(shop, running))
        held_by = dying.relay._watch.held
        assert held_by is not None
        await soon(lambda: _beats(dying, held_by.beat + 3))
        assert not blocked.done(), "a living relay is left alone for as long as it takes"
        assert await started(running) == []
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        taken_over = await blocked
        assert taken_over.relay.handed == 1
        assert await started(running) == ["one"]


def _beats(of: OutboxRelay, beat: int) -> bool:
    held_now = of.relay._watch.held
    return held_now is not None and held_now.beat >= beat


class Hangs:
    """Hands on, and never comes back."""

    def __init__(self) -> None:
        self.entered = asyncio.Event()

    async def lane(self, entry: Entry) -> str:
        return "one"

    async def hand_on(self, entry: Entry) -> Verdict:
        self.entered.set()
        await asyncio.Event().wait()
        raise AssertionError
