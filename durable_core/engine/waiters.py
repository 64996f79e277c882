"""Who waits for the end of which run.

Invariant: a waiter is told only what is durable: by this process's worker, or by a look at the store.
"""

import asyncio
from typing import NamedTuple

from durable_core.errors import DurableError, StoreError
from durable_core.model.run import RunRecord, RunStatus


class RunOutcome(NamedTuple):
    """How a run stands once it has ended or is stuck."""

    status: RunStatus
    phase: str
    output: bytes | None
    error: bytes | None
    reason: str | None

    @classmethod
    def of(cls, record: RunRecord) -> "RunOutcome":
        """How the run of this row stands."""
        return cls(record.status, record.phase, record.output, record.error, record.reason)


class Waiters:
    """The waiters of one engine, by run number."""

    __slots__ = ("_futures", "watched")

    def __init__(self) -> None:
        self._futures: dict[int, list[asyncio.Future[RunOutcome]]] = {}
        self.watched: dict[int, str] = {}
        """Ids, by number, of the runs that somebody waits for and that the store may have to be asked about."""

    def __len__(self) -> int:
        return len(self._futures)

    def add(self, num: int, loop: asyncio.AbstractEventLoop) -> "asyncio.Future[RunOutcome]":
        """A waiter for this run; to be given back to ``forget``."""
        waiter: asyncio.Future[RunOutcome] = loop.create_future()  # to ask for the running one costs a system call
        self._futures.setdefault(num, []).append(waiter)
        return waiter

    def forget(self, num: int, waiter: "asyncio.Future[RunOutcome]") -> None:
        """``waiter`` waits no longer."""
        waiters = self._futures.get(num)
        if waiters is not None:
            if waiter in waiters:
                waiters.remove(waiter)
            if not waiters:
                del self._futures[num]
                self.watched.pop(num, None)

    def waits_for(self, num: int) -> bool:
        """Whether anybody waits for this run."""
        return num in self._futures

    def tell(self, num: int, outcome: RunOutcome) -> None:
        """Answer all who wait for this run."""
        self.watched.pop(num, None)
        for waiter in self._futures.pop(num, ()):
            if not waiter.done():
                waiter.set_result(outcome)

    def miss(self, num: int, error: DurableError) -> None:
        """This run is no longer there to be told about: raise ``error`` in all who wait for it."""
        self.watched.pop(num, None)
        for waiter in self._futures.pop(num, ()):
            if not waiter.done():
                waiter.set_exception(error)

    def fail(self, error: StoreError) -> None:
        """Nobody will be told any more: raise ``error`` in all."""
        for waiter in [waiter for waiters in self._futures.values() for waiter in waiters if not waiter.done()]:
            waiter.set_exception(error)
        self._futures.clear()
