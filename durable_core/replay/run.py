"""One run in memory: its body is driven by ``pump``, and learns what happened from ``feed``, live and on replay alike.

Invariant: live, an input is journalled and then fed; on replay, what the journal holds is fed. There is no other way
into a body, so a replay sees what the first run saw, in the same order. While entries of the journal are still to
be fed (``Cursor.backlog``), what the body asks for is compared with them and nothing leaves this object.
"""

import logging
from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec.json import encode as json_encode

from durable_core.errors import Closed, DurableError, Fault
from durable_core.model.callback import ANSWERS, Answer
from durable_core.model.entry import (
    ANSWERED_SO_FAR,
    ROLES,
    TOO_LATE,
    UNANSWERED,
    Entry,
    EntryKind,
    Role,
    effective,
    held,
)
from durable_core.model.failure import capture
from durable_core.model.run import RunStatus
from durable_core.model.spec import DurableFunction
from durable_core.replay import faults
from durable_core.replay.awaiting import stuck_on, waiting_on
from durable_core.replay.cursor import NOTHING, Cursor, End, LateResult, Message, Row, RunIdentity
from durable_core.replay.effects import Effects, Timed, TimedKind
from durable_core.replay.guard import LoopGuard
from durable_core.replay.parts import AbandonedBody, Step, StuckFiber, Wait
from durable_core.replay.scheduler import Fiber, Scheduler

if TYPE_CHECKING:
    pass

log = logging.getLogger("durable_core")

new_row: Callable[[type[Entry], tuple[Any, ...]], Entry] = tuple.__new__  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
"""Makes a named tuple as its class would, without a call of Python."""
MANY_FAILURES = 10
"""After so many failures of a step that is tried again somebody should look."""
DEADLINE = "deadline"
"""The signal that a run's deadline has passed."""


PAUSED, LEFT, CATCHING_UP = 1, 2, 4
"""Why a body is not driven, as bits of ``Run.hold``: an operator has paused the run; a worker has left it while steps
were in flight; several inputs that came meanwhile are taken up, one after the other."""


