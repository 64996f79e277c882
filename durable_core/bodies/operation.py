"""An operation that the body has asked for and must await.

Invariant: one that is dropped without having been awaited is a fault, found at the moment it is dropped; else a
forgotten ``await`` would silently leave a step out.
"""

import functools
from collections.abc import Awaitable, Callable, Coroutine, Generator
from types import GeneratorType
from typing import Any, Concatenate, NoReturn, ParamSpec, Protocol, TypeVar, cast

from durable_core.errors import Fault
from durable_core.replay.host_context import HostContext

R_co = TypeVar("R_co", covariant=True)


P = ParamSpec("P")
R = TypeVar("R")


class _HasCore(Protocol):
    _core: HostContext


Self = TypeVar("Self", bound=_HasCore)


def watched(method: "Callable[Concatenate[Self, P], R]") -> "Callable[Concatenate[Self, P], R]":
    """A plain call of the body's whose own errors are faults: the body must not take them for a failure of its step."""

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
        """A coroutine for type checkers only, so that they report a forgotten ``await``; it is never driven by hand."""
        raise TypeError(f"{self._what} is awaited, not driven by hand")

    def throw(self, *error: object) -> NoReturn:  # noqa: ARG002
        """As ``send``."""
        raise TypeError(f"{self._what} is awaited, not driven by hand")

    def close(self) -> None:
        """It is not going to be awaited, on purpose."""
        self._begin = None

    def __del__(self) -> None:
        if getattr(self, "_begin", None) is None or self._fiber.done or self._fiber.interrupt is not None:
            return  # awaited, or left because its body has failed or is being closed
        self._core.blame(
            Fault(
                f"run {self._core.id}: {self._what} was called without await, so it would be left out. "
                "Write `await` before it, then retry the run"
            )
        )
