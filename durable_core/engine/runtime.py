"""Durable functions on one store: the composition root, and the calls that a layer above makes.

Invariants: what a call reports has been committed before it returns. On exit nothing is under way any more, and calls
that still wait for a run raise.
"""

import asyncio
import contextlib
import os
import socket
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self
from weakref import WeakValueDictionary

import attrs

from durable_core.engine.clock import SystemIds, clock_of
from durable_core.engine.home import Home
from durable_core.engine.polling import ChangeListener, Health, Poller
from durable_core.engine.process import ObserverProcess, WorkerProcess, follow_others
from durable_core.engine.registry import Registry, Rewritten, VersionAnnouncer, warn
from durable_core.engine.retention import ArchiveFile, Housekeeper, PurgeReport, Purging, preview, purge
from durable_core.engine.settings import Settings
from durable_core.engine.start import Restart, StartReceipt, announced_version, encoded_call, existing, new_run
from durable_core.engine.waiting import RunOutcome, Waiters, is_settled, missing
from durable_core.engine.watch import Attention, UnservedWatch
from durable_core.engine.worker import Worker
from durable_core.engine.writer import Writer
from durable_core.errors import LeaseLost, RunNotFound, StoreError
from durable_core.model.codec import Codec
from durable_core.model.damage import check_rows
from durable_core.model.entry import Entry
from durable_core.model.keys import check_id
from durable_core.model.run import NewRun, RunQuery, RunRecord, RunRef
from durable_core.model.spec import DurableFunction
from durable_core.model.texts import is_text
from durable_core.model.trace import asked_by
from durable_core.model.version import Announced, Tally
from durable_core.model.worker import worker_name
from durable_core.ports import Clock, Ids, Signal, Store
from durable_core.replay.cursor import End
from durable_core.replay.run import Run
from durable_core.stores import store_of

if TYPE_CHECKING:
    from durable_core.tracing.exporter import Exporter
    from durable_core.tracing.wiring import Tracing

_USED: WeakValueDictionary[int, Store] = WeakValueDictionary()
"""The stores that engines have entered, by identity: one instance serves one engine."""
FLUSH_S = 1.0
"""How long leaving waits at least for queued rows to be written, however short its grace."""


