"""What the block of a call may do: answers, exceptions, commits, and what is stored then."""

import asyncio
import contextlib
import subprocess
import sys
from collections.abc import Callable
from datetime import date
from typing import Any

import attrs
import pytest
from sqlalchemy import create_engine, func, select, text
from sqlalchemy.dialects import mysql
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session, registry, scoped_session, sessionmaker
from sqlalchemy.schema import CreateTable

from sagas import (
    DefinitionError,
    DidNotHappen,
    Happened,
    KeyReused,
    PayloadError,
    SagasError,
    StoreError,
    Undone,
    participant,
)
from sagas.participant import happened, once, rows, undo
from sagas.participant.rules import Record
from sagas.participant.table import TABLE
from tests.behaviour.participant.parties import DEADLINE_S, EFFECTS, Base, Receipt, Refund


@attrs.frozen
class Order:
    """A request."""

    id: str
    on: date
    tags: dict[str, int]


@registry().mapped
class Effect:
    """A row of the table, for sessions that write when they are flushed."""

    __table__ = EFFECTS


def stored(session: Session) -> int:
    """How many keys are stored, as this session sees it."""
    return session.execute(select(func.count()).select_from(TABLE)).scalar_one()


def effect(session: Session, key: str = "step") -> None:
    """Do something in the transaction."""
    session.execute(EFFECTS.insert().values(key=key, by=1))


def do(session: Session, key: str = "step", request: object = "r", number: int = 1) -> bool:
    """One call; tells whether it was the first."""
    with once(session, key, request=request, answer=Receipt) as call:
        if call.first:
            effect(session, key)
            call.answer = Receipt(number)
        return call.first


def in_block(session: Session, act: Callable[[], object]) -> None:
    """Do so in the block of a first call, which has its answer already."""
    with once(session, "step", request="r", answer=Receipt) as call:
        call.answer = Receipt(1)
        act()


def fails(*_: object) -> None:
    """A block that raises."""
    raise BlockFailed


class BlockFailed(Exception):
    """Raised by a block."""


def test_a_request_is_compared_as_a_whole(plain: Base):
    """Equal requests are equal whatever the order of their keys; another one under the same key is refused."""
    session = plain.session()
    assert do(session, request=Order("o", date(2026, 1, 1), {"a": 1, "b": 2}))
    assert not do(session, request=Order("o", date(2026, 1, 1), {"b": 2, "a": 1}))
    assert not do(session, request={"tags": {"a": 1, "b": 2}, "on": "2026-01-01", "id": "o"})
    with pytest.raises(
        KeyReused, match=r"'step' was first used for the request \{.*2026-01-01.*\}, and now for"
    ) as told:
        do(session, request=Order("o", date(2026, 1, 2), {"a": 1, "b": 2}))
    assert told.value.key == "step"
    assert told.value.code == "SG007"
    assert plain.net("step") == 0
    session.commit()
    assert plain.net("step") == 1


def test_a_key_is_for_one_purpose(plain: Base):
    """A step's key is no undo's key and the other way round, nor is an undo undone or asked about."""
    session = plain.session()
    do(session)
    with undo(session, "undo", of="step", answer=Refund):
        pass
    calls: list[Callable[[], object]] = [
        lambda: undo(session, "step", of="another").__enter__(),
        lambda: undo(session, "undo", of="another").__enter__(),
        lambda: once(session, "undo", request="r").__enter__(),
        lambda: undo(session, "undo of undo", of="undo").__enter__(),
        lambda: happened(session, "undo"),
    ]
    for call in calls:
        with pytest.raises(KeyReused, match="was used for"):
            call()
    assert stored(session) == 2
    with pytest.raises(DefinitionError, match="needs a key of its own"):
        undo(session, "same", of="same")


@pytest.mark.parametrize("ending", ["commit", "rollback"])
def test_a_block_that_raises_leaves_nothing(plain: Base, ending: str):
    """Neither the call nor what its block did is stored, even if the caller commits; what came before it is kept."""
    session = plain.session()
    effect(session, "before")
    with pytest.raises(BlockFailed):
        in_block(session, lambda: fails(effect(session)))
    with pytest.raises(BlockFailed), undo(session, "undo", of="barred"):
        fails()
    getattr(session, ending)()
    assert stored(session) == 0
    assert plain.net("step") == 0
    assert plain.net("before") == int(ending == "commit")
    assert do(session)
    assert do(session, "barred")


