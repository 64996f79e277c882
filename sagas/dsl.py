"""The decorators: how a developer declares steps and sagas."""

from collections.abc import Awaitable, Callable, Coroutine
from typing import TYPE_CHECKING, Any, Concatenate, Literal, ParamSpec, Protocol, TypeVar, cast, overload

from durable_core import DefinitionError, Retry
from durable_core.layer import DEFAULT_UNKNOWN, Duration, says_what_to_write
from sagas.model.definition import FOREVER, Lookup, OnFailure, Pivot, Retriable, SagaDef, Step

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
    on_failure: OnFailure | None = ...,
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
    on_failure: OnFailure | None = None,
    compensation: Any = NEEDED,
    because: str = "",
) -> Any:
    """Declare a step that can be undone: ``@step``, or ``@step(...)`` with options.

    Its intent is durable before the function is called, and its result before the next effect of the saga. After a
    crash in between, the function is called again under the same idempotency key.

    Args:
        fn: the function, ``async def`` or ``def`` (which runs on a thread).
        name: its name in keys, journal and spans. Default: the function's.
        retry: how often and when to try again; a number means attempts. Default: one attempt.
        timeout: for one attempt, a timedelta or seconds; from the moment at which the function itself begins.
        rejects: exceptions by which the participant refuses: nothing happened, and there is no retry.
        unknown: exceptions after which the effect may or may not have happened. Default: ``TimeoutError`` and
            ``ConnectionError``.
        at_most_once: never call it again if an earlier call may have happened.
        on_failure: ``stuck`` keeps a failure from the body, once its attempts are used up: an operator retries,
            resolves or rolls back. ``rollback``: the body sees it. Default: as its saga says.
        compensation: None if there is nothing to undo; else declare it with ``@name.compensate``.
        because: why there is nothing to undo; required with ``compensation=None``.

    Raises:
        DefinitionError: an option cannot be used; the message names the function's file and line.

    Examples:
        >>> class OutOfStock(Exception): ...
        >>> @step(retry=5, timeout=10, rejects=(OutOfStock,))
        ... async def reserve(item: str) -> str:
        ...     return f"{item} from shelf 7"
        >>> @reserve.compensate
        ... async def put_back(reserved: str) -> None: ...
    """

    def declare(fn: Any) -> Any:
        declared: Step[..., Any] = Step(
            fn,
            name=name,
            retry=retry,
            timeout=timeout,
            rejects=rejects,
            unknown=unknown,
            at_most_once=at_most_once,
            on_failure=on_failure,
        )
        _compensate_by(declared, compensation, because)
        return declared

    return declare if fn is None else declare(fn)


