"""The worker: owns runs, drives them, and claims those that are due.

Invariant: a run is in the memory of at most one worker, the one that its row names as owner; it is dropped from memory
in the same commit that gives it back.
"""

import asyncio
import logging
from collections.abc import Callable
from functools import partial

from durable_core.errors import DurableError, Fault, StoreError
from durable_core.model.callback import TOLD
from durable_core.model.codec import Codec
from durable_core.model.entry import Entry, EntryKind
from durable_core.model.masking import revealed
from durable_core.model.run import NewRun, RunRecord, RunStatus
from durable_core.model.spec import DurableFunction
from durable_core.ports import Clock, Ids, Store, Timer, TraceContext
from durable_core.ports import Signal as StoredSignal
from durable_core.runtime.admission import Admission, Queued
from durable_core.runtime.attempts import Attempts
from durable_core.runtime.callbacks import answered
from durable_core.runtime.guard import LoopGuard
from durable_core.runtime.ledger import End
from durable_core.runtime.primitives import Primitives
from durable_core.runtime.quarantine import Quarantine
from durable_core.runtime.registry import Registry
from durable_core.runtime.run import Run
from durable_core.runtime.shadow import bindings
from durable_core.runtime.starting import Starting, deadline_of, overdue
from durable_core.runtime.steps import PendingStep
from durable_core.runtime.turn import drive
from durable_core.runtime.writer import Writer

log = logging.getLogger("durable_core")

MOST_CLAIMED = 500
"""Runs claimed in one transaction."""