def test_an_error_of_the_database_in_a_block(plain: Base):
    """The database's own error leaves the block, nothing is stored, and the transaction can still be used."""
    session = plain.session()
    effect(session, "before")
    with pytest.raises(Exception, match="no_such_table"):
        in_block(session, lambda: session.execute(text("SELECT * FROM no_such_table")))
    assert do(session)
    session.commit()
    assert (plain.net("before"), plain.net("step")) == (1, 1)


def test_an_error_of_the_database_that_a_block_swallows(postgres: Base):
    """PostgreSQL then refuses all that follows: so does the end of the block; what came before the block is kept."""
    session = postgres.session()
    effect(session, "before")

    def swallows() -> None:
        with contextlib.suppress(DBAPIError):
            session.execute(text("SELECT * FROM no_such_table"))

    with pytest.raises(DBAPIError, match="aborted"):
        in_block(session, swallows)
    session.commit()
    assert (stored(session), postgres.net("before")) == (0, 1)


def test_a_transaction_that_the_database_has_forgotten(file: Base):
    """As MySQL does after a deadlock: what comes after it must not be committed alone."""
    session = file.session()
    effect(session, "before")
    with pytest.raises(StoreError, match="cannot see how that ended"):
        in_block(session, lambda: session.connection().exec_driver_sql("ROLLBACK"))
    effect(session, "after")
    with pytest.raises(StoreError, match="so has its transaction") as told:
        session.commit()
    assert told.value.transient
    session.rollback()
    assert do(session)
    session.commit()
    assert [file.net(key) for key in ("before", "after", "step")] == [0, 0, 1]


def test_a_connection_that_is_lost_in_a_block(postgres: Base):
    """The block's own error is raised, says that the transaction is dead, and the transaction cannot be committed."""
    session = postgres.session()

    def cut() -> None:
        pid = session.execute(text("SELECT pg_backend_pid()")).scalar_one()
        with postgres.engine.connect() as other:
            other.execute(select(func.pg_terminate_backend(pid)))
        while True:
            session.execute(text("SELECT 1"))

    with pytest.raises(DBAPIError) as told:
        in_block(session, cut)
    assert "cannot be used any more" in told.value.__notes__[0]
    with pytest.raises(StoreError, match="so has its transaction"):
        session.commit()
    session.rollback()
    assert do(session)


def test_a_flush_that_fails_at_the_end_of_a_block(plain: Base):
    """What only fails when the block is left leaves nothing either."""
    session = plain.session()
    session.execute(EFFECTS.insert().values(id=1, key="taken"))
    with pytest.raises(IntegrityError):
        in_block(session, lambda: session.add(Effect(id=1, key="step")))
    session.commit()
    assert stored(session) == 0


def test_a_missing_answer(plain: Base):
    """A first call without an answer is refused where its type does not admit None, and stores None where it does."""
    session = plain.session()
    with (
        pytest.raises(DefinitionError, match="Receipt does not admit None"),
        once(session, "step", request="r", answer=Receipt),
    ):
        effect(session)
    assert stored(session) == 0
    for number, declared in enumerate((None, type(None), Receipt | None, Any)):
        for first in (True, False):
            with once(session, f"step {number}", request="r", answer=declared) as call:
                assert call.first is first
        assert call.answer is None


def test_an_answer_is_of_its_type(plain: Base):
    """A value of another type is refused at the end of the block, and reading a stored one as another type as well."""
    session = plain.session()
    for wrong in ("text", Refund(1), object(), float("nan")):
        with pytest.raises(PayloadError), once(session, "step", request="r", answer=Receipt) as call:
            call.answer = wrong  # type: ignore[assignment]
    with pytest.raises(PayloadError), once(session, "step", request="r", answer=str) as call:
        call.answer = "x" * 2_000_000
    with pytest.raises(PayloadError), once(session, "step", request=object(), answer=str):
        pass
    assert stored(session) == 0
    do(session)
    with pytest.raises(PayloadError, match="cannot be read as"), once(session, "step", request="r", answer=Refund):
        pass
    with pytest.raises(PayloadError):
        happened(session, "step", answer=Refund)
    with pytest.raises(PayloadError), undo(session, "undo", of="step", step=Refund):
        pass
    assert stored(session) == 1


