"""The blocks of a body: branches that begin and end together, scopes for keys, and what must not be interrupted.

Invariant: a block that is left has nothing under way in it any more.
"""

from collections.abc import Awaitable, Coroutine
from types import NoneType, TracebackType
from typing import Any, Self, TypeVar

from durable_core.errors import DefinitionError, Fault
from durable_core.model.keys import Scope, check_name
from durable_core.replay import faults
from durable_core.replay.run import Run
from durable_core.replay.scheduler import Branch, Command, Fiber, Group, Interrupted, joined, leave, open_group, shield

R = TypeVar("R")


class Branches:
    """Branches that begin and end together, like ``asyncio.TaskGroup``.

    The block ends once all have ended. After the first failure nothing new begins in any branch, what is under way ends
    and is recorded, and the first recorded failure is raised.
    """

    __slots__ = ("_fiber", "_group", "_run")

    def __init__(self, run: Run, fiber: Fiber) -> None:
        self._run = run
        self._fiber = fiber
        self._group: Group = open_group(fiber)

    def spawn(self, body: Coroutine[Any, Any, R], *, name: str | None = None, block: bool = True) -> Branch[R]:
        """Begin ``body`` once the caller next awaits. With ``name`` its steps have a scope of their own.

        ``block`` says whether it counts as nesting. A branch may begin another one while the block waits for it.
        """
        if self._group.joined and not self._group.alive:
            body.close()
            fault = Fault(
                f"{self._run.title}: a branch was begun after its block was left, where nobody would wait for it",
                f"Begin it within the block, then retry the {self._run.noun}",
            )
            self._run.fault = self._run.fault or fault
            raise fault
        try:
            scope = self._fiber.scope if name is None else self._fiber.scope.inner(check_name(name, what="a branch"))
        except DefinitionError as wrong:
            body.close()
            self._run.fault = self._run.fault or faults.mistake(self._run.identity, wrong)
            raise self._run.fault from wrong
        fiber = self._run.scheduler.spawn(self._group, body, scope)
        fiber.nesting -= int(not block)
        return Branch(fiber)

    def stop(self) -> None:
        """Let nothing new begin; ``join`` returns when what is under way has ended."""
        self._run.scheduler.stop(self._group)

    @property
    def stopped(self) -> bool:
        """Whether ``stop`` was called, or a branch has failed."""
        return self._group.stopped

    def join(self) -> Awaitable[None]:
        """Wait for all branches; raises the first recorded failure."""
        return Join(self._group)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        group, fiber = self._group, self._fiber
        leave(fiber, group)
        if fiber.interrupt is not None or not isinstance(error, (Exception, Interrupted, NoneType)):
            return  # closed from outside: everything under way in here has ended already
        if error is not None:
            if group.failure is None and isinstance(error, Exception):
                group.failure = error
            self._run.scheduler.stop(group, failed=True)
            leave(fiber, group)
        await Join(group)


class Join(Command[None]):
    """Wait until every fiber of a group has ended."""

    __slots__ = ("_group",)

    def __init__(self, group: Group) -> None:
        self._group = group

    def issue(self, run: Run, fiber: Fiber) -> None:
        """Wait, or go on at once where all have ended."""
        group = self._group
        group.joined = True
        if group.alive:
            group.joiner = fiber
            fiber.wait = self
            return
        joined(fiber, group)
        run.scheduler.ready.append((fiber, None, group.failure))

    def interrupt(self) -> bool:
        """The joining fiber is being closed: its groups have been stopped already, and their last end advances it."""
        self._group.joiner = None
        return True


class Shield:
    """See ``HostContext.shield``."""

    __slots__ = ("_fiber", "_run")

    def __init__(self, run: Run, fiber: Fiber) -> None:
        self._run = run
        self._fiber = fiber

    def __enter__(self) -> None:
        shield(self._fiber)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if not self._run.dead:
            self._run.scheduler.unshield(self._fiber)


class ScopeBlock:
    """Steps within get keys under ``name``; a block of its own, so that a prefix tells what belongs to it."""

    __slots__ = ("_depth", "_fiber", "_outer", "key", "prefix")

    def __init__(self, fiber: Fiber, name: str, *, block: bool, key: str | None = None) -> None:
        self._fiber = fiber
        self._outer = fiber.scope
        self._depth = int(block)
        fiber.nesting += self._depth
        fiber.scope = fiber.scope.inner(name) if key is None else Scope(f"{key}/")
        self.prefix = fiber.scope.prefix
        self.key = self.prefix[:-1]

    def leave(self) -> None:
        """Back to the scope outside."""
        self._fiber.nesting -= self._depth
        self._fiber.scope = self._outer
