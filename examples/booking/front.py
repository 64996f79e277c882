"""``python -m examples.booking.front``: what the agency's customers and managers use, over HTTP.

It runs no sagas: it starts them and writes down what people say; the worker takes that up when it runs. There is no
login, which a real agency would have: whoever knows a trip's id may approve it.
"""

from typing import Annotated, Any

import attrs
import typer
from fastapi import Body, FastAPI

from examples.booking.domain import Approval, Trip
from examples.booking.forms import SAGAS, Form
from examples.participants.serving import serve
from sagas import Orchestrator
from sagas.fastapi import lifespan, problems

STATES = dict.fromkeys(("pending", "running", "waiting"), "being booked") | {
    "completed": "booked",
    "compensating": "being undone",
    "stuck": "needs attention",
}
Text = Annotated[str, Body(embed=True)]
Cents = Annotated[int, Body(gt=0)]


def front(sagas: Orchestrator) -> FastAPI:
    """The application, on an orchestrator that it opens and closes."""
    app = FastAPI(title="The agency", lifespan=lifespan(sagas))
    problems(app)

    @app.put("/trips/{id}", status_code=202)
    async def start(id: str, city: Text, amount: Cents, form: Annotated[Form, Body()] = Form.GRAPH) -> dict[str, Any]:
        await sagas.start(SAGAS[form], Trip(id, city, amount), id=id)
        return await show(id)

    @app.get("/trips/{id}")
    async def show(id: str) -> dict[str, Any]:
        info = await sagas.info(id)
        asked = any(step.kind == "callback" and step.status in {"pending", "running"} for step in info.steps)
        state = "waiting for approval" if asked else STATES.get(info.status, "not booked")
        itinerary = {"itinerary": attrs.asdict(info.result)} if state == "booked" else {}
        return {"id": id, "state": state, **itinerary, **({"because": info.cause} if info.cause else {})}

    @app.post("/trips/{id}/cancel", status_code=202)
    async def cancel(id: str, why: Text = "") -> dict[str, Any]:
        await (await sagas.get(id)).cancel(why)
        return await show(id)

    @app.post("/trips/{id}/approve", status_code=202)
    async def approve(id: str, by: Text, why: Text = "") -> dict[str, Any]:
        await sagas.complete_callback(saga_id=id, name="approval", value=Approval(by), actor=by, note=why)
        return await show(id)

    @app.post("/trips/{id}/refuse", status_code=202)
    async def refuse(id: str, by: Text, why: Text = "") -> dict[str, Any]:
        await sagas.fail_callback(saga_id=id, name="approval", message=f"{by} says no: {why}", actor=by)
        return await show(id)

    return app


def main(
    *,
    store: Annotated[str, typer.Option(help="Where the sagas are kept, such as sqlite:///trips.db.")],
    port: Annotated[int, typer.Option(help="On 127.0.0.1; 0 takes a free one.")] = 0,
    parent_fd: Annotated[int | None, typer.Option(help="Set by the launcher.", hidden=True)] = None,
) -> None:
    """Serve customers and managers until SIGTERM."""
    app = front(Orchestrator(store, sagas=list(SAGAS.values()), worker=False))
    serve(app, port=port, parent_fd=parent_fd, what="the agency", log_level="info")


if __name__ == "__main__":
    typer.run(main)
