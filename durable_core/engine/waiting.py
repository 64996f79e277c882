"""Calls that wait for the end of a run.

Invariant: a waiter gets only durable outcomes: from this process's worker, or from a look at the store.
"""

import asyncio
from collections.abc import Container, Sequence
from typing import NamedTuple

from durable_core.errors import DurableError, RunNotFound, StoreError
from durable_core.model.run import ENDS, RunRecord, RunStatus
from durable_core.model.texts import is_text
from durable_core.ports import Store


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
        """The ids, by number, of the awaited runs that another process may end."""

    def __len__(self) -> int:
        return len(self._futures)

    def add(self, num: int, loop: asyncio.AbstractEventLoop) -> "asyncio.Future[RunOutcome]":
        """A waiter for this run; pass it to ``forget`` afterwards."""
        waiter: asyncio.Future[RunOutcome] = loop.create_future()  # to ask for the running one costs a system call
        self._futures.setdefault(num, []).append(waiter)
        return waiter

    def forget(self, num: int, waiter: "asyncio.Future[RunOutcome]") -> None:
        """Remove ``waiter``."""
        waiters = self._futures.get(num)
        if waiters is not None:
            if waiter in waiters:
                waiters.remove(waiter)
            if not waiters:
                del self._futures[num]
                self.watched.pop(num, None)

    def waits_for(self, num: int) -> bool:
        """Whether this run is awaited."""
        return num in self._futures

    def resolve(self, num: int, outcome: RunOutcome) -> None:
        """Give the outcome of this run to all that wait for it."""
        self.watched.pop(num, None)
        for waiter in self._futures.pop(num, ()):
            if not waiter.done():
                waiter.set_result(outcome)

    def reject(self, num: int, error: DurableError) -> None:
        """Raise ``error`` in all that wait for this run."""
        self.watched.pop(num, None)
        for waiter in self._futures.pop(num, ()):
            if not waiter.done():
                waiter.set_exception(error)

    def close(self, error: StoreError) -> None:
        """Raise ``error`` in all waiters."""
        for waiter in [waiter for waiters in self._futures.values() for waiter in waiters if not waiter.done()]:
            waiter.set_exception(error)
        self._futures.clear()

    async def ask(self, store: Store, *, elsewhere_than: Container[int]) -> None:
        """Look in the store for awaited runs that have ended or are stuck, except for those driven here."""
        watched = {num: run_id for num, run_id in self.watched.items() if num not in elsewhere_than}
        if not watched:
            return
        found = {record.num: record for record in await store.runs.find(list(watched.values()))}
        for record in found.values():
            if is_settled(record):
                self.resolve(record.num, RunOutcome.of(record))
        for num, run_id in watched.items():
            if num not in found:  # it has ended, and was purged before this look
                self.reject(num, await missing(store, [run_id]))


def is_settled(record: RunRecord) -> bool:
    """Whether a run has an outcome: it has ended, or it is stuck."""
    return record.status in ENDS or record.status is RunStatus.STUCK


async def missing(store: Store, ids: Sequence[str]) -> RunNotFound:
    """The error to raise for the first of these ids, as no run has any of them; one of them may have been purged."""
    for stone in await store.retention.tombstones([id for id in ids if is_text(id)]):
        why = f"{stone.told}; nothing is left of it but its id. Look into the archive, if one was written"
        return RunNotFound(why, run_id=stone.id, purged_at_ns=stone.purged_at_ns)
    return RunNotFound(f"no run has the id {ids[0]!r} in this store", "Check the id and the store", run_id=ids[0])
