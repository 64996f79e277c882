"""Forgetting old keys, so that the table does not grow for ever."""

from collections.abc import Coroutine
from typing import Any, overload

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from durable_core import DefinitionError
from durable_core.layer import Duration, duration, shown, to_ns
from sagas.participant.rows import CLOCK, Rows
from sagas.participant.sessions import Async, Plain, session_of
from sagas.participant.table import TABLE

BATCH = 1_000


@overload
def purge(session: Plain, *, older_than: Duration, limit: int = BATCH) -> int: ...
@overload
def purge(session: Async, *, older_than: Duration, limit: int = BATCH) -> Coroutine[Any, Any, int]: ...
def purge(session: Any, *, older_than: Duration, limit: int = BATCH) -> Any:
    """Forget keys that were first used longer ago, the oldest first; returns how many.

    To be awaited with an ``AsyncSession``. Durable once the caller commits; repeat it until it returns 0.

    What is forgotten protects no more: a call that comes later still is first again, an undo finds that the step never
    came and undoes nothing. So keep keys longer than any saga may live that calls this participant, until its undo.

    Args:
        session: as for ``once``.
        older_than: how long keys are kept; a timedelta or seconds.
        limit: how many to forget at most, so that a transaction stays short.

    Raises:
        DefinitionError: ``older_than`` is no duration, or ``limit`` is no whole number from 1.
    """
    if type(limit) is not int or limit < 1:
        raise DefinitionError(f"purge(limit={shown(limit)}): give a whole number from 1. Nothing was changed")
    before_ns = CLOCK.now_ns() - to_ns(duration(older_than, "older_than"))

    def forget(plain: Session) -> int:
        connection = Rows.of(plain).connection
        old = select(TABLE.c.key).where(TABLE.c.at_ns <= before_ns).order_by(TABLE.c.at_ns, TABLE.c.key).limit(limit)
        keys = connection.execute(old).scalars().all()
        return connection.execute(delete(TABLE).where(TABLE.c.key.in_(keys))).rowcount if keys else 0

    found = session_of(session)
    return forget(found) if isinstance(found, Session) else found.run_sync(forget)
