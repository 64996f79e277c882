"""A step under way: announced, attempted, retried, ended; live and on replay by the same entries.

Invariants: the function is called only once its intent, and all that came before it, is on disk. A call outlives the
run in memory that asked for it: what it returns goes to whoever has taken its place (``heir``), else it is late.
"""

import asyncio
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from durable_core.errors import (
    Closed,
    DefinitionError,
    DurableError,
    Fault,
    PayloadError,
    StepCrashed,
    StepInterrupted,
    StepTimeout,
)
from durable_core.model.decide import (
    Again,
    CrashesTooOften,
    Interrupted,
    RunAgain,
    RunAlone,
    after_crash,
    after_failure,
    given_up,
)
from durable_core.model.entry import Entry, EntryKind
from durable_core.model.failure import capture, rebuild
from durable_core.model.outcome import Outcome
from durable_core.model.record import StepRecord, StepStatus
from durable_core.model.said import SAID
from durable_core.model.spec import StepSpec
from durable_core.ports import Timer
from durable_core.replay import deadlines, faults, structure
from durable_core.replay.commands import Command
from durable_core.replay.fibers import Fiber

if TYPE_CHECKING:
    from durable_core.replay.run import Run

R = TypeVar("R")
MANY_FAILURES = 10
"""After so many failures of a step that is tried again somebody should look."""
STARTED = EntryKind.STARTED.value
SUCCEEDED = EntryKind.SUCCEEDED.value
NOTED = EntryKind.NOTED.value
RUNNING = StepStatus.RUNNING
Extra = dict[str, Any]


class OutcomeUnknown(DurableError):
    """An attempt was given up while its effect may have happened. ``__cause__`` is what it raised.

    Raised only for steps declared with ``surfaces_unknown``, to the layer that settles it.
    """

    code = "DC034"

    def __init__(self, message: str, *, key: str) -> None:
        super().__init__(message)
        self.key = key


class Evidence(NamedTuple):
    """How an attempt ended whose run was driven no more: what a ``noted`` entry keeps of it."""

    key: str
    attempt: int
    label: str
    """The outcome, or ``withheld`` where it was never called."""
    payload: bytes | None
    error: bytes | None
    started_at_ns: int

    @classmethod
    def of(cls, entry: Entry) -> "Evidence":
        """What this ``noted`` entry tells."""
        return cls(entry.key, entry.attempt, entry.label, entry.payload, entry.error, entry.started_at_ns or 0)