class Worker:
    """Drives runs on the current event loop. Implements ``Shell``."""

    def __init__(  # noqa: PLR0913 - the parts that an engine is made of
        self,
        *,
        name: str,
        store: Store,
        writer: Writer,
        registry: Registry,
        secret: bytes,
        clock: Clock,
        ids: Ids,
        concurrency: int,
        max_crashes: int,
        codec: Codec,
        on_outcome: Callable[[Run, End | None], None],
        on_attention: Callable[[str], None],
        tracing: TraceContext | None = None,
    ) -> None:
        self.worker, self.store = name, store
        self.writer = writer
        self.registry, self.secret = registry, secret
        self.clock = clock
        self.now_ns, self.draw = clock.now_ns, ids.draw
        self.append, self.update, self.after = writer.append, writer.update, writer.after
        self.max_crashes, self.decoder = max_crashes, codec.decoder
        self.leaving = self._looking = False
        self.runs: dict[int, Run] = {}
        self._admission = Admission(concurrency)
        self._on_outcome, self._on_attention = on_outcome, on_attention
        self._takers: dict[int, list[asyncio.Future[None]]] = {}
        self._loop = asyncio.get_running_loop()
        self.guard = LoopGuard(self._loop)
        self._undriven: list[Run] = []
        self.suspect = Quarantine(self).enter
        self._attempts = Attempts(self, self._loop, store.lease_is_safe, tracing=tracing)
        self._claimed: list[RunRecord] = []  # ours in the store, and not yet in memory
        self.poked = asyncio.Event()
        """Set when something may have become due."""
        self.poked.set()
        self._wake: tuple[int, Timer] | None = None

    async def close(self, *, grace_s: float) -> None:
        """Start nothing new, let attempts under way end for ``grace_s``, and give every run back."""
        for run in self.runs.values():
            if run.in_flight and not run.held:
                # Several may end before another worker drives the body: it must then see them as it would have here.
                run.input(EntryKind.SUSPENDED, "")
        self.leaving = True
        if self._wake is not None:
            self._wake[1].cancel()
        for queued in self._admission.queue:
            queued.run.status = RunStatus.PENDING
            queued.run.save(owner=None, wake_at_ns=0)
        cut = await self._attempts.drain(list(self.runs.values()), within_s=grace_s)
        if cut:
            log.warning(
                "%d attempts were cut: they did not end within the grace of %.3g s and will be run again", cut, grace_s
            )
        for run in list(self.runs.values()):
            run.save(owner=None, wake_at_ns=0)
            run.evict()

    def start(self, row: NewRun, definition: DurableFunction, starting: Starting) -> None:
        """Drive a new run from its start; its row and its first intent are one commit."""
        run = Run(
            self,
            definition,
            num=row.num,
            id=row.id,
            uid=row.uid,
            created_at_ns=row.created_at_ns,
            deadline_at_ns=row.deadline_at_ns,
        )
        run.traceparent = row.traceparent
        args, kwargs = definition.shape.decode(row.input, what=f"run {row.id}: the arguments")
        self.runs[row.num] = run
        run.unsaid = []

        starting.run = run
        self.writer.start(row, starting)
        if row.deadline_at_ns is not None:
            self._watch_deadline(run)
        queued = Queued(run, args, kwargs)
        if self._admission.open:
            self._drive(queued)
        else:
            self._admission.queue.append(queued)

    def _drive(self, queued: Queued) -> None:
        run, args, kwargs = queued
        self._admission.enter(run)
        run.begin(run.definition.fn(Primitives(run), *args, **kwargs))
        self.drive_soon(run)

    def _begin_early(self, run: Run) -> None:
        """Begin a run before its turn: what it is told must find its body in place."""
        queued = self._admission.take(run)
        if queued is not None:
            self._drive(queued)

    def _admit(self) -> None:
        while not self.leaving and (queued := self._admission.next()) is not None:
            self._drive(queued)

    def adopt(self, record: RunRecord, entries: list[Entry], signals: list[StoredSignal]) -> None:
        """Drive a run that another process, or this one earlier, has begun."""
        definition = self.registry.get(record.name, record.version)
        run = self._restored(record, definition)
        entries = list(revealed(self.secret, record.num, record.uid, entries))
        self.runs[record.num] = run
        self._admission.enter(run)
        run.seq = entries[-1].seq if entries else 0
        kill = next((signal for signal in signals if signal.name == "kill"), None)
        if kill is not None:
            run.kill(kill.payload)
        else:
            self._revive(run, record.input, entries, signals)
        for signal in signals:
            self.writer.consume(signal.num)

    def _revive(self, run: Run, input: bytes, entries: list[Entry], signals: list[StoredSignal]) -> None:
        """Feed a run its journal, and then what came meanwhile."""
        try:
            args, kwargs = run.definition.shape.decode(input, what=f"run {run.id}: the arguments")
        except DurableError as unreadable:
            run.inbox = tuple((signal.name.partition(" ")[0], signal.payload, 0) for signal in signals)
            run.park(Fault(f"{unreadable} Bring back the signature that it was started with, then retry the run"))
            return
        early = [signal for signal in signals if " " in signal.name]
        if early:  # they change what is replayed, so they are journalled first
            entries = [*entries, *self._early(run, early)]
        run.inbox = tuple((signal.name, signal.payload, 0) for signal in signals if signal not in early)
        if overdue(run, entries, now_ns=self.now_ns()):
            run.inbox += (("deadline", b"{}", 0),)  # in time: a run that is parked leaves memory as soon as it is fed
        run.bindings = bindings(run, entries, args, kwargs)
        run.begin(run.definition.fn(Primitives(run), *args, **kwargs))
        run.replay(entries)
        self._watch_deadline(run)

    def _restored(self, record: RunRecord, definition: DurableFunction) -> Run:
        """The run as its row says that it stands."""
        run = Run(
            self,
            definition,
            num=record.num,
            id=record.id,
            uid=record.uid,
            created_at_ns=record.created_at_ns,
            status=record.status,
            phase=record.phase,
            paused=record.paused,
            reason=record.reason,
            detail=record.detail,
            deadline_at_ns=deadline_of(record, definition),
        )
        run.traceparent = record.traceparent
        return run

    def _early(self, run: Run, signals: list[StoredSignal]) -> list[Entry]:
        """Journal the signals that have a given-up step attempted again, or the body abandoned."""
        found: list[Entry] = []
        for signal in signals:
            name, since, label = signal.name.split(" ", 2)
            found.append(run.input(EntryKind.SIGNALLED, name, int(since), label, signal.payload))
        return found

    def deliver(self, run: Run, name: str, payload: bytes) -> None:
        """Journal a signal for a run in memory, and feed it. A run that still waits for its turn begins now."""
        if run.root is None:
            self._begin_early(run)
        run.settle()
        if run.dead:
            return  # it ended with what it has just been told: there is nothing left to signal
        if name in TOLD:
            answered(run, payload)
            return
        if name == "kill":
            run.kill(payload)
            return
        run.feed(run.input(EntryKind.SIGNALLED, name, 0, "", payload))
        if name in ("pause", "resume") and not run.dead:
            run.save(owner=self.worker, wake_at_ns=None)
        if name == "resume" and not run.dead:
            for step in run.unended():
                step.resume(run)
            run.pump()

    def _watch_deadline(self, run: Run) -> None:
        """Have the deadline delivered as a signal; void once the run's phase says that it no longer counts."""
        if run.deadline_at_ns is not None and not run.dead and not run.phase:
            run.deadline_timer = self.clock.call_at(run.deadline_at_ns, lambda: self._overdue(run))

    def _overdue(self, run: Run) -> None:
        if not run.dead and not run.phase and not self.leaving:
            self.deliver(run, "deadline", b"{}")

    # -- what runs say (Shell) -------------------------------------------------------------------------------------

    def attempt(self, run: Run, step: PendingStep) -> None:
        """Call the step's function."""
        if not run.active:
            self._admission.enter(run)
        self._attempts.call(run, step)

    def drive_soon(self, run: Run) -> None:
        """Drive the body in this turn of the loop, with others: a turn with many ends enters the guard once."""
        run.undriven = True
        self._undriven.append(run)
        if len(self._undriven) == 1:
            self._loop.call_soon(self._drive_all)

    def _drive_all(self) -> None:
        runs, self._undriven = self._undriven, []
        drive([run for run in runs if run.undriven], self.guard)

    def idle(self, run: Run) -> None:
        """Nothing is under way in ``run``: keep it for a short wait, else give it back."""
        self._rest(run)
        if run.held:
            if run.status is not RunStatus.STUCK and (run.waits or any(step.due_at_ns for step in run.steps.values())):
                run.status = RunStatus.WAITING
            run.save(owner=None, wake_at_ns=None)
            run.evict()
            return
        due = [wait.due_at_ns for wait in run.waits.values() if not wait.over]
        due += [step.due_at_ns for step in run.steps.values() if step.due_at_ns is not None]
        if run.deadline_at_ns is not None and not run.phase:
            due.append(run.deadline_at_ns)
        wake_at_ns = min((at_ns for at_ns in due if at_ns is not None), default=None)
        if run.status is not RunStatus.STUCK:
            if wake_at_ns is not None and self._admission.lingers(wake_at_ns - self.now_ns(), of=len(self.runs)):
                return
            run.status = RunStatus.WAITING
        else:
            self.parked(run)
        run.save(owner=None, wake_at_ns=wake_at_ns)
        run.evict()
        if wake_at_ns is not None:
            # Not before the row says so: a claim that comes too soon finds nothing, and nobody would ask again.
            self.after(partial(self._wake_by, wake_at_ns))

    def ended(self, run: Run, end: End) -> None:
        """Tell the waiters once the end is durable."""
        self.after(partial(self._on_outcome, run, end))

    def parked(self, run: Run) -> None:
        """Tell the waiters once the parking is durable."""
        self.after(lambda: self._on_outcome(run, None))

    def forget(self, run: Run) -> None:
        """Drop a run from memory."""
        self.runs.pop(run.num, None)
        self._rest(run)

    def _rest(self, run: Run) -> None:
        """``run`` no longer counts against the concurrency: let others in."""
        if self._admission.leave(run):
            self.poked.set()
        elif self._admission.queue:
            # Not at once: this may be called amid another body, and no body is driven from within another.
            self._loop.call_soon(self._admit)

    def guilty(self, num: int, error: StoreError) -> None:
        """The store refuses this run's rows for good: drop it; it goes on from its journal once somebody has looked."""
        run = self.runs.get(num)
        if run is not None:
            log.error("run %s: the store refuses its rows, and it is dropped from memory: %s", run.id, error)
            run.evict()

    def failing(self, run: Run, step: PendingStep) -> None:
        """``step`` has failed again and again and will be tried again: somebody should look."""
        run.reason = f"step {step.key!r} has failed {step.failures} times and is tried again"
        run.save(owner=self.worker, wake_at_ns=None)
        self.after(lambda: self._on_attention(run.id))

    async def taken(self, num: int) -> None:
        """Return once the signals that wait for this run have been taken up, durably."""
        waiter: asyncio.Future[None] = self._loop.create_future()
        self._takers.setdefault(num, []).append(waiter)
        await waiter

    def _tell_takers(self, num: int) -> None:
        for waiter in self._takers.pop(num, ()):
            if not waiter.done():
                waiter.set_result(None)

    # -- claiming --------------------------------------------------------------------------------------------------

    def _wake_by(self, at_ns: int) -> None:
        if self._wake is not None:
            if self._wake[0] <= at_ns:
                return
            self._wake[1].cancel()
        self._wake = at_ns, self.clock.call_at(at_ns, self._woken)

    def _woken(self) -> None:
        self._wake = None
        self.poked.set()

    @property
    def working(self) -> bool:
        """Whether bodies are to be driven, or runs to be claimed."""
        return bool(self._undriven) or self._looking or (self.poked.is_set() and not self.leaving)

    async def look(self, *, changed: bool) -> None:
        """Take up what other processes left, and claim what is due. ``changed``: another process has written."""
        self._looking = True
        try:
            if changed:
                await self._take_signals()
            if changed or self.poked.is_set():
                self.poked.clear()
                await self._claim()
        finally:
            self._looking = False

    async def _take_signals(self) -> None:
        taken = self.writer.consuming()  # as of before the question, so that what it still shows is among them
        for signal in await self.store.signals(list(self.runs)):
            run = self.runs.get(signal.run)
            if run is not None and not run.dead and signal.num not in taken:
                self.deliver(run, signal.name, signal.payload)
                self.writer.consume(signal.num)

    async def _claim(self) -> None:
        served = self.registry.served()
        now_ns = self.now_ns()
        while served and not self.leaving:
            room = self._admission.claimable()
            if not room:
                return  # whoever leaves pokes
            if not self._claimed:
                now_ns = self.now_ns()
                self._claimed = await self.store.claim(
                    self.worker, served, now_ns=now_ns, limit=min(room, MOST_CLAIMED)
                )
            if not self._claimed:
                break
            nums = [record.num for record in self._claimed]
            journals = await self.store.load(nums)
            left: dict[int, list[StoredSignal]] = {}
            for signal in await self.store.signals(nums):
                left.setdefault(signal.run, []).append(signal)
            records, self._claimed = [one for one in self._claimed if one.owner == self.worker], []
            for record in records:
                self.adopt(record, journals[record.num], left.get(record.num, []))
                if record.num in self._takers:
                    self.after(partial(self._tell_takers, record.num))
            self._admission.claimed(len(records))
        self._admission.claimed(0)
        self._admit()
        next_ns = await self.store.next_wake_ns(after_ns=now_ns)  # by then more may be due, and nobody else would ask
        if next_ns is not None:
            self._wake_by(next_ns)
