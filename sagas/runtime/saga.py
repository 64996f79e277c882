"""What a saga's body is given: its operations. Each forwards to the driver; none touches the world by itself."""

from collections.abc import Coroutine, Iterable
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar, overload

from durable_core.layer import BodyContext, Operation, watched
from sagas.model.definition import Declared, SagaDef
from sagas.runtime.blocks import Parallel, Savepoint

if TYPE_CHECKING:
    from sagas.runtime.driver import Driver

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")


class Saga(BodyContext):
    """The operations of one saga. A body awaits these and nothing else."""

    __slots__ = ("_driver",)

    def __init__(self, driver: "Driver") -> None:
        super().__init__(driver.ctx)
        self._driver = driver

    @watched
    def set_status(self, status: dict[str, Any]) -> None:
        """Publish details for people (``SagaInfo.status_detail``); durable with the next checkpoint."""
        self._driver.set_status(status)

    @overload
    def run(self, what: "Declared[P, R]", /, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, R]: ...
    @overload
    def run(self, what: "SagaDef[P, R]", /, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, R]: ...
    def run(self, what: Any, /, *args: Any, **kwargs: Any) -> Coroutine[Any, Any, Any]:
        """Run a step, or another saga as a child; returns its result.

        Raises whatever the step raised once its retries are used up, first time and on every replay.
        """
        driver = self._driver
        given: tuple[Any, ...] = (what, args, kwargs)
        if isinstance(what, Declared):  # no call: this is said for every step
            return Operation(driver.ctx, what.call, driver.run_step, given)
        if isinstance(what, SagaDef):
            return Operation(driver.ctx, f"s.run({what.name!r}, ...)", driver.run_child, given)
        return driver.refuse_to_run(what)

    def savepoint(self, name: str) -> AbstractAsyncContextManager[None]:
        """A block of which an exception that leaves it first undoes what was done in it; then it goes on its way."""
        return Savepoint(self._driver, name)

    def parallel(self) -> AbstractAsyncContextManager[Parallel]:
        """A block of branches that run at the same time and end together, like ``asyncio.TaskGroup``.

        After the first recorded failure nothing new begins in any branch, what is in flight ends and is recorded, and
        that failure is raised.
        """
        return Parallel(self._driver)

    def map(
        self, what: "Declared[Concatenate[T, ...], R]", items: Iterable[T], /, *, max_concurrency: int | None = None
    ) -> Coroutine[Any, Any, list[R]]:
        """Run a step for each item, at most ``max_concurrency`` at a time; results in the order of the items."""
        return self._driver.map(what, items, max_concurrency)
