"""What a user's type checker infers of an outbox. Checked, never run."""

from typing import assert_type

from sqlalchemy import Engine, create_engine
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine
from sqlalchemy.orm import Session

from sagas import Orchestrator, Saga, saga
from sagas.outbox import Outbox, OutboxStats, RefusedEntry


@saga("order", version=1)
async def order(s: Saga, what: str, amount: int = 1) -> str:
    """With an argument that may be left out."""
    return what * amount


def plain(session: Session) -> None:
    """With an engine all calls are plain."""
    outbox = Outbox(create_engine("sqlite://"))
    assert_type(outbox, Outbox[Engine])
    assert_type(outbox.start(session, order, "tea", 2), str)
    assert_type(outbox.start(session, order, "tea", id="one", deadline=60), str)
    assert_type(outbox.start(session, order, what="tea", amount=2), str)
    assert_type(outbox.create_tables(), None)
    assert_type(outbox.refused(), list[RefusedEntry])
    assert_type(outbox.stats(), OutboxStats)
    assert_type(outbox.retry(1, 2), int)
    Orchestrator("memory://", sagas=[order], outboxes=[outbox])


async def asynchronous(session: AsyncSession) -> None:
    """With an asynchronous engine, what asks the database is awaited, and what adds to a session is plain."""
    outbox = Outbox(create_async_engine("sqlite+aiosqlite://"))
    assert_type(outbox, Outbox[AsyncEngine])
    assert_type(outbox.start(session, order, "tea"), str)
    outbox.cancel(session, "one", reason="why")
    outbox.complete_callback(session, "token", {"ok": True})
    await outbox.create_tables()
    assert_type(await outbox.refused(), list[RefusedEntry])
    assert_type(await outbox.stats(), OutboxStats)
    assert_type(await outbox.drop(1), int)
    Orchestrator("memory://", sagas=[order], outboxes=[outbox])
