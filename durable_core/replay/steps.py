"""A step in flight: announced, attempted, retried, ended; live and on replay by the same entries.

Invariants: the function is called only once its intent, and everything that came before it, is on disk. A call outlives
the run in memory that asked for it: its result goes to the step's ``successor`` if there is one, else it is late.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol, TypeVar

from durable_core.errors import (
    Closed,
    DefinitionError,
    DurableError,
    Fault,
    PayloadError,
    StepCrashed,
    StepExited,
    StepInterrupted,
    StepTimeout,
    in_words,
    sentences,
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
from durable_core.model.duration import NS
from durable_core.model.entry import Entry, EntryKind
from durable_core.model.failure import capture, rebuild
from durable_core.model.outcome import Outcome
from durable_core.model.record import StepRecord, StepStatus, anew, edition_for
from durable_core.model.said import SAID
from durable_core.model.spec import StepSpec
from durable_core.replay import faults
from durable_core.replay.cursor import LateResult
from durable_core.replay.effects import TimedKind
from durable_core.replay.parts import Step
from durable_core.replay.run import MANY_FAILURES, Run
from durable_core.replay.scheduler import Command, Fiber

R = TypeVar("R")
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

    def __init__(self, text: str, advice: str = "", *, key: str) -> None:
        super().__init__(text, advice)
        self.key = key


class Call(Protocol):
    """A call under way, as its step holds it."""

    def cancel(self) -> object:
        """Ask it to end."""
        ...

    def done(self) -> bool:
        """Whether it has ended."""
        ...

    def add_done_callback(self, call: Callable[[Any], object], /) -> object:
        """Have ``call`` called once it has ended."""
        ...


class Result(NamedTuple):
    """How an attempt ended, measured where it was made: all that the journal and the body need of it."""

    began_ns: int
    payload: bytes | None
    """JSON of what it returned; None where it raised."""
    value: Any
    """What it returned, as it is read back from ``payload``."""
    error: BaseException | None
    doubtful: bool = False
    """Whether its effect is in doubt, even if the error's type says otherwise."""
    repeatable: bool = True
    """False where a further attempt cannot help: a result that cannot be stored."""
    said: bytes | None = None
    """What its code has said on its span."""


new_result: Callable[[type[Result], tuple[Any, ...]], Result] = tuple.__new__  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
"""As ``new_row``: made for every step."""


def measure(
    step: "PendingStep",
    value: Any,
    error: BaseException | None,
    began_ns: int,
    *,
    doubtful: bool = False,
    said: bytes | None = None,
) -> Result:
    """What an attempt returned or raised, as a result; what it returned is encoded and read back."""
    if error is not None:
        return Result(began_ns, None, None, error, doubtful=doubtful, said=said)
    try:
        payload, value = step.spec.shape.exchange_result(value, what="")
    except Exception:  # noqa: BLE001 - the value may be of a user's type, which raises what it likes
        return Result(began_ns, None, None, _unstorable(step, value), doubtful=True, repeatable=False, said=said)
    return new_result(Result, (began_ns, payload, value, None, False, True, said))


def _unstorable(step: "PendingStep", value: object) -> PayloadError:
    """Why a result cannot be stored. The text is made only here: a step that succeeds needs none."""
    return unstorable(step.spec, value, what=f"{step.run.title}, step {step.key!r}: the result")


def unstorable(spec: StepSpec, value: object, *, what: str) -> PayloadError:
    """Why the result of a step cannot be stored, where it could not."""
    try:
        spec.shape.exchange_result(value, what=what)
    except PayloadError as refused:
        return refused
    except Exception as error:  # noqa: BLE001 - as in ``measure``
        broken = PayloadError(f"{what} could not be stored ({in_words(error)})", "Make it plain data")
        broken.__cause__ = error
        return broken
    return PayloadError(f"{what} could not be stored", "Make it plain data")


