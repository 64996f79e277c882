"""The workflow that drives a saga on Temporal.

Invariant: what it does follows from its history alone. Times are the server's, each batch of inputs is taken up verbs
first, and an attempt that was lost is never repeated by Temporal itself.
"""

import asyncio
import hashlib
import logging
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from functools import partial
from typing import Any, ClassVar

import attrs
import msgspec
from temporalio import workflow
from temporalio.common import (
    RawValue,
    RetryPolicy,
)
from temporalio.exceptions import ApplicationError

from durable_core import DurableError, PayloadError, RunStatus
from durable_core.layer import (
    Answer,
    CallStep,
    Done,
    DurableFunction,
    EntryKind,
    HostedRun,
    RunRef,
    StepCall,
    Want,
    in_words,
    ns_of,
)
from sagas.hosts.attempts import not_made
from sagas.hosts.shared import (
    Begin,
    Cut,
    Ended,
    Input,
    Rang,
    Registry,
    Returned,
    Snapshot,
    Told,
    judged,
)
from sagas.hosts.temporal import limits
from sagas.hosts.temporal.attempts import CALL, NOT_LOADED, end_of, raw
from sagas.hosts.tokens import Tokens
from sagas.model.verbs import VERBS, OperatorAction

log = logging.getLogger("sagas")

LOOK_AGAIN_S = 10
"""When such an attempt is offered again."""
ONCE = RetryPolicy(maximum_attempts=1)
MENDED = "the code stopped here and was mended since. Retry the saga, and it goes on"
RELEASING = frozenset({"retry", "rollback", "kill"})
"""The verbs that end a hold on a fault of the code."""


class _Parked(RuntimeError):
    """Fails the workflow task: Temporal tries it again until the code fits, and nothing is begun."""


