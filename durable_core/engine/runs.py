"""Runs of one store by name and id: starting them, looking at them, signalling them.

Invariant: what a call reports has been committed before it returns.
"""

import asyncio
import contextlib
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import attrs

from durable_core.engine.archive_file import ArchiveFile
from durable_core.engine.purge import PurgeReport, Purging, preview, purge
from durable_core.engine.runtime import POLL_S, Runtime
from durable_core.engine.starting import StartReceipt, announced_version, encoded_call, new_run
from durable_core.engine.waiters import RunOutcome
from durable_core.engine.worker import Worker
from durable_core.errors import LeaseLost, RunExists
from durable_core.model.duration import moment
from durable_core.model.entry import Entry
from durable_core.model.keys import check_id
from durable_core.model.run import ENDS, NewRun, RunQuery, RunRecord, RunRef, RunStatus
from durable_core.model.spec import DurableFunction
from durable_core.model.texts import is_text
from durable_core.model.version import Announced, Tally
from durable_core.ports import Signal

TAKEN_S = 5.0
"""How long a verb waits for its signal to be taken up by this process; it is durable before."""


class Runs(Runtime):
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
            RunExists: the id is taken by another function or input, or was by a run that has been purged.
            DefinitionError: unknown function, or arguments that do not match its signature.
            PayloadError: an argument cannot be stored.
            StoreError: the store did not take it; nothing was started.
        """
        definition = self.registry.find(name, version)
        version = version if definition else await announced_version(self.store, self.registry, name, version)
        if id is not None:
            check_id(id)
        payload = encoded_call(name, definition, args, dict(kwargs or {}), codec=self.codec)
        await self.writer.room()
        worker = None if definition is None or self._worker is None or self._worker.leaving else self._worker
        uid = self.ids.uid()
        row = new_run(
            self.store.journal.next_num(),
            id or self.ids.name(),
            uid,
            name=name,
            version=definition.version if definition is not None else version or 1,
            owner=None if worker is None else worker.worker,
            span_ns=definition.deadline_ns if deadline_ns is None and definition is not None else deadline_ns,
            input=payload,
            now_ns=self.clock.now_ns(),
            traceparent=None if self.context is None else self.context.origin(uid, name, trace),
        )
        if self.registry.fresh and self._announcer is not None:
            await self._announcer.announce()
        while not await self._put(row, definition, worker):
            if existing := await self._existing(row):
                return existing
            row = row._replace(num=self.store.journal.next_num())
        if definition is None and self._vigil is not None:
            self._vigil.stir()  # the store does not tell this process of what it has written itself
        return RunRef(row.num, row.id, row.name, row.version)

    def _put(self, row: NewRun, definition: DurableFunction | None, worker: Worker | None) -> "asyncio.Future[bool]":
        """Queue the start; the answer comes once it is durable, and is False where its id is taken."""
        starting = StartReceipt(row.name, self.writer.loop.create_future())
        if worker is not None and definition is not None:
            worker.start(row, definition, starting)
        else:
            self.writer.start(row, starting)
        return starting.told

    async def _existing(self, row: NewRun) -> RunRef | None:
        """The run that has this id already; it must be the same function on the same input. None: the id is free again.

        Asked in this order, because a purge may turn the run into a tombstone meanwhile, and never the other way round.
        """
        if found := await self.store.runs.find([row.id]):
            return _same(row, found[0])
        for stone in await self.store.retention.tombstones([row.id]):
            free = "" if stone.until_ns is None else f", or wait until {moment(stone.until_ns)}, when it is free again"
            raise RunExists(
                f"the id is taken: {stone.told}. Whether it was the same call cannot be told any more, so nothing was "
                f"started. Use another id{free}",
                run_id=row.id,
                purged_at_ns=stone.purged_at_ns,
            )
        return None

    # -- looking ---------------------------------------------------------------------------------------------------

    async def find(self, run_id: str) -> RunRecord:
        """The run's row.

        Raises:
            RunNotFound: no run has this id, or none any more.
        """
        found = await self.store.runs.find([run_id]) if is_text(run_id) else []
        if not found:
            raise await self.missing([run_id])
        return found[0]

    async def select(self, query: RunQuery) -> list[RunRecord]:
        """Runs that ``query`` describes, newest first."""
        return await self.store.runs.select(await self._timed(query))

    async def count(self, query: RunQuery) -> int:
        """How many runs ``query`` describes."""
        return await self.store.runs.count(await self._timed(query))

    async def _timed(self, query: RunQuery) -> RunQuery:
        """With the time at which it is asked, where it is about runs that wait in vain."""
        if not query.attention:
            return query
        await self.store.claims.release_dead()  # what the dead served is served no more
        return attrs.evolve(query, at_ns=self.clock.now_ns())

    async def in_vain(self, records: Sequence[RunRecord]) -> frozenset[int]:
        """The numbers of those that wait in vain now, as ``Store.unserved`` says; for runs that were just read."""
        now_ns = self.clock.now_ns()
        due = [each for each in records if each.ended_at_ns is None and each.owner is None]
        due = [each for each in due if each.wake_at_ns is not None and each.wake_at_ns <= now_ns]
        if not due:
            return frozenset()
        served = {(each.name, each.version) for each in await self.store.versions.announced() if each.workers}
        due = [each for each in due if (each.name, each.version) not in served]
        paused = [each.num for each in due if each.paused]
        signalled = {signal.run for signal in await self.store.signals.waiting(paused)} if paused else set[int]()
        return frozenset(each.num for each in due if not each.paused or each.num in signalled)

    async def versions(self, name: str | None = None) -> tuple[list[Announced], list[Tally]]:
        """What workers have announced, and how many runs there are of each version; of one name where given."""
        await self.store.claims.release_dead()  # what the dead served is served no more
        announced = [each for each in await self.store.versions.announced() if name in {None, each.name}]
        return announced, await self.store.versions.tally(name)

    async def journal(self, num: int) -> list[Entry]:
        """The run's journal, as far as it is durable."""
        return (await self.store.journal.load([num]))[num]

    async def journals(self, nums: Sequence[int]) -> dict[int, list[Entry]]:
        """The journals of several runs in one query."""
        return await self.store.journal.load(nums)

    async def outcome(self, num: int, run_id: str) -> RunOutcome:
        """Wait until the run has ended or is stuck; at once where it is so already.

        Raises:
            RunNotFound: it was purged.
        """
        waiter = self._waiters.add(num, self.writer.loop)
        try:
            if self._worker is None or num not in self._worker.runs:
                record = await self.store.runs.find_num(num)
                if record is None:
                    raise await self.missing([run_id])
                if record.status in ENDS or record.status is RunStatus.STUCK:
                    return RunOutcome.of(record)
            self._waiters.watched[num] = run_id
            return await waiter
        finally:
            self._waiters.forget(num, waiter)

    # -- purging ---------------------------------------------------------------------------------------------------

    async def purge(
        self,
        *,
        before_ns: int,
        name: str | None = None,
        limit: int | None = None,
        archive: str | None = None,
        dry_run: bool = False,
    ) -> PurgeReport:
        """Remove runs that ended before that time, the longest ended first, in small transactions; durable on return.

        Args:
            before_ns: by the clock of whoever ended them.
            name: only runs of this function.
            limit: at most so many.
            archive: a file to append each run to, as a line of JSON, before it is removed.
            dry_run: only count them.

        Raises:
            StoreError: the store or the archive failed. What is not in the archive was not removed.
        """
        plan = Purging(before_ns=before_ns, name=name, limit=limit, id_retention_ns=self.settings.id_retention_ns)
        await self.writer.flushed()
        if dry_run:
            return await preview(self.store, plan)
        if archive is None:
            return await purge(self.store, self.clock, plan)
        with contextlib.closing(ArchiveFile(archive)) as file:
            return await purge(self.store, self.clock, plan, file)

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
        self.home.check("Runs.signal")
        worker = self._worker
        run = worker.runs.get(record.num) if worker is not None else None
        if worker is not None and run is not None and not run.dead and not worker.leaving and not label:
            run.settle()
            if run.row.phase != record.phase or run.dead:
                await self.writer.flushed()
                return False
            if not run.tell(name, payload):
                return False
            try:
                await self.writer.flushed()
            except LeaseLost:
                return False  # another worker drives it now
            return not run.row.void
        await self.writer.flushed()  # the run has left memory: what it leaves behind must be on disk before it is told
        stored = Signal.stored(name, since, label)
        ended = record.ended_at_ns is not None
        if not await self.store.signals.send(record.num, stored, payload, now_ns=self.clock.now_ns(), ended=ended):
            return False
        if self._vigil is not None:
            self._vigil.stir()
        if worker is not None and self.serves(record) and not worker.leaving:
            self._loader.signalled(record.num, name)
            await self._taken_up(record)
        return True

    async def withdraw(self, signals: Sequence[int]) -> None:
        """Take signals back that nobody has taken up; durable on return."""
        for signal in signals:
            self.writer.consume(signal)
        await self.writer.flushed()

    async def will_pause(self, record: RunRecord) -> bool:
        """Whether the run is paused once it has taken up the signals that wait for it.

        Look at the row again afterwards for the rest: what is taken up meanwhile is in it.
        """
        waiting = [signal.name for signal in await self.store.signals.waiting([record.num])]
        told = [name for name in waiting if name in ("pause", "resume")]
        return told[-1] == "pause" if told else (await self.find(record.id)).paused

    async def _taken_up(self, record: RunRecord) -> None:
        """Wait, for a while, until some worker has taken the signal up: it is durable already."""
        loop = asyncio.get_running_loop()
        until = loop.time() + TAKEN_S
        patience_s = POLL_S
        while loop.time() < until and await self.store.signals.waiting([record.num]):
            if self._worker is not None and self._worker.lingering.is_awaited(record.num):
                return  # it is taken up once what is under way has returned, however long that takes
            if self._worker is None or (await self.find(record.id)).owner not in (None, self._worker.worker):
                return  # its own worker will take it up
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(patience_s):
                    await self._loader.taken(record.num)
            patience_s *= 2  # many may wait at once, and asking costs the worker that they wait for

    def waiting_for(self, num: int, key: str) -> object:
        """What a run in this process's memory waits for at ``key``; None where it is not here, or about to leave."""
        worker = self._worker
        run = None if worker is None or worker.leaving else worker.runs.get(num)
        return None if run is None or run.dead else run.waits.get(key)

    def serves(self, record: RunRecord) -> bool:
        """Whether this process drives runs of that function and version."""
        return self._worker is not None and (record.name, record.version) in self.registry.served()


def _same(row: NewRun, record: RunRecord) -> RunRef:
    """The run that has the id of ``row``, where it is the same function on the same input."""
    if record.name != row.name or record.input != row.input:
        other = f"{record.name} v{record.version}" if record.name != row.name else "the same function with other input"
        raise RunExists(
            f"the id {row.id!r} is taken by {other}, begun before; nothing was started. "
            "Use another id, or start it with the same input to get that run",
            run_id=row.id,
        )
    return RunRef(record.num, record.id, record.name, record.version)
