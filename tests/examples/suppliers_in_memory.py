"""The agency's suppliers and its bank without processes: the same promises about keys, and one fault at a time."""

import asyncio
from collections import Counter
from enum import StrEnum
from typing import Any

import attrs

from examples.booking.clients import AirlineClient, CarsClient, HotelClient
from examples.booking.domain import NothingFree
from examples.participants.clients import CardDeclined, ClosedKey, PaymentsClient, Refused, ServiceFailed

SUPPLIERS = ("cars", "hotel", "airline")


class Fault(StrEnum):
    """What goes wrong with calls of one operation."""

    REJECTED = "rejected"
    FAILED = "failed"
    UNKNOWN_DONE = "unknown, and it happened"
    UNKNOWN = "unknown, and it did not happen"


@attrs.define
class World:
    """Everything outside the saga: what the participants have, and what goes wrong there."""

    at: tuple[str, str] | None = None
    """The service and operation with the fault, or at which calls are held back."""
    fault: Fault | None = None
    times: int = 1_000_000
    """How many calls meet the fault."""
    refused: tuple[str, str] | None = None
    """A second operation, which says no: what begins a rollback whose own calls have the fault."""
    holds_back: bool = False
    """Calls have their effect there, and no answer until ``go`` is set."""
    reached: asyncio.Event = attrs.field(factory=asyncio.Event)
    go: asyncio.Event = attrs.field(factory=asyncio.Event)
    asked: set[str] = attrs.field(factory=set[str])
    """Who was asked to hold something: no one answers before all three are, so they are asked side by side."""
    all_asked: asyncio.Event = attrs.field(factory=asyncio.Event)
    answers: dict[str, dict[str, Any] | Refused] = attrs.field(factory=dict[str, "dict[str, Any] | Refused"])
    """By idempotency key."""
    states: dict[str, tuple[str, str]] = attrs.field(factory=dict[str, tuple[str, str]])
    """By the key of a hold or a charge: the service, and what became of it."""
    calls: Counter[tuple[str, str]] = attrs.field(factory=Counter[tuple[str, str]])

    @property
    def effects(self) -> Counter[tuple[str, str]]:
        """How many things each service has in each state."""
        return Counter(self.states.values())

    def resources(self) -> list[object]:
        """The clients that a worker needs."""
        return [FakeCars(self), FakeHotel(self), FakeAirline(self), FakePayments(self)]

    async def call(self, service: str, operation: str, key: str, body: dict[str, Any]) -> dict[str, Any]:
        """One call."""
        place = (service, operation)
        self.calls[place] += 1
        if operation == "hold":
            await self._all_asked(service)
        fault = self._due(place)
        if fault is Fault.FAILED:
            raise ServiceFailed(f"{service} is out of order")
        if fault is Fault.UNKNOWN:
            raise TimeoutError
        if fault is Fault.REJECTED or place == self.refused:
            self.answers.setdefault(key, _no(operation))
        answer = self._once(service, operation, key, body)
        if self.holds_back and place == self.at:
            self.reached.set()
            await self.go.wait()
        if fault is Fault.UNKNOWN_DONE:
            raise TimeoutError
        if isinstance(answer, Refused):
            raise answer
        return answer

    async def _all_asked(self, service: str) -> None:
        self.asked.add(service)
        if len(self.asked) == len(SUPPLIERS):
            self.all_asked.set()
        await self.all_asked.wait()

    def _due(self, place: tuple[str, str]) -> Fault | None:
        if place != self.at or self.times < 1:
            return None
        self.times -= 1
        return self.fault

    def _once(self, service: str, operation: str, key: str, body: dict[str, Any]) -> dict[str, Any] | Refused:
        if key not in self.answers:
            self.answers[key] = self._effect(service, operation, key, body)
        return self.answers[key]

    def _effect(self, service: str, operation: str, key: str, body: dict[str, Any]) -> dict[str, Any]:
        if operation in {"release", "settle"}:
            known = self.answers.setdefault(body["of"], ClosedKey("too late"))
            if operation == "settle":
                happened = not isinstance(known, Refused)
                return {"status": 200 if happened else 410, "body": known if happened else {}}
            if self.states.get(body["of"]) == (service, "held"):
                self.states[body["of"]] = (service, "released")
            return {}
        if operation == "confirm":
            held = next(k for k, a in self.answers.items() if isinstance(a, dict) and a.get("id") == body["hold_id"])
            assert self.states[held] == (service, "held"), "only what is held can be booked"
            self.states[held] = (service, "booked")
            return {"number": f"{service}-{body['hold_id']}"}
        self.states[key] = (service, "paid" if operation == "charge" else "held")
        number = len(self.states)
        return {"id": number, "amount": body["amount"]} if operation == "charge" else {"id": number, "what": service}


def _no(operation: str) -> Refused:
    return CardDeclined("no cover") if operation == "charge" else NothingFree("nothing left")


class FakeCars(CarsClient):
    """The car rental; its ``http`` is the world."""

    async def call(self, operation: str, key: str, **body: object) -> dict[str, Any]:
        return await self.http.call("cars", operation, key, body)


class FakeHotel(HotelClient):
    """The hotel."""

    async def call(self, operation: str, key: str, **body: object) -> dict[str, Any]:
        return await self.http.call("hotel", operation, key, body)


class FakeAirline(AirlineClient):
    """The airline."""

    async def call(self, operation: str, key: str, **body: object) -> dict[str, Any]:
        return await self.http.call("airline", operation, key, body)


class FakePayments(PaymentsClient):
    """The bank."""

    async def call(self, operation: str, key: str, **body: object) -> dict[str, Any]:
        return await self.http.call("payments", operation, key, body)
