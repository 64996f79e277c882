"""What the code declares about a step and about a durable function, checked once and frozen."""

import inspect
from collections.abc import Callable
from typing import Any

import attrs

from durable_core.model.calls import StepCall
from durable_core.model.keys import check_name
from durable_core.model.outcome import DEFAULT_UNKNOWN
from durable_core.model.retry import Retry
from durable_core.model.shape import CallShape
from durable_core.model.version import Offer

ONCE = Retry()


@attrs.frozen(eq=False, kw_only=True)
class StepSpec:
    """A step as the engine runs it."""

    name: str
    kind: str
    """The layer above's word (``step``, ``lookup``, ``compensation``); stored with the intent."""
    fn: Callable[..., Any]
    shape: CallShape
    is_async: bool
    retry: Retry = ONCE
    timeout_ns: int | None = None
    at_most_once: bool = False
    """Never call it again where the first call may have happened."""
    rejects: tuple[type[Exception], ...] = ()
    unknown: tuple[type[Exception], ...] = DEFAULT_UNKNOWN
    effect: bool = True
    """Whether an unknown outcome matters; False for a pure read."""
    settles: bool = False
    """Whether the layer above can settle an unknown outcome."""
    surfaces_unknown: bool = False
    """Raise ``OutcomeUnknown`` around the attempt's exception where the outcome stays unknown."""

    def __attrs_post_init__(self) -> None:
        check_name(self.name, what=f"the {self.kind} {self.fn!r}")


def is_async(fn: Callable[..., Any]) -> bool:
    """Whether calling ``fn`` gives a coroutine, also for partials and callable objects."""
    target: Any = fn
    while hasattr(target, "func"):
        target = target.func
    return inspect.iscoroutinefunction(target) or inspect.iscoroutinefunction(getattr(target, "__call__", None))  # noqa: B004


@attrs.frozen(eq=False, kw_only=True)
class DurableFunction:
    """A body that the engine drives: ``await fn(context, *args, **kwargs)``."""

    name: str
    version: int
    fn: Callable[..., Any]
    shape: CallShape
    """Of the arguments after the context."""
    deadline_ns: int | None = None
    operations: str = "ctx"
    """What the body calls its context, for messages."""
    noun: str = "run"
    """What the layer calls a run, for messages."""
    fingerprint: str = ""
    """Tells one body from another under the same version; the layer above computes it. Empty: not known."""
    locate: Callable[[StepCall], tuple[StepSpec, tuple[Any, ...], dict[str, Any]] | None] | None = None
    """What an attempt that came as bytes calls, with which arguments; None where the code does not know the step."""

    def __attrs_post_init__(self) -> None:
        check_name(self.name, what=f"the durable function {self.fn!r}")

    @property
    def offer(self) -> Offer:
        """What a worker with this function says that it serves."""
        return Offer(self.name, self.version, self.fingerprint)
