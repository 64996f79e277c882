"""Sagas behind FastAPI: what every application that starts sagas, or takes part in them, would write itself.

``lifespan`` opens an orchestrator with the application, ``accepted`` answers a start with 202 and the address of its
state, ``SagaState`` is that state, ``problems`` makes the errors of sagas answers, and ``IdempotencyKey`` is the key of
a participant's caller. The routes and who may use them are the application's own.
"""

from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Annotated, Any

import msgspec
from pydantic import BaseModel

from durable_core import (
    CallbackAlreadyAnswered,
    CallbackClosed,
    CallbackNotFound,
    DefinitionError,
    PayloadError,
    StoreError,
    WrongState,
)
from durable_core.layer import Codec
from sagas.errors import KeyReused, SagaExists, SagaNotFound, SagasError, Undone
from sagas.model.info import SagaInfo
from sagas.orchestrator import Orchestrator
from sagas.participant.rules import check_key

try:
    from fastapi import Depends, FastAPI, Header, HTTPException, Request
    from fastapi.responses import JSONResponse
except ImportError as missing:
    raise ImportError(
        "sagas.fastapi needs FastAPI, which an extra brings: pip install 'durable-sagas[fastapi]'"
    ) from missing

__all__ = ["IdempotencyKey", "SagaState", "accepted", "lifespan", "problems"]

STATUSES: Mapping[type[SagasError], int] = {
    SagaNotFound: 404,
    CallbackNotFound: 404,
    SagaExists: 409,
    WrongState: 409,
    CallbackAlreadyAnswered: 409,
    CallbackClosed: 409,
    Undone: 410,
    KeyReused: 422,
    PayloadError: 422,
    StoreError: 503,
}
"""What an error is over HTTP, also one derived from it. 422 for a reused key as in the IETF's draft of the header."""
DETAILS: Mapping[type[SagasError], str] = {
    KeyReused: "this Idempotency-Key was used for another request; nothing was done",
    StoreError: "the database did not take it; nothing was done, and it may be sent again",
}
"""Said in place of messages that hold what another caller sent, or where the database is."""
RETRY_S = 1
"""How long a client should wait before it tries again."""


def lifespan(orchestrator: Orchestrator) -> Callable[[FastAPI], AbstractAsyncContextManager[None]]:
    """Open the orchestrator when the application starts, and close it when it ends: ``FastAPI(lifespan=lifespan(o))``.

    Args:
        orchestrator: the application's one; with ``worker=False`` it only starts sagas and asks about them.

    Examples:
        >>> from sagas import Orchestrator
        >>> app = FastAPI(lifespan=lifespan(Orchestrator("memory://", worker=False)))
    """

    @asynccontextmanager
    async def opened(_app: FastAPI) -> AsyncGenerator[None]:
        async with orchestrator:
            yield

    return opened


class SagaState(BaseModel):
    """How far a saga is, for those who started it. Its steps and inputs are for operators, who have other means."""

    id: str
    saga: str
    status: str
    cause: str | None = None
    """Why it is or was undone: failed, cancelled, deadline."""
    reason: str | None = None
    """What it waits for or is stuck on, for a person. Set it to None where your callers must not read it."""
    detail: dict[str, Any] | None = None
    """What the saga said by ``s.set_status``."""
    result: Any = None
    """Its result as plain JSON, once it has completed."""

    @classmethod
    def of(cls, info: SagaInfo) -> "SagaState":
        """The state in ``await orchestrator.info(id)``."""
        result = msgspec.json.decode(Codec().encode(info.result, what=f"saga {info.id!r}: the result"))
        return cls(
            id=info.id,
            saga=info.saga,
            status=info.status.value,
            cause=info.cause,
            reason=info.reason,
            detail=info.status_detail,
            result=result,
        )


def accepted(saga_id: str, url: object) -> JSONResponse:
    """202 for a saga that is started, or told something: its id, and where to ask how far it is.

    Args:
        saga_id: the id; the start is durable already.
        url: the address of its state, such as ``request.url_for("show", id=saga_id)``; also in ``Location``.
    """
    return JSONResponse({"id": saga_id, "url": str(url)}, 202, {"Location": str(url)})


def problems(app: FastAPI) -> None:
    """Answer errors of sagas with problem details (RFC 9457), whose ``type`` is the page about the error.

    404 for what does not exist, 409 where it comes too late or meets another state, 410 for ``Undone``, 422 for
    ``KeyReused`` and for values that do not fit, 503 if the database refuses and may take it later. Others are the
    application's faults: 500.

    Args:
        app: the application; call this once.
    """
    app.add_exception_handler(SagasError, _answer)
    app.add_exception_handler(KeyRefused, _refuse)


async def _answer(_request: Request, error: Exception) -> JSONResponse:
    status = _of(STATUSES, error)
    if status is None or not isinstance(error, SagasError) or _is_a_fault(error):
        raise error
    problem = {
        "type": error.page,
        "title": type(error).__name__,
        "status": status,
        "detail": _of(DETAILS, error) or error.message,
        "code": error.code,
    }
    headers = {"Retry-After": str(RETRY_S)} if isinstance(error, StoreError) else None
    return JSONResponse(problem, status, headers, media_type="application/problem+json")


async def _refuse(_request: Request, error: Exception) -> JSONResponse:
    if not isinstance(error, KeyRefused):
        raise error
    problem = {"type": "about:blank", "title": "Bad Request", "status": error.status_code, "detail": error.detail}
    return JSONResponse(problem, error.status_code, media_type="application/problem+json")


def _is_a_fault(error: SagasError) -> bool:
    """Whether no repetition helps, as where the orchestrator was never entered."""
    return isinstance(error, StoreError) and not error.transient


def _of(table: Mapping[type[SagasError], Any], error: Exception) -> Any:
    """The entry of the error's nearest class."""
    return next((table[kind] for kind in type(error).__mro__ if kind in table), None)


class KeyRefused(HTTPException):
    """A request without an ``Idempotency-Key``, or with what cannot be one; ``problems`` answers it as the others."""


def idempotency_key(idempotency_key: Annotated[str, Header()] = "") -> str:
    """The header ``Idempotency-Key`` of a request; 400 without it, or where it cannot be one."""
    if not idempotency_key:
        raise KeyRefused(
            400, "the header Idempotency-Key is missing; send the same one with each repeat of this request"
        )
    key = idempotency_key.removeprefix('"').removesuffix('"') if idempotency_key[-1:] == '"' else idempotency_key
    try:
        return check_key(key, "the header Idempotency-Key")
    except DefinitionError as error:
        raise KeyRefused(400, error.text) from error


IdempotencyKey = Annotated[str, Depends(idempotency_key)]
"""The key of the caller, as a parameter of a route: ``def charge(body: Charge, key: IdempotencyKey)``."""