class Execution:
    """The workflow of one saga. A worker derives a class of its own that knows its sagas."""

    registry: ClassVar[Registry]
    secret: ClassVar[bytes]
    lease: ClassVar[timedelta]

    def __init__(self) -> None:
        self._inbox: list[Input] = []
        self._run: HostedRun | None = None
        self._new: Callable[[], HostedRun]
        self._fed: list[Input] = []
        self._tokens: Tokens
        self._begun: set[str] = set()
        self._in_flight: dict[str, workflow.ActivityHandle[Any]] = {}
        self._timers: dict[str, tuple[int, asyncio.Task[None]]] = {}
        self._seen = 0
        """Entries of the journal that were searched for faults."""
        self._place = 0
        """Inputs that have come so far."""
        self._held: list[Input] = []
        self._holding = False
        """The code stopped here when it first came here, and was mended since: nothing begins before a verb."""
        self._logged = ""

    # -- what Temporal calls ---------------------------------------------------------------------------------------

    @workflow.signal(name="operator", description="A verb of an operator: {verb, step, happened, result, actor, note}")
    def operator(self, order: RawValue) -> None:
        """Take a verb; it is judged when it is taken up."""
        verb = _verb_of(order.payload.data)
        if verb not in VERBS:
            log.warning("saga %s: %r is no verb of an operator; nothing was changed", workflow.info().workflow_id, verb)
            return
        self._inbox.append(Told(verb, order.payload.data, workflow.time_ns()))

    @workflow.signal(name="answer", description="An answer to a callback: {key, kind, value, actor, note}")
    def answer(self, given: RawValue) -> None:
        """Take an answer or a heartbeat; the first answer of the declared type counts."""
        try:
            answer = msgspec.json.decode(given.payload.data, type=Answer)
        except (msgspec.MsgspecError, DurableError) as error:
            log.warning("saga %s: no answer to a callback: %s", workflow.info().workflow_id, error)
            return
        self._inbox.append(Told(answer.signal, given.payload.data, workflow.time_ns()))

    @workflow.query(name="journal", description="The saga's row and derived journal, for the client")
    def journal(self) -> RawValue:
        """What a client makes ``info`` of."""
        return raw(msgspec.json.encode(self._snapshot()))

    @workflow.query(name="info", description="The saga as it stands")
    def info(self) -> RawValue:
        """What a person wants to see."""
        snapshot = self._snapshot()
        record = snapshot.record
        info: Any = self.registry.face.describe(snapshot.standing(self.registry.shape(record.name, record.version)))
        steps = [{"key": each.key, "kind": each.kind, "status": each.status} for each in info.steps]
        shown = {"id": info.id, "status": info.status, "reason": info.reason, "paused": info.paused, "steps": steps}
        return raw(msgspec.json.encode(shown))

    @workflow.query(
        name="callback", description="The key of the callback that has this token; null where there is none"
    )
    def callback(self, token: str) -> str | None:
        """Check a token."""
        journal = self._derived().journal
        return self._tokens.key_of(token, journal)

    async def main(self, args: Sequence[RawValue]) -> RawValue:
        """Drive the saga to its end.

        The drive is a task of its own: Temporal cancels this one when somebody asks for a cancel, and all tasks when
        it drops the workflow from memory.
        """
        self._begin(args)
        driver = asyncio.create_task(self._drive())
        try:
            while not driver.done():
                try:
                    await workflow.wait_condition(driver.done)
                except asyncio.CancelledError:
                    if driver.cancelling() or (reason := workflow.cancellation_reason()) is None:
                        raise  # evicted
                    action = OperatorAction(reason=reason)
                    self._inbox.append(Told("cancel", msgspec.json.encode(action), workflow.time_ns()))
            driver.result()
            return self._ended(self._derived())
        finally:
            self._derived().close()

    # -- the drive -------------------------------------------------------------------------------------------------

    def _derived(self) -> HostedRun:
        if self._run is None:
            raise ApplicationError("the saga has not begun")
        return self._run

    def _snapshot(self) -> Snapshot:
        snapshot = Snapshot.of(self._derived())
        if self._holding:
            snapshot.record = attrs.evolve(snapshot.record, status=RunStatus.STUCK, reason=MENDED)
        return snapshot

    def _begin(self, args: Sequence[RawValue]) -> None:
        info = workflow.info()
        uid = _uid(info)
        self._tokens = Tokens(info.workflow_id, uid, self.secret)
        begin = msgspec.convert(workflow.memo_value("sagas", {}), type=Begin)
        function = self._function(info.workflow_type, begin.version)
        at_ns = ns_of(info.start_time)
        try:
            self._new = partial(
                HostedRun,
                function,
                _input_of(args),
                id=info.workflow_id,
                uid=uid,
                at_ns=at_ns,
                codec=self.registry.codec,
                token=self._tokens.of,
                deadline_at_ns=None if begin.deadline_ns is None else at_ns + begin.deadline_ns,
                tags=begin.tags,
            )
            self._run = self._new()
        except DurableError as refused:  # arguments that do not fit
            if not workflow.patched("sagas refused"):  # they did fit when it began
                raise _Parked(str(refused)) from refused
            raise ApplicationError(str(refused), type=type(refused).__name__, non_retryable=True) from refused

    def _function(self, name: str, version: int | None) -> DurableFunction:
        """The saga to run. Where the execution does not tell its version, it is the newest when it begins."""
        served = self.registry.versions(name)
        if version is None:
            version = next((each for each in served if workflow.patched(f"sagas version {each}")), None)
        function = None if version is None else self.registry.functions.get((name, version))
        if function is None:
            asked = "" if version is None else f" version {version}"
            raise _Parked(
                f"saga {name!r}{asked} is not served by this worker, which has "
                f"{', '.join(map(str, served)) or 'no version of it'}. Start a worker that serves it"
            )
        return function

    async def _drive(self) -> None:
        self._look_for_fault()
        while self._derived().end is None or self._holding:
            self._want(self._derived())
            self._show(self._derived())
            await workflow.wait_condition(lambda: bool(self._inbox))
            self._take_up()

    def _take_up(self) -> None:
        """Feed what has come, verbs first: no step begins whose intent would come after a cancel in the history."""
        inbox, self._inbox = self._inbox, []
        for one in sorted(inbox, key=lambda each: not isinstance(each, Told)):
            self._place += 1
            if not self._holding:
                self._feed(one)
            else:
                self._held.append(one)
                if getattr(one, "verb", "") not in RELEASING:
                    continue
                self._release()
            self._look_for_fault()

    def _release(self) -> None:
        """The last verb ends the hold. All verbs count before the input on which the code stopped.

        So the run is derived once more: a cancel that came meanwhile comes before anything that the mended code asks.
        """
        self._holding = False
        *before, verb = self._held
        self._held = []
        if isinstance(verb, Told) and verb.verb == "rollback":
            verb = Told("cancel", verb.payload, verb.at_ns)  # to the mended code it has not failed
        fed, self._fed = self._fed, []
        self._derived().close()
        self._run = self._new()
        for one in fed[:-1]:
            self._feed(one, judge=False)
        self._seen = len(self._run.journal)
        told = [one for one in (verb, *before) if isinstance(one, Told) and one.verb != "retry"]
        for one in told:
            self._feed(one)
        for one in fed[-1:]:
            self._feed(one, judge=False)
        for one in before:
            if not isinstance(one, Told):
                self._feed(one)

    def _feed(self, one: Input, *, judge: bool = True) -> None:
        run = self._derived()
        if run.end is not None:
            return
        if judge and isinstance(one, Told) and one.verb in VERBS:
            try:
                order = judged(self.registry.face, run, one.verb, one.payload)
            except DurableError as refused:
                if not workflow.unsafe.is_replaying():
                    log.warning("saga %s: `%s` was refused: %s", run.record.id, one.verb, refused)
                return
            if order is None:
                return
            one = Told(order.name, order.payload, one.at_ns)
        self._fed.append(one)
        one.feed(run)

    def _look_for_fault(self) -> None:
        """Note in the history that the code stopped here, so that mended code waits here too, for the same verb."""
        run = self._derived()
        faulted = any(entry.kind == EntryKind.FAULTED for entry in run.journal[self._seen :])
        self._seen = len(run.journal)
        if not faulted and not workflow.unsafe.is_replaying():
            return
        noted = workflow.patched(f"sagas fault {self._place}")
        if faulted and not noted:  # it went further when it first came here
            raise _Parked(f"{run.stuck}")
        self._holding = self._holding or (noted and not faulted)

    def _want(self, run: HostedRun) -> None:
        """Begin what the run wants and has not begun, and drop the timers that it wants no longer."""
        run.dropped()
        wants: Mapping[str, Want] = {} if self._holding else run.wants()
        for op, want in wants.items():
            if isinstance(want, CallStep) and op not in self._begun:
                self._begun.add(op)
                self._call(run, want)
        due = {op: want.due_ns for op, want in wants.items() if not isinstance(want, CallStep)}
        for op, (due_ns, timer) in list(self._timers.items()):
            if due.get(op) != due_ns:
                del self._timers[op]
                timer.cancel()
        for op, wanted_ns in due.items():
            if wanted_ns is not None and op not in self._timers:
                self._set_timer(op, wanted_ns)

    def _set_timer(self, op: str, due_ns: int) -> None:
        span = timedelta(microseconds=-(-max(0, due_ns - workflow.time_ns()) // 1000))
        timer = asyncio.create_task(workflow.sleep(span, summary=op))
        self._timers[op] = (due_ns, timer)

        def rang(ended: "asyncio.Task[None]") -> None:
            if not ended.cancelled():
                self._timers.pop(op, None)
                self._inbox.append(Rang(op, due_ns, workflow.time_ns()))

        timer.add_done_callback(rang)

    def _call(self, run: HostedRun, want: CallStep, again: int = 0) -> None:
        """Begin an attempt: an activity by the name of the operation.

        Its id holds a digest of the arguments, which Temporal compares on replay: code that now calls the step with
        other ones does not fit.
        """
        stored = msgspec.json.encode(want.call)
        refused = self._too_much(run, want.call, stored)
        if refused is not None:
            self._inbox.append(Returned(want.op, not_made(refused, workflow.time_ns())))
            return
        digest = hashlib.blake2b(bytes(want.call.args) + bytes(want.call.forward), digest_size=6).hexdigest()
        handle = workflow.start_activity(
            want.op,
            arg=raw(stored),
            activity_id=f"{want.op} {digest}{f' offer {again + 1}' if again else ''}",
            result_type=RawValue,
            start_to_close_timeout=limits.FOREVER,
            heartbeat_timeout=self.lease,
            retry_policy=ONCE,
        )
        self._in_flight[want.op] = handle
        handle.add_done_callback(partial(self._returned, want, again))

    def _returned(self, want: CallStep, again: int, handle: Any) -> None:
        if handle.cancelled():  # evicted
            return
        del self._in_flight[want.op]
        now_ns, end = workflow.time_ns(), end_of(handle)
        if end == NOT_LOADED:
            offer = asyncio.create_task(workflow.sleep(LOOK_AGAIN_S, summary=f"offer {want.op} again"))
            offer.add_done_callback(
                lambda slept: None if slept.cancelled() else self._call(self._derived(), want, again + 1)
            )
        elif isinstance(end, Done):  # times are the server's: workers' clocks differ
            end = msgspec.structs.replace(end, at=now_ns, began=now_ns - max(0, end.at - end.began))
            self._inbox.append(Returned(want.op, end))
        else:
            self._inbox.append(Cut(want.op, now_ns))

    def _too_much(self, run: HostedRun, call: StepCall, stored: bytes) -> DurableError | None:
        """Why an attempt cannot be begun: it, or with its undo the history, would pass a limit of Temporal."""
        what = f"saga {call.run}, step {call.key!r}"
        if len(stored) > limits.LARGEST_PAYLOAD:
            return PayloadError(
                f"{what}: its arguments have {len(stored):,} bytes, and Temporal takes {limits.LARGEST_PAYLOAD:,}; it "
                "was not called",
                "Store them, and pass where they are",
            )
        if call.kind in ("compensation", "probe"):
            return None
        info = workflow.info()
        events = info.get_current_history_length()
        steps = sum(entry.kind == EntryKind.STARTED for entry in run.journal)
        fits = events + limits.EVENTS_A_CALL * (steps + 2) + limits.SPARE_EVENTS <= limits.MOST_EVENTS
        if fits and info.get_current_history_size() <= limits.LARGEST_HISTORY:
            return None
        return PayloadError(
            f"{what}: the history has {events:,} events and {info.get_current_history_size():,} bytes, and with this "
            f"step and the undo of all its rollback might pass Temporal's limits; it was not called",
            "Divide the saga",
        )

    # -- what is shown ---------------------------------------------------------------------------------------------

    def _show(self, run: HostedRun) -> None:
        """Say in Temporal's own views, and once in the log, that it needs a person."""
        reason = MENDED if self._holding else run.stuck or run.record.reason or ""
        workflow.set_current_details(reason)
        if reason and reason != self._logged and not workflow.unsafe.is_replaying():
            log.error("saga %r (%s) needs a person: %s", run.record.id, run.record.name, reason)
        self._logged = reason

    def _ended(self, run: HostedRun) -> RawValue:
        """The execution's result; a saga that was rolled back or killed fails it."""
        record, ended = run.record, Ended.of(run.record)
        if record.status is RunStatus.COMPLETED:
            return raw(record.output or b"null")
        try:
            self.registry.face.outcome(RunRef(1, record.id, record.name, record.version), ended.outcome(), None, None)
        except Exception as end:  # noqa: BLE001 - the face makes the error that describes the end, be it a user's own
            text, kind = in_words(end), type(end).__name__
        else:
            text, kind = f"saga {record.id!r} ended as {record.status}", "SagasError"
        raise ApplicationError(text, raw(msgspec.json.encode(ended)), type=kind, non_retryable=True)


def _verb_of(order: bytes) -> str:
    try:
        return msgspec.json.decode(order, type=OperatorAction).verb
    except (msgspec.MsgspecError, DurableError):
        return ""


def _input_of(args: Sequence[RawValue]) -> bytes:
    """The arguments as our codec stores them: JSON of each, or our own form of a call with keywords."""
    payloads = [arg.payload for arg in args]
    for payload in payloads:
        if payload.metadata.get("encoding") not in (b"json/plain", b"binary/null"):
            raise PayloadError("the arguments of a saga are JSON", "Start it by sagas.hosts.temporal.Client")
    if len(payloads) == 1 and payloads[0].metadata.get("sagas") == CALL:
        return payloads[0].data
    return b"[" + b",".join(payload.data or b"null" for payload in payloads) + b"]"


def _uid(info: workflow.Info) -> bytes:
    """Not the run's id alone: a reset goes on with the same effects, a retry or the next of a schedule does not."""
    ran = info.first_execution_run_id or info.run_id
    known = "\n".join((info.workflow_id, ran, info.continued_run_id or "", str(info.attempt)))
    return hashlib.blake2b(known.encode(), digest_size=16).digest()
