"""What a saga's body is given: its operations. Each forwards to the driver; none touches the world by itself."""

from collections.abc import Awaitable
from datetime import datetime
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, overload
from uuid import UUID

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
    def run(self, what: "Declared[P, R]", /, *args: P.args, **kwargs: P.kwargs) -> Awaitable[R]: ...
    @overload
    def run(self, what: "SagaDef[P, R]", /, *args: P.args, **kwargs: P.kwargs) -> Awaitable[R]: ...
    def run(self, what: Any, /, *args: Any, **kwargs: Any) -> Awaitable[Any]:
        """Run a step, or another saga as a child; returns its result.

        Raises whatever the step raised once its retries are used up, first time and on every replay.
        """
        return self._driver.run(what, args, kwargs)

    def sleep(self, span: "Span") -> Awaitable[None]:
        """Wait for ``span`` (a timedelta, or seconds); durable."""
        return self._driver.sleep(span)

    def sleep_until(self, when: datetime) -> Awaitable[None]:
        """Wait until ``when`` (aware); durable."""
        return self._driver.sleep_until(when)
