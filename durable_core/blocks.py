"""The blocks that every layer's bodies share: branches beside each other, lanes over items, children.

Invariant: leaving a block because its run is being closed does nothing.
"""

from collections.abc import Awaitable, Callable, Coroutine, Iterable
from types import TracebackType
from typing import Any, Self, TypeVar

import msgspec

from durable_core.errors import DefinitionError, Fault
from durable_core.model.children import COMPLETED, OPENED
from durable_core.model.duration import shown
from durable_core.model.shape import CallShape
from durable_core.replay.blocks import Branches
from durable_core.replay.host_context import HostContext
from durable_core.replay.scheduler import Branch

R = TypeVar("R")


class ParallelBlock:
    """Branches that run at the same time and end together. A layer adds ``run``, which defines its branches."""

    __slots__ = ("_branches", "_core")

    def __init__(self, core: HostContext) -> None:
        self._core = core
        self._branches: Branches | None = None

    async def __aenter__(self) -> Self:
        self._branches = self._core.group()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._branches is not None:
            await self._branches.__aexit__(kind, error, traceback)

    def _begin(self, body: Coroutine[Any, Any, R], name: str | None) -> Branch[R]:
        """Begin a branch once the body next awaits; with ``name`` its steps have a scope of their own."""
        if self._branches is None:
            body.close()
            core = self._core
            core.refuse(
                Fault(
                    f"{core.title}: a branch was begun outside of its block, where nobody would wait for it",
                    f"Write `async with {core.word}.parallel() as p:`, then retry the {core.noun}",
                )
            )
        return self._branches.spawn(body, name=name)


async def in_lanes(
    core: HostContext, count: int, one: Callable[[int], Awaitable[R]], *, most: int | None = None
) -> list[R]:
    """Await ``one`` for each place from 0, at most ``most`` at a time; results by place.

    After the first failure no new place begins.
    """
    if most is not None and (type(most) is not int or most < 1):
        core.refuse(
            Fault(
                f"{core.title}: {core.word}.map(max_concurrency={shown(most)})",
                f"Give a whole number from 1, then retry the {core.noun}",
            )
        )
    results: list[Any] = [None] * count
    places = iter(range(count))

    async def lane() -> None:
        for place in places:
            results[place] = await one(place)

    async with core.group() as lanes:
        for _ in range(count if most is None else min(most, count)):
            lanes.spawn(lane())
    return results


def all_of(core: HostContext, items: Iterable[R]) -> list[R]:
    """The items of a map."""
    try:
        each = iter(items)
    except TypeError:
        core.mistake(
            DefinitionError(f"{core.word}.map(...) was given {shown(items)} for its items", "Give a list of them")
        )
    return list(each)


def branch_body(core: HostContext, branch: Any, *args: Any, **kwargs: Any) -> Coroutine[Any, Any, Any]:
    """Call an ``async def``. None of its code runs yet, so a ``TypeError`` means that the arguments do not fit."""
    try:
        body: Coroutine[Any, Any, Any] = branch(*args, **kwargs)
    except TypeError as error:
        core.mistake(DefinitionError(f"a branch cannot be called as {core.word}.parallel() and map ask: {error}"))
    return body


class ChildBlock:
    """A body that runs within another's run: its steps have keys under its name, its beginning and end are marked.

    The caller runs the body with ``args`` and ``kwargs``, and then calls ``leave``.
    """

    __slots__ = ("_core", "_scope", "_shape", "_what", "args", "due_at_ns", "key", "kwargs", "prefix")

    def __init__(
        self,
        core: HostContext,
        shape: CallShape,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        *,
        name: str,
        version: int,
        within_ns: int | None = None,
        key: str | None = None,
    ) -> None:
        self._core = core
        self._shape = shape
        self._scope = core.scope(name, block=False, key=key)
        self.key, self.prefix = self._scope.key, self._scope.prefix
        core.tags[self.prefix] = {}
        self._what = f"{core.title}, child {self.key!r}"
        try:
            payload = shape.encode(args, kwargs, what=f"{self._what}: the arguments")
        except DefinitionError as wrong:
            self.leave()
            core.mistake(wrong)
        except BaseException:
            self.leave()
            raise
        due_at_ns = None if within_ns is None else core.due_in(within_ns)
        call = {"name": name, "version": version, "input": msgspec.Raw(payload)}
        self.due_at_ns = core.mark(f"{OPENED}{self.key}", call, due_at_ns=due_at_ns)
        """Its deadline: ``within_ns`` after its journalled beginning."""
        self.args, self.kwargs = shape.decode(payload, what=f"{self._what}: the arguments")

    def stored(self, result: Any) -> bytes:
        """The body's result as it is kept.

        Raises:
            PayloadError: it cannot be stored, or not be read back as declared.
        """
        return self._shape.encode_result(result, what=f"{self._what}: the result")

    def leave(self) -> None:
        """Leave its scope, once its body is over."""
        self._scope.leave()

    def completed(self, stored: bytes) -> Any:
        """Mark the end in the journal; returns the result as the parent sees it."""
        self._core.mark(f"{COMPLETED}{self.key}", msgspec.Raw(stored))
        return self._shape.decode_result(stored, what=f"{self._what}: the result")
