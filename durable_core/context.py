"""Durable functions from the inside: the ``Context`` that their bodies are given, and how functions are bound to it.

Nothing here touches the world by itself.
"""

import functools
import inspect
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from contextlib import AbstractAsyncContextManager
from typing import Any, Concatenate, ParamSpec, TypeVar, overload

from durable_core.blocks import ChildBlock, ParallelBlock, all_of, branch_body, in_lanes
from durable_core.body import BodyContext, Operation
from durable_core.errors import DefinitionError, PayloadError
from durable_core.model.codec import Codec
from durable_core.model.declared import DeclaredStep, Step, place_of, positional
from durable_core.model.durable import Durable
from durable_core.model.duration import to_ns
from durable_core.model.shape import CallShape
from durable_core.model.spec import DurableFunction, StepSpec, is_async
from durable_core.replay.cursor import End
from durable_core.replay.host_context import HostContext
from durable_core.replay.scheduler import Branch

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")
Starts = Callable[[Any, tuple[Any, ...], dict[str, Any]], tuple[Coroutine[Any, Any, Any], str | None]]
KEPT = 1024
"""Functions whose specs are remembered; closures that are made for each call must not be kept for ever."""


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

        It is called at least once: again after a crash in it, and as often as its ``@step(retry=...)`` says. Its last
        exception is raised here, the first time and on every replay.

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
        """The spec of ``fn``; a mistake in the code stops the run before any effect."""
        try:
            return self._binder.spec(fn)
        except (DefinitionError, PayloadError) as error:
            self._core.mistake(error)

    # -- structure -------------------------------------------------------------------------------------------------

    def child(self, durable: Durable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, R]:
        """Run another durable function as a part of this run: its steps have keys under its name.

        It raises the exception that left the child's body.
        """
        if not isinstance(durable, Durable):  # pyright: ignore[reportUnnecessaryIsInstance]
            self._core.mistake(
                DefinitionError(
                    f"{durable!r} is no durable function", "Decorate it with @durable(...), or run it as a step"
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

    def parallel(self) -> "AbstractAsyncContextManager[Parallel]":
        """A block of branches that run at the same time and end together, like ``asyncio.TaskGroup``.

        After the first recorded failure no branch begins anything new, and waits end at once. Attempts in progress end
        and are recorded, and then that failure is raised.
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
            fn: a step, durable function or branch, as for ``Parallel.run``, that takes one argument.
            items: in the same order on every replay, so not a set.
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

        A branch is an ``async def`` whose first parameter is annotated ``Context``. All that is begun before the next
        ``await`` of the body starts together. Read the ``result()`` after the block.
        """
        return self._begin(*self._starts(what, args, kwargs))


class Binder:
    """Binds each function once."""

    def __init__(self, codec: Codec) -> None:
        self._codec = codec
        self._shapes: dict[Durable[..., Any], CallShape] = {}
        self._remembered = functools.lru_cache(KEPT)(self._made)

    def spec(self, what: Any) -> StepSpec:
        """The spec by which the engine runs a function, plain or decorated with ``@step``.

        Raises:
            DefinitionError: it is no function, or a step of another layer.
            PayloadError: a type of its signature cannot be stored.
        """
        try:
            hash(what)
        except TypeError:
            return self._made(what)
        return self._remembered(what)

    def shape(self, durable: Durable[..., Any]) -> CallShape:
        """How the arguments and the result of a durable function are stored."""
        if durable not in self._shapes:
            self._shapes[durable] = CallShape.of(durable.body, self._codec, skip=1)
        return self._shapes[durable]

    def function(self, durable: Durable[..., Any]) -> DurableFunction:
        """The form of a durable function that the engine drives."""
        shape = self.shape(durable)

        def body(core: HostContext, *args: Any, **kwargs: Any) -> Coroutine[Any, Any, End]:
            return _to_its_end(core, durable.body(Context(core, self), *args, **kwargs), shape)

        return DurableFunction(
            name=durable.name,
            version=durable.version,
            fn=body,
            shape=shape,
            operations=positional(durable.body)[0].name,
        )

    def _made(self, what: Any) -> StepSpec:
        declared = _declared(what)
        return StepSpec(
            name=declared.name,
            kind=declared.kind,
            fn=declared.fn,
            shape=CallShape.of(declared.fn, self._codec),
            is_async=declared.is_async,
            retry=declared.retry,
            timeout_ns=None if declared.timeout is None else to_ns(declared.timeout),
            at_most_once=declared.at_most_once,
            rejects=declared.rejects,
            unknown=declared.unknown,
        )


async def _to_its_end(core: HostContext, body: Coroutine[Any, Any, Any], shape: CallShape) -> End:
    return End(output=shape.encode_result(await body, what=f"{core.title}: the result"))


def _declared(what: Any) -> Step[..., Any]:
    if isinstance(what, Step):
        return what  # pyright: ignore[reportUnknownVariableType]
    if isinstance(what, DeclaredStep):
        raise DefinitionError(f"{what.what} is of another layer, which gives it a meaning that is unknown here")
    if isinstance(what, Durable):
        raise DefinitionError(f"the durable function {what.name!r} is no step", "Run it with `ctx.child(...)`")
    if isinstance(what, Coroutine):
        what.close()
        raise DefinitionError(
            f"{what!r} was called already, and so would be called anew on each replay",
            "Give the function and then its arguments: `ctx.step(fetch, url)`",
        )
    if not callable(what):
        raise DefinitionError(f"{what!r} is no function")
    named: Callable[..., Any] = what
    if getattr(named, "__name__", "<lambda>") == "<lambda>":
        raise DefinitionError(
            f"{what!r} ({place_of(named)}) has no name to be known by in the journal",
            'Give it one: `step(name="fetch")(...)`',
        )
    return Step(named)


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
    """The name of a branch in the keys of its steps."""
    return str(getattr(fn, "__name__", "branch")).strip("<>")
