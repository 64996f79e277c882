"""Any participant over HTTP: ``POST /<operation>`` with an ``Idempotency-Key``, and an admin's switches for faults.

Invariant: under every fault, an effect and its answer are written together or not at all.
"""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import attrs
from pydantic import ValidationError
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from examples.participants.database import Database
from examples.participants.faults import Fault, FaultPlan, Faults
from examples.participants.operation import CLOSED, CannotUndo, Participant, Reply
from sagas import KeyReused, Undone

UNAVAILABLE = Reply.refusal(503, "unavailable", "the service is out of order; nothing was done")


@attrs.frozen
class Service:
    """One participant behind its HTTP endpoints."""

    participant: Participant
    database: Database
    faults: Faults = attrs.field(factory=Faults)

    async def operate(self, request: Request) -> JSONResponse:
        """``POST /<operation>``: do it, or repeat the answer of its key."""
        return _json(await self._answer(request))

    async def _answer(self, request: Request) -> Reply:
        name = request.path_params["operation"]
        operation = self.participant.operation(name)
        if operation is None:
            return Reply.refusal(404, "no-such-operation", f"{self.participant.name} does not do {name!r}")
        key = request.headers.get("Idempotency-Key")
        if not key:
            return Reply.refusal(400, "key-missing", "send an Idempotency-Key header")
        body = await request.body()
        fault = await self.faults.meet(name, request)
        if fault in (Fault.FAIL, Fault.HANG):
            return UNAVAILABLE
        reply = await asyncio.to_thread(self.reply, name, key, body, declined=fault is Fault.DECLINE)
        if fault is Fault.HOLD:
            await self.faults.withhold(name, request)
        return reply

    def reply(self, name: str, key: str, body: bytes, *, declined: bool = False) -> Reply:
        """Do it in one transaction; its errors are replies too."""
        operation = self.participant.operation(name)
        assert operation is not None  # noqa: S101 - looked up before
        try:
            return self.database.run(lambda session: operation.call(session, key, body, declined=declined))
        except ValidationError as error:
            return Reply.refusal(400, "bad-body", str(error))
        except Undone:
            return CLOSED
        except KeyReused as error:
            return Reply.refusal(422, "key-reused", error.message)
        except CannotUndo as error:
            return error.reply

    async def plan(self, request: Request) -> JSONResponse:
        """``POST /admin/faults``: apply a fault plan."""
        try:
            plan = FaultPlan.model_validate_json(await request.body())
        except ValidationError as error:
            return _json(Reply.refusal(400, "bad-body", str(error)))
        operation = self.participant.operation(plan.operation)
        if operation is None or (plan.decline_next and operation.declines is None):
            what = f"{self.participant.name} does not do {plan.operation!r}, or never declines it"
            return _json(Reply.refusal(400, "no-such-fault", what))
        self.faults.plan(plan)
        return _json(Reply(200, plan.model_dump()))

    async def held(self, request: Request) -> JSONResponse:
        """``GET /admin/held/<operation>``: responds when an answer is being held, or as many as ``?count=`` says."""
        count = request.query_params.get("count", "1")
        if not count.isdecimal():
            return _json(Reply.refusal(400, "bad-count", f"{count!r} is no number of answers"))
        await self.faults.held(request.path_params["operation"], count=max(1, int(count)))
        return _json(Reply(200, {"held": True}))

    async def unheld(self, request: Request) -> JSONResponse:
        """``GET /admin/unheld/<operation>``: responds when no answer of that operation is being held."""
        await self.faults.held(request.path_params["operation"], count=0)
        return _json(Reply(200, {"held": False}))

    async def release(self, _request: Request) -> JSONResponse:
        """``POST /admin/release``: release all held answers."""
        return _json(Reply(200, {"released": self.faults.release()}))

    def app(self) -> Starlette:
        """The ASGI application; closes the database when it ends."""

        @asynccontextmanager
        async def lifespan(_app: Starlette) -> AsyncGenerator[None]:
            yield
            self.database.close()

        return Starlette(
            lifespan=lifespan,
            routes=[
                Route("/admin/faults", self.plan, methods=["POST"]),
                Route("/admin/held/{operation}", self.held, methods=["GET"]),
                Route("/admin/unheld/{operation}", self.unheld, methods=["GET"]),
                Route("/admin/release", self.release, methods=["POST"]),
                Route("/{operation}", self.operate, methods=["POST"]),
            ],
        )


def open_service(participant: Participant, database: Path) -> Service:
    """The participant on its database, which is made and filled where it is new."""
    opened = Database(database, participant.tables)
    opened.run(participant.opening)
    return Service(participant, opened)


def _json(reply: Reply) -> JSONResponse:
    return JSONResponse(reply.body, status_code=reply.status)
