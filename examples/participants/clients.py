"""The caller's side of a participant, over HTTP, and of the bank, which every application has.

Invariant: each method that changes something takes the idempotency key to do it under, and may be called again with
the same key any number of times.
"""

from collections.abc import Mapping
from typing import Any, ClassVar, Protocol

import attrs
import httpx

from examples.participants.traces import answered, calling

REFUSED = frozenset({402, 409, 410})


class Refused(Exception):
    """A participant understood the request and said no; nothing happened there."""


class ClosedKey(Refused):
    """The call came too late: before it arrived, it was undone or settled as not having happened."""


class CardDeclined(Refused):
    """The bank declined the charge."""


class ServiceFailed(Exception):
    """A participant answered neither yes nor no: the participant or the request is broken."""


@attrs.frozen
class ParticipantClient:
    """Calls one service. Raises ``Refused`` where it says no, ``ServiceFailed`` or httpx errors where it fails."""

    REFUSALS: ClassVar[Mapping[str, type[Refused]]] = {}
    """The exception for each code with which the service says no."""

    http: httpx.AsyncClient

    async def call(self, operation: str, key: str, **body: object) -> dict[str, Any]:
        """Ask for ``operation`` under ``key``; returns the JSON of the answer."""
        async with calling(operation) as headers:
            response = await self.http.post(f"/{operation}", json=body, headers={"Idempotency-Key": key, **headers})
            answered(response)
        if response.status_code in REFUSED:
            raise self._refusal(response.json())
        if not response.is_success:
            raise ServiceFailed(f"{response.url} answered {response.status_code} {response.reason_phrase}")
        answer: dict[str, Any] = response.json()
        return answer

    async def settle(self, of: str, key: str) -> dict[str, Any] | None:
        """The answer to the call under key ``of``; None if it had no effect, and then it never will."""
        found = await self.call("settle", key, of=of)
        succeeded = found["status"] < httpx.codes.BAD_REQUEST
        answer: dict[str, Any] = found["body"]
        return answer if succeeded else None

    def _refusal(self, body: dict[str, Any]) -> Refused:
        kind = ClosedKey if body["error"] == "closed" else self.REFUSALS.get(body["error"], Refused)
        return kind(body["message"])


class Payable(Protocol):
    """What money is taken for, such as an order."""

    @property
    def id(self) -> str: ...
    @property
    def amount(self) -> int:
        """In cents."""
        ...


@attrs.frozen
class Payment:
    """Money taken for an order."""

    id: int
    amount: int
    """In cents."""


class PaymentsClient(ParticipantClient):
    """The bank."""

    REFUSALS: ClassVar[Mapping[str, type[Refused]]] = {"card-declined": CardDeclined}

    async def charge(self, order: Payable, *, key: str) -> Payment:
        """Take the amount of ``order``; ``CardDeclined`` if the bank refuses."""
        return Payment(**await self.call("charge", key, order_id=order.id, amount=order.amount))

    async def refund(self, *, of: str, key: str) -> None:
        """Give back what was charged under key ``of``; if nothing was, nothing ever will be."""
        await self.call("refund", key, of=of)

    async def find_charge(self, *, of: str, key: str) -> Payment | None:
        """The charge made under key ``of``; None: there is none, and will be none."""
        found = await self.settle(of, key)
        return None if found is None else Payment(**found)