class Run:
    """A run in memory. Also the timer of its own deadline, see ``effects.Timed``."""

    __slots__ = (
        "abandoned",
        "cursor",
        "dead",
        "definition",
        "effects",
        "fault",
        "hold",
        "identity",
        "in_flight",
        "on_signal",
        "row",
        "scheduler",
        "steps",
        "stuck",
        "waits",
    )

    timed: TimedKind = "deadline"
    key: str = ""

    def __init__(
        self,
        effects: "Effects[Run, Any]",
        definition: DurableFunction,
        identity: RunIdentity,
        row: Row,
        *,
        created_at_ns: int,
    ) -> None:
        self.effects = effects
        self.definition = definition
        self.identity = identity
        self.row = row
        self.cursor = Cursor(identity, created_at_ns)
        self.scheduler = Scheduler()
        self.steps: dict[str, Step] = {}
        self.waits: dict[str, Wait] = {}
        self.stuck: dict[str, StuckFiber] = {}
        """The fibers that wait for a person."""
        self.abandoned: AbandonedBody | None = None
        self.fault: Fault | None = None
        self.hold = 0
        """Why its body is not driven: ``PAUSED``, ``LEFT``, ``CATCHING_UP``; 0: it is."""
        self.in_flight = 0
        """Attempts announced and not ended."""
        self.on_signal: Callable[[Entry], None] | None = None
        self.dead = False
        """No longer in this worker's hands: ended, evicted, refused or stuck on a fault. Nothing more is written."""

    @property
    def num(self) -> int:
        """Its number in the store."""
        return self.identity.num

    @property
    def id(self) -> str:
        """The user's id."""
        return self.identity.id

    @property
    def uid(self) -> bytes:
        """16 random bytes, fixed when the run began."""
        return self.identity.uid

    @property
    def title(self) -> str:
        """What it is and its id, at the head of messages."""
        return self.identity.title

    @property
    def noun(self) -> str:
        """See ``DurableFunction.noun``."""
        return self.identity.noun

    @property
    def label(self) -> str:
        """Its title and name, for the log."""
        return f"{self.title} of {self.identity.name}"

    # -- inputs ----------------------------------------------------------------------------------------------------

    def replay(self, entries: Sequence[Entry]) -> None:
        """Feed the journal, then what came meanwhile, then go live: arm what waits, attempt again what a crash has cut.

        What came meanwhile (``Cursor.inbox``) is taken up before the body answers the journal's last input, so before
        it can ask for anything new. A run that does not fit its journal is stuck before any effect.
        """
        cursor = self.cursor
        cursor.restoring = True
        cursor.inbox = (*(Message(one.key, one.payload or b"{}", one.seq) for one in held(entries)), *cursor.inbox)
        cursor.backlog = deque(effective(entries))
        self.row.error = next((entry.error for entry in reversed(entries) if entry.error is not None), None)
        cursor.seq = max(cursor.seq, entries[-1].seq if entries else 0)
        answered = False
        while not self.dead:
            if not answered and (cursor.backlog or not cursor.inbox) and not self._catches_up_next():
                self.pump()
            answered = True
            if not cursor.backlog or self.dead:
                break
            entry = cursor.backlog[0]
            if ROLES[EntryKind(entry.kind)] is Role.OUTPUT:
                self.stop(cursor.mismatch(entry, "nothing more here"))
                return
            cursor.backlog.popleft()
            self.take(entry)
            answered = False
        if not self.dead:
            self._go_live()

    def _catches_up_next(self) -> bool:
        """Whether the journal holds a catching up that came before the body had seen its last input."""
        backlog = self.cursor.backlog
        return bool(backlog) and backlog[0].kind == EntryKind.SUSPENDED and backlog[0].label == UNANSWERED

    def _go_live(self) -> None:
        """The journal is fed: from here on things happen."""
        row, cursor = self.row, self.cursor
        if row.status is not RunStatus.STUCK:
            row.move(RunStatus.RUNNING)
            failing = [step for step in self.unended() if step.failures >= MANY_FAILURES]
            row.reason = row.reason if failing else None
        inbox, cursor.inbox = cursor.inbox, ()
        if inbox:
            self.catch_up(inbox)
        elif self.hold & CATCHING_UP or (self.hold and not row.paused):
            self.feed(self.input(EntryKind.RESUMED, ""))
        if not self.dead:
            self.pass_deadlines()
            self.pump()
        for step in self.unended():
            if not self.dead:
                step.recover()
        if self.dead:
            return
        for wait in self.waits.values():
            self.arm(wait)
        cursor.restoring = False
        self.pump()

    def catch_up(self, inbox: Sequence[Message | LateResult]) -> None:
        """Take up what was sent, returned or fell due, all of it before the body goes on.

        The journal keeps it between ``suspended`` and ``resumed``, so that a replay drives the body at the same places.
        """
        unanswered = bool(self.scheduler.ready)
        self.scheduler.undriven = False
        self.take(self.input(EntryKind.SUSPENDED, "", 0, UNANSWERED if unanswered else ANSWERED_SO_FAR))
        for place, one in enumerate(inbox):
            self._take_up(one)
            if self.fault is not None and not self.dead:
                self.cursor.inbox = (*inbox[place + 1 :], *self.cursor.inbox)
                self.stop(self.fault)
            if self.dead:
                return
        self.feed(self.input(EntryKind.RESUMED, ""))

    def _take_up(self, one: Message | LateResult) -> None:
        """Journal and take one input, amid a catching up."""
        if isinstance(one, LateResult):
            step = self.steps.get(one.key)
            if step is not None:
                step.take_late(one)
        elif one.name in ANSWERS:
            self._answer(one.payload, one.seq)
        elif one.name == "kill":
            self.kill(one.payload)
        elif one.name != DEADLINE or not self.row.phase:
            self.take(self.input(EntryKind.SIGNALLED, one.name, one.seq, "", one.payload))
            if one.name in ("pause", "resume"):
                self.save(owner=self.effects.worker, wake_at_ns=None)

    def tell(self, name: str, payload: bytes) -> bool:
        """Journal a signal and feed it. A run that still waits for its turn begins now.

        What the body has not seen yet it sees after the signal, so nothing begins in between. False if the run has left
        memory instead: its next driver takes the signal up.
        """
        scheduler = self.scheduler
        if scheduler.root is None:
            self.effects.begin(self)
        if scheduler.undriven and not scheduler.ready:
            self.settle()
        if self.dead:
            return False
        overdue = self.is_overdue()
        if name == "kill":
            self.kill(payload)
        elif scheduler.ready or overdue:
            first = [Message(DEADLINE, b"{}")] if overdue else []  # it fell due first
            self.catch_up([*first, Message(name, payload)])
        elif name in ANSWERS:
            self._answer(payload)
        else:
            self.feed(self.input(EntryKind.SIGNALLED, name, 0, "", payload))
            if name in ("pause", "resume") and not self.dead:
                self.save(owner=self.effects.worker, wake_at_ns=None)
        if name == "resume" and not self.dead:
            for step in self.unended():
                step.resume()
            self.pump()
        return True

    def _answer(self, payload: bytes, seq: int = 0) -> None:
        """Take up an answer to a callback, or a heartbeat: the first answer that fits is the answer.

        Args:
            payload: an ``Answer``.
            seq: the entry that held it back, or 0.
        """
        answer = msgspec.json.decode(payload, type=Answer)
        self.settle()
        if self.dead:
            return
        callback = self.waits.get(answer.key)
        if callback is None or not callback.answer(answer, seq):
            self.cursor.signal_seq = self.input(EntryKind.NOTED, answer.key, seq, TOO_LATE, answer.by).seq

    def pass_deadlines(self) -> None:
        """Take up the deadlines of parts that have passed: on replay those that the journal holds here, else by now.

        The journal decides what came first. A step begins only once every deadline that has passed by then is taken up,
        even if no worker lived when it passed.
        """
        backlog = self.cursor.backlog
        waiting = {key: wait for key, wait in self.waits.items() if wait.timed == DEADLINE}
        if backlog:
            while backlog and backlog[0].kind == EntryKind.FIRED and backlog[0].key in waiting:
                self.take(backlog.popleft())
            return
        if not waiting:
            return
        now_ns = self.effects.now_ns()
        for key, deadline in sorted(waiting.items(), key=lambda each: each[1].due_at_ns or 0):
            if (deadline.due_at_ns or 0) <= now_ns and self.waits.get(key) is deadline:
                self.take(self.input(EntryKind.FIRED, key))

    def feed(self, entry: Entry) -> None:
        """Take up an input that was just journalled, and let the body answer."""
        self.take(entry)
        self.pump()

    def take(self, entry: Entry) -> None:
        """Hand an input to the step or wait that it is for."""
        self.cursor.last_at_ns = entry.at_ns
        kind = entry.kind
        if kind in (EntryKind.SUSPENDED, EntryKind.RESUMED):
            self.hold &= PAUSED
            if kind == EntryKind.SUSPENDED:
                self.hold |= CATCHING_UP if entry.label else LEFT
            return
        if kind == EntryKind.SIGNALLED:
            self._take_signal(entry)
            return
        step = self.steps.get(entry.key)
        if step is not None and step.live:
            step.take(entry)
            return
        wait = self.waits.get(entry.key)
        if wait is not None:
            wait.take(entry)
            return
        self.fault = self.cursor.mismatch(entry, "no such step")

    def _take_signal(self, entry: Entry) -> None:
        self.cursor.signal_seq = entry.seq
        if entry.key in ("pause", "resume"):
            self.row.paused = entry.key == "pause"
            self.hold &= CATCHING_UP
            if self.row.paused:
                self.hold |= PAUSED
        elif entry.key == DEADLINE:
            self.effects.disarm(self)
            self.row.deadline_at_ns = None  # it comes once; a run that waits on in spite of it is not woken again
        if entry.label and entry.label in self.steps:
            self.steps[entry.label].reopen(entry.at_ns)
        if self.on_signal is not None:
            self.guarded(entry, self.on_signal, entry)

    def guarded(self, entry: Entry, call: Callable[..., None], *args: object) -> None:
        """Call the layer above; if it cannot take ``entry`` up, this run is stuck, and not the worker."""
        try:
            call(*args)
        except Fault as fault:
            self.fault = fault
        except Exception as bug:  # noqa: BLE001 - the border of the layer above
            self.fault = faults.bad_signal(self.identity, entry, bug)

    # -- deadline --------------------------------------------------------------------------------------------------

    @property
    def due_at_ns(self) -> int | None:
        """When its deadline passes; None without one, or where it no longer counts."""
        return None if self.row.phase else self.row.deadline_at_ns

    def is_overdue(self) -> bool:
        """Whether its deadline has passed, still counts, and the run has not taken it up."""
        due_at_ns = self.row.deadline_at_ns
        return (
            due_at_ns is not None
            and not self.row.phase
            and not self.dead
            and not self.cursor.restoring
            and not self.hold & CATCHING_UP
            and self.effects.now_ns() >= due_at_ns
        )

    def ring(self) -> None:
        """Its deadline has passed: take that up before the body goes on."""
        if not self.is_overdue() or self.effects.leaving:
            return
        if self.scheduler.root is None:
            self.effects.begin(self)
        self.catch_up([Message(DEADLINE, b"{}")])

    # -- driving ---------------------------------------------------------------------------------------------------

    def pump(self) -> None:
        """Drive every ready fiber until each waits for something."""
        drive([self], self.effects.guard)

    def settle(self) -> None:
        """Let the body answer what it was sent, before the next input is judged and journalled, as in a replay.

        Whatever rings or ends must call this first, and look at its own state only then: the body may have given it up.
        """
        if self.scheduler.undriven:
            self.pump()

    def driven(self, broken: Exception | None) -> None:
        """The body waits, or has ended: take note of what it did, outside of the guard."""
        if self.dead:
            return
        if broken is not None:
            log.error("%s: internal error", self.label, exc_info=broken)
            self.fault = faults.internal(self.identity, broken)
        if self.fault is not None:
            self.stop(self.fault)
        elif not self.in_flight and not self.cursor.restoring and not self.hold & CATCHING_UP:
            self.effects.idle(self)

    def issue(self, fiber: Fiber, command: Any) -> None:
        """Carry out what ``fiber`` has yielded."""
        if self.is_faulted():
            return
        if fiber.interrupt is not None:
            self.scheduler.refuse(self, fiber)
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
            self.scheduler.ready.append((fiber, None, refused))

    def is_faulted(self) -> bool:
        """Whether the engine refuses to go on, also where the body has swallowed the fault."""
        if self.fault is None:
            self.fault = self.effects.guard.caught
        return self.fault is not None

    def _foreign(self, fiber: Fiber, awaited: object) -> None:
        """The second net: something foreign was yielded. Refuse it at that very line."""
        error = self.effects.guard.refuse_yield(fiber.coro, awaited)
        try:
            fiber.coro.throw(error)  # type: ignore[union-attr]
        except BaseException:  # noqa: BLE001 - what the body makes of it does not matter: the fault is recorded
            log.debug("%s: the body let go of the foreign await", self.title)

    def fail(self, raised: BaseException) -> None:
        """Record a fault where ``raised`` is one: an error of the engine's own, or no Exception at all."""
        if self.fault is None:
            own = isinstance(raised, Exception)
            self.fault = (
                faults.of_ours(self.identity, raised, thrown=self.scheduler.thrown)
                if own
                else faults.no_exception(self.identity, raised)
            )

    # -- writing ---------------------------------------------------------------------------------------------------

    def input(  # noqa: PLR0917 - an entry's columns in order, by position: called for every row
        self,
        kind: str,
        key: str,
        attempt: int = 0,
        label: str = "",
        payload: bytes | None = None,
        error: bytes | None = None,
        started_at_ns: int | None = None,
        due_at_ns: int | None = None,
    ) -> Entry:
        """Append an entry; durable when the writer's next flush returns."""
        if self.scheduler.undriven:
            self.pump()
        if self.dead:
            raise Closed
        effects, cursor = self.effects, self.cursor
        cursor.seq += 1
        entry = new_row(
            Entry,
            (
                self.identity.num,
                cursor.seq,
                kind,
                key,
                attempt,
                label,
                payload,
                error,
                started_at_ns,
                effects.now_ns(),
                due_at_ns,
                effects.worker,
            ),
        )
        if error is not None:
            self.row.error = error
        effects.append(entry if cursor.masks is None else cursor.masks.hide(entry))
        return entry

    def output(  # noqa: PLR0917 - an entry's columns in order
        self,
        kind: str,
        key: str,
        attempt: int = 0,
        label: str = "",
        payload: bytes | None = None,
        due_at_ns: int | None = None,
    ) -> tuple[Entry, bool]:
        """What the body asks for: the journal's next entry where it agrees, else a new one. True where it is new.

        Raises:
            NonDeterminismError: the journal holds something else.
        """
        if self.cursor.backlog:
            return self.cursor.next(kind, key, label, payload), False
        return self.input(kind, key, attempt, label, payload, None, None, due_at_ns), True

    def note(self, result: LateResult) -> Entry:
        """Keep how an attempt ended while this run was not driven."""
        key, attempt, label, payload, error, started_at_ns = result
        return self.input(EntryKind.NOTED, key, attempt, label, payload, error, started_at_ns)

    def note_late(self, result: LateResult) -> None:
        """An attempt has ended after the run was killed or got stuck: keep how, change nothing.

        Of a killed run it is evidence for people only; a stuck one is retried or undone with it as the outcome.
        """
        self.dead = False
        if self.row.status is RunStatus.KILLED:
            self.input(EntryKind.NOTED, result.key, result.attempt, result.label, None, result.error)
        else:
            self.note(result)
        self.dead = True

    def save(self, *, owner: str | None, wake_at_ns: int | None, end: End | None = None) -> None:
        """Queue the run's row as it stands now."""
        effects, row = self.effects, self.row
        awaits = None
        if row.status is RunStatus.WAITING:
            awaits = waiting_on(self.steps.values(), self.waits)
        elif row.status is RunStatus.STUCK:
            awaits = stuck_on(self.stuck.values(), row.stuck_on)
        effects.update(
            row.update(
                self.identity.num, owner=owner, wake_at_ns=wake_at_ns, now_ns=effects.now_ns(), end=end, awaits=awaits
            )
        )

    def arm(self, timed: Timed) -> None:
        """Have it rung at its time."""
        self.effects.arm(timed)

    def unended(self) -> list[Step]:
        """The steps that have begun and not ended."""
        return [step for step in self.steps.values() if step.waiting]

    # -- the end ---------------------------------------------------------------------------------------------------

    def finished(self, value: Any, error: BaseException | None) -> None:
        """The root body returned or raised: the run ends, durable with the next flush."""
        if isinstance(value, End):
            end = value
        elif error is None:
            try:
                end = End(output=self.definition.shape.encode_result(value, what=f"{self.title}: the result"))
            except DurableError as refused:
                end = End(status=RunStatus.FAILED, error=capture(refused))
        else:
            end = End(status=RunStatus.FAILED, error=capture(error))
        if self.cursor.backlog:
            self.fault = self.cursor.mismatch(self.cursor.backlog[0], "the end")
            return
        self.finish(end)

    def finish(self, end: End) -> None:
        """End the run as ``end`` says; durable with the next flush."""
        row = self.row
        row.move(end.status)
        row.phase = end.phase or row.phase
        row.reason = end.reason
        self.input(EntryKind.ENDED, end.phase, 0, end.status, end.output, end.error)
        self.save(owner=None, wake_at_ns=None, end=end)
        self.effects.ended(self, end)
        self.release()

    def stop(self, fault: Fault) -> None:
        """Leave the run stuck on ``fault``, before any effect: the code does not fit, or breaks a rule."""
        self.fault = None
        row = self.row
        row.move(RunStatus.STUCK)
        row.reason, row.stuck_on = str(fault), (fault.step,) if fault.step else tuple(fault.about)
        # A remark: it is kept for people, never replayed, so that the run can go on once the code is fixed.
        about = json_encode({"steps": fault.about}) if fault.about else None
        self.input(EntryKind.FAULTED, fault.step, fault.since, type(fault).__name__, about, capture(fault))
        inbox, self.cursor.inbox = self.cursor.inbox, ()
        for one in inbox:  # they wait until the code is fixed; a retry has had its chance
            if isinstance(one, LateResult):
                self.note(one)
                continue
            if one.name in ("pause", "resume"):
                row.paused = one.name == "pause"
            if one.name in ("pause", "resume", "retry"):
                self.input(EntryKind.NOTED, one.name, 0, "", one.payload)
            elif not one.seq and one.name != DEADLINE:  # which is sent again once it may be
                self.input(EntryKind.HELD, one.name, 0, "", one.payload)
        for step in self.unended():
            if step.withdraw():
                self.note(LateResult.withheld(step.key, step.attempt, self.effects.now_ns()))
        self.save(owner=self.effects.owner_after(self), wake_at_ns=None)
        self.effects.got_stuck(self)
        self.evict()

    def kill(self, payload: bytes, *, asked: bool = True) -> None:
        """End the run here and now, undoing nothing; what is still in flight is kept as evidence only.

        ``asked`` is False where the journal holds already that it was asked for.
        """
        self.scheduler.undriven = False
        self.cursor.backlog = NOTHING
        for step in self.unended():
            if step.withdraw():
                self.input(EntryKind.WITHHELD, step.key, step.attempt)
        if asked:
            self.cursor.signal_seq = self.input(EntryKind.SIGNALLED, "kill", 0, "", payload).seq
        row = self.row
        row.move(RunStatus.KILLED)
        row.paused = False
        row.reason = None
        end = End(status=RunStatus.KILLED)
        self.input(EntryKind.ENDED, "", 0, RunStatus.KILLED)
        self.save(owner=self.effects.owner_after(self), wake_at_ns=None, end=end)
        self.effects.ended(self, end)
        self.evict()

    def evict(self) -> None:
        """Drop the run from memory. The body's ``finally`` blocks run, but every command in them is refused."""
        scheduler, guard = self.scheduler, self.effects.guard
        fibers = scheduler.alive()
        self.dead = True
        for step in self.steps.values():
            step.disarm()
        for wait in self.waits.values():
            self.effects.disarm(wait)
        if not guard.entered:  # else the process is being torn down amid a body
            guard.enter()
            try:
                for fiber in fibers:
                    scheduler.context.run(scheduler.close, fiber)
            finally:
                guard.caught = None
                guard.leave()
        self.release()

    def release(self) -> None:
        """Cut the cycles between run, fibers and coroutines, so that the collector need not find them."""
        self.dead = True
        if self.row.deadline_at_ns is not None:
            self.effects.disarm(self)
        for wait in self.waits.values():  # also one that was armed while its body came to its end
            self.effects.disarm(wait)
        self.on_signal = None
        self.scheduler.release()
        self.effects.forget(self)
        self.steps, self.waits, self.stuck = {}, {}, {}


