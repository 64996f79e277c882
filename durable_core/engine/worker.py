"""The worker: owns runs, drives them, and claims those that are due.

Invariant: a run is in the memory of at most one worker, the one that its row names as owner; it is dropped from memory
in the same commit that gives it back.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import attrs

from durable_core.engine.clock import go_on_from
from durable_core.engine.executor import StepExecutor
from durable_core.engine.isolation import Isolation
from durable_core.engine.lingering import Lingering, abandons, killed_by, may_go_on
from durable_core.engine.registry import Registry
from durable_core.engine.slots import Queued, Slots
from durable_core.engine.starting import StartReceipt, deadline_of, overdue
from durable_core.engine.writer import Writer
from durable_core.errors import DurableError, Fault, StoreError
from durable_core.model.callback import TOLD
from durable_core.model.codec import Codec
from durable_core.model.entry import Entry, EntryKind, evidence
from durable_core.model.masking import revealed
from durable_core.model.record import abandoned_at
from durable_core.model.run import ENDS, NewRun, RunRecord, RunStatus
from durable_core.model.spec import DurableFunction
from durable_core.ports import Clock, Ids, Store, Timer, TraceContext
from durable_core.ports import Signal as StoredSignal
from durable_core.replay.callbacks import answered
from durable_core.replay.cursor import End
from durable_core.replay.guard import LoopGuard
from durable_core.replay.host_context import HostContext
from durable_core.replay.run import Run, Told
from durable_core.replay.shadow import bindings
from durable_core.replay.steps import Evidence, PendingStep
from durable_core.replay.turn import drive

log = logging.getLogger("durable_core")

MOST_CLAIMED = 500
"""Runs claimed in one transaction."""
LOST: Mapping[str, str] = {
    EntryKind.SUCCEEDED: "succeeded",
    EntryKind.FAILED: "",
    EntryKind.WITHHELD: "withheld",
    EntryKind.GAVE_UP: "withheld",
}
"""Entries that tell how an attempt ended, also where they were not written: as what (see ``LATE``), or by their label.

