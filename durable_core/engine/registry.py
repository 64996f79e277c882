"""The durable functions that this process serves, and what its worker announces of them in the store.

Invariant: a function is announced before a run of it begins here.
"""

import logging
from collections.abc import Callable, Collection, Iterable, Sequence

from durable_core.errors import DefinitionError, LeaseLost
from durable_core.model.run import OPEN, RunQuery
from durable_core.model.spec import DurableFunction
from durable_core.ports import Clock, Store

log = logging.getLogger("durable_core")


class Registry:
    """Durable functions by name and version; versions live side by side."""

    def __init__(self, noun: str = "run") -> None:
        self.noun = noun
        """What the layer calls a run of these functions, for messages."""
        self._functions: dict[tuple[str, int], DurableFunction] = {}
        self._newest: dict[str, DurableFunction] = {}
        self.fresh: list[DurableFunction] = []
        """Functions that are not announced yet."""

    def add(self, function: DurableFunction) -> None:
        """Register ``function``; the same object twice is harmless, two under one name and version are refused."""
        key = (function.name, function.version)
        known = self._functions.get(key)
        if known is not None and known is not function:
            raise DefinitionError(
                f"two different durable functions are named {function.name!r} version {function.version}",
                "Give one another name, or a new version",
            )
        if known is None:
            self.fresh.append(function)
        self._functions[key] = function
        newest = self._newest.get(function.name)
        if newest is None or newest.version <= function.version:
            self._newest[function.name] = function

    def renew(self) -> None:
        """Have all functions announced again: the worker has a new name."""
        self.fresh = list(self._functions.values())

    def served(self) -> list[tuple[str, int]]:
        """The ``(name, version)`` pairs that may be claimed."""
        return list(self._functions)

    def find(self, name: str, version: int | None = None) -> DurableFunction | None:
        """The function of this name and version, or its newest version; None if it is not registered here."""
        return self._newest.get(name) if version is None else self._functions.get((name, version))

    def get(
        self, name: str, version: int | None = None, *, announced: Collection[tuple[str, int]] = ()
    ) -> DurableFunction:
        """The function of this name and version, or its newest version.

        Args:
            name: its name.
            version: its version.
            announced: what workers of the store have announced, for the error.

        Raises:
            DefinitionError: there is none; the message lists what there is.
        """
        found = self.find(name, version)
        if found is None:
            asked = name if version is None else f"{name} v{version}"
            there = _listed(self._functions)
            elsewhere = f", and workers have announced: {_listed(announced)}" if announced else ""
            raise DefinitionError(
                f"{asked!r} is not registered here; registered are: {there}{elsewhere}",
                "Register it, check the name, or start a worker that serves it",
            )
        return found


def _listed(versions: Iterable[tuple[str, int]]) -> str:
    return ", ".join(sorted(f"{name} v{number}" for name, number in versions)) or "none"


Rewritten = Callable[[DurableFunction, int, Sequence[str]], None]
"""Called with a function whose body has changed under its version, the number of open runs of that version, and the
other living workers that serve it."""


def warn_of_others(log: logging.Logger, what: str, others: Sequence[str]) -> None:
    """Log that living workers serve ``what`` with another body; nothing where there are none."""
    if others:
        log.warning(
            "%s has another body here than in a living worker (%s), and each of them takes what the other one starts. "
            "If two programs use one name on one store, give one of them another name or a store (PostgreSQL: a "
            "schema) of its own; if this is a new release, declare the changed body under a new version",
            what,
            ", ".join(others),
        )


def warn(function: DurableFunction, runs: int, others: Sequence[str]) -> None:
    """Log that open runs may no longer fit the code."""
    warn_of_others(log, f"{function.name} v{function.version}", others)
    if not runs:
        return
    log.warning(
        "the body of %s v%d has changed, and %d runs of that version are open; one that does not fit the new code gets "
        "stuck. Bring the old body back and register the new one under a new version, or keep the old way "
        "behind patched(...)",
        function.name,
        function.version,
        runs,
    )


class VersionAnnouncer:
    """Announces the registry of one worker in the store, and notices a body that was changed under its version.

    Only the worker that replaces the former fingerprint warns.
    """

    __slots__ = ("_clock", "_on_rewritten", "_own", "_registry", "_store")

    def __init__(
        self, store: Store, registry: Registry, clock: Clock, on_rewritten: Rewritten, *, own: Callable[[], str | None]
    ) -> None:
        self._own = own
        self._store = store
        self._registry = registry
        self._clock = clock
        self._on_rewritten = on_rewritten

    async def enter(self, new_name: Callable[[], str]) -> None:
        """Announce everything before the first run begins; under a new name if this worker was taken for dead already.

        Raises:
            StoreError: the store did not answer in time.
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
        """Announce functions that were registered since the last time; durable on return. Free if there are none."""
        fresh = list(self._registry.fresh)
        if not fresh:
            return
        offers = {function.offer: function for function in fresh}
        replaced = await self._store.versions.announce(list(offers), now_ns=self._clock.now_ns())
        del self._registry.fresh[: len(fresh)]
        changed = {old[:2] for old in replaced}
        workers = {each[:2]: each.workers for each in await self._store.versions.announced()} if changed else {}
        for offer, function in offers.items():
            if offer[:2] in changed:
                query = RunQuery(statuses=OPEN, name=offer.name, version=offer.version)
                others = [worker for worker in workers.get(offer[:2], ()) if worker != self._own()]
                self._on_rewritten(function, await self._store.runs.count(query), others)
