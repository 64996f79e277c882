"""Commands: what a body yields. A command does nothing by itself; the run that drives the body issues it."""

from collections.abc import Generator
from typing import TYPE_CHECKING, Any, Generic, TypeVar

if TYPE_CHECKING:
    from durable_core.replay.fibers import Fiber
    from durable_core.replay.run import Run

R_co = TypeVar("R_co", covariant=True)


class Command(Generic[R_co]):
    """An operation that a body awaits. Yields itself to the driver, which sends the answer."""

    __slots__ = ()

    def __await__(self) -> Generator[Any, Any, R_co]:
        """Hand this command to whoever drives the body."""
        return (yield self)  # type: ignore[no-any-return]

    def issue(self, run: "Run", fiber: "Fiber") -> None:  # noqa: ARG002 - each command has its own
        """Carry it out for ``fiber`` of ``run``: journal it or find it in the journal, and set what it waits for."""
        raise TypeError(f"{type(self).__name__} cannot be awaited in a body")
