"""``python -m examples.booking.front``: what the agency's customers and managers use, over HTTP.

It runs no sagas: it starts them and writes down what people say; the worker takes that up when it runs. There is no
login, which a real agency would have: whoever knows a trip's id may approve it.
"""

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Annotated, Any

import attrs
import typer
from pydantic import BaseModel, Field, ValidationError
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from examples.booking.domain import Approval, Trip
from examples.booking.forms import SAGAS, Form
from examples.participants.serving import serve
from sagas import (
    CallbackAlreadyAnswered,
    CallbackClosed,
    CallbackNotFound,
    Orchestrator,
    SagaExists,
    SagaInfo,
    SagaNotFound,
    SagaPastPivot,
    SagaStatus,
    WrongState,
)

Answer = Callable[[Request], Awaitable[JSONResponse]]
CONFLICTS = (SagaExists, SagaPastPivot, WrongState, CallbackAlreadyAnswered, CallbackClosed, CallbackNotFound)
STATES: Mapping[SagaStatus, str] = {
    SagaStatus.COMPLETED: "booked",
    SagaStatus.COMPENSATING: "being undone",
    SagaStatus.COMPENSATED: "not booked",
    SagaStatus.RESOLVED: "not booked",
    SagaStatus.KILLED: "not booked",
    SagaStatus.STUCK: "needs attention",
}


class Wish(BaseModel):
    """The body of a new trip."""

    city: str
    amount: int = Field(gt=0)
    """In cents."""
    form: Form = Form.GRAPH


class Word(BaseModel):
    """What a manager says, and the name."""

    by: str
    why: str = ""


class Reason(BaseModel):
    """Why a customer cancels."""

    why: str = ""


@attrs.frozen
class Front:
    """The pages, on one orchestrator that executes nothing."""

    orchestrator: Orchestrator

    async def start(self, request: Request) -> JSONResponse:
        """``PUT /trips/<id>``: start a trip; a repeat finds the one that was started."""
        wish = Wish.model_validate_json(await request.body())
        trip = Trip(id=_id(request), city=wish.city, amount=wish.amount)
        await self.orchestrator.start(SAGAS[wish.form], trip, id=trip.id)
        return await self._state(trip.id, 202)

    async def show(self, request: Request) -> JSONResponse:
        """``GET /trips/<id>``: how far a trip is."""
        return await self._state(_id(request), 200)

    async def cancel(self, request: Request) -> JSONResponse:
        """``POST /trips/<id>/cancel``: undo a trip that is not paid yet."""
        reason = Reason.model_validate_json(await request.body() or b"{}")
        handle = await self.orchestrator.get(_id(request))
        await handle.cancel(reason.why)
        return await self._state(handle.id, 202)

    async def approve(self, request: Request) -> JSONResponse:
        """``POST /trips/<id>/approve``: a manager says yes."""
        word = Word.model_validate_json(await request.body())
        handle = await self.orchestrator.get(_id(request))
        await self.orchestrator.complete_callback(
            saga_id=handle.id, name="approval", value=Approval(by=word.by), actor=word.by, note=word.why
        )
        return await self._state(handle.id, 202)

    async def refuse(self, request: Request) -> JSONResponse:
        """``POST /trips/<id>/refuse``: a manager says no."""
        word = Word.model_validate_json(await request.body())
        handle = await self.orchestrator.get(_id(request))
        await self.orchestrator.fail_callback(
            saga_id=handle.id, name="approval", message=f"{word.by} says no: {word.why}", actor=word.by
        )
        return await self._state(handle.id, 202)

    async def _state(self, trip_id: str, status: int) -> JSONResponse:
        return JSONResponse(described(await self.orchestrator.info(trip_id)), status_code=status)

    def app(self) -> Starlette:
        """The ASGI application; it opens the orchestrator, and closes it at its end."""

        @asynccontextmanager
        async def lifespan(_app: Starlette) -> AsyncGenerator[None]:
            async with self.orchestrator:
                yield

        return Starlette(
            lifespan=lifespan,
            routes=[
                Route("/trips/{id}", _answering(self.start), methods=["PUT"]),
                Route("/trips/{id}", _answering(self.show), methods=["GET"]),
                Route("/trips/{id}/cancel", _answering(self.cancel), methods=["POST"]),
                Route("/trips/{id}/approve", _answering(self.approve), methods=["POST"]),
                Route("/trips/{id}/refuse", _answering(self.refuse), methods=["POST"]),
            ],
        )


def described(info: SagaInfo) -> dict[str, Any]:
    """A trip as its customer sees it."""
    asked = any(step.kind == "callback" and step.status in {"pending", "running"} for step in info.steps)
    state = STATES.get(info.status, "waiting for approval" if asked else "being booked")
    facts: dict[str, Any] = {"id": info.id, "state": state}
    if info.status is SagaStatus.COMPLETED:
        facts["itinerary"] = attrs.asdict(info.result)
    if info.cause is not None:
        facts["because"] = info.cause
    return facts


def _id(request: Request) -> str:
    trip_id: str = request.path_params["id"]
    return trip_id


def _answering(page: Answer) -> Answer:
    """The page, with its errors as answers."""

    async def answer(request: Request) -> JSONResponse:
        try:
            return await page(request)
        except ValidationError as error:
            return _refusal(400, error)
        except SagaNotFound as error:
            return _refusal(404, error)
        except CONFLICTS as error:
            return _refusal(409, error)

    return answer


def _refusal(status: int, error: Exception) -> JSONResponse:
    return JSONResponse({"error": type(error).__name__, "message": str(error)}, status_code=status)


def main(
    *,
    store: Annotated[str, typer.Option(help="Where the sagas are kept, such as sqlite:///trips.db.")],
    port: Annotated[int, typer.Option(help="On 127.0.0.1; 0 takes a free one.")] = 0,
    parent_fd: Annotated[int | None, typer.Option(help="Set by the launcher.", hidden=True)] = None,
) -> None:
    """Serve customers and managers until SIGTERM."""
    front = Front(Orchestrator(store, sagas=list(SAGAS.values()), worker=False))
    serve(front.app(), port=port, parent_fd=parent_fd, what="the agency", log_level="info")


if __name__ == "__main__":
    typer.run(main)
