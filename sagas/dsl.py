"""The decorators: how a developer declares steps and sagas."""

from collections.abc import Awaitable, Callable, Coroutine
from typing import TYPE_CHECKING, Any, Concatenate, Literal, ParamSpec, Protocol, TypeVar, cast, overload

from durable_core import DefinitionError, Retry
from durable_core.layer import DEFAULT_UNKNOWN, Duration
from sagas.model.definition import FOREVER, Lookup, Pivot, Retriable, SagaDef, Step

if TYPE_CHECKING:
    from sagas.runtime.saga import Saga

P = ParamSpec("P")
R = TypeVar("R")
Types = tuple[type[Exception], ...]


class StepMaker(Protocol):
    """``@step(...)``."""

    @overload
    def __call__(self, fn: Callable[P, Awaitable[R]], /) -> Step[P, R]: ...
    @overload
    def __call__(self, fn: Callable[P, R], /) -> Step[P, R]: ...


class PivotMaker(Protocol):
    """``@pivot(...)``."""

    @overload
    def __call__(self, fn: Callable[P, Awaitable[R]], /) -> Pivot[P, R]: ...
    @overload
    def __call__(self, fn: Callable[P, R], /) -> Pivot[P, R]: ...


class RetriableMaker(Protocol):
    """``@retriable(...)``."""

    @overload
    def __call__(self, fn: Callable[P, Awaitable[R]], /) -> Retriable[P, R]: ...
    @overload
    def __call__(self, fn: Callable[P, R], /) -> Retriable[P, R]: ...


class LookupMaker(Protocol):
    """``@lookup(...)``."""

    @overload
    def __call__(self, fn: Callable[P, Awaitable[R]], /) -> Lookup[P, R]: ...
    @overload
    def __call__(self, fn: Callable[P, R], /) -> Lookup[P, R]: ...


NEEDED: Any = object()
"""Stands for "no compensation= was given": the step must declare one with ``@step.compensate``."""


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
    compensation: None = ...,
    because: str = ...,
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
    compensation: Any = NEEDED,
    because: str = "",
) -> Any:
    """Declare a compensatable step. Bare, or with options.

    Args:
        fn: the function, async or plain (a plain one runs on a thread).
        name: its name in keys, journal and spans; default the function's.
        retry: how often and when to try again; a number means attempts. Default: one attempt.
        timeout: for one attempt, a timedelta or seconds.
        rejects: exceptions by which the participant refuses: nothing happened, no retry.
        unknown: exceptions after which the effect may or may not have happened.
        at_most_once: never call it again if the first call may have happened.
        compensation: None if there is nothing to undo; else declare it with ``@name.compensate``.
        because: why there is nothing to undo.

    Raises:
        DefinitionError: an option cannot be used; the message names the function's file and line.
    """

    def declare(fn: Any) -> Any:
        declared: Step[..., Any] = Step(
            fn, name=name, retry=retry, timeout=timeout, rejects=rejects, unknown=unknown, at_most_once=at_most_once
        )
        if compensation is not NEEDED:
            if compensation is not None:
                raise DefinitionError(
                    f"{declared.what}: compensation= takes only None",
                    f"Declare the compensation with `@{fn.__name__}.compensate`",
                )
            if not because.strip():
                raise DefinitionError(
                    f"{declared.what}: compensation=None needs because='...'",
                    "Say why there is nothing to undo",
                )
            declared.compensated_by_nothing = True
            declared.because = because
        elif because:
            raise DefinitionError(f"{declared.what}: because= is for compensation=None", "Give both, or neither")
        return declared

    return declare if fn is None else declare(fn)


@overload
def pivot(fn: Callable[P, Awaitable[R]], /) -> Pivot[P, R]: ...
@overload
def pivot(fn: Callable[P, R], /) -> Pivot[P, R]: ...
@overload
def pivot(
    *,
    name: str | None = ...,
    retry: Retry | int | None = ...,
    timeout: Duration | None = ...,
    rejects: Types = ...,
    unknown: Types = ...,
    at_most_once: bool = ...,
) -> PivotMaker: ...
def pivot(
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
    """Declare the point of no return: at most one on each path through a saga; it has no compensation. See ``step``."""

    def declare(fn: Any) -> Any:
        declared: Pivot[..., Any] = Pivot(
            fn, name=name, retry=retry, timeout=timeout, rejects=rejects, unknown=unknown, at_most_once=at_most_once
        )
        return declared

    return declare if fn is None else declare(fn)


@overload
def retriable(fn: Callable[P, Awaitable[R]], /) -> Retriable[P, R]: ...
@overload
def retriable(fn: Callable[P, R], /) -> Retriable[P, R]: ...
@overload
def retriable(
    *, name: str | None = ..., retry: Retry | int | None = ..., timeout: Duration | None = ..., unknown: Types = ...
) -> RetriableMaker: ...
def retriable(
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
    """Declare a step after the pivot: retried until it succeeds, unless ``retry`` says otherwise. See ``step``."""

    def declare(fn: Any) -> Any:
        declared: Retriable[..., Any] = Retriable(
            fn, name=name, retry=retry, default_retry=FOREVER, timeout=timeout, unknown=unknown
        )
        if rejects or at_most_once:
            raise DefinitionError(
                f"{declared.what}: a retriable is called until it succeeds, so it takes neither rejects= nor "
                "at_most_once=",
                "Declare a step that may be refused before the pivot",
            )
        return declared

    return declare if fn is None else declare(fn)


@overload
def lookup(fn: Callable[P, Awaitable[R]], /) -> Lookup[P, R]: ...
@overload
def lookup(fn: Callable[P, R], /) -> Lookup[P, R]: ...
@overload
def lookup(
    *,
    name: str | None = ...,
    retry: Retry | int | None = ...,
    timeout: Duration | None = ...,
    rejects: Types = ...,
    unknown: Types = ...,
    at_most_once: bool = ...,
) -> LookupMaker: ...
def lookup(
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
    """Declare a read or a decision: no effect outside, so nothing to undo; allowed anywhere. See ``step``."""

    def declare(fn: Any) -> Any:
        declared: Lookup[..., Any] = Lookup(
            fn, name=name, retry=retry, timeout=timeout, rejects=rejects, unknown=unknown, at_most_once=at_most_once
        )
        return declared

    return declare if fn is None else declare(fn)


def saga(
    name: str,
    *,
    version: int,
    deadline: Duration | None = None,
    parallel_compensation: bool = False,
    on_compensation_failure: Literal["continue", "halt"] = "continue",
) -> "Callable[[Callable[Concatenate[Saga, P], Awaitable[R]]], SagaDef[P, R]]":
    """Declare a saga: an ``async def`` whose first parameter is the ``Saga``.

    Args:
        name: its name when it is started, listed and traced.
        version: from 1. A running saga keeps the version that it began with.
        deadline: how long a run may take before it is rolled back, a timedelta or seconds. If the saga runs as a child,
            only the child is rolled back, and its parent sees ``SagaCompensated`` with ``cause="deadline"``.
        parallel_compensation: undo in parallel what ran in parallel.
        on_compensation_failure: if a compensation is given up, ``continue`` with the others, or ``halt``.
    """

    def declare(body: "Callable[Concatenate[Saga, P], Awaitable[R]]") -> SagaDef[P, R]:
        return SagaDef(
            name=name,
            version=version,
            body=cast("Callable[..., Coroutine[Any, Any, R]]", body),  # SagaDef refuses what is no `async def`
            deadline=deadline,
            parallel_compensation=parallel_compensation,
            on_compensation_failure=on_compensation_failure,
        )

    return declare
