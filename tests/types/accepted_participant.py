"""What a user's type checker infers for participants. Checked, never run."""

from datetime import timedelta
from typing import assert_type

import attrs
import sqlmodel
from sqlalchemy import Engine
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_scoped_session
from sqlalchemy.orm import Session, scoped_session
from sqlmodel.ext.asyncio.session import AsyncSession as SQLModelAsyncSession

from sagas import DidNotHappen, Happened, participant
from sagas.participant import happened, once, undo


@attrs.frozen
class Receipt:
    """What a step answers."""

    id: str


@attrs.frozen
class Refund:
    """What an undo answers."""

    id: str


def plain(session: Session, model: sqlmodel.Session, scoped: scoped_session[Session], key: str) -> Receipt:
    """With sessions of SQLAlchemy and SQLModel; a block swallows no exception, so it may end in a return."""
    with once(session, key, request={"a": 1}, answer=Receipt) as call:
        if call.first:
            call.answer = Receipt("r")
        assert_type(call.first, bool)
        assert_type(call.answer, Receipt)
    with once(model, key, request=None, answer=Receipt) as again:
        assert_type(again.answer, Receipt)
    with once(scoped, key, request=None) as nothing:
        assert_type(nothing.first, bool)
    with once(session, key, request=None, answer=Receipt | None) as maybe:
        maybe.answer = None
    with undo(session, key, of="step", answer=Refund) as undone:
        assert_type(undone.answer, Refund | None)
        if undone.first and undone.step is not None:
            undone.answer = Refund("r")
    with undo(session, key, of="step", answer=Refund, step=Receipt) as typed:
        assert_type(typed.step, Receipt | None)
    with undo(session, key, of="step"):
        pass
    assert_type(happened(session, key, answer=Receipt), Happened[Receipt] | DidNotHappen)
    with once(session, key, request=None, answer=Receipt) as last:
        return last.answer


async def later(
    session: AsyncSession, model: SQLModelAsyncSession, scoped: async_scoped_session[AsyncSession], key: str
) -> Receipt:
    """With asyncio."""
    async with once(session, key, request={"a": 1}, answer=Receipt) as call:
        assert_type(call.answer, Receipt)
    async with once(scoped, key, request={"a": 1}, answer=Receipt) as again:
        assert_type(again.answer, Receipt)
    async with undo(model, key, of="step", answer=Refund, step=Receipt) as typed:
        assert_type(typed.answer, Refund | None)
        assert_type(typed.step, Receipt | None)
    assert_type(await happened(session, key, answer=Receipt), Happened[Receipt] | DidNotHappen)
    assert_type(await participant.purge(session, older_than=timedelta(days=90)), int)
    async with once(session, key, request=None, answer=Receipt) as last:
        return last.answer


async def tables(engine: Engine, later: AsyncEngine, session: Session) -> None:
    """Making the table, and emptying it."""
    participant.create_tables(engine)
    await participant.create_tables(later)
    assert_type(participant.purge(session, older_than=3600), int)
