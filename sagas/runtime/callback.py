"""A callback, as a saga's body holds it."""

from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from durable_core import PendingCallback

if TYPE_CHECKING:
    from sagas.runtime.driver import Driver

T = TypeVar("T")


class Callback(Generic[T]):
    """Something that a person or a system outside answers, once."""

    __slots__ = ("_driver", "pending")

    def __init__(self, driver: "Driver", pending: PendingCallback[T]) -> None:
        self._driver = driver
        self.pending = pending

    @property
    def token(self) -> str:
        """What proves the right to answer: 256 bits. Hand it out by a step; it is in no span and no log."""
        return self.pending.token

    def result(self) -> Coroutine[Any, Any, T]:
        """Wait for the answer.

        Raises:
            CallbackTimeout: nobody answered in time.
            CallbackFailed: somebody answered with a failure.
        """
        return self._driver.answer_to(self.pending)
