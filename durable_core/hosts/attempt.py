"""Makes one attempt for a host: here and now, on asyncio, from the step in memory or from its call as bytes.

Invariant: whatever the function does, the result says how it ended; only the death of the process leaves it open.
"""

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

import attrs
from msgspec import Raw

from durable_core.errors import DefinitionError
from durable_core.model.calls import Done, StepCall
from durable_core.model.duration import NS
from durable_core.model.failure import capture
from durable_core.model.spec import DurableFunction, StepSpec
from durable_core.replay.current import CURRENT, Attempted, AttemptInfo
from durable_core.replay.cursor import RunIdentity
from durable_core.replay.steps import PendingStep, call_plain, judged, unstorable


@attrs.frozen
class Clocked:
    """The time and the chance that an attempt's result carries: the host's record keeps both."""

    now_ns: Callable[[], int]
    draw: Callable[[], float]


async def attempt(function: DurableFunction, call: StepCall, clocked: Clocked) -> Done:
    """Make the attempt that came as bytes, perhaps from another machine.

    Raises:
        DefinitionError: the code loaded here does not know the step.
    """
    located = None if function.locate is None else function.locate(call)
    if located is None:
        raise DefinitionError(
            f"{function.noun} {call.run} of {call.name} v{call.version}: the code loaded here does not say what step "
            f"{call.key!r} calls",
            f"Load the code that began this {function.noun}. Nothing was called",
        )
    spec, args, kwargs = located
    run = RunIdentity(0, call.run, call.uid, call.name, call.version, call.traceparent, function.noun)
    return await _attempt(run, call, spec, args, kwargs, clocked)


async def attempt_here(step: PendingStep, clocked: Clocked) -> Done:
    """Make the attempt in the process that drives its run."""
    kwargs = step.kwargs if step.extra is None else {**step.kwargs, **step.extra}
    return await _attempt(step.run.identity, step, step.spec, step.args, kwargs, clocked)


async def _attempt(  # noqa: PLR0917 - the call, piece by piece
    run: RunIdentity,
    step: Attempted,
    spec: StepSpec,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    clocked: Clocked,
) -> Done:
    about = f"{run.title}, step {step.key!r}, attempt {step.attempt}"
    began_ns = clocked.now_ns()
    token = CURRENT.set(AttemptInfo(run, step))
    limit = asyncio.timeout(None if spec.timeout_ns is None else spec.timeout_ns / NS)
    try:
        if spec.is_async:
            async with limit:
                value = await spec.fn(*args, **kwargs)
        else:
            value = await asyncio.to_thread(
                call_plain, spec.fn, args, kwargs
            )  # cannot be stopped: a late result counts
    except KeyboardInterrupt:
        raise  # the process is ending: to the host this attempt was cut
    except BaseException as raised:
        cancelled = isinstance(raised, asyncio.CancelledError)
        if cancelled and _is_being_cancelled():
            raise  # from outside: it was cut likewise
        overrun = spec.timeout_ns is not None and clocked.now_ns() - began_ns >= spec.timeout_ns
        error, doubtful = judged(raised, spec, about=about, overrun=overrun or limit.expired(), cancelled=cancelled)
        return _failed(error, began_ns, clocked, doubtful=doubtful, repeatable=True)
    finally:
        CURRENT.reset(token)
    try:
        payload, _ = spec.shape.exchange_result(value, what=f"{about}: the result")
    except Exception:  # noqa: BLE001 - the value may be of a user's type, which raises what it likes
        refused = unstorable(spec, value, what=f"{about}: the result")
        return _failed(refused, began_ns, clocked, doubtful=True, repeatable=False)
    return Done(at=clocked.now_ns(), began=began_ns, value=Raw(payload), draw=clocked.draw())


def _is_being_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _failed(error: BaseException, began_ns: int, clocked: Clocked, *, doubtful: bool, repeatable: bool) -> Done:
    return Done(
        at=clocked.now_ns(),
        began=began_ns,
        error=Raw(capture(error)),
        doubtful=doubtful,
        repeatable=repeatable,
        draw=clocked.draw(),
    )
