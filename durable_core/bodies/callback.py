"""A callback, as a body holds it."""

from collections.abc import Coroutine
from typing import Any, Generic, TypeVar

from durable_core.bodies.operation import Operation
from durable_core.replay.callbacks import PendingCallback
from durable_core.replay.host_context import HostContext

T = TypeVar("T")


class Callback(Generic[T]):
    """Something that a person or a system outside answers, once."""

    __slots__ = ("_core", "pending")

    def __init__(self, core: HostContext, pending: PendingCallback[T]) -> None:
        self._core = core
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
        return Operation(self._core, "callback.result()", self._answer, ())

    async def _answer(self) -> T:
        return await self._core.wait_for(self.pending)