A promised attempt that was given up was never called.
"""
FLUSH_S = 1.0
"""How long leaving waits at least for what is queued to be written, however short its grace."""


class Worker:
    """Drives runs on the current event loop. Implements ``Effects``."""

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
        threads_at_once: int,
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
        self._admission = Slots(concurrency)
        self._on_outcome, self._on_attention = on_outcome, on_attention
        self._takers: dict[int, list[asyncio.Future[None]]] = {}
        self._lingering: dict[int, Lingering] = {}
        self._again: set[int] = set()
        """Runs of ours that are to be loaded again."""
        self._refused: dict[int, str] = {}
        """Why the store has refused the rows of some of these."""
        self._untold: dict[int, Run] = {}
        """Runs that have ended, and whose end is not yet durable."""
        self._loop = asyncio.get_running_loop()
        self.guard = LoopGuard(self._loop)
        self._undriven: list[Run] = []
        self.suspect = Isolation(self).enter
        self._attempts = StepExecutor(self, self._loop, store.lease_is_safe, threads_at_once, tracing=tracing)
        self._claimed: list[RunRecord] = []  # ours in the store, and not yet in memory
        self.poked = asyncio.Event()
        """Set when something may have become due."""
        self.poked.set()
        self._wake: tuple[int, Timer] | None = None

    def stop(self) -> None:
        """Start nothing new from here on."""
        if self.leaving:
            return
        for run in list(self.runs.values()):
            run.settle()  # which may end it, or have it leave memory
            if not run.dead and run.in_flight and not run.held:
                # Several may end before another worker drives the body: it must then see them as it would have here.
                run.input(EntryKind.SUSPENDED, "")
        self.leaving = True
        if self._wake is not None:
            self._wake[1].cancel()
        for queued in self._admission.queue:
            if not queued.run.dead:
                queued.run.status = RunStatus.PENDING
                queued.run.save(owner=None, wake_at_ns=0)

    async def close(self, *, grace_s: float) -> None:
        """Start nothing new, let attempts under way end for ``grace_s``, and give every run back."""
        self.stop()
        await self._launched(within_s=grace_s)
        cut = await self._attempts.drain(self._calls(), within_s=grace_s)
        if cut:
            log.warning(
                "%d attempts were cut: they did not end within the grace of %.3g s and will be run again", cut, grace_s
            )
        await self._keep_told()
        for lingering in list(self._lingering.values()):
            self._let_go(lingering)
        for run in list(self.runs.values()):
            self._give_back(run, 0)

    async def _launched(self, *, within_s: float) -> None:
        """Return once every announced attempt has been called or withheld: its intent is on disk then."""
        try:
            await asyncio.wait_for(self.writer.flushed(), max(within_s, FLUSH_S))
        except TimeoutError:
            log.warning("the store does not take what is queued, so announced attempts are not withdrawn")
        except StoreError as lost:
            log.warning("what was queued was not written: %s", lost)

    async def _keep_told(self) -> None:
        """Have what attempts returned kept in the journals of runs that were about to be loaded again."""
        told = {num: one for num, one in self._lingering.items() if one.told and one.owner == self.worker}
        if not told:
            return
        try:
            journals = await self.store.load(list(told))
            for record in await self.store.find_nums(list(told)):
                if record.owner == self.worker:
                    told[record.num].run = self._restored(record, self.registry.get(record.name, record.version))
                    told[record.num].note(journals[record.num][-1].seq if journals[record.num] else 0)
        except StoreError as error:
            log.warning("what attempts returned at the end could not be kept, so they count as cut: %s", error)

    def _calls(self) -> list[PendingStep]:
        """The steps whose attempts have not returned, whether their runs are in memory or not."""
        here = [step for run in self.runs.values() for step in run.steps.values() if isinstance(step, PendingStep)]
        return here + [step for one in self._lingering.values() for step in one.steps.values()]

    def under_way(self) -> int:
        """Attempts that were announced and have not ended."""
        return sum(run.in_flight for run in self.runs.values()) + sum(len(x.steps) for x in self._lingering.values())

    def start(self, row: NewRun, definition: DurableFunction, starting: StartReceipt) -> None:
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
        run.begin(run.definition.fn(HostContext(run), *args, **kwargs))
        self.drive_soon(run)

    def _begin_early(self, run: Run) -> None:
        """Begin a run before its turn, without driving it: what it is told must find its body in place."""
        queued = self._admission.take(run)
        if queued is not None:
            self._admission.enter(run)
            run.begin(run.definition.fn(HostContext(run), *queued.args, **queued.kwargs))

    def _admit(self) -> None:
        while not self.leaving and (queued := self._admission.next()) is not None:
            self._drive(queued)

    def adopt(self, record: RunRecord, entries: list[Entry], signals: list[StoredSignal]) -> None:
        """Drive a run that another process, or this one earlier, has begun."""
        lingering = self._lingering.get(record.num)
        ending = next((place for place, signal in enumerate(signals) if signal.name == "kill"), None)
        if lingering is not None and ending is None and not may_go_on(lingering, entries, signals):
            lingering.wanted = True  # what has not returned comes first; meanwhile the run is ours
            if lingering.owner == self.worker:
                lingering.note(entries[-1].seq if entries else 0)
            return
        definition = self.registry.get(record.name, record.version)
        run = self._restored(record, definition)
        entries = list(revealed(self.secret, record.num, record.uid, entries))
        self.runs[record.num] = run
        self._admission.enter(run)
        run.seq = entries[-1].seq if entries else 0
        go_on_from(self.clock, entries[-1].at_ns if entries else record.created_at_ns)  # its times never decrease
        if ending is not None:
            self._kill(run, signals[: ending + 1], lingering)
        elif killed_by(entries) is not None and not abandons(signals):
            self._kill(run, signals, lingering, asked=False)
        else:
            self._revive(run, record.input, entries, signals, lingering.told if lingering is not None else ())
            for signal in signals:
                self._consume(signal, run)
        if lingering is not None and self._lingering.get(record.num) is lingering:
            lingering.run = run  # from here on it is this one's place in its journal
            if not lingering.steps:
                del self._lingering[record.num]

    def _consume(self, signal: StoredSignal, run: Run) -> None:
        """The run has taken the signal up: it leaves the store in the commit of the entries that say so."""
        self.writer.consume(signal.num, run.num, run.told_seq)

    def _kill(
        self, run: Run, signals: Sequence[StoredSignal], lingering: Lingering | None, *, asked: bool = True
    ) -> None:
        """End a run that was killed while nobody drove it; what it was told before that is kept in its journal."""
        for late in lingering.told if lingering is not None else ():
            run.note(late)
        for signal in signals[:-1] if asked else signals:
            if signal.name not in TOLD:
                kind = EntryKind.SIGNALLED if asked else EntryKind.NOTED
                run.told_seq = run.input(kind, signal.name.partition(" ")[0], 0, "", signal.payload).seq
            self._consume(signal, run)
        if asked:
            run.kill(signals[-1].payload)
            self._consume(signals[-1], run)
        else:
            run.kill(b"{}", asked=False)
        if lingering is not None and lingering.steps:
            self._lingering[run.num] = Lingering(run.num, run, self.worker, lingering.steps)

    def _revive(
        self, run: Run, input: bytes, entries: list[Entry], signals: list[StoredSignal], told_late: Sequence[Evidence]
    ) -> None:
        """Feed a run its journal, and then what came meanwhile: attempts that returned, signals, its deadline."""
        try:
            args, kwargs = run.definition.shape.decode(input, what=f"run {run.id}: the arguments")
        except DurableError as unreadable:
            told = [Told(signal.name.partition(" ")[0], signal.payload) for signal in signals]
            run.inbox = (*told_late, *told)
            run.park(Fault(f"{unreadable} Bring back the signature that it was started with, then retry the run"))
            return
        late = [] if abandoned_at(entries) is not None else [*map(Evidence.of, evidence(entries).values()), *told_late]
        if killed_by(entries) is not None:
            run.paused = False  # the kill was the end of that
        if abandons(signals):  # its body hears nothing any more: the journal alone says what there is to undo
            entries = [*entries, *map(run.note, told_late)]
        early = [signal for signal in signals if " " in signal.name]
        if early:  # they change what is replayed, so they are journalled first
            entries = [*entries, *self._early(run, early)]
        told = [Told(signal.name, signal.payload, 0, signal.at_ns) for signal in signals if signal not in early]
        if overdue(run, entries, now_ns=self.now_ns()):
            told.insert(_place(told, run.deadline_at_ns or 0), Told("deadline", b"{}", 0, run.deadline_at_ns or 0))
        run.inbox = (*late, *told)
        run.bindings = bindings(run, entries, args, kwargs)
        run.begin(run.definition.fn(HostContext(run), *args, **kwargs))
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

    def deliver(self, run: Run, name: str, payload: bytes) -> bool:
        """Journal a signal for a run in memory, and feed it. A run that still waits for its turn begins now.

        What the body has not seen yet it sees after the signal: so nothing begins in between. False where the run has
        left memory instead: the signal is to be taken up by whoever drives it next.
        """
        if run.root is None:
            self._begin_early(run)
        if run.undriven and not run.ready:
            run.settle()
        if run.dead:
            return False
        if name == "kill":
            run.kill(payload)
        elif run.ready or run.is_overdue():
            told = [Told(name, payload)]
            if run.is_overdue():  # it fell due first
                told.insert(0, Told("deadline", b"{}"))
            run.catch_up(told)
        elif name in TOLD:
            answered(run, payload)
        else:
            run.feed(run.input(EntryKind.SIGNALLED, name, 0, "", payload))
            if name in ("pause", "resume") and not run.dead:
                run.save(owner=self.worker, wake_at_ns=None)
        if name == "resume" and not run.dead:
            run.go_on()
        return True

    def _watch_deadline(self, run: Run) -> None:
        """Have the deadline delivered as a signal; void once the run's phase says that it no longer counts."""
        if run.deadline_at_ns is not None and not run.dead and not run.phase:
            run.deadline_timer = self.clock.call_at(run.deadline_at_ns, lambda: self._overdue(run))

    def _overdue(self, run: Run) -> None:
        if run.is_overdue() and not self.leaving:
            self.tell_deadline(run)

    def tell_deadline(self, run: Run) -> None:
        """The run's deadline has passed; it takes that up before its body goes on."""
        if run.root is None:
            self._begin_early(run)
        run.catch_up([Told("deadline", b"{}")])

    # -- what runs say (Shell) -------------------------------------------------------------------------------------

    def attempt(self, run: Run, step: PendingStep) -> None:
        """Call the step's function."""
        if not run.active:
            self._admission.enter(run)
        self._attempts.call(step)

    def recall(self, step: PendingStep) -> bool:
        """Leave out a call that was asked for; False where the function has been called."""
        return self._attempts.recall(step)

    def take_over(self, step: PendingStep) -> bool:
        """Let ``step`` have the end of the call that the run in memory before has begun."""
        lingering = self._lingering.get(step.run.num)
        before = None if lingering is None else lingering.steps.pop(step.key, None)
        if before is None:
            return False
        before.heir = step
        step.task, step.called, step.overrun, step.announced = before.task, True, before.overrun, True
        step.run.in_flight += 1
        return True

    def returned_late(self, step: PendingStep, evidence: Evidence) -> None:
        """An attempt has returned whose run is driven no more: its outcome is evidence."""
        lingering = self._lingering.get(step.run.num)
        if lingering is None or lingering.steps.get(step.key) is not step:
            return
        if lingering.owner == self.worker and not self._attempts.cutting:
            if lingering.reloading or lingering.run is None:
                lingering.told.append(evidence)
            else:
                lingering.run.note_late(evidence)
        self._ended_late(lingering, step)

    def cut(self, step: PendingStep) -> None:
        """An attempt was cut from outside: it has no outcome, as after a crash."""
        run = step.run
        step.task = None
        step.called = step.announced = False  # it was called, so nothing may say that it was withheld
        if run.dead:
            lingering = self._lingering.get(run.num)
            if lingering is not None and lingering.steps.get(step.key) is step:
                self._ended_late(lingering, step)
        elif not self.leaving:
            log.warning(
                "run %s, step %r: attempt %d was cancelled from outside its own code; it counts as cut by a crash",
                run.id,
                step.key,
                step.attempt,
            )
            self._reload(run)

    def _ended_late(self, lingering: Lingering, step: PendingStep) -> None:
        """One attempt fewer has not returned; after the last one the run is anybody's again."""
        del lingering.steps[step.key]
        if lingering.steps or self.leaving:
            return
        if lingering.wanted:
            self._again.add(lingering.num)
            lingering.reloading = True
            self.poked.set()
        elif not lingering.reloading:
            self._let_go(lingering)

    def _let_go(self, lingering: Lingering) -> None:
        """Nothing of the run is under way any more, or this worker leaves: others may drive it."""
        run = lingering.run
        self._lingering.pop(lingering.num, None)
        if lingering.owner != self.worker or lingering.reloading or run is None:
            return
        run.dead = False
        run.save(owner=None, wake_at_ns=None, end=End(status=run.status) if run.status in ENDS else None)
        run.dead = True
        self.after(self.poked.set)  # a signal may have come for it

    def waits_for_attempts(self, num: int) -> bool:
        """Whether the run is to go on once its attempts, which are under way here, have returned."""
        lingering = self._lingering.get(num)
        return lingering is not None and lingering.wanted and bool(lingering.steps)

    def owner_after(self, run: Run) -> str | None:
        """This worker while attempts of ``run``, which is about to leave memory, have not returned; else nobody."""
        lingering = self._lingering.get(run.num)
        called = any(isinstance(step, PendingStep) and step.called for step in run.steps.values())
        return self.worker if called or (lingering is not None and lingering.steps) else None

    def _reload(self, run: Run) -> None:
        """Drop a run that is ours from memory and load it again, with the attempts that have not returned."""
        run.void = True
        now_ns = self.now_ns()
        withheld = [
            Evidence(step.key, step.attempt, EntryKind.WITHHELD, None, None, now_ns)
            for step in run.unended()
            if step.withdraw()
        ]
        run.undriven = False
        run.evict()
        lingering = self._lingering.setdefault(run.num, Lingering(run.num, run, self.worker, {}))
        lingering.reloading = True
        lingering.told += withheld
        self._again.add(run.num)
        self.poked.set()

    def overtaken(self, num: int, lost: Sequence[Entry]) -> None:
        """The store has not written what a run decided last, because a signal came first: load it again.

        Args:
            num: the run.
            lost: its entries that were not written. What attempts returned among them is not to be lost.
        """
        run = self._untold.pop(num, None) or self.runs.get(num)
        if run is not None and not run.dead:
            self._reload(run)
        elif run is not None:
            run.void = True
        lingering = self._lingering.setdefault(num, Lingering(num, run, self.worker, {}))
        lingering.reloading = True
        lingering.told[:0] = [
            Evidence.of(entry._replace(label=LOST[entry.kind] or entry.label)) for entry in lost if entry.kind in LOST
        ]
        self._again.add(num)
        self.poked.set()

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
            self._give_back(run, None)
            return
        due = [wait.due_at_ns for wait in run.waits.values() if not wait.over]
        due += [step.due_at_ns for step in run.steps.values() if step.due_at_ns is not None]
        if run.deadline_at_ns is not None and not run.phase:
            due.append(run.deadline_at_ns)
        wake_at_ns = min((at_ns for at_ns in due if at_ns is not None), default=None)
        # A stuck run waits for a person; what is promised beside that happens all the same, and soon: here.
        if wake_at_ns is not None and self._admission.lingers(wake_at_ns - self.now_ns(), of=len(self.runs)):
            return
        if run.status is not RunStatus.STUCK:
            run.status = RunStatus.WAITING
        self._give_back(run, wake_at_ns)
        if wake_at_ns is not None:
            # Not before the row says so: a claim that comes too soon finds nothing, and nobody would ask again.
            self.after(partial(self._wake_by, wake_at_ns))

    def _give_back(self, run: Run, wake_at_ns: int | None) -> None:
        run.save(owner=None, wake_at_ns=wake_at_ns)
        run.evict()

    def ended(self, run: Run, end: End) -> None:
        """Tell the waiters once the end is durable."""
        self._untold[run.num] = run
        self.after(partial(self._tell, run, end))

    def parked(self, run: Run) -> None:
        """Tell the waiters once the parking is durable."""
        self.after(partial(self._tell, run, None))

    def _tell(self, run: Run, end: End | None) -> None:
        if end is not None and self._untold.get(run.num) is run:
            del self._untold[run.num]
        if not run.void:
            self._on_outcome(run, end)

    def forget(self, run: Run) -> None:
        """Drop a run from memory, but for its attempts that have not returned."""
        if self.runs.get(run.num) is run:
            del self.runs[run.num]
        called = {key: step for key, step in run.steps.items() if isinstance(step, PendingStep) and step.called}
        before = self._lingering.get(run.num)
        if called and before is None:
            self._lingering[run.num] = Lingering(run.num, run, self.worker, called)
        elif before is not None:
            before.run, before.owner, before.steps = run, self.worker, {**before.steps, **called}
        self._rest(run)

    def disown(self, name: str) -> None:
        """Forget all runs: others drive them now, and this worker is called ``name``. Attempts count as cut."""
        for step in self._calls():
            if step.task is not None:
                step.task.cancel()
        for run in list(self.runs.values()):
            run.undriven = False
            run.evict()
        for lingering in self._lingering.values():
            lingering.told.clear()
            lingering.reloading = False
        self._again.clear()
        self._refused.clear()
        self._untold.clear()
        self._claimed = []
        self.worker = name

    def _rest(self, run: Run) -> None:
        """``run`` no longer counts against the concurrency: let others in."""
        if self._admission.leave(run):
            self.poked.set()
        elif self._admission.queue:
            # Not at once: this may be called amid another body, and no body is driven from within another.
            self._loop.call_soon(self._admit)

    def guilty(self, num: int, error: StoreError) -> None:
        """The store refuses this run's rows for good: drop it, and show that somebody must look before it goes on."""
        run = self.runs.get(num) or self._untold.pop(num, None)
        log.error(
            "run %s: the store refuses its rows, and it is dropped from memory: %s", run.id if run else num, error
        )
        if run is not None:
            run.void = True
            run.undriven = False
            if not run.dead:
                run.evict()
        lingering = self._lingering.get(num)
        if lingering is not None:
            lingering.reloading = True
        why = str(error.args[0]).rpartition(" [")[0]
        self._refused[num] = (
            f"the store refused what it was to write ({why}), so what it did since its last entry is not recorded. "
            "Look into what its step returned or raised, then retry the run: it goes on from its journal"
        )
        self._again.add(num)
        self.poked.set()

    def _show_refused(self, record: RunRecord, entries: Sequence[Entry], why: str) -> None:
        """Show a run as stuck whose rows the store has refused: as far as its journal goes."""
        run = self._restored(
            attrs.evolve(record, status=RunStatus.STUCK, reason=f"run {record.id}: {why}"),
            self.registry.get(record.name, record.version),
        )
        run.seq = entries[-1].seq if entries else 0
        run.save(owner=self.owner_after(run), wake_at_ns=None)
        run.dead = True
        self.parked(run)
        lingering = self._lingering.get(record.num)
        if lingering is not None:
            lingering.run, lingering.reloading = run, False
            lingering.note(run.seq)

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
        if self.leaving:
            self.poked.clear()
            return
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
        for signal in await self.store.signals([*self.runs, *self._lingering]):
            run = self.runs.get(signal.run)
            if signal.num in taken:
                continue
            if run is not None and not run.dead and " " in signal.name:
                self._reload(run)  # it changes what is replayed
            elif run is not None and not run.dead:
                if self.deliver(run, signal.name, signal.payload):
                    self._consume(signal, run)
            elif run is None:
                self.signalled(signal.run, signal.name)
        # One that left memory with a signal of its may have more: the store makes it due, and nobody else would ask.
        self.after(self.poked.set)

    def signalled(self, num: int, name: str) -> None:
        """A signal waits for a run that is not in memory; while attempts of it have not returned it is still ours."""
        lingering = self._lingering.get(num)
        ours = lingering is not None and not lingering.reloading and lingering.owner == self.worker
        if lingering is not None and ours and (not lingering.wanted or name == "kill"):
            lingering.reloading = True
            self._again.add(num)
        self.poked.set()

    def _is_leaving(self) -> bool:
        """Asked after each wait, in which that may have begun."""
        return self.leaving

    async def _load_again(self) -> None:
        """Drive again what is ours and was dropped from memory: a signal came first, or an attempt was cut."""
        if not self._again or self.leaving:
            return
        await self.writer.flushed()
        nums = sorted(self._again)
        records = {record.num: record for record in await self.store.find_nums(nums)}
        journals = await self.store.load(nums)
        left = await self._left_for(nums)
        if self._is_leaving():
            return
        for num in nums:
            self._again.discard(num)
            record = records.get(num)
            if num in self.runs:
                continue
            if record is None or record.owner != self.worker or record.ended_at_ns is not None:
                if num in self._lingering:
                    self._lingering[num].reloading = False
                    if not self._lingering[num].steps:
                        del self._lingering[num]
            elif (why := self._refused.pop(num, None)) is not None:
                self._show_refused(record, journals[num], why)
            else:
                self._adopt_again(record, journals[num], left.get(num, []))

    async def _left_for(self, nums: Sequence[int]) -> dict[int, list[StoredSignal]]:
        """The signals that wait for these runs, by run."""
        left: dict[int, list[StoredSignal]] = {}
        for signal in await self.store.signals(nums):
            left.setdefault(signal.run, []).append(signal)
        return left

    def _adopt_again(self, record: RunRecord, entries: list[Entry], signals: list[StoredSignal]) -> None:
        """Drive a run again that has been ours all the time."""
        num = record.num
        if num in self._lingering:
            self._lingering[num].reloading = self._lingering[num].wanted = False
        self.adopt(attrs.evolve(record, status=RunStatus.RUNNING), entries, signals)
        run = self.runs.get(num)
        if run is not None and not run.dead:
            run.save(owner=self.worker, wake_at_ns=None)
        if num in self._takers:
            self.after(partial(self._tell_takers, num))

    async def _claim(self) -> None:
        await self._load_again()
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
            left = await self._left_for(nums)
            if self._is_leaving():
                return  # no body is driven any more, nor along its journal; leaving gives back what was claimed
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


def _place(told: Sequence[Told], at_ns: int) -> int:
    """Where among ``told`` something belongs that fell due at that time."""
    return next((place for place, one in enumerate(told) if one.at_ns > at_ns), len(told))
