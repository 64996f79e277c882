"""What a user's type checker must refuse about participants. Checked, never run; as in ``refused.py``."""

import attrs
from sqlalchemy import Engine
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from sagas.participant import happened, once, undo


@attrs.frozen
class Receipt:
    """What a step answers."""

    id: str


@attrs.frozen
class Refund:
    """What an undo answers."""

    id: str


def wrong_answers(session: Session) -> None:
    """An answer has the declared type."""
    with once(session, "key", request=1, answer=Receipt) as call:
        # error: mypy[assignment] pyright[reportAttributeAccessIssue]
        call.answer = Refund("r")
        # error: mypy[misc] pyright[reportAttributeAccessIssue]
        call.first = True
    with undo(session, "key", of="step", answer=Refund, step=Receipt) as undone:
        # error: mypy[union-attr] pyright[reportOptionalMemberAccess]
        undone.step.id.upper()
        # error: mypy[assignment] pyright[reportAttributeAccessIssue]
        undone.answer = Receipt("r")
    # error: mypy[union-attr] pyright[reportAttributeAccessIssue]
    happened(session, "key", answer=Receipt).value.id.upper()


def wrong_sessions(engine: Engine, session: Session) -> None:
    """A session, and not an engine; and its kind decides between ``with`` and ``async with``."""
    # error: mypy[call-overload] pyright[reportArgumentType, reportCallIssue]
    once(engine, "key", request=1, answer=Receipt)
    # error: mypy[call-overload] pyright[reportCallIssue]
    once(session, "key", answer=Receipt)
    # error: mypy[call-overload] pyright[reportCallIssue]
    undo(session, "key", answer=Receipt)


async def wrong_blocks(session: AsyncSession) -> None:
    """As above."""
    # error: mypy[attr-defined] pyright[reportGeneralTypeIssues]
    with once(session, "key", request=1, answer=Receipt):
        pass
