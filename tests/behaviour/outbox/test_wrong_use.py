"""What is wrong is refused at once, before anything is added, in words that say what to do."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import StaticPool, create_engine
from sqlalchemy.orm import scoped_session, sessionmaker
from sqlmodel import Session

from sagas import DefinitionError, Orchestrator, PayloadError, Saga, blocking, saga, step
from sagas.outbox import Outbox
from tests.outboxes import done, hand_on, order, shop_at, started


@step
async def no_way_back() -> None: ...


@saga("faulty", version=1)
async def faulty(s: Saga) -> None:
    await s.run(no_way_back)


@saga("loose", version=2)
async def loose(s: Saga, what: object, *, how: str = "") -> None: ...


WRONG: dict[str, tuple[type[DefinitionError | PayloadError], str, Any]] = {
    "a name": (DefinitionError, "saga itself", lambda o, s: o.start(s, "order", "tea")),
    "no saga": (DefinitionError, "saga itself", lambda o, s: o.start(s, no_way_back)),
    "a fault": (DefinitionError, "no_way_back", lambda o, s: o.start(s, faulty)),
    "too few arguments": (DefinitionError, "cannot be called", lambda o, s: o.start(s, order)),
    "an unknown argument": (DefinitionError, "memo", lambda o, s: o.start(s, order, "tea", memo={"a": "b"})),
    "a value": (PayloadError, "object", lambda o, s: o.start(s, loose, object())),
    "a wrong type": (PayloadError, "parameter 'what' must be str, and got int", lambda o, s: o.start(s, order, 7)),
    "another version": (DefinitionError, "v2", lambda o, s: o.start(s, loose, 1, version=1)),
    "a slash": (DefinitionError, "id", lambda o, s: o.start(s, order, "tea", id="a/b")),
    "an empty id": (DefinitionError, "id", lambda o, s: o.start(s, order, "tea", id="")),
    "a deadline": (DefinitionError, "deadline", lambda o, s: o.start(s, order, "tea", deadline=-1)),
    "a trace": (DefinitionError, "trace", lambda o, s: o.start(s, order, "tea", trace="no")),
    "no callback": (DefinitionError, "token", lambda o, s: o.complete_callback(s, value=1)),
    "a half callback": (DefinitionError, "token", lambda o, s: o.complete_callback(s, saga_id="a", value=1)),
    "both": (DefinitionError, "token", lambda o, s: o.fail_callback(s, "t", saga_id="a", name="b")),
    "no answer": (PayloadError, "object", lambda o, s: o.complete_callback(s, "t", object())),
    "no text": (PayloadError, "actor", lambda o, s: o.complete_callback(s, "t", 1, actor=3)),
    "half a pair": (PayloadError, "surrogate", lambda o, s: o.cancel(s, "a", reason="\ud800")),
    "no id": (DefinitionError, "id", lambda o, s: o.cancel(s, 7)),
    "no session": (DefinitionError, "Session", lambda o, s: o.start(None, order, "tea")),
    "an engine": (DefinitionError, "Session", lambda o, s: o.start(o.database.engine, order, "tea")),
}


@pytest.mark.parametrize("what", WRONG)
def test_nothing_is_added(what: str):
    """Each wrong call raises by itself, and neither changes the session nor begins its transaction."""
    kind, words, act = WRONG[what]
    engine = create_engine("sqlite://")
    outbox = Outbox(engine)
    with Session(engine) as session:
        with pytest.raises(kind, match=words) as refused:
            act(outbox, session)
        assert refused.value.message.endswith("Nothing was added")
        assert refused.value.message.lower().count("nothing was") == 1
        assert not session.new
        assert not session.in_transaction()
    engine.dispose()


async def test_a_session_of_another_engine(any_url: str, tmp_path: Path):
    """A row that would go to another database than the one that is handed on is refused; so is one to none."""
    other = create_engine(f"sqlite:///{tmp_path}/other.db")
    async with shop_at(any_url) as shop:
        for session in (Session(other), Session()):
            with pytest.raises(DefinitionError, match="Outbox of the session's engine"):
                shop.outbox.start(session, order, "tea")
            assert not session.new
    other.dispose()


def test_a_session_without_a_transaction(tmp_path: Path):
    """Where a session begins none by itself, or commits each statement, there is nothing to be part of."""
    engine = create_engine(f"sqlite:///{tmp_path}/shop.db")
    outbox = Outbox(engine)
    outbox.create_tables()
    with Session(engine, autobegin=False) as session:
        with pytest.raises(DefinitionError, match=r"session.begin\(\)"):
            outbox.start(session, order, "tea")
        with session.begin():
            outbox.start(session, order, "tea")
    assert outbox.stats().waiting == 1
    loose_engine = engine.execution_options(isolation_level="AUTOCOMMIT")
    with Session(loose_engine) as session, pytest.raises(DefinitionError, match="AUTOCOMMIT"):
        outbox.start(session, order, "tea")
    own = create_engine(f"sqlite:///{tmp_path}/shop.db", isolation_level="AUTOCOMMIT")
    with Session(own) as session, pytest.raises(DefinitionError, match="AUTOCOMMIT"):
        Outbox(own).start(session, order, "tea")
    engine.dispose()
    own.dispose()


async def test_sessions_of_a_web_application(any_url: str):
    """A registry of sessions, as of Flask-SQLAlchemy, stands for its session; so do options of the engine."""
    async with shop_at(any_url) as shop:
        if not shop.is_async:
            scoped = scoped_session(sessionmaker(shop.engine.execution_options(logging_token="web")))
            shop.outbox.start(scoped, order, "tea")
            scoped.commit()
            scoped.remove()
            assert await shop.waiting() == 1


async def test_tables_that_do_not_exist(any_url: str):
    """Neither a commit nor a worker goes on without the tables, and both say how to create them."""
    async with shop_at(any_url) as shop:
        await done(_drop(shop))
        async with shop.opened() as session:
            shop.outbox.start(session, order, "tea")
            with pytest.raises(DefinitionError, match="create_tables"):
                await done(session.commit())
            await done(session.rollback())
        with pytest.raises(DefinitionError, match="create_tables"):
            await shop.refused()
        running = Orchestrator("memory://", outboxes=[shop.outbox])
        with pytest.raises(DefinitionError, match="create_tables"):
            await running.__aenter__()
        await done(shop.outbox.create_tables())
        await done(shop.outbox.create_tables())
        async with running:
            assert await shop.refused() == []


async def _drop(shop: Any) -> None:
    metadata = shop.outbox.metadata
    if shop.is_async:
        async with shop.engine.begin() as connection:
            await connection.run_sync(metadata.drop_all)
    else:
        metadata.drop_all(shop.engine)


async def test_outboxes_of_an_orchestrator(any_url: str):
    """Only a worker hands on, each outbox once, and only an outbox."""
    async with shop_at(any_url) as shop:
        for wrong, words, options in (
            ([shop.outbox], "worker=False", {"worker": False}),
            ([shop.outbox, shop.outbox], "twice", {}),
            ([shop.outbox, Outbox(shop.engine)], "twice", {}),
            ([shop.engine], "no outbox", {}),
        ):
            with pytest.raises(DefinitionError, match=words):
                Orchestrator("memory://", outboxes=wrong, **options)


def test_a_database_that_a_relay_cannot_share():
    """SQLite in memory is one connection, or another database for each thread: sessions may use it, relays not."""
    for engine in (create_engine("sqlite://"), create_engine("sqlite://", poolclass=StaticPool)):
        with pytest.raises(DefinitionError, match="file or a server"):
            Orchestrator("memory://", outboxes=[Outbox(engine)])
        engine.dispose()
    with pytest.raises(DefinitionError, match="create_engine"):
        Outbox("sqlite:///shop.db")  # type: ignore[type-var]


async def test_two_outboxes_of_one_database(url: str):
    """Several objects may stand for one outbox: what one adds the other hands on."""
    async with shop_at(url) as shop, Orchestrator("memory://", worker=False) as running:
        other = Outbox(shop.engine)
        await shop.commit(lambda session: other.start(session, order, "tea", id="one"))
        await hand_on(shop, running)
        assert await started(running) == ["one"]


def test_programs_without_an_event_loop(tmp_path: Path):
    """``sagas.blocking.Orchestrator`` takes outboxes as well."""
    engine = create_engine(f"sqlite:///{tmp_path}/shop.db")
    outbox = Outbox(engine)
    outbox.create_tables()
    with blocking.Orchestrator(f"sqlite:///{tmp_path}/sagas.db", sagas=[order], outboxes=[outbox]) as running:
        direct = running.start(order, "tea", id="one")
        assert direct.result(timeout=60) == "tea"
        with Session(engine) as session:
            outbox.start(session, order, "tea", id="one")
            outbox.start(session, order, "coffee", id="two")
            session.commit()
        second = running.start(order, "coffee", id="two")
        assert second.result(timeout=60) == "coffee"
    engine.dispose()


def test_a_program_without_greenlet():
    """Plain sessions need nothing of SQLAlchemy's asyncio part, which the base install does not have."""
    code = """
import sys
sys.modules["greenlet"] = None
from sqlmodel import Session, create_engine
from sagas.outbox import Outbox
engine = create_engine("sqlite://")
outbox = Outbox(engine)
outbox.create_tables()
with Session(engine) as session:
    outbox.cancel(session, "one")
    session.commit()
print(outbox.stats().waiting)
"""
    done_ = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done_.stdout == "1\n"
