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

from examples.participants.faults import Fault, FaultPlan, Faults
from examples.participants.ledger import Effect, Ledger, Reply
from examples.participants.operation import Participant

UNAVAILABLE = Reply.refusal(503, "unavailable", "the service is out of order; nothing was done")


@attrs.frozen
class Service:
    """One participant behind its HTTP endpoints."""

    participant: Participant
    ledger: Ledger
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
        try:
            text, effect = operation.read(await request.body(), key)
        except ValidationError as error:
            return Reply.refusal(400, "bad-body", str(error))
        fault = await self.faults.meet(name, request)
        if fault in (Fault.FAIL, Fault.HANG):
            return UNAVAILABLE
        if fault is Fault.DECLINE and (refusal := operation.declines) is not None:
            effect = _always(refusal)
        reply = await asyncio.to_thread(self.ledger.once, key, text, effect)
        if fault is Fault.HOLD:
            await self.faults.withhold(name, request)
        return reply

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
            self.ledger.close()

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
    ledger = Ledger(database, participant.tables)
    ledger.prepare(participant.opening)
    return Service(participant, ledger)


def _always(reply: Reply) -> Effect:
    return lambda _session: reply


def _json(reply: Reply) -> JSONResponse:
    return JSONResponse(reply.body, status_code=reply.status)
