"""The running agency: three suppliers, a bank, a front for customers and managers, and a worker that can be killed."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import httpx

from examples.booking.domain import Itinerary, Trip
from examples.booking.forms import SAGAS, Form
from examples.participants.admin import Admin
from examples.participants.launcher import Child, Launcher
from examples.participants.stage import Stage, start_services
from sagas import Orchestrator, SagaHandle

NAMES = ("cars", "hotel", "airline", "payments")
PATIENCE_S = 20.0


@attrs.frozen
class Customer:
    """Somebody with a browser, as are the managers. Knows nothing of sagas."""

    http: httpx.AsyncClient

    async def books(self, trip: Trip, form: Form) -> str:
        """Start a trip."""
        return await self._ask("PUT", f"/trips/{trip.id}", city=trip.city, amount=trip.amount, form=form)

    async def looks(self, trip: Trip) -> str:
        """Read how far a trip is."""
        return await self._ask("GET", f"/trips/{trip.id}")

    async def cancels(self, trip: Trip, why: str) -> str:
        """Cancel a trip."""
        return await self._ask("POST", f"/trips/{trip.id}/cancel", why=why)

    async def approves(self, trip: Trip, by: str) -> str:
        """As a manager, say yes."""
        return await self._ask("POST", f"/trips/{trip.id}/approve", by=by)

    async def _ask(self, method: str, path: str, **body: Any) -> str:
        answer = await self.http.request(method, path, json=body or None, timeout=PATIENCE_S)
        return str(answer.raise_for_status().json()["state"])


@attrs.define
class Agency(Stage):
    """Everything that a scene may use. Leaving ``open_agency`` ends every process."""

    hotel: Admin
    airline: Admin
    front: Child
    customer: Customer

    async def start(self, trips: Sequence["Started"]) -> None:
        """The customer starts these trips, and the worker runs them side by side."""
        for each in trips:
            await self.customer.books(each.trip, each.form)

    async def handle(self, started: "Started") -> SagaHandle[Itinerary]:
        """The trip's saga."""
        return await self.counter.get(started.trip.id)

    async def all_ended(self, trips: Sequence["Started"]) -> None:
        """Return once all of these trips are booked or undone."""
        for each in trips:
            await self.ended(await self.handle(each))

    async def all_ask(self, trips: Sequence["Started"]) -> None:
        """Return once all of these trips wait for a manager, as their customer sees them."""
        for each in trips:

            async def asks(trip: Trip = each.trip) -> bool:
                return await self.customer.looks(trip) == "waiting for approval"

            await self.until(asks, f"{each.trip.id} did not come to wait for a manager")

    async def quarter_of_an_hour_passes(self) -> None:
        """Move the airline's clock."""
        header = {"Idempotency-Key": "a quarter of an hour"}
        (await self.airline.http.post("/advance", json={"seconds": 900}, headers=header)).raise_for_status()


@attrs.frozen
class Started:
    """One trip of a scene, and the form of the saga that books it."""

    trip: Trip
    form: Form


@asynccontextmanager
async def open_agency(directory: Path) -> AsyncGenerator[Agency]:
    """Start all processes; files and logs go to ``directory``."""
    store = f"sqlite:///{directory / 'sagas.db'}"
    async with AsyncExitStack() as stack:
        launcher = await stack.enter_async_context(Launcher(directory))
        services, admins = await start_services(stack, launcher, "examples.booking.service", NAMES)
        counter = await stack.enter_async_context(Orchestrator(store, sagas=list(SAGAS.values()), worker=False))
        front = await launcher.start("front", "examples.booking.front", "--store", store)
        http = await stack.enter_async_context(httpx.AsyncClient(base_url=front.url, trust_env=False))
        agency = Agency(
            directory,
            store,
            launcher,
            counter,
            services,
            "examples.booking.worker",
            hotel=admins["hotel"],
            airline=admins["airline"],
            front=front,
            customer=Customer(http),
        )
        await agency.start_worker()
        yield agency
