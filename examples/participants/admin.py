"""The demo's client for a participant's admin endpoints: switch on faults, wait for a held answer, release it."""

import attrs
import httpx

WAIT_S = 20.0
"""How long to wait for an answer to be held or released before the demo gives up."""


class NotHeldError(Exception):
    """A request that a scene relies on did not arrive."""


@attrs.frozen
class Admin:
    """Switches of one participant."""

    name: str
    http: httpx.AsyncClient

    async def plan(self, operation: str, **faults: int) -> None:
        """Switch on faults for the next requests of ``operation``: ``decline_next=1``, ``hold_next=1``, ...

        Without faults, the operation works again.
        """
        response = await self.http.post("/admin/faults", json={"operation": operation, **faults})
        response.raise_for_status()

    async def held(self, operation: str, *, count: int = 1) -> None:
        """Return once ``count`` requests of ``operation`` have taken effect and their answers are being held."""
        await self._wait(f"/admin/held/{operation}?count={count}", f"{count} of {operation!r} did not come to be held")

    async def unheld(self, operation: str) -> None:
        """Return once no answer of ``operation`` is being held: it was released, or its caller is gone."""
        await self._wait(f"/admin/unheld/{operation}", f"a {operation!r} is still held")

    async def release(self) -> None:
        """Release all held answers."""
        (await self.http.post("/admin/release")).raise_for_status()

    async def _wait(self, path: str, otherwise: str) -> None:
        try:
            (await self.http.get(path, timeout=WAIT_S)).raise_for_status()
        except httpx.ReadTimeout as error:
            raise NotHeldError(f"{self.name}: {otherwise} after {WAIT_S:g} s; see the logs of the worker") from error