def call_plain(fn: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    """Call a plain function on a thread, where no future can carry a ``StopIteration``."""
    try:
        return fn(*args, **kwargs)
    except StopIteration as stop:
        raise RuntimeError("the step raised StopIteration") from stop


def judged(
    error: BaseException, spec: StepSpec, *, about: str, overrun: bool, cancelled: bool
) -> tuple[BaseException, bool]:
    """What an attempt's exception means, and whether the effect is in doubt even if its type says otherwise.

    Args:
        error: what left the function.
        spec: the step as declared.
        about: run, step and attempt, for the message.
        overrun: whether the attempt has passed its timeout.
        cancelled: whether ``error`` is a cancellation of its task.
    """
    if overrun and not isinstance(error, spec.rejects):
        timeout = StepTimeout(f"{about}: it did not end within its timeout of {(spec.timeout_ns or 0) / NS:g} s")
        if not cancelled:
            timeout.__cause__ = error
        return timeout, True
    if cancelled:
        return StepInterrupted(f"{about}: it was cancelled by its own code; its effect is not known"), True
    if not isinstance(error, Exception):
        exited = StepExited(
            f"{about}: it raised {error!r}, which is no Exception and would end a program; here it fails this "
            "attempt only",
            "Raise an Exception instead",
        )
        exited.__cause__ = error
        return exited, False
    return error, False


class PendingStep(Step):
    """A step of a run in memory: its record, and what is needed to attempt it and to answer its fiber.

    While it waits for its next attempt it is ``effects.Timed``.
    """

    __slots__ = (
        "announced",
        "args",
        "called",
        "extra",
        "fiber",
        "isolated",
        "kwargs",
        "overrun",
        "run",
        "stale",
        "successor",
        "task",
    )

    live = True
    timed: TimedKind = "retry"

    def __init__(  # noqa: PLR0917 - made for every step: by position is faster
        self,
        run: Run,
        spec: StepSpec,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        extra: Extra | None,
        fiber: Fiber,
        started: Entry,
    ) -> None:
        StepRecord.__init__(self, started.key, spec.kind, started.payload, started.at_ns, started.seq)
        self.attempt = started.attempt
        self.run = run
        self.spec: StepSpec = spec  # pyright: ignore[reportIncompatibleVariableOverride] - always there
        self.args = args
        self.kwargs = kwargs
        self.extra = extra
        self.fiber: Fiber | None = fiber
        self.task: Call | None = None
        """The call of the attempt under way."""
        self.announced = False
        """Whether this process has announced an attempt of it."""
        self.called = False
        """Whether the function has been called for the attempt under way, and may still be running."""
        self.isolated = False
        """It waits for its turn to be attempted alone."""
        self.stale = 0
        """Announced attempts that were withdrawn before they were launched."""
        self.overrun = False
        """The attempt under way has passed its timeout."""
        self.successor: PendingStep | None = None
        """The same step of the run that was loaded again meanwhile: it gets the end of the call."""

    @property
    def waiting(self) -> bool:  # type: ignore[override]
        """Whether it has not ended."""
        return self.status is RUNNING

    @property
    def latest(self) -> "PendingStep":
        """This step in the run as it is in memory now, if it was loaded again since."""
        step = self
        while step.successor is not None:
            step = step.successor
        return step

    # -- attempts --------------------------------------------------------------------------------------------------

    def announce(self) -> None:
        """Have the attempt made once the intent is durable."""
        run = self.run
        self.announced = True
        self.called = False
        run.in_flight += 1
        run.effects.after(self.launch)

    def launch(self) -> None:
        """The intent is durable: attempt it, unless the run or its worker is leaving."""
        run = self.run
        if self._is_withdrawn():
            return
        if run.scheduler.undriven:
            run.pump()
            if self._is_withdrawn():
                return
        if run.dead:
            return
        effects = run.effects
        if effects.leaving or run.hold:
            self.withhold()
            effects.drive_soon(run)
            return
        effects.attempt(run, self)

    def _is_withdrawn(self) -> bool:
        """Whether this launch is that of an attempt that was withdrawn: each of them has one, in order."""
        if not self.stale:
            return False
        self.stale -= 1
        return True

    def again(self) -> None:
        """Announce the next attempt."""
        run = self.run
        run.settle()
        if run.dead or run.effects.leaving or run.hold or not self.waiting:
            return
        self.apply(run.input(EntryKind.RETRIED, self.key, self.attempt + (not self.withheld)))
        self.announce()

    def ring(self) -> None:
        """The retry delay is over. What the body did meanwhile may have given the attempt up, and begun another."""
        promised = self.attempt, self.due_at_ns
        self.run.settle()
        if self.due_at_ns is not None and promised == (self.attempt, self.due_at_ns):
            self.again()

    def withhold(self) -> None:
        """Journal that the announced attempt was not begun, and now never will be."""
        run = self.run
        run.settle()  # while it still counts as in flight: a run with nothing in flight may leave memory
        if run.dead:
            return
        entry = run.input(EntryKind.WITHHELD, self.key, self.attempt)
        run.in_flight -= 1
        self.take(entry)

    def withdraw(self) -> bool:
        """Make sure that the announced attempt is never begun; False where it has been, or none is announced."""
        if not self.announced or self.called or not self.begun or not self.waiting or self.due_at_ns is not None:
            return False
        if self.task is not None:
            if not self.run.effects.recall(self):
                return False
            self.task = None
        else:
            self.stale += 1
        return True

    def returned(self, result: Result) -> None:
        """An attempt has ended: journal it, and let the body go on or the policy decide."""
        run = self.run
        if run.scheduler.undriven:
            run.pump()
        self.task = None
        self.called = self.overrun = False
        if run.dead:
            run.effects.returned_late(self, self._late(result))
            return
        run.in_flight -= 1
        if result.said is not None:  # in the commit of the attempt's end, and right before it
            run.input(NOTED, self.key, 0, SAID, result.said)
        if result.error is None:
            row = run.row
            if self.failures >= MANY_FAILURES and row.reason is not None:
                row.reason = None  # nobody need look any more
                run.save(owner=run.effects.worker, wake_at_ns=None)
            entry = run.input(SUCCEEDED, self.key, self.attempt, "", result.payload, None, result.began_ns)
            run.cursor.last_at_ns = entry.at_ns
            self.apply(entry)
            fiber, self.fiber = self.fiber, None
            if fiber is not None:
                run.scheduler.resume(fiber, result.value)
        else:
            self._failed_attempt(result.error, result.began_ns, doubtful=result.doubtful, repeatable=result.repeatable)
        run.effects.drive_soon(run)

    def _late(self, result: Result) -> LateResult:
        """How an attempt ended whose run is not driven any more, for the run that is loaded next."""
        error = result.error
        if error is None:
            return LateResult(self.key, self.attempt, SUCCEEDED, result.payload, None, result.began_ns)
        outcome, _ = after_failure(
            self.spec,
            self,
            error,
            now_ns=result.began_ns,
            draw=0.0,
            repeatable=result.repeatable,
            doubtful=result.doubtful,
        )
        return LateResult(self.key, self.attempt, str(outcome), None, capture(error), result.began_ns)

    def take_late(self, result: LateResult) -> None:
        """The attempt that a crash seemed to have cut has returned: take its outcome up as if it did so now."""
        run = self.run
        if not self.waiting or not self.begun or result.attempt != self.attempt or self.due_at_ns is not None:
            return
        if result.label == EntryKind.WITHHELD:
            self.take(run.input(EntryKind.WITHHELD, self.key, self.attempt))
        elif result.label == SUCCEEDED:
            self.take(run.input(SUCCEEDED, self.key, self.attempt, "", result.payload, None, result.started_at_ns))
        else:
            error = rebuild(result.error or b"{}", self.known_errors())
            self._failed_attempt(
                error,
                result.started_at_ns,
                doubtful=result.label == Outcome.UNKNOWN,
                repeatable=not isinstance(error, PayloadError),
            )

    def _failed_attempt(self, error: BaseException, began_ns: int, *, doubtful: bool, repeatable: bool) -> None:
        """Journal the failed attempt with its outcome, and promise another where the policy says so."""
        run, spec, effects = self.run, self.spec, self.run.effects
        outcome, then = after_failure(
            spec, self, error, now_ns=effects.now_ns(), draw=effects.draw(), repeatable=repeatable, doubtful=doubtful
        )
        stored = capture(error, frames=outcome is not Outcome.REJECTED)
        stopping = self.fiber is None or self.fiber.interrupt is not None
        due_at_ns = None
        if not isinstance(then, Again):
            outcome = then.outcome
        elif not stopping:
            due_at_ns = then.due_at_ns
        elif self.unknown and spec.effect:  # its scope has been stopped meanwhile: no further attempt
            outcome = Outcome.UNKNOWN
        entry = run.input(EntryKind.FAILED, self.key, self.attempt, outcome, None, stored, began_ns, due_at_ns)
        self.take(entry, error)
        if self.due_at_ns is not None:
            run.arm(self)
            if self.failures == MANY_FAILURES:
                effects.failing(run, self)

    def overdue(self) -> None:
        """The attempt under way has passed its timeout; journalled at once, even if the attempt goes on."""
        if self.successor is not None:
            self.latest.overdue()
            return
        run = self.run
        if run.effects.leaving:
            return
        if not run.dead:
            run.settle()
        if not run.dead and self.waiting:
            run.input(EntryKind.TIMED_OUT, self.key, self.attempt)
        self.overrun = True
        if self.task is not None:
            self.task.cancel()

    # -- entries ---------------------------------------------------------------------------------------------------

    def take(self, entry: Entry, error: BaseException | None = None) -> None:
        """Take up an entry, and answer the fiber where it ends the step. ``error`` saves rebuilding it when live."""
        run = self.run
        run.cursor.last_at_ns = entry.at_ns
        self.apply(entry)
        if self.status is RUNNING:
            if entry.kind == EntryKind.WITHHELD:
                self._leave_out()
        elif self.status is StepStatus.SUCCEEDED:
            try:
                what = f"{run.title}, step {self.key!r}"
                self._answer(self.spec.shape.decode_result(entry.payload or b"null", what=what), None)
            except PayloadError as refused:
                run.fault = Fault(
                    refused.text,
                    sentences(refused.advice, f"Bring back the type it was stored with, then retry the {run.noun}"),
                )
        else:
            self._answer(
                None, self._shown(rebuild(entry.error or b"{}", self.known_errors()) if error is None else error)
            )

    def _leave_out(self) -> None:
        """What was withheld is not attempted later if its fiber is being closed, because a cancel came first, say."""
        fiber = self.fiber
        if fiber is not None and fiber.interrupt is not None and self.interrupt():
            fiber.wait = None
            self.run.scheduler.advance(fiber)

    def _answer(self, value: Any, error: BaseException | None) -> None:
        fiber, self.fiber = self.fiber, None
        if fiber is not None:
            self.run.scheduler.resume(fiber, value, error)

    def _shown(self, error: BaseException) -> BaseException:
        """What the body sees for ``error``, which ended this step."""
        if self.status is StepStatus.UNKNOWN and self.spec.surfaces_unknown:
            unknown = OutcomeUnknown(
                f"{self.run.title}, step {self.key!r}: whether its effect happened is not known", key=self.key
            )
            unknown.__cause__ = error
            return unknown
        return error

    def known_errors(self) -> tuple[type[BaseException], ...]:
        """The classes that a stored error is looked up in first."""
        return (*self.spec.rejects, *self.spec.unknown, StepTimeout, StepInterrupted, PayloadError)

    def stored_error(self) -> BaseException | None:
        """What ended it, rebuilt; None where it did not fail."""
        return None if self.error is None else rebuild(self.error, self.known_errors())

    # -- waiting ---------------------------------------------------------------------------------------------------

    def disarm(self) -> None:
        """The run leaves memory: no timer and no attempt of it may call back."""
        if self.due_at_ns is not None:
            self.run.effects.disarm(self)
        self.fiber = None

    def recover(self) -> None:
        """The journal is fed and this step has no end: go on where the last process stopped."""
        run = self.run
        if self.announced or run.effects.take_over(self):
            return
        if self.due_at_ns is not None:
            run.arm(self)
            return
        match after_crash(self.spec, self, max_crashes=run.effects.max_crashes):
            case RunAgain():
                self.again()
            case RunAlone():
                run.effects.isolate(self)
            case Interrupted():
                error = StepInterrupted(
                    f"{run.title}, step {self.key!r}: the process died while it ran; it is declared at_most_once, "
                    "so it is not called again"
                )
                self._failed_attempt(error, self.started_at_ns, doubtful=True, repeatable=False)
                run.pump()
            case CrashesTooOften(crashes=crashes):
                crashed = StepCrashed(
                    f"{run.title}, step {self.key!r}: the process died {crashes} times while it ran",
                    f"Find out what it does to its process, then retry the {run.noun}",
                )
                fault = Fault(crashed.text, crashed.advice)
                fault.code = crashed.code
                fault.step = self.key
                run.stop(fault)

    def resume(self) -> None:
        """The run is no longer paused: make the attempt that was held back."""
        if not self.begun:
            self.again()
        elif self.due_at_ns is None and not self.announced and not self.isolated:
            self.recover()  # its turn to be attempted alone came while the run was held
        elif self.due_at_ns is not None:
            self.run.arm(self)

    def interrupt(self) -> bool:
        """Its fiber is being closed: give up a promised attempt; an attempt under way must end first."""
        fiber, self.fiber = self.fiber, None
        if self.give_up():
            return True
        self.fiber = fiber
        return False

    def give_up(self) -> bool:
        """Do not make the promised attempt: the step ends as its last attempt did. False where none is promised."""
        run = self.run
        if not self.waiting or not self._is_promised():
            return False
        run.effects.disarm(self)
        entry, _ = run.output(EntryKind.GAVE_UP, self.key, self.attempt, given_up(self.spec, self))
        self.apply(entry)
        error = self.stored_error()
        if error is None:
            error = StepInterrupted(f"{run.title}, step {self.key!r}: it was given up before it was called")
        self._answer(None, self._shown(error))
        return True

    def _is_promised(self) -> bool:
        """Whether the next thing to happen to it is an attempt that has not begun."""
        run = self.run
        if self.due_at_ns is not None:
            return True
        if run.cursor.backlog:  # an earlier release made the attempt all the same
            recorded = run.cursor.backlog[0]
            return recorded.kind == EntryKind.GAVE_UP and recorded.key == self.key
        if not self.begun:
            return True
        if run.cursor.restoring or not self.withdraw():
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

    def issue(self, run: Run, fiber: Fiber) -> None:
        """Announce the step, or find it in the journal."""
        if run.waits:
            run.pass_deadlines()
            if fiber.interrupt is not None or run.fault is not None:  # one that has passed closes this very fiber
                run.scheduler.ready.append((fiber, None, fiber.interrupt))
                return
        spec = self.spec
        key = self.key or fiber.scope.key(spec.name)
        backlog = run.cursor.backlog
        recorded = backlog[0].payload if backlog else None
        try:
            payload = spec.shape.encode(self.args, self.kwargs, what="", recorded=recorded)
        except DefinitionError as wrong:
            raise faults.mistake(run.identity, wrong) from wrong
        except DurableError:  # once more, with its text
            payload = spec.shape.encode(self.args, self.kwargs, what=f"{run.title}, step {key!r}: the arguments")
        self.key = key
        before = run.steps.get(key)  # of a body that was abandoned: its attempts count on
        attempt = 1 if before is None else before.attempt + (not before.withheld)
        entry, new = run.output(STARTED, key, attempt, spec.kind, payload)
        step = PendingStep(run, spec, self.args, self.kwargs, self.extra, fiber, entry)
        if "~" in key:
            step.edition = edition_for(key, run.steps)
        run.steps[key] = step
        fiber.wait = step
        if new:
            step.announce()


class Anew(NamedTuple):
    """How a step is begun anew: under another idempotency key, perhaps with other arguments."""

    edition: int
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    extra: Extra | None


class Reattempt(Command[R]):
    """Attempt a given-up step again with a fresh policy: under its own key, or anew."""

    __slots__ = ("anew", "key")

    def __init__(self, key: str, anew: Anew | None = None) -> None:
        self.key = key
        self.anew = anew

    def issue(self, run: Run, fiber: Fiber) -> None:
        """Reopen the step; it answers ``fiber`` from now on."""
        step = run.steps.get(self.key)
        if not isinstance(step, PendingStep) or step.waiting:
            raise Closed
        label, payload = "", None
        if self.anew is not None:
            label = anew(self.anew.edition)
            what = f"{run.title}, step {self.key!r}: the arguments"
            payload = step.spec.shape.encode(self.anew.args, self.anew.kwargs, what=what)
        elif step.status is StepStatus.SUCCEEDED:
            raise Closed
        entry, new = run.output(EntryKind.REOPENED, self.key, step.attempt + (not step.withheld), label, payload)
        step.apply(entry)
        if self.anew is not None:
            step.args, step.kwargs, step.extra = self.anew.args, self.anew.kwargs, self.anew.extra
        step.fiber = fiber
        fiber.wait = step
        if new:
            step.announce()
