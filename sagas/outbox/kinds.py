"""Which of its two kinds an engine or a session is: plain or asynchronous.

SQLAlchemy's asyncio part needs greenlet, which only its users have; so it is never imported here, but looked up.
"""

import sys
from typing import TYPE_CHECKING, Any, TypeAlias, cast

from sqlalchemy import Engine
from sqlalchemy.orm import Session, scoped_session

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_scoped_session

ASYNC = "sqlalchemy.ext.asyncio"
AnyEngine: TypeAlias = "Engine | AsyncEngine"
AnySession: TypeAlias = "Session | AsyncSession | scoped_session[Any] | async_scoped_session[Any]"


def async_engine(given: object) -> "AsyncEngine | None":
    """``given`` where it is an asynchronous engine."""
    return cast("AsyncEngine", given) if _is("AsyncEngine", given) else None


def sync_engine(given: object) -> Engine | None:
    """The engine that connections are made by; None where ``given`` is none."""
    asynchronous = async_engine(given)
    if asynchronous is not None:
        return asynchronous.sync_engine
    return given if isinstance(given, Engine) else None


def sync_session(given: object) -> Session | None:
    """The plain session that is meant, of a scoped one that of the current scope; None where ``given`` is none."""
    found: Any = given
    if isinstance(given, scoped_session) or _is("async_scoped_session", given):
        found = found()
    if _is("AsyncSession", found):
        found = found.sync_session
    return found if isinstance(found, Session) else None


def _is(name: str, given: object) -> bool:
    module = sys.modules.get(ASYNC)  # whoever has such an object has imported it
    return module is not None and isinstance(given, getattr(module, name))
