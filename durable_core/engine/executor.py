"""Calls step functions: coroutines as tasks on the loop, plain functions on threads, each with its timeout.

Invariants: every call that begins is told to its step once it has returned, unless the process dies; and whether it may
begin is asked directly before the step's own code, in the task and in the thread.
"""

import asyncio
import contextvars
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from enum import Enum
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import attrs

from durable_core.errors import Fault
from durable_core.ports import AttemptFaults, Clock, Timer, TraceContext
from durable_core.replay.current import CURRENT, AttemptInfo
from durable_core.replay.cursor import LateResult
from durable_core.replay.steps import call_plain, judged, measure

if TYPE_CHECKING:
    from durable_core.replay.effects import Effects
    from durable_core.replay.run import Run
    from durable_core.replay.steps import PendingStep

UNSAFE_PAUSE_S = 0.05
"""How long an attempt waits before the lease is looked at again."""


class _NotBegun(Enum):
    """Why a thread has not begun the call that it was given."""

    RECALLED = "recalled"
    HELD = "held"
    UNSAFE = "unsafe"
    """The lease is too short for it, or there is no thread."""


class _ThreadCall:
    """A call of a plain function: a thread begins it, or the loop recalls it first; never both."""

    __slots__ = ("_fn", "_safe", "_ticket", "begun", "outcome", "started_at_ns", "step")

    def __init__(self, step: "PendingStep", fn: Callable[..., Any], safe: Callable[[], bool]) -> None:
        self.step = step
        self._fn = fn
        self._safe = safe
        self._ticket = [True]  # taken out once, by whichever thread comes first: `pop` is atomic
        self.started_at_ns = 0
        self.begun: Callable[[], object] | None = None
        """Called on the thread once the function is about to be."""
        self.outcome: asyncio.Future[Any] | None = None
        """What the thread returns."""

    def recall(self) -> bool:
        """See to it that the function is not called; False where it has been."""
        if not self._take():
            return False
        if self.outcome is not None:
            self.outcome.cancel()
        return True

    def _take(self) -> bool:
        try:
            return self._ticket.pop()
        except IndexError:
            return False

    def __call__(self) -> Any:
        """On the thread: call the function, if that is still wanted."""
        step = self.step
        run = step.run
        if not self._take():
            return _NotBegun.RECALLED
        if run.hold or run.effects.leaving:
            return _NotBegun.HELD
        if not self._safe():
            return _NotBegun.UNSAFE
        step.latest.called = True
        self.started_at_ns = run.effects.now_ns()
        if self.begun is not None:
            self.begun()
        return call_plain(self._fn, step.args, step.kwargs if step.extra is None else {**step.kwargs, **step.extra})


