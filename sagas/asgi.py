"""Answers to callbacks over HTTP: a small ASGI app to mount in a web application, or to serve by itself.

The token is the right to answer, and comes in the ``Authorization`` header, which servers do not log.

Invariant: responses do not distinguish an unknown token from an expired one, and no message or log line contains a
token.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, NoReturn

import attrs
import msgspec

from durable_core import (
    CallbackAlreadyAnswered,
    CallbackClosed,
    CallbackNotFound,
    DefinitionError,
    PayloadError,
    StoreError,
)
from durable_core.layer import AnswerReceipt, CallbackAddress, Client, Taken
from sagas.blocking import Orchestrator as BlockingOrchestrator
from sagas.orchestrator import Orchestrator

try:
    from starlette.applications import Starlette
    from starlette.exceptions import HTTPException
    from starlette.requests import ClientDisconnect, Request
    from starlette.responses import JSONResponse, Response
    from starlette.routing import Route
except ImportError as missing:
    raise ImportError(
        "sagas.asgi needs Starlette, which an extra brings: pip install 'durable-sagas[dashboard]'"
    ) from missing

__all__ = ["callbacks"]

LIMIT = 1 << 20
"""The default limit of a body, in bytes."""
PATIENCE_S = 30.0
"""How long to wait for the store."""
RETRY_S = 1
"""How long a client should wait before it tries again."""
Call = Callable[[Client[Any, Any], CallbackAddress], Awaitable[AnswerReceipt]]


class Failure(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of ``POST /fail``."""

    message: str = ""


def callbacks(orchestrator: Orchestrator | BlockingOrchestrator, *, limit: int = LIMIT) -> Starlette:
    """An ASGI app that takes answers to the callbacks of the sagas on the orchestrator's store.

    ``POST /complete`` with the value as JSON, ``POST /fail`` with ``{"message": ...}`` or plain text, and
    ``POST /heartbeat``, each with ``Authorization: Bearer <token>``. 204 means that the answer is durable; so does 202,
    if no worker has taken it up yet.

    Args:
        orchestrator: enter it before the first request; ``worker=False`` is enough.
        limit: the largest body, in bytes.

    Raises:
        DefinitionError: ``limit`` is no whole number from 1.

    Examples:
        >>> from sagas import Orchestrator
        >>> app = callbacks(Orchestrator("memory://", worker=False))
    """
    if type(limit) is not int or limit < 1:
        raise DefinitionError(f"callbacks(limit={limit!r}): give the bytes that a body may have, a whole number from 1")
    door = _Door(orchestrator, limit)
    return Starlette(
        routes=[
            Route("/complete", door.complete, methods=["POST"]),
            Route("/fail", door.fail, methods=["POST"]),
            Route("/heartbeat", door.heartbeat, methods=["POST"]),
        ],
        exception_handlers={HTTPException: _told_why},
    )


@attrs.frozen
class _Door:
    """The three endpoints."""

    orchestrator: Orchestrator | BlockingOrchestrator
    limit: int

    async def complete(self, request: Request) -> Response:
        """``POST /complete``: answer with the body's JSON."""
        asked = _asked(request)
        if not _is_json(request):
            _refuse(415, "send the value as JSON, with Content-Type: application/json")
        value = _decoded(await self._body(request), Any)
        return await self._give(asked, lambda client, asked: client.complete(asked, value))

    async def fail(self, request: Request) -> Response:
        """``POST /fail``: answer with a failure."""
        asked = _asked(request)
        if _is_json(request):
            message = _decoded(await self._body(request), Failure).message
        elif _media_type(request) == "text/plain":
            message = _text(await self._body(request))
        else:
            _refuse(415, 'send {"message": "..."} with Content-Type: application/json, or text/plain')
        return await self._give(asked, lambda client, asked: client.fail(asked, message))

    async def heartbeat(self, request: Request) -> Response:
        """``POST /heartbeat``: the answer is still being worked on."""
        return await self._give(_asked(request), lambda client, asked: client.beat(asked))

    async def _body(self, request: Request) -> bytes:
        """The body; no more of it than the limit is ever in memory."""
        length = request.headers.get("content-length", "")
        if length.isdecimal() and (len(length) > len(str(self.limit)) or int(length) > self.limit):
            _refuse(413, f"at most {self.limit} bytes are taken")
        body = bytearray()
        try:
            async for chunk in request.stream():
                body += chunk
                if len(body) > self.limit:
                    _refuse(413, f"at most {self.limit} bytes are taken")
        except ClientDisconnect:
            _refuse(400, "the body was cut")
        return bytes(body)

    async def _give(self, asked: CallbackAddress, call: Call) -> Response:
        try:
            async with asyncio.timeout(PATIENCE_S):
                receipt = await self._called(asked, call)
        except (CallbackNotFound, CallbackClosed):
            _refuse(404, "this token opens nothing")
        except CallbackAlreadyAnswered:
            _refuse(409, "another answer was accepted before")
        except PayloadError as misfit:
            _refuse(422, misfit.message)
        except (StoreError, TimeoutError):
            _refuse(503, "the store does not answer; send it again, which is harmless", {"Retry-After": str(RETRY_S)})
        if receipt.taken is Taken.KEPT:
            return JSONResponse({"message": "kept until a worker takes it up, which then checks its type"}, 202)
        return Response(status_code=204)

    async def _called(self, asked: CallbackAddress, call: Call) -> AnswerReceipt:
        if isinstance(self.orchestrator, Orchestrator):
            return await call(self.orchestrator.client, asked)
        served, home = self.orchestrator.served, self.orchestrator.home

        async def made() -> AnswerReceipt:
            return await call(served.client, asked)

        return await asyncio.to_thread(home.call, made)


def _asked(request: Request) -> CallbackAddress:
    """The callback that the token in the header belongs to."""
    given = request.headers.getlist("authorization")
    scheme, _, token = given[0].partition(" ") if len(given) == 1 else ("", "", "")
    if scheme.lower() != "bearer" or not token.strip():
        _refuse(401, "send the token as Authorization: Bearer <token>", {"WWW-Authenticate": "Bearer"})
    return CallbackAddress(token=token.strip())


def _media_type(request: Request) -> str:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def _is_json(request: Request) -> bool:
    kind = _media_type(request)
    return kind == "application/json" or (kind.startswith("application/") and kind.endswith("+json"))


def _decoded(body: bytes, type: Any) -> Any:
    try:
        return msgspec.json.decode(body, type=type)
    except msgspec.ValidationError as error:
        _refuse(422, str(error))
    except (msgspec.DecodeError, RecursionError, ValueError) as error:
        _refuse(400, f"the body is not JSON: {error}")


def _text(body: bytes) -> str:
    try:
        return body.decode()
    except UnicodeDecodeError:
        _refuse(400, "the body is not UTF-8")


def _refuse(status: int, message: str, headers: dict[str, str] | None = None) -> NoReturn:
    raise HTTPException(status, message, headers)


async def _told_why(_request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101 - it is registered for these alone
    return JSONResponse({"message": error.detail}, error.status_code, error.headers)
