"""A store on this machine: it knows who lives without leases, and tells this machine's time."""

from collections.abc import Callable


class Local:
    """What such a store says of leases and clocks."""

    async def open(self, *, worker: str | None) -> None:
        """See ``Store.open``."""
        raise NotImplementedError

    async def close(self) -> None:
        """See ``Store.close``."""
        raise NotImplementedError

    def lease_is_safe(self) -> bool:
        """Whether a worker lives is known here, so it holds no lease."""
        return True

    async def rejoin(self, worker: str) -> None:
        """Never needed here; see ``Store.rejoin``."""
        await self.close()
        await self.open(worker=worker)

    def on_change(self, call: Callable[[], None]) -> None:
        """Nothing is heard here: to be asked costs less than to be told."""

    def ahead_ns(self) -> int:
        """It has this machine's clock."""
        return 0