def test_an_answer_is_set_once_and_read_after(plain: Base):
    """Read before it is set, or set on a repeat: both are refused."""
    session = plain.session()
    with once(session, "step", request="r", answer=Receipt) as call:
        with pytest.raises(DefinitionError, match="has no answer yet"):
            _ = call.answer
        call.answer = Receipt(1)
        assert call.answer == Receipt(1)
    with (
        pytest.raises(DefinitionError, match="is a repeat"),
        once(session, "step", request="r", answer=Receipt) as call,
    ):
        call.answer = Receipt(2)


def test_the_step_s_answer_is_read_as_what_it_was(plain: Base):
    """An undo finds the step's answer as its class, as the type that it names, or as plain JSON."""

    @attrs.frozen
    class Local:
        id: int

    session = plain.session()
    do(session, number=3)
    with once(session, "local", request="r", answer=Local) as call:
        call.answer = Local(4)
    with once(session, "many", request="r", answer=list[Receipt]) as many:
        many.answer = [Receipt(5)]
    expected: list[tuple[str, dict[str, Any], object]] = [
        ("step", {}, Receipt(3)),
        ("step", {"answer": Refund}, Receipt(3)),
        ("step", {"step": dict[str, int]}, {"id": 3}),
        ("local", {"answer": Local}, Local(4)),
        ("local", {"step": Local}, Local(4)),
        ("local", {}, {"id": 4}),
        ("many", {"answer": list[Receipt]}, [Receipt(5)]),
        ("many", {}, [{"id": 5}]),
    ]
    for number, (step, options, answer) in enumerate(expected):
        with undo(session, f"undo {number}", of=step, **options) as undone:
            assert undone.step == answer


def test_a_commit_within_a_block_is_refused(plain: Base):
    """It would store a call without its answer; a savepoint of one's own is fine."""
    session = plain.session()
    for end in (session.commit, lambda: (session.begin_nested(), session.commit())):
        with pytest.raises(DefinitionError, match="commit after its block"):
            in_block(session, end)
        session.rollback()
    assert stored(session) == 0
    with once(session, "step", request="r", answer=Receipt) as call:
        with session.begin_nested():
            effect(session)
        call.answer = Receipt(1)
    session.commit()
    assert (stored(session), plain.net("step")) == (1, 1)


def test_a_rollback_within_a_block_is_refused(plain: Base):
    """The key is gone then: the end of the block says so, and nothing is stored."""
    session = plain.session()
    with pytest.raises(DefinitionError, match="rolled back within its block"):
        in_block(session, session.rollback)
    session.commit()
    assert stored(session) == 0
    assert do(session)


def test_an_undo_that_is_seen_too_late(plain: Base, monkeypatch: pytest.MonkeyPatch):
    """Where an insert does not wait for an update of the row that it meets, marking the step as undone decides."""
    session = plain.session()
    do(session)
    with undo(session, "undo 1", of="step", answer=Refund) as first:
        first.answer = Refund(1)
    claim = rows.Rows.claim

    def sees_the_past(self: rows.Rows, record: Record) -> Record | None:
        found = claim(self, record)
        return None if found is None else attrs.evolve(found, undone_by=None)

    monkeypatch.setattr(rows.Rows, "claim", sees_the_past)
    with undo(session, "undo 2", of="step", answer=Refund) as second:
        assert not second.first
        assert second.answer == Refund(1)


def test_a_call_within_itself_is_refused(plain: Base):
    """The same key within its own block has no answer yet."""
    session = plain.session()
    with once(session, "step", request="r", answer=Receipt) as call:
        for within in (
            lambda: once(session, "step", request="r", answer=Receipt).__enter__(),
            lambda: undo(session, "undo", of="step").__enter__(),
            lambda: happened(session, "step", answer=Receipt),
        ):
            with pytest.raises(DefinitionError, match="has not ended"):
                within()
        assert do(session, "another")
        call.answer = Receipt(1)
    session.commit()
    assert stored(session) == 2


@pytest.mark.parametrize("key", ["", " ", " a", "a\n", "a\0", "\ud800", "k" * 256, None, 7, b"key"])
def test_a_key_that_is_none(file: Base, key: Any):
    """A key that a database would change or refuse is refused before anything happens."""
    session = file.session()
    for call in (
        lambda: once(session, key, request="r"),
        lambda: undo(session, key, of="step"),
        lambda: undo(session, "undo", of=key),
        lambda: happened(session, key),
    ):
        with pytest.raises(DefinitionError, match="printable characters"):
            call()


