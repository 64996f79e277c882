"""What a saga's body is given: its operations. Each forwards to the driver; none touches the world by itself."""

from collections.abc import Coroutine, Iterable
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar, overload
from uuid import UUID

from sagas.runtime.blocks import Parallel, Savepoint
from sagas.runtime.callback import Callback

if TYPE_CHECKING:
    import logging

    from sagas.model.definition import Declared, SagaDef, Span
    from sagas.runtime.driver import Driver

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")


class Saga:
    """The operations of one saga. A body awaits these and nothing else."""

    __slots__ = ("_driver",)

    def __init__(self, driver: "Driver") -> None:
        self._driver = driver

    @property
    def id(self) -> str:
        """The saga's id."""
        return self._driver.ctx.id

    @property
    def version(self) -> int:
        """The version that this saga is pinned to."""
        return self._driver.ctx.version

    @property
    def log(self) -> "logging.LoggerAdapter[logging.Logger]":
        """A logger that is silent while replaying."""
        return self._driver.ctx.log

    def now(self) -> datetime:
        """The time of the last checkpoint (aware, UTC), the same on every replay."""
        return self._driver.ctx.now()

    def uuid(self) -> UUID:
        """A random UUID, the same on every replay."""
        return self._driver.ctx.uuid()

    def random(self) -> float:
        """A number in [0, 1), the same on every replay."""
        return self._driver.ctx.random()

    def patched(self, name: str) -> bool:
        """True for sagas that begin, or first come here, with the changed code."""
        return self._driver.ctx.patched(name)

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
        return self._driver.run(what, args, kwargs)

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

    def callback(
        self, name: str, type: type[T], *, timeout: "Span | None" = None, heartbeat: "Span | None" = None
    ) -> "Coroutine[Any, Any, Callback[T]]":
        """Create a callback that somebody outside will answer with a value of ``type``.

        Its ``token`` may be given to a step that hands it out.

        Args:
            name: what it is called, also by who answers it by name; a second use of a name is ``approval#2``.
            type: what answers must be; others are refused to their sender.
            timeout: how long to wait, a timedelta or seconds, from here; nothing extends it.
            heartbeat: also give up where neither an answer nor a heartbeat comes within this span, from here and from
                each heartbeat.

        Raises:
            DefinitionError: a name or duration that makes no sense; nothing was journalled.
            PayloadError: answers of ``type`` could not be read; nothing was journalled.
        """
        return self._driver.callback(name, type, timeout, heartbeat)

    def first(self, *callbacks: "Callback[Any]") -> "Coroutine[Any, Any, Callback[Any]]":
        """Wait until one of ``callbacks`` is answered, or times out; returns that one."""
        return self._driver.first(callbacks)

    def sleep(self, span: "Span") -> Coroutine[Any, Any, None]:
        """Wait for ``span`` (a timedelta, or seconds); durable."""
        return self._driver.sleep(span)

    def sleep_until(self, when: datetime) -> Coroutine[Any, Any, None]:
        """Wait until ``when`` (aware); durable."""
        return self._driver.sleep_until(when)