class Runtime:
    """Durable functions on one store.

    Args:
        url: ``sqlite:///file.db``, ``postgresql://user@host/database``, ``memory://`` or ``memory://name``.
        functions: the durable functions that this process serves.
        settings: see ``Settings``.
        clock: drives waits, retry delays and step timeouts; default the system's.
        ids: makes identities and jitter.
        store: a store instead of ``url``. One that is open is opened anew, as this worker's; leaving closes it.
        noun: what the layer calls a run, for messages; see ``DurableFunction.noun``.
        not_open: what is said of a call outside its ``async with`` block, and the advice.
        tracing: where the spans of runs go; None: nowhere.

    Use it as an asynchronous context manager. On entry it recovers the runs of a dead process.
    """

    def __init__(
        self,
        url: str | None = None,
        functions: Sequence[DurableFunction] = (),
        *,
        settings: Settings | None = None,
        clock: Clock | None = None,
        ids: Ids | None = None,
        store: Store | None = None,
        noun: str = "run",
        not_open: tuple[str, str] = ("this engine is not open", "Use it within its `async with` block"),
        on_attention: Callable[[str], Awaitable[None]] | None = None,
        on_rewritten: Rewritten = warn,
        tracing: "Tracing | None" = None,
    ) -> None:
        self.settings = settings or Settings()
        self._attention = Attention(on_attention)
        self._on_rewritten = on_rewritten
        self.clock = clock_of(clock)
        self.ids: Ids = ids or SystemIds()
        self.home, self.codec = Home(not_open), Codec()
        self.registry = Registry(noun)
        for function in functions:
            self.registry.add(function)
        self.store: Store = store_of(
            url, store, lease_s=self.settings.lease_s, patience_s=self.settings.store_timeout_s
        )
        self.tracing = tracing
        self.context = None if tracing is None else tracing.context
        self._process: ObserverProcess | WorkerProcess = ObserverProcess()
        self._poller: Poller | None = None
        """None unless the engine is open."""
        self._leaving = contextlib.AsyncExitStack()
        """Undoes the entry, step by step."""
        self.name = self._new_name()

    def _new_name(self) -> str:
        """Rename this worker; no worker has ever had the new name."""
        self.name = worker_name(self.ids.name(), host=socket.gethostname(), pid=os.getpid())
        return self.name

    # -- life ------------------------------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        self.home.check("entering it")
        store = self.store
        if _USED.get(id(store)) is store:
            raise StoreError("this store is open already, in an engine", "Give each engine a store of its own")
        async with contextlib.AsyncExitStack() as leaving:
            await store.close()  # a program may have opened it, but not as this worker's
            await store.open(worker=self.name if self.settings.worker else None)
            leaving.push_async_callback(store.close)
            _USED[id(store)] = store
            leaving.callback(_USED.pop, id(store), None)
            await self._enter(leaving)
            self._leaving = leaving.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.home.check("leaving it")
        leaving, self._leaving = self._leaving, contextlib.AsyncExitStack()
        await leaving.aclose()

    async def _enter(self, leaving: contextlib.AsyncExitStack) -> None:
        """Begin to work on a store that is open; ``leaving`` gets the counterpart of each step, to be run backwards."""
        await follow_others(self.clock, self.store)
        waiters = Waiters()
        leaving.push_async_callback(self._attention.close)
        leaving.callback(
            waiters.close,
            StoreError(
                f"the engine was left during this call; the {self.noun} continues, ask another engine on its store"
            ),
        )
        writer = Writer(self.store, asyncio.get_running_loop(), patience_s=self.settings.store_timeout_s)
        if self.tracing is not None:
            writer.timed = self.tracing.commit_timer()
        process = await self._worker_process(writer, waiters) if self.settings.worker else ObserverProcess()
        self._process = process
        leaving.push_async_callback(process.close_exporter)
        leaving.callback(self._close)
        leaving.push_async_callback(writer.close, within_s=max(self.settings.grace_s, FLUSH_S))
        leaving.push_async_callback(process.close, grace_s=self.settings.grace_s)
        await process.enter()
        self.clock.attach(self)
        leaving.callback(self.clock.detach, self)
        self._poller = Poller(self.store, self.clock, process, writer, waiters)
        leaving.push_async_callback(self._poller.close)
        leaving.callback(process.stop)
        self.home.enter()

    def _close(self) -> None:
        self._poller = None
        self.home.leave()

    async def _worker_process(self, writer: Writer, waiters: Waiters) -> WorkerProcess:
        """Announce a worker, and make it and its chores."""
        store, clock, settings = self.store, self.clock, self.settings
        announcer = VersionAnnouncer(store, self.registry, clock, self._on_rewritten, own=lambda: self.name)
        await announcer.enter(self._new_name)
        worker = Worker(
            name=self.name,
            store=store,
            writer=writer,
            registry=self.registry,
            secret=self.secret,
            clock=clock,
            ids=self.ids,
            concurrency=settings.concurrency,
            threads_at_once=settings.threads,
            max_crashes=settings.max_crashes,
            codec=self.codec,
            on_outcome=partial(self._settled, waiters),
            on_attention=self._attention.ask_for,
            tracing=self.context,
            faults=settings.faults,
            die=self.die,
        )
        return WorkerProcess(
            worker,
            writer,
            announcer,
            unserved=UnservedWatch(store, clock, self._attention, wake=worker.poked.set),
            housekeeper=Housekeeper(
                store, clock, retention_ns=settings.retention_ns, id_retention_ns=settings.id_retention_ns
            ),
            new_name=self._new_name,
            new_exporter=partial(self._new_exporter, writer),
        )

    async def _new_exporter(self, writer: Writer) -> "Exporter | None":
        """Begin to export the spans of this worker, if they are wanted."""
        tracing = self.tracing
        if tracing is None:
            return None
        from durable_core.tracing.exporter import Exporter  # noqa: PLC0415 - only if spans are wanted

        exporter = Exporter(
            self.store,
            self.name,
            tracing.sink,
            tracing.vocabulary,
            progress=lambda: writer.written,
            now_ns=self.clock.now_ns,
            failures=tracing.failures,
            meters=tracing.meters,
        )
        await exporter.start()
        return exporter

    def _settled(self, waiters: Waiters, run: Run, end: End | None) -> None:
        """A run of this process has ended or is stuck, durably."""
        if end is None:
            self._attention.ask_for(run.id)
        num = run.identity.num
        if waiters.waits_for(num):
            output, error = (end.output, end.error) if end is not None else (None, None)
            waiters.resolve(num, RunOutcome(run.row.status, run.row.phase, output, error, run.row.reason))

    # -- state -----------------------------------------------------------------------------------------------------

    @property
    def noun(self) -> str:
        """What the layer calls a run."""
        return self.registry.noun

    @property
    def secret(self) -> bytes:
        """What the tokens of callbacks derive from: that of the settings, else the store's own. Known once entered."""
        return self.settings.secret or self.store.secret

    @property
    def writer(self) -> Writer:
        """The store's writer.

        Raises:
            StoreError: the engine has not been entered, or was left.
            WrongLoop: it is asked for from another event loop.
        """
        return self._open.writer

    @property
    def changes(self) -> ChangeListener:
        """Hears that other processes have written. Raises as ``writer`` does."""
        return self._open.changes

    @property
    def exporter(self) -> "Exporter | None":
        """Follows the journal and exports spans, in a worker that is traced; its counts can be read after leaving."""
        return self._process.exporter

    @property
    def _open(self) -> Poller:
        self.home.check("a call that writes")
        if self._poller is None:
            raise StoreError(*self.home.not_open)
        return self._poller

    def health(self) -> Health:
        """Whether it works; for a health check.

        Raises:
            StoreError: the engine has not been entered, or was left.
        """
        return self._open.health()

    def working(self) -> bool:
        """Whether it writes, drives, claims or purges just now; see ``durable_core.testing.ManualClock``."""
        return self._poller is not None and (self._process.busy or self._poller.writer.busy)

    def under_way(self) -> int:
        """Attempts that have been called and have not ended."""
        return 0 if self._poller is None else self._process.under_way()

    def on_threads(self) -> int:
        """Those of them that are on a thread, or wait for one."""
        return 0 if self._poller is None else self._process.on_threads()

    def progress(self) -> int:
        """A number that rises with every row that is written."""
        return 0 if self._poller is None else self._poller.writer.written

    def die(self) -> None:
        """For tests: end this worker as the death of its process would, and open the next one; on its event loop."""
        self._process.die()

    def register(self, function: DurableFunction) -> None:
        """Serve ``function`` too, also while running: it is announced, and its runs are claimed, soon after.

        Raises:
            DefinitionError: another one has this name and version.
        """
        self.registry.add(function)
        self._process.woken.set()

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
        tags: str | None = None,
    ) -> RunRef:
        """Start a run; it is durable on return.

        The same id with the same function and input gives the existing run, as it was begun. ``trace``: whether the
        run's trace links to the one that is current here, or joins it. ``tags`` are as ``write_tags`` has them.

        Raises:
            RunExists: the id is taken by another function or input, or was by a run that has been purged.
            DefinitionError: unknown function, or arguments that do not match its signature.
            PayloadError: an argument cannot be stored.
            StoreError: the store did not take it; nothing was started.
        """
        definition = self.registry.find(name, version)
        if definition is not None:
            version = definition.version
        else:
            version = await announced_version(self.store, self.registry, name, version)
        if id is not None:
            check_id(id)
        payload = encoded_call(name, definition, args, dict(kwargs or {}), codec=self.codec)
        return await self.begin_encoded(
            name, payload, id=id, version=version, deadline_ns=deadline_ns, trace=trace, tags=tags
        )

    async def begin_encoded(
        self,
        name: str,
        payload: bytes,
        *,
        id: str | None,
        version: int,
        deadline_ns: int | None = None,
        trace: Literal["link", "join"] = "link",
        traceparent: str | None = None,
        tags: str | None = None,
        again: Restart | None = None,
    ) -> RunRef:
        """Start a run with arguments that ``CallShape.encode`` has written; it is durable on return.

        The function need not be known here, nor announced by any worker: the run then waits for one that serves it.
        ``traceparent`` is its caller's span, for a process that traces nothing itself.

        Raises:
            RunExists: the id is taken by another function or input, or was by a run that has been purged.
            StoreError: the store did not take it; nothing was started.
        """
        definition = self.registry.find(name, version)
        writer = self.writer
        await writer.room()
        worker, uid = None if definition is None else self._process.starter, self.ids.uid()
        row = new_run(
            self.store.journal.next_num(),
            id or self.ids.name(),
            uid,
            name=name,
            version=version,
            owner=None if worker is None else worker.worker,
            span_ns=definition.deadline_ns if deadline_ns is None and definition is not None else deadline_ns,
            input=payload,
            now_ns=self.clock.now_ns(),
            traceparent=self._origin(uid, name, trace, traceparent),
            tags=tags,
            restarts=None if again is None else again.id,
        )
        if self.registry.fresh:
            await self._process.announce()
        while not await self._put(writer, row, definition, worker, again):
            if found := await existing(self.store, row):
                return found
            row = row._replace(num=self.store.journal.next_num())
        if definition is None:
            self._process.expect_unserved()
        return RunRef(row.num, row.id, row.name, row.version)

    def _origin(self, uid: bytes, name: str, trace: Literal["link", "join"], asked: str | None) -> str | None:
        return asked_by(asked, trace) if self.context is None else self.context.origin(uid, name, trace)

    def _put(
        self,
        writer: Writer,
        row: NewRun,
        definition: DurableFunction | None,
        worker: Worker | None,
        again: Restart | None,
    ) -> "asyncio.Future[bool]":
        """Queue the start; the answer comes once it is durable, and is False if its id is taken."""
        receipt = StartReceipt(row.name, writer.loop.create_future())
        if worker is not None and definition is not None:
            worker.start(row, definition, receipt)
        else:
            writer.start(row, receipt)
        if again is not None:
            remark = again.entry(row, worker="" if worker is None else worker.worker)
            writer.append(remark)
            if receipt.run is not None:
                receipt.run.cursor.seq = remark.seq
        return receipt.accepted

    # -- reading ---------------------------------------------------------------------------------------------------

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
        """The query with the current time, if it is about unserved runs."""
        if not query.attention:
            return query
        await self.store.claims.release_dead()  # a dead worker serves nothing
        return attrs.evolve(query, at_ns=self.clock.now_ns())

    async def unserved(self, records: Sequence[RunRecord]) -> frozenset[int]:
        """The numbers of those runs that are unserved now, as ``Store.unserved`` defines it; for rows just read."""
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
        """The versions that workers have announced, and the number of runs of each; ``name``: of one function."""
        await self.store.claims.release_dead()  # a dead worker serves nothing
        announced = [each for each in await self.store.versions.announced() if name in {None, each.name}]
        return announced, await self.store.versions.tally(name)

    async def journal(self, num: int) -> list[Entry]:
        """The run's journal, as far as it is durable. Raises ``PayloadError`` where a row is damaged."""
        return (await self.journals([num]))[num]

    async def journals(self, nums: Sequence[int]) -> dict[int, list[Entry]]:
        """The journals of several runs in one query. Raises ``PayloadError`` where a row is damaged."""
        journals = await self.store.journal.load(nums)
        for entries in journals.values():
            check_rows(entries)
        return journals

    async def outcome(self, num: int, run_id: str) -> RunOutcome:
        """Wait until the run has ended or is stuck.

        Raises:
            RunNotFound: it was purged.
        """
        poller = self._open
        waiters = poller.waiters
        waiter = waiters.add(num, poller.writer.loop)
        try:
            if num not in self._process.runs:
                record = await self.store.runs.find_num(num)
                if record is None:
                    raise await self.missing([run_id])
                if is_settled(record):
                    return RunOutcome.of(record)
            waiters.watched[num] = run_id
            return await waiter
        finally:
            waiters.forget(num, waiter)

    async def missing(self, ids: Sequence[str]) -> RunNotFound:
        """The error to raise for the first of these ids, as no run has any of them; it may have been purged."""
        return await missing(self.store, ids)

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
            before_ns: by the clock of the worker that ended them.
            name: only runs of this function.
            limit: at most so many.
            archive: a file to append each run to, as a line of JSON, before it is removed.
            dry_run: only count them.

        Raises:
            StoreError: the store or the archive failed. Runs that are not in the archive were not removed.
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
        """Signal a run; the signal is durable on return, and taken up if this process drives the run.

        False if the run has changed since it was found: nothing was done, and whether the signal is valid must be
        judged anew.

        Args:
            record: the run as it was found.
            name: the signal's name.
            payload: its data, JSON.
            label: a given-up step to attempt again, or ``abandon``; see ``EntryKind.SIGNALLED``.
            since: the journal entry from which on everything is void.
        """
        self.home.check("Runtime.signal")
        run = None if label else self._process.driving(record.num)
        if run is not None:
            return await self._signal_here(run, record, name, payload)
        await self.writer.flushed()  # the run has left memory: its last rows must be on disk before the signal is
        stored = Signal.stored(name, since, label)
        ended = record.ended_at_ns is not None
        if not await self.store.signals.send(record.num, stored, payload, now_ns=self.clock.now_ns(), ended=ended):
            return False
        self._process.expect_unserved()
        await self._process.take_up(record, name)
        return True

    async def _signal_here(self, run: Run, record: RunRecord, name: str, payload: bytes) -> bool:
        """Signal a run that this process drives."""
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

    async def withdraw(self, signals: Sequence[int]) -> None:
        """Take back signals that no worker has taken up; durable on return."""
        for signal in signals:
            self.writer.consume(signal)
        await self.writer.flushed()

    async def will_pause(self, record: RunRecord) -> bool:
        """Whether the run is paused once it has taken up the signals that wait for it.

        Signals that are taken up during this call are not counted: read the run's row again afterwards.
        """
        waiting = [signal.name for signal in await self.store.signals.waiting([record.num])]
        last = [name for name in waiting if name in ("pause", "resume")][-1:]
        return last == ["pause"] if last else (await self.find(record.id)).paused

    def waiting_for(self, num: int, key: str) -> object:
        """What a run in this process's memory waits for at ``key``; None if it is not here, or about to leave."""
        run = self._process.driving(num)
        return None if run is None else run.waits.get(key)

    def serves(self, record: RunRecord) -> bool:
        """Whether this process drives runs of that function and version."""
        return self._process.serves(record)