def test_keys_that_differ_little(plain: Base):
    """Case, accents and other scripts make another key; the longest is taken."""
    session = plain.session()
    keys = ["key", "KEY", "kéy", "ké́y", "鍵", "🔑", "a b", "k" * 255]
    assert all(do(session, key) for key in keys)
    session.commit()
    assert not any(do(session, key) for key in keys)


def test_a_session_that_commits_each_statement(file: Base):
    """AUTOCOMMIT is refused; what is no session as well."""
    engine = create_engine(file.url, execution_options={"isolation_level": "AUTOCOMMIT"})
    with Session(engine) as session, pytest.raises(DefinitionError, match="AUTOCOMMIT"):
        do(session)
    engine.dispose()
    for wrong in (file.engine, None, "session"):
        with pytest.raises(DefinitionError, match="not a session"):
            once(wrong, "key", request="r")  # type: ignore[call-overload]


def test_a_scoped_session(file: Base):
    """A scoped session stands for the one of its scope."""
    scoped = scoped_session(sessionmaker(file.engine))
    with once(scoped, "step", request="r", answer=Receipt) as call:
        call.answer = Receipt(1)
    scoped.commit()
    assert happened(scoped, "step", answer=Receipt) == Happened(Receipt(1))
    assert happened(scoped, "other", answer=Receipt) == DidNotHappen()
    scoped.remove()


def test_a_transaction_that_cannot_see_the_other(postgres: Base):
    """Under REPEATABLE READ a row that came later than the snapshot is a conflict, which says to repeat the request."""
    one, other = postgres.session(), postgres.session()
    other.connection(execution_options={"isolation_level": "REPEATABLE READ"})
    assert other.execute(select(func.count()).select_from(EFFECTS)).scalar_one() == 0
    assert do(one)
    one.commit()
    with pytest.raises(StoreError, match="Roll back and repeat") as told:
        do(other)
    assert told.value.transient
    other.rollback()
    assert not do(other)


async def test_a_transaction_that_cannot_see_the_other_with_asyncio(postgres: Base):
    """The same over asyncpg; and so is a deadlock, of which one call at least is told."""
    url, options = postgres.async_url
    engine = create_async_engine(url, connect_args=options)
    async with AsyncSession(engine) as one, AsyncSession(engine) as other:
        await other.connection(execution_options={"isolation_level": "REPEATABLE READ"})
        await other.execute(select(func.count()).select_from(EFFECTS))
        async with once(one, "step", request="r", answer=Receipt) as call:
            call.answer = Receipt(1)
        await one.commit()
        with pytest.raises(StoreError, match="Roll back and repeat"):
            await once(other, "step", request="r", answer=Receipt).__aenter__()

    taken = [asyncio.Event(), asyncio.Event()]

    async def crosses(mine: int, theirs: int) -> object:
        async with AsyncSession(engine) as session:
            await happened(session, f"key {mine}")
            taken[mine].set()
            await taken[theirs].wait()
            try:
                return await happened(session, f"key {theirs}")
            except StoreError as error:
                return error.transient

    assert True in await asyncio.gather(crosses(0, 1), crosses(1, 0))
    await engine.dispose()


async def test_a_query_that_is_cancelled(postgres: Base):
    """A timeout in the middle of a query leaves nothing, and is raised as a timeout."""
    url, options = postgres.async_url
    engine = create_async_engine(url, connect_args=options)
    began = asyncio.Event()

    async def hangs() -> None:
        async with AsyncSession(engine) as session, once(session, "step", request="r", answer=Receipt):
            began.set()
            await session.execute(text("SELECT pg_sleep(600)"))

    task = asyncio.create_task(hangs())
    await began.wait()
    await asyncio.to_thread(postgres.sleeping)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    async with AsyncSession(engine) as session:
        assert await happened(session, "step", answer=Receipt) == DidNotHappen()
    await engine.dispose()


def test_a_busy_file(file: Base):
    """Where SQLite's patience ends, or a read came before another's write, the error says to repeat the request."""
    engine = create_engine(file.url, connect_args={"timeout": 0.05})
    one = file.session()
    assert do(one)
    with Session(engine) as other:
        with pytest.raises(StoreError, match="Roll back and repeat") as told:
            do(other)
        assert told.value.transient
        other.rollback()
        one.commit()
        assert not do(other)
    engine.dispose()


