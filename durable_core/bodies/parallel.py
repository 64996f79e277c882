"""What a durable function does at the same time: steps, other durable functions, and branches of several steps."""

from collections.abc import Awaitable, Callable, Coroutine
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar, overload

from durable_core.bodies.blocks import ParallelBlock
from durable_core.model.declared import Step
from durable_core.model.durable import Durable
from durable_core.replay.scheduler import Branch

if TYPE_CHECKING:
    from durable_core.bodies.context import Context

P = ParamSpec("P")
R = TypeVar("R")
Starts = Callable[[Any, tuple[Any, ...], dict[str, Any]], tuple[Coroutine[Any, Any, Any], str | None]]


class Parallel(ParallelBlock):
    """Branches that run at the same time; see ``Context.parallel``."""

    __slots__ = ("_starts",)

    def __init__(self, context: "Context", starts: Starts) -> None:
        super().__init__(context._core)  # noqa: SLF001  # pyright: ignore[reportPrivateUsage] - one object for users
        self._starts = starts

    @overload
    def run(self, what: Step[P, R], /, *args: P.args, **kwargs: P.kwargs) -> Branch[R]: ...
    @overload
    def run(self, what: Durable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> Branch[R]: ...
    @overload
    def run(
        self, what: "Callable[Concatenate[Context, P], Awaitable[R]]", /, *args: P.args, **kwargs: P.kwargs
    ) -> Branch[R]: ...
    @overload
    def run(self, what: Callable[P, Awaitable[R]], /, *args: P.args, **kwargs: P.kwargs) -> Branch[R]: ...
    @overload
    def run(self, what: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> Branch[R]: ...
    def run(self, what: Any, /, *args: Any, **kwargs: Any) -> Branch[Any]:
        """Begin a step, another durable function, or a branch of several steps.

        A branch is an ``async def`` whose first parameter is annotated ``Context``. What is begun before the body next
        awaits begins together. Its ``result()`` is read after the block.
        """
        return self._begin(*self._starts(what, args, kwargs))
