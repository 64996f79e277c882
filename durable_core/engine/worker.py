"""The worker: owns runs, drives them, and is their port to the world.

Invariant: a run is in the memory of at most one worker, the one that its row names as owner; it is dropped from memory
in the same commit that gives it back.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import attrs

from durable_core.engine.clock import go_on_from
from durable_core.engine.executor import StepExecutor
from durable_core.engine.isolation import Isolation
from durable_core.engine.lingering import LingeringRuns
from durable_core.engine.registry import Registry
from durable_core.engine.slots import Queued, Slots
from durable_core.engine.start import StartReceipt, deadline_of
from durable_core.engine.writer import Writer
from durable_core.errors import StoreError
from durable_core.model.callback import ANSWERS, token_of
from durable_core.model.codec import Codec
from durable_core.model.entry import Entry, EntryKind
from durable_core.model.masking import revealed
from durable_core.model.run import ENDS, NewRun, RunRecord, RunStatus
from durable_core.model.spec import DurableFunction
from durable_core.ports import AttemptFaults, Clock, Ids, Signal, Store, Timer, TraceContext
from durable_core.replay import restoring
from durable_core.replay.cursor import End, LateResult, Row, RunIdentity
from durable_core.replay.effects import Timed
from durable_core.replay.guard import LoopGuard
from durable_core.replay.run import Run, drive
from durable_core.replay.steps import PendingStep

log = logging.getLogger("durable_core")

FLUSH_S = 1.0
"""How long leaving waits at least for what is queued to be written, however short its grace."""


class Timers:
    """The timers of what is in memory.

    A clock may ask for the event loop, and the guard stands in its place while a body is driven: what is armed then is
    set right after.
    """

    __slots__ = ("_clock", "_guard", "_later", "_timers")

    def __init__(self, clock: Clock, guard: LoopGuard) -> None:
        self._clock = clock
        self._guard = guard
        self._timers: dict[Timed, Timer] = {}
        self._later: dict[Timed, None] = {}

    def arm(self, timed: Timed) -> None:
        """Have ``timed.ring`` called at its time, unless it is armed already or has no time."""
        due_at_ns = timed.due_at_ns
        if due_at_ns is None or timed in self._timers:
            return
        if self._guard.entered:
            self._later[timed] = None
        else:
            self._timers[timed] = self._clock.call_at(due_at_ns, partial(self._ring, timed))

    def disarm(self, timed: Timed) -> None:
        """Do not call it."""
        self._later.pop(timed, None)
        timer = self._timers.pop(timed, None)
        if timer is not None:
            timer.cancel()

    def set_late(self) -> None:
        """The guard has been left: set what was armed meanwhile."""
        if self._later:
            later, self._later = self._later, {}
            for timed in later:
                self.arm(timed)

    def _ring(self, timed: Timed) -> None:
        self._timers.pop(timed, None)
        timed.ring()


class Due:
    """What is to be loaded into memory, and when to look next."""

    __slots__ = ("_clock", "_wake", "again", "claimed", "looking", "poked", "refused")

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.poked = asyncio.Event()
        """Set when something may have become due."""
        self.poked.set()
        self.looking = False
        """The store is being asked."""
        self._wake: tuple[int, Timer] | None = None
        self.claimed: list[RunRecord] = []
        """Ours in the store, and not yet in memory."""
        self.again: set[int] = set()
        """Runs of ours that were dropped from memory, and are to be loaded again."""
        self.refused: dict[int, str] = {}
        """Why the store has refused the rows of some of these."""

    def reload(self, num: int, *, refused: str | None = None) -> None:
        """Load a run of ours again; ``refused`` says why the store refuses its rows."""
        if refused is not None:
            self.refused[num] = refused
        self.again.add(num)
        self.poked.set()

    def clear(self) -> None:
        """Nothing is ours any more."""
        self.again.clear()
        self.refused.clear()
        self.claimed = []

    def stop(self) -> None:
        """Wake up no more."""
        if self._wake is not None:
            self._wake[1].cancel()

    def wake_by(self, at_ns: int) -> None:
        """Look again at that time, or earlier."""
        if self._wake is not None:
            if self._wake[0] <= at_ns:
                return
            self._wake[1].cancel()
        self._wake = at_ns, self._clock.call_at(at_ns, self._woken)

    def _woken(self) -> None:
        self._wake = None
        self.poked.set()


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
        faults: AttemptFaults | None = None,
        die: Callable[[], None] = lambda: None,
    ) -> None:
        self.worker, self.store = name, store
        self.writer = writer
        self.registry, self.secret = registry, secret
        self.clock = clock
        self.now_ns, self.draw = clock.now_ns, ids.draw
        self.append, self.update, self.after = writer.append, writer.update, writer.after
        self.max_crashes, self.decoder = max_crashes, codec.decoder
        self.leaving = False
        self.runs: dict[int, Run] = {}
        self.slots = Slots(concurrency)
        self._on_outcome, self._on_attention = on_outcome, on_attention
        self.due = Due(clock)
        self.lingering = LingeringRuns(name, reload=self.due.reload, release=self._release)
        self.unannounced: dict[int, Run] = {}
        """Runs that have ended, and whose end is not yet durable."""
        self._loop = asyncio.get_running_loop()
        self.guard = LoopGuard(self._loop)
        self._undriven: list[Run] = []
        self.isolate = Isolation(self, clock).enter
        self._timers = Timers(clock, self.guard)
        self.arm, self.disarm, self.guard_left = self._timers.arm, self._timers.disarm, self._timers.set_late
        self.executor = StepExecutor(
            self,
            self._loop,
            store.lease_is_safe,
            threads_at_once,
            clock=clock,
            cut=self.cut,
            tracing=tracing,
            faults=faults,
            die=die,
        )
        self.recall = self.executor.recall

    @property
    def poked(self) -> asyncio.Event:
        """Set when something may have become due."""
        return self.due.poked

    # -- leaving ---------------------------------------------------------------------------------------------------

    def stop(self) -> None:
        """Start nothing new from here on."""
        if self.leaving:
            return
        for run in list(self.runs.values()):
            run.settle()  # which may end it, or have it leave memory
            if not run.dead and run.in_flight and not run.hold:
                # Several may end before another worker drives the body: it must then see them as it would have here.
                run.input(EntryKind.SUSPENDED, "")
        self.leaving = True
        self.due.stop()
        for queued in self.slots.queue:
            if not queued.run.dead:
                queued.run.row.move(RunStatus.PENDING)
                queued.run.save(owner=None, wake_at_ns=0)

    async def close(self, *, grace_s: float) -> None:
        """Start nothing new, let attempts in flight end for ``grace_s``, and give every run back."""
        self.stop()
        await self._launched(within_s=grace_s)
        cut = await self.executor.drain(self._calls(), within_s=grace_s)
        if cut:
            log.warning(
                "%d attempts were cut: they did not end within the grace of %.3g s and will be run again", cut, grace_s
            )
        await self._write_late_results()
        self.lingering.let_all_go()
        for run in list(self.runs.values()):
            self._give_back(run, 0)

    async def _launched(self, *, within_s: float) -> None:
        """Return once every announced attempt has been called or withheld: its intent is on disk then."""
        try:
            async with asyncio.timeout(max(within_s, FLUSH_S)):
                await self.writer.flushed()
        except TimeoutError:
            log.warning("the store does not take what is queued, so announced attempts are not withdrawn")
        except StoreError as lost:
            log.warning("what was queued was not written: %s", lost)

    async def _write_late_results(self) -> None:
        """Keep what attempts returned in the journals of runs that were about to be loaded again."""
        unwritten = self.lingering.unwritten()
        if not unwritten:
            return
        try:
            journals = await self.store.journal.load(list(unwritten))
            for record in await self.store.runs.find_nums(list(unwritten)):
                if record.owner == self.worker:
                    lingering = unwritten[record.num]
                    lingering.run = self.restored(record)
                    lingering.note(journals[record.num][-1].seq if journals[record.num] else 0)
        except StoreError as error:
            log.warning("what attempts returned at the end could not be kept, so they count as cut: %s", error)

    def _calls(self) -> list[PendingStep]:
        """The steps whose attempts have not returned, whether their runs are in memory or not."""
        here = [step for run in self.runs.values() for step in run.steps.values() if isinstance(step, PendingStep)]
        return here + self.lingering.steps()

    def in_flight(self) -> int:
        """Attempts that were announced and have not ended."""
        return sum(run.in_flight for run in self.runs.values()) + len(self.lingering.steps())

    def disown(self, name: str) -> None:
        """Forget all runs: others drive them now, and this worker is called ``name``. Attempts count as cut."""
        for step in self._calls():
            if step.task is not None:
                step.task.cancel()
        for run in list(self.runs.values()):
            run.scheduler.undriven = False
            run.evict()
        self.lingering.disown(name)
        self.due.clear()
        self.unannounced.clear()
        self.worker = name

    def die(self, name: str) -> list[asyncio.Future[Any]]:
        """For tests: forget everything as the end of the process would; the next worker is called ``name``.

        Returns the calls that cannot be stopped at once. What they return is ignored, whenever that is.
        """
        under_way = self.executor.abandon(self._calls())
        for run in (*self.runs.values(), *self.unannounced.values()):
            run.row.void = True
        self.disown(name)
        self.lingering = LingeringRuns(name, reload=self.due.reload, release=self._release)
        return under_way

    # -- taking runs into memory -----------------------------------------------------------------------------------

    def start(self, row: NewRun, definition: DurableFunction, receipt: StartReceipt) -> None:
        """Drive a new run from its start; its row and its first intent are one commit."""
        identity = identity_of(row, definition)
        run = Run(
            self,
            definition,
            identity,
            Row(tags=row.tags, deadline_at_ns=row.deadline_at_ns),
            created_at_ns=row.created_at_ns,
        )
        args, kwargs = definition.shape.decode(row.input, what=f"{run.title}: the arguments")
        self.runs[row.num] = run
        run.cursor.start_log = []
        receipt.run = run
        self.writer.start(row, receipt)
        if row.deadline_at_ns is not None:
            self.arm(run)
        queued = Queued(run, args, kwargs)
        if self.slots.open:
            self._drive(queued)
        else:
            self.slots.queue.append(queued)

    def _drive(self, queued: Queued) -> None:
        self.slots.enter(queued.run)
        restoring.begin(*queued)
        self.drive_soon(queued.run)

    def begin(self, run: Run) -> None:
        """Begin a run before its turn, without driving it: what it is sent must find its body in place."""
        queued = self.slots.take(run)
        if queued is not None:
            self.slots.enter(run)
            restoring.begin(*queued)

    def admit(self) -> None:
        """Begin the new runs that have a place now."""
        while not self.leaving and (queued := self.slots.next()) is not None:
            self._drive(queued)

    def adopt(self, record: RunRecord, entries: list[Entry], signals: Sequence[Signal]) -> None:
        """Drive a run that another process, or this one earlier, has begun."""
        lingering = self.lingering.get(record.num)
        kill = next((place for place, signal in enumerate(signals) if signal.verb == "kill"), None)
        if (
            lingering is not None
            and kill is None
            and not restoring.may_go_on(entries, signals, lingering.steps.values())
        ):
            lingering.wanted = True  # what has not returned comes first; meanwhile the run is ours
            if lingering.owner == self.worker:
                lingering.note(entries[-1].seq if entries else 0)
            return
        run = self.restored(record)
        entries = list(revealed(self.secret, record.num, record.uid, entries))
        self.runs[record.num] = run
        self.slots.enter(run)
        run.cursor.seq = entries[-1].seq if entries else 0
        go_on_from(self.clock, entries[-1].at_ns if entries else record.created_at_ns)  # its times never decrease
        late = lingering.late if lingering is not None else ()
        steps = lingering.steps if lingering is not None else {}
        if kill is not None:
            self._kill(run, signals[:kill], late, signals[kill])
        elif restoring.killed_by(entries) is not None and not restoring.abandons(signals):
            self._kill(run, signals, late, None)
        else:
            restoring.restore(run, record.input, entries, signals=signals, late=late)
            for signal in signals:
                self.consume(signal, run)
            steps = {}
        if lingering is not None:
            if steps:
                self.lingering.set(
                    attrs.evolve(lingering, run=run, owner=self.worker, late=[], reloading=False, wanted=False)
                )
            else:
                self.lingering.replaced(lingering, run)

    def consume(self, signal: Signal, run: Run) -> None:
        """The run has taken the signal up: it leaves the store in the commit of the entries that say so."""
        self.writer.consume(signal.num, run.num, run.cursor.signal_seq)

    def _kill(self, run: Run, signals: Sequence[Signal], late: Sequence[LateResult], kill: Signal | None) -> None:
        """End a run that was killed while it was not driven; what it was sent before that is kept in its journal.

        ``kill`` is None where the journal holds already that it was asked for.
        """
        for result in late:
            run.note(result)
        kind = EntryKind.NOTED if kill is None else EntryKind.SIGNALLED
        for signal in signals:
            if signal.verb not in ANSWERS:
                run.cursor.signal_seq = run.input(kind, signal.verb, 0, "", signal.payload).seq
            self.consume(signal, run)
        run.kill(b"{}" if kill is None else kill.payload, asked=kill is not None)
        if kill is not None:
            self.consume(kill, run)

    def restored(self, record: RunRecord) -> Run:
        """The run as its row says that it stands."""
        definition = self.registry.get(record.name, record.version)
        row = Row(
            status=record.status,
            phase=record.phase,
            paused=record.paused,
            reason=record.reason,
            detail=record.detail,
            tags=record.tags,
            retagged=record.retagged,
            deadline_at_ns=deadline_of(record, definition),
        )
        return Run(self, definition, identity_of(record, definition), row, created_at_ns=record.created_at_ns)

    # -- what runs ask for (Effects) -------------------------------------------------------------------------------

    def token(self, run: Run, key: str) -> str:
        """The token of a callback, derived from the secret."""
        return token_of(self.secret, run.num, run.uid, key)

    def attempt(self, run: Run, step: PendingStep) -> None:
        """Call the step's function."""
        self.slots.enter(run)
        self.executor.call(step)

    def take_over(self, step: PendingStep) -> bool:
        """Let ``step`` have the end of the call that this run's predecessor in memory has begun."""
        return self.lingering.take_over(step)

    def returned_late(self, step: PendingStep, result: LateResult) -> None:
        """An attempt has returned whose run is not driven any more in this form: its outcome is evidence."""
        self.lingering.returned(step, None if self.executor.cutting else result, leaving=self.leaving)

    def cut(self, step: PendingStep) -> None:
        """An attempt was cut from outside: it has no outcome, as after a crash."""
        run = step.run
        step.task = None
        step.called = step.announced = False  # it was called, so nothing may say that it was withheld
        if run.dead:
            self.lingering.returned(step, None, leaving=self.leaving)
        elif not self.leaving:
            log.warning(
                "%s, step %r: attempt %d was cancelled from outside its own code; it counts as cut by a crash",
                run.title,
                step.key,
                step.attempt,
            )
            self.reload(run)

    def owner_after(self, run: Run) -> str | None:
        """This worker while attempts of ``run``, which is about to leave memory, have not returned; else None."""
        return self.worker if self.lingering.holds(run) else None

    def drive_soon(self, run: Run) -> None:
        """Drive the body in this turn of the loop, with others: a turn with many ends enters the guard once."""
        run.scheduler.undriven = True
        self._undriven.append(run)
        if len(self._undriven) == 1:
            self._loop.call_soon(self._drive_all)

    def _drive_all(self) -> None:
        runs, self._undriven = self._undriven, []
        drive([run for run in runs if run.scheduler.undriven], self.guard)

    @property
    def working(self) -> bool:
        """Whether bodies are to be driven, or runs to be claimed."""
        return bool(self._undriven) or self.due.looking or (self.poked.is_set() and not self.leaving)

    def idle(self, run: Run) -> None:
        """Nothing is in flight in ``run``: keep it for a short wait, else give it back."""
        self._rest(run)
        row = run.row
        if run.hold:
            if row.status is not RunStatus.STUCK and (run.waits or any(step.due_at_ns for step in run.steps.values())):
                row.move(RunStatus.WAITING)
            self._give_back(run, None)
            return
        due = [wait.due_at_ns for wait in run.waits.values() if not wait.over]
        due += [step.due_at_ns for step in run.steps.values() if step.due_at_ns is not None]
        due.append(run.due_at_ns)
        wake_at_ns = min((at_ns for at_ns in due if at_ns is not None), default=None)
        # A stuck run waits for a person; what is promised beside that happens all the same, and soon: here.
        if wake_at_ns is not None and self.slots.lingers(wake_at_ns - self.now_ns(), of=len(self.runs)):
            return
        if row.status is not RunStatus.STUCK:
            row.move(RunStatus.WAITING)
        self._give_back(run, wake_at_ns)
        if wake_at_ns is not None:
            # Not before the row says so: a claim that comes too soon finds nothing, and nothing would ask again.
            self.after(partial(self.due.wake_by, wake_at_ns))

    def _give_back(self, run: Run, wake_at_ns: int | None) -> None:
        run.save(owner=None, wake_at_ns=wake_at_ns)
        run.evict()

    def _release(self, run: Run) -> None:
        """Give back a run that left memory earlier: nothing of it is in flight any more."""
        run.dead = False
        run.save(owner=None, wake_at_ns=None, end=End(status=run.row.status) if run.row.status in ENDS else None)
        run.dead = True
        self.after(self.poked.set)  # a signal may have come for it

    def ended(self, run: Run, end: End) -> None:
        """Notify the waiters once the end is durable."""
        self.unannounced[run.identity.num] = run
        self.after(partial(self._announce, run, end))

    def got_stuck(self, run: Run) -> None:
        """Notify the waiters once it is durable."""
        self.after(partial(self._announce, run, None))

    def _announce(self, run: Run, end: End | None) -> None:
        num = run.identity.num
        if end is not None and self.unannounced.get(num) is run:
            del self.unannounced[num]
        if not run.row.void:
            self._on_outcome(run, end)

    def failing(self, run: Run, step: PendingStep) -> None:
        """``step`` has failed many times and will be tried again: somebody should look."""
        run.row.reason = f"step {step.key!r} has failed {step.failures} times and is tried again"
        run.save(owner=self.worker, wake_at_ns=None)
        self.after(partial(self._on_attention, run.id))

    def forget(self, run: Run) -> None:
        """Drop a run from memory, but for its attempts that have not returned."""
        num = run.identity.num
        if self.runs.get(num) is run:
            del self.runs[num]
        self.lingering.keep(run)
        self._rest(run)

    def _rest(self, run: Run) -> None:
        """``run`` no longer counts against the concurrency: let others in."""
        if self.slots.leave(run):
            self.poked.set()
        elif self.slots.queue:
            # Not at once: this may be called amid another body, and no body is driven from within another.
            self._loop.call_soon(self.admit)

    # -- what the store says ---------------------------------------------------------------------------------------

    def reload(self, run: Run) -> None:
        """Drop a run that is ours from memory and load it again, with the attempts that have not returned."""
        run.row.void = True
        now_ns = self.now_ns()
        withheld = [LateResult.withheld(step.key, step.attempt, now_ns) for step in run.unended() if step.withdraw()]
        run.scheduler.undriven = False
        run.evict()
        self.lingering.drop(run.num, withheld, run)

    def overtaken(self, num: int, lost: Sequence[Entry]) -> None:
        """The store has not written what a run decided last, because a signal came first: load it again.

        Args:
            num: the run.
            lost: its entries that were not written. What attempts returned among them is not to be lost.
        """
        run = self.unannounced.pop(num, None) or self.runs.get(num)
        if run is not None and not run.dead:
            self.reload(run)
        elif run is not None:
            run.row.void = True
        self.lingering.lose(num, lost, run)

    def refused(self, num: int, error: StoreError) -> None:
        """The store refuses this run's rows for good: drop it, and show that somebody must look before it goes on."""
        run = self.runs.get(num) or self.unannounced.pop(num, None)
        log.error(
            "%s: the store refuses its rows, and it is dropped from memory: %s",
            run.title if run else f"{self.registry.noun} number {num}",
            error,
        )
        if run is not None:
            run.row.void = True
            run.scheduler.undriven = False
            if not run.dead:
                run.evict()
        lingering = self.lingering.get(num)
        if lingering is not None:
            lingering.reloading = True
        self.due.reload(
            num,
            refused=f"the store refused what it was to write ({error.text}), so what it did since its last entry is "
            "not recorded. Look into what its step returned or raised, then retry it: it goes on from its journal",
        )

    def show_refused(self, record: RunRecord, entries: Sequence[Entry], why: str) -> None:
        """Show a run as stuck whose rows the store has refused: as far as its journal goes."""
        run = self.restored(attrs.evolve(record, status=RunStatus.STUCK))
        run.row.reason = f"{run.title}: {why}"
        run.cursor.seq = entries[-1].seq if entries else 0
        run.save(owner=self.owner_after(run), wake_at_ns=None)
        run.dead = True
        self.got_stuck(run)
        lingering = self.lingering.get(record.num)
        if lingering is not None:
            lingering.run, lingering.reloading = run, False
            lingering.note(run.cursor.seq)


def identity_of(row: NewRun | RunRecord, definition: DurableFunction) -> RunIdentity:
    """What never changes about the run in this row."""
    return RunIdentity(row.num, row.id, row.uid, definition.name, definition.version, row.traceparent, definition.noun)