def drive(runs: Sequence[Run], guard: LoopGuard) -> None:
    """Drive the bodies of ``runs``, all under one guard; then let each take note of what its body did.

    A bug met while one body is driven stops that run alone; the others go on.
    """
    broken: dict[Run, Exception] = {}
    for run in runs:
        if run.row.deadline_at_ns is not None:  # before their bodies can ask for anything new
            run.ring()
    guard.enter()
    try:
        for run in runs:
            run.scheduler.undriven = False
            if not (run.dead or run.effects.leaving or run.hold):
                bug = _send_ready(run, guard)
                if bug is not None:
                    broken[run] = bug
    finally:
        guard.leave()
    if runs:
        runs[0].effects.guard_left()
    for run in runs:
        if not run.effects.leaving:
            run.driven(broken.get(run))


def _send_ready(run: Run, guard: LoopGuard) -> Exception | None:
    """Drive one body, under the guard; returns a bug of the engine."""
    guard.operations, guard.noun = run.definition.operations, run.definition.noun
    scheduler, bug = run.scheduler, None
    try:
        scheduler.context.run(scheduler.send_ready, run)
    except Fault as fault:  # code and journal part while a block is closed, with no command to blame
        run.fault = run.fault or fault
    except Exception as error:  # noqa: BLE001 - a bug of the engine: this run is stuck, the others go on
        bug = error
    except BaseException:
        run.dead = True  # Ctrl-C amid a body: only its journal knows where it stands
        raise
    scheduler.current = None
    if guard.caught is not None:
        run.fault, guard.caught = run.fault or guard.caught, None
    return bug
