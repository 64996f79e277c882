"""The manager: takes a request out of the inbox, and answers it over HTTP with the token that it contains."""

import asyncio

import attrs
import httpx

PATIENCE_S = 20.0


class NotAskedError(Exception):
    """A request that a scene relies on did not arrive."""


@attrs.frozen
class Manager:
    """Has an inbox and a browser, and nothing to do with sagas."""

    desk: httpx.AsyncClient
    web: httpx.AsyncClient
    """The shop's web application."""
    web_pid: int

    async def takes(self, order_id: str) -> str:
        """Return the token of the request about this order, once it is in the inbox."""
        look = 0
        try:
            async with asyncio.timeout(PATIENCE_S):
                while True:
                    look += 1
                    key = {"Idempotency-Key": f"{order_id}, look {look}"}
                    answer = await self.desk.post("/take", json={"order_id": order_id}, headers=key)
                    token = answer.raise_for_status().json()["token"]
                    if token is not None:
                        return str(token)
                    await asyncio.sleep(0.05)  # an inbox can only be polled
        except TimeoutError as error:
            raise NotAskedError(f"the manager was not asked about {order_id} within {PATIENCE_S:g} s") from error

    async def approves(self, token: str) -> int:
        """Say yes; returns the HTTP status."""
        return await self._answer("complete", token, {"by": "the manager"})

    async def refuses(self, token: str, why: str) -> int:
        """Say no; returns the HTTP status."""
        return await self._answer("fail", token, {"message": why})

    async def _answer(self, path: str, token: str, body: object) -> int:
        header = {"Authorization": f"Bearer {token}"}
        answer = await self.web.post(f"/callbacks/{path}", json=body, headers=header, timeout=PATIENCE_S)
        return answer.raise_for_status().status_code
