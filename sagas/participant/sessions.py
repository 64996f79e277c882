"""What a caller may give for a session, and which of its two kinds it is.

SQLAlchemy's asyncio part wants greenlet, which only its users have; so it is never imported here, but looked up.
"""

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeAlias, TypeGuard, cast

from sqlalchemy.orm import Session, scoped_session

from durable_core import DefinitionError

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession, async_scoped_session

ASYNC = "sqlalchemy.ext.asyncio"
Plain: TypeAlias = "Session | scoped_session[Any]"
Async: TypeAlias = "AsyncSession | async_scoped_session[Any]"


def session_of(given: object) -> "Session | AsyncSession":
    """The session itself, of a scoped one that of the current scope.

    Raises:
        DefinitionError: it is none.
    """
    found = cast("Callable[[], object]", given)() if _is_scoped(given) else given
    if isinstance(found, Session) or _is_async(found):
        return found
    raise DefinitionError(
        f"{given!r} is not a session of SQLAlchemy or SQLModel: give the one whose transaction the effect is part of"
    )


def _is_scoped(given: object) -> bool:
    return isinstance(given, scoped_session) or _is("async_scoped_session", given)


def _is_async(given: object) -> "TypeGuard[AsyncSession]":
    return _is("AsyncSession", given)


def _is(name: str, given: object) -> bool:
    module = sys.modules.get(ASYNC)  # whoever has such an object has imported it
    return module is not None and isinstance(given, getattr(module, name))
