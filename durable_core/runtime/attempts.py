"""Calls step functions: coroutines as tasks on the loop, plain functions on threads, each with its timeout.

Invariant: every call that begins ends in exactly one ``PendingStep.attempted``, unless the process dies.
"""

import asyncio
import contextvars
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import attrs

from durable_core.errors import Fault, StepInterrupted, StepTimeout
from durable_core.ports import TraceContext
from durable_core.runtime.current import CURRENT, AttemptInfo

if TYPE_CHECKING:
    from durable_core.runtime.run import Run
    from durable_core.runtime.shell import Shell
    from durable_core.runtime.steps import PendingStep

THREADS = 32
UNSAFE_PAUSE_S = 0.05
"""How long an attempt waits before the lease is looked at again."""


@attrs.define
class Attempts:
    """The calls under way of one worker."""

    shell: "Shell"
    loop: asyncio.AbstractEventLoop
    lease_is_safe: Callable[[], bool]
    threads: ThreadPoolExecutor | None = None
    tracing: TraceContext | None = None

    def call(self, run: "Run", step: "PendingStep") -> None:
        """Begin an attempt, or try again in a moment where this worker might soon be taken for dead."""
        if not self.lease_is_safe():
            self.loop.call_later(UNSAFE_PAUSE_S, step.launch)
            return
        step.task = self.loop.create_task(self._attempt(run, step))

    async def _attempt(self, run: "Run", step: "PendingStep") -> None:
        spec = step.spec
        shell = self.shell
        value: Any = None
        error: BaseException | None = None
        doubtful = False
        timer = None
        entered = self._enter(AttemptInfo(run, step))
        started_at_ns = shell.now_ns()
        if spec.timeout_ns is not None:
            timer = shell.clock.call_at(started_at_ns + spec.timeout_ns, step.overdue)
        try:
            if spec.is_async:
                value = await spec.fn(
                    *step.args, **(step.kwargs if step.extra is None else {**step.kwargs, **step.extra})
                )
            else:
                value = await self._on_thread(step)
        except (KeyboardInterrupt, SystemExit):
            raise  # the process is ending: for its journal this attempt is cut by a crash
        except asyncio.CancelledError as cancelled:
            if run.dead or shell.leaving:
                raise  # the worker is leaving: this attempt counts as cut, and its step is run again elsewhere
            error = cancelled
        except BaseException as failure:  # noqa: BLE001 - the border of the user's step: what it raises is its outcome
            error = failure
            doubtful = not isinstance(failure, Exception)
        if timer is not None:
            timer.cancel()
        self._leave(*entered)
        if error is not None:
            error, judged = self._judge(run, step, error)
            doubtful = doubtful or judged
            _drop_frames(error)
        try:
            step.attempted(value, error, started_at_ns, doubtful=doubtful)
        except Exception as bug:  # noqa: BLE001 - a retry policy of the user's own, or our bug: nobody may lose the run
            self._undecided(run, step, bug)

    def _enter(self, info: AttemptInfo) -> tuple[contextvars.Token[AttemptInfo], Any]:
        """Let the code of the attempt see that it is one, and under which span it runs."""
        token = CURRENT.set(info)
        if self.tracing is None:
            return token, None
        return token, self.tracing.enter(info.span)

    def _leave(self, token: contextvars.Token[AttemptInfo], traced: Any) -> None:
        CURRENT.reset(token)
        if self.tracing is not None:
            self.tracing.leave(traced)

    def _undecided(self, run: "Run", step: "PendingStep", bug: Exception) -> None:
        """Nobody could say what follows an attempt: park its run."""
        if not run.dead:
            run.park(
                Fault(
                    f"run {run.id}, step {step.key!r}: what follows its attempt {step.attempt} could not be decided "
                    f"({type(bug).__name__}: {bug}). Mend the step's retry policy, then retry the run"
                )
            )

    def _judge(self, run: "Run", step: "PendingStep", error: BaseException) -> tuple[BaseException, bool]:
        """What an attempt's exception means: its own, its timeout's, or a cancellation from nowhere."""
        about = f"run {run.id}, step {step.key!r}, attempt {step.attempt}"
        if step.overrun and not isinstance(error, step.spec.rejects):
            timeout_s = (step.spec.timeout_ns or 0) / 1e9
            timeout = StepTimeout(f"{about}: it did not end within its timeout of {timeout_s:g} s")
            if not isinstance(error, asyncio.CancelledError):
                timeout.__cause__ = error
            return timeout, True
        if isinstance(error, asyncio.CancelledError):
            return StepInterrupted(f"{about}: it was cancelled by its own code; its effect is not known"), True
        return error, False

    async def _on_thread(self, step: "PendingStep") -> Any:
        if self.threads is None:
            self.threads = ThreadPoolExecutor(THREADS, "sagas-step")
        context = contextvars.copy_context()
        kwargs = step.kwargs if step.extra is None else {**step.kwargs, **step.extra}
        outcome = self.loop.run_in_executor(self.threads, lambda: context.run(_call, step, kwargs))
        while True:
            try:
                # A thread cannot be stopped: after a timeout, retry and undo wait until it has returned, and its late
                # result is the outcome.
                return await asyncio.shield(outcome)
            except asyncio.CancelledError:
                if self.shell.leaving or not step.overrun or outcome.cancelled():
                    raise

    async def drain(self, runs: Iterable["Run"], *, within_s: float) -> int:
        """Wait for the attempts under way in ``runs``, cut what does not end in time; return how many were cut."""
        tasks = (step.task for run in runs for step in run.steps.values())
        waiting = {task for task in tasks if task is not None and not task.done()}
        if waiting:
            _, waiting = await asyncio.wait(waiting, timeout=within_s)
        for task in waiting:
            task.cancel()
        if waiting:
            await asyncio.wait(waiting, timeout=1.0)
        if self.threads is not None:
            self.threads.shutdown(wait=False, cancel_futures=True)
        return len(waiting)


def _call(step: "PendingStep", kwargs: dict[str, Any]) -> Any:
    try:
        return step.spec.fn(*step.args, **kwargs)
    except StopIteration as stop:  # a future cannot carry it
        raise RuntimeError("the step raised StopIteration") from stop


def _drop_frames(error: BaseException) -> None:
    """Leave out our own frames from the traceback that users see and that the journal keeps."""
    traceback = error.__traceback__
    while traceback is not None and traceback.tb_frame.f_code.co_filename == __file__:
        traceback = traceback.tb_next
    error.with_traceback(traceback)  # a frozen exception refuses the assignment