class PendingStep(StepRecord):
    """A step of a run in memory: its record, and what is needed to attempt it and to answer its fiber."""

    __slots__ = (
        "announced",
        "args",
        "called",
        "extra",
        "fiber",
        "heir",
        "kwargs",
        "overrun",
        "run",
        "said",
        "spec",
        "stale",
        "suspected",
        "task",
        "timer",
    )

    def __init__(  # noqa: PLR0917 - made for every step: by position is faster
        self,
        run: "Run",
        spec: StepSpec,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        extra: Extra | None,
        fiber: Fiber,
        started: Entry,
    ) -> None:
        super().__init__(started.key, spec.kind, started.payload, started.at_ns, started.seq)
        self.attempt = started.attempt
        self.run = run
        self.spec = spec
        self.args = args
        self.kwargs = kwargs
        self.extra = extra
        self.fiber: Fiber | None = fiber
        self.task: asyncio.Task[None] | None = None
        self.timer: Timer | None = None
        self.announced = False
        """Whether this process has announced an attempt of it."""
        self.called = False
        """Whether the function has been called for the attempt under way, and may still be running."""
        self.suspected = False
        """It waits for its turn to be attempted alone."""
        self.stale = 0
        """Announced attempts that were withdrawn before they were launched."""
        self.overrun = False
        """The attempt under way has passed its timeout."""
        self.heir: PendingStep | None = None
        """The same step of the run that was loaded again meanwhile: the end of the call is told to it."""
        self.said: bytes | None = None
        """What the code of the last attempt has said on its span."""

    @property
    def waiting(self) -> bool:
        """Whether it has not ended."""
        return self.status is RUNNING

    @property
    def latest(self) -> "PendingStep":
        """This step in the run as it is in memory now, as far as it was loaded again since."""
        step = self
        while step.heir is not None:
            step = step.heir
        return step

    # -- attempts --------------------------------------------------------------------------------------------------

    def launch(self) -> None:
        """The intent is durable: attempt it, unless the run or its worker is leaving."""
        run = self.run
        if self._is_withdrawn():
            return
        if run.undriven:
            run.pump()
        if self._is_withdrawn() or run.dead:
            return
        if run.shell.leaving or run.held:
            self.withhold()
            run.shell.drive_soon(run)
            return
        run.shell.attempt(run, self)

    def _is_withdrawn(self) -> bool:
        """Whether this launch is that of an attempt that was withdrawn: each of them has one, in order."""
        if not self.stale:
            return False
        self.stale -= 1
        return True

    def announce(self) -> None:
        """Have the attempt made once the intent is durable."""
        run = self.run
        self.announced = True
        self.called = False
        run.in_flight += 1
        run.shell.after(self.launch)

    def again(self) -> None:
        """Announce the next attempt."""
        run = self.run
        self.timer = None
        run.settle()
        if run.dead or run.shell.leaving or run.held or not self.waiting:
            return
        self.apply(run.input(EntryKind.RETRIED, self.key, self.attempt + (not self.withheld)))
        self.announce()

    def rang(self) -> None:
        """The retry delay is over. What the body did meanwhile may have given the attempt up, and begun another."""
        self.timer = None
        self.run.settle()
        if self.due_at_ns is not None and self.timer is None:
            self.again()

    def withhold(self) -> None:
        """Journal that the announced attempt was not begun, and now never will be."""
        run = self.run
        run.settle()  # while it still counts as in flight: a run with nothing in flight may leave memory
        if run.dead:
            return
        entry = run.input(EntryKind.WITHHELD, self.key, self.attempt)
        run.in_flight -= 1
        self.take(run, entry)

    def withdraw(self) -> bool:
        """See to it that the announced attempt is never begun; False where it has been, or none is announced."""
        if not self.announced or self.called or not self.begun or not self.waiting or self.due_at_ns is not None:
            return False
        if self.task is not None:
            if not self.run.shell.recall(self):
                return False
            self.task = None
        else:
            self.stale += 1
        return True

    def attempted(self, value: Any, error: BaseException | None, started_at_ns: int, *, doubtful: bool) -> None:
        """An attempt has ended: journal it, and let the body go on or the policy speak.

        Args:
            value: what it returned.
            error: what it raised, else None.
            started_at_ns: when it was called.
            doubtful: whether its effect is in doubt whatever the error's type says.
        """
        run = self.run
        if run.undriven:
            run.pump()
        self.task = None
        self.called = self.overrun = False
        if run.dead:
            run.shell.returned_late(self, self.late(value, error, started_at_ns, doubtful=doubtful))
            return
        run.in_flight -= 1
        if self.said is not None:  # in the commit of the attempt's end, and right before it
            run.input(NOTED, self.key, 0, SAID, self.said)
        if error is None:
            spec = self.spec
            shape = spec.shape
            try:
                payload, value = shape.exchange_result(value, what="")
            except PayloadError:
                self._ended_badly(self._unstorable(value), started_at_ns, doubtful=True, repeatable=False)
            else:
                if self.failures >= MANY_FAILURES and run.reason is not None:
                    run.reason = None  # nobody need look any more
                    run.save(owner=run.shell.worker, wake_at_ns=None)
                entry = run.input(SUCCEEDED, self.key, self.attempt, "", payload, None, started_at_ns)
                run.last_at_ns = entry.at_ns
                self.apply(entry)
                fiber, self.fiber = self.fiber, None
                if fiber is not None:
                    structure.resume(run, fiber, value)
        else:
            self._ended_badly(error, started_at_ns, doubtful=doubtful, repeatable=True)
        run.shell.drive_soon(run)

    def late(self, value: Any, error: BaseException | None, started_at_ns: int, *, doubtful: bool) -> Evidence:
        """How an attempt ended whose run is driven no more: as whoever goes on with it will want to know it."""
        spec, repeatable = self.spec, True
        if error is None:
            try:
                payload = spec.shape.encode_result(value, what="")
                spec.shape.decode_result(payload, what="")
            except PayloadError:
                error, doubtful, repeatable = self._unstorable(value), True, False
            else:
                return Evidence(self.key, self.attempt, SUCCEEDED, payload, None, started_at_ns)
        outcome, _ = after_failure(
            spec, self, error, now_ns=started_at_ns, draw=0.0, repeatable=repeatable, doubtful=doubtful
        )
        return Evidence(self.key, self.attempt, str(outcome), None, capture(error), started_at_ns)

    def hear(self, evidence: Evidence) -> None:
        """The attempt that a crash seemed to have cut has returned: take its outcome up as if it did so now."""
        run = self.run
        if not self.waiting or not self.begun or evidence.attempt != self.attempt or self.due_at_ns is not None:
            return
        started_at_ns = evidence.started_at_ns
        if evidence.label == EntryKind.WITHHELD:
            self.take(run, run.input(EntryKind.WITHHELD, self.key, self.attempt))
        elif evidence.label == SUCCEEDED:
            entry = run.input(SUCCEEDED, self.key, self.attempt, "", evidence.payload, None, started_at_ns)
            self.take(run, entry)
        else:
            error = rebuild(evidence.error or b"{}", self._preferred())
            self._ended_badly(
                error,
                started_at_ns,
                doubtful=evidence.label == Outcome.UNKNOWN,
                repeatable=not isinstance(error, PayloadError),
            )

    def _unstorable(self, value: object) -> PayloadError:
        """Why a result cannot be stored. The text is put together only here: a step that succeeds needs none."""
        what = f"run {self.run.id}, step {self.key!r}: the result"
        shape = self.spec.shape
        try:
            shape.exchange_result(value, what=what)
        except PayloadError as refused:
            return refused
        return PayloadError(f"{what} could not be stored; make it plain data")

    def _ended_badly(self, error: BaseException, started_at_ns: int, *, doubtful: bool, repeatable: bool) -> None:
        run, spec = self.run, self.spec
        shell = run.shell
        now_ns = shell.now_ns()
        outcome, then = after_failure(
            spec, self, error, now_ns=now_ns, draw=shell.draw(), repeatable=repeatable, doubtful=doubtful
        )
        stored = capture(error, frames=outcome is not Outcome.REJECTED)
        stopping = self.fiber is None or self.fiber.signal is not None
        if isinstance(then, Again) and not stopping:
            entry = run.input(
                EntryKind.FAILED, self.key, self.attempt, outcome, None, stored, started_at_ns, then.due_at_ns
            )
        else:
            if isinstance(then, Again):  # its scope has been stopped meanwhile: no further attempt
                outcome = Outcome.UNKNOWN if (self.unknown and spec.effect) else outcome
            else:
                outcome = then.outcome
            entry = run.input(EntryKind.FAILED, self.key, self.attempt, outcome, None, stored, started_at_ns)
        self.take(run, entry, error)
        if self.due_at_ns is not None:
            self.arm(run)
            if self.failures == MANY_FAILURES:
                shell.failing(run, self)

    def overdue(self) -> None:
        """The attempt under way has passed its timeout; journalled at once, whatever the attempt does about it."""
        if self.heir is not None:
            self.latest.overdue()
            return
        run = self.run
        if run.shell.leaving:
            return
        if not run.dead:
            run.settle()
        if not run.dead and self.waiting:
            run.input(EntryKind.TIMED_OUT, self.key, self.attempt)
        self.overrun = True
        if self.task is not None:
            self.task.cancel()

    # -- entries ---------------------------------------------------------------------------------------------------

    def take(self, run: "Run", entry: Entry, error: BaseException | None = None) -> None:
        """Take up an entry, and answer the fiber where it ends the step. ``error`` saves rebuilding it when live."""
        run.last_at_ns = entry.at_ns
        self.apply(entry)
        if self.status is RUNNING:
            if entry.kind == EntryKind.WITHHELD:
                self._leave_out(run)
            return
        if self.status is StepStatus.SUCCEEDED:
            shape = self.spec.shape
            try:
                self._answer(
                    shape.decode_result(entry.payload or b"null", what=f"run {run.id}, step {self.key!r}"), None
                )
            except PayloadError as refused:
                run.fault = Fault(f"{refused} Bring back the type it was stored with, then retry the run")
        else:
            self._answer(
                None, self.failure(rebuild(entry.error or b"{}", self._preferred()) if error is None else error)
            )

    def _leave_out(self, run: "Run") -> None:
        """What was withheld is not attempted later where its fiber is being closed: a cancel came first, say."""
        fiber = self.fiber
        if fiber is not None and fiber.signal is not None and self.interrupt(run):
            fiber.wait = None
            structure.advance(run, fiber)

    def failure(self, error: BaseException) -> BaseException:
        """What the body sees for ``error``, which ended this step."""
        if self.status is StepStatus.UNKNOWN and self.spec.surfaces_unknown:
            unknown = OutcomeUnknown(
                f"run {self.run.id}, step {self.key!r}: whether its effect happened is not known", key=self.key
            )
            unknown.__cause__ = error
            return unknown
        return error

    def _preferred(self) -> tuple[type[BaseException], ...]:
        return (*self.spec.rejects, *self.spec.unknown, StepTimeout, StepInterrupted, PayloadError)

    def stored_error(self) -> BaseException | None:
        """What ended it, rebuilt; None where it did not fail."""
        return None if self.error is None else rebuild(self.error, self._preferred())

    def _answer(self, value: Any, error: BaseException | None) -> None:
        fiber, self.fiber = self.fiber, None
        if fiber is not None:
            structure.resume(self.run, fiber, value, error)

    # -- waiting ---------------------------------------------------------------------------------------------------

    def arm(self, run: "Run") -> None:
        """Set the timer of the promised next attempt."""
        if self.due_at_ns is not None and self.timer is None:
            self.timer = run.shell.clock.call_at(self.due_at_ns, self.rang)

    def disarm(self) -> None:
        """The run leaves memory: no timer and no attempt of it may call back."""
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None
        self.fiber = None

    def recover(self, run: "Run") -> None:
        """The journal is fed and this step has no end: go on where the last process stopped."""
        if self.announced or run.shell.take_over(self):
            return
        if self.due_at_ns is not None:
            self.arm(run)
            return
        match after_crash(self.spec, self, max_crashes=run.shell.max_crashes):
            case RunAgain():
                self.again()
            case RunAlone():
                run.shell.suspect(self)
            case Interrupted():
                error = StepInterrupted(
                    f"run {run.id}, step {self.key!r}: the process died while it ran; it is declared at_most_once, "
                    "so it is not called again"
                )
                self._ended_badly(error, self.started_at_ns, doubtful=True, repeatable=False)
                run.pump()
            case CrashesTooOften(crashes=crashes):
                crashed = StepCrashed(
                    f"run {run.id}, step {self.key!r}: the process died {crashes} times while it ran. Find out what "
                    "it does to its process, then retry the run"
                )
                fault = Fault(str(crashed))
                fault.step = self.key
                run.park(fault)

    def resume(self, run: "Run") -> None:
        """The run is no longer paused: make the attempt that was held back."""
        if not self.begun:
            self.again()
        elif self.due_at_ns is None and not self.announced and not self.suspected:
            self.recover(run)  # its turn among the suspects came while the run was held
        else:
            self.arm(run)

    def interrupt(self, run: "Run") -> bool:
        """Its fiber is being closed: give up a promised attempt; an attempt under way must end first."""
        fiber, self.fiber = self.fiber, None
        if self.give_up(run):
            return True
        self.fiber = fiber
        return False

    def give_up(self, run: "Run") -> bool:
        """Do not make the promised attempt: the step ends as its last attempt did. False where none is promised."""
        if not self.waiting or not self._is_promised(run):
            return False
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None
        entry, _ = run.output(EntryKind.GAVE_UP, self.key, self.attempt, given_up(self.spec, self))
        self.apply(entry)
        error = self.stored_error()
        self._answer(
            None,
            self.failure(
                error
                if error is not None
                else StepInterrupted(f"run {run.id}, step {self.key!r}: it was given up before it was called")
            ),
        )
        return True

    def _is_promised(self, run: "Run") -> bool:
        """Whether the next thing to happen to it is an attempt that has not begun."""
        if self.due_at_ns is not None:
            return True
        if run.backlog:  # an earlier release made the attempt all the same
            recorded = run.backlog[0]
            return recorded.kind == EntryKind.GAVE_UP and recorded.key == self.key
        if not self.begun:
            return True
        if run.restoring or not self.withdraw():
            return False
        run.in_flight -= 1
        return True


