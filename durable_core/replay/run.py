"""One run in memory: its body is driven by ``pump``, and learns what happened from ``feed``, live and on replay alike.

Invariant: live, an input is journalled and then fed; on replay, what the journal holds is fed. There is no other way
into a body, so a replay sees what the first run saw, in the same order. While entries of the journal are still to
be fed (``backlog``), what the body asks for is compared with them and nothing leaves this object.
"""

import contextvars
import logging
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from msgspec.json import encode as json_encode

from durable_core.errors import Closed, DurableError, Fault
from durable_core.model.callback import TOLD
from durable_core.model.entry import ANSWERED_SO_FAR, ROLES, UNANSWERED, Entry, EntryKind, Role, effective, held
from durable_core.model.failure import capture
from durable_core.model.keys import Scope
from durable_core.model.run import RunStatus
from durable_core.model.spec import DurableFunction, StepSpec
from durable_core.ports import Timer
from durable_core.replay import deadlines, faults, structure
from durable_core.replay.abandoned import Restored, restore
from durable_core.replay.callbacks import PendingCallback, answered
from durable_core.replay.cursor import NOTHING, Cursor, End
from durable_core.replay.effects import Effects
from durable_core.replay.fibers import REFUSALS, Body, Fiber
from durable_core.replay.steps import MANY_FAILURES, Evidence, PendingStep
from durable_core.replay.turn import drive
from durable_core.replay.waits import Parked, PendingWait

log = logging.getLogger("durable_core")


class Told(NamedTuple):
    """What a run was told, and has not taken up."""

    name: str
    payload: bytes
    seq: int = 0
    """The entry that holds it back, or 0."""
    at_ns: int = 0
    """When it was told."""


