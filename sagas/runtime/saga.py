"""The object that a saga's body receives: its operations and blocks. Each asks the driver; none acts by itself.

Invariant: leaving a block because the saga is being closed does nothing. The driver then undoes the steps, from the
journal.
"""

from collections.abc import Awaitable, Callable, Coroutine, Iterable
from contextlib import AbstractAsyncContextManager
from functools import partial
from types import TracebackType
from typing import Any, Concatenate, NoReturn, ParamSpec, TypeVar, overload

from durable_core import Branch, Fault, SiblingFailed
from durable_core.layer import (
    BodyContext,
    DurableFunction,
    End,
    HostContext,
    Operation,
    ParallelBlock,
    all_of,
    branch_body,
    in_lanes,
    is_async,
    to_ns,
    watched,
)
from sagas.check.fingerprint import fingerprint
from sagas.model.definition import Declared, SagaDef, is_saga, is_step
from sagas.runtime.binding import Binder
from sagas.runtime.driver import Driver

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")


def function_of(definition: SagaDef[..., Any], binder: Binder) -> DurableFunction:
    """What an engine or host runs for a saga: its body, undone if it fails."""
    shape = binder.shape_of(definition)

    def run(ctx: HostContext, *args: Any, **kwargs: Any) -> Coroutine[Any, Any, End]:
        driver = Driver(ctx, definition, binder)
        saga = Saga(driver)
        return driver.execute(partial(definition.body, saga, *args, **kwargs), shape)

    return DurableFunction(
        name=definition.name,
        version=definition.version,
        fn=run,
        shape=shape,
        deadline_ns=None if definition.deadline is None else to_ns(definition.deadline),
        operations="s",
        noun="saga",
        fingerprint=fingerprint(definition, binder.scan(definition)),
        locate=partial(binder.locate, definition),
    )


class Saga(BodyContext):
    """The operations of one saga, given to its body. A body awaits these and nothing else.

    Examples:
        >>> from sagas import lookup, saga
        >>> @lookup
        ... def price_of(item: str) -> int:
        ...     return 42
        >>> @saga("quote", version=1)
        ... async def quote(s: "Saga", items: list[str]) -> int:
        ...     return sum(await s.map(price_of, items, max_concurrency=10))
    """

    __slots__ = ("_driver",)

    def __init__(self, driver: Driver) -> None:
        super().__init__(driver.ctx)
        self._driver = driver

    @watched
    def set_status(self, status: dict[str, Any]) -> None:
        """Publish details for people (``SagaInfo.status_detail``); durable with the next checkpoint.

        Args:
            status: plain JSON; it replaces the one before.
        """
        self._driver.set_status(status)

    @watched
    def tag(self, key: str, value: str) -> None:
        """Set a tag to search by (``SagaInfo.tags``); durable with the next checkpoint. Setting it again replaces it.

        A child's tags are its own, and are not searched by. A tag that cannot be one makes the saga stuck.

        Args:
            key: up to 64 characters.
            value: up to 256 characters. A saga has up to 16 tags.
        """
        self._driver.ctx.tag(key, value)

    @overload
    def run(self, what: "Declared[P, R]", /, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, R]: ...
    @overload
    def run(self, what: "SagaDef[P, R]", /, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, R]: ...
    def run(self, what: Any, /, *args: Any, **kwargs: Any) -> Coroutine[Any, Any, Any]:
        """Run a step, or another saga as a child.

        The step's result is durable before the next effect of this saga.

        Args:
            what: a function decorated with ``@step``, ``@pivot``, ``@retriable`` or ``@lookup``, or a saga.
            *args: its arguments; each must be a [value that can be stored](values.md).
            **kwargs: its arguments by name.

        Returns:
            Its result, after a round trip through JSON, so that a first run equals a replay.

        Raises:
            Exception: what the step raised, once its retries are used up; the same type, first time and on every
                replay. Not before an unknown outcome is settled.
            SagaCompensated: the child was rolled back.
            PayloadError: an argument cannot be stored; nothing was called.
        """
        driver = self._driver
        given: tuple[Any, ...] = (what, args, kwargs)
        if isinstance(what, Declared):  # no call of `is_step`: this runs for every step
            return Operation(driver.ctx, what.call, driver.run_step, given)
        if isinstance(what, SagaDef):
            return Operation(driver.ctx, f"s.run({what.name!r}, ...)", driver.run_child, (self, *given))
        return _refuse(driver, f"s.run was given {what!r}", GIVE_STEP)

    def savepoint(self, name: str) -> AbstractAsyncContextManager[None]:
        """A block that undoes its steps when an exception leaves it; the exception then continues.

        Catch it around the block to try something else: ``try: async with s.savepoint("courier"): ...``.

        Args:
            name: the scope of its steps' keys.
        """
        return Savepoint(self._driver, name)

    def parallel(self) -> "AbstractAsyncContextManager[Parallel]":
        """A block of branches that run at the same time and end together, like ``asyncio.TaskGroup``.

        After the first recorded failure nothing new begins in any branch, steps in flight end and are recorded, and
        that failure is raised. A pivot cannot be in such a block.

        Returns:
            The block: ``async with s.parallel() as p:``, then ``p.run(...)`` for each branch.
        """
        return Parallel(self._driver, self)

    def map(
        self, what: "Declared[Concatenate[T, ...], R]", items: Iterable[T], /, *, max_concurrency: int | None = None
    ) -> Coroutine[Any, Any, list[R]]:
        """Run a step, a saga or a branch for each item. After the first failure no new item begins.

        Args:
            what: what takes one item.
            items: the items; the same, in the same order, on every replay.
            max_concurrency: how many may run at once. Default: all.

        Returns:
            The results in the order of the items.

        Raises:
            Exception: the first recorded failure.
        """
        given = (self._driver, self, what, items, max_concurrency)
        return Operation(self._driver.ctx, "s.map(...)", _map, given)


