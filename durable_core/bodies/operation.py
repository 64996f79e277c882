"""An operation that the body has asked for and must await.

Invariant: one that is dropped without having been awaited is a fault, found at the moment it is dropped; else a
forgotten ``await`` would silently leave a step out.
"""

from collections.abc import Awaitable, Callable, Coroutine, Generator
from types import GeneratorType
from typing import Any, NoReturn, TypeVar, cast

from durable_core.errors import Fault
from durable_core.runtime.primitives import Primitives

R_co = TypeVar("R_co", covariant=True)


class Operation(Coroutine[Any, Any, R_co]):
    """Awaitable once; does nothing before it is awaited.

    Raises:
        DefinitionError: made outside of a body, perhaps in a step.
    """

    __slots__ = ("_args", "_begin", "_core", "_fiber", "_what")

    def __init__(
        self,
        core: Primitives,
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
        begun = begin(*self._args)
        # A generator is an object less than a coroutine with its iterator: worth it where it is made for every step.
        return begun if isinstance(begun, GeneratorType) else cast("Awaitable[R_co]", begun).__await__()

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
        if getattr(self, "_begin", None) is None or self._fiber.done or self._fiber.signal is not None:
            return  # awaited, or left because its body has failed or is being closed
        self._core.blame(
            Fault(
                f"run {self._core.id}: {self._what} was called without await, so it would be left out. "
                "Write `await` before it, then retry the run"
            )
        )
