"""Takes runs from the store into the worker's memory: those that are due, and its own that were dropped from memory.

Invariant: a signal that waits for a run is taken up before the run goes on, whoever drove it before.
"""

import asyncio
from collections.abc import Sequence
from functools import partial

import attrs

from durable_core.engine.worker import Worker
from durable_core.model.entry import Entry
from durable_core.model.run import RunRecord, RunStatus
from durable_core.ports import Signal

MOST_CLAIMED = 500
"""Runs claimed in one transaction."""


class Loader:
    """Claims and loads for one worker."""

    __slots__ = ("_takers", "_worker")

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._takers: dict[int, list[asyncio.Future[None]]] = {}
        """Futures that are set once the signals of a run have been taken up."""

    async def taken(self, num: int) -> None:
        """Return once the signals that wait for this run have been taken up, durably."""
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._takers.setdefault(num, []).append(waiter)
        await waiter

    def _notify_takers(self, num: int) -> None:
        for waiter in self._takers.pop(num, ()):
            if not waiter.done():
                waiter.set_result(None)

    # -- looking ---------------------------------------------------------------------------------------------------

    async def look(self, *, changed: bool) -> None:
        """Take up what other processes left, and claim what is due. ``changed``: another process has written."""
        due = self._worker.due
        if self._worker.leaving:
            due.poked.clear()
            return
        due.looking = True
        try:
            if changed:
                await self._take_signals()
            if changed or due.poked.is_set():
                due.poked.clear()
                await self._load_again()
                await self._claim()
        finally:
            due.looking = False

    async def _take_signals(self) -> None:
        worker = self._worker
        consuming = worker.writer.consuming()  # as of before the question: what it still shows is among them
        for signal in await worker.store.signals.waiting([*worker.runs, *worker.lingering]):
            run = worker.runs.get(signal.run)
            if signal.num in consuming:
                continue
            if run is None:
                self.signalled(signal.run, signal.verb)
            elif run.dead:
                continue
            elif signal.label:
                worker.reload(run)  # it changes what is replayed
            elif run.tell(signal.verb, signal.payload):
                worker.consume(signal, run)
        # One that left memory with a signal of its may have more: the store makes it due, and nothing else would ask.
        worker.after(worker.due.poked.set)

    def signalled(self, num: int, verb: str) -> None:
        """A signal waits for a run that is not in memory."""
        self._worker.lingering.signalled(num, verb)
        self._worker.due.poked.set()

    async def _load_again(self) -> None:
        """Drive again what is ours and was dropped from memory: a signal came first, or an attempt was cut."""
        worker = self._worker
        again = worker.due.again
        if not again or worker.leaving:
            return
        await worker.writer.flushed()
        nums = sorted(again)
        records = {record.num: record for record in await worker.store.runs.find_nums(nums)}
        journals = await worker.store.journal.load(nums)
        signals = await self._signals_for(nums)
        if self._is_leaving():
            return
        for num in nums:
            again.discard(num)
            record = records.get(num)
            if num in worker.runs:
                continue
            if record is None or record.owner != worker.worker or record.ended_at_ns is not None:
                worker.lingering.found(num, ours=False)
            elif (why := worker.due.refused.pop(num, None)) is not None:
                worker.show_refused(record, journals[num], why)
            else:
                self._adopt_again(record, journals[num], signals.get(num, []))

    def _adopt_again(self, record: RunRecord, entries: list[Entry], signals: Sequence[Signal]) -> None:
        """Drive a run again that has been ours all the time."""
        worker = self._worker
        worker.lingering.found(record.num, ours=True)
        worker.adopt(attrs.evolve(record, status=RunStatus.RUNNING), entries, signals)
        run = worker.runs.get(record.num)
        if run is not None and not run.dead:
            run.save(owner=worker.worker, wake_at_ns=None)
        self._taken_up(record.num)

    def _taken_up(self, num: int) -> None:
        if num in self._takers:
            self._worker.after(partial(self._notify_takers, num))

    async def _signals_for(self, nums: Sequence[int]) -> dict[int, list[Signal]]:
        """The signals that wait for these runs, by run."""
        waiting: dict[int, list[Signal]] = {}
        for signal in await self._worker.store.signals.waiting(nums):
            waiting.setdefault(signal.run, []).append(signal)
        return waiting

    async def _claim(self) -> None:
        """Claim what is due, as far as there is room."""
        worker, due = self._worker, self._worker.due
        served = worker.registry.served()
        now_ns = worker.now_ns()
        while served and not worker.leaving:
            room = worker.slots.claimable()
            if not room:
                return  # the next run that leaves pokes
            if not due.claimed:
                now_ns = worker.now_ns()
                due.claimed = await worker.store.claims.claim(
                    worker.worker, served, now_ns=now_ns, limit=min(room, MOST_CLAIMED)
                )
            if not due.claimed:
                break
            nums = [record.num for record in due.claimed]
            journals = await worker.store.journal.load(nums)
            signals = await self._signals_for(nums)
            if self._is_leaving():
                return  # no body is driven any more, nor along its journal; leaving gives back what was claimed
            records, due.claimed = [one for one in due.claimed if one.owner == worker.worker], []
            for record in records:
                worker.adopt(record, journals[record.num], signals.get(record.num, []))
                self._taken_up(record.num)
            worker.slots.claimed(len(records))
        worker.slots.claimed(0)
        worker.admit()
        next_ns = await worker.store.runs.next_wake_ns(
            after_ns=now_ns
        )  # by then more may be due, and nothing else would ask
        if next_ns is not None:
            due.wake_by(next_ns)

    def _is_leaving(self) -> bool:
        """Asked after each wait, in which that may have begun."""
        return self._worker.leaving
