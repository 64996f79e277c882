"""What the body of a durable function is given: its operations. None touches the world by itself."""

import functools
import inspect
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar, overload

from durable_core.bodies.blocks import ChildBlock, all_of, branch_body, in_lanes
from durable_core.bodies.body import BodyContext
from durable_core.bodies.operation import Operation
from durable_core.bodies.parallel import Parallel
from durable_core.errors import DefinitionError, PayloadError
from durable_core.model.declared import Step, positional
from durable_core.model.durable import Durable
from durable_core.model.spec import StepSpec, is_async
from durable_core.replay.host_context import HostContext

if TYPE_CHECKING:
    from durable_core.bodies.binding import Binder

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")


class Context(BodyContext):
    """The operations of one durable function. A body awaits these and nothing else."""

    __slots__ = ("_binder", "_version")

    def __init__(self, core: HostContext, binder: "Binder", version: int | None = None) -> None:
        super().__init__(core)
        self._binder = binder
        self._version = core.version if version is None else version

    @property
    def version(self) -> int:
        """The version of this function: the run's, or the child's own."""
        return self._version

    # -- steps -----------------------------------------------------------------------------------------------------

    @overload
    def step(self, fn: Step[P, R], /, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, R]: ...
    @overload
    def step(self, fn: Callable[P, Awaitable[R]], /, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, R]: ...
    @overload
    def step(self, fn: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, R]: ...
    def step(self, fn: Any, /, *args: Any, **kwargs: Any) -> Coroutine[Any, Any, Any]:
        """Run a function and keep its result: a checkpoint. An ``async def`` runs on the loop, a ``def`` on a thread.

        It is called at least once: again after a crash in it, and as often as its ``@step(retry=...)`` says. What it
        raised last is raised here, first time and on every replay.

        Args:
            fn: a function, or one decorated with ``@step(...)`` for a retry policy, a timeout and the like.
            *args: its arguments; they are kept in the journal.
            **kwargs: likewise.
        """
        spec = self._spec(fn)
        return Operation(self._core, f"{self._core.word}.step({spec.name}, ...)", self._step, (spec, args, kwargs))

    async def _step(self, spec: StepSpec, args: tuple[Any, ...], kwargs: dict[str, Any], key: str | None = None) -> Any:
        return await self._core.perform(spec, args, kwargs, key=key)

    def _spec(self, fn: Any) -> StepSpec:
        """What to run for ``fn``; a mistake in the code stops the run before any effect."""
        try:
            return self._binder.spec(fn)
        except (DefinitionError, PayloadError) as error:
            self._core.mistake(error)

    # -- structure -------------------------------------------------------------------------------------------------

    def child(self, durable: Durable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, R]:
        """Run another durable function as a part of this run: its steps have keys under its name.

        It raises what left the child's body.
        """
        if not isinstance(durable, Durable):  # pyright: ignore[reportUnnecessaryIsInstance]
            self._core.mistake(
                DefinitionError(
                    f"{durable!r} is no durable function; decorate it with @durable(...), or run it as a step"
                )
            )
        what = f"{self._core.word}.child({durable.name!r}, ...)"
        return Operation(self._core, what, self._child, (durable, args, kwargs))

    async def _child(self, durable: Durable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        shape = self._binder.shape(durable)
        child = ChildBlock(self._core, shape, args, kwargs, name=durable.name, version=durable.version)
        try:
            context = Context(self._core, self._binder, durable.version)
            stored = child.stored(await durable.body(context, *child.args, **child.kwargs))
        finally:
            child.leave()
        return child.completed(stored)

    def parallel(self) -> AbstractAsyncContextManager[Parallel]:
        """A block of branches that run at the same time and end together, like ``asyncio.TaskGroup``.

        After the first recorded failure nothing new begins in any branch, waits end at once, what is in flight ends and
        is recorded, and that failure is raised.
        """
        return Parallel(self, self._begun)

    def _begun(
        self, what: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[Coroutine[Any, Any, Any], str | None]:
        """A branch, and the name of its scope; a single step has its key now, in the order of the calls."""
        if isinstance(what, Durable):
            return self._child(what, args, kwargs), None  # pyright: ignore[reportUnknownArgumentType]
        if takes_context(what):
            return branch_body(self._core, what, self, *args, **kwargs), branch_name(what)
        spec = self._spec(what)
        return self._step(spec, args, kwargs, self._core.claim_key(spec.name)), None

    @overload
    def map(
        self, fn: Step[Concatenate[T, ...], R], items: Iterable[T], /, *, max_concurrency: int | None = None
    ) -> Coroutine[Any, Any, list[R]]: ...
    @overload
    def map(
        self, fn: Durable[Concatenate[T, ...], R], items: Iterable[T], /, *, max_concurrency: int | None = None
    ) -> Coroutine[Any, Any, list[R]]: ...
    @overload
    def map(
        self,
        fn: "Callable[[Context, T], Awaitable[R]]",
        items: Iterable[T],
        /,
        *,
        max_concurrency: int | None = None,
    ) -> Coroutine[Any, Any, list[R]]: ...
    @overload
    def map(
        self, fn: Callable[[T], Awaitable[R]], items: Iterable[T], /, *, max_concurrency: int | None = None
    ) -> Coroutine[Any, Any, list[R]]: ...
    @overload
    def map(
        self, fn: Callable[[T], R], items: Iterable[T], /, *, max_concurrency: int | None = None
    ) -> Coroutine[Any, Any, list[R]]: ...
    def map(self, fn: Any, items: Iterable[Any], /, *, max_concurrency: int | None = None) -> Coroutine[Any, Any, Any]:
        """Run a step, durable function or branch for each item; results in the order of the items.

        Args:
            fn: what ``Parallel.run`` takes, with one argument.
            items: in an order that is the same on every replay, so no set.
            max_concurrency: how many at a time; default all.
        """
        return Operation(self._core, f"{self._core.word}.map(...)", self._map, (fn, items, max_concurrency))

    async def _map(self, fn: Any, items: Iterable[Any], max_concurrency: int | None) -> list[Any]:
        core = self._core
        given = all_of(core, items)
        if isinstance(fn, Durable) or takes_context(fn):
            return await in_lanes(core, len(given), lambda place: self._one(fn, given[place]), most=max_concurrency)
        spec = self._spec(fn)
        keys = [core.claim_key(spec.name) for _ in given]
        return await in_lanes(
            core, len(given), lambda place: self._step(spec, (given[place],), {}, keys[place]), most=max_concurrency
        )

    async def _one(self, fn: Any, item: Any) -> Any:
        body, name = self._begun(fn, (item,), {})
        if name is None:
            return await body
        scope = self._core.scope(name, block=False)
        try:
            return await body
        finally:
            scope.leave()


@functools.lru_cache(1024)
def _takes_context(fn: Any) -> bool:
    if isinstance(fn, Step) or not is_async(fn):
        return False
    parameters = positional(fn)
    declared = parameters[0].annotation if parameters else None
    if isinstance(declared, str):
        try:
            declared = inspect.signature(fn, eval_str=True).parameters[parameters[0].name].annotation
        except (NameError, TypeError, AttributeError, SyntaxError):
            return str(declared).rpartition(".")[2] == Context.__name__
    return declared is Context


def takes_context(fn: Any) -> bool:
    """Whether ``fn`` is a branch: an ``async def`` whose first parameter is annotated ``Context``."""
    try:
        return _takes_context(fn)
    except TypeError:  # unhashable, or without a signature: no branch
        return False


def branch_name(fn: Any) -> str:
    """What a branch is called in the keys of its steps."""
    return str(getattr(fn, "__name__", "branch")).strip("<>")
