"""The blocks of a body: savepoints, parallel branches, maps, child sagas.

Invariant: leaving a block because the saga is being closed does nothing; what is to be undone then is undone by the
driver, from the journal.
"""

from collections.abc import Awaitable, Callable, Coroutine, Iterable
from types import TracebackType
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar, overload

from durable_core import Branch, Fault, SiblingFailed
from durable_core.layer import ParallelBlock, all_of, branch_body, in_lanes, is_async
from sagas.model.definition import Declared, Pivot, SagaDef, is_saga, is_step

if TYPE_CHECKING:
    from durable_core.layer import HostContext
    from sagas.runtime.driver import Driver
    from sagas.runtime.saga import Saga

P = ParamSpec("P")
R = TypeVar("R")


class Savepoint:
    """An exception that leaves the block first undoes the steps within it, last first."""

    __slots__ = ("_driver", "_name", "_scope")

    def __init__(self, driver: "Driver", name: str) -> None:
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
    """Branches that run at the same time; see ``Saga.parallel``."""

    __slots__ = ("_driver",)

    def __init__(self, driver: "Driver") -> None:
        super().__init__(driver.ctx)
        self._driver = driver

    @overload
    def run(self, what: "Declared[P, R]", /, *args: P.args, **kwargs: P.kwargs) -> Branch[R]: ...
    @overload
    def run(self, what: "SagaDef[P, R]", /, *args: P.args, **kwargs: P.kwargs) -> Branch[R]: ...
    @overload
    def run(
        self, what: "Callable[Concatenate[Saga, P], Awaitable[R]]", /, *args: P.args, **kwargs: P.kwargs
    ) -> Branch[R]: ...
    def run(self, what: Any, /, *args: Any, **kwargs: Any) -> Branch[Any]:
        """Begin a step, a child saga, or a branch of several steps (``async def branch(s: Saga, ...)``).

        Its result is read after the block. Everything given to ``run`` before the body next awaits begins.
        """
        try:
            return self._begin(_coroutine(self._driver, what, args, kwargs), _branch_name(what))
        except Exception as error:
            self._driver.ctx.refuse_own(error)
            raise


def _branch_name(what: Any) -> str | None:
    """A branch of several steps has a scope of its own; a single step is named in the scope around it."""
    return None if isinstance(what, Declared | SagaDef) else str(getattr(what, "__name__", "branch")).strip("<>")


def _coroutine(driver: "Driver", what: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Coroutine[Any, Any, Any]:
    if is_step(what):
        if isinstance(what, Pivot):
            refuse_nested_pivot(driver.ctx, what)
        return driver.run_in_branch(what, args, kwargs, driver.ctx.claim_key(what.name))
    if is_saga(what):
        return driver.run_child(what, args, kwargs)
    if is_async(what):
        return branch_body(driver.ctx, what, driver.saga, *args, **kwargs)
    return driver.ctx.refuse(
        Fault(
            f"saga {driver.ctx.id}: p.run was given {what!r}; give it a step, a saga, or an "
            "`async def branch(s: Saga, ...)`, then retry the saga"
        )
    )


def refuse_nested_pivot(ctx: "HostContext", pivot: Declared[..., Any]) -> None:
    """The pivot runs alone: what runs beside it could neither be undone nor be sure to go forward."""
    ctx.refuse(
        Fault(
            f"saga {ctx.id}: {pivot.what} is in a parallel block, a map or a savepoint; the pivot runs alone. "
            "Move it out of the block, then retry the saga"
        )
    )


async def map_all(driver: "Driver", what: Any, items: Iterable[Any], max_concurrency: int | None) -> list[Any]:
    """Run ``what`` for each item; results in input order. After the first failure no new item begins."""
    ctx = driver.ctx
    given = all_of(ctx, items)
    if is_step(what):
        step = what
        if isinstance(step, Pivot):
            refuse_nested_pivot(ctx, step)
        keys = [ctx.claim_key(step.name) for _ in given]
        return await in_lanes(
            ctx,
            len(given),
            lambda place: driver.run_in_branch(step, (given[place],), {}, keys[place]),
            most=max_concurrency,
        )

    async def one(place: int) -> Any:
        group = ctx.group()
        branch = group.spawn(_coroutine(driver, what, (given[place],), {}), name=_branch_name(what))
        await group.join()
        return branch.result()

    return await in_lanes(ctx, len(given), one, most=max_concurrency)
