"""Runs of one store by name and id: starting them, looking at them, signalling them.

Invariant: what a call reports has been committed before it returns.
"""

import asyncio
import contextlib
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from durable_core.errors import RunExists, RunNotFound, StoreError
from durable_core.kernel import POLL_S, Kernel
from durable_core.model.entry import Entry
from durable_core.model.keys import check_id
from durable_core.model.run import ENDS, NewRun, RunQuery, RunRecord, RunRef, RunStatus, reopened
from durable_core.model.spec import DurableFunction
from durable_core.runtime.starting import announced_version, encoded_call, new_run
from durable_core.runtime.waiters import RunOutcome
from durable_core.runtime.worker import Worker

TAKEN_S = 5.0
"""How long a verb waits for its signal to be taken up by this process; it is durable before."""


class Runs(Kernel):
    """The calls that a layer above makes: functions go by their names, and results are told as they are stored."""

    # -- starting --------------------------------------------------------------------------------------------------

    async def begin(
        self,
        name: str,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
        *,
        id: str | None = None,
        version: int | None = None,
        deadline_ns: int | None = None,
        trace: Literal["link", "join"] = "link",
    ) -> RunRef:
        """Start a run; it is durable on return.

        The same id with the same function and input gives the existing run. ``trace`` says whether the run's trace
        links to the one that is current here, or joins it.

        Raises:
            RunExists: the id is taken by another function or input.
            DefinitionError: unknown function, or arguments that do not match its signature.
            PayloadError: an argument cannot be stored.
            StoreError: the store did not take it; nothing was started.
        """
        writer = self.writer
        definition = self.registry.find(name, version)
        if definition is None:
            version = await announced_version(self.store, self.registry, name, version)
        if id is not None:
            check_id(id)
        what = f"starting {name}: the arguments"
        payload = encoded_call(definition, args, dict(kwargs or {}), codec=self.codec, what=what)
        if writer.crowded:
            await writer.room()
        here = definition is not None and self._worker is not None and not self._worker.leaving
        worker = self._worker if here else None
        span_ns = definition.deadline_ns if deadline_ns is None and definition is not None else deadline_ns
        uid = self.ids.uid()
        row = new_run(
            self.store.next_num(),
            id or self.ids.name(),
            uid,
            name=name,
            version=definition.version if definition is not None else version or 1,
            owner=None if worker is None else worker.worker,
            span_ns=span_ns,
            input=payload,
            now_ns=self.clock.now_ns(),
            traceparent=None if self.context is None else self.context.origin(uid, name, trace),
        )
        if not await self._begin(row, definition, worker):
            return await self._existing(row)
        return RunRef(row.num, row.id, row.name, row.version)

    async def _begin(self, row: NewRun, definition: DurableFunction | None, worker: Worker | None) -> bool:
        """Write the start; False where its id is taken."""
        told: asyncio.Future[bool] = asyncio.get_running_loop().create_future()

        def settled(accepted: bool, error: StoreError | None) -> None:  # noqa: FBT001
            if told.done():
                return
            if error is not None:
                told.set_exception(refused(error, f"{row.name} was not started"))
            else:
                told.set_result(accepted)

        if worker is not None and definition is not None:
            worker.start(row, definition, settled)
        else:
            self.writer.start(row, settled)
        return await told

    async def _existing(self, row: NewRun) -> RunRef:
        """The run that has this id already; it must be the same function on the same input."""
        record = await self.find(row.id)
        if record.name != row.name or record.input != row.input:
            other = (
                f"{record.name} v{record.version}" if record.name != row.name else "the same function with other input"
            )
            raise RunExists(
                f"the id {row.id!r} is taken by {other}, begun before; nothing was started. "
                "Use another id, or start it with the same input to get that run",
                run_id=row.id,
            )
        return RunRef(record.num, record.id, record.name, record.version)

    # -- looking ---------------------------------------------------------------------------------------------------

    async def find(self, run_id: str) -> RunRecord:
        """The run's row.

        Raises:
            RunNotFound: no run has this id.
        """
        found = await self.store.find([run_id])
        if not found:
            raise RunNotFound(f"no run has the id {run_id!r} in this store; check the id and the store", run_id=run_id)
        return found[0]

    async def select(self, query: RunQuery) -> list[RunRecord]:
        """Runs that ``query`` describes, newest first."""
        return await self.store.select(query)

    async def count(self, query: RunQuery) -> int:
        """How many runs ``query`` describes."""
        return await self.store.count(query)

    async def journal(self, num: int) -> list[Entry]:
        """The run's journal, as far as it is durable."""
        return (await self.store.load([num]))[num]

    async def journals(self, nums: Sequence[int]) -> dict[int, list[Entry]]:
        """The journals of several runs in one query."""
        return await self.store.load(nums)

    async def outcome(self, num: int, run_id: str) -> RunOutcome:
        """Wait until the run has ended or is stuck; at once where it is so already."""
        waiter = self._waiters.add(num)
        if self._worker is None or num not in self._worker.runs:
            record = await self.find(run_id)
            if record.status in ENDS or record.status is RunStatus.STUCK:
                self._waiters.forget(num, waiter)
                return RunOutcome.of(record)
        self._waiters.watched[num] = run_id
        try:
            return await waiter
        finally:
            self._waiters.forget(num, waiter)

    # -- operators -------------------------------------------------------------------------------------------------

    async def flushed(self) -> None:
        """Return once all that this process has queued is durable."""
        await self.writer.flushed()

    async def signal(self, record: RunRecord, name: str, payload: bytes, *, label: str = "", since: int = 0) -> bool:
        """Signal a run; the signal is durable on return, and taken up where this process drives the run.

        False where the run has moved on since it was found, so that whether the signal makes sense must be judged anew;
        nothing was done then.

        Args:
            record: the run as it was found.
            name: the signal's name.
            payload: its data, JSON.
            label: a given-up step to attempt again, or ``abandon``; see ``EntryKind.SIGNALLED``.
            since: the journal entry from which on all is void then.
        """
        worker = self._worker
        run = worker.runs.get(record.num) if worker is not None else None
        if worker is not None and run is not None and not run.dead:
            run.settle()
            if run.phase != record.phase or run.dead:
                await self.writer.flushed()
                return False
            worker.deliver(run, name, payload)
            await self.writer.flushed()
            return True
        await self.writer.flushed()  # the run has left memory: what it leaves behind must be on disk before it is told
        stored = f"{name} {since} {label}" if label else name
        ended = record.ended_at_ns is not None
        if not await self.store.signal(record.num, stored, payload, now_ns=self.clock.now_ns(), ended=ended):
            return False
        if ended:
            self.writer.update(reopened(record, now_ns=self.clock.now_ns()))
            await self.writer.flushed()
        if worker is not None and self.serves(record) and not worker.leaving:
            worker.poke()
            await self._taken_up(record)
        return True

    async def _taken_up(self, record: RunRecord) -> None:
        """Wait, for a while, until some worker has taken the signal up: it is durable already."""
        loop = asyncio.get_running_loop()
        until = loop.time() + TAKEN_S
        while loop.time() < until and await self.store.signals([record.num]):
            if self._worker is None or (await self.find(record.id)).owner not in (None, self._worker.worker):
                return  # its own worker will take it up
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(POLL_S):
                    await self._worker.taken(record.num)

    def waiting_for(self, num: int, key: str) -> object:
        """What a run in this process's memory waits for at ``key``; None where it is not here."""
        run = self._worker.runs.get(num) if self._worker is not None else None
        return None if run is None or run.dead else run.waits.get(key)

    def serves(self, record: RunRecord) -> bool:
        """Whether this process drives runs of that function and version."""
        return self._worker is not None and (record.name, record.version) in self.registry.served()


def refused(error: StoreError, what: str) -> StoreError:
    """The store's refusal, told for one call."""
    plain = str(error.args[0]).rpartition(" [")[0]
    told = type(error)(f"{what}: {plain}", transient=error.transient)
    told.__cause__ = error
    return told
