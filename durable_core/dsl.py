"""The decorators: how a developer declares durable functions, and steps that need more than a name."""

from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar, cast, overload

from durable_core.context import Context
from durable_core.model.declared import Step, says_what_to_write
from durable_core.model.durable import Durable
from durable_core.model.duration import Duration
from durable_core.model.outcome import DEFAULT_UNKNOWN
from durable_core.model.retry import Retry

P = ParamSpec("P")
R = TypeVar("R")
Types = tuple[type[Exception], ...]


class StepMaker(Protocol):
    """``@step(...)``."""

    @overload
    def __call__(self, fn: Callable[P, Awaitable[R]], /) -> Step[P, R]: ...
    @overload
    def __call__(self, fn: Callable[P, R], /) -> Step[P, R]: ...


@overload
def step(fn: Callable[P, Awaitable[R]], /) -> Step[P, R]: ...
@overload
def step(fn: Callable[P, R], /) -> Step[P, R]: ...
@overload
def step(
    *,
    name: str | None = ...,
    retry: Retry | int | None = ...,
    timeout: Duration | None = ...,
    rejects: Types = ...,
    unknown: Types = ...,
    at_most_once: bool = ...,
) -> StepMaker: ...
def step(
    fn: Any = None,
    /,
    *,
    name: str | None = None,
    retry: Retry | int | None = None,
    timeout: Duration | None = None,
    rejects: Types = (),
    unknown: Types = DEFAULT_UNKNOWN,
    at_most_once: bool = False,
) -> Any:
    """Declare how a function is attempted when it is run by ``ctx.step``. Outside of a run, calling it just calls it.

    A plain function needs no decoration: it is then attempted once.

    Args:
        fn: the function, async or plain (a plain one runs on a thread).
        name: its name in keys and journal; default the function's.
        retry: how often and when to try again; a number means attempts. Default: one attempt.
        timeout: for one attempt, a timedelta or seconds.
        rejects: exceptions that are a proper answer; they are not retried.
        unknown: exceptions that leave open whether the effect happened. The journal records it, and an
            ``at_most_once`` step is not called again after one.
        at_most_once: never call it again if the first call may have happened. After a crash in it the body sees
            ``StepInterrupted``.

    Raises:
        DefinitionError: an option is invalid; the message names the function's file and line.
    """

    def declare(fn: Any) -> Any:
        declared: Step[..., Any] = Step(
            fn, name=name, retry=retry, timeout=timeout, rejects=rejects, unknown=unknown, at_most_once=at_most_once
        )
        return declared

    return declare if fn is None else declare(fn)


@says_what_to_write('Write `@durable("quote", version=1)` above its body')
def durable(
    name: str, *, version: int = 1
) -> Callable[[Callable[Concatenate[Context, P], Awaitable[R]]], Durable[P, R]]:
    """Declare a durable function: an ``async def`` whose first parameter is the ``Context``.

    Args:
        name: the name by which it is started and listed.
        version: from 1. A run keeps the version that it started with.

    Raises:
        DefinitionError: the name or version is invalid, or the body is not such an ``async def``.
    """

    def declare(body: Callable[Concatenate[Context, P], Awaitable[R]]) -> Durable[P, R]:
        return Durable(
            name=name,
            version=version,
            body=cast("Callable[..., Coroutine[Any, Any, R]]", body),  # Durable refuses anything else
        )

    return declare
