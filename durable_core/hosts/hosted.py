"""One run on somebody else's engine: it says what it wants, and is fed what came of it.

The host makes calls, timers and callbacks by its own operations, and keeps their results in its own record. Our journal
is not stored there: it is derived again on each re-drive, entry for entry. Three rules make that so:

1. inputs are fed in the order of the first time;
2. their times, and the draws for jitter, come from the host's record, never from a clock;
3. nothing that the run wants begins before everything that was fed is durable at the host.

Invariant: between two calls of its methods a hosted run does nothing, and keeps no task, timer or thread.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Literal

import attrs
import msgspec
from msgspec import Raw

from durable_core.errors import Fault, NonDeterminismError, PayloadError
from durable_core.model.callback import Answer
from durable_core.model.calls import NOTHING, Done, StepCall
from durable_core.model.codec import Codec
from durable_core.model.entry import Entry, EntryKind
from durable_core.model.failure import rebuild
from durable_core.model.keys import served
from durable_core.model.record import ABANDON, StepStatus
from durable_core.model.run import ENDS, OPEN, RunRecord, RunStatus, RunUpdate
from durable_core.model.spec import DurableFunction
from durable_core.model.tags import write_tags
from durable_core.model.verbs import faulted_on
from durable_core.ports import Signal
from durable_core.replay import restoring
from durable_core.replay.awaiting import waiting_on
from durable_core.replay.callbacks import PendingCallback
from durable_core.replay.cursor import End, LateResult, Row, RunIdentity
from durable_core.replay.effects import Timed
from durable_core.replay.guard import LoopGuard
from durable_core.replay.run import Run
from durable_core.replay.steps import PendingStep, Result

MAX_CRASHES = 5
"""Deaths of its process after which a step gets its run stuck."""


@attrs.frozen
class CallStep:
    """Make this attempt."""

    op: str
    call: StepCall
    step: PendingStep = attrs.field(eq=False, repr=False)
    """For hosts that call steps in the process that drives the run."""

    @property
    def at_most_once(self) -> bool:
        """Whether the host must know for sure that it was begun, before it is."""
        return self.step.spec.at_most_once

    @property
    def timeout_ns(self) -> int | None:
        """How long its function may take; ``hosts.attempt`` sees to that."""
        return self.step.spec.timeout_ns


@attrs.frozen
class Wake:
    """Ring at this time."""

    op: str
    due_ns: int
    why: Literal["retry", "sleep", "deadline"]


@attrs.frozen
class Reply:
    """Take an answer from outside; ``rang`` is its timeout, or the heartbeat that did not come."""

    op: str
    key: str
    token: str
    due_ns: int | None


Want = CallStep | Wake | Reply


class HostedRun:
    """A run without I/O. Implements ``Effects``.

    Args:
        function: what it runs.
        input: its arguments, JSON.
        id: the host's id of it.
        uid: 16 bytes that are the same on each re-drive, and no other run's.
        at_ns: when it began, by the host's record.
        codec: reads and writes values.
        token: the host's token of the callback at a key, the same on each re-drive.
        deadline_at_ns: the run's own deadline; default its function's.
        tags: those of its start, checked.
    """

    worker = "host"
    leaving = False
    max_crashes = MAX_CRASHES

    def __init__(
        self,
        function: DurableFunction,
        input: bytes,
        *,
        id: str,
        uid: bytes,
        at_ns: int,
        codec: Codec,
        token: Callable[[str], str],
        deadline_at_ns: int | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> None:
        self.journal: list[Entry] = []
        """Derived so far."""
        self.fed = 0
        """How many inputs have been fed."""
        self.guard = LoopGuard.here()
        self.decoder = codec.decoder
        self._token = token
        self._at_ns, self._draw = at_ns, 0.5
        self._ops = _Operations()
        self._after: list[Callable[[], None]] = []
        self._held: list[Signal] = []
        """Signals that wait until every attempt in flight has returned."""
        if deadline_at_ns is None and function.deadline_ns is not None:
            deadline_at_ns = at_ns + function.deadline_ns
        identity = RunIdentity(1, id, uid, function.name, function.version, noun=function.noun)
        row = Row(tags=write_tags(tags or {}), deadline_at_ns=deadline_at_ns)
        self._record = _begun(identity, input, at_ns=at_ns, row=row)
        self._run = Run(self, function, identity, row, created_at_ns=at_ns)
        args, kwargs = function.shape.decode(input, what=f"{identity.title}: the arguments")
        restoring.begin(self._run, args, kwargs)
        self.arm(self._run)
        self._run.scheduler.undriven = True
        self._pump()

    # -- what a host reads -----------------------------------------------------------------------------------------

    @property
    def record(self) -> RunRecord:
        """The run's row as it stands."""
        record = self._record
        if record.status not in OPEN or record.status is RunStatus.STUCK:
            return record
        if self._ops.calls:
            return attrs.evolve(record, status=RunStatus.RUNNING)
        awaits = waiting_on(self._run.steps.values(), self._run.waits)
        return attrs.evolve(record, status=RunStatus.WAITING, awaits=awaits)

    @property
    def end(self) -> RunStatus | None:
        """How it has ended; None while it has not, or a verb that opens it again waits for attempts in flight."""
        status = self._record.status
        return status if status in ENDS and not self._held else None

    @property
    def stuck(self) -> str | None:
        """Why it needs a person; None where it does not."""
        return self._record.reason if self._record.status is RunStatus.STUCK else None

    def wants(self) -> Mapping[str, Want]:
        """What it wants now, by the name of the operation: the host begins what it has not begun."""
        wants: dict[str, Want] = {op: CallStep(op, self._call(step), step) for op, step in self._ops.calls.items()}
        for op, timed in self._ops.timers.items():
            if timed.due_at_ns is not None and timed.timed != "callback":
                wants[op] = Wake(op, timed.due_at_ns, timed.timed)
        for key, wait in self._run.waits.items():
            if isinstance(wait, PendingCallback) and not wait.shut:
                op = _reply_op(key)
                wants[op] = Reply(op, key, wait.token, wait.due_at_ns)
        return wants

    def dropped(self) -> Sequence[str]:
        """The timers that it has stopped wanting since this was asked last."""
        dropped, self._ops.dropped = self._ops.dropped, []
        return dropped

    def _call(self, step: PendingStep) -> StepCall:
        run = self._run.identity
        forward = self._run.steps.get(served(step.key))
        result = None if forward is None or forward is step else forward.result
        doubt = forward.error if forward is not None and forward.status is StepStatus.UNKNOWN else None
        return StepCall(
            run.id,
            run.uid,
            run.name,
            run.version,
            step.key,
            step.kind,
            step.attempt,
            step.started_seq,
            Raw(step.arguments or b"[]"),
            NOTHING if result is None else Raw(result),
            run.traceparent,
            NOTHING if doubt is None else Raw(doubt),
            step.edition,
        )

    def unfit(self, held: Collection[str]) -> Fault | None:
        """The fault if the host holds calls or timers, among those named, that this code has never asked for."""
        foreign = sorted(op for op in held if op not in self._ops.seen)
        if not foreign:
            return None
        run = self._run.identity
        return NonDeterminismError(
            f"{run.title} of {run.name} v{run.version}: the host holds {', '.join(map(repr, foreign))}, and the code "
            f"does not ask for it. Nothing was done. Bring back the code that began this {run.noun}, then retry the "
            f"{run.noun}; start new {run.noun}s under a new version",
            seq=len(self.journal),
            recorded=foreign[0],
            asked="nothing of that name",
            differing=(),
        )

    def close(self) -> None:
        """Drop it from memory: its bodies' ``finally`` blocks run now, and every command in them is refused."""
        self.guard = LoopGuard.here()
        if not self._run.dead:
            self._run.scheduler.undriven = False
            self._run.evict()

    # -- what a host feeds -----------------------------------------------------------------------------------------

    def returned(self, op: str, done: Done) -> None:
        """An attempt has ended."""
        self._input_at(done.at)
        self._draw = done.draw
        step = self._ops.calls.pop(op)
        try:
            result = _result(step, done)
        except PayloadError:  # the code no longer reads what it returned: journal it, and the run is stuck on that
            step.called = False
            step.run.in_flight -= 1
            step.take(
                step.run.input(EntryKind.SUCCEEDED, step.key, step.attempt, "", bytes(done.value), None, done.began)
            )
            self.drive_soon(step.run)
        else:
            step.returned(result)
        self._pump()

    def cut(self, op: str, at_ns: int) -> None:
        """An attempt was begun, and its process died: it has no outcome."""
        self._input_at(at_ns)
        step = self._ops.calls.pop(op)
        step.called = step.announced = False
        if not step.run.dead:
            step.run.in_flight -= 1
            step.recover()
        self._pump()

    def rang(self, op: str, at_ns: int | None = None) -> None:
        """The time of a ``Wake`` or ``Reply`` has come; ``at_ns``: when the host noticed, default that time itself.

        One that is not wanted any more changes nothing.
        """
        timed = self._ops.timers.get(op)
        due_at_ns = None if timed is None else timed.due_at_ns
        self._input_at(self._at_ns if due_at_ns is None else max(due_at_ns, at_ns or 0))
        if timed is not None:
            self._ops.disarm(timed, dropped=False)
            timed.ring()
        self._pump()

    def answered(self, answer: Answer, at_ns: int) -> None:
        """Somebody outside answers the callback at ``answer.key``, or sends a heartbeat for it."""
        self.told(answer.signal, msgspec.json.encode(answer), at_ns)

    def told(self, verb: str, payload: bytes, at_ns: int) -> None:
        """A signal: cancel, retry, skip, resolve, pause, resume, kill, rollback; judge before whether it is allowed."""
        self._input_at(at_ns)
        label, since = "", 0
        if verb == "rollback" and not self._run.row.phase:
            label = ABANDON
        elif verb == "retry":
            label, since = faulted_on(self.journal)
        if label or self._run.dead:
            self._held.append(Signal(0, 1, Signal.stored(verb, since, label), payload, at_ns))
            self._restore()
        else:
            self._run.tell(verb, payload)
        self._pump()

    def _restore(self) -> None:
        """Derive the run anew from its journal: it was stuck on a fault, or its body's part is over.

        It waits while attempts are in flight that its journal would not expect: nothing is undone beside itself.
        """
        before, record, signals = self._run, self._record, self._held
        if record.status in {RunStatus.COMPLETED, RunStatus.FAILED}:
            signals.clear()  # it has ended: there is nothing left to change
            return
        if not before.dead:
            before.scheduler.undriven = False
            before.evict()
        if not restoring.may_go_on(self.journal, signals, self._ops.calls.values()):
            return
        self._held = []
        row = Row(
            status=RunStatus.PENDING,
            phase=record.phase,
            paused=record.paused,
            detail=record.detail,
            tags=record.tags,
            retagged=record.retagged,
            deadline_at_ns=before.row.deadline_at_ns,
        )
        run = Run(self, before.definition, before.identity, row, created_at_ns=record.created_at_ns)
        self._run = run
        run.cursor.seq = self.journal[-1].seq
        restoring.restore(run, record.input, list(self.journal), signals=signals)
        if not run.dead:
            run.save(owner=self.worker, wake_at_ns=None)

    def _input_at(self, at_ns: int) -> None:
        """An input comes, with its time; our journal's times never decrease."""
        self.fed += 1
        self._at_ns = max(self._at_ns, at_ns)
        self.guard = LoopGuard.here()

    def _pump(self) -> None:
        """Drive the body until nothing follows from what was fed."""
        while True:
            run = self._run
            if run.scheduler.undriven and not run.dead:
                run.pump()
            calls, self._after = self._after, []
            for call in calls:
                call()
            if self._held and not self._ops.calls:
                self._restore()
            elif not self._after and (run.dead or not run.scheduler.undriven):
                return

    # -- Effects ---------------------------------------------------------------------------------------------------

    def now_ns(self) -> int:
        """The time of the last input."""
        return self._at_ns

    def draw(self) -> float:
        """What was drawn with the last input."""
        return self._draw

    def append(self, entry: Entry, /) -> None:
        """Derive an entry."""
        self.journal.append(entry)

    def update(self, update: RunUpdate, /) -> None:
        """Derive the row."""
        self._record = attrs.evolve(
            self._record,
            status=RunStatus(update.status),
            phase=update.phase,
            wake_at_ns=update.wake_at_ns,
            paused=bool(update.paused),
            output=update.output,
            error=update.error,
            reason=update.reason,
            detail=update.detail,
            updated_at_ns=update.updated_at_ns,
            ended_at_ns=update.ended_at_ns,
            retagged=update.retagged,
            awaits=update.awaits,
        )

    def after(self, call: Callable[[], None], /) -> None:
        """Make ``call`` before the next input: rule 3 is the host's."""
        self._after.append(call)

    def arm(self, timed: Timed, /) -> None:
        """Want to be rung."""
        self._ops.arm(timed)

    def disarm(self, timed: Timed, /) -> None:
        """Want it no longer."""
        self._ops.disarm(timed)

    def token(self, run: Run, key: str) -> str:  # noqa: ARG002 - a hosted run is one
        """The host's token."""
        return self._token(key)

    def attempt(self, run: Run, step: PendingStep) -> None:  # noqa: ARG002 - the step knows its run
        """Want the call; from here on it counts as begun."""
        step.called = True
        self._ops.call(step)

    def recall(self, step: PendingStep) -> bool:  # noqa: ARG002 - whichever it is
        """A call that is wanted counts as begun."""
        return False

    def take_over(self, step: PendingStep) -> bool:
        """A call that was wanted before the run was derived anew has not ended: ``step`` gets its end."""
        op = next((op for op, before in self._ops.calls.items() if before.key == step.key), None)
        if op is None:
            return False
        self._ops.calls[op] = step
        step.called = step.announced = True
        step.run.in_flight += 1
        return True

    def returned_late(self, step: PendingStep, result: LateResult) -> None:
        """The run was killed or is stuck: keep the result, for whoever looks and for a retry."""
        if step.run is self._run:
            self._run.note_late(result)

    def isolate(self, step: PendingStep, /) -> None:
        """A host calls each step in a process of its own choosing."""
        step.again()

    def begin(self, run: Run) -> None:
        """A hosted run never waits for its turn."""

    def drive_soon(self, run: Run) -> None:
        """It is driven at the end of each input."""
        run.scheduler.undriven = True

    def guard_left(self) -> None:
        """There is no clock here that asks for the event loop."""

    def idle(self, run: Run) -> None:
        """``record`` says so."""

    def ended(self, run: Run, end: End) -> None:
        """``record`` says so."""

    def got_stuck(self, run: Run) -> None:
        """``record`` says so."""

    def failing(self, run: Run, step: PendingStep) -> None:
        """Show it."""
        run.row.reason = f"step {step.key!r} has failed {step.failures} times and is tried again"
        run.save(owner=self.worker, wake_at_ns=None)

    def forget(self, run: Run) -> None:
        """It stays here: it may be retried."""

    def owner_after(self, run: Run) -> str | None:  # noqa: ARG002 - a hosted run is one
        """The host owns it."""
        return self.worker