@pytest.mark.parametrize("statements", [{}, None], ids=["savepoint", "own"])
def test_every_way_to_insert(plain: Base, monkeypatch: pytest.MonkeyPatch, statements: dict[str, Any] | None):
    """Databases without a statement of their own use a savepoint, and come to the same."""
    if statements is not None:
        monkeypatch.setattr(rows, "INSERT_OR_NOTHING", statements)
    session = plain.session()
    assert do(session)
    session.commit()
    other = plain.session()
    effect(other, "kept")
    assert not do(other)
    other.commit()
    assert (plain.net("step"), plain.net("kept")) == (1, 1)
    with undo(other, "undo", of="late") as call:
        assert call.first
    with pytest.raises(Undone):
        do(other, "late")


def test_statements_for_mysql():
    """There, an insert ignores what it finds, a read locks, and keys differ where their bytes do."""
    dialect = mysql.dialect()  # type: ignore[no-untyped-call]
    assert str(rows.INSERT_OR_NOTHING["mysql"].compile(dialect=dialect)).startswith(
        "INSERT IGNORE INTO sagas_participant"
    )
    table = str(CreateTable(TABLE).compile(dialect=dialect))
    assert table.count("COLLATE utf8mb4_bin") == 3
    assert "MEDIUMBLOB" in table or "BLOB(16777215)" in table


def test_old_keys_are_forgotten(plain: Base):
    """The oldest go first, as many as are wanted, and only those that are old enough; they protect no more."""
    session = plain.session()
    for key in ("a", "b", "c"):
        do(session, key)
    session.execute(TABLE.update().where(TABLE.c.key != "c").values(at_ns=TABLE.c.at_ns - 3_600_000_000_000))
    assert participant.purge(session, older_than=7200) == 0
    assert participant.purge(session, older_than=1800, limit=1) == 1
    assert stored(session) == 2
    assert participant.purge(session, older_than=1800) == 1
    assert participant.purge(session, older_than=1800) == 0
    assert do(session, "a")
    assert not do(session, "c")
    assert participant.purge(session, older_than=0) == 2
    session.commit()
    for wrong in ({"older_than": -1}, {"older_than": 1, "limit": 0}, {"older_than": 1, "limit": True}):
        with pytest.raises(DefinitionError):
            participant.purge(session, **wrong)  # type: ignore[arg-type]


def test_an_undo_of_a_step_that_was_forgotten(plain: Base):
    """It finds nothing to undo: so keys are kept longer than any saga lives."""
    session = plain.session()
    do(session)
    assert participant.purge(session, older_than=0) == 1
    with undo(session, "undo", of="step") as call:
        assert call.first
        assert call.step is None


def test_tables_are_made_once(plain: Base):
    """Making them again changes nothing; they are in the participant's own metadata."""
    do(session := plain.session())
    session.commit()
    participant.create_tables(plain.engine)
    assert stored(session) == 1
    assert set(participant.metadata.tables) == {"sagas_participant"}


def test_errors_are_sagas_errors():
    """Both are caught by `except SagasError`."""
    assert issubclass(KeyReused, SagasError)
    assert issubclass(Undone, SagasError)


def test_without_greenlet():
    """Without SQLAlchemy's asyncio, which needs greenlet, plain sessions work."""
    program = """
import sys
sys.modules["greenlet"] = None
from sqlalchemy import create_engine
from sqlalchemy.orm import Session
from sagas import participant
engine = create_engine("sqlite://")
participant.create_tables(engine)
with Session(engine) as session, participant.once(session, "key", request=1, answer=int) as call:
    call.answer = 7
print(call.answer)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert (done.stderr, done.stdout) == ("", "7\n")


async def test_a_cancelled_block(tmp_path: Any):
    """A task that is cancelled within a block leaves nothing, and stays cancelled."""
    engine = create_async_engine(f"sqlite+aiosqlite:///{tmp_path}/p.db", connect_args={"timeout": DEADLINE_S})
    await participant.create_tables(engine)
    await participant.create_tables(engine)
    entered = asyncio.Event()

    async def hangs() -> None:
        async with AsyncSession(engine) as session, once(session, "step", request="r", answer=Receipt):
            entered.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(hangs())
    await entered.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    async with AsyncSession(engine) as session:
        assert await happened(session, "step", answer=Receipt) == DidNotHappen()
        assert await participant.purge(session, older_than=0) == 1
    await engine.dispose()