@attrs.define(eq=False)
class StepExecutor:
    """The calls under way of one worker."""

    effects: "Effects[Run, PendingStep]"
    loop: asyncio.AbstractEventLoop
    lease_is_safe: Callable[[], bool]
    places: int
    """Plain functions that may run at once."""
    threads: ThreadPoolExecutor | None = None
    clock: Clock = attrs.field(kw_only=True)
    cut: Callable[["PendingStep"], None] = attrs.field(kw_only=True)
    """Called for an attempt that was cut from outside."""
    tracing: TraceContext | None = None
    faults: AttemptFaults | None = None
    """What a test has go wrong."""
    die: Callable[[], None] = attrs.field(kw_only=True)
    """For such faults: ends this worker as the death of its process would."""
    cutting: bool = False
    """The grace is over: what has not returned is left behind."""
    waiting: "dict[PendingStep, _ThreadCall]" = attrs.field(factory=dict["PendingStep", _ThreadCall])
    """Calls of plain functions that have not returned, as far as the loop knows."""

    def call(self, step: "PendingStep") -> None:
        """Begin an attempt, or try again in a moment where this worker might soon be taken for dead."""
        if not self.lease_is_safe():
            self.loop.call_later(UNSAFE_PAUSE_S, step.launch)
            return
        step.task = self.loop.create_task(self._attempt(step))

    def recall(self, step: "PendingStep") -> bool:
        """Leave out the call that was asked for; False where its function has been called."""
        if step.called:
            return False
        call = self.waiting.get(step)
        if call is None:
            return True
        if call.recall():
            del self.waiting[step]
            return True
        step.called = True  # its thread is about to call it
        return False

    # -- one attempt -----------------------------------------------------------------------------------------------

    async def _attempt(self, step: "PendingStep") -> None:
        spec = step.spec
        task = asyncio.current_task()
        value: Any = None
        error: BaseException | None = None
        timers: list[Timer] = []
        if not self._may_begin(step, task):
            return
        entered = self._enter(AttemptInfo(step.run.identity, step))
        started_at_ns = self.effects.now_ns()
        try:
            if spec.is_async:
                step.called = True
                self._limit(step, started_at_ns, timers)
                fn = spec.fn if self.faults is None else self.faults.function(spec, step.key, self)
                value = await fn(*step.args, **(step.kwargs if step.extra is None else {**step.kwargs, **step.extra}))
            else:
                value, started_at_ns = await self._on_thread(step, timers)
        except KeyboardInterrupt:
            raise  # the process is ending: for its journal this attempt is cut by a crash
        except asyncio.CancelledError as cancelled:
            if step in self.waiting and not self.cutting:  # its thread goes on, and tells by itself how that ends
                self._leave(*entered)
                raise
            if self._is_cut(step, task):
                _stop(timers)
                self._leave(*entered)
                self.cut(step.latest)
                raise
            error = cancelled
        except BaseException as failure:  # noqa: BLE001 - the border of the user's step: what it raises is its outcome
            error = failure
        _stop(timers)
        said = self._leave(*entered)
        now = step.latest
        if now.task is task:  # else it was recalled while it waited for a thread
            self._returned(now, value, error, started_at_ns, said=said)

    def _returned(
        self,
        now: "PendingStep",
        value: Any,
        error: BaseException | None,
        started_at_ns: int,
        *,
        said: bytes | None = None,
    ) -> None:
        """The call is over: tell its step, which is ``now`` the latest one in memory."""
        if isinstance(value, _NotBegun):
            self._not_begun(now, value)
            return
        doubtful = False
        if error is not None:
            error, doubtful = judged(
                error,
                now.spec,
                about=f"{now.run.title}, step {now.key!r}, attempt {now.attempt}",
                overrun=now.overrun,
                cancelled=isinstance(error, asyncio.CancelledError),
            )
            _drop_frames(error)
        try:
            now.returned(measure(now, value, error, started_at_ns, doubtful=doubtful, said=said))
        except Exception as bug:  # noqa: BLE001 - a retry policy of the user's own, or our bug: nobody may lose the run
            self._undecided(now.run, now, bug)

    def _may_begin(self, step: "PendingStep", task: "asyncio.Task[Any] | None") -> bool:
        """Whether the function may be called here and now: asked at the last moment, because a turn may take long."""
        if step.task is not task:
            return False  # recalled
        if self.effects.leaving or step.run.hold:
            self._not_begun(step, _NotBegun.HELD)
            return False
        if not self.lease_is_safe():
            self._not_begun(step, _NotBegun.UNSAFE)
            return False
        return True

    def _not_begun(self, step: "PendingStep", why: _NotBegun) -> None:
        """The function was not called: say so, or try again where the lease was all that was missing."""
        if why is _NotBegun.RECALLED:
            return
        step.task = None
        step.called = False
        run = step.run
        if run.dead:
            withheld = LateResult.withheld(step.key, step.attempt, self.effects.now_ns())
            self.effects.returned_late(step, withheld)
            return
        if why is _NotBegun.UNSAFE:
            self.loop.call_later(UNSAFE_PAUSE_S, step.launch)
            return
        if not run.hold and not self.effects.leaving:
            self.loop.call_soon(step.launch)  # it was let go before the loop heard that a thread had found it held
            return
        step.withhold()
        self.effects.drive_soon(run)

    def _limit(self, step: "PendingStep", began_ns: int, timers: list[Timer]) -> None:
        """Have the attempt timed out, counted from when its own code began."""
        if step.spec.timeout_ns is not None:
            due_ns = began_ns + step.spec.timeout_ns
            timers.append(self.clock.call_at(due_ns, step.overdue))

    def _limit_thread(self, call: _ThreadCall, timers: list[Timer]) -> None:
        self._limit(call.step, call.started_at_ns, timers)

    def _is_cut(self, step: "PendingStep", task: "asyncio.Task[Any] | None") -> bool:
        """Whether a cancellation came from outside, and not from a timeout or out of the step's own code."""
        now = step.latest
        if now.task is not task:
            return False  # recalled
        return self.cutting or (not now.overrun and task is not None and task.cancelling() > 0)

    def _enter(self, info: AttemptInfo) -> tuple[contextvars.Token[AttemptInfo], Any]:
        """Let the code of the attempt see that it is one, and under which span it runs."""
        token = CURRENT.set(info)
        if self.tracing is None:
            return token, None
        return token, self.tracing.enter(info.span, self.effects.now_ns)

    def _leave(self, token: contextvars.Token[AttemptInfo], traced: Any) -> bytes | None:
        """The code of the attempt is over; what it has said on its span."""
        CURRENT.reset(token)
        return None if self.tracing is None else self.tracing.leave(traced)

    def _undecided(self, run: "Run", step: "PendingStep", bug: Exception) -> None:
        """What follows an attempt could not be decided: its run is stuck."""
        if not run.dead:
            run.stop(
                Fault(
                    f"{run.title}, step {step.key!r}: what follows its attempt {step.attempt} could not be decided "
                    f"({type(bug).__name__}: {bug}). Correct the step's retry policy, then retry the {run.noun}"
                )
            )

    async def _on_thread(self, step: "PendingStep", timers: list[Timer]) -> tuple[Any, int]:
        if self.threads is None:
            self.threads = ThreadPoolExecutor(self.places, "sagas-step")
        context = contextvars.copy_context()
        fn = step.spec.fn if self.faults is None else self.faults.function(step.spec, step.key, self)
        call = self.waiting[step] = _ThreadCall(step, fn, self.lease_is_safe)
        if step.spec.timeout_ns is not None:
            limit = partial(self._limit_thread, call, timers)
            call.begun = lambda: self.loop.call_soon_threadsafe(limit)
        try:
            outcome = call.outcome = self.loop.run_in_executor(self.threads, lambda: context.run(call))
        except RuntimeError:  # Python is ending, or the system has no thread left: no fault of the step
            call.recall()  # it may be queued nevertheless
            del self.waiting[step]
            return _NotBegun.UNSAFE, 0
        while True:
            try:
                # A thread cannot be stopped: after a timeout, or when the program cancels its tasks, retry and undo
                # wait until it has returned, and its late result is the outcome.
                value = await asyncio.shield(outcome)
            except asyncio.CancelledError:
                if self.cutting or outcome.cancelled():
                    self.waiting.pop(step, None)
                    raise
                own = asyncio.current_task()
                if own is not None and own.cancelling() > step.latest.overrun:
                    outcome.add_done_callback(lambda done: self._thread_ended(call, done, timers))
                    raise
            except BaseException:
                self.waiting.pop(step, None)
                raise
            else:
                self.waiting.pop(step, None)
                return value, call.started_at_ns

    def _thread_ended(self, call: _ThreadCall, done: "asyncio.Future[Any]", timers: list[Timer]) -> None:
        """A thread has returned whose task was cancelled from outside."""
        step = call.step
        self.waiting.pop(step, None)
        _stop(timers)
        if step.latest.task is None:
            return  # recalled
        if done.cancelled():
            self.cut(step.latest)
            return
        error = done.exception()
        self._returned(step.latest, None if error is not None else done.result(), error, call.started_at_ns)

    # -- leaving ---------------------------------------------------------------------------------------------------

    def abandon(self, steps: "Iterable[PendingStep]") -> "list[asyncio.Future[Any]]":
        """Call none of ``steps`` that is not called yet; what is still under way. Nothing can stop a thread."""
        under_way: list[asyncio.Future[Any]] = []
        for step in steps:
            call = self.waiting.get(step)
            if self.recall(step):
                step.task = None
            elif call is not None and call.outcome is not None:
                under_way.append(call.outcome)
            elif step.task is not None:
                under_way.append(cast("asyncio.Task[None]", step.task))
        return under_way

    async def drain(self, steps: "Iterable[PendingStep]", *, within_s: float) -> int:
        """Wait for the attempts of ``steps``, cut what does not end in time; return how many were cut."""
        steps = list(steps)
        calls = {step.latest: call for step, call in self.waiting.items()}
        for step in steps:
            call = calls.get(step)
            if call is not None and call.recall():
                self._not_begun(step, _NotBegun.HELD)
        threads = {call.outcome for step in steps if (call := calls.get(step)) and call.outcome is not None}
        under_way = {
            cast("asyncio.Task[None]", step.task) for step in steps if step.task is not None and not step.task.done()
        }
        if threads or under_way:
            await asyncio.wait(threads | under_way, timeout=within_s)
        waiting = {task for task in under_way if not task.done()}
        self.cutting = True
        for task in waiting:
            task.cancel()
        if waiting:
            await asyncio.wait(waiting, timeout=1.0)
        for step in [step for step in self.waiting if step.latest.task is None or step.latest.task.done()]:
            self.cut(step.latest)
        if self.threads is not None:
            self.threads.shutdown(wait=False, cancel_futures=True)
        return len(waiting)


def _stop(timers: list[Timer]) -> None:
    for timer in timers:
        timer.cancel()


def _drop_frames(error: BaseException) -> None:
    """Leave out our own frames from the traceback that users see and that the journal keeps."""
    traceback = error.__traceback__
    while traceback is not None and traceback.tb_frame.f_code.co_filename == __file__:
        traceback = traceback.tb_next
    error.with_traceback(traceback)  # a frozen exception refuses the assignment