class _Operations:
    """The calls and timers that a run wants, by names that are the same on each re-drive."""

    __slots__ = ("_names", "calls", "dropped", "seen", "timers")

    def __init__(self) -> None:
        self.calls: dict[str, PendingStep] = {}
        self.timers: dict[str, Timed] = {}
        self.dropped: list[str] = []
        self.seen: set[str] = set()
        """Every name so far."""
        self._names: dict[Timed, str] = {}

    def call(self, step: PendingStep) -> None:
        """Want a call: named by its step's key, a later attempt ``key (attempt 2)``."""
        self.calls[self._name(step.key if step.attempt == 1 else f"{step.key} (attempt {step.attempt})")] = step

    def arm(self, timed: Timed) -> None:
        """Want a ring, unless it is wanted already or has no time."""
        if timed.due_at_ns is None or timed in self._names:
            return
        op = _reply_op(timed.key) if timed.timed == "callback" else self._name(f"{timed.timed} {timed.key}".strip())
        self.seen.add(op)
        self._names[timed] = op
        self.timers[op] = timed

    def disarm(self, timed: Timed, *, dropped: bool = True) -> None:
        """Want it no longer; ``dropped``: it has not rung."""
        op = self._names.pop(timed, None)
        if op is not None:
            del self.timers[op]
            if dropped and timed.timed != "callback":
                self.dropped.append(op)

    def _name(self, name: str) -> str:
        """``name``, or with a number where it was used before."""
        count, op = 1, name
        while op in self.seen:
            count += 1
            op = f"{name} #{count}"
        self.seen.add(op)
        return op