class Run(Cursor):
    """A run that this worker owns."""

    __slots__ = (
        "active",
        "bindings",
        "catching_up",
        "context",
        "current",
        "deadline_timer",
        "fault",
        "halted",
        "in_flight",
        "inbox",
        "left",
        "marks",
        "on_signal",
        "parked",
        "patches",
        "ready",
        "restoring",
        "root",
        "steps",
        "thrown",
        "unarmed",
        "waits",
    )

    def __init__(self, shell: Effects, definition: DurableFunction, **row: Any) -> None:
        super().__init__(shell, definition, **row)
        self.steps: dict[str, PendingStep | Restored] = {}
        self.waits: dict[str, PendingWait | PendingCallback[Any]] = {}
        self.parked: dict[str, Parked] = {}
        self.patches: dict[str, bool] = {}
        self.unarmed: tuple[PendingWait | PendingCallback[Any], ...] = ()
        """Waits whose timers are set once the body is no longer driven."""
        self.inbox: tuple[Told | Evidence, ...] = ()
        """What came while the run was in nobody's memory, in the order in which it counts."""
        self.ready: list[tuple[Fiber, Any, BaseException | None]] = []
        self.thrown: list[BaseException] = []
        """The errors that were given to its body as the outcome of something."""
        self.root: Fiber | None = None
        self.current: Fiber | None = None
        self.fault: Fault | None = None
        self.marks: tuple[str, ...] = ()
        """What an abandoned body has marked."""
        self.bindings: dict[str, StepSpec] = {}
        """Where the body is abandoned: what the code loaded here runs each step key with."""
        self.active = False
        """Whether it counts against the worker's concurrency."""
        self.in_flight = 0
        """Attempts announced and not ended."""
        self.deadline_timer: Timer | None = None
        self.on_signal: Callable[[Entry], None] | None = None
        self.restoring = False
        """Its journal is being fed, or what came meanwhile."""
        self.halted = self.left = self.catching_up = False
        """Why it is ``held``, as its journal has it so far: by a pause; a worker has left it; it is catching up."""
        self.context = contextvars.copy_context()

    # -- life ------------------------------------------------------------------------------------------------------

    def begin(self, coro: Body) -> None:
        """Drive the body for the first time in this process: from the start, or along its journal."""
        self.root = Fiber(coro, Scope(), None)
        self.ready.append((self.root, None, None))

    def replay(self, entries: Sequence[Entry]) -> None:
        """Feed the journal, then what came meanwhile, then go live: arm what waits, attempt again what a crash has cut.

        What came meanwhile (``inbox``) is taken up before the body answers the journal's last input, so before it can
        ask for anything new. A run that does not fit its journal is parked before any effect.
        """
        self.restoring = True
        entries = restore(self, entries)
        self.inbox = (*(Told(one.key, one.payload or b"{}", one.seq) for one in held(entries)), *self.inbox)
        self.backlog = deque(effective(entries))
        self.seq = max(self.seq, entries[-1].seq if entries else 0)
        answered = False
        while not self.dead:
            if not answered and (self.backlog or not self.inbox) and not self._is_caught_up_first():
                self.pump()
            answered = True
            if not self.backlog or self.dead:
                break
            entry = self.backlog[0]
            if ROLES[EntryKind(entry.kind)] is Role.OUTPUT:
                self.park(self.mismatch(entry, "nothing more here"))
                return
            self.backlog.popleft()
            self.take(entry)
            answered = False
        if not self.dead:
            self._go_live()

    def _is_caught_up_first(self) -> bool:
        """Whether the journal holds a catching up that came before the body had seen its last input."""
        backlog = self.backlog
        return bool(backlog) and backlog[0].kind == EntryKind.SUSPENDED and backlog[0].label == UNANSWERED

    def _go_live(self) -> None:
        """The journal is fed: from here on things happen."""
        if self.status is not RunStatus.STUCK:
            self.status = RunStatus.RUNNING
            failing = [step for step in self.unended() if step.failures >= MANY_FAILURES]
            self.reason = self.reason if failing else None
        inbox, self.inbox = self.inbox, ()
        if inbox:
            self.catch_up(inbox)
        elif self.catching_up or (self.held and not self.paused):
            self.feed(self.input(EntryKind.RESUMED, ""))
        deadlines.before_steps(self)
        for step in self.unended():
            if not self.dead:
                step.recover(self)
        if self.dead:
            return
        for wait in self.waits.values():
            wait.arm(self)
        self.restoring = False
        self.pump()

    def catch_up(self, inbox: "Sequence[Told | Evidence]") -> None:
        """Take up what was told, returned or fell due, all of it before the body goes on.

        The journal keeps it between ``suspended`` and ``resumed``, so that a replay drives the body at the same places.
        """
        unanswered = bool(self.ready)
        self.undriven = False
        self.take(self.input(EntryKind.SUSPENDED, "", 0, UNANSWERED if unanswered else ANSWERED_SO_FAR))
        for place, one in enumerate(inbox):
            self._take_up(one)
            if self.fault is not None and not self.dead:
                self.inbox = (*inbox[place + 1 :], *self.inbox)
                self.park(self.fault)
            if self.dead:
                return
        self.feed(self.input(EntryKind.RESUMED, ""))

    def _take_up(self, one: "Told | Evidence") -> None:
        """Journal and take one thing, amid a catching up."""
        if isinstance(one, Evidence):
            step = self.steps.get(one.key)
            if isinstance(step, PendingStep):
                step.hear(one)
        elif one.name in TOLD:
            answered(self, one.payload, one.seq)
        elif one.name == "kill":
            self.kill(one.payload)
        elif one.name != "deadline" or not self.phase:
            self.take(self.input(EntryKind.SIGNALLED, one.name, one.seq, "", one.payload))
            if one.name in ("pause", "resume"):
                self.save(owner=self.shell.worker, wake_at_ns=None)

    def go_on(self) -> None:
        """It was resumed: make the attempts that were held back."""
        for step in self.unended():
            step.resume(self)
        self.pump()

    def is_overdue(self) -> bool:
        """Whether its deadline has passed, still counts, and has not been told to it."""
        return (
            self.deadline_at_ns is not None
            and not self.phase
            and not self.dead
            and not self.restoring
            and not self.catching_up
            and self.shell.now_ns() >= self.deadline_at_ns
        )

    def unended(self) -> list[PendingStep]:
        """The steps that have begun and not ended."""
        return [step for step in self.steps.values() if isinstance(step, PendingStep) and step.waiting]

    def feed(self, entry: Entry) -> None:
        """Take up an input that was just journalled, and let the body answer."""
        self.take(entry)
        self.pump()

    def take(self, entry: Entry) -> None:
        """Hand an input to whom it is for."""
        self.last_at_ns = entry.at_ns
        kind = entry.kind
        if kind in (EntryKind.SUSPENDED, EntryKind.RESUMED):
            self.catching_up = kind == EntryKind.SUSPENDED and bool(entry.label)
            self.left = kind == EntryKind.SUSPENDED and not entry.label
            self.held = self.halted or self.left or self.catching_up
            return
        if kind == EntryKind.SIGNALLED:
            self.told_seq = entry.seq
            if entry.key in ("pause", "resume"):
                self.paused = self.halted = entry.key == "pause"
                self.left = False
                self.held = self.halted or self.catching_up
            elif entry.key == "deadline":
                self.deadline_at_ns = None  # it comes once; whoever waits on in spite of it is not woken for it again
            if entry.label and entry.label in self.steps:
                self.steps[entry.label].reopen(entry.at_ns)
            self._signal(entry)
            return
        step = self.steps.get(entry.key)
        if isinstance(step, PendingStep):
            step.take(self, entry)
            return
        wait = self.waits.get(entry.key)
        if wait is not None:
            wait.take(self, entry)
            return
        self.fault = self.mismatch(entry, "no such step")

    def _signal(self, entry: Entry) -> None:
        if self.on_signal is None:
            return
        try:
            self.on_signal(entry)
        except Fault as fault:
            self.fault = fault
        except Exception as bug:  # noqa: BLE001 - the layer above could not take it: this run is parked, not the worker
            self.fault = faults.bad_signal(self, entry, bug)

    # -- driving ---------------------------------------------------------------------------------------------------

    def pump(self) -> None:
        """Drive every ready fiber until each waits for something."""
        drive([self], self.shell.guard)

    def driven(self, broken: Exception | None) -> None:
        """The body waits, or is done for: take note of what it did, outside of the guard."""
        if self.dead:
            return
        if broken is not None:
            log.error("run %s of %s: internal error", self.id, self.definition.name, exc_info=broken)
            self.fault = faults.internal(self, broken)
        if self.fault is not None:
            self.park(self.fault)
            return
        for wait in self.unarmed:
            wait.arm(self)
        self.unarmed = ()
        if not self.in_flight and not self.restoring and not self.catching_up:
            self.shell.idle(self)

    def run_ready(self) -> None:
        """Send each ready fiber its answer, under the guard and in the run's own context."""
        ready = self.ready
        while ready and self.fault is None:
            fiber, value, error = ready.pop(0)  # rarely more than one, so a list is the smaller and faster queue
            if fiber.done or (error is not fiber.signal and isinstance(error, Closed)):
                continue  # a signal that has been dealt with since
            if fiber.signal is not None and error is not fiber.signal:
                structure.advance(self, fiber)
                continue
            coro = fiber.coro
            self.current = fiber
            fiber.wait = None
            try:
                command = coro.send(value) if error is None else coro.throw(error)  # type: ignore[union-attr]
            except StopIteration as stop:
                self._finish(fiber, stop.value, None)
            except KeyboardInterrupt:
                raise
            except BaseException as raised:  # noqa: BLE001 - the border of the user's body: what it raises is its outcome
                self._raised(fiber, raised)
            else:
                self._issue(fiber, command)

    def _raised(self, fiber: Fiber, raised: BaseException) -> None:
        """The body of ``fiber`` let an exception out."""
        if isinstance(raised, Closed):
            raised.with_traceback(None)  # its frames know the fiber, and the fiber knows its signal
            self._finish(fiber, None, None if fiber.signal is not None else raised)
        elif isinstance(raised, Exception):
            self.fault = self.fault or faults.of_ours(self, raised)
            self._finish(fiber, None, raised)
        else:  # an engine fault on its way out, or a signal of the user's own
            self.fault = self.fault or faults.no_exception(self, raised)

    def _issue(self, fiber: Fiber, command: Any) -> None:
        if self._faulted():
            return
        if fiber.signal is not None:
            self._refuse(fiber)
            return
        try:
            issue = command.issue
        except AttributeError:
            self._foreign(fiber, command)
            return
        try:
            issue(self, fiber)
        except Fault as fault:
            self.fault = fault
        except DurableError as refused:
            self.ready.append((fiber, None, refused))

    def _faulted(self) -> bool:
        """Whether the engine refuses to go on, also where the body has swallowed the fault."""
        if self.fault is None:
            self.fault = self.shell.guard.caught
        return self.fault is not None

    def _refuse(self, fiber: Fiber) -> None:
        """A closed body asks for more: throw again, and drop it where it never learns."""
        fiber.refusals += 1
        if fiber.refusals < REFUSALS:
            self.ready.append((fiber, None, fiber.signal))
            return
        log.warning(
            "run %s of %s: the body swallowed its closing %d times and is dropped; "
            "let BaseException pass in its except blocks",
            self.id,
            self.definition.name,
            REFUSALS,
        )
        self._finish(fiber, None, None)

    def _foreign(self, fiber: Fiber, awaited: object) -> None:
        """The second net: something foreign was yielded. Refuse it at that very line."""
        error = self.shell.guard.refuse_yield(fiber.coro, awaited)
        try:
            fiber.coro.throw(error)  # type: ignore[union-attr]
        except BaseException:  # noqa: BLE001 - what the body makes of it does not matter: the fault is recorded
            log.debug("run %s: the body let go of the foreign await", self.id)

    def _finish(self, fiber: Fiber, value: Any, error: BaseException | None) -> None:
        if self._faulted():
            return
        fiber.done = True
        fiber.coro = None
        fiber.value = value
        fiber.error = error
        if fiber.group is not None:
            structure.ended(self, fiber)
        elif not self.dead:
            self._finished(value, error)

    def _finished(self, value: Any, error: BaseException | None) -> None:
        """The root body returned or raised: the run ends, durable with the next flush."""
        if isinstance(value, End):
            end = value
        elif error is None:
            try:
                end = End(output=self.definition.shape.encode_result(value, what=f"run {self.id}: the result"))
            except DurableError as refused:
                end = End(status=RunStatus.FAILED, error=capture(refused))
        else:
            end = End(status=RunStatus.FAILED, error=capture(error))
        if self.backlog:
            self.fault = self.mismatch(self.backlog[0], "the end")
            return
        self.finish(end)

    def finish(self, end: End) -> None:
        """End the run as ``end`` says; durable with the next flush."""
        self.status = end.status
        self.phase = end.phase or self.phase
        self.reason = end.reason
        self.input(EntryKind.ENDED, end.phase, 0, end.status, end.output, end.error)
        self.save(owner=None, wake_at_ns=None, end=end)
        self.shell.ended(self, end)
        self.release()

    def park(self, fault: Fault) -> None:
        """Park the run as stuck, before any effect: the code does not fit, or breaks a rule."""
        self.fault = None
        self.status = RunStatus.STUCK
        self.reason = str(fault)
        # A remark: it is kept for people, never replayed, so that the run can go on once the code is mended.
        about = json_encode({"steps": fault.about}) if fault.about else None
        self.input(EntryKind.FAULTED, fault.step, fault.since, type(fault).__name__, about, capture(fault))
        for one in self.inbox:  # they wait until the code is mended; a retry has had its chance
            if isinstance(one, Evidence):
                self.note(one)
                continue
            if one.name in ("pause", "resume"):
                self.paused = one.name == "pause"
            if one.name in ("pause", "resume", "retry"):
                self.input(EntryKind.NOTED, one.name, 0, "", one.payload)
            elif not one.seq and one.name != "deadline":  # which is told again once it may be
                self.input(EntryKind.HELD, one.name, 0, "", one.payload)
        self.inbox = ()
        for step in self.unended():
            if step.withdraw():
                self.note(Evidence(step.key, step.attempt, EntryKind.WITHHELD, None, None, self.shell.now_ns()))
        self.save(owner=self.shell.owner_after(self), wake_at_ns=None)
        self.shell.parked(self)
        self.evict()

    def note(self, evidence: Evidence) -> Entry:
        """Keep how an attempt ended that this run was not driven to hear of."""
        key, attempt, label, payload, error, started_at_ns = evidence
        return self.input(EntryKind.NOTED, key, attempt, label, payload, error, started_at_ns)

    def kill(self, payload: bytes, *, asked: bool = True) -> None:
        """End the run here and now, undoing nothing; what is still under way is kept as evidence only.

        ``asked`` is False where the journal holds already that it was asked for.
        """
        self.undriven = False
        self.backlog = NOTHING
        for step in self.unended():
            if step.withdraw():
                self.input(EntryKind.WITHHELD, step.key, step.attempt)
        if asked:
            self.told_seq = self.input(EntryKind.SIGNALLED, "kill", 0, "", payload).seq
        self.status = RunStatus.KILLED
        self.paused = False
        self.reason = None
        self.input(EntryKind.ENDED, "", 0, RunStatus.KILLED)
        self.save(owner=self.shell.owner_after(self), wake_at_ns=None, end=End(status=RunStatus.KILLED))
        self.shell.ended(self, End(status=RunStatus.KILLED))
        self.evict()

    def note_late(self, evidence: Evidence) -> None:
        """An attempt has ended after the run was killed or parked: keep how, change nothing.

        Of a killed run it is evidence for people only; what a parked one is retried or undone with is the outcome.
        """
        self.dead = False
        if self.status is RunStatus.KILLED:
            self.input(EntryKind.NOTED, evidence.key, evidence.attempt, evidence.label, None, evidence.error)
        else:
            self.note(evidence)
        self.dead = True

    def evict(self) -> None:
        """Drop the run from memory. The body's ``finally`` blocks run, but every command in them is refused."""
        fibers = structure.alive(self)
        self.dead = True
        for step in self.steps.values():
            step.disarm()
        for wait in self.waits.values():
            wait.disarm()
        if not self.shell.guard.entered:  # else the process is being torn down amid a body
            self.shell.guard.enter()
            try:
                for fiber in fibers:
                    self.context.run(structure.close, self, fiber)
            finally:
                self.shell.guard.caught = None
                self.shell.guard.leave()
        self.release()

    def release(self) -> None:
        """Cut the cycles between run, fibers and coroutines, so that the collector need not find them."""
        self.dead = True
        self.undriven = False
        if self.deadline_timer is not None:
            self.deadline_timer.cancel()
            self.deadline_timer = None
        self.root = self.current = self.on_signal = None
        self.ready.clear()
        self.thrown.clear()
        self.shell.forget(self)
        self.steps, self.waits, self.parked = {}, {}, {}
