"""The blocks of a body: savepoints, parallel branches, maps, child sagas.

Invariant: leaving a block because the saga is being closed does nothing; what is to be undone then is undone by the
driver, from the journal.
"""

from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from types import TracebackType
from typing import TYPE_CHECKING, Any, Concatenate, Generic, ParamSpec, Self, TypeVar, overload

from durable_core import Branch, Branches, Fault, SiblingFailed, is_async
from sagas.model.definition import Declared, Pivot, SagaDef, is_saga, is_step

if TYPE_CHECKING:
    from durable_core import Context
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
        self._scope = self._driver.ctx.scope(self._name)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._scope.leave()
        if isinstance(error, Exception | SiblingFailed):
            await self._driver.undo_block(self._scope.key, self._scope.prefix)


class Task(Generic[R]):
    """A branch of a parallel block."""

    __slots__ = ("_branch",)

    def __init__(self, branch: Branch[R]) -> None:
        self._branch = branch

    def result(self) -> R:
        """What the branch returned; to be read after the block."""
        return self._branch.result()


class Parallel:
    """Branches that run at the same time; see ``Saga.parallel``."""

    __slots__ = ("_branches", "_driver")

    def __init__(self, driver: "Driver") -> None:
        self._driver = driver

    async def __aenter__(self) -> Self:
        self._branches: Branches = self._driver.ctx.group()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._branches.__aexit__(kind, error, traceback)

    @overload
    def run(self, what: "Declared[P, R]", /, *args: P.args, **kwargs: P.kwargs) -> Task[R]: ...
    @overload
    def run(self, what: "SagaDef[P, R]", /, *args: P.args, **kwargs: P.kwargs) -> Task[R]: ...
    @overload
    def run(
        self, what: "Callable[Concatenate[Saga, P], Awaitable[R]]", /, *args: P.args, **kwargs: P.kwargs
    ) -> Task[R]: ...
    def run(self, what: Any, /, *args: Any, **kwargs: Any) -> Task[Any]:
        """Begin a step, a child saga, or a branch of several steps (``async def branch(s: Saga, ...)``).

        Its result is read after the block. Everything given to ``run`` before the body next awaits begins.
        """
        return Task(spawn(self._driver, self._branches, what, args, kwargs))


def spawn(
    driver: "Driver", branches: Branches, what: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Branch[Any]:
    """Begin a branch. Its key is taken now, in the order of the calls."""
    return branches.spawn(_coroutine(driver, what, args, kwargs), name=_branch_name(what))


def _branch_name(what: Any) -> str | None:
    """A branch of several steps has a scope of its own; a single step is named in the scope around it."""
    return None if isinstance(what, Declared | SagaDef) else str(getattr(what, "__name__", "branch")).strip("<>")


def _coroutine(driver: "Driver", what: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Coroutine[Any, Any, Any]:
    if is_step(what):
        if isinstance(what, Pivot):
            refuse_nested_pivot(driver.ctx, what)
        return driver.run_step(what, args, kwargs, driver.ctx.claim_key(what.name))
    if is_saga(what):
        return driver.run_child(what, args, kwargs)
    if is_async(what):
        body: Coroutine[Any, Any, Any] = what(driver.saga, *args, **kwargs)
        return body
    return driver.ctx.refuse(
        Fault(
            f"saga {driver.ctx.id}: p.run was given {what!r}; give it a step, a saga, or an "
            "`async def branch(s: Saga, ...)`, then retry the saga"
        )
    )


def refuse_nested_pivot(ctx: "Context", pivot: Declared[..., Any]) -> None:
    """The pivot runs alone: what runs beside it could neither be undone nor be sure to go forward."""
    ctx.refuse(
        Fault(
            f"saga {ctx.id}: {pivot.what} is in a parallel block, a map or a savepoint; the pivot runs alone. "
            "Move it out of the block, then retry the saga"
        )
    )


async def map_all(driver: "Driver", what: Any, items: Iterable[Any], max_concurrency: int | None) -> list[Any]:
    """Run ``what`` for each item; results in input order. After the first failure no new item begins."""
    given = list(items)
    results: list[Any] = [None] * len(given)
    step = what if is_step(what) else None
    if isinstance(step, Pivot):
        refuse_nested_pivot(driver.ctx, step)
    waiting = deque(enumerate(given))
    keys = [] if step is None else [driver.ctx.claim_key(step.name) for _ in given]

    async def lane() -> None:
        while waiting:
            place, item = waiting.popleft()
            if step is not None:
                results[place] = await driver.run_step(step, (item,), {}, keys[place])
            else:
                results[place] = await one(item)

    async def one(item: Any) -> Any:
        group = driver.ctx.group()
        branch = spawn(driver, group, what, (item,), {})
        await group.join()
        return branch.result()

    width = len(given) if max_concurrency is None else min(max_concurrency, len(given))
    async with driver.ctx.group() as lanes:
        for _ in range(width):
            lanes.spawn(lane())
    return results