def _reply_op(key: str) -> str:
    return f"callback {key}"


def _result(step: PendingStep, done: Done) -> Result:
    if bytes(done.error):
        error = rebuild(bytes(done.error), step.known_errors())
        return Result(done.began, None, None, error, doubtful=done.doubtful, repeatable=done.repeatable)
    payload = bytes(done.value)
    if step.run.dead:  # it is kept as evidence, and nobody reads it
        return Result(done.began, payload, None, None)
    value = step.spec.shape.decode_result(payload, what=f"{step.run.title}, step {step.key!r}")
    return Result(done.began, payload, value, None)


def _begun(run: RunIdentity, input: bytes, *, at_ns: int, row: Row) -> RunRecord:
    """The row of a run that begins."""
    return RunRecord(
        num=run.num,
        id=run.id,
        uid=run.uid,
        name=run.name,
        version=run.version,
        status=RunStatus.RUNNING,
        phase="",
        owner=HostedRun.worker,
        wake_at_ns=None,
        deadline_at_ns=row.deadline_at_ns,
        paused=False,
        input=input,
        output=None,
        error=None,
        reason=None,
        detail=None,
        traceparent=run.traceparent,
        created_at_ns=at_ns,
        updated_at_ns=at_ns,
        ended_at_ns=None,
        tags=row.tags,
    )
