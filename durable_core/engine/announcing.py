"""Says in the store what this worker serves, and notices a body that was changed under its version.

Invariant: a function registered here is announced before a run of it is begun here, and the former fingerprint is told
of once: whoever replaces it is the one who warns.
"""

import logging
from collections.abc import Callable

from durable_core.engine.registry import Registry
from durable_core.errors import LeaseLost
from durable_core.model.run import OPEN, RunQuery
from durable_core.model.spec import DurableFunction
from durable_core.ports import Clock, Store

log = logging.getLogger("durable_core")

Rewritten = Callable[[DurableFunction, int], None]
"""Told of a function whose body has changed, and how many runs of its version are open."""


def warn(function: DurableFunction, runs: int) -> None:
    """Log that open runs may not fit the code any more."""
    log.warning(
        "the body of %s v%d has changed, and %d runs of that version are open; one that does not fit the new code is "
        "parked as stuck. Bring the old body back and register the new one under a new version, or keep the old way "
        "behind patched(...)",
        function.name,
        function.version,
        runs,
    )


class VersionAnnouncer:
    """What one worker says of its registry."""

    __slots__ = ("_clock", "_registry", "_store", "_tell")

    def __init__(self, store: Store, registry: Registry, clock: Clock, tell: Rewritten) -> None:
        self._store = store
        self._registry = registry
        self._clock = clock
        self._tell = tell

    async def enter(self, new_name: Callable[[], str]) -> None:
        """Announce all of it, before anything is begun; as another worker where this one was taken for dead already.

        Raises:
            StoreError: the store has not answered for as long as a call waits.
        """
        while True:
            try:
                await self.announce()
            except LeaseLost as lost:
                log.warning("while it was entering, %s", lost)
                self._registry.renew()
                await self._store.rejoin(new_name())
            else:
                return

    async def announce(self) -> None:
        """Announce what was registered since the last time; durable on return. Nothing new costs nothing."""
        fresh = list(self._registry.fresh)
        if not fresh:
            return
        offers = {function.offer: function for function in fresh}
        replaced = await self._store.versions.announce(list(offers), now_ns=self._clock.now_ns())
        del self._registry.fresh[: len(fresh)]
        changed = {old[:2] for old in replaced}
        for offer, function in offers.items():
            if offer[:2] in changed:
                query = RunQuery(statuses=OPEN, name=offer.name, version=offer.version)
                if runs := await self._store.runs.count(query):
                    self._tell(function, runs)
