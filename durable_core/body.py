"""What a body is given in every layer: operations to await, callbacks, time and chance.

Invariant: an operation that is dropped without having been awaited is a fault, found at the moment it is dropped; else
a forgotten ``await`` would silently leave a step out.
"""

import functools
from collections.abc import Awaitable, Callable, Coroutine, Generator, Sequence
from datetime import datetime
from types import GeneratorType
from typing import TYPE_CHECKING, Any, Concatenate, Generic, NoReturn, ParamSpec, Protocol, TypeVar, cast
from uuid import UUID

from durable_core.errors import DefinitionError, Fault
from durable_core.model.duration import Duration, shown
from durable_core.replay.callbacks import PendingCallback
from durable_core.replay.host_context import HostContext

if TYPE_CHECKING:
    import logging

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")
R_co = TypeVar("R_co", covariant=True)


class _HasCore(Protocol):
    _core: HostContext


Self = TypeVar("Self", bound=_HasCore)


def watched(method: "Callable[Concatenate[Self, P], R]") -> "Callable[Concatenate[Self, P], R]":
    """Make the own errors of a plain call faults: the body must not take them for a failure of its step."""

    @functools.wraps(method)
    def called(self: Self, /, *args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return method(self, *args, **kwargs)
        except Exception as error:
            self._core.refuse_own(error)  # pyright: ignore[reportPrivateUsage]
            raise

    return called


class Operation(Coroutine[Any, Any, R_co]):
    """Awaitable once; does nothing before it is awaited.

    Raises:
        DefinitionError: made outside of a body, perhaps in a step.
    """

    __slots__ = ("_args", "_begin", "_core", "_fiber", "_what")

    def __init__(
        self,
        core: HostContext,
        what: str,
        begin: Callable[..., Awaitable[R_co] | Generator[Any, Any, R_co]],
        args: tuple[Any, ...],
    ) -> None:
        self._fiber = core.caller()
        self._core = core
        self._what = what
        self._begin: Callable[..., Awaitable[R_co] | Generator[Any, Any, R_co]] | None = begin
        self._args = args

    def __await__(self) -> Generator[Any, Any, R_co]:
        """Begin the operation."""
        begin, self._begin = self._begin, None
        if begin is None:
            raise RuntimeError(f"{self._what} was awaited twice; call it again for another occurrence")
        try:
            begun = begin(*self._args)
        except Exception as error:
            self._core.refuse_own(error)
            raise
        # A generator is an object less than a coroutine with its iterator: worth it where it is made for every step.
        if isinstance(begun, GeneratorType):
            return begun  # which refuses errors of our own by itself
        return self._watched(cast("Awaitable[R_co]", begun))

    def _watched(self, begun: Awaitable[R_co]) -> Generator[Any, Any, R_co]:
        """An error of the engine's own must not reach the body, which would take it for a failure of its step."""
        try:
            return (yield from begun.__await__())
        except Exception as error:
            self._core.refuse_own(error)
            raise

    def send(self, value: object, /) -> NoReturn:  # noqa: ARG002
        """A coroutine for type checkers only, so that they report a forgotten ``await``. It is never driven by hand."""
        raise TypeError(f"{self._what} is awaited, not driven by hand")

    def throw(self, *error: object) -> NoReturn:  # noqa: ARG002
        """As ``send``."""
        raise TypeError(f"{self._what} is awaited, not driven by hand")

    def close(self) -> None:
        """Give it up on purpose, without awaiting it."""
        self._begin = None

    def __del__(self) -> None:
        if getattr(self, "_begin", None) is None or self._fiber.done or self._fiber.interrupt is not None:
            return  # awaited, or left because its body has failed or is being closed
        self._core.blame(
            Fault(
                f"{self._core.title}: {self._what} was called without await, so it would be left out",
                f"Write `await` before it, then retry the {self._core.noun}",
            )
        )


class Callback(Generic[T]):
    """A question that a person or a system outside answers, once; ``callback()`` makes it."""

    __slots__ = ("_core", "pending")

    def __init__(self, core: HostContext, pending: PendingCallback[T]) -> None:
        self._core = core
        self.pending = pending

    @property
    def token(self) -> str:
        """The token, 256 bits, that proves the right to answer. Hand it out by a step; it is in no span and no log."""
        return self.pending.token

    def result(self) -> Coroutine[Any, Any, T]:
        """Wait for the answer; while a saga waits it costs a row and no process.

        Returns:
            The value, of the callback's type.

        Raises:
            CallbackTimeout: no answer came in time.
            CallbackFailed: the answer is a failure.
        """
        return Operation(self._core, "callback.result()", self._answer, ())

    async def _answer(self) -> T:
        return await self._core.wait_for(self.pending)


class BodyContext:
    """The operations that every body has. Layers add theirs: ``Context`` adds steps, ``sagas.Saga`` those of sagas."""

    __slots__ = ("_core",)

    def __init__(self, core: HostContext) -> None:
        self._core = core

    @property
    def id(self) -> str:
        """The run's id."""
        return self._core.id

    @property
    def version(self) -> int:
        """The version that this run is pinned to."""
        return self._core.version

    @property
    def log(self) -> "logging.LoggerAdapter[logging.Logger]":
        """A logger that is silent while the body is replayed, so each line appears once."""
        return self._core.log

    @watched
    def now(self) -> datetime:
        """The time of the last checkpoint (aware, UTC), the same on every replay."""
        return self._core.now()

    @watched
    def uuid(self) -> UUID:
        """A random UUID, the same on every replay."""
        return self._core.uuid()

    @watched
    def random(self) -> float:
        """A number in [0, 1), the same on every replay."""
        return self._core.random()

    @watched
    def patched(self, name: str) -> bool:
        """True for runs that begin, or first reach this line, with the changed code; else False.

        Args:
            name: a name for the change. The answer is durable before the next effect, and stays the same for the rest
                of the run.
        """
        return self._core.patched(name)

    def sleep(self, span: Duration) -> Coroutine[Any, Any, None]:
        """Wait; the end of the wait is durable before it begins, and a crash does not make it longer.

        Args:
            span: how long, a timedelta or seconds, from 0.
        """
        return Operation(self._core, f"{self._core.word}.sleep(...)", self._sleep, (span,))

    async def _sleep(self, span: Duration) -> None:
        await self._core.sleep(span)

    def sleep_until(self, when: datetime) -> Coroutine[Any, Any, None]:
        """Wait until a time, or not at all if that time has passed; durable as ``sleep`` is.

        Args:
            when: an aware datetime.
        """
        return Operation(self._core, f"{self._core.word}.sleep_until(...)", self._sleep_until, (when,))

    async def _sleep_until(self, when: datetime) -> None:
        await self._core.sleep_until(when)

    def callback(
        self, name: str, type: type[T], *, timeout: Duration | None = None, heartbeat: Duration | None = None
    ) -> Coroutine[Any, Any, Callback[T]]:
        """Create a callback, which a person or system outside answers with a value of ``type``.

        Its ``token`` may be given to a step that hands it out; the callback is durable before that step begins. An
        answer that comes before the body waits for it is kept.

        Args:
            name: its name, by which it can also be answered; ``approval#2`` for a second use of the name.
            type: the type of the answer; other values are refused when they are sent.
            timeout: how long to wait from here, a timedelta or seconds; nothing extends it.
            heartbeat: also give up where neither an answer nor a heartbeat comes within this span, from here and from
                each heartbeat.

        A name or duration that cannot be used, and a ``type`` whose answers could not be read, are faults of the code:
        the run is stuck, and nothing was journalled.
        """
        what = f"{self._core.word}.callback({shown(name)}, ...)"
        return Operation(self._core, what, self._callback, (name, type, timeout, heartbeat))

    async def _callback(
        self, name: str, declared: Any, timeout: Duration | None, heartbeat: Duration | None
    ) -> Callback[Any]:
        return Callback(self._core, self._core.callback(name, declared, timeout=timeout, heartbeat=heartbeat))

    def first(self, *callbacks: Callback[Any]) -> Coroutine[Any, Any, Callback[Any]]:
        """Wait until one of the callbacks is answered, or times out.

        Args:
            callbacks: what ``callback(...)`` returned, at least one.

        Returns:
            The callback that came first by the order of the journal; ``await`` its ``result()``.
        """
        return Operation(self._core, f"{self._core.word}.first(...)", self._first, (callbacks,))

    async def _first(self, callbacks: Sequence[Any]) -> Callback[Any]:
        core = self._core
        for each in callbacks:
            if not isinstance(each, Callback):
                core.mistake(
                    DefinitionError(
                        f"{core.word}.first(...) was given {shown(each)}",
                        f"Give it what `await {core.word}.callback(...)` returned",
                    )
                )
        if not callbacks:
            core.refuse(
                Fault(
                    f"{core.title}: {core.word}.first() was given no callback, so it would wait for ever",
                    f"Give it one, then retry the {core.noun}",
                )
            )
        first: Callback[Any] = callbacks[await core.wait_for_first([callback.pending for callback in callbacks])]
        return first