def _compensate_by(declared: Step[..., Any], compensation: Any, because: str) -> None:
    """Take up what ``@step`` says of the compensation: nothing, or that there is nothing to undo, and why."""
    if compensation is NEEDED:
        if because:
            raise DefinitionError(f"{declared.what}: because= is for compensation=None", "Give both, or neither")
        return
    if compensation is not None:
        raise DefinitionError(
            f"{declared.what}: compensation= takes only None",
            f"Declare the compensation with `@{declared.fn.__name__}.compensate`",
        )
    if not because.strip():
        raise DefinitionError(
            f"{declared.what}: compensation=None needs because='...'", "Say why there is nothing to undo"
        )
    declared.compensated_by_nothing = True
    declared.because = because


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
    on_failure: OnFailure | None = ...,
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
    on_failure: OnFailure | None = None,
) -> Any:
    """Declare the point of no return: once it has succeeded, nothing is undone any more.

    At most one lies on each path through a saga, it runs alone, and it has no compensation. If it fails or is rejected,
    everything before it is undone. Its success is durable before anything after it begins.

    Args:
        fn: the function, ``async def`` or ``def`` (which runs on a thread).
        name: its name in keys, journal and spans. Default: the function's.
        retry: how often and when to try again; a number means attempts. Default: one attempt.
        timeout: for one attempt, a timedelta or seconds.
        rejects: exceptions by which the participant refuses: nothing happened, and there is no retry.
        unknown: exceptions after which the effect may or may not have happened. Default: ``TimeoutError`` and
            ``ConnectionError``.
        at_most_once: never call it again if an earlier call may have happened.
        on_failure: ``stuck`` keeps a failure from the body, once its attempts are used up: an operator retries,
            resolves or rolls back. ``rollback``: the body sees it. Default: as its saga says.

    Raises:
        DefinitionError: an option cannot be used; the message names the function's file and line.

    Examples:
        >>> class CardDeclined(Exception): ...
        >>> @pivot(rejects=(CardDeclined,), timeout=30)
        ... async def charge(amount: int) -> str:
        ...     return "receipt 4711"
    """

    def declare(fn: Any) -> Any:
        declared: Pivot[..., Any] = Pivot(
            fn,
            name=name,
            retry=retry,
            timeout=timeout,
            rejects=rejects,
            unknown=unknown,
            at_most_once=at_most_once,
            on_failure=on_failure,
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
    """Declare a step after the pivot: it is called until it succeeds, and has no compensation.

    Args:
        fn: the function, ``async def`` or ``def`` (which runs on a thread).
        name: its name in keys, journal and spans. Default: the function's.
        retry: how often and when to try again; a number means attempts. Default: for ever, after 1 s, 2 s, 4 s and so
            on, at most 5 minutes. If it is given up, the saga is stuck.
        timeout: for one attempt, a timedelta or seconds.
        rejects: not for a retriable; here so that the message can say so.
        unknown: exceptions after which the effect may or may not have happened; it is called again in any case.
        at_most_once: not for a retriable.

    Raises:
        DefinitionError: an option cannot be used; the message names the function's file and line.

    Examples:
        >>> @retriable(timeout=10)
        ... async def send_receipt(address: str) -> None: ...
    """

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
    on_failure: OnFailure | None = ...,
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
    on_failure: OnFailure | None = None,
) -> Any:
    """Declare a read or a decision: it has no effect outside, so there is nothing to undo. It is allowed anywhere.

    Its result is stored, so a body that branches on it takes the same branch on every replay.

    Args:
        fn: the function, ``async def`` or ``def`` (which runs on a thread).
        name: its name in keys, journal and spans. Default: the function's.
        retry: how often and when to try again; a number means attempts. Default: one attempt.
        timeout: for one attempt, a timedelta or seconds.
        rejects: exceptions that are an answer: there is no retry.
        unknown: exceptions that count as failed here, because there is no effect to be unsure about.
        at_most_once: never call it again after a crash.
        on_failure: ``stuck`` keeps a failure from the body, once its attempts are used up: an operator retries,
            resolves or rolls back. ``rollback``: the body sees it. Default: as its saga says.

    Raises:
        DefinitionError: an option cannot be used; the message names the function's file and line.

    Examples:
        >>> @lookup(retry=3)
        ... async def price_of(item: str) -> int:
        ...     return 42
    """

    def declare(fn: Any) -> Any:
        declared: Lookup[..., Any] = Lookup(
            fn,
            name=name,
            retry=retry,
            timeout=timeout,
            rejects=rejects,
            unknown=unknown,
            at_most_once=at_most_once,
            on_failure=on_failure,
        )
        return declared

    return declare if fn is None else declare(fn)


@says_what_to_write('Write `@saga("place-order", version=1)` above its body', "version")
def saga(
    name: str,
    *,
    version: int,
    deadline: Duration | None = None,
    parallel_compensation: bool = False,
    on_compensation_failure: Literal["continue", "halt"] = "continue",
    on_failure: OnFailure = "rollback",
) -> "Callable[[Callable[Concatenate[Saga, P], Awaitable[R]]], SagaDef[P, R]]":
    """Declare a saga: an ``async def`` whose first parameter is the ``Saga``.

    Args:
        name: its name when it is started, listed and traced.
        version: from 1. A running saga keeps the version that it began with.
        deadline: how long a run may take before it is rolled back, a timedelta or seconds. If the saga runs as a child,
            only the child is rolled back, and its parent sees ``SagaCompensated`` with ``cause="deadline"``.
        parallel_compensation: undo in parallel what ran in parallel.
        on_compensation_failure: if a compensation is given up, ``continue`` with the others, or ``halt``. Either way
            the saga is then stuck.
        on_failure: ``stuck`` keeps the failure of a step, pivot or lookup from the body, if that does not say otherwise
            itself. A child follows its own declaration.

    Raises:
        DefinitionError: an option cannot be used, or the body is no ``async def``; the message names its file and line.
            Faults of the body itself are found when it is registered with an orchestrator.

    Examples:
        >>> @lookup
        ... def price_of(item: str) -> int:
        ...     return 42
        >>> @saga("quote", version=1, deadline=60)
        ... async def quote(s: "Saga", item: str) -> int:
        ...     return await s.run(price_of, item)
    """

    def declare(body: "Callable[Concatenate[Saga, P], Awaitable[R]]") -> SagaDef[P, R]:
        return SagaDef(
            name=name,
            version=version,
            body=cast("Callable[..., Coroutine[Any, Any, R]]", body),  # SagaDef refuses what is no `async def`
            deadline=deadline,
            parallel_compensation=parallel_compensation,
            on_compensation_failure=on_compensation_failure,
            on_failure=on_failure,
        )

    return declare