def driver_of(saga: Saga) -> Driver:
    """What carries out the operations of ``saga``."""
    return saga._driver  # noqa: SLF001  # pyright: ignore[reportPrivateUsage] - one object for users


class Savepoint:
    """An exception that leaves the block first undoes the steps within it, last first."""

    __slots__ = ("_driver", "_name", "_scope")

    def __init__(self, driver: Driver, name: str) -> None:
        self._driver = driver
        self._name = name

    async def __aenter__(self) -> None:
        try:
            self._scope = self._driver.ctx.scope(self._name)
        except Exception as error:
            self._driver.ctx.refuse_own(error)
            raise

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._scope.leave()
        if isinstance(error, Exception | SiblingFailed):
            self._driver.ctx.refuse_own(error)
            await self._driver.undo_block(self._scope.key, self._scope.prefix, error)


class Parallel(ParallelBlock):
    """Branches that run at the same time; ``async with s.parallel() as p`` gives it."""

    __slots__ = ("_driver", "_saga")

    def __init__(self, driver: Driver, saga: Saga) -> None:
        super().__init__(driver.ctx)
        self._driver = driver
        self._saga = saga

    @overload
    def run(self, what: "Declared[P, R]", /, *args: P.args, **kwargs: P.kwargs) -> Branch[R]: ...
    @overload
    def run(self, what: "SagaDef[P, R]", /, *args: P.args, **kwargs: P.kwargs) -> Branch[R]: ...
    @overload
    def run(
        self, what: Callable[Concatenate[Saga, P], Awaitable[R]], /, *args: P.args, **kwargs: P.kwargs
    ) -> Branch[R]: ...
    def run(self, what: Any, /, *args: Any, **kwargs: Any) -> Branch[Any]:
        """Begin a step, a child saga, or a branch of several steps (``async def branch(s: Saga, ...)``).

        Its result is read after the block. Everything given to ``run`` before the body next awaits begins.

        Args:
            what: a step, a saga, or an ``async def`` whose first parameter is a ``Saga``.
            *args: its arguments.
            **kwargs: its arguments by name.

        Returns:
            The branch; after the block, ``branch.result()`` is its value.
        """
        try:
            return self._begin(_coroutine(self._driver, self._saga, what, args, kwargs), _branch_name(what))
        except Exception as error:
            self._driver.ctx.refuse_own(error)
            raise


GIVE_STEP = (
    "Give it a function decorated with @step, @pivot, @retriable or @lookup, or another @saga, then retry the saga"
)
GIVE_BRANCH = "Give it a step, a saga, or an `async def branch(s: Saga, ...)`, then retry the saga"


def _refuse(driver: Driver, text: str, advice: str) -> NoReturn:
    driver.ctx.refuse(Fault(f"saga {driver.ctx.id}: {text}", advice))


def _branch_name(what: Any) -> str | None:
    """A branch of several steps has a scope of its own; a single step is named in the scope around it."""
    return None if isinstance(what, Declared | SagaDef) else str(getattr(what, "__name__", "branch")).strip("<>")


def _coroutine(
    driver: Driver, saga: Saga, what: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Coroutine[Any, Any, Any]:
    """What runs as one branch."""
    if is_step(what):
        driver.refuse_nested_pivot(what)
        return driver.run_in_branch(what, args, kwargs, driver.ctx.claim_key(what.name))
    if is_saga(what):
        return driver.run_child(saga, what, args, kwargs)
    if is_async(what):
        return branch_body(driver.ctx, what, saga, *args, **kwargs)
    return _refuse(driver, f"p.run was given {what!r}", GIVE_BRANCH)


async def _map(driver: Driver, saga: Saga, what: Any, items: Iterable[Any], max_concurrency: int | None) -> list[Any]:
    """Run ``what`` for each item; results in the order of the items. After the first failure no new item begins."""
    ctx = driver.ctx
    given = all_of(ctx, items)
    if is_step(what):
        step = what
        driver.refuse_nested_pivot(step)
        keys = [ctx.claim_key(step.name) for _ in given]
        return await in_lanes(
            ctx,
            len(given),
            lambda place: driver.run_in_branch(step, (given[place],), {}, keys[place]),
            most=max_concurrency,
        )

    async def one(place: int) -> Any:
        group = ctx.group()
        branch = group.spawn(_coroutine(driver, saga, what, (given[place],), {}), name=_branch_name(what))
        await group.join()
        return branch.result()

    return await in_lanes(ctx, len(given), one, most=max_concurrency)