class Perform(Command[R]):
    """Run a step."""

    __slots__ = ("args", "extra", "key", "kwargs", "spec")

    def __init__(
        self,
        spec: StepSpec,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        *,
        extra: Extra | None = None,
        key: str | None = None,
    ) -> None:
        self.spec = spec
        self.args = args
        self.kwargs = kwargs
        self.extra = extra
        self.key = key

    def issue(self, run: "Run", fiber: Fiber) -> None:
        """Announce the step, or find it in the journal."""
        if run.waits:
            deadlines.take_up(run)
            if fiber.signal is not None or run.fault is not None:  # one that has passed closes this very fiber
                run.ready.append((fiber, None, fiber.signal))
                return
        spec = self.spec
        key = self.key or fiber.scope.key(spec.name)
        recorded = run.backlog[0].payload if run.backlog else None
        try:
            payload = spec.shape.encode(self.args, self.kwargs, what="", recorded=recorded)
        except DefinitionError as wrong:
            raise faults.mistake(run, wrong) from wrong
        except DurableError:  # once more, with its text
            payload = spec.shape.encode(self.args, self.kwargs, what=f"run {run.id}, step {key!r}: the arguments")
        self.key = key
        before = run.steps.get(key)  # of a body that was abandoned: its attempts count on
        attempt = 1 if before is None else before.attempt + (not before.withheld)
        entry, new = run.output(STARTED, key, attempt, spec.kind, payload)
        step = PendingStep(run, spec, self.args, self.kwargs, self.extra, fiber, entry)
        run.steps[key] = step
        fiber.wait = step
        if new:
            step.announce()


class Reattempt(Command[R]):
    """Attempt a given-up step again, under its own key and with a fresh policy."""

    __slots__ = ("key",)

    def __init__(self, key: str) -> None:
        self.key = key

    def issue(self, run: "Run", fiber: Fiber) -> None:
        """Reopen the step; it answers ``fiber`` from now on."""
        step = run.steps.get(self.key)
        if not isinstance(step, PendingStep) or step.waiting or step.status is StepStatus.SUCCEEDED:
            raise Closed
        entry, new = run.output(EntryKind.REOPENED, self.key, step.attempt + (not step.withheld))
        step.apply(entry)
        step.fiber = fiber
        fiber.wait = step
        if new:
            step.announce()
